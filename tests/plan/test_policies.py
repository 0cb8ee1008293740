"""Modern augmentations as values: what they accept and refuse, what they draw, and how often."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import fields
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpuseq
from gpuseq.plan.philox import philox_rows, philox_uniform
from gpuseq.plan.policies.augmentation import Augmentation
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.policies.strings import parse_policy
from gpuseq.plan.policies.timm import TimmRandAugment
from gpuseq.plan.program import (
    COLOURED,
    STEPS,
    as_text,
    code_of,
    describe,
    dicts_to_program,
    has_kind,
    only_geometry,
    program_to_dicts,
)

SIZE = (100, 80)

VALUES: list[Augmentation] = [
    gpuseq.RandAugment(),
    gpuseq.RandAugment(3, 15, 31, "bilinear", (1, 2, 3)),
    gpuseq.TrivialAugmentWide(),
    gpuseq.AutoAugment("svhn"),
    gpuseq.AugMix(5, 4, 2),
    TimmRandAugment(9, magnitude_std=0.5, increasing=True),
    TimmRandAugment(9, 3, weighted=True),
    gpuseq.ColorJitter(0.4, (0.5, 1.5), 0.4, 0.1),
    gpuseq.RandomPhotometricDistort(),
    gpuseq.RandomGrayscale(),
    gpuseq.RandomPosterize(3),
    gpuseq.RandomSolarize(128.5, 0.3),
    gpuseq.RandomInvert(),
    gpuseq.RandomEqualize(),
    gpuseq.RandomAutocontrast(),
    gpuseq.RandomAdjustSharpness(2.0),
    gpuseq.RandomGamma(),
    gpuseq.GaussianBlur((3, 5), (0.1, 1.0)),
    gpuseq.RandomAffine(10, (0.1, 0.2), (0.9, 1.1), 5, fill=128),
    gpuseq.RandomAffine(10, center=(3, 4.5)),
    gpuseq.RandomRotation((-10, 20)),
    gpuseq.RandomRotation(20, center=(0, 4.5)),
    gpuseq.RandomPerspective(),
    gpuseq.RandomHorizontalFlip(),
    gpuseq.RandomVerticalFlip(0.2),
    gpuseq.RandomResizedCrop((50, 60)),
    gpuseq.RandomErasing(value=(0.1, 0.2, 0.3)),
    gpuseq.RandomErasing(value="random"),
    gpuseq.RandomApply([gpuseq.RandomInvert(1.0), gpuseq.ColorJitter(0.1)], 0.3),
    gpuseq.RandomChoice([gpuseq.RandAugment(), gpuseq.RandomInvert()], [3, 1]),
    gpuseq.RandomOrder([gpuseq.RandAugment(), gpuseq.RandomInvert(), gpuseq.RandomEqualize()]),
]


def _drawn(augmentations: Any, count: int = 4000, **key: int) -> np.ndarray:
    recipe = Recipe.parse("augmentations", augmentations)
    assert recipe is not None
    return recipe.draw(np.arange(count), SIZE, **{"seed": 7, "epoch": 0, **key})


@pytest.mark.parametrize("value", [*VALUES, gpuseq.ColorJitter(), gpuseq.RandomInvert(0.0)], ids=str)
def test_who_changes_colours_says_so(value: Augmentation) -> None:
    """What 4,000 samples draw; channels are checked by it before anything is drawn."""
    assert value.changes_colours == has_kind(_drawn(value), *COLOURED)
    recipe = Recipe.parse("augmentations", value)
    assert recipe is not None
    if value.changes_colours:
        with pytest.raises(ValueError, match=r"takes images of 1, 3 or 4 channels \(grey, RGB, RGBA\); got 2"):
            recipe.check_channels(2)
    else:
        recipe.check_channels(2)


# What it applies decides: brightness alone leaves the numbers of three other factors unread.
@pytest.mark.parametrize("value", [value for value in VALUES if not isinstance(value, gpuseq.RandomApply)], ids=str)
def test_no_number_is_drawn_beyond_those_that_are_read(value: Augmentation) -> None:
    """The last one counts: with another in its place some sample gets other steps, or there is no drawing without."""
    uniform = np.random.default_rng(0).random((400, value.num_uniform))
    changed = uniform.copy()
    changed[:, -1] = np.random.default_rng(1).random(400)
    if (value.draw(changed, SIZE) == value.draw(uniform, SIZE)).all():
        with pytest.raises((IndexError, ValueError)):
            value.draw(uniform[:, :-1], SIZE)


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_repr_is_the_call(value: Augmentation) -> None:
    """What is printed makes the value again; equal values are equal and hashable."""
    again = eval(repr(value), {**vars(gpuseq), "TimmRandAugment": TimmRandAugment, "inf": math.inf})
    assert again == value
    assert hash(again) == hash(value)


class Mode(Enum):
    """As torchvision's ``InterpolationMode``."""

    BILINEAR = "bilinear"


class Policy(Enum):
    """As torchvision's ``AutoAugmentPolicy``."""

    SVHN = "svhn"


