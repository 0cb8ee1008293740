"""What the interpreter complains of."""

from __future__ import annotations

__all__ = ["LaunchError", "PtxError", "PtxSyntaxError", "UnknownInstructionError"]


class PtxError(Exception):
    """Anything that is wrong with a PTX text or with what it does."""


class PtxSyntaxError(PtxError):
    """A text that this interpreter does not read.

    Attributes
    ----------
    line : int
        Line of the PTX text, from 1.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"PTX line {line}: {problem}")
        self.line = line


class UnknownInstructionError(PtxSyntaxError):
    """An instruction, or a modifier of one, that is not in the catalogue of ``core/instructions.h``."""


class LaunchError(PtxError):
    """What a launch did wrong.

    Attributes
    ----------
    line : int
        Line of the PTX text, or 0 where it is no one instruction's fault.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line
