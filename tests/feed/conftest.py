"""What the tests of this folder share: Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python source in a process of its own, from the repository's root, and fail if it fails."""

    def run(source: str, *args: str, python: tuple[str, ...] = (sys.executable,), **environment: str) -> Any:
        path = tmp_path / f"script_{abs(hash(source))}.py"
        path.write_text(source)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "OMPI_"))}
        env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
        done = subprocess.run(
            [*python, str(path), *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done

    return run