@pytest.mark.parametrize(
    ("listed", "value"),
    [
        (gpuseq.ColorJitter(np.array([0.5, 1.5]), np.float32(0.5)), gpuseq.ColorJitter((0.5, 1.5), 0.5)),
        (gpuseq.ColorJitter(np.float32(0), hue=[-0.1, 0.1]), gpuseq.ColorJitter(0, hue=(-0.1, 0.1))),
        (gpuseq.RandAugment(fill=np.array([1, 2, 3])), gpuseq.RandAugment(fill=(1, 2, 3))),
        (gpuseq.GaussianBlur(np.array([3, 5]), [0.1, 1.0]), gpuseq.GaussianBlur((3, 5), (0.1, 1.0))),
        (gpuseq.RandomResizedCrop(np.array([8, 9])), gpuseq.RandomResizedCrop((8, 9))),
        (gpuseq.RandomErasing(value=[1, 2, 3]), gpuseq.RandomErasing(value=(1, 2, 3))),
        (gpuseq.RandomAffine(5, shear=np.array([1, 2, 3, 4])), gpuseq.RandomAffine(5, shear=(1, 2, 3, 4))),
        (gpuseq.RandomAffine(5, center=np.array([1, 2])), gpuseq.RandomAffine(5, center=(1, 2))),
        (gpuseq.RandomRotation(5, center=[1, 2]), gpuseq.RandomRotation(5, center=(1, 2))),
        (gpuseq.RandomChoice([gpuseq.RandomInvert()], p=np.ones(1)), gpuseq.RandomChoice([gpuseq.RandomInvert()], [1])),
        (gpuseq.RandomResizedCrop(8, interpolation=Mode.BILINEAR), gpuseq.RandomResizedCrop(8)),
        (gpuseq.RandomResizedCrop(8, antialias=True), gpuseq.RandomResizedCrop(8)),
        (gpuseq.ColorJitter(None, 0.5, None, None), gpuseq.ColorJitter(contrast=0.5)),
        (gpuseq.RandomRotation(5, Mode.BILINEAR), gpuseq.RandomRotation(5, "bilinear")),
        (gpuseq.AutoAugment(Policy.SVHN), gpuseq.AutoAugment("svhn")),
    ],
    ids=str,
)
def test_lists_arrays_and_enumerations_are_held_as_plain_values(listed: Augmentation, value: Augmentation) -> None:
    """They have no hash, or no ``==`` that is one answer: the value prints, compares and draws as with tuples."""
    assert listed == value
    assert hash(listed) == hash(value)
    assert repr(listed) == repr(value)
    assert (_drawn(listed, 50) == _drawn(value, 50)).all()


@pytest.mark.parametrize(
    "kind", [gpuseq.RandAugment, gpuseq.TrivialAugmentWide, gpuseq.AutoAugment, gpuseq.AugMix, TimmRandAugment]
)
@pytest.mark.parametrize(("interpolation", "fill"), [("nearest", None), ("bilinear", (1, 2, 3)), ("nearest", 9)])
def test_geometry_reads_as_its_policy_says(kind: Any, interpolation: str, fill: Any) -> None:
    """Each moving step, and no other, holds how pixels are read and what comes in from outside."""
    program = _drawn(kind(interpolation=interpolation, fill=fill), 1000)
    moves = np.isin(program["op"], [number for number, step in enumerate(STEPS) if step.kind == "geometry"])
    assert moves.any()
    assert not moves.all()
    assert (program["bilinear"] == (moves & (interpolation == "bilinear"))).all()
    levels = {None: (0, 0, 0, 0), 9: (9, 9, 9, 9)}.get(fill, (1, 2, 3, 255))
    assert (program["fill"][moves] == levels).all()
    assert (program["fill"][~moves] == 0).all()


def test_a_crop_by_key_is_one_step_that_says_what_it_follows_from() -> None:
    """For files, whose sizes are not known when a plan is drawn: ranges and size in the step, a key for each sample."""
    crop = gpuseq.RandomResizedCrop((5, 7), scale=(0.3, 0.6), ratio=(0.5, 1.5), interpolation="nearest")
    recipe = Recipe((crop, gpuseq.RandomInvert(1.0)))
    program = recipe.draw(np.arange(100), (5, 7), seed=3, epoch=0, crops_by_key=True)
    assert program.shape == (100, 2)
    assert (program["op"] == [code_of("CropByKey"), code_of("Invert")]).all()
    key, *others = program["arg"][:, 0].T[:7]
    assert len(np.unique(key)) == 100
    assert [np.unique(column).tolist() for column in others] == [[0.3], [0.6], [0.5], [1.5], [5], [7]]
    assert (program["bilinear"] == 0).all()


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_drawing_takes_what_it_says(value: Augmentation) -> None:
    """A program has the promised shape, changes most samples over an epoch, and goes through JSON and back."""
    program = _drawn(value, 500)
    assert program.shape == (500, value.num_steps)
    assert (program["op"] != 0).any(axis=1).mean() > 0.05
    rows = json.loads(json.dumps(program_to_dicts(program)))
    again = dicts_to_program(rows)
    assert [describe(row) for row in again] == [describe(row) for row in program]
    assert program_to_dicts(again) == rows
    assert all(as_text(row).count(",") == max(0, len(describe(row)) - 1) for row in program)


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_sample_is_its_own(value: Augmentation) -> None:
    """Each sample's steps depend on seed, epoch and its number: not on the batch around it, nor on what follows."""
    program = _drawn([value], 64)
    recipe = Recipe((value,))
    order = np.random.default_rng(0).permutation(64)
    parts = [recipe.draw(part, SIZE, seed=7, epoch=0) for part in np.split(order, 8)]
    assert (np.concatenate(parts) == program[order]).all()
    nothing = recipe.draw(np.arange(0), SIZE, seed=7, epoch=0)
    assert (nothing.shape, nothing.dtype) == ((0, recipe.num_steps), program.dtype)
    if not isinstance(value, gpuseq.RandomErasing):
        longer = Recipe((value, gpuseq.RandomInvert())).draw(np.arange(64), SIZE, seed=7, epoch=0)
        for before, after in zip(program, longer, strict=True):
            assert describe(after)[: len(describe(before))] == describe(before)
    assert (_drawn([value], 64, epoch=1) != program).any() or isinstance(value, gpuseq.RandomHorizontalFlip)
    assert (_drawn([value], 64, seed=8) != program).any()


