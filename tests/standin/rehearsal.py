"""A rehearsal of the tests marked ``gpu`` where there is no GPU: ``GPUSEQ_GPU_STANDIN=1 python -m pytest -m gpu``.

With ``GPUSEQ_GPU_STANDIN=ptx`` the kernels are what NVRTC compiles, interpreted, and with ``1`` what g++ does.
They run as they are, on the stand-in for CuPy (`cupy`) and on a torch that takes its CPU for a GPU
(`torch`). What is written wrong shows here and not on a machine that is there for half an hour. What cannot be
tried this way is listed by name, with the reason. ``tests/standin/test_rehearsal.py`` runs it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.standin.process import ENABLED, VARIABLE, interprets

__all__ = ["ENABLED", "NOT_REHEARSED", "SAMPLED", "VARIABLE", "Rehearsal", "scaled"]

NOT_REHEARSED = {
    "tests/ops/cuda/test_gpu_device.py::test_a_batch_larger_than_two_to_the_31_values": "the stand-in has less memory",
}
"""Test -> why it can be tried on a GPU only."""

SAMPLED = {
    "tests/iterators/test_parity_arrays.py::test_arrays_on_a_device": 8,
    "tests/iterators/test_parity_folders.py::test_folders_on_a_device": 6,
    "tests/iterators/test_gpu_walks.py::test_arrays": 3,
    "tests/iterators/test_gpu_walks.py::test_folders": 3,
    "tests/ops/cuda/test_gpu_catalogue.py::test_the_answer_does_not_depend_on_the_launch": 4,
    "tests/ops/cuda/test_gpu_catalogue.py::test_resize_equals_pillow": 2,
}
"""Test -> every how manieth of its cases runs: the kernels are slow on a CPU."""


def scaled(amount: int, rehearsed: int) -> int:
    """Return how much of something a test does: less in a rehearsal."""
    return rehearsed if ENABLED else amount


class Rehearsal:
    """The pytest plugin."""

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self.refused: dict[str, str] = {}
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.skipped: dict[str, str] = {}
        self.num_launches = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take out what cannot be rehearsed, and most of what is slow."""
        seen: dict[str, int] = {}
        kept, dropped = [], []
        for item in items:
            name = item.nodeid.partition("[")[0]
            every = SAMPLED.get(name, 1)
            number = seen[name] = seen.get(name, -1) + 1
            if name in NOT_REHEARSED:
                self.refused[name] = NOT_REHEARSED[name]
                dropped.append(item)
            elif number % every:
                self.left_out.append(item.nodeid)
                dropped.append(item)
            else:
                kept.append(item)
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count."""
        if report.skipped:
            self.skipped[report.nodeid] = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
        elif report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call":
            self.passed.append(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was rehearsed and what was not; write it down where asked to."""
        from tests.standin import streams as standin_streams
        from tests.standin import work

        self.num_launches = work.num_launches(work.INTERPRETED if interprets() else work.COMPILED)
        say = terminalreporter.write_line
        say(
            f"rehearsal on the stand-in: {len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.skipped)} skipped, {len(self.left_out)} left out as samples; {self.num_launches} kernel "
            f"launches; {standin_streams.timeline().num_checked} accesses found in order"
        )
        for name, reason in {**self.refused, **self.skipped}.items():
            say(f"  only on a GPU: {name}: {reason}")
        if path := os.environ.get("GPUSEQ_REHEARSAL_JSON"):
            Path(path).write_text(json.dumps({**vars(self), "checked": standin_streams.timeline().num_checked}))
