"""The algebra of epochs and shards, as laws that hold for any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseq.plan.draw import Draw, Drawing, KerasStream, draw_params
from gpuseq.plan.order import keyed_permutation, position_of, shard_indices, shard_size
from gpuseq.plan.philox import philox_uniform
from gpuseq.plan.planner import Planner
from gpuseq.plan.ranges import ShiftRange, TransformRanges
from gpuseq.plan.sharding import PlanOptions
from tests.compare import assert_same

sizes = st.integers(0, 300)
worlds = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)
remainders = st.sampled_from(["pad", "drop", "exact"])


@given(size=sizes, seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**63))
@settings(max_examples=60)
def test_a_keyed_epoch_is_a_permutation_and_repeats(size: int, seed: int, epoch: int) -> None:
    order = keyed_permutation(size, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(size))
    assert_same(keyed_permutation(size, seed=seed, epoch=epoch), order)


@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
@settings(max_examples=40)
def test_neighbouring_seeds_and_epochs_are_not_shifts_of_each_other(seed: int, epoch: int) -> None:
    """``seed + epoch`` as a key would make (3, 4) and (4, 3) one epoch."""
    order = keyed_permutation(200, seed=seed, epoch=epoch)
    for other in ((seed + 1, epoch), (seed, epoch + 1), (epoch, seed) if epoch != seed else (seed, epoch + 2)):
        assert not np.array_equal(keyed_permutation(200, seed=other[0], epoch=other[1]), order)


@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
@settings(max_examples=20)
def test_the_order_takes_no_number_that_a_sample_takes(seed: int, epoch: int) -> None:
    """Samples count from 0 under the same key: an order from there would be tied to the first samples' angles."""
    order = keyed_permutation(50, seed=seed, epoch=epoch)
    first = philox_uniform(np.arange(32), 4, seed=seed, epoch=epoch)
    for block in range(32):
        bits = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([block, 0, 0, 0], np.uint64))
        at_block = np.random.Generator(bits)
        assert not np.array_equal(at_block.permutation(50), order)
        bits.state = np.random.Philox(key=[seed, epoch], counter=[block, 0, 0, 0]).state
        assert_same(at_block.random(4), first[block])  # these blocks are the samples' own


@given(size=sizes, world=worlds, remainder=remainders, data=st.data())
@settings(max_examples=200)
def test_shards_are_equal_in_size_disjoint_and_cover(
    size: int, world: int, remainder: str, data: st.DataObject
) -> None:
    permutation = np.array(data.draw(st.permutations(range(size))), np.int64)
    parts, weights = zip(*(shard_indices(permutation, rank, world, remainder) for rank in range(world)), strict=True)
    assert all((part_weights is None) == (remainder != "exact") for part_weights in weights)
    if size == 0:
        assert all(len(part) == 0 for part in parts)
        assert all(len(part_weights) == 0 for part_weights in weights if part_weights is not None)
        return
    assert {len(part) for part in parts} == {shard_size(size, world, remainder)}
    together = np.concatenate(parts)
    if remainder == "drop":
        assert len(set(together.tolist())) == len(together) == size - size % world
    elif remainder == "pad":
        assert set(together.tolist()) == set(range(size))
        assert len(together) - size < world
    else:
        counted = np.concatenate(weights)
        assert counted.dtype == np.float32
        assert set(counted.tolist()) <= {0.0, 1.0}
        assert sorted(together[counted > 0].tolist()) == list(range(size)), "each sample counts exactly once"


@given(size=st.integers(1, 300), world=worlds, batch_size=st.integers(1, 12), seed=seeds)
@settings(max_examples=100)
def test_the_ranks_batches_together_are_pieces_of_the_global_order(
    size: int, world: int, batch_size: int, seed: int
) -> None:
    permutation = np.random.RandomState(seed).permutation(size)
    parts = [shard_indices(permutation, rank, world, "drop")[0] for rank in range(world)]
    step = batch_size * world
    for start in range(0, len(parts[0]), batch_size):
        batch = {int(i) for part in parts for i in part[start : start + batch_size]}
        piece = permutation[start * world : start * world + step][: len(batch)]
        assert batch == set(piece.tolist())


@given(size=sizes, batch_size=st.integers(1, 70))
def test_num_batches_covers_every_sample_and_not_one_batch_more(size: int, batch_size: int) -> None:
    count = len(Planner(size, batch_size, False, None, PlanOptions()))
    assert count * batch_size >= size
    assert (count - 1) * batch_size < size or count == 0


