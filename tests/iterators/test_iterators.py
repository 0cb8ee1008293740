"""What iterators promise beyond one batch after another: subclasses, epochs by number, shards, threads, copies."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.iterators import arrays as array_iterators
from gpuseq.iterators import batch as batches
from gpuseq.iterators import iterator as iterators
from tests.cases import images
from tests.compare import assert_same, assert_same_structure
from tests.parity import Streams, assert_same_walk, quiet

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")

AUGMENT: dict[str, Any] = {
    "rotation_range": 40,
    "zoom_range": 0.3,
    "horizontal_flip": True,
    "channel_shift_range": 30.0,
}
DATA = images((23, 10, 10, 3), "uint8")
LABELS = np.arange(23)
WALK = [("next", 0)] * 5 + [("getitem", 2), ("on_epoch_end", 0), ("getitem", 0), ("reset", 0), ("next", 0)]


def flow(*, rng: str = "keras", **arguments: Any) -> Any:
    generator = gpuseq.ImageDataGenerator(**AUGMENT, rng=rng, device="cpu")
    return generator.flow(DATA, LABELS, **{"batch_size": 4, "seed": 11} | arguments)


def epoch_of(iterator: Any) -> list[Any]:
    return [next(iterator) for _ in range(len(iterator))]


def subclass_of(base: type) -> type:
    """Return an iterator class written against Keras' own protocol."""

    class Squares(base):  # type: ignore[misc]
        def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> np.ndarray:
            return index_array**2

    return Squares


@pytest.mark.keras
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("seed", [5, None])
def test_iterators_written_for_keras_run_unchanged(seed: int | None, shuffle: bool) -> None:
    theirs, ours = (subclass_of(base)(11, 3, shuffle, seed) for base in (keras_image.Iterator, gpuseq.Iterator))
    assert_same_walk(theirs, ours, WALK, Streams(2), lambda expected: 0.0)


def test_an_iterator_without_a_batch_method_says_which_one() -> None:
    with pytest.raises(NotImplementedError, match="_get_batches_of_transformed_samples"):
        next(gpuseq.Iterator(4, 2, False, None))


@pytest.mark.keras
def test_iterator_classes_may_be_made_directly(tree: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"filename": ["ants/jpeg_0.jpg", "bees/bmp_4.bmp"], "class": ["a", "b"]})
    for theirs, ours in (
        (keras_image.ImageDataGenerator(**AUGMENT), gpuseq.ImageDataGenerator(**AUGMENT, device="cpu")),
        (keras_image.ImageDataGenerator(), gpuseq.ImageDataGenerator(device="cpu")),
    ):
        for name, arguments in (
            ("NumpyArrayIterator", (DATA, LABELS)),
            ("DirectoryIterator", (str(tree),)),
            ("DataFrameIterator", (frame, str(tree))),
        ):
            more = {} if name == "NumpyArrayIterator" else {"target_size": (14, 14)}
            with quiet():
                wanted = getattr(keras_image, name)(*arguments, theirs, batch_size=2, seed=1, **more)
                got = getattr(gpuseq, name)(*arguments, ours, batch_size=2, seed=1, **more)
                assert_same_walk(wanted, got, WALK[:3], Streams(1), lambda expected: 1e-3)


@pytest.mark.keras
def test_a_frame_iterator_needs_no_generator(tree: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"filename": ["ants/jpeg_0.jpg", "bees/bmp_4.bmp"], "class": ["a", "b"]})
    with quiet():
        wanted = keras_image.DataFrameIterator(frame, str(tree), target_size=(9, 9), seed=1)
        got = gpuseq.DataFrameIterator(frame, str(tree), target_size=(9, 9), seed=1)
        assert_same_walk(wanted, got, [("next", 0)] * 3, Streams(1), lambda expected: 0.0)


def test_next_and_iteration_are_one_walk() -> None:
    one, other = flow(), flow()
    assert iter(one) is one
    for _, batch in zip(range(8), one, strict=False):
        assert_same_structure(batch, other.next())


# Epochs by number.