@pytest.mark.each_cpu_engine
def test_numbers_are_philoxs_and_not_keras_ranges() -> None:
    """Rows come from NumPy's own Philox at the counter (id, block, 1 + place, 0), which the keyed ranges never use."""
    ids = np.array([0, 5, 2**40])
    for place in (0, 3):
        rows = philox_rows(ids, 10, seed=11, epoch=2, place=place)
        for row, sample in zip(rows, ids.tolist(), strict=True):
            blocks = []
            for block in range(3):
                # The generator steps its counter before each block.
                counter = [sample, block, 1 + place, 0]
                before = sum(word << 64 * position for position, word in enumerate(counter)) - 1
                words = [(before >> 64 * position) & (2**64 - 1) for position in range(4)]
                bits = np.random.Philox(key=np.array([11, 2], np.uint64), counter=np.array(words, np.uint64))
                blocks.append(np.random.Generator(bits).random(4))
            assert (row == np.concatenate(blocks)[:10]).all()
    old = philox_uniform(np.arange(4), 10, seed=11, epoch=2)
    assert not np.isin(philox_rows(np.arange(4), 10, seed=11, epoch=2, place=0), old).any()


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        (gpuseq.RandAugment(), 14),
        (gpuseq.TrivialAugmentWide(), 14),
        (TimmRandAugment(9, p=1.0, increasing=True), 15),
    ],
    ids=str,
)
def test_every_step_of_a_space_is_as_likely(value: Augmentation, steps: int) -> None:
    """Within a batch of 256 all of the space occur; over many samples each as often as the others."""
    assert len(np.unique(_drawn(value, 256)["op"])) == steps
    counts = Counter(_drawn(value, 40_000)["op"].ravel().tolist())
    share = np.array(list(counts.values())) / sum(counts.values())
    np.testing.assert_allclose(share, 1 / steps, atol=0.006)


def test_magnitudes_are_the_tables() -> None:
    """RandAugment(2, 9): the table of the paper's bins as torchvision reads them, both signs alike."""
    program = _drawn(gpuseq.RandAugment(2, 9), 20_000)
    expected = {
        "ShearX": {0.09, -0.09},
        "ShearY": {0.09, -0.09},
        "TranslateX": {10.0, -10.0},
        "TranslateY": {13.0, -13.0},
        "Rotate": {9.0, -9.0},
        "Brightness": {0.73, 1.27},
        "Color": {0.73, 1.27},
        "Contrast": {0.73, 1.27},
        "Sharpness": {0.73, 1.27},
        "Posterize": {7.0},
        "Solarize": {178.5},
    }
    for name, values in expected.items():
        drawn = program["arg"][program["op"] == code_of(name)][:, 0]
        assert {round(value, 5) for value in drawn.tolist()} == values, name
        if len(values) == 2:
            assert (drawn > np.mean(list(values))).mean() == pytest.approx(0.5, abs=0.04)


def test_trivial_draws_every_bin() -> None:
    """TrivialAugmentWide: 31 turns up to 135 degrees, each with both signs."""
    program = _drawn(gpuseq.TrivialAugmentWide(), 60_000)
    turns = program["arg"][program["op"] == code_of("Rotate")][:, 0]
    assert {round(value, 9) for value in np.abs(turns).tolist()} == {round(135 * step / 30, 9) for step in range(31)}
    assert len(np.unique(np.round(turns, 9))) == 61


