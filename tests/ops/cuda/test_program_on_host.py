"""`program.cu`, run on the CPU, equals the NumPy engine to the bit: every step, chains, layouts, dtypes and erasing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.ops import listing
from gpuseq.ops.cuda import memory as device
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.numpy import augment as numpy_augment
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.numpy.erase import erase
from gpuseq.ops.options import AugmentOptions, RangesFirst, Statistics
from gpuseq.ops.segments import cut
from gpuseq.plan.columns import identity_params
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.program import as_text, only_geometry
from tests.compare import assert_same
from tests.ops.pillow_steps import CASES, FAR, FAR_IDS, pictures, step
from tests.standin import host_runner
from tests.standin.host_runner import HostRun, Launch

UINT8 = AugmentOptions(dtype="uint8")
DTYPES = ("uint8", "float16", "float32", "float64")
FURTHER = [
    *(step("Hue", shift) for shift in (-0.5, -0.31, 0.02, 0.5)),
    *(step("GaussianBlur", width, height, sigma) for width, height, sigma in ((3, 3, 0.3), (5, 3, 1.1), (1, 7, 2.0))),
    *(step("Gamma", gamma, gain) for gamma, gain in ((0.7, 1.0), (2.2, 1.2))),
    *(step("PermuteChannels", *order) for order in ((0, 2, 1), (2, 0, 1), (2, 1, 0))),
    step("SolarizeAdd", 60, 128),
    *(step("Affine", 20, 2, -1, scale, 5, -3, bilinear=bilinear) for scale in (0.7, 1.3) for bilinear in (False, True)),
    *(step("AffineAbout", 20, 2, -1, 0.7, 5, -3, 0.1, -4, bilinear=bilinear) for bilinear in (False, True)),
    *(step("Perspective", 1, 0, 5, 1, 6, 5, 0, 6, bilinear=bilinear) for bilinear in (False, True)),
]
POLICIES: list[Any] = [
    gpuseq.RandAugment(4, 14),
    gpuseq.RandAugment(4, 14, interpolation="bilinear", fill=(7, 8, 9)),
    gpuseq.TrivialAugmentWide(),
    gpuseq.AutoAugment("svhn", interpolation="bilinear"),
    "rand-m9-n4-mstd0.5-inc1-p0.9",
    "augmix-m5-w2",
    gpuseq.AugMix(),
    [gpuseq.ColorJitter(0.4, 0.4, 0.4, 0.2), gpuseq.RandomPhotometricDistort(), gpuseq.RandomGrayscale()],
    [gpuseq.RandomPerspective(p=0.8), gpuseq.GaussianBlur(3), gpuseq.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 5)],
]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> HostRun:
    return host_runner.install(monkeypatch)


def _same(images: np.ndarray, program: np.ndarray, options: AugmentOptions = UINT8, **further: Any) -> np.ndarray:
    """Run both engines; where they differ, say at which sample's steps."""
    wanted = numpy_program.run_program(images, program, options, **further)
    got = cuda_program.run_program(images, program, options, **further)
    for sample, steps in enumerate(program):
        assert_same(got[sample], wanted[sample], message=as_text(steps))
    return got


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_step(mode: str, host: HostRun) -> None:
    """Each case of the grid that is held against Pillow, and the steps that Pillow has not, on every small picture."""
    for image in pictures(mode):
        height, width = image.shape[:2]
        if height * width > 400:
            continue
        rows = [case.steps for case in CASES if case.name != "ResizedCrop"]
        rows += [one for one in FURTHER if min(height, width) >= 7]
        program = np.stack(rows)
        _same(image[None], program, indices=np.zeros(len(program), np.int64))


@pytest.mark.parametrize(("size", "steps"), FAR, ids=FAR_IDS)
def test_maps_beyond_fixed_point(size: tuple[int, int], steps: np.ndarray, host: HostRun) -> None:
    """Where fixed point ends the positions are listed, beside samples that need none."""
    batch = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    program = np.stack([step("Invert"), steps, step("ShearY", 0.01), steps])
    got = _same(batch, program, indices=np.array([0, 1, 1, 0]))
    assert (got[1] != got[1, 0, 0]).any()
    assert host.num_launches == 1


