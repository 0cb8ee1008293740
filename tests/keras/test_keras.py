"""Keras: fit, evaluate, predict, epochs, weights and resume on each backend; and what is said when it goes wrong."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gpuseq
from gpuseq import DeviceError, GpuseqError
from gpuseq.keras.fit_progress import FitProgress
from tests.compare import assert_same_structure
from tests.feed.samples import generator, numbered, photos

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = pytest.mark.keras

from gpuseq import keras as gk  # noqa: E402
from gpuseq.keras import dataset as fitdata  # noqa: E402


def own_generator(**options: Any) -> Any:
    return gk.ImageDataGenerator(device="cpu", **options)


def test_no_copy_on_the_way_to_the_train_step() -> None:
    """With the torch backend the tensor in ``train_step`` lies where the iterator wrote its batch."""
    if keras.config.backend() != "torch":
        pytest.skip("the session's backend is not torch")
    images, labels = photos()
    flow = own_generator(rescale=1 / 255).flow(images, labels, batch_size=8, seed=1)
    made: list[Any] = []
    replay = flow.replay
    flow.replay = lambda plan: made.append(replay(plan)) or made[-1]
    reached: list[tuple[int, int]] = []

    class Model(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            reached.append((data[0].data_ptr(), data[1].data_ptr()))
            return super().train_step(data)

    model = Model([keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with keras.device("cpu"):
        model.fit(flow, epochs=2, verbose=0)
    assert len(reached) == 6
    assert reached == [(x.ctypes.data, y.ctypes.data) for x, y in made[-6:]]


def test_fit_decodes_each_file_once_per_epoch(tmp_path: Path) -> None:
    """fit(shuffle=True) permutes the numbers it asks for; what is decoded ahead is what is wanted next all the same."""
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    flow = own_generator().flow_from_directory(
        tmp_path, (8, 8), batch_size=3, class_mode="binary", seed=1, verbose=False, decoder="pillow", prefetch=2
    )
    decoded: list[int] = []
    decode = flow._source._decode
    flow._source._decode = lambda indices: decoded.extend(indices.tolist()) or decode(indices)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for x, y in [flow[0]]:
        model.train_on_batch(x, y)  # builds what fit would build with a trial batch
    flow.close()
    decoded.clear()
    model.fit(flow, epochs=3, verbose=0)
    flow.close()
    assert sorted(decoded[:60]) == sorted(3 * list(range(20)))
    assert len(decoded) <= 60 + 2 * 3, "the epoch that might have followed begins with two batches"


# The bookkeeping.


@given(
    length=st.integers(1, 9),
    calls=st.lists(st.sampled_from(["fit", "evaluate", "part", "trial"]), min_size=1, max_size=8),
    data=st.data(),
)
def test_each_whole_pass_is_one_epoch(length: int, calls: list[str], data: st.DataObject) -> None:
    """Keras' calls in Keras' order: whatever came before, a pass gets batches 0, 1, 2 ... of one epoch, a new one."""
    walk = FitProgress()
    seen: set[int] = set()
    for call in calls:
        walk.opened()
        walk.end()  # reset(), before the first epoch of every fit
        steps = length
        if call == "part":
            steps = data.draw(st.integers(1, length))
        if call == "trial":
            walk.opened()  # a new iterator, and no reset before it is tried
            steps = data.draw(st.integers(1, min(2, length)))
        walk.begin()
        walk.opened()
        taken = [walk.take(length) for _ in range(steps)]
        if call == "trial":
            walk.opened()
            assert not walk.end()
            continue
        if steps == length:
            walk.opened()  # a generator for the next epoch, made before this one is over
        assert walk.end()
        assert [position for _, position in taken] == list(range(steps))
        (epoch,) = {epoch for epoch, _ in taken}
        assert epoch not in seen
        assert epoch == len(seen), "no epoch is passed over"
        seen.add(epoch)


def test_one_generator_over_several_short_epochs() -> None:
    """steps_per_epoch: Keras goes on with the pass it has opened."""
    walk = FitProgress()
    taken = []
    walk.opened()
    for _ in range(3):
        walk.begin()
        taken += [walk.take(6) for _ in range(2)]
        walk.end()
    assert taken == [(0, position) for position in range(6)]


def test_between_the_epochs_of_one_pass_another_thread_reads_on() -> None:
    """TensorFlow does, with steps_per_epoch; a callback that looks at a batch is on the thread that began the epoch."""
    walk = FitProgress(None)
    reading: list[bool] = []

    def ask() -> None:
        reading.append(walk.is_reading)

    def ask_from_elsewhere() -> None:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    for _ in range(2):
        ask_from_elsewhere()
        walk.begin()
        walk.opened()
        ask_from_elsewhere()
        walk.take(3)
        ask()
        walk.end()
        ask_from_elsewhere()
        ask()
        walk.take(3), walk.take(3)
        ask_from_elsewhere()
    assert reading == [False, True, True, True, False, False] * 2


def test_a_resumed_walk_goes_on_without_losing_a_batch() -> None:
    walk = FitProgress()
    walk.go_to(1, 4)
    taken = []
    for _ in range(2):
        walk.begin()
        walk.opened()
        taken += [walk.take(6) for _ in range(6)]
        walk.end()
    assert taken == [
        (1, 4),
        (1, 5),
        *((2, position) for position in range(6)),
        *((3, position) for position in range(4)),
    ]


# Classes.


def test_classes_are_both() -> None:
    for name in ("NumpyArrayIterator", "DirectoryIterator", "DataFrameIterator", "Iterator", "Sequence"):
        kind = getattr(gk, name)
        assert issubclass(kind, getattr(gpuseq, name))
        assert issubclass(kind, keras.utils.PyDataset)


EXAMPLE = """
class CIFAR10PyDataset(Sequence):

    def __init__(self, x_set, y_set, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = x_set, y_set
        self.batch_size = batch_size

    def __len__(self):
        # Return number of batches.
        return math.ceil(len(self.x) / self.batch_size)

    def __getitem__(self, idx):
        # Return x, y for batch idx.
        low = idx * self.batch_size
        # Cap upper bound at array length; the last batch may be smaller
        # if the total number of items is not a multiple of batch size.
        high = min(low + self.batch_size, len(self.x))
        batch_x = self.x[low:high]
        batch_y = self.y[low:high]

        return np.array([
            resize(imread(file_name), (200, 200))
               for file_name in batch_x]), np.array(batch_y)
"""


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("where", ["gpuseq", "gpuseq.keras"])
def test_the_example_of_keras_documentation(where: str, workers: int, tmp_path: Path) -> None:
    """The class of the documentation of ``PyDataset``, word for word on our Sequence."""
    import math

    def resize(image: Any, size: tuple[int, int]) -> np.ndarray:
        return np.resize(image, (*size, 3)).astype(np.float32) / 255

    names = []
    for number in range(7):
        names.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(names[-1])
    space: dict[str, Any] = {
        "math": math,
        "np": np,
        "resize": resize,
        "imread": lambda name: np.asarray(Image.open(name)),
    }
    space["Sequence"] = {"gpuseq": gpuseq, "gpuseq.keras": gk}[where].Sequence
    exec(EXAMPLE, space)
    data = space["CIFAR10PyDataset"](names, np.arange(7) % 2, 3, workers=workers, max_queue_size=4)
    assert (data.workers, data.max_queue_size, data.num_batches) == (workers, 4, 3)
    assert [len(y) for _, y in data] == [3, 3, 1]
    model = keras.Sequential([keras.Input((200, 200, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(data if where == "gpuseq.keras" else data.to_keras(workers=workers), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


def test_before_fit_they_count_as_the_plain_ones() -> None:
    """next() and [i] give the numbers of the same seed, and next() gives arrays, as it always did."""
    ranges: dict[str, Any] = {"rotation_range": 30, "conventions": "corrected"}
    theirs = generator(**ranges).flow(numbered(7), np.arange(7), batch_size=3, seed=4)
    ours = own_generator(**ranges).flow(numbered(7), np.arange(7), batch_size=3, seed=4)
    for _ in range(4):
        (x, y), (wanted_x, wanted_y) = next(ours), next(theirs)
        assert type(x) is np.ndarray
        assert np.array_equal(x, wanted_x)
        assert np.array_equal(y, wanted_y)
    for index in (2, 0):
        (x, y), (wanted_x, wanted_y) = ours[index], theirs[index]
        assert np.array_equal(np.asarray(x), wanted_x)
        assert np.array_equal(np.asarray(y), wanted_y)


@pytest.mark.parametrize("class_mode", ["categorical", "sparse", "input", None])
@pytest.mark.parametrize("fitted", [False, True])
def test_by_index_and_next_they_give_what_keras_gives(tmp_path: Path, class_mode: Any, fitted: bool) -> None:
    """Types and parts as well as values, before ``fit`` and after it; tensors are for ``fit`` alone."""
    for number in range(5):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    arguments = {"target_size": (8, 8), "batch_size": 3, "class_mode": class_mode, "seed": 1}
    theirs = keras_image.ImageDataGenerator(horizontal_flip=True).flow_from_directory(tmp_path, **arguments)
    ours = own_generator(horizontal_flip=True).flow_from_directory(tmp_path, **arguments)
    if fitted:
        in_fit(ours)
        ours.on_epoch_end()
        assert_same_kinds(ours[0], theirs[0])
        return
    for index in (1, 0):
        assert_same_structure(ours[index], theirs[index])
    assert_same_structure(next(ours), next(theirs))


def assert_same_kinds(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for got, wanted in zip(actual, expected, strict=True):
            assert_same_kinds(got, wanted)


def test_to_keras_by_index_gives_what_the_iterator_gives() -> None:
    flow = generator().flow(numbered(7), batch_size=3, seed=4)
    assert type(flow.to_keras()[0]) is np.ndarray
    assert gk.to_keras([(np.zeros(1), [1])])[0][1] == [1]


def test_a_subclass_of_ones_own_may_wrap_batches() -> None:
    """Its line asks, not Keras'; ``fit`` gets tensors from it all the same, and the user arrays."""

    class Own(gk.NumpyArrayIterator):
        seen: ClassVar[list[type]] = []

        def __getitem__(self, index: int) -> Any:
            x, y = super().__getitem__(index)
            self.seen.append(type(x))
            return x, y

    flow = Own(numbered(6), np.zeros((6, 1)), gk.ImageDataGenerator(device="cpu"), batch_size=3, seed=1)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert type(flow[0][0]) is np.ndarray
    Own.seen.clear()
    model.fit(flow, verbose=0)
    assert set(Own.seen) == {torch.Tensor}
    assert type(flow[0][0]) is np.ndarray


def test_a_flow_can_be_pickled() -> None:
    flow = own_generator().flow(numbered(7), np.arange(7), batch_size=3, seed=4)
    flow.on_epoch_begin()
    _ = flow[0]
    copy = pickle.loads(pickle.dumps(flow))
    assert np.array_equal(np.asarray(copy[0][1]), np.asarray(flow[0][1]))


def in_fit(data: Any, index: int = 0) -> Any:
    """Return what ``fit`` gets."""
    data.on_epoch_begin()
    return data[index]


def test_batches_are_tuples() -> None:
    flow = own_generator().flow(numbered(7), batch_size=3, seed=4)
    batch = in_fit(flow)
    assert isinstance(batch, tuple)
    assert [type(part) for part in batch] == [torch.Tensor]
    exact = own_generator().flow(numbered(7), batch_size=4, seed=4, shard=(1, 2), remainder="exact")
    _, y, weight = exact[0]
    assert y is None
    assert np.asarray(weight).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("further", [False, True])
def test_other_backends_get_arrays_in_tuples(further: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """``tf.data``, the way of all but torch and jax, takes arrays of the host; a list would be an array to be."""
    monkeypatch.setattr(fitdata, "backend", lambda: "numpy")
    x = [numbered(6), np.arange(6.0)] if further else numbered(6)
    flow = own_generator().flow(x, np.arange(6), batch_size=3, seed=1)
    plain = own_generator().flow(x, np.arange(6), batch_size=3, seed=1)[0]
    inputs, labels = in_fit(flow)
    assert np.array_equal(labels, plain[1])
    assert type(labels) is np.ndarray
    parts, expected = (inputs, plain[0]) if further else ((inputs,), (plain[0],))
    assert type(parts) is tuple
    for part, array in zip(parts, expected, strict=True):
        assert type(part) is np.ndarray
        assert np.array_equal(part, array)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 2, 1, 5]),
        np.array([0.0, 2.0, 1.0, 5.0], np.float32),
        np.array([[0], [2], [1], [5]]),
        np.eye(6, dtype=np.float32)[[0, 2, 1, 5]],
        np.array([0, 2, -1, 3]),
        np.array([-0.4, 1.6, -7, 2.6], np.float32),
    ],
)
def test_class_weights_equal_keras(labels: np.ndarray) -> None:
    """Of named classes, of those between them, and of labels above and below, such as -1 for "no class"."""
    from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights

    weights = {0: 2.0, 2: 0.5}
    got = fitdata.class_weights(labels, weights)
    assert got.dtype == np.float32
    assert np.array_equal(got, class_weight_to_sample_weights(labels, weights))
    assert got.tolist() == [2.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(("sample_weight", "wanted"), [(None, [1, 10, 1, 10]), ([1.0, 2.0, 3.0, 4.0], [1, 20, 3, 40])])
def test_class_weight_multiplies_sample_weight(sample_weight: list[float] | None, wanted: list[int]) -> None:
    """And leaves images and labels as they are."""
    labels = np.array([0, 1, 0, 1])
    weight = None if sample_weight is None else np.array(sample_weight)
    flow = own_generator().flow(numbered(4), labels, batch_size=4, shuffle=False, sample_weight=weight)
    plain = flow[0]
    flow.class_weight = {1: 10}
    x, y, weights = flow[0]
    assert np.array_equal(x, plain[0])
    assert np.array_equal(y, plain[1])
    assert np.asarray(weights).tolist() == wanted


# What is said when it goes wrong.


def test_bad_class_weights() -> None:
    flow = own_generator().flow(numbered(4), np.zeros(4), batch_size=4)
    for bad in ({-1: 1.0}, {"a": 1.0}, {0: np.inf}, [1.0]):
        with pytest.raises(ValueError, match="class_weight must map class indices"):
            flow.class_weight = bad
    masks = own_generator().flow(numbered(4), batch_size=4, masks=numbered(4))
    masks.class_weight = {0: 2.0}
    with pytest.raises(ValueError, match="one class per sample"):
        _ = masks[0]


def test_worker_processes() -> None:
    flow = own_generator().flow(numbered(4), batch_size=4)
    flow.workers = 8
    flow.use_multiprocessing = True
    assert (flow.workers, flow.use_multiprocessing) == (1, False)
    flow.device = "cuda:0"
    with pytest.raises(DeviceError, match=r"cuda:0.*does not survive a fork.*Leave the argument out"):
        flow.use_multiprocessing = True


def test_a_plain_iterator_in_fit_names_the_line_to_write() -> None:
    model = keras.Sequential([keras.layers.Flatten()])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"gpuseq.*NumpyArrayIterator of 4 samples.*to_keras\(\)"):
        model.fit(generator().flow(numbered(4), np.zeros(4)), verbose=0)

    class Own(gpuseq.Sequence):
        pass

    with pytest.raises(ValueError, match=r"Own.*model\.fit\(dataset\.to_keras\(\)\)"):
        model.fit(Own(), verbose=0)


