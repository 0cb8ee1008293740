"""The training job: killed and resumed it ends with the weights of the run that was left alone, bit for bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "docker" / "train.py"
NUM_STEPS = 12  # 24 images, 2 ranks of 2 images per step, 2 epochs

pytest.importorskip("torch", reason="the test extra brings it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 120), ("middle", 60)):
        (root / name).mkdir()
        for number in range(8):
            pixels = random.integers(low, low + 130, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def start(
    folder: Path, out: Path, *more: str, num_processes: int = 2, restarts: int = 0, **environment: str
) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    launcher += ["--max-restarts", str(restarts)]
    arguments = ["--device", "cpu", "--epochs", "2", "--batch-size", str(4 // num_processes), "--image-size", "16"]
    arguments += ["--width", "4", "--save-every", "4", "--deterministic", "--data", str(folder)]
    arguments += ["--checkpoint", str(out / "checkpoint.pt"), "--log-file", str(out / "log.jsonl"), *more]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("GPUSEQ_", "TORCHELASTIC", "SLURM"))
    }
    return subprocess.Popen(
        [sys.executable, *(launcher if num_processes > 1 else []), str(JOB), *arguments],
        env=clean | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GPUSEQ_NUM_THREADS": "1"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, output


def steps(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(value, dict):
        for key in value:
            yield from flat(value[key], f"{name}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from flat(item, f"{name}.{index}")
    elif isinstance(value, torch.Tensor):
        yield name, (value.dtype, tuple(value.shape), value.numpy().tobytes())
    else:
        yield name, value


def checkpoint(out: Path) -> dict[str, Any]:
    import torch

    return dict(flat(torch.load(out / "checkpoint.pt", weights_only=True)))


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what an undisturbed run leaves behind."""
    out = tmp_path_factory.mktemp("whole")
    code, output = finish(start(folder, out))
    assert code == 0, output
    assert [line["step"] for line in steps(out)] == list(range(1, NUM_STEPS + 1))
    return out


def test_killed_and_resumed_equals_uninterrupted(folder: Path, whole: Path, tmp_path: Path) -> None:
    """Killed twice: once for good, and started by hand; then in a run that torchrun starts again by itself."""
    # Killed in the second epoch, three steps after the checkpoint of step 4: those three are done anew.
    code, output = finish(start(folder, tmp_path, "--kill-at-step", "7"))
    assert code != 0
    assert "SIGKILL" in output, output
    assert checkpoint(tmp_path)[".step"] == 4
    before = len(steps(tmp_path))
    assert steps(tmp_path)[-1]["step"] in (6, 7)  # rank 0 may or may not have written the last line

    # One restart is enough, with the environment that the Slurm script sets.
    exported = re.findall(r"^export (\w+)=(\w+)$", (ROOT / "docker" / "slurm" / "train.sbatch").read_text(), re.M)
    code, output = finish(start(folder, tmp_path, "--kill-at-step", "11", restarts=1, **dict(exported)))
    assert code == 0, output
    assert "exitcode: -9" in output, output
    assert "may not bring this run back" not in output
    assert "at step 4 of 12" in output
    assert "at step 8 of 12" in output
    resumed = steps(tmp_path)[before:]
    assert resumed[:6] == steps(whole)[4:10]
    assert resumed[-4:] == steps(whole)[8:]
    assert len(resumed) in (10, 11)

    expected, found = checkpoint(whole), checkpoint(tmp_path)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    weights = [name for name in expected if name.startswith(".model")]
    assert len(weights) > 20
    assert [name for name in expected if name.startswith(".data")]


def test_asked_to_stop_it_saves_and_leaves(folder: Path, tmp_path: Path) -> None:
    """SIGTERM to the launcher, as a scheduler sends it: all ranks leave after the same step; one process goes on."""
    # Longer than any machine takes to send the signal.
    process = start(folder, tmp_path, "--epochs", "100000", "--save-every", "1000000")
    log = tmp_path / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, output = finish(process)
    done = steps(tmp_path)[-1]["step"]
    assert "asked to stop" in output, output
    assert checkpoint(tmp_path)[".step"] == done

    epochs = done // 6 + 2
    code, output = finish(start(folder, tmp_path, "--epochs", str(epochs), num_processes=1))
    assert code == 0, output
    assert f"at step {done} of {epochs * 6}" in output
    assert [line["step"] for line in steps(tmp_path)] == list(range(1, epochs * 6 + 1))


def test_ranks_end_by_themselves_when_their_launcher_is_killed(folder: Path, tmp_path: Path) -> None:
    """By SIGKILL, which it cannot hand on: both ranks finish a step, save and leave."""
    process = start(folder, tmp_path, "--epochs", "100000", "--save-every", "1000000")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 300
    try:
        while not (tmp_path / "log.jsonl").exists() or len(steps(tmp_path)) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ranks = [int(number) for number in children.read_text().split()]
        assert len(ranks) == 2
        process.kill()
        while [rank for rank in ranks if Path(f"/proc/{rank}").exists()]:
            assert time.monotonic() < deadline, "a rank outlived its launcher"
            time.sleep(0.05)
    finally:
        for rank in [process.pid, *ranks] if "ranks" in locals() else [process.pid]:
            with suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)
        process.communicate()
    assert checkpoint(tmp_path)[".step"] == steps(tmp_path)[-1]["step"]
