"""Random parameters: Keras' numbers from Keras' stream, and keyed numbers that depend on their key only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseq.plan.columns import COLUMNS, PARAMS_DTYPE, params_to_dicts
from gpuseq.plan.draw import KerasStream, draw_keyed, draw_params, replay_cost
from gpuseq.plan.philox import philox_uniform
from gpuseq.plan.ranges import BLOCK, ShiftRange, TransformRanges
from tests.compare import assert_same

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")

floats = st.floats(-60, 60, allow_nan=False).map(lambda value: round(value, 3))
shifts = st.one_of(
    st.just(0.0),
    st.floats(0.01, 3).map(lambda value: round(value, 3)),
    st.integers(1, 5),
    st.lists(
        st.one_of(st.integers(-4, 4), st.floats(-2, 2).map(lambda value: round(value, 2))), min_size=1, max_size=4
    ),
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "rotation_range": floats,
        "shear_range": floats,
        "channel_shift_range": floats,
        "height_shift_range": shifts,
        "width_shift_range": shifts,
        "zoom_range": st.one_of(st.just([1, 1]), st.tuples(st.floats(0.1, 1), st.floats(1, 2))),
        "horizontal_flip": st.booleans(),
        "vertical_flip": st.booleans(),
        "brightness_range": st.one_of(st.none(), st.tuples(st.floats(0, 1), st.floats(1, 3))),
    },
)


def ranges_of(arguments: dict[str, Any]) -> TransformRanges:
    return TransformRanges(
        rotation=arguments.get("rotation_range", 0),
        height_shift=ShiftRange.parse("height_shift_range", arguments.get("height_shift_range", 0.0)),
        width_shift=ShiftRange.parse("width_shift_range", arguments.get("width_shift_range", 0.0)),
        shear=arguments.get("shear_range", 0.0),
        zoom=tuple(arguments.get("zoom_range", (1, 1))),
        horizontal_flip=arguments.get("horizontal_flip", False),
        vertical_flip=arguments.get("vertical_flip", False),
        channel_shift=arguments.get("channel_shift_range", 0.0),
        brightness=arguments.get("brightness_range"),
    )


@given(arguments=arguments, seed=st.integers(0, 2**32 - 1), num_samples=st.integers(0, 9))
@settings(max_examples=150)
def test_a_batch_of_draws_is_keras_drawing_one_sample_after_another(
    arguments: dict[str, Any], seed: int, num_samples: int
) -> None:
    height, width = 11, 17
    keras = keras_image.ImageDataGenerator(**arguments)
    np.random.seed(seed)
    wanted = [keras.get_random_transform((height, width, 3)) for _ in range(num_samples)]
    keras_end = np.random.get_state()
    stream = np.random.RandomState(seed)
    params = draw_params(stream, ranges_of(arguments), num_samples, height, width)
    assert params.dtype == PARAMS_DTYPE
    assert params.shape == (num_samples,)
    for got, reference in zip(params_to_dicts(params), wanted, strict=True):
        assert tuple(got) == COLUMNS.names
        for name, value in reference.items():
            if value is None:
                assert got[name] is None
            else:
                # Keras multiplies a fractional shift by the size after drawing it: one rounding may fall elsewhere.
                assert abs(float(got[name]) - float(value)) <= np.spacing(abs(float(value))), (name, got[name], value)
    end = stream.get_state()
    assert end[2] == keras_end[2]
    assert np.array_equal(end[1], keras_end[1])


@pytest.mark.parametrize("num_samples", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_numbers_that_are_made_of_keras_in_blocks_are_its_bits(num_samples: int) -> None:
    """All ranges but fractional shifts, whose product with the size Keras rounds elsewhere."""
    arguments = {
        "rotation_range": 20.3,
        "height_shift_range": 2.7,
        "shear_range": 9.1,
        "zoom_range": (0.7, 1.3),
        "vertical_flip": True,
        "channel_shift_range": 11.7,
        "brightness_range": (0.3, 1.9),
    }
    keras = keras_image.ImageDataGenerator(**arguments)
    np.random.seed(5)
    wanted = [keras.get_random_transform((11, 17, 3)) for _ in range(num_samples)]
    got = draw_params(np.random.RandomState(5), ranges_of(arguments), num_samples, 11, 17)
    assert params_to_dicts(got) == wanted


SOME = TransformRanges(
    rotation=10.0, zoom=(0.5, 1.5), brightness=(0.5, 1.5), width_shift=ShiftRange.parse("w", [1, 2, 5])
)


@given(
    ids=st.lists(st.integers(0, 10**6), min_size=0, max_size=20),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**40),
)
@settings(max_examples=60)
def test_keyed_draws_depend_on_seed_epoch_and_sample_only(ids: list[int], seed: int, epoch: int) -> None:
    together = draw_keyed(SOME, np.array(ids), 8, 8, seed=seed, epoch=epoch)
    turned = draw_keyed(SOME, np.array(ids[::-1]), 8, 8, seed=seed, epoch=epoch)
    assert turned[::-1].tobytes() == together.tobytes()
    for position, sample in enumerate(ids):
        alone = draw_keyed(SOME, np.array([sample]), 8, 8, seed=seed, epoch=epoch)
        assert alone.tobytes() == together[position : position + 1].tobytes()


@pytest.mark.each_cpu_engine
@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**64 - 1), num_doubles=st.integers(1, 11))
@settings(max_examples=60)
def test_keyed_numbers_are_numpys_philox(seed: int, epoch: int, num_doubles: int) -> None:
    num_blocks = -(-num_doubles // 4)
    ids = np.array([0, 1, 2, 7, 12345])
    got = philox_uniform(ids, num_doubles, seed=seed, epoch=epoch)
    for row, sample in enumerate(ids):
        bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
        bits.advance(int(sample) * num_blocks)
        assert_same(got[row], np.random.Generator(bits).random(num_doubles))


def test_keyed_draws_differ_between_samples_epochs_and_seeds() -> None:
    ids = np.arange(500)
    base = draw_keyed(SOME, ids, 8, 8, seed=3, epoch=4)["theta"]
    assert len(set(base.tolist())) == 500
    for seed, epoch in ((3, 5), (4, 4), (4, 3)):
        assert not np.isin(draw_keyed(SOME, ids, 8, 8, seed=seed, epoch=epoch)["theta"], base).any()


def test_keyed_draws_fill_their_ranges_evenly() -> None:
    params = draw_keyed(SOME, np.arange(20_000), 8, 8, seed=1, epoch=0)
    assert -10 <= params["theta"].min() < -9.9
    assert 9.9 < params["theta"].max() < 10
    for name, low, high in (("theta", -10, 10), ("zx", 0.5, 1.5), ("brightness", 0.5, 1.5)):
        counts, _ = np.histogram(params[name], 10, (low, high))
        assert counts.sum() == 20_000
        assert abs(counts - 2000).max() < 5 * np.sqrt(2000), name
    values, counts = np.unique(params["ty"], return_counts=True)
    assert values.tolist() == [-5, -2, -1, 1, 2, 5]
    assert abs(counts - 20_000 / 6).max() < 5 * np.sqrt(20_000 / 6)
    assert abs(np.corrcoef(params["theta"], params["zx"])[0, 1]) < 0.03


def test_the_cost_of_a_position_is_its_entries_and_numbers_without_permutations() -> None:
    """It bounds how long a state that was tampered with can take; permutations are counted apart."""
    stream = KerasStream(3)
    stream.reseed(0)
    assert replay_cost(stream.position) == 0
    stream.permutation(100)
    stream.params(lambda source, num_samples: draw_params(source, SOME, num_samples, 8, 8), 7)
    stream.file_numbers(5, 1000)
    assert replay_cost(stream.position) == 3 + 7 + 5


@pytest.mark.parametrize("seed", [None, 3])
def test_numbers_that_none_reads_are_taken_all_the_same(seed: int | None) -> None:
    """What is drawn after them, and the record, are as if each had been read; a new batch forgets them."""
    found = []
    for passes_over in (False, True):
        np.random.seed(5)
        stream = KerasStream(seed)
        for batch in (0, 1, 2):
            stream.reseed(batch)
            for num_samples in (4, 7):
                if passes_over:
                    stream.pass_over(num_samples, 2)
                else:
                    stream.params(lambda numbers, count: numbers.random_sample(2 * count), num_samples)
        found.append(
            (stream.key, stream.position, stream.file_numbers(3, 1000).tolist(), stream.permutation(9).tolist())
        )
    assert found[0] == found[1]