@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_by_number_is_that_epoch_of_the_walk(shuffle: bool, rng: str) -> None:
    walked = flow(rng=rng, shuffle=shuffle)
    epochs = [epoch_of(walked) for _ in range(3)]
    for number in (2, 0, 1):
        jumped = flow(rng=rng, shuffle=shuffle)
        jumped.set_epoch(number)
        assert_same_structure([jumped[i] for i in reversed(range(len(jumped)))][::-1], epochs[number])
        jumped.set_epoch(number)
        assert_same_structure(epoch_of(jumped), epochs[number])
    assert not np.array_equal(epochs[0][0][0], epochs[1][0][0])


def test_batches_of_an_epoch_by_number_may_be_asked_for_in_any_order_and_again() -> None:
    iterator = flow()
    iterator.set_epoch(1)
    first = [iterator[i] for i in range(len(iterator))]
    for index in (3, 0, 3, 5, 1):
        assert_same_structure(iterator[index], first[index])


@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize("seen", [1, 4, 7])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_what_was_decoded_ahead_does_not_show_in_another_epoch(rng: str, seen: int, epoch: int, tree: Path) -> None:
    """The files of the batches after `seen`, and the next epoch's order, are there already when the epoch is set."""

    def flow(prefetch: int) -> gpuseq.DirectoryIterator:
        own = gpuseq.ImageDataGenerator(rotation_range=20, device="cpu")
        return own.flow_from_directory(
            tree, (9, 9), batch_size=4, class_mode="sparse", seed=3, rng=rng, prefetch=prefetch, verbose=False
        )

    walked, fresh = flow(3), flow(0)
    for _ in range(seen):
        next(walked)
    for one in (walked, fresh):
        one.set_epoch(epoch)
    for _ in range(len(fresh) + 1):
        assert_same_structure(next(walked), next(fresh))
    walked.close()


def test_set_epoch_starts_that_epoch_wherever_the_walk_stands() -> None:
    walked = flow()
    epochs = [epoch_of(walked) for _ in range(2)]
    iterator = flow()
    for _ in range(3):
        next(iterator)
    iterator.set_epoch(1)
    assert iterator.epoch == 1
    assert_same_structure(epoch_of(iterator), epochs[1])
    assert iterator.epoch == 2


@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_on_epoch_end_goes_on_only_after_a_batch(rng: str) -> None:
    """Frameworks also call it before the first epoch, where it must not skip one."""
    iterator = flow(rng=rng)
    iterator.set_epoch(4)
    wanted = iterator[1]
    iterator.set_epoch(4)
    iterator.on_epoch_end()
    iterator.on_epoch_end()
    assert iterator.epoch == 4
    assert_same_structure(iterator[1], wanted)
    iterator.on_epoch_end()
    assert iterator.epoch == 5
    assert not np.array_equal(iterator[1][0], wanted[0])


# Shards.