@pytest.mark.parametrize(("name", "side"), [("TranslateX", SIZE[1]), ("TranslateY", SIZE[0])])
def test_shifts_are_whole_pixels_of_each_magnitude(name: str, side: int) -> None:
    """Each thirtieth, cut to pixels, of 150 in 331 of the image's side, as in the paper."""
    for magnitude in range(31):
        program = _drawn(gpuseq.RandAugment(2, magnitude), 200)
        shifts = program["arg"][program["op"] == code_of(name)][:, 0]
        assert set(np.abs(shifts).tolist()) == {150 * side * magnitude // (331 * 30)}


def test_coins_fall_as_often_as_they_should() -> None:
    """p of single steps, of timm's layers, of the learned pairs and of erasing."""
    assert (_drawn(gpuseq.RandomSolarize(10, 0.3), 20_000)["op"] != 0).mean() == pytest.approx(0.3, abs=0.012)
    timm = _drawn("rand-m9-n3-p0.7-inc1", 20_000)["op"] != 0
    assert timm.mean() == pytest.approx(0.7, abs=0.01)
    some, every = (Counter(_drawn(f"rand-m9-n1-p{p}", 20_000)["op"].ravel().tolist()) for p in (0.4, 1.0))
    assert len(every) > 10
    for name, count in every.items():  # whichever step it is: the coin is not the choice
        assert some[name] / count == pytest.approx(0.4, abs=0.08)
    assert (_drawn(gpuseq.RandomErasing(0.25), 20_000)["op"] != 0).mean() == pytest.approx(0.25, abs=0.012)
    chosen = _drawn(gpuseq.RandomChoice([gpuseq.RandomInvert(1.0), gpuseq.RandomEqualize(1.0)], [3, 1]), 20_000)
    assert (chosen["op"] == code_of("Invert")).mean() == pytest.approx(0.75, abs=0.012)
    either = _drawn(gpuseq.RandomApply([gpuseq.RandomInvert(1.0), gpuseq.RandomEqualize(1.0)], 0.4), 20_000)["op"] != 0
    assert (either[:, 0] == either[:, 1]).all()
    assert either[:, 0].mean() == pytest.approx(0.4, abs=0.012)


def test_jitter_orders_its_steps_at_random() -> None:
    """All 24 orders occur alike, with factors over their ranges."""
    program = _drawn(gpuseq.ColorJitter(0.4, 0.4, 0.4, 0.1), 24_000)
    orders = Counter(map(tuple, program["op"].tolist()))
    assert len(orders) == 24
    assert min(orders.values()) > 850
    bright = program["arg"][program["op"] == code_of("Brightness")][:, 0]
    assert 0.6 <= bright.min() < 0.61
    assert 1.39 < bright.max() <= 1.4
    assert bright.mean() == pytest.approx(1.0, abs=0.01)
    some = _drawn(gpuseq.ColorJitter(contrast=0.3), 200)
    assert ((some["op"] == code_of("Contrast")).sum(axis=1) == 1).all()


def test_random_order_orders() -> None:
    """Three single steps come in all six orders."""
    three = [gpuseq.RandomInvert(1.0), gpuseq.RandomEqualize(1.0), gpuseq.RandomAutocontrast(1.0)]
    orders = Counter(map(tuple, _drawn(gpuseq.RandomOrder(three), 6000)["op"].tolist()))
    assert len(orders) == 6
    assert min(orders.values()) > 880


def test_normal_magnitudes() -> None:
    """timm's mstd: a normal magnitude cut off at 0 and 10; above 100 a uniform one up to m."""
    turns = _drawn("rand-m5-mstd1-inc1-p1", 60_000)
    level = np.abs(turns["arg"][turns["op"] == code_of("Rotate")][:, 0]) / 3
    assert level.mean() == pytest.approx(5, abs=0.05)
    assert level.std() == pytest.approx(1, abs=0.05)
    flat = _drawn("rand-m8-mstd101-inc1-p1", 60_000)
    level = np.abs(flat["arg"][flat["op"] == code_of("Rotate")][:, 0]) / 3
    assert level.max() <= 8
    assert level.mean() == pytest.approx(4, abs=0.1)
    most = _drawn("rand-m15-mmax20-mstd1-inc1-p1", 4000)
    assert np.abs(most["arg"][most["op"] == code_of("Rotate")][:, 0]).max() > 45


def test_mixing_weights() -> None:
    """AugMix: weights add up to 1 and are Dirichlet's of alpha 1, the blend is uniform, depths are 1 to 3."""
    program = _drawn(gpuseq.AugMix(), 20_000)
    head = program[:, 0]["arg"]
    weights = head[:, 2:5]
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights.mean(axis=0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(weights.var(axis=0), 1 / 18, atol=0.003)
    assert head[:, 0].mean() == pytest.approx(0.5, abs=0.01)
    depths = Counter((program["chain"] == 2).sum(axis=1).tolist())
    assert sorted(depths) == [1, 2, 3]
    assert min(depths.values()) > 6200


def test_what_is_drawn_for_a_sample_is_independent() -> None:
    """Each parameter has a number of its own: shares of mixtures and signs of turns; all six of an affine map."""
    mixed = _drawn(gpuseq.AugMix(10, 1, 1), 20_000)
    turned = mixed[mixed[:, 1]["op"] == code_of("Rotate")]
    assert len(turned) > 1400
    shares, angles = turned[:, 0]["arg"][:, 0], turned[:, 1]["arg"][:, 0]
    assert abs(np.corrcoef(shares, np.sign(angles))[0, 1]) < 0.07
    assert abs(np.corrcoef(shares, np.abs(angles))[0, 1]) < 0.07
    moved = _drawn(gpuseq.RandomAffine(10, (0.3, 0.3), (0.5, 1.5), (-10, 10, -20, 20)), 8000)[:, 0]["arg"][:, :6]
    assert (np.abs(np.corrcoef(moved.T) - np.eye(6)) < 0.04).all()
    assert (np.abs(moved).max(axis=0) > (9.9, 23, 29, 1.49, 9.9, 19.9)).all()


def test_what_is_left_out_of_an_affine_map_changes_nothing() -> None:
    """No shift, no scale and no shear, unless they are given; one number shears along the rows alone."""
    turned = _drawn(gpuseq.RandomAffine(10), 200)[:, 0]["arg"][:, :6]
    assert len(np.unique(turned[:, 0])) == 200
    assert (turned[:, 1:] == (0, 0, 1, 0, 0)).all()
    sheared = _drawn(gpuseq.RandomAffine(0, shear=5), 200)[:, 0]["arg"][:, :6]
    assert (sheared[:, [0, 1, 2, 3, 5]] == (0, 0, 0, 1, 0)).all()
    assert 4.9 < np.abs(sheared[:, 4]).max() <= 5
    assert sheared[:, 4].min() < 0 < sheared[:, 4].max()


def test_a_centre_changes_no_other_number() -> None:
    """It follows what is drawn without one, and is shown, stored and read again as it was given."""
    for about, plain, count in (
        (gpuseq.RandomAffine(10, (0.1, 0.2), (0.5, 2.0), 5, center=(0.1, -3)), gpuseq.RandomAffine, 6),
        (gpuseq.RandomRotation(10, "bilinear", center=(0.1, -3), fill=7), gpuseq.RandomRotation, 1),
    ):
        program = _drawn(about, 100)
        given = {field.name: getattr(about, field.name) for field in fields(about) if field.name != "center"}
        without = _drawn(plain(**given), 100)
        assert (program["arg"][..., :count] == without["arg"][..., :count]).all()
        assert (program["arg"][..., count : count + 2] == (0.1, -3)).all()
        assert (program[["bilinear", "fill"]] == without[["bilinear", "fill"]]).all()
        assert describe(program[0])[0][-2:] == (0.1, -3.0)
        stored = json.loads(json.dumps(program_to_dicts(program)))
        assert stored[0][0]["center_x"] == 0.1
        assert stored[0][0]["center_y"] == -3
        assert dicts_to_program(stored).tobytes() == program.tobytes()


@pytest.mark.parametrize("alpha", [0.05, 0.4, 3.0])
def test_mixing_weights_of_any_alpha(alpha: float) -> None:
    """Beta's and Dirichlet's distributions, as SciPy has them: a chain's share is Beta's of alpha and the others'."""
    stats = pytest.importorskip("scipy.stats")
    head = _drawn(gpuseq.AugMix(alpha=alpha, mixture_width=4), 8000)[:, 0]["arg"]
    np.testing.assert_allclose(head[:, 2:6].sum(axis=1), 1, atol=1e-6)
    for shares, others in ((head[:, 0], alpha), *((head[:, chain], 3 * alpha) for chain in range(2, 6))):
        # Next to 0 and 1 float32 has steps.
        inner = shares[(shares > 1e-3) & (shares < 1 - 1e-3)]
        low, high = stats.beta.cdf((1e-3, 1 - 1e-3), alpha, others)
        assert len(inner) / len(shares) == pytest.approx(high - low, abs=0.02)
        within = (stats.beta.cdf(inner, alpha, others) - low) / (high - low)
        assert stats.kstest(within, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(head[:, 0], head[:, 2])[0, 1]) < 0.03


def test_erased_rectangles() -> None:
    """Areas and ratios over their ranges, always inside; where none fits nothing is erased."""
    program = _drawn(gpuseq.RandomErasing(1.0, scale=(0.1, 0.2), ratio=(0.5, 2.0)), 5000)[:, 0]
    top, left, height, width = program["arg"][:, :4].T
    assert ((top >= 0) & (top + height <= SIZE[0]) & (left >= 0) & (left + width <= SIZE[1])).all()
    share = height * width / (SIZE[0] * SIZE[1])
    assert 0.095 < share.min() < 0.105
    assert 0.195 < share.max() < 0.205
    assert 0.47 < (height / width).min() < 0.55
    assert 1.85 < (height / width).max() < 2.1
    assert (top == 0).any()
    assert (top + height == SIZE[0]).any()
    impossible = Recipe((gpuseq.RandomErasing(1.0),)).draw(np.arange(50), (1, 1), seed=0, epoch=0)
    assert (impossible["op"] == 0).all()


def test_cropped_boxes() -> None:
    """Always inside, over the ranges; where no try fits, the largest box in the middle that the ratio allows."""
    program = _drawn(gpuseq.RandomResizedCrop(32, scale=(0.2, 0.5)), 5000)[:, 0]
    top, left, height, width, *target = program["arg"][:, :6].T
    assert ((top >= 0) & (top + height <= SIZE[0]) & (left >= 0) & (left + width <= SIZE[1])).all()
    assert ((height > 0) & (width > 0)).all()
    assert all((side == 32).all() for side in target)
    narrow = Recipe((gpuseq.RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(1.0, 1.0)),))
    box = narrow.draw(np.arange(3), (10, 40), seed=0, epoch=0)["arg"][:, 0, :4]
    assert (box == (0, 15, 10, 10)).all()


@given(st.integers(0, 2**62), st.integers(0, 2**63), st.integers(0, 1000))
def test_any_key_draws(sample: int, seed: int, epoch: int) -> None:
    """Any sample number, seed and epoch gives a program of known steps with finite arguments."""
    recipe = Recipe(tuple(VALUES[:1] + VALUES[6:9]))
    program = recipe.draw(np.array([sample]), SIZE, seed=seed, epoch=epoch)
    assert np.isfinite(program["arg"]).all()
    assert (program["op"] < len(STEPS)).all()


def test_masks_take_geometry_alone() -> None:
    """A mask's program moves and flips with nearest pixels; colours are left out, mixtures refused."""
    program = _drawn([gpuseq.RandAugment(4, interpolation="bilinear", fill=9), gpuseq.RandomErasing()], 200)
    mask = only_geometry(program, fill=255)
    kinds = {STEPS[code].kind for code in np.unique(mask["op"]).tolist()}
    assert kinds == {"none", "geometry"}
    moving = np.isin(program["op"], [code_of(name) for name in ("Rotate", "ShearX", "TranslateY")])
    assert (mask["op"][moving] == program["op"][moving]).all()
    assert (mask["bilinear"] == 0).all()
    assert (mask["fill"] == 255).all()
    with pytest.raises(ValueError, match="AugMix blends several pictures"):
        only_geometry(_drawn("augmix-m3", 2))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rand-m9-mstd0.5-inc1", TimmRandAugment(magnitude=9, magnitude_std=0.5, increasing=True)),
        ("rand-m7-n3-p0.8-mstd101-mmax12", TimmRandAugment(7, 3, 0.8, math.inf, 12)),
        ("rand-m9-tweights", TimmRandAugment(9, weighted=True)),
        ("rand", TimmRandAugment()),
        ("augmix-m5-w4-d2", gpuseq.AugMix(5, 4, 2)),
        ("augmix-mstd1", gpuseq.AugMix(magnitude_std=1)),
        ("trivial", gpuseq.TrivialAugmentWide()),
        ("cifar10", gpuseq.AutoAugment("cifar10")),
    ],
)
def test_strings_spell_values(text: str, value: Augmentation) -> None:
    """timm's strings and the names of policies are the values that their ``repr`` prints."""
    assert parse_policy(text) == value


