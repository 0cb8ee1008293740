"""Bad files that leave nothing of a batch: passes go on without it, each good file is met once, states stay right."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpuseq import ImageFileError, to_device
from gpuseq.base.errors import EmptyBatchError
from gpuseq.feed.loader import Loader
from gpuseq.keras.fit_progress import FitProgress
from tests.feed.samples import generator

NUM_FILES = 8
BAD = {2, 7}
GOOD = sorted(set(range(NUM_FILES)) - BAD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of eight files, of which two are bad, whose pixels are their numbers."""
    (tmp_path / "files" / "one").mkdir(parents=True)
    for number in range(NUM_FILES):
        path = tmp_path / "files" / "one" / f"{number}.png"
        if number in BAD:
            path.write_bytes(b"not a picture")
        else:
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    return tmp_path / "files"


def flow(folder: Path, own: Any = None, **options: Any) -> Any:
    own = generator() if own is None else own
    options = {"batch_size": 1, "seed": 1, "class_mode": None, "verbose": False, "on_error": "skip"} | options
    return own.flow_from_directory(folder, (8, 8), **options)


def numbers(batches: Any) -> list[int]:
    """Return the files that batches of x, or of (x,), show."""
    shown: list[int] = []
    for batch in batches:
        images = batch[0] if isinstance(batch, tuple) else batch
        shown.extend(np.asarray(images)[:, 0, 0, 0].astype(int).tolist())
    return shown


def wanted(folder: Path, epoch: int, **options: Any) -> list[int]:
    """Return the good files of an epoch in its order, as plans have it."""
    walk = flow(folder, **options)
    plans = (walk.plan_batch(index, epoch=epoch) for index in range(len(walk)))
    return [number for plan in plans for number in plan.indices.tolist() if number not in BAD]


@pytest.mark.parametrize("policy", ["skip", "substitute", lambda path, error: None])
@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_a_loader_passes_over_a_batch_of_which_nothing_is_left(folder: Path, rng: str, policy: Any) -> None:
    batches = Loader(flow(folder, rng=rng, on_error=policy))
    for epoch in range(3):
        assert batches.epoch == epoch
        assert numbers(batches) == wanted(folder, epoch, rng=rng)


@pytest.mark.parametrize("workers", [0, 3])
def test_to_device_passes_over_it(folder: Path, workers: int) -> None:
    batches = to_device(flow(folder), 2, workers, device="cpu")
    for epoch in range(3):
        assert numbers(batches) == wanted(folder, epoch)


@pytest.mark.parametrize("workers", [0, 3])
def test_by_index_it_is_an_error_and_the_next_are_made_ahead_all_the_same(folder: Path, workers: int) -> None:
    batches = to_device(flow(folder, shuffle=False), 2, workers, device="cpu")
    found = []
    for index in range(NUM_FILES):
        if index in BAD:
            with pytest.raises(ImageFileError, match=f"{index}.png"):
                batches[index]
        else:
            found.append(batches[index])
            assert batches._ahead is not None
            assert (batches._ahead._executor is None) == (workers == 0)
    assert numbers(found) == GOOD
    batches.close()


@pytest.mark.parametrize("stop", range(2 * len(GOOD) + 1))
def test_a_state_knows_what_was_passed_over(folder: Path, stop: int) -> None:
    first = Loader(flow(folder))
    done: list[Any] = []
    state = first.state_dict()
    while len(done) < stop:
        for batch in first:
            done.append(batch)
            state = first.state_dict()
            if len(done) == stop:
                break
    second = Loader(flow(folder))
    second.load_state_dict(json.loads(json.dumps(state)))
    rest: list[Any] = []
    while len(done) + len(rest) < 3 * len(GOOD):
        rest.extend(second)
    assert numbers(done + rest) == [number for epoch in range(3) for number in wanted(folder, epoch)]


@pytest.mark.parametrize("feed", [Loader, lambda walk: to_device(walk, device="cpu")], ids=["loader", "to_device"])
def test_ranks_that_would_have_fewer_batches_are_told(folder: Path, feed: Callable[[Any], Any]) -> None:
    """A rank that is a batch short leaves the others waiting for it, for ever."""
    with pytest.raises(ImageFileError, match=r"7\.png.*shard=\(1, 2\).*gpuseq check"):
        list(feed(flow(folder, shard=(1, 2), shuffle=False)))


