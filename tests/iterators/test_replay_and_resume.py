"""Two complaints of Keras' users: images drift from their masks, and nothing resumes in mid-epoch."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.compare import assert_same

GEOMETRY = {
    "rotation_range": 30,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 8,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "vertical_flip": True,
}
COLOUR = {"channel_shift_range": 20.0, "brightness_range": (0.5, 1.5), "samplewise_center": True}


def samples(count: int = 11) -> np.ndarray:
    return np.random.RandomState(3).randint(0, 256, (count, 12, 12, 3), np.uint8)


def flow(arguments: dict[str, Any], data: np.ndarray, **options: Any) -> gpuseq.NumpyArrayIterator:
    generator = gpuseq.ImageDataGenerator(**arguments, device="cpu")
    return generator.flow(data, np.arange(len(data)), batch_size=4, **options)


@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_image_and_mask_stay_together_by_replaying_one_plan(rng: str) -> None:
    """keras-preprocessing#125: the mask's generator has other options, another seed, and stands elsewhere."""
    data = samples()
    images = flow(GEOMETRY | COLOUR, data, seed=1, rng=rng)
    masks = flow(GEOMETRY, data, seed=99)
    next(masks)
    for _ in range(7):
        plan = images.plan_batch()
        (image, image_label), (mask, mask_label) = images.replay(plan), masks.replay(plan)
        assert_same(image_label, mask_label)
        params = plan.params.copy()
        params["channel_shift_intensity"] = params["brightness"] = np.nan
        assert_same(mask, flow(GEOMETRY, data).replay(replace(plan, params=params))[0])
        assert image.shape == mask.shape
    # Without the plan the same two drift: otherwise this test could not fail.
    assert not np.array_equal(next(images)[1], next(masks)[1])


def test_a_plan_is_a_value() -> None:
    batches = flow(GEOMETRY, samples(), seed=5)
    plan = batches.plan_batch(1)
    first, again = batches.replay(plan), batches.replay(plan)
    assert_same(first[0], again[0])
    assert plan == flow(GEOMETRY, samples(), seed=5).plan_batch(1)
    assert plan != batches.plan_batch(1)
    with pytest.raises(ValueError, match="read-only"):
        plan.params["theta"][0] = 3
    assert len(str(plan).splitlines()) == len(plan) + 1
    assert plan.take(np.array([2, 0])).to_dicts() == [plan.to_dicts()[2], plan.to_dicts()[0]]


def test_whatever_draws_a_plan_makes_it_read_only(tmp_path: Path) -> None:
    sharded: dict[str, Any] = {"shard": (0, 2), "remainder": "exact", "batch_size": 4, "seed": 3}
    policy = gpuseq.RandAugment()
    generator = gpuseq.ImageDataGenerator(rotation_range=20, augmentations=policy, device="cpu")
    plan = generator.flow(samples(9), save_to_dir=str(tmp_path), **sharded).plan_batch()
    ids = np.arange(4)
    drawn = {
        "planned": plan,
        "part": plan.take(np.array([1, 0])),
        "read": gpuseq.BatchPlan.from_json(plan.to_json()),
        "composed": gpuseq.Compose(policy, seed=1).plan(4, (6, 5), epoch=0, sample_ids=ids),
    }
    for name, made in drawn.items():
        parts = {part: value for part, value in vars(made).items() if isinstance(value, np.ndarray)}
        assert len(parts) == (3 if name == "composed" else 5)
        assert [part for part, value in parts.items() if value.flags.writeable] == [], name
    assert ids.flags.writeable, "the caller's own"


def test_what_is_no_plan_of_this_data_is_refused() -> None:
    batches = flow(GEOMETRY, samples(4), seed=5)
    with pytest.raises(TypeError, match="BatchPlan.*int"):
        batches.replay(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="other data.*there are 4 here"):
        batches.replay(flow(GEOMETRY, samples(11), seed=5, shuffle=False).plan_batch(2))