def test_more_positions_than_the_engines_count(host: HostRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_LINES", 3 * 41 * 51 * 2)
    program = FAR[-1][1][None].repeat(4, axis=0)
    images = np.zeros((3, 41, 51, 3), np.uint8)
    _same(images, program[:3])
    with pytest.raises(gpuseq.DeviceError, match="Affine reads so far outside of images of 41 x 51 that"):
        cuda_program.run_program(images, program, UINT8, indices=np.zeros(4, np.int64))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_policies(policy: Any, host: HostRun) -> None:
    """Chains with intermediate images and looks at them; a launch for each step that needs one, at most."""
    recipe = Recipe.parse("augmentations", policy)
    assert recipe is not None
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (7, 23, 31, 3), np.uint8)
    images[::2] //= 3
    program = recipe.draw(np.arange(60), (23, 31), seed=5, epoch=0)
    _same(images, program, indices=rng.integers(0, 7, 60))
    assert 1 < host.num_launches <= 1 + int((program["op"] != 0).sum(axis=1).max())
    no_ranges = dict.fromkeys(("has_affine", "has_flip", "has_channel_shift", "has_brightness"), False)
    assert host.num_launches == len(cuda_program.launches(AugmentOptions(**no_ranges), program))


def test_launches(host: HostRun) -> None:
    """One where no image is looked at first or in between; one more for each that is made or looked at."""
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)
    for names, launches in (
        ((("Brightness", 1.3), ("Rotate", 9.0), ("Color", 0.5), ("ShearX", 0.1), ("Posterize", 4)), 1),
        ((("Sharpness", 1.3), ("Rotate", 9.0)), 1),
        ((("Contrast", 1.3),), 2),
        ((("Rotate", 9.0), ("Sharpness", 0.3)), 2),
        ((("Rotate", 9.0), ("Contrast", 0.7)), 2),
        ((("Contrast", 1.3), ("Rotate", 9.0), ("Sharpness", 0.3)), 3),
        ((("Equalize",), ("Rotate", 9.0), ("Contrast", 0.7), ("Sharpness", 0.3), ("AutoContrast",)), 5),
    ):
        before = host.num_launches
        program = np.concatenate([step(*one) for one in names])[None].repeat(4, axis=0)
        _same(images, program)
        assert host.num_launches - before == launches


