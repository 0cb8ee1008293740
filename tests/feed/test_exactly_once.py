"""Over an epoch each sample once, and with keyed numbers the same picture, however the epoch is taken."""

from __future__ import annotations

import json
import pickle
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpuseq import DirectoryIterator
from gpuseq.feed.loader import Loader
from gpuseq.feed.lookahead import to_device
from tests.feed.samples import GEOMETRY, generator

IMAGES = np.random.default_rng(1).uniform(0, 255, (37, 5, 5, 3)).astype(np.float32)
LABELS = np.arange(37)


def flow(n: int = 37, **options: Any) -> Any:
    ranges = options.pop("ranges", {})
    return generator(**ranges).flow(IMAGES[:n], LABELS[:n], **{"batch_size": 4, "seed": 3, **options})


def samples(batches: Any) -> list[int]:
    return [int(label) for batch in batches for label in batch[1]]


WALKS = {
    "n": st.integers(1, 37),
    "batch_size": st.integers(1, 12),
    "rng": st.sampled_from(["keras", "keyed"]),
    "shuffle": st.booleans(),
    "seed": st.integers(0, 2**32 - 1),
}


@settings(max_examples=60)
@given(**WALKS, epoch=st.integers(0, 3))
def test_an_epoch_of_next_holds_each_sample_once(
    n: int, batch_size: int, rng: str, shuffle: bool, seed: int, epoch: int
) -> None:
    iterator = flow(n, batch_size=batch_size, rng=rng, shuffle=shuffle, seed=seed)
    for _ in range(epoch + 1):
        batches = [next(iterator) for _ in range(len(iterator))]
        assert sorted(samples(batches)) == list(range(n))


@settings(max_examples=60)
@given(**WALKS, data=st.data())
def test_any_order_of_access_holds_each_sample_once(
    n: int, batch_size: int, rng: str, shuffle: bool, seed: int, data: st.DataObject
) -> None:
    iterator = flow(n, batch_size=batch_size, rng=rng, shuffle=shuffle, seed=seed)
    iterator.set_epoch(1)
    order = data.draw(st.permutations(range(len(iterator))))
    assert sorted(samples(iterator[index] for index in order)) == list(range(n))


@settings(max_examples=30)
@given(
    n=st.integers(1, 37),
    batch_size=st.integers(1, 9),
    rng=st.sampled_from(["keras", "keyed"]),
    workers=st.integers(0, 6),
    prefetch=st.integers(0, 3),
)
def test_any_number_of_workers(n: int, batch_size: int, rng: str, workers: int, prefetch: int) -> None:
    iterator = flow(n, batch_size=batch_size, rng=rng, ranges=GEOMETRY)
    alone = flow(n, batch_size=batch_size, rng=rng, ranges=GEOMETRY)
    for epoch in range(2):
        alone.set_epoch(epoch)
        iterator.set_epoch(epoch)
        batches = list(to_device(iterator, prefetch, workers, device="cpu"))
        assert sorted(samples(batches)) == list(range(n))
        for index, (x, _) in enumerate(batches):
            assert np.array_equal(x, alone[index][0])


@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_bare_threads_on_one_iterator(rng: str) -> None:
    """Eight threads ask one iterator for batches of three epochs, all at once: each gets the one it asked for."""
    iterator = flow(rng=rng, ranges=GEOMETRY)
    wanted = [(epoch, index) for epoch in range(3) for index in range(len(iterator))]
    barrier = threading.Barrier(8)

    def ask(part: int) -> list[tuple[int, int, Any]]:
        barrier.wait()
        return [(e, i, iterator.replay(iterator.plan_batch(i, epoch=e))) for e, i in wanted[part::8]]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for part in pool.map(ask, range(8)) for answer in part]
    alone = flow(rng=rng, ranges=GEOMETRY)
    assert len(answers) == len(wanted)
    for epoch, index, (x, y) in answers:
        wanted_x, wanted_y = alone.replay(alone.plan_batch(index, epoch=epoch))
        assert np.array_equal(y, wanted_y)
        assert np.array_equal(x, wanted_x)


