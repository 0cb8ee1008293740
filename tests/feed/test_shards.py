"""Rank and world from launchers, faked one by one and then real processes of torchrun, jax.distributed and Ray."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpuseq import ImageDataGenerator
from gpuseq.plan import sharding
from gpuseq.plan.sharding import detect_shard, resolve_shard
from tests.conftest import ROOT
from tests.feed.samples import generator, numbered

VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_STEP_ID",
    "SLURM_STEP_NUM_TASKS",
)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sharding, "_told", [])


def fake_torch(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    module = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: rank, get_world_size=lambda: world
    )
    monkeypatch.setitem(sys.modules, "torch.distributed", module)


def fake_jax(monkeypatch: pytest.MonkeyPatch, rank: int, world: int, initialized: bool = True) -> None:
    def index() -> int:
        assert initialized, "process_index() would start JAX' backend"
        return rank

    module = SimpleNamespace(
        distributed=SimpleNamespace(is_initialized=lambda: initialized),
        process_index=index,
        process_count=lambda: world,
    )
    monkeypatch.setitem(sys.modules, "jax", module)


def fake_ray(monkeypatch: pytest.MonkeyPatch, rank: Any, world: Any) -> None:
    context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: world)
    monkeypatch.setitem(sys.modules, "ray.train", SimpleNamespace(get_context=lambda: context))


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_the_order_in_which_launchers_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect_shard() == ("", 0, 1)
    environment(monkeypatch, SLURM_STEP_ID="0", SLURM_PROCID="1", SLURM_NTASKS="9")
    assert detect_shard() == ("Slurm", 1, 9)
    environment(monkeypatch, OMPI_COMM_WORLD_RANK="2", OMPI_COMM_WORLD_SIZE="8")
    assert detect_shard() == ("Open MPI", 2, 8)
    environment(monkeypatch, RANK="3", WORLD_SIZE="7")
    assert detect_shard() == ("torchrun", 3, 7)
    fake_ray(monkeypatch, 4, 6)
    assert detect_shard() == ("Ray Train", 4, 6)
    fake_jax(monkeypatch, 1, 5)
    assert detect_shard() == ("jax.distributed", 1, 5)
    fake_torch(monkeypatch, 0, 4)
    assert detect_shard() == ("torch.distributed", 0, 4)
    assert resolve_shard("auto") == (0, 4)


def test_jax_is_not_started_by_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_jax(monkeypatch, 1, 2, initialized=False)
    assert detect_shard() == ("", 0, 1)


def test_ray_outside_a_worker_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ray(monkeypatch, None, None)
    assert detect_shard() == ("", 0, 1)


@pytest.mark.parametrize("step", [None, "batch", "4294967291"])
def test_slurm_without_srun_is_one_process(monkeypatch: pytest.MonkeyPatch, step: str | None) -> None:
    environment(monkeypatch, SLURM_PROCID="0", SLURM_NTASKS="8", **({"SLURM_STEP_ID": step} if step else {}))
    assert detect_shard() == ("", 0, 1)


def test_a_slurm_step_smaller_than_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, SLURM_STEP_ID="1", SLURM_PROCID="1", SLURM_NTASKS="8", SLURM_STEP_NUM_TASKS="2")
    assert detect_shard() == ("Slurm", 1, 2)


@pytest.mark.parametrize(("rank", "world"), [("4", "4"), ("-1", "2"), ("one", "2")])
def test_nonsense_from_a_launcher_is_named(monkeypatch: pytest.MonkeyPatch, rank: str, world: str) -> None:
    environment(monkeypatch, RANK=rank, WORLD_SIZE=world)
    with pytest.raises(ValueError, match=r"pass shard=\(rank, world\)"):
        resolve_shard("auto")
    assert resolve_shard(None) == (0, 1), "who does not ask is not told off"


def test_no_sharding_under_a_launcher_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment(monkeypatch, RANK="1", WORLD_SIZE="2")
    with caplog.at_level(logging.WARNING, "gpuseq"):
        assert resolve_shard(None) == (0, 1)
        assert resolve_shard(None) == (0, 1)
        assert resolve_shard((0, 1)) == (0, 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "torchrun started 2 processes (this is rank 1)" in caplog.text
    assert 'shard="auto"' in caplog.text


def test_auto_without_a_launcher_is_everything() -> None:
    flow = generator().flow(numbered(7), np.arange(7), batch_size=3, seed=1, shard="auto")
    assert sorted(int(label) for index in range(3) for label in flow[index][1]) == list(range(7))


# Real processes. Each writes what it saw; together they saw everything, once, in equally many batches.

WALK = """
import json
import numpy as np
from gpuseq import ImageDataGenerator
from gpuseq.feed.loader import Loader
from gpuseq.plan.sharding import detect_shard

