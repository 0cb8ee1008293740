"""Steps on the NumPy engine equal Pillow, to the bit, and their chains too."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from gpuseq.ops import dispatch
from gpuseq.ops.maps import coefficients, fits_fixed_point
from gpuseq.ops.numpy import erase, program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.program import STEPS, empty_program
from tests.compare import assert_same, read_only
from tests.ops.pillow_steps import CASES, FAR, FAR_IDS, FILL, Case, as_array, as_image, pictures, step

UINT8 = AugmentOptions(dtype="uint8")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_equals_pillow(name: str, mode: str) -> None:
    """Every argument of the grid, on noise, gradients and constants of one pixel to 224 squared."""
    for case in CASES:
        if case.name != name:
            continue
        for image in pictures(mode):
            if name == "ResizedCrop" and min(image.shape[:2]) < 9:
                continue
            done = program.run_steps(read_only(image), case.steps)
            assert_same(done, as_array(case.oracle(as_image(image))), message=f"{case} of {image.shape}")


def _stacked(cases: list[Case]) -> np.ndarray:
    return np.concatenate([case.steps for case in cases])


@pytest.mark.parametrize("length", [2, 3, 4])
def test_chains(length: int) -> None:
    """Step after step on uint8: what tables become one, and what is measured is measured in between."""
    rng = np.random.default_rng(length)
    movable = [case for case in CASES if case.name != "ResizedCrop"]
    image = rng.integers(0, 256, (29, 23, 3), np.uint8)
    tables = [case for case in movable if case.name in ("Brightness", "Posterize", "Solarize", "Invert", "Equalize")]
    for number in range(150):
        among = tables if number % 3 == 0 else movable
        cases = [among[int(choice)] for choice in rng.integers(len(among), size=length)]
        expected = as_image(image)
        for case in cases:
            expected = case.oracle(expected)
        message = ", ".join(map(str, cases))
        assert_same(program.run_steps(image, _stacked(cases)), np.asarray(expected), message=message)


def test_sharpness_keeps_the_alpha_of_grey() -> None:
    """Of grey with alpha too, which no other step of colour takes."""
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 2), np.uint8)
    expected = ImageEnhance.Sharpness(Image.fromarray(image)).enhance(2.7)
    assert_same(program.run_steps(image, step("Sharpness", 2.7)), np.asarray(expected))


def test_perspective_reads_as_pillow() -> None:
    """Both ways of reading a projective map are Pillow's for the same eight coefficients."""
    for image in pictures("RGB"):
        height, width = image.shape[:2]
        if min(height, width) < 8:
            continue
        corners = (1, 2, width - 3, 1, width - 2, height - 4, 3, height - 1)
        data = coefficients("Perspective", corners, height, width)
        for bilinear, resampling in ((False, Image.Resampling.NEAREST), (True, Image.Resampling.BILINEAR)):
            expected = as_image(image).transform(
                (width, height), Image.Transform.PERSPECTIVE, data, resampling, fillcolor=(11, 22, 33)
            )
            done = program.run_steps(image, step("Perspective", *corners, bilinear=bilinear))
            assert_same(done, np.asarray(expected), message=f"{image.shape}")


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 2)])
def test_maps_far_beyond_fixed_point(size: tuple[int, int]) -> None:
    """Shears of nearly a right angle: terms of 1e16 leave what their order leaves, which is Pillow's."""
    rng = np.random.default_rng(0)
    image = np.arange(1, 1 + size[0] * size[1], dtype=np.uint8).reshape(*size, 1)
    inside = 0
    for shear in (90.0, *rng.uniform(89.99999, 90, 50).tolist()):
        args = (0.0, 0.0, 0.0, 1.0, shear, 0.0)
        expected = as_image(image).transform(size[::-1], Image.Transform.AFFINE, coefficients("Affine", args, *size))
        assert_same(program.run_steps(image, step("Affine", *args, fill=(0,) * 4))[..., 0], np.asarray(expected))
        inside += bool(np.asarray(expected).any())
    assert inside


@pytest.mark.parametrize("bilinear", [False, True])
def test_what_looks_at_infinity_is_filled(bilinear: bool) -> None:
    """On the horizon of a projective map and at a scale of next to nothing there is no pixel, and no warning of one."""
    image = np.random.default_rng(0).integers(0, 245, (4, 5, 3), np.uint8)
    # A diagonal of depth 0, from the fourth column of the first row on.
    horizon = step("Perspective", 0, 0, 4, 0, 2, 2, 1, 3, bilinear=bilinear, fill=(255,) * 4)
    for steps in (horizon, step("Affine", 30, 0, 0, 1e-308, bilinear=bilinear, fill=(255,) * 4)):
        assert (program.run_steps(image, steps)[range(4), range(3, -1, -1)] == 255).all()