@pytest.mark.parametrize("feed", [Loader, lambda walk: to_device(walk, device="cpu")], ids=["loader", "to_device"])
def test_an_epoch_of_nothing_is_an_error(folder: Path, feed: Callable[[Any], Any]) -> None:
    for number in GOOD:
        (folder / "one" / f"{number}.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match=r"\.png"):
        list(feed(flow(folder)))


def test_bad_files_are_listed_where_they_are_the_last_batch(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    list(Loader(flow(folder, shuffle=False)))
    assert "2.png" in caplog.text
    assert "7.png" in caplog.text


# Keras, which has been promised a number of batches.


def test_the_place_is_filled_by_the_next_batch_of_the_walk() -> None:
    walk = FitProgress()
    walk.handed_out = deque()
    walk.opened()
    first = walk.take(3)
    second = walk.pass_over(walk.take(3), 3)
    third = walk.take(3)
    assert [first, second, third] == [(0, 0), (0, 2), (1, 0)]
    assert list(walk.handed_out) == [first, second, third]
    assert walk.stands_in(1)
    walk.opened()
    assert walk.take(3) == (1, 1)


@pytest.mark.keras
@pytest.mark.parametrize("to_keras", [False, True])
def test_fit_gets_as_many_batches_as_it_counts_on(folder: Path, to_keras: bool, tmp_path: Path) -> None:
    """Each good file once per epoch of the pass, which ends earlier than Keras'; SaveState goes on from there."""
    keras = pytest.importorskip("keras")
    gk = pytest.importorskip("gpuseq.keras")
    seen: list[int] = []

    def data() -> Any:
        if to_keras:
            return flow(folder, class_mode="input").to_keras()
        return flow(folder, gk.ImageDataGenerator(device="cpu"), class_mode="input")

    def fit(batches: Any, epochs: int) -> None:
        with keras.device("cpu"):
            network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1)])
            network.compile("sgd", "mse")
            network.fit(batches, epochs=epochs, verbose=0, callbacks=[gk.SaveState(batches, tmp_path / "state.json")])

    def watch(batches: Any) -> None:
        source = getattr(batches, "source", batches)
        replay = source.replay

        def watched(plan: Any) -> Any:
            batch = replay(plan)
            seen.extend(numbers([batch]))
            return batch

        source.replay = watched

    batches = data()
    assert len(batches) == NUM_FILES
    watch(batches)
    fit(batches, 3)
    stream = [number for epoch in range(6) for number in wanted(folder, epoch)]
    assert seen[-3 * NUM_FILES :] == stream[: 3 * NUM_FILES]  # before them a trial, put back
    seen.clear()
    resumed = data()
    resumed.load_state_dict(json.loads((tmp_path / "state.json").read_text()))
    watch(resumed)
    fit(resumed, 1)
    assert seen[-NUM_FILES:] == stream[3 * NUM_FILES : 4 * NUM_FILES]


FIT = """
import json, sys
import numpy as np
import keras
from gpuseq.keras import ImageDataGenerator
for to_keras in (False, True):
    flow = ImageDataGenerator(device="cpu").flow_from_directory(
        sys.argv[1], (8, 8), batch_size=1, class_mode="input", verbose=False, on_error="skip", shuffle=False, seed=1
    )
    data = flow.to_keras() if to_keras else flow
    seen = []
    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)
    model = keras.Sequential([keras.layers.Conv2D(3, 1)])
    model.compile("sgd", "mse")
    model.fit(data, epochs=2, verbose=0, callbacks=[Note()])
    print(json.dumps([len(seen), data.state_dict()["epoch"]]))
"""