@pytest.mark.parametrize("outside", [4, 5, -1])
def test_a_plan_partly_outside_the_data_is_refused(outside: int) -> None:
    """Python counts -1 from the end; a plan does not, and a sample of other data is no sample of these."""
    batches = flow(GEOMETRY, samples(4), seed=5)
    plan = batches.plan_batch(0)
    with pytest.raises(ValueError, match=f"other data.*sample {outside}, and there are 4 here"):
        batches.replay(replace(plan, indices=np.array([0, outside, 3, 1])))
    assert len(batches.replay(replace(plan, indices=np.array([0, 3, 3, 1])))[0]) == 4


@pytest.mark.parametrize("group", ["affine", "flip"])
def test_a_plan_is_followed_where_one_of_its_rows_rests(group: str) -> None:
    """The generator has no ranges of its own, so all that it knows of the geometry is what the plan says."""
    arguments = {"rotation_range": 40} if group == "affine" else {"horizontal_flip": True}
    drawn = flow(arguments, samples(), seed=5)
    plan = drawn.plan_batch(0)
    params = plan.params.copy()
    if group == "affine":
        params["theta"][1] = 0.0
    else:
        params["flip_horizontal"] = [1, 0, 1, 1]
    plan = replace(plan, params=params)
    images, _ = flow({}, samples()).replay(plan)
    assert_same(images, drawn.replay(plan)[0])
    untouched = [np.array_equal(image, samples()[index]) for image, index in zip(images, plan.indices, strict=True)]
    assert untouched == [False, True, False, False]


def walk(batches: gpuseq.NumpyArrayIterator, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(itertools.islice(batches, steps))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 8])
def test_resume_in_mid_epoch_is_bit_identical(steps: int, by_epoch: bool, rng: str, shuffle: bool) -> None:
    """keras#1872, pytorch#36650: the state goes through JSON into an iterator that has never run."""

    def fresh() -> gpuseq.NumpyArrayIterator:
        batches = flow(GEOMETRY | COLOUR, samples(), seed=7, rng=rng, shuffle=shuffle)
        if by_epoch:
            batches.set_epoch(2)
        return batches

    original = fresh()
    walk(original, steps)
    state = json.loads(json.dumps(original.state_dict()))
    resumed = flow(GEOMETRY | COLOUR, samples(), seed=7, rng=rng, shuffle=shuffle)
    resumed.load_state_dict(state)
    for (image, label), (wanted_image, wanted_label) in zip(walk(resumed, 7), walk(original, 7), strict=True):
        assert_same(label, wanted_label)
        assert_same(image, wanted_image)


@pytest.mark.parametrize("first", ["getitem", "on_epoch_end"])
@pytest.mark.parametrize("calls", ["nE", "gE", "E", "nEEn", "gggEg", "nng", "EnE"])
def test_resume_after_any_mix_of_calls(calls: str, first: str) -> None:
    """Keras draws the next order from wherever the stream stands; the state brings that back too."""

    def play(batches: gpuseq.NumpyArrayIterator) -> None:
        for call in calls:
            if call == "n":
                next(batches)
            elif call == "g":
                _ = batches[1]
            else:
                batches.on_epoch_end()

    original = flow(GEOMETRY, samples(), seed=7)
    play(original)
    resumed = flow(GEOMETRY, samples(), seed=0)
    resumed.load_state_dict(original.state_dict())
    if first == "on_epoch_end":
        original.on_epoch_end()
        resumed.on_epoch_end()
    for index in (2, 0):
        assert_same(resumed[index][0], original[index][0])
    original.on_epoch_end()
    resumed.on_epoch_end()
    for (image, _), (wanted, _) in zip(walk(resumed, 5), walk(original, 5), strict=True):
        assert_same(image, wanted)


def test_epochs_by_number_are_the_epochs_of_the_walk() -> None:
    walked = walk(flow(GEOMETRY, samples(), seed=3), 9)
    for epoch, index in [(2, 1), (0, 2), (1, 0), (2, 2), (0, 0), (1, 2)]:
        by_number = flow(GEOMETRY, samples(), seed=3)
        by_number.set_epoch(epoch)
        assert_same(by_number[index][0], walked[3 * epoch + index][0])


