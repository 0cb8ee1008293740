"""What a round is checked by: which samples a batch holds, how often each came, and what a process has left behind."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Belongings", "TroubleError", "check_each", "grown", "numbers_of", "resident_bytes"]


class TroubleError(AssertionError):
    """Something was lost, doubled, mixed, hung, or has grown."""


def numbers_of(images: np.ndarray) -> list[int]:
    """Return whose images these are: each is of one colour, whose first channel is the sample's number.

    Raises
    ------
    TroubleError
        If an image has pixels of another one, or of none.
    """
    first = images[:, :1, :1]
    if not np.abs(images - first).max(initial=0.0) < 0.01:
        raise TroubleError("an image holds pixels of two colours: it is a mixture of two files")
    levels = first[:, 0, 0, 0]
    numbers = np.rint(levels).astype(int)
    if not np.abs(levels - numbers).max(initial=0.0) < 0.01:
        raise TroubleError(f"no sample has these levels: {levels.tolist()}")
    found: list[int] = numbers.tolist()
    return found


def check_each(found: Iterable[int], wanted: Iterable[int], times: int, what: str) -> None:
    """Raise `TroubleError` unless each wanted sample was found so many times, and no other one.

    Parameters
    ----------
    found, wanted : iterable of int
        Numbers of samples.
    times : int
        How often each is due.
    what : str
        What they were found in, for the message.
    """
    counted = Counter(found)
    expected = dict.fromkeys(wanted, times)
    lost = {number: counted[number] for number in expected if counted[number] < times}
    doubled = {number: count for number, count in counted.items() if count > expected.get(number, 0)}
    if lost or doubled:
        raise TroubleError(f"{what}: of samples due {times} times came fewer of {lost} and more of {doubled}")


class Belongings:
    """What a process holds: threads, descriptors, child processes, files in a folder. `check` finds what was added.

    Parameters
    ----------
    folder : pathlib.Path
        Where the rounds write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = self._held()

    def _held(self) -> dict[str, int]:
        gc.collect()  # a file or a thread that ends with the object that owns it is not left behind
        return {
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "child processes": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
            "files": sum(1 for _ in self._folder.rglob("*")),
        }

    def check(self, patience: float = 10.0) -> None:
        """Raise `TroubleError` if more is held than at the start, and stays so.

        Parameters
        ----------
        patience : float
            Seconds that a thread may take to end.
        """
        deadline = time.monotonic() + patience
        while True:
            held = self._held()
            before = self._before.items()
            more = [f"{held[name]} {name} instead of {count}" for name, count in before if held[name] > count]
            if not more:
                return
            if time.monotonic() > deadline:
                raise TroubleError(f"left behind: {', '.join(more)}")
            time.sleep(0.05)


def grown(sizes: Sequence[int]) -> str | None:
    """Say whether the resident memory of so many rounds has grown; None if not, or if they are too few to tell.

    The first tenth is the allocator's, which settles; the last tenth must not lie above the one after it by more than a
    tenth and 16 MiB.

    Parameters
    ----------
    sizes : sequence of int
        Bytes, one for each round.
    """
    tenth = len(sizes) // 10
    if tenth < 5:
        return None
    early, late = statistics.median(sizes[tenth : 2 * tenth]), statistics.median(sizes[-tenth:])
    if late <= 1.1 * early + 2**24:
        return None
    return f"resident memory went from {early / 2**20:.0f} MiB to {late / 2**20:.0f} MiB in {len(sizes)} rounds"


def resident_bytes() -> int:
    """Return this process' resident memory."""
    pages: Any = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