@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("out_last", [True, False], ids=["to_last", "to_first"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_follows(dtype: str, last: bool, out_last: bool, host: HostRun) -> None:
    """Layouts, casts, modes, rescale, featurewise and samplewise normalisation, and erasing after all of them."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (5, 12, 17, 3), np.uint8)
    x = images if last else np.ascontiguousarray(np.moveaxis(images, 3, 1))
    erasing = [gpuseq.RandomErasing(0.7, value=(3.7, -1.2, 300.0)), gpuseq.RandomErasing(0.7, value="random")]
    recipe = Recipe.parse("augmentations", [gpuseq.RandAugment(), *erasing])
    assert recipe is not None
    program = recipe.draw(np.arange(12), (12, 17), seed=1, epoch=0)
    program[[0, 7]] = np.zeros((), program.dtype)  # nothing but what follows
    statistics = Statistics(np.array([1.5, 2.5, 3.5]), np.array([0.5, 2.0, 30.0]))
    for extra in (
        {},
        {"rescale": 1 / 255},
        {"preprocessing": "tf"},
        {"preprocessing": "caffe"},
        {"preprocessing": "torch", "rescale": 0.5},
        {"featurewise_center": True, "featurewise_std": True},
    ):
        options = AugmentOptions(
            source_format="channels_last" if last else "channels_first",
            data_format="channels_last" if out_last else "channels_first",
            dtype=dtype,
            **extra,  # type: ignore[arg-type]
        )
        indices = rng.integers(0, 5, 12)
        _same(x, program, options, indices=indices, statistics=statistics)  # which count where they are asked for
    _same(x, program, options, indices=indices, statistics=None)  # a generator that nothing was fitted to


SIDES = ((1, 1), (1, 4), (2, 2), (7, 3), (13, 17), (12, 17), (46, 45), (46, 46), (52, 48))
"""Of images: pixels that are a multiple of four and not, one unit of `program` and two, whose last one is not full."""

LAYOUTS = list(product((True, False), repeat=2))
"""Whether the channels of the batch, and those of the source, come last."""


def plain_program(channels: int) -> np.ndarray:
    """Return programs of maps in fixed point, tables and colours: alone, and in chains that leave the image."""
    moves = [
        step("Rotate", 31.0, fill=(9, 8, 7, 6)),
        step("ShearX", 0.3),
        step("TranslateY", 3.0, fill=(70, 60, 50, 40)),
        step("TranslateY", -2.0),
    ]
    tables = [step("Posterize", 3), step("Solarize", 99)] if channels in (1, 3, 4) else []
    colours = [step("Color", 1.7), step("Grayscale")] if channels in (3, 4) else []
    chains = [[], *([one] for one in (*moves, *tables, *colours)), moves, [*tables, *colours], [*colours, *moves]]
    chains.append([step("TranslateX", -2.0, fill=(200, 100, 50, 25)), *tables, moves[0], *colours, moves[1]])
    program = np.zeros((len(chains), max(map(len, chains))), step("Invert").dtype)
    for row, chain in zip(program, chains, strict=True):
        row[: len(chain)] = np.concatenate(chain) if chain else row[:0]
    return program


def check_plain(channels: int, dtype: str, sides: Iterable[tuple[int, int]]) -> None:
    """Pixels go four at once, in words where they stay in place and arrays begin with one, in bytes anywhere else."""
    # Each number of channels in each dtype, and in each layout.
    out_last, last = LAYOUTS[(channels + DTYPES.index(dtype)) % len(LAYOUTS)]
    options = AugmentOptions(
        source_format="channels_last" if last else "channels_first",
        data_format="channels_last" if out_last else "channels_first",
        dtype=dtype,  # type: ignore[arg-type]
        rescale=1.0 if dtype == "uint8" else 1 / 255,
    )
    program = plain_program(channels)
    rng = np.random.default_rng(6)
    for number, (height, width) in enumerate(sides):
        shape = (2, height, width, channels) if last else (2, channels, height, width)
        to = (len(program), height, width, channels) if out_last else (len(program), channels, height, width)
        rows = rng.integers(0, 2, len(program))
        # Where the arrays begin, in bytes of the source and in values of the batch, from a multiple of 64 bytes on.
        for lead, out_lead in ((0, 0), (0, 1), (number % 3 + 1, 0)):
            images = _placed(shape, np.dtype(np.uint8), lead)
            images[:] = rng.integers(0, 256, shape, np.uint8)
            out = _placed(to, np.dtype(dtype), out_lead)
            assert cuda_program.run_program(images, program, options, indices=rows, out=out) is out
            wanted = numpy_program.run_program(images, program, options, indices=rows)
            for sample, steps in enumerate(program):
                assert_same(out[sample], wanted[sample], message=as_text(steps))


def _placed(shape: tuple[int, ...], dtype: np.dtype[Any], lead: int) -> np.ndarray:
    memory = np.zeros((math.prod(shape) + lead) * dtype.itemsize + 64, np.uint8)
    first = -memory.ctypes.data % 64 + lead * dtype.itemsize
    return memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [
        # Each pair is compiled anew.
        pytest.param(channels, dtype, marks=() if channels == 3 or at == channels % 4 else pytest.mark.exhaustive)
        for channels in (1, 2, 3, 4, 5)
        for at, dtype in enumerate(DTYPES)
    ],
)
def test_plain_segments(channels: int, dtype: str, host: HostRun) -> None:
    check_plain(channels, dtype, SIDES)
    assert host.num_launches == 3 * len(SIDES)


def test_sharpness_of_grey_with_alpha(host: HostRun) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 7, 2), np.uint8)
    _same(images, step("Sharpness", 2.7)[None], AugmentOptions(dtype="float32"))


@pytest.mark.parametrize("out_last", [True, False], ids=["to_last", "to_first"])
def test_rectangles_over_one_another(out_last: bool, host: HostRun) -> None:
    check_rectangles(out_last)


def check_rectangles(out_last: bool) -> None:
    """The last one stays, wherever the units of a sample meet, and whatever was written below by another thread."""
    erasing = [
        ("Erase", 3, 2, 60, 40, 5.5, -1, 300),
        ("EraseNoise", 0, 0, 64, 47, 2**52 + 3),
        ("EraseNoise", 40, 30, 15, 17, 12345),
        ("Erase", 10, 12, 45, 9, 1, 2, 3),
        ("Erase", 42, 0, 2, 47, 7, 8, 9),
    ]
    programs = [
        erasing,
        erasing[::-1],
        [("Rotate", 12.0), *erasing[2:]],
        [("Sharpness", 1.5), erasing[0]],
        erasing[1:2],
        [],
    ]
    program = np.zeros((len(programs), len(erasing)), step("Invert").dtype)
    for row, chain in zip(program, programs, strict=True):
        row[: len(chain)] = np.concatenate([step(*one) for one in chain]) if chain else row[:0]
    images = np.random.default_rng(2).integers(0, 256, (len(program), 64, 47, 3), np.uint8)
    _same(images, program, AugmentOptions(data_format="channels_last" if out_last else "channels_first"))


def test_samplewise(host: HostRun) -> None:
    """The sample's own mean is that of the finished levels; sums in another order, so not to the bit."""
    images = np.random.default_rng(3).integers(0, 256, (5, 12, 17, 3), np.uint8)
    recipe = Recipe.parse("augmentations", [gpuseq.RandAugment(), gpuseq.RandomErasing(1.0, value=(9, 8, 7))])
    assert recipe is not None
    program = recipe.draw(np.arange(5), (12, 17), seed=1, epoch=0)
    options = AugmentOptions(samplewise_center=True, samplewise_std=True)
    wanted = numpy_program.run_program(images, program, options)
    assert_same(cuda_program.run_program(images, program, options), wanted, atol=2e-5)


def test_erase_alone(host: HostRun) -> None:
    """The kernel for batches that a function of the user's has finished."""
    recipe = Recipe.parse("augmentations", [gpuseq.RandomErasing(1.0, value=(1, 2.5, -3))])
    noise = Recipe.parse("augmentations", [gpuseq.RandomErasing(1.0, value="random")])
    assert recipe is not None
    assert noise is not None
    for one in (recipe, noise):
        program = one.draw(np.arange(6), (13, 9), seed=2, epoch=0)
        for data_format in ("channels_last", "channels_first"):
            shape = (6, 13, 9, 3) if data_format == "channels_last" else (6, 3, 13, 9)
            got = np.random.default_rng(0).random(shape, np.float32)
            wanted = got.copy()
            erase(wanted if data_format == "channels_last" else wanted.transpose(0, 2, 3, 1), program)
            cuda_program.erase_rectangles(got, program, data_format)
            assert_same(got, wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
@pytest.mark.parametrize("source_format", ["channels_last", "channels_first"])
def test_masks(dtype: Any, source_format: str, host: HostRun) -> None:
    """Masks of any dtype move by nearest pixels."""
    recipe = Recipe.parse("augmentations", [gpuseq.RandAugment(3, 14), gpuseq.RandomAffine(30, (0.2, 0.2), (0.5, 2))])
    assert recipe is not None
    program = only_geometry(recipe.draw(np.arange(20), (12, 17), seed=1, epoch=0))
    shape = (20, 12, 17, 1) if source_format == "channels_last" else (20, 1, 12, 17)
    masks = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    wanted = numpy_program.run_geometry(masks, program, source_format)
    assert_same(cuda_program.run_geometry(masks, program, source_format), wanted)
    assert (wanted != masks).any()


@pytest.mark.parametrize("how", [Launch((1,)), Launch((3,), reverse=True), Launch((500,))], ids=str)
def test_the_answer_does_not_depend_on_the_launch(how: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    host_runner.install(monkeypatch, how, host_runner.OPTIMIZED)
    recipe = Recipe.parse("augmentations", gpuseq.RandAugment(4, 14, interpolation="bilinear"))
    assert recipe is not None
    images = np.random.default_rng(1).integers(0, 256, (12, 51, 50, 3), np.uint8)
    program = recipe.draw(np.arange(12), (51, 50), seed=8, epoch=0)
    program[::5] = np.zeros((), program.dtype)  # copies between samples that share what a block has loaded
    _same(images, program)


def test_counters_do_not_overflow(host: HostRun) -> None:
    """More equal pixels than a counter of eight bits holds: constants of 200 squared, looked at for their histogram."""
    images = np.full((2, 200, 200, 3), 77, np.uint8)
    images[1, :150] = 78
    program = np.stack([np.concatenate([step("Equalize"), step("AutoContrast")])] * 2)
    _same(images, program)


def test_tables_are_composed() -> None:
    """Steps that are tables become one; what they were made of is not sent, and what several samples need is once."""
    rows = [("Invert",), ("Posterize", 4), ("Solarize", 100)]
    program = np.concatenate([step(*row) for row in rows])[None].repeat(9, axis=0)
    program["arg"][3:, 2, 0] = 50
    segments = cut(program, np.arange(9), 20, 20, 3)
    assert len(segments.tables) == 2
    for sample, threshold in enumerate([100] * 3 + [50] * 6):
        posterized = 255 - np.arange(256) & 0xF0
        wanted = np.where(posterized < threshold, posterized, 255 - posterized)
        assert (segments.tables[int(segments.steps[sample, 1])] == wanted).all()
    assert (segments.samples[:, 3] == 1).all()
    assert not segments.rounds
    assert segments.num_slots == 0


def test_few_pairs_of_tables_stay_as_they_are() -> None:
    """To compose them takes the host longer than to read both takes a kernel; what is drawn is not changed by it."""
    program = np.concatenate([step("Color", 1.3), step("Color", 0.7)])[None].repeat(20, axis=0)
    program[4] = np.concatenate([step("Invert"), step("Posterize", 4)])
    segments = cut(program, np.arange(20), 20, 20, 3)
    assert len(segments.steps) == 40
    assert len(segments.tables) == 2
    program[::4] = program[4]
    assert len(cut(program, np.arange(20), 20, 20, 3).steps) == 35


def _mixing(*chains: tuple[float, tuple[Any, ...]], share: float = 0.4) -> np.ndarray:
    """Return AugMix of these chains, each a weight and its steps."""
    rows = [step("AugMix", share, len(chains), *(weight for weight, _ in chains))]
    for number, (_, steps) in enumerate(chains, 1):
        for one in steps:
            rows.append(step(*one))
            rows[-1]["chain"] = number
    return np.concatenate(rows)


def test_steps_of_no_chain_are_left_out() -> None:
    """What follows a mix with the number of a chain that it has not, or after another step, as for the NumPy engine."""
    mix = _mixing((1.0, (("Invert",),)))
    strays = np.concatenate([step("Solarize", 9), step("Color", 0.5), step("Posterize", 3)])
    strays["chain"] = 2, 0, 1
    program = np.stack([np.concatenate([mix, strays]), np.zeros(5, mix.dtype)])
    segments = cut(program, np.arange(2), 20, 20, 3)
    assert len(segments.tables) == 1
    assert segments.tables[0, 0].tolist() == list(range(255, -1, -1))
    assert segments.steps[:, 0].astype(int).tolist() == [
        listing.MIX,
        listing.TABLE,
        listing.CHAIN_END,
        listing.MIX,
        listing.COLOR,
    ]


def test_mixes(host: HostRun) -> None:
    """Chains that are empty, look at images or read beside pixels; steps before, between and after, and two mixes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 20, 21, 3), np.uint8)
    looks: tuple[Any, ...] = (("Equalize",), ("Rotate", 9.0), ("Sharpness", 1.8), ("Contrast", 0.3))
    first = _mixing((0.2, (("Invert",),)), (0.5, looks), (0.3, ()))
    second = _mixing((1.0, (("AutoContrast",), ("Sharpness", 0.1))), share=0.9)
    before = np.concatenate([step("Brightness", 1.2), step("Sharpness", 0.4)])
    after = np.concatenate([step("ShearX", 0.2), step("Equalize"), step("Sharpness", 1.5), step("Color", 0.3)])
    for parts in ([first], [before, first], [first, second], [before, second, after, first, after]):
        program = np.concatenate(parts)[None].repeat(3, axis=0)
        program[1] = np.zeros((), program.dtype)
        _same(images, program)
    shuffled = np.concatenate([first[:1], first[1:][[1, 0, 2, 3, 4]]])  # steps of chains stand in any order
    _same(images, shuffled[None].repeat(3, axis=0))


@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_crops(interpolation: str, last: bool, host: HostRun) -> None:
    """Resized in place from the source, in any axis order, before the other steps; masks too."""
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 31, 3), np.uint8)
    recipe = Recipe.parse("augmentations", [gpuseq.RandomResizedCrop((9, 8), interpolation=interpolation), "trivial"])
    assert recipe is not None
    program = recipe.draw(np.arange(7), (20, 31), seed=5, epoch=0)
    rows = np.array([3, 0, 0, 1, 2, 3, 3])
    order = "channels_last" if last else "channels_first"
    x = images if last else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    _same(x, program, AugmentOptions(source_format=order, data_format=order), indices=rows)
    moves = only_geometry(program)
    masks = images[..., :1].astype(np.int32)
    got = cuda_program.run_geometry(masks, moves, "channels_last", indices=rows)
    assert_same(got, numpy_program.run_geometry(masks, moves, "channels_last", indices=rows))
    with pytest.raises(gpuseq.DeviceError, match="masks of up to 4 bytes a pixel; got 3 channels of int32"):
        cuda_program.run_geometry(images.astype(np.int32), moves, "channels_last", indices=rows)


def test_crops_that_come_late_are_refused() -> None:
    program = np.concatenate([step("Invert"), step("ResizedCrop", 0, 0, 2, 2, 4, 4)])[None]
    with pytest.raises(gpuseq.DeviceError, match="a crop comes first"):
        cuda_program.run_program(np.zeros((1, 5, 5, 3), np.uint8), program, UINT8)


def test_long_programs_are_cut(host: HostRun) -> None:
    """More steps than a segment holds go by way of intermediate images."""
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 21, 3), np.uint8)
    rows = [("Color", 0.9), ("Hue", 0.1), ("HorizontalFlip",), ("ShearX", 0.1)] * 10
    _same(images, np.concatenate([step(*row) for row in rows])[None].repeat(2, axis=0))


def test_a_batch_goes_up_in_one_copy(host: HostRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pinned buffers there are so many: several copies a batch would make the host wait for the device sooner."""
    sizes: list[int] = []
    send = device.send
    monkeypatch.setattr(device, "send", lambda memory, size, write: sizes.append(size) or send(memory, size, write))
    recipe = Recipe.parse("augmentations", [gpuseq.RandAugment(4, 14), gpuseq.RandomErasing(1.0, value=(9, 8, 7))])
    assert recipe is not None
    program = recipe.draw(np.arange(8), (23, 31), seed=5, epoch=0)
    batch = np.random.default_rng(1).integers(0, 256, (8, 23, 31, 3), np.uint8)
    _same(batch, program)
    assert len(sizes) == 1
    cuda_program.run_program(batch, program, UINT8, ranges=_ranges(AugmentOptions(), 8))
    assert len(sizes) == 2, "the table of the ranges goes with the others"


RANGES: dict[str, tuple[int, AugmentOptions, AugmentOptions]] = {
    "nearest, order 1": (3, AugmentOptions(), AugmentOptions(data_format="channels_first", rescale=1 / 255)),
    "constant, order 0, planes": (
        3,
        AugmentOptions("channels_first", "channels_first", fill_mode="constant", cval=7.6, order=0),
        AugmentOptions("channels_first", preprocessing="caffe"),
    ),
    "reflect, grey, double": (1, AugmentOptions(fill_mode="reflect"), AugmentOptions(dtype="float64")),
    "wrap, alpha": (4, AugmentOptions(fill_mode="wrap", conventions="corrected"), UINT8),
    "flips, five channels": (5, AugmentOptions(has_affine=False, has_brightness=False), UINT8),
}
"""Channels, what Keras' ranges do, and what follows the program."""


def _ranges(options: AugmentOptions, num_samples: int) -> RangesFirst:
    """Draw parameters of every kind; each fourth sample asks for nothing."""
    rng = np.random.default_rng(7)
    params = identity_params(num_samples)
    at_work = np.flatnonzero(np.arange(num_samples) % 4)
    for column, low, high in (
        *(("theta", -40, 40), ("tx", -4, 4), ("ty", -4, 4), ("shear", -20, 20), ("zx", 0.6, 1.6), ("zy", 0.6, 1.6)),
        ("brightness", 0.3, 1.8),
    ):
        params[column][at_work] = rng.uniform(low, high, len(at_work))
    for column in ("flip_horizontal", "flip_vertical"):
        params[column][at_work] = rng.integers(0, 2, len(at_work))
    levels = replace(options, dtype="uint8", data_format=options.source_format, round_affine=True)
    return RangesFirst(params, replace(levels, has_channel_shift=False))


@pytest.mark.parametrize("case", RANGES)
def test_ranges_are_done_in_the_same_launch(case: str, host: HostRun) -> None:
    check_ranges(case, lambda: host.num_launches)


def check_ranges(case: str, num_launches: Callable[[], int]) -> None:
    """The levels of a pass before the program, to the bit: one launch, or two where an image is made or looked at."""
    channels, warp, options = RANGES[case]
    rng = np.random.default_rng(4)
    shape = (channels, 19, 26) if warp.source_format == "channels_first" else (19, 26, channels)
    images = rng.integers(0, 256, (6, *shape), np.uint8)
    rows = rng.integers(0, 6, 24)
    near = [step("Rotate", 12.0), step("ShearX", 0.2), step("HorizontalFlip")]
    far = [step("Rotate", 9.0, bilinear=True), step("Sharpness", 1.7), step("GaussianBlur", 3, 5, 0.8)]
    if channels in (1, 3, 4):
        near += [step("Posterize", 3), step("Brightness", 1.3), step("Solarize", 99)]
        far += [step("Equalize"), step("Contrast", 0.4), step("AutoContrast")]
    if channels >= 3:
        near += [step("Color", 0.4), step("Hue", 0.2)] if channels != 5 else []
    ranges = _ranges(warp, len(rows))
    levels = numpy_augment.augment(images, ranges.params, ranges.options, indices=rows)
    assert (levels != images[rows]).any()
    mixed = [_mixing((0.3, (("ShearX", 0.2),)), (0.7, (("Sharpness", 1.5),)))] if channels == 3 else []
    for pool, length in ((near, 0), (near, 3), ([*near, *far], 3), (mixed, 1)):
        if not pool and length:
            continue
        draws = [[pool[at] for at in rng.integers(0, len(pool), length)] for _ in rows]
        empty = np.zeros(1, step("Invert").dtype)
        program = np.stack([np.concatenate([empty, *steps]) for steps in draws])
        wanted = numpy_program.run_program(levels, program, options)
        before = num_launches()
        got = cuda_program.run_program(images, program, options, indices=rows, ranges=ranges)
        for sample, steps in enumerate(program):
            assert_same(got[sample], wanted[sample], message=as_text(steps))
        if pool is near:
            assert num_launches() - before == 1
        else:
            assert 1 < num_launches() - before <= 1 + 2 * program.shape[1]


def test_ranges_that_have_to_come_before() -> None:
    """What decides is an image after the map, its planes, or a crop's frame."""
    program = step("Invert")[None]
    levels = AugmentOptions(dtype="uint8", round_affine=True, has_channel_shift=False)
    assert cuda_program.takes_ranges(levels, program)
    assert not cuda_program.takes_ranges(replace(levels, has_channel_shift=True), program)
    assert not cuda_program.takes_ranges(replace(levels, order=3), program)
    assert not cuda_program.takes_ranges(replace(levels, fill_mode="constant", cval=-3.0), program)
    assert not cuda_program.takes_ranges(levels, step("ResizedCrop", 0, 0, 2, 2, 4, 4)[None])


def test_ranges_that_change_nothing_cost_nothing(host: HostRun) -> None:
    """A batch at rest runs the variant without ranges, and its table is not sent."""
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), np.uint8)
    ranges = RangesFirst(identity_params(3), AugmentOptions(dtype="uint8", round_affine=True, has_channel_shift=False))
    program = step("Invert")[None].repeat(3, axis=0)
    got = cuda_program.run_program(images, program, UINT8, ranges=ranges)
    assert_same(got, numpy_program.run_program(images, program, UINT8))
    assert [dict(macros).get("HAS_KERAS") for _, macros in host.variants] == [None]
