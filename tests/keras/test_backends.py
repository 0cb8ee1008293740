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
def test_the_scenario(
    backend: str, tmp_path: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    # Each of its models is like others before it: XLA compiles what is alike once, where it may keep it.
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = run_script(SCENARIO, backend, **kept)
    assert done.stdout.count("passed check_") == SCENARIO.count("\ndef check_")
