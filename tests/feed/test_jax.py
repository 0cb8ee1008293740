"""JAX: arrays by a loader, spread over a mesh, with Grain's two methods; training."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq import ImageDataGenerator
from tests.feed.samples import GEOMETRY, generator, numbered, photos

jax = pytest.importorskip("jax")

from gpuseq.jax import loader  # noqa: E402


def flow(n: int = 11, **options: Any) -> Any:
    options = {"batch_size": 3, "seed": 2, **options}
    return generator(**GEOMETRY).flow(numbered(n), np.arange(n), **options)


def test_arrays_are_the_iterators_own() -> None:
    plain = flow()
    plain.set_epoch(0)
    for index, (x, y) in enumerate(loader(flow())):
        assert isinstance(x, jax.Array)
        assert isinstance(y, jax.Array)
        assert np.array_equal(x, plain[index][0])
        assert np.array_equal(y, plain[index][1])
        assert (x.dtype, x.shape) == (np.float32, plain[index][0].shape)


def test_arrays_stay_as_they_are() -> None:
    """An alias of a buffer that is written again would change under the reader's hands."""
    batches = [x for _ in range(3) for x, _ in loader(flow())]
    copies = [np.array(x) for x in batches]
    list(loader(flow(seed=9)))
    for x, copy in zip(batches, copies, strict=True):
        assert np.array_equal(x, copy)


def test_grains_state() -> None:
    whole = [y.tolist() for _, y in loader(flow())]
    walk = iter(loader(flow()))
    done = [next(walk)[1].tolist() for _ in range(2)]
    state = walk.get_state()
    other = iter(loader(flow()))
    next(other)
    other.set_state(state)
    assert done + [y.tolist() for _, y in other] == whole
    fresh = loader(flow())
    fresh.set_state(state)
    assert [fresh.get_state()[key] for key in ("epoch", "batch_index")] == [0, 2]
    assert [y.tolist() for _, y in fresh] == whole[2:]


def test_other_things_than_arrays_stay() -> None:
    _, y, weight = next(iter(loader(flow(shard=(0, 2), remainder="exact"))))
    assert isinstance(weight, jax.Array)
    assert y is not None


MESH = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from gpuseq import ImageDataGenerator
from gpuseq.jax import loader

assert jax.device_count() == 2
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)

def flow(n=12):
    return ImageDataGenerator(rescale=0.5, device="cpu").flow(images[:n], np.arange(n), batch_size=4, seed=1)

plain = flow(); plain.set_epoch(0)
for index, (x, y) in enumerate(loader(flow(), sharding)):
    assert x.sharding == sharding and x.shape == (4, 4, 4, 3)
    assert [shard.data.shape[0] for shard in x.addressable_shards] == [2, 2]
    assert np.array_equal(x, plain[index][0]) and np.array_equal(y, plain[index][1])
assert index == 2
try:
    list(loader(flow(11), sharding))
except ValueError as error:
    assert "batch 2, shape (3, 4, 4, 3), does not lie evenly" in str(error), error
else:
    raise AssertionError("an uneven batch was spread")
print("spread")
"""


def test_one_process_spreads_its_batches_over_a_mesh(
    run_script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_script(MESH, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu")
    assert "spread" in done.stdout


PROCESSES = """
import json, socket, subprocess, sys
out, port, rank = sys.argv[1:]
if rank == "parent":
    children = [subprocess.Popen([sys.executable, __file__, out, port, str(rank)]) for rank in range(2)]
    sys.exit(max(child.wait(timeout=120) for child in children))
import jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from gpuseq import ImageDataGenerator
from gpuseq.jax import loader
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
images = np.zeros((12, 4, 4, 3), np.uint8)
flow = ImageDataGenerator(device="cpu").flow(images, np.arange(12), batch_size=3, seed=1, shard="auto")
seen = []
for x, y in loader(flow, sharding):
    assert x.shape == (6, 4, 4, 3) and not x.is_fully_addressable
    seen.append(np.asarray(y.addressable_shards[0].data).tolist())
with open(f"{out}/{rank}.json", "w") as file:
    json.dump(seen, file)
jax.distributed.shutdown()
"""


def test_two_processes_make_one_global_batch(
    tmp_path: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    import json

    from tests.feed.test_shards import free_port

    run_script(PROCESSES, str(tmp_path), str(free_port()), "parent", JAX_PLATFORMS="cpu")
    parts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [len(batch) for part in parts for batch in part] == [3] * 4
    assert sorted(label for part in parts for batch in part for label in batch) == list(range(12))


def test_a_training_run() -> None:
    images, targets = photos()
    own = ImageDataGenerator(rescale=1 / 255, vertical_flip=True, brightness_range=(0.8, 1.2), device="cpu")
    batches = loader(own.flow(images, targets, batch_size=6, seed=3))
    keys = jax.random.split(jax.random.key(0), 2)
    weights = {
        "conv": jax.random.normal(keys[0], (3, 3, 3, 4)) * 0.2,
        "dense": jax.random.normal(keys[1], (10 * 10 * 4,)) * 0.05,
    }

    def loss_of(weights: Any, x: Any, y: Any) -> Any:
        x = jax.lax.conv_general_dilated(
            x, weights["conv"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        logits = jax.nn.relu(x).reshape(len(x), -1) @ weights["dense"]
        return jax.numpy.mean(jax.nn.softplus(logits) - y * logits)

    step = jax.jit(jax.value_and_grad(loss_of))
    losses = []
    for _ in range(2):
        total = 0.0
        for x, y in batches:
            loss, gradient = step(weights, x, y)
            weights = jax.tree.map(lambda weight, slope: weight - 0.1 * slope, weights, gradient)
            total += float(loss) * len(x)
        losses.append(total / 24)
    assert losses[1] < 0.8 * losses[0], losses
