"""``model.fit`` on each backend that is installed, each in a process of its own: see keras_scenario.py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.keras

SCENARIO = Path(__file__).with_name("scenario.py").read_text()


@pytest.mark.parametrize(
    "backend", ["torch", "jax", pytest.param("tensorflow", marks=pytest.mark.frameworks("tensorflow"))]
)
def test_the_scenario(backend: str, run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_script(SCENARIO, backend)
    assert done.stdout.count("passed check_") == SCENARIO.count("\ndef check_")