@pytest.mark.parametrize(("sigma", "levels"), [(5e-324, (90, 0, 0)), (1e300, (30, 30, 0))])
def test_sigmas_whose_square_is_no_number(sigma: float, levels: tuple[int, ...]) -> None:
    """The limits of a Gaussian kernel: one pixel, and as many of one weight."""
    image = np.zeros((1, 9, 1), np.uint8)
    image[0, 4] = 90
    blurred = program.run_steps(image, step("GaussianBlur", 3, 1, sigma))
    assert tuple(blurred[0, 4:7, 0].tolist()) == levels


@pytest.mark.parametrize(("size", "steps"), FAR, ids=FAR_IDS)
def test_maps_beyond_fixed_point(size: tuple[int, int], steps: np.ndarray) -> None:
    """Nearest pixels far outside are summed up in double, as Pillow does where its fixed point ends."""
    name, args = STEPS[steps["op"][0]].name, steps["arg"][0].tolist()
    matrix = coefficients(name, args, *size)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = as_image(image).transform(size[::-1], Image.Transform.AFFINE, matrix, fillcolor=FILL)
    assert not fits_fixed_point(matrix, *size)
    assert_same(program.run_steps(image, steps), np.asarray(expected))


def test_a_program_is_done_sample_by_sample() -> None:
    """A batch equals its single images, rows are taken as they are asked for, and nothing is written to the source."""
    rng = np.random.default_rng(1)
    images = read_only(rng.integers(0, 256, (5, 31, 20, 3), np.uint8))
    cases = [case for case in CASES if case.name in ("Rotate", "Equalize", "Color", "Sharpness", "Contrast")]
    steps = empty_program(9, 2)
    rows = rng.integers(0, 5, 9)
    for row in range(9):
        steps[row] = _stacked([cases[int(choice)] for choice in rng.integers(len(cases), size=2)])
    done = dispatch.run_program(images, steps, UINT8, indices=rows)
    for sample, image in enumerate(done):
        assert_same(image, program.run_steps(images[rows[sample]], steps[sample]))
    assert (done != images[rows]).any()


def test_what_no_step_is_defined_for_is_refused() -> None:
    """Other dtypes, and numbers of channels that have no luminance, are named with the step."""
    steps = step("Color", 1.27)[None]
    with pytest.raises(TypeError, match="Color is defined on uint8 images.*float32"):
        dispatch.run_program(np.zeros((1, 4, 4, 3), np.float32), steps, UINT8)
    for channels in (2, 5):
        with pytest.raises(ValueError, match=f"Color takes images of 1, 3 or 4 channels.*got {channels}"):
            dispatch.run_program(np.zeros((1, 4, 4, channels), np.uint8), steps, UINT8)
    moved = dispatch.run_program(np.ones((1, 4, 4, 5), np.uint8), step("Rotate", 9.0)[None], UINT8)
    assert moved.shape == (1, 4, 4, 5)


def test_erase_writes_the_rectangle_alone() -> None:
    """Constants per channel, in the batch's own dtype; what lies outside the rectangle stays."""
    for dtype in (np.float32, np.float64, np.uint8):
        batch = np.full((2, 6, 7, 3), 9, dtype)
        steps = np.stack([step("Erase", 1, 2, 3, 4, 0.0, 100.5, 300.0, 0.0), step("Identity")])
        erase.erase(batch, steps)
        expected = np.full((2, 6, 7, 3), 9, dtype)
        expected[0, 1:4, 2:6] = (0, 100.5, 300) if dtype != np.uint8 else (0, 100, 255)
        assert_same(batch, expected)


def test_noise_is_normal_and_the_keys_own() -> None:
    """Number i is a function of key and i; mean 0, variance 1, and its quantiles are the normal distribution's."""
    stats = pytest.importorskip("scipy.stats")
    drawn = erase.normal_noise(12345, 200_000)
    assert_same(erase.normal_noise(12345, 1001), drawn[:1001])
    assert (erase.normal_noise(12346, 1001) != drawn[:1001]).mean() > 0.99
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    assert erase.normal_quantiles()[0] == -erase.normal_quantiles()[-1]


def test_noise_is_philox() -> None:
    """The words behind the noise are Philox4x32-10's, by its published test vectors."""
    words = erase.philox_words(np.zeros(1, np.uint64), 0)
    assert [hex(int(word)) for word in words[0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
