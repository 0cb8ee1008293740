"""Threads of the package: which are alive, and until they are not."""

from __future__ import annotations

import gc
import threading
import time

__all__ = ["alive", "wait_for_end"]

PATIENCE = 120.0
"""Seconds: far more than a thread takes to end on any machine, for one that never would."""


def alive(prefix: str) -> list[str]:
    """Return the names of the threads that live and whose names begin so."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


def wait_for_end(prefix: str) -> None:
    """Wait until no such thread lives; what nobody holds any more is collected, those of earlier tests, too."""
    deadline = time.monotonic() + PATIENCE
    while left := alive(prefix):
        assert time.monotonic() < deadline, f"threads are left: {left}"
        gc.collect()
        time.sleep(0.01)