def test_wrong_things_are_named() -> None:
    with pytest.raises(TypeError, match=r"builtins\.int has no batches by index"):
        gk.to_keras(3)
    with pytest.raises(ValueError, match=r"builtins|KerasDataset made a batch of 4 parts"):
        in_fit(gk.to_keras([(1, 2, 3, 4)]))
    with pytest.raises(TypeError, match="SetEpoch takes what fit takes"):
        gk.SetEpoch([1])
    for wrong in (0, -1, True, 1.5, "batch"):
        with pytest.raises(ValueError, match=f"save_freq must be .*; got {wrong!r}"):
            gk.SaveState(None, "state.json", save_freq=wrong)
    with pytest.raises(GpuseqError, match="a Sequence has no state"):
        gk.to_keras([np.zeros(1)]).state_dict()


@pytest.mark.parametrize("samples", [np.zeros((4, 2)), (np.zeros(4), np.zeros(4)), {"x": np.zeros(4)}, torch.zeros(4)])
def test_samples_are_no_batches(samples: Any) -> None:
    """Each has __getitem__ and __len__, and would be taken for batches: of one row, one column, one name."""
    line = r"which holds samples\. Write gpuseq\.keras\.ImageDataGenerator\(\.\.\.\)\.flow\(images, labels"
    with pytest.raises(TypeError, match=line):
        gk.to_keras(samples)
    with pytest.raises(TypeError, match=line.replace(r"\.keras", "")):
        gpuseq.to_device(samples, device="cpu")