WRONG: list[tuple[str, type[Exception], str]] = [
    ("RandAugment(magnitude=31)", ValueError, "RandAugment: magnitude must be a whole number from 0 to 30; got 31"),
    ("RandAugment(magnitud=3)", TypeError, "did you mean 'magnitude'"),
    ("RandAugment(num_ops=0)", ValueError, "num_ops must be a whole number from 1 on"),
    ("RandAugment(interpolation='bicubic')", ValueError, "'nearest' or 'bilinear'; got 'bicubic'"),
    ("RandAugment(fill=300)", ValueError, "fill must be None, a level of 0 to 255"),
    ("TrivialAugmentWide(1)", ValueError, "num_magnitude_bins must be a whole number from 2 on"),
    ("AutoAugment('imagnet')", ValueError, "did you mean 'imagenet'"),
    ("AugMix(mixture_width=6)", ValueError, "mixture_width must be a whole number from 1 to 5; got 6"),
    ("AugMix(alpha=0)", ValueError, "alpha must be a number above 0; got 0"),
    ("ColorJitter(-0.1)", ValueError, "brightness as one number must not be negative"),
    ("ColorJitter(hue=0.6)", ValueError, "hue must be a pair"),
    ("RandomPosterize(9)", ValueError, "bits must be a whole number from 0 to 8; got 9"),
    ("RandomSolarize(257)", ValueError, "RandomSolarize: threshold must be a number of 0 to 256; got 257"),
    ("RandomSolarize((0, 128))", ValueError, r"threshold must be a number of 0 to 256; got \(0, 128\)"),
    ("RandomAdjustSharpness(-0.1)", ValueError, "sharpness_factor must be a number from 0 on; got -0.1"),
    ("RandomAdjustSharpness((0.5, 2.0))", ValueError, "sharpness_factor must be a number from 0 on"),
    ("RandomAdjustSharpness(float('inf'))", ValueError, "sharpness_factor must be a number from 0 on; got inf"),
    ("RandomGamma(gain=(1, 2))", ValueError, "gain must be a number from 0 on"),
    ("RandomGamma((1, 0.5))", ValueError, "gamma must be a pair"),
    ("RandomPhotometricDistort(brightness=1.1)", ValueError, "brightness must be a pair .*; got 1.1"),
    ("RandomPhotometricDistort(hue=0.1)", ValueError, "hue must be a pair .* with -0.5 <= low <= high <= 0.5; got 0.1"),
    ("RandomPhotometricDistort(p=2)", ValueError, "p must be a number within 0 and 1; got 2"),
    ("RandomApply([RandomInvert()], 1.5)", ValueError, "RandomApply: p must be a number within 0 and 1; got 1.5"),
    ("RandomRotation((20, 10))", ValueError, r"degrees must be a pair \(low, high\) with low <= high; got"),
    ("RandomRotation(10, 'nearest', 0)", ValueError, "expand must be False, .* one size; got 0. Name .* fill="),
    ("RandomRotation(10, expand=True)", ValueError, "expand must be False, .*; got True"),
    ("RandomRotation(10, center=3)", ValueError, r"center must be None or a pair of finite numbers .*; got 3"),
    ("RandomRotation(10, center=(1, 2, 3))", ValueError, "RandomRotation: center must be None or a pair"),
    ("RandomAffine(10, center=(1, float('nan')))", ValueError, r"RandomAffine: center must be .*; got \(1, nan\)"),
    ("RandomAffine(10, center=(True, 1))", ValueError, "RandomAffine: center must be"),
    ("RandomAffine(10, center='ab')", ValueError, "RandomAffine: center must be .*; got 'ab'"),
    ("RandomRotation(-10)", ValueError, "degrees as one number must not be negative; got -10"),
    ("RandomPerspective(1.5)", ValueError, "distortion_scale must be a number within 0 and 1; got 1.5"),
    ("RandomResizedCrop(8, scale=0.5)", ValueError, "scale must be a pair .*; got 0.5"),
    ("RandomResizedCrop(8, antialias=False)", ValueError, "antialias must be True, as of PIL images; got False"),
    ("RandomResizedCrop(8, ratio=1.0)", ValueError, "ratio must be a pair .*; got 1.0"),
    ("RandomErasing(scale=0.1)", ValueError, "scale must be a pair .*; got 0.1"),
    ("RandomErasing(ratio=1.0)", ValueError, "ratio must be a pair .*; got 1.0"),
    ("AugMix(alpha=float('inf'))", ValueError, "alpha must be a number from 0 on; got inf"),
    ("AugMix(severity=11)", ValueError, "severity must be a number of 0 to 10; got 11"),
    ("AugMix(magnitude_std=-1)", ValueError, "magnitude_std must be a number from 0 on; got -1"),
    ("RandomInvert(1.5)", ValueError, "p must be a number within 0 and 1; got 1.5"),
    ("RandomInvert(p=True)", ValueError, "p must be a number within 0 and 1"),
    ("GaussianBlur(4)", ValueError, "kernel_size must be odd; got 4"),
    ("GaussianBlur(3, 0)", ValueError, "sigma"),
    ("RandomAffine(10, translate=0.1)", ValueError, "translate must be a pair"),
    ("RandomAffine(10, scale=(0, 1))", ValueError, r"scale must be a pair \(low, high\) with 0 < low <= high; got"),
    ("RandomAffine(10, scale=0.9)", ValueError, "scale must be a pair .*; got 0.9"),
    ("RandomResizedCrop(0)", ValueError, "size must be a whole number from 1 on; got 0"),
    ("RandomErasing(scale=(0.5, 0.1))", ValueError, "scale must be a pair"),
    ("RandomErasing(value='rand')", ValueError, "value must be numbers or 'random'; got 'rand'"),
    ("RandomErasing(value=(1, 2))", ValueError, "one number, or 3 or 4 of them"),
    ("RandomApply([])", ValueError, "RandomApply got an empty list"),
    ("RandomApply(RandomInvert())", TypeError, "takes a list of augmentations"),
    ("RandomOrder([RandomInvert])", TypeError, r"write RandomInvert\(...\)"),
    ("RandomChoice([RandomInvert()], p=[1, 2])", ValueError, "a weight for each of the 1 transforms"),
    ("RandomApply([RandomErasing()])", ValueError, "put it last in the list"),
    ("RandomApply([RandomResizedCrop(3)])", ValueError, "gives the batch its size"),
]


