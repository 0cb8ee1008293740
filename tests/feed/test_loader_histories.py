"""Whatever happened to a loader before: each batch of an epoch once. See `tests.feed.loader_histories`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
HISTORIES = int(os.environ.get("GPUSEQ_HISTORIES", "60"))


@pytest.mark.parametrize("kind", ["plain", pytest.param("stateful", marks=pytest.mark.frameworks("torchdata"))])
def test_each_batch_of_an_epoch_comes_once_whatever_happened_before(kind: str) -> None:
    """Epochs set, passes left, exceptions, states saved and loaded, with worker processes and without."""
    command = [sys.executable, "-m", "tests.feed.loader_histories", kind, str(HISTORIES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + 10 * HISTORIES, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    counted = re.search(rf"(\d+) histories of {kind}", done.stdout)
    assert counted is not None
    assert int(counted[1]) > HISTORIES, "the known ones, and those generated"
