"""Every test marked ``gpu`` runs once without one: see `rehearsal`. What it cannot try is named, with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import gpu_tests
from tests.standin.ptx import compiler
from tests.standin.rehearsal import NOT_REHEARSED, SAMPLED, VARIABLE

ROOT = Path(__file__).resolve().parents[2]
KERNELS = "tests/ops/cuda/"
FILES = gpu_tests.test_files()
PARTS = {
    "kernels": [name for name in FILES if name.startswith(KERNELS)],
    "everything else": [name for name in FILES if not name.startswith(KERNELS)],
}
pytest.importorskip("scipy")
pytest.importorskip("keras")


@pytest.mark.parametrize("part", PARTS)
def test_the_gpus_tests_pass_on_the_stand_in(
    part: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    written = tmp_path / "said.json"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environ.pop("GPUSEQ_TEST_SEED", None)  # which cases are its samples goes by the files' order
    # The kernels as NVRTC compiles them, where it is installed; what is above them, on g++'s code.
    engine = "ptx" if part == "kernels" and compiler.is_installed() else "1"
    environ |= {VARIABLE: engine, "GPUSEQ_REHEARSAL_JSON": str(written), "GPUSEQ_REQUIRE_GPU": "1"}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *PARTS[part]]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    said = json.loads(written.read_text())
    record_property("kernel_launches", said["num_launches"])
    print(run.stdout[run.stdout.index("rehearsal on the stand-in") :])
    assert said["failed"] == []
    assert said["skipped"] == {}, "add it to NOT_REHEARSED, with the reason"
    least = {"kernels": (130, 3000, 30_000), "everything else": (100, 400, 5000)}
    least_tests, least_launches, least_checked = least[part]
    assert len(said["passed"]) >= least_tests
    assert said["num_launches"] >= least_launches
    assert said["checked"] >= least_checked
    mine = [name for name in NOT_REHEARSED if name.startswith(KERNELS) == (part == "kernels")]
    assert sorted(said["refused"]) == sorted(mine), "NOT_REHEARSED names a test that is not there"
    sampled = {name.partition("[")[0] for name in said["left_out"]}
    assert sampled == {name for name in SAMPLED if name.startswith(KERNELS) == (part == "kernels")}