@pytest.mark.parametrize(("call", "kind", "message"), WRONG, ids=[call for call, _, _ in WRONG])
def test_wrong_values_are_named(call: str, kind: type[Exception], message: str) -> None:
    """At construction, with the value and what there is instead."""
    with pytest.raises(kind, match=message):
        eval(call, vars(gpuseq))


@pytest.mark.parametrize(
    "call",
    [
        "RandomAdjustSharpness(0)",
        "RandomSolarize(0)",
        "RandomSolarize(256)",
        "RandomPosterize(0)",
        "RandomPosterize(8)",
        "RandomInvert(1)",
        "RandomGamma((0, 0), 0)",
        "RandomGamma(0.8)",
        "GaussianBlur(1, math.ulp(0))",
        "ColorJitter(0, (0, 0), 5, 0.5)",
        "ColorJitter(hue=(-0.5, 0.5))",
        "RandomPhotometricDistort((0, 0), (0, 0), (0, 0), (-0.5, 0.5), 1)",
        "RandomPerspective(1)",
        "RandomPerspective(0)",
        "RandomRotation(0)",
        "RandomAffine(0, (0, 1), (math.ulp(0), 1), (0, 0, 0, 0))",
        "RandomResizedCrop(1, (0, 1), (1, 1))",
        "RandomErasing(1, (0, 1), (1, 1))",
        "RandAugment(1, 0, 2)",
        "RandAugment(1, 30, 31, fill=255)",
        "TrivialAugmentWide(2, fill=0)",
        "AugMix(0, 1, 1)",
        "AugMix(10, 5, 3, magnitude_std=0)",
        "TimmRandAugment(0)",
        "TimmRandAugment(10, 15, weighted=True)",
        "TimmRandAugment(12, 16, magnitude_max=12)",
    ],
)
def test_limits_are_values(call: str) -> None:
    """What lies at the end of what is allowed is taken, and gives a whole program."""
    value = eval(call, {**vars(gpuseq), "TimmRandAugment": TimmRandAugment, "math": math})
    program = _drawn(value, 200)
    assert program.shape == (200, value.num_steps)
    assert np.isfinite(program["arg"]).all()


