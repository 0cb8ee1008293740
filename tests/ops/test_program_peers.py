"""Programs on the NumPy engine equal torchvision v2 on PIL images and timm, with the plan's own parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.ops.dispatch import run_program
from gpuseq.ops.maps import coefficients
from gpuseq.ops.numpy.program import run_steps
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.boxes import with_boxes
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.policies.timm import TimmRandAugment
from gpuseq.plan.program import STEPS, as_text, code_of, describe
from tests.compare import assert_same
from tests.ops.peer_steps import by_timm, by_torchvision, on_tensor
from tests.ops.pillow_steps import pictures, step

pytestmark = pytest.mark.frameworks("torchvision", "timm")

SMALL = 48, 37
NAMED = ("RandAugment", "TrivialAugmentWide", "AutoAugment", "AugMix", "ColorJitter", "GaussianBlur")


def _images(count: int, size: tuple[int, int] = SMALL) -> np.ndarray:
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (count, *size, 3), np.uint8)
    ramp = np.linspace(0, 255, size[1])[None, :, None] * np.linspace(0.2, 1, size[0])[:, None, None]
    noise[1::2] = (ramp * rng.uniform(0.3, 1, (count // 2, 1, 1, 3))).astype(np.uint8)
    return noise


def _compare(augmentations: Any, oracle: Callable[[np.ndarray, np.ndarray], np.ndarray], count: int = 300) -> None:
    recipe = Recipe.parse("augmentations", augmentations)
    assert recipe is not None
    images = _images(count)
    program = recipe.draw(np.arange(count), SMALL, seed=3, epoch=1)
    batch = run_program(images, program, AugmentOptions(dtype="uint8"))
    changed = 0
    for image, steps, done in zip(images, program, batch, strict=True):
        assert_same(done, oracle(image, steps), message=as_text(steps))
        changed += done.shape != image.shape or bool((done != image).any())
    assert changed > count // 4


@pytest.mark.parametrize(
    "augmentation",
    [
        gpuseq.RandAugment(),
        gpuseq.RandAugment(3, 15, interpolation="bilinear", fill=(1, 2, 3)),
        gpuseq.RandAugment(4, 30),
        gpuseq.TrivialAugmentWide(),
        gpuseq.TrivialAugmentWide(interpolation="bilinear"),
        gpuseq.AutoAugment("imagenet"),
        gpuseq.AutoAugment("cifar10", interpolation="bilinear", fill=128),
        gpuseq.AutoAugment("svhn"),
        gpuseq.ColorJitter(0.4, 0.4, 0.4),
        gpuseq.RandomPhotometricDistort(hue=(0.0, 0.0)),
        gpuseq.RandomGrayscale(0.5),
        gpuseq.RandomAffine(30, (0.2, 0.1), (0.7, 1.4), (-10, 10, -5, 5), fill=(9, 8, 7)),
        gpuseq.RandomAffine(30, (0.2, 0.1), (0.7, 1.4), 20, interpolation="bilinear"),
        gpuseq.RandomAffine(0, scale=(0.5, 2.0)),
        # Positions on whole pixels: the map's last bit decides which level bilinear values are cut to.
        gpuseq.RandomAffine((90, 90), (0.2, 0.1), (0.5, 0.5), interpolation="bilinear"),
        gpuseq.RandomAffine((30, 30), (0.2, 0.1), shear=(45, 45), interpolation="bilinear"),
        # Centres that no distance from the middle of 37 columns gives back exactly, on pixels, and outside.
        gpuseq.RandomAffine(30, (0.2, 0.1), (0.7, 1.4), (-10, 10, -5, 5), fill=(9, 8, 7), center=(0.1, 47.9)),
        gpuseq.RandomAffine(30, (0.2, 0.1), (0.7, 1.4), 20, interpolation="bilinear", center=(-20.3, 60)),
        gpuseq.RandomAffine((90, 90), (0.2, 0.1), (0.5, 0.5), interpolation="bilinear", center=(3, 40.5)),
        gpuseq.RandomAffine(0, scale=(0.5, 2.0), center=(1 / 3, 0)),
        gpuseq.RandomRotation(180),
        gpuseq.RandomRotation(180, center=(0, 0), fill=(9, 8, 7)),
        gpuseq.RandomRotation(30, "bilinear", center=(60.1, -7.7)),
        gpuseq.RandomRotation((90, 90), "bilinear", center=(10, 20.5)),
        gpuseq.RandomRotation((180, 180), center=(18.25, 24)),
        gpuseq.RandomPerspective(0.5, p=0.9, fill=77),
        gpuseq.RandomPerspective(0.9, p=0.9, interpolation="nearest"),
        gpuseq.RandomResizedCrop((24, 31)),
        gpuseq.RandomResizedCrop(40, interpolation="nearest"),
        gpuseq.RandomOrder([gpuseq.RandomSolarize(100), gpuseq.RandomHorizontalFlip(), gpuseq.RandomPosterize(3)]),
        gpuseq.RandomChoice([gpuseq.RandomInvert(1.0), gpuseq.RandomVerticalFlip(1.0), gpuseq.RandomEqualize(1.0)]),
        gpuseq.RandomApply([gpuseq.RandomAutocontrast(1.0), gpuseq.RandomAdjustSharpness(2.0, 1.0)], p=0.7),
    ],
    ids=str,
)
def test_torchvision(augmentation: Any) -> None:
    """With what was drawn, torchvision on PIL images makes the same batch: no value differs."""
    # Hue is torchvision's of tensors; a range of nothing leaves its 8-bit detour through Pillow's HSV out.
    oracle = by_torchvision
    if isinstance(augmentation, gpuseq.RandomPhotometricDistort):

        def oracle(image: np.ndarray, steps: np.ndarray) -> np.ndarray:
            kept = steps.copy()
            kept[steps["op"] == code_of("Hue")] = 0
            return by_torchvision(image, kept)

    _compare([augmentation], oracle)


@pytest.mark.parametrize(
    "policy",
    [
        "rand-m9-mstd0.5-inc1",
        "rand-m7-n4",
        "rand-m10-mstd101-inc1-p1",
        "rand-m15-mmax20-mstd1-inc1-p0.9",
        "rand-m9-tweights-p1",
    ],
)
def test_timm(policy: str) -> None:
    """With what was drawn, timm's functions make the same batch: no value differs."""
    _compare(policy, by_timm)


