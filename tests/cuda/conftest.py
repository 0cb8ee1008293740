"""Counts the kernels that a test runs on the CPU; `tests/conftest.py` adds them up for the last lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cuda import host_runner


@pytest.fixture(autouse=True)
def _counted(record_property: Callable[[str, object], None]) -> Iterator[None]:
    before = host_runner.num_launches()
    yield
    if host_runner.num_launches() > before:
        record_property("kernel_launches", host_runner.num_launches() - before)