ERASING_OR_NOT = gpuseq.RandomChoice([gpuseq.RandomErasing(), gpuseq.RandomInvert()])


@pytest.mark.parametrize(
    "policy", [gpuseq.RandAugment, gpuseq.ColorJitter, gpuseq.RandomErasing, gpuseq.AugMix, TimmRandAugment]
)
def test_a_subclass_draws_in_its_own_way(policy: type[Augmentation]) -> None:
    """What it returns is the program, alone and in a list, with the numbers that it is handed."""
    seen = []

    class Own(policy):  # type: ignore[misc,valid-type]
        def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
            seen.append(uniform)
            program: np.ndarray = super().draw(uniform, image_size)
            program["op"] = code_of("Invert")
            return program

    for augmentations in ((Own(),), (gpuseq.RandomGrayscale(1.0), Own())):
        program = Recipe(augmentations).draw(np.arange(20), SIZE, seed=3, epoch=4)
        assert (program["op"][:, len(augmentations) - 1 :] == code_of("Invert")).all()
        wanted = philox_rows(np.arange(20), Own().num_uniform, seed=3, epoch=4, place=len(augmentations) - 1)
        assert (seen.pop() == wanted).all()


class Foreign:
    """Another library's transform."""


RandomInvertOfOthers = type("RandomInvert", (), {"__module__": "torchvision.transforms.v2"})
ComposeOfOthers = type(
    "Compose", (), {"__module__": "torchvision.transforms.v2", "__repr__": lambda _: "Compose(\n  A())"}
)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ([], ValueError, "augmentations got an empty list"),
        ([Foreign()], TypeError, "takes gpuseq's own augmentations"),
        ([RandomInvertOfOthers()], TypeError, r"of torchvision\. Write gpuseq\.RandomInvert\("),
        ([len], TypeError, "gpuseq has most of torchvision's under the same names"),
        ([lambda images: images], TypeError, "function of your own goes to preprocessing_function="),
        (3, TypeError, "takes a list of augmentations; got 3$"),
        (ComposeOfOthers(), TypeError, r"got Compose\( A\(\)\) of torchvision: hand in the list that it was made of"),
        (gpuseq.Compose("trivial", seed=1), TypeError, r"seed=1\): hand in the list that it was made of"),
        ("original", ValueError, "timm's AutoAugment policies original, .* are not here; 'imagenet' holds"),
        ("rnd-m9", ValueError, "is no policy.*did you mean 'rand'"),
        ("RandAugment", ValueError, "is no policy.*did you mean 'rand-m9-mstd0.5-inc1'"),
        ("trivialaugmentwide", ValueError, "is no policy.*did you mean 'trivial'"),
        ("rand-m9-incl", ValueError, "'incl' is no section.*inc, tweights; did you mean 'inc'"),
        ("rand-q9", ValueError, "'q9' is no section.*known keys are m, n, p, mstd"),
        ("rand-m", ValueError, "'m' is no section"),
        ("rand-m30", ValueError, "magnitude must be a number of 0 to 10; got 30"),
        ("rand-mmaxinf", ValueError, "magnitude_max must be a number from 0 on; got inf"),
        ("rand-n2.5", ValueError, "num_layers must be a whole number from 1 on; got 2.5"),
        ("rand-ninf", ValueError, "num_layers must be a whole number from 1 on; got inf"),
        ("augmix-d1.5", ValueError, "chain_depth must be a whole number from 1 to 3; got 1.5"),
        ("augmix-b1", ValueError, "'b1' is no section"),
        ("mixup", ValueError, "images are not mixed yet: apply MixUp"),
        (gpuseq.RandAugment, TypeError, "got the class RandAugment: write RandAugment"),
        ([gpuseq.RandomErasing(), gpuseq.RandAugment()], ValueError, "RandomErasing must come last"),
        ([gpuseq.RandomErasing(), gpuseq.RandAugment(), gpuseq.RandomErasing()], ValueError, "Erasing must come last"),
        ([ERASING_OR_NOT, gpuseq.RandAugment()], ValueError, "RandomErasing must come last"),
        ([gpuseq.RandAugment(), gpuseq.RandomResizedCrop(9)], ValueError, "RandomResizedCrop must come first"),
    ],
)
def test_wrong_lists_are_named(given: Any, kind: type[Exception], message: str) -> None:
    """What `augmentations` cannot be is said at construction."""
    with pytest.raises(kind, match=message):
        Recipe.parse("augmentations", given)