@pytest.mark.parametrize("remainder", ["pad", "drop", "exact"])
@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_shards_share_an_epoch_out(rng: str, remainder: str) -> None:
    world = 3
    ranks = [flow(rng=rng, shard=(rank, world), remainder=remainder) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    for _ in range(2):
        seen, counted = [], []
        for rank in ranks:
            for batch in epoch_of(rank):
                seen += batch[1].tolist()
                counted += (batch[2] if remainder == "exact" else np.ones(len(batch[1]))).tolist()
        if remainder == "drop":
            assert len(set(seen)) == len(seen) == 21
        elif remainder == "pad":
            assert set(seen) == set(range(23))
            assert len(seen) == 24
        else:
            assert sorted(label for label, count in zip(seen, counted, strict=True) if count) == list(range(23))
            assert len(seen) == 24


def test_keyed_pictures_do_not_depend_on_the_number_of_shards() -> None:
    def pictures(world: int) -> dict[int, np.ndarray]:
        found = {}
        for rank in range(world):
            for batch_images, labels in epoch_of(flow(rng="keyed", shard=(rank, world), remainder="pad")):
                found |= dict(zip(labels.tolist(), batch_images, strict=True))
        return found

    wanted = pictures(1)
    assert sorted(wanted) == list(range(23))
    for world in (2, 5):
        got = pictures(world)
        assert sorted(got) == sorted(wanted)
        for label, picture in got.items():
            assert_same(picture, wanted[label])


def test_shards_of_keras_numbers_differ_from_each_other() -> None:
    """Two ranks with one seed must not turn their different pictures by the same angles."""
    thetas = [flow(shard=(rank, 2)).plan_batch().params["theta"] for rank in range(2)]
    assert not np.intersect1d(*thetas).size


# What must not change a batch.


@pytest.mark.parametrize(
    "arguments",
    [{"prefetch": 0}, {"prefetch": 1}, {"prefetch": 5}, {"cache": "host"}, {"decoder": "pillow"}],
    ids=str,
)
def test_how_files_are_read_changes_no_batch(arguments: dict[str, Any], tree: Path) -> None:
    generator = gpuseq.ImageDataGenerator(**AUGMENT, device="cpu")
    common: dict[str, Any] = {"target_size": (12, 12), "batch_size": 5, "seed": 4}
    with quiet():
        wanted = generator.flow_from_directory(tree, **common)
        got = generator.flow_from_directory(tree, **common, **arguments)
        for _ in range(2):
            assert_same_structure(epoch_of(got), epoch_of(wanted))
        for index in (2, 0, 3):
            assert_same_structure(got[index], wanted[index])
    got.close()
    wanted.close()


@pytest.mark.parametrize("class_mode", ["sparse", "categorical"])
def test_labels_are_looked_up_once_per_batch(class_mode: str, tree: Path) -> None:
    """They are made while the batch is waited for."""

    class Counted(np.ndarray):
        def __getitem__(self, index: Any) -> Any:
            looked_up.append(index)
            return super().__getitem__(index)

    generator = gpuseq.ImageDataGenerator(device="cpu")
    options = {"target_size": (8, 8), "batch_size": 5, "seed": 2, "class_mode": class_mode, "verbose": False}
    batches, alone = (generator.flow_from_directory(tree, **options) for _ in range(2))
    looked_up: list[Any] = []
    batches.classes = batches.classes.view(Counted)
    _, labels = next(batches)
    assert type(labels) is np.ndarray
    assert_same(labels, next(alone)[1])
    assert len(looked_up) == 1


def test_threads_may_share_next(tree: Path) -> None:
    with quiet():
        iterator = gpuseq.ImageDataGenerator(**AUGMENT, device="cpu").flow_from_directory(
            tree, target_size=(12, 12), batch_size=3, seed=4, class_mode=None
        )
        with ThreadPoolExecutor(6) as pool:
            batches = list(pool.map(lambda _: next(iterator), range(2 * len(iterator))))
    iterator.close()
    assert sum(len(batch) for batch in batches) == 2 * iterator.samples
    assert iterator.total_batches_seen == 2 * len(iterator)


@pytest.mark.parametrize("num_batches", [0, 2, 7])
def test_a_pickled_copy_goes_on_alike(num_batches: int, tree: Path) -> None:
    with quiet():
        for iterator in (
            flow(),
            gpuseq.ImageDataGenerator(**AUGMENT, device="cpu").flow_from_directory(
                tree, target_size=(8, 8), batch_size=5, seed=4
            ),
        ):
            for _ in range(num_batches):
                next(iterator)
            copy = pickle.loads(pickle.dumps(iterator))
            for _ in range(7):
                assert_same_structure(next(copy), next(iterator))
            copy.close()
            iterator.close()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_another_version_says_so_before_it_misses_a_module(
    protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterator = flow()
    next(iterator)
    with monkeypatch.context() as patched:
        patched.setattr(iterators, "__version__", "0.0.7")
        older = pickle.dumps(iterator, protocol)
    # Parts that this version does not have: of the same length, because protocol 4 writes lengths.
    assert b"gpuseq.plan.planner" in older
    older = older.replace(b"gpuseq.plan.planner", b"gpuseq.gone.planner")
    with pytest.raises(gpuseq.GpuseqError, match=r"NumpyArrayIterator .* gpuseq 0\.0\.7, .*load_state_dict") as caught:
        pickle.loads(older)
    assert gpuseq.__version__ in str(caught.value)


class PickledByItself(gpuseq.NumpyArrayIterator):
    """A user's own, with a way of its own into a pickle."""

    def __reduce__(self) -> Any:
        return flow, ()


class PickledInPart(gpuseq.NumpyArrayIterator):
    """A user's own, which leaves something out."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "left_out": True}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_users_decide_what_of_their_subclasses_is_pickled(protocol: int) -> None:
    generator = gpuseq.ImageDataGenerator(device="cpu")
    by_itself = pickle.loads(pickle.dumps(PickledByItself(DATA, LABELS, generator), protocol))
    assert type(by_itself) is gpuseq.NumpyArrayIterator
    in_part = pickle.loads(pickle.dumps(PickledInPart(DATA, LABELS, generator), protocol))
    assert type(in_part) is PickledInPart
    assert in_part.left_out


def test_batches_belong_to_the_caller() -> None:
    """Writing into a batch, as training loops do, must not show in the data or in a later batch."""
    before = DATA.copy()
    iterator = gpuseq.ImageDataGenerator(device="cpu").flow(DATA, LABELS, batch_size=23, shuffle=False)
    first = next(iterator)
    kept = first[0].copy()
    first[0][...] = -1
    first[1][...] = -1
    assert_same(DATA, before)
    assert_same(LABELS, np.arange(23))
    assert_same(next(iterator)[0], kept)


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8"])
def test_dtypes(dtype: str) -> None:
    generator = gpuseq.ImageDataGenerator(horizontal_flip=True, dtype=dtype, device="cpu")
    batch = next(generator.flow(DATA, seed=1, batch_size=23))
    wanted = next(gpuseq.ImageDataGenerator(horizontal_flip=True, device="cpu").flow(DATA, seed=1, batch_size=23))
    assert_same(batch, wanted.astype(dtype))


def test_the_conventions_option_reaches_the_pixels() -> None:
    """``corrected``: a height shift moves rows, and a half turn of a wide image stays in place."""
    wide = images((1, 8, 20, 1), "uint8")
    arguments: dict[str, Any] = {"height_shift_range": [3], "fill_mode": "constant", "interpolation_order": 0}
    corrected = gpuseq.ImageDataGenerator(**arguments, conventions="corrected", device="cpu")
    plan_flow = corrected.flow(wide, seed=1)
    batch = next(plan_flow)
    sign = 1 if np.array_equal(batch[0, :5], wide[0, 3:]) else -1
    if sign == 1:
        assert_same(batch[0, :5], wide[0, 3:].astype(np.float32))
    else:
        assert_same(batch[0, 3:], wide[0, :5].astype(np.float32))
    with pytest.warns(UserWarning, match="conventions"):
        keras = gpuseq.ImageDataGenerator(**arguments, device="cpu").flow(wide, seed=1)
    assert not np.array_equal(next(keras), batch)


# Subclasses of the image iterators, as Keras users write them.


def noisy(base: type) -> type:
    """Return an iterator class that changes what ``super()`` makes of a batch."""

    class Noisy(base):  # type: ignore[misc]
        def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
            batch_images, labels = super()._get_batches_of_transformed_samples(index_array)
            return [batch_images + 1000, index_array], labels

    return Noisy


@pytest.mark.keras
@pytest.mark.parametrize("kind", ["NumpyArrayIterator", "DirectoryIterator"])
@pytest.mark.parametrize("seed", [3, None])
def test_image_iterators_may_be_subclassed_as_in_keras(seed: int | None, kind: str, tree: Path) -> None:
    data = (DATA, LABELS) if kind == "NumpyArrayIterator" else (str(tree),)
    more: dict[str, Any] = {} if kind == "NumpyArrayIterator" else {"target_size": (10, 10)}
    with quiet():
        theirs = noisy(getattr(keras_image, kind))(
            *data, keras_image.ImageDataGenerator(**AUGMENT), batch_size=4, shuffle=True, seed=seed, **more
        )
        ours = noisy(getattr(gpuseq, kind))(
            *data, gpuseq.ImageDataGenerator(**AUGMENT, device="cpu"), batch_size=4, shuffle=True, seed=seed, **more
        )
        assert_same_walk(theirs, ours, WALK, Streams(2), lambda expected: 1e-3)
    ours.close()


@pytest.mark.keras
def test_two_views_of_a_batch_are_two_draws() -> None:
    """The recipe of contrastive learning: ``super()`` twice for the same samples."""

    def two_views(base: type) -> type:
        class TwoViews(base):  # type: ignore[misc]
            def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
                return [super(TwoViews, self)._get_batches_of_transformed_samples(index_array) for _ in range(2)]

        return TwoViews

    theirs = two_views(keras_image.NumpyArrayIterator)(
        DATA, None, keras_image.ImageDataGenerator(**AUGMENT), batch_size=5, shuffle=True, seed=3
    )
    ours = two_views(gpuseq.NumpyArrayIterator)(
        DATA, None, gpuseq.ImageDataGenerator(**AUGMENT, device="cpu"), batch_size=5, shuffle=True, seed=3
    )
    for _ in range(6):
        wanted, got = next(theirs), next(ours)
        assert not np.array_equal(wanted[0], wanted[1])
        for view, reference in zip(got, wanted, strict=True):
            assert_same(np.asarray(view), reference, atol=1e-3)


def test_a_subclassed_iterator_replays_and_resumes() -> None:
    """The plan that was drawn is the plan that ``super()`` uses, in any thread."""
    generator = gpuseq.ImageDataGenerator(**AUGMENT, device="cpu")
    iterator = noisy(gpuseq.NumpyArrayIterator)(DATA, LABELS, generator, batch_size=4, shuffle=True, seed=3)
    plans = [iterator.plan_batch() for _ in range(4)]
    wanted = [iterator.replay(plan) for plan in plans]
    with ThreadPoolExecutor(4) as pool:
        assert_same_structure(list(pool.map(iterator.replay, plans)), wanted)
    state = iterator.state_dict()
    following = next(iterator)
    again = noisy(gpuseq.NumpyArrayIterator)(DATA, LABELS, generator, batch_size=4, shuffle=True, seed=3)
    again.load_state_dict(state)
    assert_same_structure(next(again), following)


class InAFile:
    """As h5py's and zarr's arrays: a shape, a dtype, and a read of everything on ``__array__``."""

    dtype = np.dtype(np.uint8)

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.num_reads = 0

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self.num_reads += 1
        return np.zeros(self.shape, self.dtype)


def test_an_array_in_a_file_is_read_with_a_word_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = gpuseq.ImageDataGenerator(device="cpu")
    small = InAFile(3, 8, 8, 3)
    assert len(next(own.flow(small))) == 3
    monkeypatch.setattr(array_iterators, "LARGE_COPY", 500)
    with pytest.warns(
        UserWarning, match=r"InAFile of \(3, 8, 8, 3\) uint8, 576 B, and is read whole: 576 B of memory"
    ) as seen:
        own.flow(small)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    huge = InAFile(10**6, 1024, 1024, 3)
    with pytest.raises(MemoryError, match=r"InAFile .*and is read whole: 3145728\.0 MB, and .* are free.*mmap_mode"):
        own.flow(huge)
    with pytest.raises(MemoryError, match="read whole"):
        gpuseq.ImageDataGenerator(featurewise_center=True, device="cpu").fit(huge)
    assert huge.num_reads == 0
    np.save(tmp_path / "bytes.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "whole.npy", np.zeros((3, 8, 8, 3), np.int64))
    assert len(next(own.flow(np.load(tmp_path / "bytes.npy", mmap_mode="r")))) == 3
    with pytest.warns(UserWarning, match=r"memmap of int64, and is cast to float32 whole: 2\.3 kB"):
        own.flow(np.load(tmp_path / "whole.npy", mmap_mode="r"))
    monkeypatch.setattr(array_iterators, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"cast to float32 whole: 2\.3 kB, and 1\.0 kB are free"):
        own.flow(np.load(tmp_path / "whole.npy", mmap_mode="r"))


def test_h5pys_are_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(array_iterators, "LARGE_COPY", 0)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        data = file.create_dataset("x", data=np.zeros((3, 8, 8, 3), np.uint8))
        with pytest.warns(UserWarning, match=r"x is a h5py\.Dataset of \(3, 8, 8, 3\) uint8"):
            flow = gpuseq.ImageDataGenerator(device="cpu").flow(data)
        assert len(next(flow)) == 3


def test_a_full_disk_leaves_no_half_a_picture(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3), np.uint8)
    iterator = gpuseq.ImageDataGenerator(device="cpu").flow(noise, batch_size=3, save_to_dir=str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            next(iterator)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    next(iterator)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("has_labels", [True, False])
def test_weights_that_are_left_out_are_not_gathered(has_labels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    gathered = batches.gathered

    def noted(values: Any, *rest: Any) -> Any:
        found.append(values)
        return gathered(values, *rest)

    monkeypatch.setattr(batches, "gathered", noted)
    weights = np.arange(6.0)
    labels = np.arange(6) if has_labels else None
    iterator = gpuseq.ImageDataGenerator(device="cpu").flow(
        np.zeros((6, 4, 4, 3), np.uint8), labels, batch_size=3, shuffle=False, sample_weight=weights
    )
    made = next(iterator)
    if has_labels:
        assert_same(made[2], weights[:3])
    else:
        assert isinstance(made, np.ndarray)
    assert [values is iterator.sample_weight for values in found] == [True] * has_labels


@pytest.mark.parametrize("kind", ["nothing", "ranges", "shuffle"])
def test_an_epoch_by_number_draws_a_seed_where_something_is_drawn(kind: str, untouched_global_stream: None) -> None:
    """Without a seed of the user's: a batch that is asked for twice is the same one twice."""
    options: dict[str, Any] = {"rotation_range": 30} if kind == "ranges" else {}
    flow = gpuseq.ImageDataGenerator(**options, device="cpu").flow(DATA, batch_size=3, shuffle=kind == "shuffle")
    before = np.random.get_state()
    flow.set_epoch(1)
    first = flow[1]
    is_drawn = flow.seed is not None
    np.random.set_state(before)
    assert_same(flow[1], first)
    flow.set_epoch(0)
    flow.set_epoch(1)
    assert_same(flow[1], first)
    assert is_drawn or kind == "nothing"


def test_an_epoch_of_samples_in_order_takes_nothing_of_the_global_stream(untouched_global_stream: None) -> None:
    squares = subclass_of(gpuseq.Iterator)(5, 2, False, None)
    squares.set_epoch(3)
    assert squares.seed is None
    assert_same(squares[1], np.array([4, 9]))


@pytest.mark.parametrize("epoch", [-1, 1.5, "1", None])
def test_an_epoch_that_is_no_count_is_refused_and_nothing_moves(epoch: Any) -> None:
    iterator, twin = flow(), flow()
    for one in (iterator, twin):
        next(one)
    with pytest.raises(ValueError, match="epoch must be a non-negative integer"):
        iterator.set_epoch(epoch)
    assert iterator.state_dict() == twin.state_dict()
    assert_same_structure(next(iterator), next(twin))


@pytest.mark.parametrize(("level", "is_warned"), [(0.0, False), (0.4, True), (1.0, True), (1.5, False)])
def test_floats_that_are_rescaled_already_are_warned_of(level: float, is_warned: bool) -> None:
    generator = gpuseq.ImageDataGenerator(rescale=1 / 255, device="cpu")
    data = np.zeros((3, 4, 4, 3), np.float32)
    data[1, 2] = level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generator.flow(data)
    assert [one for one in caught if "from 0 to 1 already" in str(one.message)] != [] if is_warned else caught == []
