"""Forked children for tests of what becomes of locks and threads in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest


def needs_fork(test: Any) -> Any:
    """Skip a test where there is no fork; what newer Pythons say of one beside threads is what is tested."""
    test = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")(test)


def in_a_child(holds: Callable[[], bool]) -> bool:
    """Return whether something holds in a forked child."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = 0 if holds() else 1
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0