def test_kernels_that_do_not_fit_are_named() -> None:
    """An image smaller than half of a blur's kernel is known at the first batch."""
    with pytest.raises(ValueError, match="kernel_size=9 does not fit images of 4 rows and 80 columns"):
        Recipe((gpuseq.GaussianBlur(9),)).draw(np.arange(2), (4, 80), seed=0, epoch=0)


def test_unknown_steps_of_a_program_are_named() -> None:
    """A program that was written by hand is checked step by step."""
    with pytest.raises(ValueError, match="no step 'Rotat'; did you mean 'Rotate'"):
        dicts_to_program([[{"op": "Rotat"}]])
    with pytest.raises(ValueError, match="the step Rotate has no 'degres'; did you mean 'degrees'"):
        dicts_to_program([[{"op": "Rotate", "degres": 3}]])


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("degrees", "9", "degrees must be a finite number; got '9'"),
        ("degrees", math.nan, "degrees must be a finite number; got nan"),
        ("degrees", True, "degrees must be a finite number; got True"),
        ("interpolation", "bilinar", "interpolation must be 'nearest' or 'bilinear'; got 'bilinar'"),
        ("fill", 300, "fill must be a level of 0 to 255, or four of them; got 300"),
        ("fill", [1, 2, 3], r"fill must be a level of 0 to 255, or four of them; got \[1, 2, 3\]"),
        ("chain", 6, "chain must be a whole number from 0 to 5; got 6"),
    ],
)
def test_wrong_values_of_a_program_are_named(name: str, value: Any, wanted: str) -> None:
    """A program that was written by hand says which value of which step is none."""
    with pytest.raises(ValueError, match=f"the step Rotate: {wanted}"):
        dicts_to_program([[{"op": "Rotate", name: value}]])