def walk(out, remainder):
    images = np.zeros((23, 4, 4, 3), np.uint8)
    flow = ImageDataGenerator(device="cpu").flow(images, np.arange(23), batch_size=3, seed=5, shard="auto",
                                                 remainder=remainder)
    loader = Loader(flow)
    epochs = [[batch[1].tolist() for batch in loader] for _ in range(2)]
    options = flow._planner.options
    result = {"launcher": detect_shard()[0], "rank": options.rank, "world": options.world, "epochs": epochs}
    with open(f"{out}/{options.rank}.json", "w") as file:
        json.dump(result, file)
    return result
"""


def check(folder: Path, launcher: str, remainder: str, world: int = 2) -> None:
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
    assert {result["launcher"] for result in results} == {launcher}
    assert [result["world"] for result in results] == [world] * world
    assert [result["rank"] for result in results] == list(range(world))
    orders = []
    for epoch in range(2):
        batches = [result["epochs"][epoch] for result in results]
        assert len({len(part) for part in batches}) == 1, "ranks have different numbers of batches"
        labels = [[label for batch in part for label in batch] for part in batches]
        flat = [label for part in labels for label in part]
        if remainder == "drop":
            assert len(flat) == len(set(flat)) == 23 // world * world
        else:
            assert set(flat) == set(range(23))
            assert len(flat) == -(-23 // world) * world
        orders.append(labels)
    assert orders[0] != orders[1], "the second epoch has an order of its own"


def test_torchrun(tmp_path: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    pytest.importorskip("torch")
    source = (
        WALK
        + """
import sys
import torch.distributed as distributed
distributed.init_process_group("gloo")
for remainder in ("pad", "drop"):
    walk(f"{sys.argv[1]}/{remainder}", remainder)
distributed.barrier()
distributed.destroy_process_group()
"""
    )
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    for remainder in ("pad", "drop"):
        (tmp_path / remainder).mkdir()
    run_script(source, str(tmp_path), python=launcher)
    for remainder in ("pad", "drop"):
        check(tmp_path / remainder, "torch.distributed", remainder)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return int(sock.getsockname()[1])


def test_jax_distributed(tmp_path: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    pytest.importorskip("jax")
    source = (
        WALK
        + """
import subprocess, sys
out, port, rank = sys.argv[1:]
if rank == "parent":
    children = [subprocess.Popen([sys.executable, __file__, out, port, str(rank)]) for rank in range(2)]
    sys.exit(max(child.wait(timeout=580) for child in children))
import jax
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))
walk(out, "pad")
jax.distributed.shutdown()
"""
    )
    run_script(source, str(tmp_path), str(free_port()), "parent", JAX_PLATFORMS="cpu")
    check(tmp_path, "jax.distributed", "pad")


@pytest.mark.frameworks("ray", "pyarrow")
def test_ray_train(tmp_path: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    source = (
        WALK
        + """
import sys
import ray
from ray.train import ScalingConfig, RunConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
out, root = sys.argv[1:]
def loop(config):
    walk(config["out"], "exact")
ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": root}})
trainer = DataParallelTrainer(loop, train_loop_config={"out": out}, scaling_config=ScalingConfig(num_workers=2),
                              run_config=RunConfig(storage_path=out + "/ray"))
trainer.fit()
ray.shutdown()
"""
    )
    run_script(source, str(tmp_path), str(ROOT), RAY_DEDUP_LOGS="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    check(tmp_path, "Ray Train", "exact")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_fewer_samples_than_ranks_under_drop_are_an_empty_batch_on_every_road(tmp_path: Path, on_error: str) -> None:
    """Of files, with bad ones passed over, it was an UnboundLocalError, and then a silent end."""
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    own = ImageDataGenerator(device="cpu")
    options: dict[str, Any] = {"batch_size": 2, "seed": 1, "shard": (1, 4), "remainder": "drop"}
    files = own.flow_from_directory(tmp_path, (4, 4), on_error=on_error, verbose=False, **options)
    arrays = own.flow(np.zeros((2, 4, 4, 3), np.uint8), **options)
    assert (len(files), len(arrays)) == (0, 0)
    for _ in range(3):
        assert next(files)[0].shape == next(arrays).shape == (0, 4, 4, 3)