def test_other_things_than_data_sets_name_the_line_to_write() -> None:
    from gpuseq.torch import loader

    flow = generator().flow(numbered(4), np.zeros(4), seed=1)
    for wrong, line in [
        ("photos/train", r"'photos/train'\. Write gpuseq\.keras\.ImageDataGenerator\(\.\.\.\)\.flow_from_directory"),
        (own_generator(), r"flow_from_directory\(\.\.\.\), or a subclass"),
        (gpuseq.Sequence, "abc.ABCMeta has no batches by index"),
        (loader(flow), r"loader\.iterator"),
    ]:
        with pytest.raises(TypeError, match=line):
            gk.to_keras(wrong)
    model = keras.Sequential([keras.layers.Flatten()])
    model.compile("sgd", "mse")
    for wrong, line in [
        (own_generator(), r"model\.fit\(generator\.flow_from_directory\(\.\.\.\)\.to_keras\(\)\)"),
        (loader(flow), r"TorchLoader of 1 batches: for model\.fit write model\.fit\(loader\.iterator\.to_keras\(\)\)"),
    ]:
        with pytest.raises(ValueError, match=line):
            model.fit(wrong, verbose=0)


@pytest.mark.parametrize("labels", [np.array(list("abca")), np.array([None] * 4, object)])
def test_labels_that_are_no_numbers(labels: np.ndarray) -> None:
    with pytest.raises(TypeError, match=f"no tensors of dtype {labels.dtype}: .*return_inverse=True"):
        in_fit(own_generator().flow(numbered(4), labels, batch_size=2))