def test_timm_augmix(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's AugMix, handed our weights and our chains, makes the same batch: no value differs."""
    from timm.data import auto_augment

    recipe = Recipe.parse("augmentations", "augmix-m8-w3")
    assert recipe is not None
    images = _images(60)
    program = recipe.draw(np.arange(60), SMALL, seed=0, epoch=0)
    for image, steps in zip(images, program, strict=True):
        blend, width, *weights = steps["arg"][0].tolist()
        chains = [steps[steps["chain"] == number].copy() for number in (1, 2, 3)]

        class Chained(auto_augment.AugMixAugment):
            pass

        mix = Chained(ops=[0], width=int(width), depth=1)
        chains_left = iter(chains)
        monkeypatch.setattr(auto_augment.np.random, "choice", lambda *_, left=chains_left, **__: [_Chain(next(left))])
        from PIL import Image

        expected = mix._apply_basic(Image.fromarray(image), np.float32(weights[: int(width)]), np.float32(blend))
        monkeypatch.undo()
        assert_same(run_steps(image, steps), np.asarray(expected), message=as_text(steps))


class _Chain:
    def __init__(self, steps: np.ndarray) -> None:
        self.steps = steps

    def __call__(self, image: Any) -> Any:
        from PIL import Image

        return Image.fromarray(by_timm(np.asarray(image), self.steps))


@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.05, 0.0, 0.02, 0.1, 0.37, 0.5])
def test_hue_of_tensors(shift: float) -> None:
    """Hue is torchvision's of tensors: no value differs."""
    for image in pictures("RGB"):
        assert_same(run_steps(image, step("Hue", shift)), on_tensor("adjust_hue", image, shift))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.8, 1.0, 1.2, 2.2])
@pytest.mark.parametrize("gain", [1.0, 0.8, 1.3])
def test_gamma_of_tensors(gamma: float, gain: float) -> None:
    """Gamma is torchvision's of tensors, within one level where float32 powers differ: at most 3 of the 256 levels."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    done = run_steps(levels, step("Gamma", gamma, gain))
    assert_same(done, on_tensor("adjust_gamma", levels, gamma, gain), atol=1)
    assert_same(done, on_tensor("adjust_gamma", levels, gamma, gain), may_differ=3)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.3, 2.0])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (1, 7), (9, 9)])
def test_gaussian_blur_of_tensors(sigma: float, kernel: tuple[int, int]) -> None:
    """Blur in double lies within one level of torchvision's in float32, and nearly always on it."""
    differing = total = 0
    for image in pictures("RGB"):
        if min(image.shape[:2]) <= 4:
            continue
        expected = on_tensor("gaussian_blur", image, list(kernel), [sigma, sigma])
        done = run_steps(image, step("GaussianBlur", *kernel, sigma))
        assert_same(done, expected, atol=1)
        differing, total = differing + int((done != expected).sum()), total + done.size
    assert differing <= total * 1e-4