@settings(max_examples=80)
@given(
    n=st.integers(1, 37),
    world=st.integers(1, 5),
    batch_size=st.integers(1, 9),
    rng=st.sampled_from(["keras", "keyed"]),
    remainder=st.sampled_from(["pad", "drop", "exact"]),
    epoch=st.integers(0, 2),
)
def test_shards_cover_and_are_equally_long(
    n: int, world: int, batch_size: int, rng: str, remainder: str, epoch: int
) -> None:
    counts: Counter[int] = Counter()
    lengths, weighted = set(), Counter()
    for rank in range(world):
        iterator = flow(n, batch_size=batch_size, rng=rng, shard=(rank, world), remainder=remainder)
        loader = Loader(iterator)
        loader.set_epoch(epoch)
        batches = list(loader)
        lengths.add(len(batches))
        counts.update(samples(batches))
        for batch in batches:
            if remainder == "exact":
                weighted.update(int(y) for y, weight in zip(batch[1], batch[2], strict=True) if weight == 1)
    assert len(lengths) == 1, "ranks have different numbers of batches"
    if remainder == "drop":
        assert set(counts.values()) <= {1}
        assert sum(counts.values()) == n // world * world
    else:
        assert set(counts) == set(range(n)), "a sample is missing"
        assert sum(counts.values()) == -(-n // world) * world
        if remainder == "exact":
            assert set(weighted) == set(range(n))
            assert set(weighted.values()) == {1}


@pytest.mark.parametrize("options", [{"rng": "keyed"}, {"shard": (1, 2)}, {}])
@pytest.mark.parametrize("stop", [0, 2, 3, 4, 6])
def test_epochs_of_batches_made_as_keras_2_makes_them(stop: int, options: dict[str, Any]) -> None:
    """Sample numbers from ``index_generator`` go on from epoch to epoch, and so do pictures and state."""

    def made(iterator: Any) -> Any:
        return iterator._get_batches_of_transformed_samples(next(iterator.index_generator))

    def fresh() -> Any:
        iterator = flow(11 if "shard" not in options else 22, ranges=GEOMETRY, **options)
        if not options:
            iterator.set_epoch(0)
        return iterator

    by_hook, by_next = fresh(), fresh()
    assert len(by_hook) == 3
    for number in range(8):
        if number == stop:
            state = by_hook.state_dict()
            by_hook = fresh()
            by_hook.load_state_dict(state)
            assert by_hook.epoch == by_next.epoch == number // 3
        (x, y), (wanted_x, wanted_y) = made(by_hook), next(by_next)
        assert np.array_equal(y, wanted_y)
        assert np.array_equal(x, wanted_x)
    assert np.array_equal(by_hook[1][0], by_next[1][0])


def test_weights_of_batches_made_as_keras_2_makes_them() -> None:
    """Sample numbers from ``index_generator``, the batch from the hook: a repeated sample still has weight 0."""
    options = {"shard": (1, 2), "remainder": "exact"}
    by_hook, by_next = flow(11, **options), flow(11, **options)
    weights = []
    for _ in range(2):
        indices = next(by_hook.index_generator)
        weights.append(by_hook._get_batches_of_transformed_samples(indices)[2].tolist())
        assert weights[-1] == next(by_next)[2].tolist()
    assert weights == [[1, 1, 1, 1], [1, 0]]
    chosen = by_hook._get_batches_of_transformed_samples(np.array([10, 3, 5, 4, 1]))
    assert chosen[2].tolist() == [1, 1, 1, 1, 1]
    chosen = by_hook._get_batches_of_transformed_samples(np.array([indices[0], 2]))
    assert chosen[2].tolist() == [1, 1]


@settings(max_examples=60)
@given(
    n=st.integers(1, 37),
    batch_size=st.integers(1, 9),
    rng=st.sampled_from(["keras", "keyed"]),
    stop=st.integers(0, 60),
    prefetch=st.booleans(),
)
def test_resumed_anywhere(n: int, batch_size: int, rng: str, stop: int, prefetch: bool) -> None:
    """Leave after any number of batches, in any epoch; a new loader goes on with the rest, bit for bit."""
    first = Loader(flow(n, batch_size=batch_size, rng=rng, ranges=GEOMETRY))
    stop %= 2 * len(first) + 1
    done, state = [], first.state_dict()
    while len(done) < stop:
        for batch in first:
            done.append(batch)
            state = first.state_dict()
            if len(done) == stop:
                break
    state = json.loads(json.dumps(state))
    second = Loader(flow(n, batch_size=batch_size, rng=rng, ranges=GEOMETRY))
    second.load_state_dict(state)
    rest: list[Any] = []
    while len(done) + len(rest) < 3 * len(first):
        rest.extend(second)
    whole = Loader(flow(n, batch_size=batch_size, rng=rng, ranges=GEOMETRY))
    expected = [batch for _ in range(3) for batch in whole]
    assert len(done) + len(rest) == len(expected)
    for (x, y), (wanted_x, wanted_y) in zip(done + rest, expected, strict=True):
        assert np.array_equal(y, wanted_y)
        assert np.array_equal(x, wanted_x)


@settings(max_examples=60)
@given(
    epoch=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
    batch_size=st.integers(1, 40),
    world=st.integers(1, 4),
    workers=st.integers(0, 4),
    shuffle=st.booleans(),
    resume_at=st.integers(0, 40),
)
def test_keyed_pictures_depend_on_nothing_else(
    epoch: int, seed: int, batch_size: int, world: int, workers: int, shuffle: bool, resume_at: int
) -> None:
    """Batch size, workers, order, shards and resume point: the picture of a sample is the same, to the bit."""
    reference = flow(batch_size=37, rng="keyed", seed=seed, shuffle=False, ranges=GEOMETRY)
    reference.set_epoch(epoch)
    pictures, _ = reference[0]
    seen = set()
    for rank in range(world):
        options = {"batch_size": batch_size, "rng": "keyed", "seed": seed, "shuffle": shuffle, "ranges": GEOMETRY}
        iterator = flow(**options, shard=(rank, world))
        iterator.set_epoch(epoch)
        iterator.load_state_dict(iterator.state_dict() | {"batch_index": resume_at % len(iterator)})
        for index, (x, y) in enumerate(to_device(iterator, 2, workers, device="cpu")):
            assert np.array_equal(x, pictures[y]), f"rank {rank}, batch {index}"
            seen.update(y.tolist())
    assert seen == set(range(37))
    other = flow(batch_size=37, rng="keyed", seed=seed, shuffle=False, ranges=GEOMETRY)
    other.set_epoch(epoch + 1)
    assert not np.array_equal(other[0][0], pictures), "another epoch has other pictures"


# From files, decoded ahead, in a new process.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for number in range(17):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(path)
    return tmp_path / "pictures"


def from_folder(folder: Path, **options: Any) -> DirectoryIterator:
    return generator(**GEOMETRY).flow_from_directory(
        folder, (8, 8), batch_size=3, seed=9, verbose=False, decoder="pillow", class_mode="sparse", **options
    )


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_files_each_once_with_and_without_reading_ahead(folder: Path, prefetch: int, shard: tuple[int, int]) -> None:
    plain = from_folder(folder, prefetch=0, shard=shard)
    ahead = from_folder(folder, prefetch=prefetch, shard=shard)
    loader, reference = Loader(ahead), Loader(plain)
    for _ in range(2):
        for (x, y), (wanted_x, wanted_y) in zip(loader, reference, strict=True):
            assert np.array_equal(x, wanted_x)
            assert np.array_equal(y, wanted_y)
    loader.close()


def decoded_ahead(iterator: DirectoryIterator) -> list[bool]:
    """Note, of each batch that will be fetched, whether it was begun before."""
    found: list[bool] = []
    source: Any = iterator._source
    fetch = source.fetch

    def watched(indices: np.ndarray) -> Any:
        found.append(indices.tobytes() in source._pending)
        return fetch(indices)

    source.fetch = watched
    return found


WAYS = {
    "loader": Loader,
    "to_device": lambda iterator: to_device(iterator, 0, 0, device="cpu"),
    "next": lambda iterator: [next(iterator) for _ in range(len(iterator))],
}


@pytest.mark.parametrize("options", [{"rng": "keras"}, {"rng": "keyed"}, {"shuffle": False}, {"shard": (1, 2)}])
@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_the_first_files_of_an_epoch_are_decoded_in_the_one_before(
    folder: Path, way: str, prefetch: int, options: dict[str, Any]
) -> None:
    """Only the very first batch of all is decoded while it is waited for; and nothing twice."""
    iterator = from_folder(folder, prefetch=prefetch, **options)
    found = decoded_ahead(iterator)
    loads: list[Any] = []
    load = iterator._source._load
    iterator._source._load = lambda indices: loads.append(indices) or load(indices)
    alone = Loader(from_folder(folder, prefetch=0, **options))
    batches = WAYS[way](iterator) if way != "next" else None
    for _ in range(3):
        epoch = WAYS[way](iterator) if batches is None else batches
        assert np.array_equal(np.concatenate([y for _, y in epoch]), np.concatenate([y for _, y in alone]))
    iterator.close()
    assert found == [False] + [True] * (len(found) - 1)
    assert len(loads) <= len(found) + prefetch


def test_looking_into_the_next_epoch_draws_nothing(folder: Path) -> None:
    """Without a seed the numbers are those of NumPy's global stream, which the next draw must find as it was."""
    positions = []
    for prefetch in (0, 4):
        np.random.seed(6)
        own = generator(**GEOMETRY)
        files = own.flow_from_directory(folder, (8, 8), batch_size=3, verbose=False, class_mode=None, prefetch=prefetch)
        for _ in range(len(files) + 2):
            next(files)
        files.close()
        positions.append(np.random.random_sample())
    assert positions[0] == positions[1]


def test_a_worker_process_decodes_ahead_what_it_will_make(folder: Path) -> None:
    """Of two workers each makes every second batch, and announces no other."""
    iterator = from_folder(folder, prefetch=2)
    announced: list[list[int]] = []
    source: Any = iterator._source
    expect = source.expect

    def watched(upcoming: Any, current: Any = None) -> None:
        announced.append([indices.tolist() for indices in upcoming])
        expect(upcoming, current)

    source.expect = watched
    alone = from_folder(folder, prefetch=0)
    alone.set_epoch(0)
    made = [alone.plan_batch(index).indices.tolist() for index in range(len(alone))]

    class Part(Loader):
        def _worker(self) -> tuple[int, int]:
            return 1, 2

    assert len(list(Part(iterator))) == 3
    iterator.close()
    assert announced == [[made[3], made[5]], [made[5]], []]


RESUME = """
import json, sys
import numpy as np
from gpuseq import ImageDataGenerator
from gpuseq.feed.loader import Loader
folder, state, out, rng = sys.argv[1:]
generator = ImageDataGenerator(device="cpu", rng=rng, rotation_range=30, width_shift_range=0.1, height_shift_range=0.1,
                               zoom_range=0.2, horizontal_flip=True, conventions="corrected")
flow = generator.flow_from_directory(folder, (8, 8), batch_size=3, seed=9, verbose=False, decoder="pillow",
                                     class_mode="sparse", prefetch=2)
loader = Loader(flow)
loader.load_state_dict(json.load(open(state)))
np.savez(out, *[x for x, _ in loader], *[x for x, _ in loader])
loader.close()
"""


@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_resumed_in_a_new_process_under_prefetch(
    folder: Path, tmp_path: Path, rng: str, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    loader = Loader(from_folder(folder, rng=rng, prefetch=2))
    batches = [x for x, _ in loader]
    walk = iter(loader)
    batches += [next(walk)[0] for _ in range(2)]
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    rest = [x for x, _ in walk] + [x for x, _ in loader]
    loader.close()
    run_script(RESUME, str(folder), str(tmp_path / "state.json"), str(tmp_path / "rest.npz"), rng)
    with np.load(tmp_path / "rest.npz") as resumed:
        assert len(resumed.files) == len(rest) == 4 + 6
        for got, wanted in zip(resumed.values(), rest, strict=True):
            assert np.array_equal(got, wanted)


@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize("stop", [0, 2, 5])
def test_the_pass_of_a_worker_process_goes_on_where_it_stopped(stop: int, rng: str) -> None:
    """Each of two workers makes every other batch; torchdata begins its pass and loads the state afterwards."""

    class Part(Loader):
        number = 0

        def _worker(self) -> tuple[int, int]:
            return self.number, 2

    def part(number: int) -> Loader:
        loader = Part(flow(rng=rng, ranges=GEOMETRY))
        loader.number = number
        return loader

    for number in range(2):
        stopped, resumed, whole = iter(part(number)), part(number), part(number)
        done = [next(stopped) for _ in range(stop)]
        going_on = iter(resumed)
        going_on.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        for got, wanted in ((done + list(going_on), list(whole)), (list(resumed), list(whole))):  # and the next epoch
            assert len(got) == len(wanted) == 5
            for ours, theirs in zip(got, wanted, strict=True):
                assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 2), (2, 1), (3, 2)])
