"""What this process has run in a GPU's place: kernels, by what runs them, and files, by what decodes them.

The one count of it. Tests and rehearsals take what was there before and what is there after.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["COMPILED", "DECODED", "INTERPRETED", "Work", "add", "done", "num_decodes", "num_launches"]

COMPILED, INTERPRETED = "g++", "PTX"
DECODED = "decoded"

Work = Counter[tuple[str, str]]
"""(A kernel, or `DECODED`; what ran it) -> how often, and for files, how many."""

_done: Work = Counter()


def add(what: str, by: str, times: int = 1) -> None:
    """Count a launch, or files that were decoded."""
    _done[what, by] += times


def done() -> Work:
    """Return what was done until now."""
    return Counter(_done)


def num_launches(by: str | None = None) -> int:
    """Return how many kernels have run: by g++'s code, as interpreted PTX, or in either way."""
    return sum(times for (what, engine), times in _done.items() if what != DECODED and by in (None, engine))


def num_decodes() -> int:
    """Return how many files were decoded "on a device"."""
    return sum(times for (what, _), times in _done.items() if what == DECODED)
