"""TensorFlow: eager tensors, ``tf.data`` and Keras without the host; with stand-ins where TensorFlow is missing."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuseq import GpuseqError, MissingDependencyError
from gpuseq.base.devices import ALIGNMENT
from gpuseq.feed.tensors import tensorflow_tensor
from tests.feed.samples import generator, numbered

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None

SCENARIO = """
import numpy as np, tensorflow as tf
from gpuseq import ImageDataGenerator
from gpuseq.tensorflow import as_dataset, experimental_adapter, loader

images = np.random.default_rng(0).uniform(0, 255, (11, 6, 6, 3)).astype(np.float32)
labels = (np.arange(11) % 2).astype(np.float32)
def flow(y=labels, **options):
    own = ImageDataGenerator(vertical_flip=True, rescale=1 / 255, device="cpu")
    return own.flow(images, y, **{"batch_size": 3, "seed": 2, **options})
def plain(epochs):
    core = flow()
    for epoch in epochs:
        core.set_epoch(epoch)
        for index in range(4):
            yield core[index]

for (x, y), (wanted_x, wanted_y) in zip(loader(flow()), plain([0]), strict=True):
    assert isinstance(x, tf.Tensor) and isinstance(y, tf.Tensor)
    assert np.array_equal(x, wanted_x) and np.array_equal(y, wanted_y)

iterator, made = flow(), []
replay = iterator.replay
iterator.replay = lambda plan: made.append(replay(plan)) or made[-1]
for x, y in loader(iterator):
    assert x._numpy().ctypes.data == made[-1][0].ctypes.data, "copied on the host"
    wanted = made[-1][0].copy()
    doubled, x = x * 2, tf.nn.relu(x)
    assert np.array_equal(made[-1][0], wanted) and np.array_equal(doubled, wanted * 2)

dataset = as_dataset(flow())
assert isinstance(dataset, tf.data.Dataset) and int(dataset.cardinality()) == 4
assert dataset.element_spec[0].shape.as_list() == [None, 6, 6, 3]
for epoch in range(2):
    for (x, y), (wanted_x, wanted_y) in zip(dataset, plain([epoch]), strict=True):
        assert np.array_equal(x, wanted_x) and np.array_equal(y, wanted_y), epoch
(masked,) = as_dataset(flow(None, batch_size=11, masks=[images, images])).take(1)
assert len(masked) == 2 and len(masked[1]) == 2
(bare,) = as_dataset(flow(None, batch_size=11)).take(1)
assert bare.shape == (11, 6, 6, 3)

import keras
def model():
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    network.compile(keras.optimizers.SGD(0.05), "mse")
    return network
def same(network, epochs, what):
    by_hand = model()
    for x, y in plain(epochs):
        by_hand.train_on_batch(x, y)
    for got, wanted in zip(network.get_weights(), by_hand.get_weights(), strict=True):
        assert np.array_equal(got, wanted), (what, np.abs(got - wanted).max())

network = model()
network.fit(experimental_adapter(flow()), epochs=2, verbose=0)
same(network, [0, 1], "adapter")
network = model()
network.fit(as_dataset(flow()), epochs=2, verbose=0, shuffle=False)
same(network, [0, 1], "as_dataset")
print("passed")
"""


@pytest.mark.frameworks("tensorflow")
def test_with_tensorflow(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "passed" in run_script(SCENARIO, KERAS_BACKEND="tensorflow").stdout


TF_KERAS = """
import sys, warnings
import numpy as np
if sys.argv[1] == "tf_keras first":
    import tf_keras
from gpuseq.keras import ImageDataGenerator, SetEpoch, SaveState
import tf_keras
images = np.ones((12, 6, 6, 3), np.float32) * np.arange(12, dtype=np.float32).reshape(12, 1, 1, 1)
flow = ImageDataGenerator(device="cpu").flow(images, np.arange(12, dtype=np.float32), batch_size=3, seed=2)
assert isinstance(flow, tf_keras.utils.Sequence)
assert type(flow[0][0]) is np.ndarray
model = tf_keras.Sequential([tf_keras.layers.Flatten(input_shape=(6, 6, 3)), tf_keras.layers.Dense(1)])
seen = []
class Log(tf_keras.callbacks.Callback):
    pass
make = flow.replay
flow.replay = lambda plan: seen.append(plan.indices.tolist()) or make(plan)
model.compile("sgd", "mse")
model.fit(flow, epochs=2, verbose=0)
for epoch in range(2):
    part = seen[-8 + 4 * epoch:][:4]
    assert sorted(sum(part, [])) == list(range(12)), seen