def test_passes_go_on_where_those_of_so_many_ranks_stopped(before: int, after: int) -> None:
    """The state of a pass, which DataLoaders keep for their workers: what is left is left to all ranks together."""

    def passes(world: int) -> list[Any]:
        parts = [flow(36, batch_size=2, rng="keyed", shard=(rank, world)) for rank in range(world)]
        return [iter(Loader(part)) for part in parts]

    first, second = passes(before), passes(after)
    done = [next(one) for one in first for _ in range(12 // (2 * before))]
    for one in second:
        one.load_state_dict(first[0].state_dict())
    rest = [batch for one in second for batch in one]
    assert len(samples(done)) == 12
    assert sorted(samples(done + rest)) == list(range(36))


def test_a_state_at_the_end_of_a_shards_part_goes_on_with_the_next_epoch() -> None:
    """11 samples, "drop": ten of them were served by one process, and each of two ranks has five in an epoch."""
    whole = flow(11, rng="keyed", remainder="drop", batch_size=2, seed=4)
    for _ in range(5):
        next(whole)
    part = flow(11, rng="keyed", remainder="drop", batch_size=1, seed=4, shard=(0, 2))
    part.load_state_dict(whole.state_dict())
    assert (part.epoch, part.batch_index) == (1, 0)
    fresh = flow(11, rng="keyed", remainder="drop", batch_size=1, seed=4, shard=(0, 2))
    fresh.set_epoch(1)
    for _ in range(2 * len(part)):
        for got, wanted in zip(next(part), next(fresh), strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("seed", "how"), [(None, "next"), (None, "index"), (None, "samples"), (3, "next"), (3, "index")]
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_what_an_iterator_keeps_does_not_grow_with_its_batches(seed: int | None, shuffle: bool, how: str) -> None:
    """Of an unseeded one what it took of the global stream was recorded, and never cleared."""
    iterator = flow(11, seed=seed, shuffle=shuffle, ranges=GEOMETRY)
    sizes = []
    for number in range(400):
        if how == "next":
            next(iterator)
        elif how == "index":
            iterator[number % len(iterator)]
        else:
            iterator._get_batches_of_transformed_samples(np.arange(4))
        if number in (80, 399):
            sizes.append(len(pickle.dumps(iterator)))
    assert sizes[1] - sizes[0] < 50, "but for numbers that need a digit more"