def test_a_state_of_other_data_is_refused() -> None:
    state = flow(GEOMETRY, samples(11), seed=1).state_dict()
    with pytest.raises(ValueError, match="dataset_size=11.*dataset_size=12"):
        flow(GEOMETRY, samples(12), seed=1).load_state_dict(state)


@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize(("was", "now"), [({}, {"shuffle": False}), ({"remainder": "drop"}, {"remainder": "exact"})])
def test_a_state_of_another_walk_is_refused(was: dict[str, Any], now: dict[str, Any], rng: str) -> None:
    """Both values and the remedy are named."""
    state = flow(GEOMETRY, samples(), seed=1, rng=rng, **was).state_dict()
    other = flow(GEOMETRY, samples(), seed=1, rng=rng, **now)
    (name,) = now
    taken = {"shuffle": True, **was}[name]
    with pytest.raises(ValueError, match=f"{name}={taken!r}.*{name}={now[name]!r}.*with {name}={taken!r}"):
        other.load_state_dict(state)


def test_states_say_how_the_iterator_was_made() -> None:
    state = flow(GEOMETRY, samples(), seed=1, remainder="drop", shuffle=False).state_dict()
    assert (state["version"], state["remainder"], state["shuffle"]) == (2, "drop", 0)
    assert all(type(value) in (int, str) for value in state.values())


def test_a_state_stays_small_and_quick_however_much_was_drawn_for_samples_by_hand() -> None:
    """What Keras' users do who call the hook themselves: nothing reseeds the stream in between."""
    original, resumed = (flow(GEOMETRY, samples(), seed=seed) for seed in (7, 0))
    next(original)
    for number in range(6000):
        original._planner.stream.params(original._drawing().params, 4)
        if number % 500 == 0:
            original.on_epoch_end()
            state = json.loads(json.dumps(original.state_dict()))
            resumed.load_state_dict(state)
            assert resumed._planner.stream.key == original._planner.stream.key
            assert_same(resumed.index_array, original.index_array)
    assert len(state["stream"]) < 25_000
    resumed.load_state_dict(original.state_dict())
    resumed.on_epoch_end()
    original.on_epoch_end()
    for (image, _), (wanted, _) in zip(walk(resumed, 5), walk(original, 5), strict=True):
        assert_same(image, wanted)


def damaged_states() -> Any:
    batches = flow(GEOMETRY, samples(), seed=1)
    walk(batches, 2)
    state = batches.state_dict()
    for name in state:
        if name != "version":
            yield f"without {name}", {key: value for key, value in state.items() if key != name}, name
    for name, value in [
        ("total_batches_seen", "many"),
        ("epoch", -1),
        ("batch_index", 1.5),
        ("by_epoch", 2),
        ("seed", 2**32),
        ("batch_size", 0),
        ("stream", "1 P11 D4 X"),
        ("stream", "1 P12"),
        ("stream", "1 D999999999"),
        ("stream", "1" + 20_000 * " D1"),
        ("stream", "1" + 100 * " P11"),
        ("stream", "1 S99999:0"),
        ("stream", "99999999999"),
        ("stream", "4294967295"),
        ("stream", "1 R1:" + 5014 * "g"),
        ("batch_index", 99),
        ("epoch", 2**40),
        ("total_batches_seen", 2**63),
        ("world", 2**70),
        ("order", "0 D4"),
        ("order", None),
        ("version", 3),
    ]:
        yield f"{name}={value}"[:40], state | {name: value}, name
    yield "no dictionary", [], "list"


DAMAGED = list(damaged_states())


@pytest.mark.parametrize(("state", "named"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED])
def test_a_damaged_state_is_refused_and_moves_nothing(state: Any, named: str) -> None:
    """The value is named, and the iterator goes on as before."""
    batches, alone = (flow(GEOMETRY, samples(), seed=4) for _ in range(2))
    batches.set_epoch(5)
    alone.set_epoch(5)
    walk(batches, 1), walk(alone, 1)
    with pytest.raises((ValueError, TypeError), match=named):
        batches.load_state_dict(state)
    assert batches.state_dict() == alone.state_dict()
    for (image, label), (wanted_image, wanted_label) in zip(walk(batches, 3), walk(alone, 3), strict=True):
        assert_same(label, wanted_label)
        assert_same(image, wanted_image)