@pytest.mark.keras
@pytest.mark.parametrize("backend", ["torch", pytest.param("tensorflow", marks=pytest.mark.frameworks("tensorflow"))])
def test_fit_where_the_first_batches_are_bad(folder: Path, backend: str, run_script: Any) -> None:
    """TensorFlow looks at the first two batches before all: it is shown others."""
    pytest.importorskip(backend)
    for number in (0, 1):
        (folder / "one" / f"{number}.png").write_bytes(b"")
    printed = run_script(FIT, str(folder), KERAS_BACKEND=backend).stdout
    # Of 0 to 7 four are good, 3 to 6: Keras' two epochs of 8 are four passes.
    assert [json.loads(line) for line in printed.splitlines()[-2:]] == [[16, 3], [16, 3]]


@pytest.mark.parametrize("road", ["plain", "epoch", "state"])
@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_tf_keras_which_reads_by_index_gets_another_batch_in_its_place(folder: Path, rng: str, road: str) -> None:
    keras = pytest.importorskip("gpuseq.keras")
    reader: dict[str, Any] = {"__name__": "tf_keras.src.utils.data_utils"}
    exec("def read(dataset, index): return dataset[index]", reader)

    def opened() -> Any:
        made = flow(folder, keras.ImageDataGenerator(device="cpu"), rng=rng, shuffle=False)
        if road == "epoch":
            made.set_epoch(2)
        elif road == "state":
            state = flow(folder, keras.ImageDataGenerator(device="cpu"), rng=rng, shuffle=False).state_dict()
            made.load_state_dict(state)
        return made

    dataset = opened()
    shown = numbers(reader["read"](dataset, index) for index in range(NUM_FILES))
    assert shown == [0, 1, 3, 3, 4, 5, 6, 0]  # 2 and 7 are bad
    with pytest.raises(EmptyBatchError):
        opened()[2]  # for every other caller it is an error


@pytest.mark.parametrize("to_keras", [False, True])
def test_a_look_before_fit_is_shown_another_batch_and_moves_nothing(folder: Path, to_keras: bool) -> None:
    """As TensorFlow's adapter in Keras looks at batches for their shapes: by index, once it has read `num_batches`."""
    keras = pytest.importorskip("gpuseq.keras")
    reader: dict[str, Any] = {"__name__": "keras.src.trainers.data_adapters.py_dataset_adapter"}
    exec("def read(dataset, index): return dataset[index]", reader)
    own = generator() if to_keras else keras.ImageDataGenerator(device="cpu")
    made = flow(folder, own, shuffle=False)
    dataset = made.to_keras() if to_keras else made
    with pytest.raises(EmptyBatchError):
        reader["read"](dataset, 2)  # no `fit` is about to begin
    assert dataset.num_batches == NUM_FILES
    assert numbers([reader["read"](dataset, 2)]) == [0]
    state = dataset.state_dict()
    assert (state["epoch"], state["batch_index"]) == (0, 0)


@pytest.mark.parametrize("num_files", [1, 3])
def test_fit_looks_at_each_file_once_where_all_are_bad(folder: Path, num_files: int) -> None:
    """And stands at the start of the next epoch, should training go on with mended files."""
    keras = pytest.importorskip("gpuseq.keras")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
        if int(path.stem) >= num_files:
            path.unlink()
    dataset = flow(folder, keras.ImageDataGenerator(device="cpu"), prefetch=0)
    looked: list[int] = []
    replay = dataset.replay
    dataset.replay = lambda plan: (looked.extend(plan.indices.tolist()), replay(plan))[1]
    dataset.on_epoch_begin()
    with pytest.raises(EmptyBatchError):
        dataset[0]
    assert sorted(looked) == list(range(num_files))
    state = dataset.state_dict()
    assert (state["epoch"], state["batch_index"]) == (1, 0)


@pytest.mark.frameworks("tensorflow")
def test_a_tf_dataset_is_that_much_shorter(folder: Path) -> None:
    from gpuseq.tensorflow import as_dataset, loader

    dataset = as_dataset(flow(folder))
    for epoch in range(2):
        assert numbers(dataset) == wanted(folder, epoch)
    assert numbers(loader(flow(folder))) == wanted(folder, 0)
    assert int(as_dataset(flow(folder, on_error="raise", shuffle=False)).cardinality()) == NUM_FILES
