"""The errors that gpuseq raises beyond Python's own ``ValueError`` and ``TypeError``; optional packages or theirs."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from .forks import forks_wait

__all__ = [
    "BatchIndexError",
    "DeviceError",
    "EmptyBatchError",
    "GpuseqError",
    "ImageFileError",
    "MissingDependencyError",
    "StorageError",
    "require",
]


class GpuseqError(Exception):
    """Base class: catch it to catch everything that is gpuseq's own."""


class MissingDependencyError(GpuseqError, ImportError):
    """An optional package is needed and absent; the message names it and the command that installs it."""


class DeviceError(GpuseqError, RuntimeError):
    """The asked-for device cannot be used; the message says what was looked for and how to go on."""


class ImageFileError(GpuseqError, OSError):
    """An image file could not be read or decoded.

    Parameters
    ----------
    path : str or os.PathLike
        The file, as the caller named it.
    reason : str
        Why it failed, in one clause without the path.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"{self.path!r}: {reason}")

    def __reduce__(self) -> tuple[type[ImageFileError], tuple[str, str]]:
        # Exceptions are pickled by `args`, which is the finished message here; the constructor takes two arguments. The
        # error has to cross from a DataLoader's or Ray's worker to the process that reports it.
        return type(self), (self.path, self.reason)


class EmptyBatchError(ImageFileError):
    """Bad files were to be passed over, and nothing of the batch was left.

    ``next()``, loaders, `to_device` and ``fit`` go on to the next batch; ``iterator[i]`` raises it.
    """


class StorageError(GpuseqError, OSError):
    """A file was asked for, and access was refused, or its disk, store or network did not answer.

    It says nothing about the file, so no `on_error` passes over it: an expired token is not 2,000 bad files.

    Parameters
    ----------
    path : str or os.PathLike
        The file, as the caller named it.
    reason : str
        Why it was not read, in one clause without the path.
    attempts : int
        How often it was asked for.
    seconds : float
        How long that took in all.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, attempts: int = 1, seconds: float = 0.0) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        self.attempts = attempts
        self.seconds = seconds
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts in {seconds:.0f} s"
        super().__init__(
            f"{self.path!r}: {reason} ({tries}). This is about access, not about the file, so on_error does not pass "
            "over it"
        )

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, str, int, float]]:
        # As in ImageFileError: the arguments of the constructor, not the message.
        return type(self), (self.path, self.reason, self.attempts, self.seconds)


class BatchIndexError(IndexError, ValueError):
    """A batch index outside the epoch: an IndexError to Python, a ValueError to code written for Keras."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package or say how to get it.

    Parameters
    ----------
    module : str
        Dotted module name.
    extra : str
        The extra of gpuseq that brings it.
    purpose : str
        What needs it, as the start of the message.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.
    """
    try:
        # On whatever thread: of a half-done import a forked child would wait for the end, for ever.
        with forks_wait(f"the import of {module}"):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        # A package that is there and cannot import something of its own is another fault: it is not cured by an
        # installation of the package, so its own error stands.
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise MissingDependencyError(
            f"{purpose} needs the package {top!r}, which is not installed. "
            f'Install it with: pip install "gpuseq[{extra}]"'
        ) from None