def test_nothing_to_train_on() -> None:
    for empty in (own_generator().flow(numbered(0), np.zeros(0)), gk.to_keras([])):
        model = keras.Sequential([keras.layers.Flatten()])
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match="holds no batches"):
            model.fit(empty, verbose=0)


def test_callbacks_refuse_what_fit_does_not_train_on(tmp_path: Path) -> None:
    """An iterator of its own moves, and the data set that was made of it does not."""
    core = generator().flow(numbered(4), np.zeros(4), batch_size=2, seed=1)
    for make in (gk.SetEpoch, lambda data: gk.SaveState(data, tmp_path / "state.json")):
        with pytest.raises(TypeError, match=r"Write dataset = iterator\.to_keras\(\)"):
            make(core)
        make(core.to_keras())
    with pytest.raises(GpuseqError, match="a Sequence has no state"):
        gk.SaveState(gk.to_keras([np.zeros(1)]), tmp_path / "state.json")
    with pytest.raises(TypeError, match="got list"):
        gk.SaveState([np.zeros(1)], tmp_path / "state.json")
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    trained, other = (own_generator().flow(numbered(4), np.zeros(4), batch_size=2, seed=1) for _ in range(2))
    with pytest.raises(GpuseqError, match="another data set than SaveState watches"):
        model.fit(trained, verbose=0, callbacks=[gk.SaveState(other, tmp_path / "state.json")])