def test_states_of_version_1_are_read() -> None:
    """They say neither shuffle nor remainder, and are taken for those of an iterator made alike."""
    original = flow(GEOMETRY, samples(), seed=1)
    walk(original, 5)
    old = original.state_dict() | {"version": 1}
    del old["shuffle"], old["remainder"]
    resumed = flow(GEOMETRY, samples(), seed=1)
    resumed.load_state_dict(old)
    assert_same(next(resumed)[0], next(original)[0])


BEFORE_THE_ROOMS: dict[str, tuple[dict[str, Any], dict[str, int | str]]] = {
    "keras": (
        {},
        {"by_epoch": 0, "epoch": 0, "served": 1, "batch_index": 1, "order": "3 P11", "stream": "3 P11 D4"},
    ),
    "keyed": (
        {"rng": "keyed"},
        {"by_epoch": 1, "epoch": 1, "served": 1, "batch_index": 1, "order": "", "stream": "0", "rng": "keyed"},
    ),
    "sharded": (
        {"rng": "keyed", "shard": (1, 2), "remainder": "exact"},
        {"by_epoch": 1, "epoch": 2, "served": 0, "batch_index": 0, "order": "", "stream": "0", "rng": "keyed"}
        | {"world": 2, "remainder": "exact"},
    ),
}
"""Written after four batches by the version whose modules lay flat, and whose pickles no longer load."""


@pytest.mark.parametrize("kind", BEFORE_THE_ROOMS)
def test_states_that_older_code_wrote_are_read(kind: str) -> None:
    options, own = BEFORE_THE_ROOMS[kind]
    shared = {"version": 2, "rng": "keras", "seed": 5, "dataset_size": 11, "world": 1, "batch_size": 4}
    state = shared | {"total_batches_seen": 4, "shuffle": 1, "remainder": "pad"} | own
    arguments = {"rotation_range": 30, "horizontal_flip": True}
    resumed, alone = (flow(arguments, samples(), seed=5, **options) for _ in range(2))
    resumed.load_state_dict(state)
    walk(alone, 4)
    for got, wanted in zip(walk(resumed, 5), walk(alone, 5), strict=True):
        for item, other in zip(got, wanted, strict=True):
            assert_same(item, other)


def test_the_state_says_that_a_batch_was_served() -> None:
    """After the first batch, on_epoch_end is the end of an epoch; before it, it is Keras' greeting."""
    for steps, epoch in [(0, 3), (1, 4)]:
        batches = flow(GEOMETRY, samples(), seed=1)
        batches.set_epoch(3)
        walk(batches, steps)
        resumed = flow(GEOMETRY, samples(), seed=1)
        resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
        resumed.on_epoch_end()
        assert resumed.epoch == epoch


def test_set_epoch_after_keras_counting_draws_that_epochs_order() -> None:
    """Two epochs were taken without numbers; epoch 0 by number is the first one and not the last order drawn."""
    batches = flow(GEOMETRY, samples(), seed=1)
    first = walk(batches, 3)
    walk(batches, 3)
    batches.set_epoch(0)
    for (image, label), (wanted_image, wanted_label) in zip(walk(batches, 3), first, strict=True):
        assert_same(label, wanted_label)
        assert_same(image, wanted_image)


def test_keyed_states_fit_other_batch_sizes() -> None:
    generator = gpuseq.ImageDataGenerator(**GEOMETRY, device="cpu", rng="keyed")
    data = samples(12)
    small, large = generator.flow(data, batch_size=2, seed=1), generator.flow(data, batch_size=4, seed=1)
    expected = np.concatenate([next(large) for _ in range(3)])
    walk(small, 2)
    resumed = generator.flow(data, batch_size=4, seed=1)
    resumed.load_state_dict(small.state_dict())
    assert_same(next(resumed), expected[4:8])
    next(small)
    with pytest.raises(ValueError, match="not the start of a batch"):
        resumed.load_state_dict(small.state_dict())
