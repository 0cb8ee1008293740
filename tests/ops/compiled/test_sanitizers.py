"""The catalogue through the compiled engine under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import compiled_library

ROOT = Path(__file__).resolve().parents[3]


def run_sanitized(*arguments: str) -> subprocess.CompletedProcess[str]:
    compiled_library.require()
    compiler = compiled_library.builder().compiler()
    runtime = subprocess.run([*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = os.environ | {
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "GPUSEQ_NUM_THREADS": "2",
    }
    command = [sys.executable, "-m", "tests.ops.compiled.sanitized", "address", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)


def test_the_sanitizers_find_nothing() -> None:
    run = run_sanitized()
    assert run.returncode == 0, run.stderr[-4000:]
    counted = re.fullmatch(r"(\d+) runs under the sanitizer\n", run.stdout)
    assert counted, run.stdout
    assert int(counted[1]) > 400


def test_the_sanitizers_are_awake() -> None:
    """A source row that does not exist is read past the end of the array: the run has to die of it."""
    run = run_sanitized("--overrun")
    if not run.stderr:
        pytest.fail("nothing was reported")
    assert run.returncode != 0
    assert "AddressSanitizer" in run.stderr
