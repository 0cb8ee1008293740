"""Session rules: the Keras backend, what a missing GPU means, and a line that counts what it cost."""

from __future__ import annotations

import importlib.util
import os

# Keras reads its backend once, at import; every backend gives the same NumPy iterators.
os.environ.setdefault("KERAS_BACKEND", "torch")

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from gpuseq import compat
from tests.cuda import rehearsal

# The same examples on every machine and in every run: a suite that passes today passes tomorrow.
settings.register_profile("gpuseq", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gpuseq"))

REQUIRE_GPU = "GPUSEQ_REQUIRE_GPU"
REQUIRE_FRAMEWORKS = "GPUSEQ_REQUIRE_FRAMEWORKS"
_skipped_for_want_of_a_gpu: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Put the stand-ins in a GPU's place where that is asked for: see `tests.cuda.rehearsal`."""
    if rehearsal.ENABLED:
        rehearsal.install()
        config.pluginmanager.register(rehearsal.Rehearsal())


def _required(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``gpu`` or ``frameworks`` where they are not there, or fail it where they were promised."""
    missing = [
        name for marker in item.iter_markers("frameworks") for name in marker.args if not importlib.util.find_spec(name)
    ]
    if missing:
        if _required(REQUIRE_FRAMEWORKS):
            pytest.fail(f"{REQUIRE_FRAMEWORKS} is set, but there is no {', '.join(missing)}", pytrace=False)
        pytest.skip(f"not installed: {', '.join(missing)} (the frameworks extra brings it)")
    if item.get_closest_marker("gpu") is None:
        return
    problem = compat.gpu_problem()
    if problem is None:
        return
    if _required(REQUIRE_GPU):
        pytest.fail(f"{REQUIRE_GPU} is set, but {problem}", pytrace=False)
    _skipped_for_want_of_a_gpu.append(item.nodeid)
    pytest.skip(f"no GPU: {problem}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much of the suite a machine without a GPU left out, and how many kernels the CPU ran in its place."""
    if _skipped_for_want_of_a_gpu:
        terminalreporter.write_line(
            f"{len(_skipped_for_want_of_a_gpu)} test(s) skipped for want of a GPU "
            f"(set {REQUIRE_GPU}=1 to make that a failure)"
        )
    reports = [report for several in terminalreporter.stats.values() for report in several]
    torn_down = [report for report in reports if getattr(report, "when", None) == "teardown"]
    launches = [value for report in torn_down for name, value in report.user_properties if name == "kernel_launches"]
    if launches:
        terminalreporter.write_line(f"{sum(launches)} kernels run on the CPU, in {len(launches)} tests")


@pytest.fixture(autouse=True)
def _global_stream() -> Iterator[None]:
    """Give every test NumPy's global stream in a known state, and take its traces away after it."""
    before = np.random.get_state()
    np.random.seed(20240229)
    yield
    np.random.set_state(before)


@pytest.fixture
def untouched_global_stream() -> Iterator[None]:
    """Fail a test that moved NumPy's global stream."""
    before = np.random.get_state()
    yield
    after = np.random.get_state()
    assert before[0] == after[0], "another bit generator was installed"
    np.testing.assert_array_equal(before[1], after[1], err_msg="the global NumPy stream was reseeded or advanced")
    assert before[2:] == after[2:], "the global NumPy stream was advanced"