class Asked(gpuseq.Sequence):
    """Batches that note who asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return np.full((2, 3), index, np.float32), np.zeros((2, 1), np.float32)


def test_threads_over_threads_make_each_batch_once() -> None:
    own = Asked()
    data = gk.to_keras(gpuseq.to_device(own, 3, 2, device="cpu"))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(data, verbose=0)  # builds the model on a trial batch
    own.asked.clear()
    model.fit(data, epochs=2, verbose=0)
    assert sorted(own.asked) == sorted(2 * list(range(6)))


def test_a_data_set_with_threads_at_work_can_be_pickled() -> None:
    for data in (gk.to_keras(Asked()), gpuseq.to_device(Asked(), device="cpu")):
        if isinstance(data, gk.KerasDataset):
            data.on_epoch_begin()
        first = np.asarray(data[0][0])
        copy = pickle.loads(pickle.dumps(data))
        assert np.asarray(copy[1][0])[0, 0] == np.asarray(data[1][0])[0, 0] == first[0, 0] + 1


def test_sharding_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    spread = SimpleNamespace(_is_multi_process=True, auto_shard_dataset=True)
    monkeypatch.setattr(keras.distribution, "distribution", lambda: spread)
    sharded = own_generator().flow(numbered(4), batch_size=2, seed=1, shard=(0, 2))
    for data in (sharded, generator().flow(numbered(4), batch_size=2, seed=1, shard=(0, 2)).to_keras()):
        with pytest.raises(GpuseqError, match="auto_shard_dataset = False"):
            data.on_epoch_begin()
    own_generator().flow(numbered(4), batch_size=2, seed=1).on_epoch_begin()
    spread.auto_shard_dataset = False
    sharded.on_epoch_begin()


MISSING = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import gpuseq
try:
    import gpuseq.keras
except gpuseq.MissingDependencyError as error:
    print(error)
"""