import gpuseq
core = gpuseq.ImageDataGenerator(device="cpu").flow(images, np.arange(12, dtype=np.float32), batch_size=3, seed=2)
data = core.to_keras()
model.fit(data, epochs=2, verbose=0)
model.fit(gpuseq.Sequence.to_keras([(images, np.zeros(12))]), verbose=0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.fit(core, epochs=2, steps_per_epoch=4, verbose=0)
assert any("generator without an end" in str(warning.message) for warning in caught)
for callback in (SetEpoch(data), SaveState(data, "state.json")):
    try:
        model.fit(data, verbose=0, callbacks=[callback])
    except gpuseq.GpuseqError as error:
        assert "LambdaCallback(on_epoch_begin=" in str(error), error
    else:
        raise AssertionError("a callback of Keras 3 was taken")

# The other Keras beside it: its backend's tensors all the same.
import keras
kinds = set()
class Model(keras.Sequential):
    def train_step(self, batch):
        kinds.add(type(batch[0]).__module__.partition(".")[0])
        return super().train_step(batch)
three = Model([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
three.compile("sgd", "mse")
three.fit(flow, epochs=2, verbose=0)
assert kinds == {keras.config.backend()}, kinds
print("passed")
"""


@pytest.mark.frameworks("tensorflow", "tf_keras")
@pytest.mark.parametrize(("order", "backend"), [("tf_keras first", "tensorflow"), ("tf_keras last", "torch")])
def test_with_tf_keras(order: str, backend: str, run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "passed" in run_script(TF_KERAS, order, KERAS_BACKEND=backend).stdout


# Without TensorFlow: what the module does around it.


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that has what gpuseq.tensorflow asks of TensorFlow, and does nothing with it."""
    fake = ModuleType("tensorflow")
    fake.convert_to_tensor = lambda array: ("tensor", array)  # type: ignore[attr-defined]
    fake.experimental = SimpleNamespace(dlpack=SimpleNamespace(from_dlpack=from_capsule))  # type: ignore[attr-defined]
    fake.TensorSpec = lambda shape, dtype: (tuple(shape), np.dtype(dtype).name)  # type: ignore[attr-defined]
    fake.nest = SimpleNamespace(map_structure=map_structure)  # type: ignore[attr-defined]
    fake.data = SimpleNamespace(  # type: ignore[attr-defined]
        Dataset=FakeDataset, experimental=SimpleNamespace(assert_cardinality=lambda length: ("cardinality", length))
    )
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    monkeypatch.delitem(sys.modules, "gpuseq.tensorflow", raising=False)
    yield importlib.import_module("gpuseq.tensorflow")
    sys.modules.pop("gpuseq.tensorflow", None)


def from_capsule(capsule: Any) -> tuple[str, np.ndarray]:
    exporter = SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (1, 0))
    return "tensor", np.from_dlpack(exporter)


def map_structure(function: Any, batch: Any) -> Any:
    return tuple(map_structure(function, item) for item in batch) if isinstance(batch, tuple) else function(batch)


class FakeDataset:
    def __init__(self, generate: Any, signature: Any) -> None:
        self.generate, self.signature, self.done = generate, signature, []

    @classmethod
    def from_generator(cls, generate: Any, output_signature: Any) -> FakeDataset:
        return cls(generate, output_signature)

    def apply(self, what: Any) -> FakeDataset:
        self.done.append(what)
        return self

    def prefetch(self, count: int) -> FakeDataset:
        self.done.append(("prefetch", count))
        return self


def flow(**options: Any) -> Any:
    return generator().flow(numbered(7), options.pop("y", np.arange(7)), **{"batch_size": 3, "seed": 2, **options})


def test_the_loader_hands_over_tensors(stand_in: Any) -> None:
    batches = list(stand_in.loader(flow()))
    assert sorted(int(label) for _, (kind, y) in batches for label in y if kind == "tensor") == list(range(7))


def aligned(shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Return an array of ones that begins where TensorFlow wants it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    array = block[start : start + size].view(dtype).reshape(shape)
    array[...] = 1
    return array


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_numbers_of_every_width_are_aliased(dtype: str, stand_in: Any) -> None:
    array = aligned((3, 4), dtype)
    array[1] = 7
    _, made = tensorflow_tensor(array)
    assert made is not array, "by DLPack"
    assert np.shares_memory(made, array)
    assert np.array_equal(made, array)


@pytest.mark.parametrize("kind", ["bool", "complex", "read only", "transposed", "beside a line", "empty"])
def test_what_cannot_be_aliased_is_converted(kind: str, stand_in: Any) -> None:
    """TensorFlow ends the process at an address that it does not like, and NumPy exports no read-only array."""
    array = aligned((4, 8), {"bool": "bool", "complex": "complex64"}.get(kind, "float32"))
    array.flags.writeable = kind != "read only"
    array = {"transposed": array.T, "beside a line": array[1:], "empty": array[:0]}.get(kind, array)
    assert tensorflow_tensor(array)[1] is array


def test_as_dataset(stand_in: Any) -> None:
    dataset = stand_in.as_dataset(flow())
    assert dataset.signature == (((None, 6, 6, 3), "float32"), ((None,), "int64"))
    assert dataset.done == [("cardinality", 3), ("prefetch", 1)]
    epochs = [[int(label) for _, y in dataset.generate() for label in y] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(7))
    assert epochs[0] != epochs[1]
    (mask_signature,) = stand_in.as_dataset(flow(y=None, masks=[numbered(7)])).signature[1]
    assert mask_signature == ((None, 6, 6, 3), "float32")


def test_what_tf_data_cannot_hold_is_said(stand_in: Any) -> None:
    with pytest.raises(GpuseqError, match="remainder"):
        stand_in.as_dataset(flow(y=None, shard=(0, 2), remainder="exact"))
    with pytest.raises(ValueError, match="no batches"):
        stand_in.as_dataset(generator().flow(numbered(3)[:0], batch_size=2))


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed")
def test_a_missing_tensorflow_is_named() -> None:
    with pytest.raises(MissingDependencyError, match=r'pip install "gpuseq\[tensorflow\]"'):
        importlib.import_module("gpuseq.tensorflow")
