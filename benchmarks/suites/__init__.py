"""One module per suite; each has ``run(settings) -> list of rows``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmarks.measure import Row, Settings

__all__ = ["SUITES", "suite"]

SUITES = (
    *("arrays", "engines", "cost", "modern", "policies", "folder"),
    *("host", "feed", "imports", "memory", "growth", "kernel"),
)


def suite(name: str) -> Callable[[Settings], list[Row]]:
    """Return the function that runs a suite."""
    run: Callable[[Settings], list[Row]] = importlib.import_module(f".{name}", __name__).run
    return run