@pytest.mark.parametrize("shear", [0.0, 0.09, 0.15, -0.297, 0.3, 0.99])
def test_shear_is_torchvisions(shear: float) -> None:
    """torchvision turns a shear into an angle and back, which moves the last bit; ours is Pillow's and timm's."""
    from torchvision.transforms.functional import _get_inverse_affine_matrix

    degrees = math.degrees(math.atan(shear))
    for name, angles in (("ShearX", [degrees, 0.0]), ("ShearY", [0.0, degrees])):
        theirs = _get_inverse_affine_matrix([0, 0], 0.0, [0, 0], 1.0, angles)
        np.testing.assert_allclose(coefficients(name, [shear], 48, 37), theirs, rtol=0, atol=2.3e-16)


def test_maps_about_a_centre_are_torchvisions() -> None:
    """To the last bit, of centres that are no whole numbers too."""
    from torchvision.transforms.v2.functional._geometry import _get_inverse_affine_matrix

    lowest, highest = (-180, -9, -9, 0.3, -40, -40, -50, -50), (180, 9, 9, 3, 40, 40, 90, 90)
    for numbers in np.random.default_rng(4).uniform(lowest, highest, (300, 8)):
        degrees, shift_x, shift_y, scale, *shears, center_x, center_y = args = np.round(numbers, 1).tolist()
        theirs = _get_inverse_affine_matrix([center_x, center_y], degrees, [shift_x, shift_y], scale, shears)
        assert coefficients("AffineAbout", args, *SMALL) == tuple(theirs)


MISSING = {
    "AugMix": {"all_ops"},
    "RandomErasing": {"inplace"},
}
"""Arguments that are not here, as docs/modern.md says."""


@pytest.mark.parametrize("name", [name for name in gpuseq.__all__ if name.startswith("Random") or name in NAMED])
def test_arguments_are_torchvisions(name: str) -> None:
    """Names, order and defaults; None is 0 to `ColorJitter`, and AugMix has timm's fill."""
    from torchvision.transforms import v2

    if not hasattr(v2, name):
        assert name == "RandomGamma"
        return
    theirs = dict(inspect.signature(getattr(v2, name)).parameters)
    ours = dict(inspect.signature(getattr(gpuseq, name)).parameters)
    assert set(theirs) - set(ours) == MISSING.get(name, set())
    shared = [argument for argument in theirs if argument in ours]
    assert [argument for argument in ours if argument in theirs] == shared
    for argument in shared:
        default = getattr(theirs[argument].default, "value", theirs[argument].default)
        default = tuple(default) if isinstance(default, list) else default
        if name not in ("ColorJitter", "AugMix"):
            assert ours[argument].default == default, argument


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_learned_pairs(policy: str) -> None:
    """The learned pairs are torchvision's."""
    from torchvision.transforms.autoaugment import AutoAugmentPolicy
    from torchvision.transforms.v2 import AutoAugment

    from gpuseq.plan.policies.spaces import learned_pairs

    theirs = AutoAugment(AutoAugmentPolicy(policy))._policies
    assert [[tuple(one) for one in pair] for pair in learned_pairs(policy)] == [list(pair) for pair in theirs]


@pytest.mark.parametrize("num_bins", [2, 10, 31, 57])
@pytest.mark.parametrize("kind", ["RandAugment", "TrivialAugmentWide", "AutoAugment"])
def test_spaces(kind: str, num_bins: int) -> None:
    """What each step takes at each bin, with either sign, is torchvision's to the bit."""
    from torchvision.transforms import v2

    from gpuseq.plan.policies import spaces

    named = {"RandAugment": spaces._RAND_SPACE, "TrivialAugmentWide": spaces._WIDE_SPACE}
    space = named.get(kind, spaces._LEARNED_SPACE)
    theirs = getattr(v2, kind)._AUGMENTATION_SPACE
    size = (100, 331)
    ours = spaces._arguments(space, num_bins - 1, size).reshape(len(space.entries), num_bins, 2)
    # AutoAugment's space lacks what does nothing.
    assert [entry.step for entry in space.entries if entry.step != "Identity"] == [
        step for step in theirs if step != "Identity"
    ]
    for entry, taken in zip(space.entries, ours, strict=True):
        magnitudes, signed = theirs.get(entry.step, (lambda *_: None, False))
        expected = magnitudes(num_bins, *size)
        assert (expected is None) == (entry.strength is None)
        assert signed == entry.signed
        if expected is None:
            continue
        wanted = expected.numpy().astype(np.float64)[:, None] * ([1, -1] if signed else [1, 1])
        if entry.step in ("Brightness", "Color", "Contrast", "Sharpness"):
            # Pillow takes the factor as float32.
            wanted, taken = (1 + wanted).astype(np.float32), taken.astype(np.float32)
        elif entry.step == "Solarize":
            wanted *= 255
        elif entry.step.startswith("Translate"):
            wanted = np.trunc(wanted)
        np.testing.assert_array_equal(taken, wanted, err_msg=entry.step)