@given(order=st.lists(st.integers(0, 4), min_size=1, max_size=12), batch_size=st.integers(1, 5), data=st.data())
def test_the_place_of_a_batch_is_where_all_of_it_stands(order: list[int], batch_size: int, data: st.DataObject) -> None:
    """Shards that are filled up hold samples twice: batches may begin alike, or be equal, and the first one counts."""
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for batch in batches:
        assert position_of(np.array(batch), np.array(order), batch_size) == batches.index(batch)
    other = data.draw(st.lists(st.integers(0, 4), max_size=5))
    found = position_of(np.array(other, np.int64), np.array(order), batch_size)
    assert found == (batches.index(other) if other in batches else None)


RANGES = [
    TransformRanges(),
    TransformRanges(rotation=10.0, zoom=(0.5, 1.5), brightness=(0.5, 1.5), channel_shift=3.0),
    TransformRanges(height_shift=ShiftRange.parse("h", 4), width_shift=ShiftRange.parse("w", [0.1, 0.3, 5])),
    TransformRanges(
        height_shift=ShiftRange.parse("h", [1, 2, 3, 4, 5]), width_shift=ShiftRange.parse("w", 0.2), shear=3.0
    ),
]


def drawing(ranges: TransformRanges) -> Draw:
    """Return a draw of parameters for 17x5 images."""
    return lambda stream, count: draw_params(stream, ranges, count, 17, 5)


takes = st.lists(
    st.one_of(
        st.tuples(st.just("P"), st.integers(0, 40)),
        st.tuples(st.just("D"), st.integers(0, 9)),
        st.tuples(st.just("S"), st.integers(0, 5)),
    ),
    max_size=6,
)


@pytest.mark.parametrize("ranges", RANGES, ids=["none", "floats", "choices", "mixed"])
@given(seed=seeds.filter(lambda seed: seed < 2**32 - 100), number=st.integers(0, 99), taken=takes)
@settings(max_examples=60)
def test_a_stream_is_restored_from_its_position(
    ranges: TransformRanges, seed: int, number: int, taken: list[tuple[str, int]]
) -> None:
    stream = KerasStream(seed)
    stream.reseed(number)
    last = None
    for kind, count in taken:
        if kind == "P":
            last = stream.permutation(count)
        elif kind == "D":
            stream.params(drawing(ranges), count)
        else:
            stream.file_numbers(count, 10_000)
    again = KerasStream(seed)
    order = again.restore(stream.position, drawing(ranges))
    if last is None:
        assert order is None
    else:
        assert_same(order, last)
    assert again.position == stream.position
    assert_same(again.params(drawing(RANGES[1]), 3), stream.params(drawing(RANGES[1]), 3))
    assert_same(again.permutation(50), stream.permutation(50))


@given(seed=st.integers(0, 2**31), number=st.integers(0, 1000), size=st.integers(0, 60))
@settings(max_examples=50)
def test_a_seeded_stream_is_numpys_own_and_leaves_the_global_one(seed: int, number: int, size: int) -> None:
    before = np.random.get_state()
    stream = KerasStream(seed)
    stream.reseed(number)
    assert_same(stream.permutation(size), np.random.RandomState(seed + number).permutation(size))
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_without_a_seed_the_stream_is_the_global_one() -> None:
    np.random.seed(8)
    stream = KerasStream(None)
    stream.reseed(5)
    got = (stream.permutation(9), stream.params(drawing(RANGES[1]), 2), stream.file_numbers(3, 10_000))
    np.random.seed(8)
    assert_same(got[0], np.random.permutation(9))
    np.random.random_sample(2 * 7)
    assert got[2].tolist() == [np.random.randint(10_000) for _ in range(3)]


@pytest.mark.parametrize("by_epoch", [False, True])
@pytest.mark.parametrize(("shuffle", "seed"), [(True, 7), (False, 7), (False, None), (True, None)])
def test_the_batches_that_are_read_ahead_are_those_that_come(shuffle: bool, seed: int | None, by_epoch: bool) -> None:
    """From wherever `next()` stands, over the borders of epochs; without a seed a next order is not decided yet."""
    planner = Planner(11, 3, shuffle, seed, PlanOptions(rng="keras"))
    if by_epoch:
        planner.set_epoch(0, Drawing())
    is_decided = planner.seed is not None or not shuffle
    taken, foreseen = [], []
    for _ in range(12):
        taken.append(planner.plan(None, Drawing()).indices)
        foreseen.append(planner.upcoming(planner.position.batch, 4, onward=True))
    for step, batches in enumerate(foreseen):
        assert len(batches) == (4 if is_decided else 3 - step % 4)
        for batch, wanted in zip(batches, taken[step + 1 :], strict=False):
            assert_same(batch, wanted)
