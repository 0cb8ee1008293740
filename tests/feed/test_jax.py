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


def test_no_copy_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU backend the array lies where the iterator wrote its batch: it begins where XLA wants it."""
    iterator = flow()
    made = []
    replay = iterator.replay
    monkeypatch.setattr(iterator, "replay", lambda plan: made.append(replay(plan)) or made[-1])
    for x, _ in loader(iterator):
        assert x.unsafe_buffer_pointer() == made[-1][0].ctypes.data
    assert len({x.ctypes.data for x, _ in made}) == len(made) == 4


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
    sys.exit(max(child.wait(timeout=580) for child in children))
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


TRAIN = """
import json, os, subprocess, sys
out, port, how, rank = sys.argv[1:]
if rank == "parent":
    children = [subprocess.Popen([sys.executable, __file__, out, port, how, str(rank)]) for rank in range(2)]
    sys.exit(max(child.wait(timeout=580) for child in children))
os.environ["KERAS_BACKEND"] = "jax"
import jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
images = np.random.default_rng(0).integers(0, 256, (22, 6, 6, 3), np.uint8)
targets = (np.arange(22) % 3).astype(np.float32)
seen = []

def watched(generator):
    flow = generator(rescale=1 / 255, device="cpu").flow(images, targets, batch_size=4, seed=1, shard="auto")
    replay = flow.replay
    flow.replay = lambda plan: (seen.append(plan.indices.tolist()), replay(plan))[1]
    return flow

if how == "keras":
    import keras
    keras.distribution.initialize(f"localhost:{port}", 2, int(rank))
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    from gpuseq.keras import ImageDataGenerator
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.set_weights([np.full((108, 1), 0.01, np.float32), np.zeros(1, np.float32)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.predict_on_batch(images[:2])
    flow = watched(ImageDataGenerator)
    model.fit(flow, epochs=1, verbose=0)  # its first batch is a trial
    seen.clear()
    model.set_weights([np.full((108, 1), 0.01, np.float32), np.zeros(1, np.float32)])
    model.fit(flow, epochs=2, verbose=0)
    weights = [np.asarray(part) for part in model.get_weights()]
else:
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from gpuseq import ImageDataGenerator
    from gpuseq.jax import loader
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def loss_of(weights, x, y):
        return jax.numpy.mean((x.reshape(len(x), -1) @ weights[0] + weights[1] - y[:, None]) ** 2)

    @jax.jit
    def step(weights, x, y):
        slopes = jax.grad(loss_of)(weights, x, y)
        return [weight - 0.01 * slope for weight, slope in zip(weights, slopes)]

    weights = [np.full((108, 1), 0.01, np.float32), np.zeros(1, np.float32)]
    weights = [jax.make_array_from_process_local_data(everywhere, weight) for weight in weights]
    batches = loader(watched(ImageDataGenerator), NamedSharding(mesh, PartitionSpec("batch")))
    for epoch in range(2):
        for x, y in batches:
            assert not x.is_fully_addressable and len(x) == 2 * len(x.addressable_shards[0].data) == 2 * len(seen[-1])
            weights = step(weights, x, y)
    weights = [np.asarray(weight.addressable_shards[0].data) for weight in weights]
np.savez(f"{out}/{rank}.npz", *weights)
with open(f"{out}/{rank}.json", "w") as file:
    json.dump(seen, file)
jax.distributed.shutdown()
"""


@pytest.mark.keras
@pytest.mark.parametrize("how", ["keras", "step"])
def test_two_processes_train_as_one_on_both_their_batches(
    how: str, tmp_path: Path, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Each sample on one rank only, equally many batches, and the weights of one process with twice the batch."""
    import json

    from tests.feed.test_shards import free_port

    run_script(TRAIN, str(tmp_path), str(free_port()), how, "parent", JAX_PLATFORMS="cpu")
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [[len(batch) for batch in batches] for batches in ranks] == [[4, 4, 3, 4, 4, 3]] * 2
    for epoch in range(2):
        parts = [[sample for batch in batches[3 * epoch : 3 * epoch + 3] for sample in batch] for batches in ranks]
        assert not set(parts[0]) & set(parts[1])
        assert sorted(parts[0] + parts[1]) == list(range(22))
    images = np.random.default_rng(0).integers(0, 256, (22, 6, 6, 3), np.uint8).reshape(22, -1) / 255
    slope, offset = np.full((108, 1), 0.01), np.zeros(1)
    for first, second in zip(*ranks, strict=True):
        rows = first + second
        error = 2 * (images[rows] @ slope + offset - np.array(rows)[:, None] % 3) / len(rows)
        slope, offset = slope - 0.01 * images[rows].T @ error, offset - 0.01 * error.sum(axis=0)
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as weights:
            np.testing.assert_allclose(weights["arr_0"], slope, rtol=0, atol=1e-5)
            np.testing.assert_allclose(weights["arr_1"], offset, rtol=0, atol=1e-5)
            assert np.abs(slope - 0.01).max() > 1e-3


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