@pytest.mark.parametrize("increasing", [False, True])
def test_timm_levels(increasing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argument at every level and with both signs is timm's."""
    from timm.data import auto_augment

    theirs = auto_augment._RAND_INCREASING_TRANSFORMS if increasing else auto_augment._RAND_TRANSFORMS
    height, width = 60, 80
    # Numbers that choose each step once, its coin, its magnitude and its sign.
    uniform = np.zeros((2, len(theirs), 4))
    uniform[..., 0] = (np.arange(len(theirs)) + 0.5) / len(theirs)
    uniform[..., 3] = [[0.25], [0.75]]
    for magnitude in np.linspace(0, 10, 41).tolist():
        policy = TimmRandAugment(magnitude, len(theirs), p=1.0, increasing=increasing)
        for sign, steps in zip((1.0, -1.0), policy.draw(uniform.reshape(2, -1), (height, width)), strict=True):
            monkeypatch.setattr(auto_augment, "_randomly_negate", sign.__mul__)
            for key, values in zip(theirs, steps, strict=True):
                name, *_ = key.replace("Increasing", "\0").replace("Rel", "\0").split("\0")
                level = auto_augment.LEVEL_TO_ARG[key]
                expected = () if level is None else level(magnitude, {})
                if name.startswith("Translate"):
                    expected = (-expected[0] * (width if name[-1] == "X" else height),)
                (done,) = describe(values[None])
                assert done[0] == name
                assert done[1 : 1 + len(expected)] == tuple(expected), (key, magnitude, sign)


def test_timm_weights() -> None:
    """The weighted choice has timm's weights, and draws by them without replacement."""
    from timm.data import auto_augment

    from gpuseq.plan.policies import timm as ours

    for name, weight in auto_augment._RAND_WEIGHTED_0.items():
        plain = name.replace("Increasing", "").replace("Rel", "")
        assert ours._WEIGHTS.get(plain, ours._WEIGHT_OF_OTHERS) == weight
    recipe = Recipe((TimmRandAugment(9, 2, p=1.0, weighted=True),))
    program = recipe.draw(np.arange(20000), (32, 32), seed=1, epoch=0)
    assert (program["op"][:, 0] != program["op"][:, 1]).all()
    total = sum(auto_augment._RAND_WEIGHTED_0.values())
    share = (program["op"][:, 0] == code_of("Rotate")).mean()
    assert share == pytest.approx(auto_augment._RAND_WEIGHTED_0["Rotate"] / total, abs=0.012)
    assert {STEPS[code].name for code in np.unique(program["op"])} >= {"Rotate", "ShearX", "TranslateX", "Invert"}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_files_and_their_masks_are_cropped_as_torchvision_crops_both(tmp_path: Path, interpolation: Any) -> None:
    """One box for both, the mask with nearest pixels: ``resized_crop`` of torchvision v2 on PIL images."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    rng = np.random.default_rng(2)
    for number, size in enumerate([(20, 30), (41, 25), (64, 48), (7, 90), (33, 32)]):
        for name, shape in (("images", (*size, 3)), ("masks", size)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / name / f"{number}.png")
    crop = gpuseq.RandomResizedCrop((16, 12), interpolation=interpolation)
    iterator = gpuseq.ImageDataGenerator(augmentations=crop, dtype="uint8", device="cpu").flow_from_directory(
        tmp_path / "images",
        (16, 12),
        mask_directory=tmp_path / "masks",
        batch_size=5,
        seed=1,
        verbose=False,
    )
    for epoch in range(8):
        iterator.set_epoch(epoch)
        plan = iterator.plan_batch()
        assert plan.program is not None
        for index, steps, *pair in zip(plan.indices, plan.program, *iterator.replay(plan), strict=True):
            for name, mode, got in zip(("images", "masks"), (interpolation, "nearest"), pair, strict=True):
                with Image.open(tmp_path / name / f"{index}.png") as file:
                    box = with_boxes(steps[None], (file.height, file.width))["arg"][0, 0, :4].astype(int).tolist()
                    wanted = functional.resized_crop(file, *box, [16, 12], interpolation=InterpolationMode(mode))
                assert_same(got, np.asarray(wanted).reshape(got.shape), message=f"{name} {index}, {box}")