def test_a_missing_backend_and_a_missing_keras(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert 'os.environ["KERAS_BACKEND"] = ' in run_script(MISSING, "jax", KERAS_BACKEND="jax").stdout
    assert 'pip install "gpuseq[keras]"' in run_script(MISSING, "keras").stdout


def test_the_core_imports_no_framework(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    source = """
import sys
import gpuseq, gpuseq.feed.lookahead, gpuseq.feed.loader, gpuseq.feed.tensors
print([name for name in ("keras", "torch", "jax", "tensorflow", "ray", "cupy") if name in sys.modules])
"""
    assert run_script(source).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        "gpuseq.keras",
        "gpuseq.torch",
        "gpuseq.jax",
        pytest.param("gpuseq.tensorflow", marks=pytest.mark.frameworks("tensorflow")),
    ],
)
def test_a_module_named_like_its_framework_finds_the_framework(name: str) -> None:
    framework = name.partition(".")[2]
    module = importlib.import_module(name)
    assert module.__name__ == name
    assert "gpuseq" not in str(sys.modules[framework].__file__)


def test_save_state_by_epoch(tmp_path: Path) -> None:
    images, labels = photos()
    flow = own_generator().flow(images, labels, batch_size=8, seed=1)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(flow, epochs=2, verbose=0, callbacks=[gk.SaveState(flow, tmp_path / "state.json")])
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["epoch"], state["batch_index"]) == (2, 0)


def test_the_rest_of_an_epoch_is_followed_by_the_next_one() -> None:
    """A pass from within an epoch to its end has left nothing in the middle."""
    progress = FitProgress()
    progress.go_to(1, 2)

    def walked(num_batches: int) -> list[tuple[int, int]]:
        progress.opened()
        progress.begin()
        taken = [progress.take(3) for _ in range(num_batches)]
        progress.end()
        return taken

    assert walked(1) == [(1, 2)]
    assert walked(3) == [(2, 0), (2, 1), (2, 2)]
    assert walked(2) == [(3, 0), (3, 1)]
    assert walked(1) == [(4, 0)], "a pass that was left in the middle is over"


def test_what_is_read_ahead_after_training_is_read_again() -> None:
    """As TensorFlow's thread does, also once training is over."""
    progress = FitProgress(None)
    progress.go_to(1, 2)
    progress.opened()
    progress.begin()
    progress.take(3)
    progress.end()
    progress.trained(2)
    assert progress.take(3) == (2, 0)
    progress.opened()
    progress.begin()
    assert [progress.take(3) for _ in range(3)] == [(2, 0), (2, 1), (2, 2)]
    progress.end()


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_a_saved_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    """It is looked for where models are written, or beside the state where the callback writes none."""
    flow = own_generator().flow(numbered(6), np.zeros((6, 1)), batch_size=3, seed=1)
    with pytest.raises(ValueError, match=r"model must be the name of a \.keras file"):
        gk.SaveState(flow, tmp_path / "state.json", model=tmp_path / "model.h5")
    saves = gk.SaveState(flow, tmp_path / "state.json", model=tmp_path / "model.keras")
    assert saves.restore() is None
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(flow, epochs=2, verbose=0, callbacks=[saves])
    saved = saves.restore()
    assert saved == (2, 0, str(tmp_path / "model-2-0.keras"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-2-0.keras", "state.json"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path(saved.model).rename(elsewhere / "model-2-0.keras")
    with pytest.raises(FileNotFoundError, match=r"names the model 'model-2-0\.keras', and it is not in"):
        saves.restore()
    moved = gk.SaveState(flow, tmp_path / "state.json", model=elsewhere / "model.keras")
    assert moved.restore() == (2, 0, str(elsewhere / "model-2-0.keras"))
    (tmp_path / "state.json").rename(elsewhere / "state.json")
    assert gk.SaveState(flow, elsewhere / "state.json").restore() == (2, 0, str(elsewhere / "model-2-0.keras"))
