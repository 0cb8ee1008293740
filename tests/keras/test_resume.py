"""The recipe of docs/feeding.md: killed by SIGKILL in mid-epoch and started again, it ends with the same weights."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.keras

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

READER = """
import os, signal, sys
os.environ["KERAS_BACKEND"], to_kill, code = sys.argv[1], int(sys.argv[2]), sys.argv[3]
import keras
import gpuseq
from gpuseq.keras import SaveState

asked = []
trained = SaveState.on_train_batch_end

def watched(self, batch, logs=None):
    trained(self, batch, logs)
    asked.append(self._last)
    if len(asked) == to_kill:
        os.kill(os.getpid(), signal.SIGKILL)

SaveState.on_train_batch_end = watched

def build_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Rescaling(1 / 255), keras.layers.GlobalAveragePooling2D(),
         keras.layers.Dense(3, "softmax")]
    )
    model.compile("adam", "categorical_crossentropy")  # which has a state of its own
    return model

def run():
    asked.clear()
    names = {"build_model": build_model}
    exec(code, names)
    return list(asked), [weight.tobytes() for weight in names["model"].get_weights()]

taken, weights = run()
os.rename("run", "resumed")
os.mkdir("run")
whole, expected = run()
print("first", taken[0], "of", len(taken))
assert len(whole) == 5 * 3, whole
assert taken == whole[-len(taken):], (taken, whole)
assert weights == expected, "the weights differ"
assert sorted(os.listdir("run")) == ["model-5-0.keras", "state.json"], os.listdir("run")
print("equal")
"""


@pytest.mark.parametrize(
    "backend", ["torch", "jax", pytest.param("tensorflow", marks=pytest.mark.frameworks("tensorflow"))]
)
def test_a_killed_process_goes_on(
    backend: str,
    tmp_path: Path,
) -> None:
    (code,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```", (DOCS / "feeding.md").read_text(), re.MULTILINE | re.DOTALL)
        if "restore()" in block
    )
    assert "save_freq=100," in code
    # Two batches of 32 photographs and one of fewer, in an epoch.
    code = code.replace("save_freq=100,", "save_freq=2,").replace("epochs=5,", "epochs=5, verbose=0,")
    code = code.replace("epochs=epoch + 1,", "epochs=epoch + 1, verbose=0,")
    rng = np.random.default_rng(0)
    for number in range(75):
        folder = tmp_path / "photos" / "train" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "run").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GPUSEQ_DEVICE": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(to_kill: int) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", READER, backend, str(to_kill), code]
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    killed = start(5)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == ["model-1-1.keras", "state.json"], "saved after batches 2 and 4"
    (tmp_path / "run" / ".model-1-2-0123456789ab.keras").write_bytes(b"half a model")
    done = start(-1)
    assert done.returncode == 0, done.stderr
    assert "first (1, 1) of 11" in done.stdout
    assert done.stdout.endswith("equal\n")
