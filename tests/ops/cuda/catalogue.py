"""The cases that every engine runs: on the CPU under the shim, under the sanitizers, through NVRTC, and on a GPU.

Each axis is varied around one everyday case (8-bit RGB, channels last, float32), because a variant of a kernel costs a
compilation; the sizes, which are arguments, are all run for each variant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from gpuseq.ops.options import AugmentOptions, Statistics
from tests.cases import FILL_MODES, SHAPES, draw_params, identity, images, transposed

__all__ = ["CASES", "MOVES", "Case", "Run", "sums_on_the_edge"]

PLAIN = AugmentOptions(has_channel_shift=False, has_brightness=False)

MOVES: dict[str, dict[str, float]] = {
    "quarter": {"theta": 90.0},
    "half": {"theta": 180.0},
    "three_quarters": {"theta": -270.0},
    "one_row": {"tx": 1.0},
    "two_cols": {"ty": -2.0},
    "half_pixel": {"tx": 0.5, "ty": 0.5},
    "far": {"tx": 1000.0},
    "farther_than_int32": {"ty": -1e12},
    "halved": {"zx": 0.5, "zy": 0.5},
    "doubled": {"zx": 2.0, "zy": 2.0},
    "mirrored": {"zx": -1.0},
    "magnified": {"zx": 1e-3, "zy": 1e-3},
    "shrunk": {"zx": 50.0},
    "slanted": {"shear": 45.0},
    "squeezed": {"shear": 89.9},
}
"""Quarter turns, half pixels and far shifts put coordinates exactly on borders and ties."""


@dataclass(frozen=True)
class Run:
    """The inputs of one call, on the host."""

    label: str
    images: np.ndarray
    params: np.ndarray
    indices: np.ndarray | None = None
    statistics: Statistics | None = None


@dataclass(frozen=True)
class Case:
    """One variant of the kernels and the shapes it is run over.

    Attributes
    ----------
    exact : bool
        Whether SciPy, Pillow and plain NumPy are met to the last bit: no double output, no mean, no constant of a mode.
    moves : bool
        Whether the tie and border moves are run instead of random parameters.
    """

    name: str
    options: AugmentOptions = PLAIN
    dtype: str = "uint8"
    channels: int = 3
    moves: bool = False
    exact: bool = True
    standardize_only: bool = False
    statistics: bool = False
    gather: bool = False
    shapes: tuple[str, ...] = field(default=())

    def runs(self, num_seeds: int = 2) -> Iterator[Run]:
        """Yield the inputs of this case, the same at each call."""
        for name, (num_samples, height, width, _) in SHAPES.items():
            if self.shapes and name not in self.shapes:
                continue
            num_samples = len(MOVES) if self.moves else num_samples
            for seed in range(1 if self.moves else num_seeds):
                num_rows = num_samples + 2 if self.gather else num_samples
                batch = images((num_rows, height, width, self.channels), self.dtype, seed=seed)
                if self.options.source_format == "channels_first":
                    batch = transposed(batch)
                if self.moves:
                    params = identity(num_samples)
                    for row, move in zip(params, MOVES.values(), strict=True):
                        for parameter, value in move.items():
                            row[parameter] = value
                else:
                    params = draw_params(num_samples, height, width, seed=seed, colour=True)
                indices = np.random.default_rng(seed).integers(0, num_rows, num_samples) if self.gather else None
                yield Run(f"{self.name}/{name}/{seed}", batch, params, indices, self._statistics(seed))

    def _statistics(self, seed: int) -> Statistics | None:
        if not self.statistics:
            return None
        rng = np.random.default_rng([7, seed])
        mean, std = rng.uniform(50, 200, (2, self.channels)).astype(np.float32)
        return Statistics(mean=mean, std=std)


def _cases() -> Iterator[Case]:
    few = ("one_pixel", "one_row", "primes", "primes_wide", "square")
    for order in (0, 1):
        for fill_mode in FILL_MODES:
            options = replace(PLAIN, order=order, fill_mode=fill_mode, cval=-7.5)
            yield Case(f"affine_{order}_{fill_mode}", options)
            yield Case(f"moves_{order}_{fill_mode}", options, "float32", 2, moves=True, shapes=few)
    for fill_mode in FILL_MODES:  # borders of bytes that are read in words: not those of an array's last image
        options = replace(PLAIN, fill_mode=fill_mode, cval=-7.5)
        yield Case(f"moves_words_{fill_mode}", options, moves=True, gather=True, shapes=few)
    yield Case("moves_words_4", replace(PLAIN, fill_mode="reflect"), channels=4, moves=True, gather=True, shapes=few)
    for dtype, out, fill_mode in (
        ("uint16", "float32", "reflect"),
        ("float32", "float32", "constant"),
        ("float64", "float32", "wrap"),
        ("float64", "float64", "reflect"),
        ("uint8", "float64", "nearest"),
    ):
        options = replace(PLAIN, dtype=out, fill_mode=fill_mode, cval=3.0)
        channels = 1 if dtype == "uint16" else 3
        yield Case(f"source_{dtype}_{out}", options, dtype, channels, exact=out == "float32")
    for dtype in ("float16", "bfloat16", "uint8"):
        yield Case(f"out_{dtype}", replace(PLAIN, dtype=dtype))
        yield Case(f"out_{dtype}_first", replace(PLAIN, dtype=dtype, data_format="channels_first"), shapes=few)
    for channels in (1, 2, 4, 8, 19):
        yield Case(f"channels_{channels}", replace(PLAIN, fill_mode="reflect"), channels=channels)
    for source in ("channels_last", "channels_first"):
        for target in ("channels_last", "channels_first"):
            options = replace(PLAIN, source_format=source, data_format=target, fill_mode="reflect")  # type: ignore[arg-type]
            yield Case(f"layout_{source[9:]}_{target[9:]}", options, gather=True)
            yield Case(f"layout_{source[9:]}_{target[9:]}_19", options, channels=19, shapes=few)
    for order, fill_mode in ((0, "wrap"), (1, "constant"), (1, "nearest")):
        options = replace(PLAIN, dtype="uint8", round_affine=True, order=order, fill_mode=fill_mode, cval=200.0)
        yield Case(f"rounded_{order}_{fill_mode}", options)
    yield Case("corrected", replace(PLAIN, conventions="corrected", fill_mode="reflect"))
    yield Case("flips_only", replace(PLAIN, has_affine=False), gather=True)
    yield Case("copy", replace(PLAIN, has_affine=False, has_flip=False), gather=True)
    yield from _colour_cases(few)


def _colour_cases(few: tuple[str, ...]) -> Iterator[Case]:
    shift, bright = replace(PLAIN, has_channel_shift=True), replace(PLAIN, has_brightness=True)
    both = AugmentOptions()
    yield Case("shift", shift)
    yield Case("brightness", bright)
    yield Case("brightness_outside", replace(bright, fill_mode="constant", cval=-20.0))
    yield Case("brightness_stretched", bright, "float32")
    yield Case("brightness_rgba", bright, "float32", 4, shapes=few)
    yield Case("brightness_grey", replace(both, has_affine=False), "float32", 1)
    yield Case("both_double", replace(both, dtype="float64"), "float32", exact=False)
    half = replace(both, dtype="float16", data_format="channels_first", rescale=1 / 512)
    yield Case("both_half", half, "uint16")
    for mode in ("tf", "caffe", "torch"):
        yield Case(f"mode_{mode}", replace(PLAIN, preprocessing=mode, has_affine=False), exact=mode == "tf")  # type: ignore[arg-type]
    caffe = replace(bright, preprocessing="caffe", data_format="channels_first", rescale=0.5)
    yield Case("mode_caffe_first", caffe, exact=False)
    yield Case("rescale", replace(PLAIN, rescale=1 / 255))
    yield Case("rescale_double", replace(PLAIN, rescale=1 / 255, dtype="float64", has_affine=False), "float64")
    yield Case("featurewise", replace(PLAIN, featurewise_center=True, featurewise_std=True), statistics=True)
    yield Case("featurewise_unfitted", replace(PLAIN, featurewise_center=True, featurewise_std=True), shapes=few)
    samplewise = replace(both, samplewise_center=True, samplewise_std=True, rescale=1 / 255)
    yield Case("samplewise", samplewise, exact=False)
    yield Case("samplewise_mean", replace(PLAIN, samplewise_center=True), exact=False)
    yield Case(
        "everything",
        replace(
            samplewise, featurewise_center=True, featurewise_std=True, preprocessing="tf", data_format="channels_first"
        ),
        "float32",
        statistics=True,
        exact=False,
    )
    yield Case("standardize", replace(samplewise, preprocessing="caffe"), "float32", standardize_only=True, exact=False)
    yield Case(
        "standardize_double",
        replace(PLAIN, dtype="float64", featurewise_center=True, data_format="channels_first"),
        "float64",
        standardize_only=True,
        statistics=True,
    )


CASES: dict[str, Case] = {case.name: case for case in _cases()}


def sums_on_the_edge(num_samples: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images of 3 x 3, parameters, and the middles of two floats, to which the images' middle pixels come near.

    The pixel in the middle of each sample is put, by its shift, within a few last bits of the middle of two floats:
    there alone the order of a sum shows in a float. One channel of a sample is so, and the others are black.
    """
    rng = np.random.default_rng(11)
    batch = rng.integers(1, 256, (num_samples, 3, 3, 1), dtype=np.uint8)
    row_fraction, col_fraction = rng.uniform(0.2, 0.8, (2, num_samples))
    left, right = batch[:, 1:, 1, 0].astype(np.float64).T, batch[:, 1:, 2, 0].astype(np.float64).T
    upper, lower = left + col_fraction * (right - left)
    near = (0.7 * upper + 0.3 * lower).astype(np.float32)
    middle = (near.astype(np.float64) + np.nextafter(near, np.float32(1e9))) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        solved = (middle - upper) / (lower - upper)
    row_fraction = np.where(np.isfinite(solved) & (solved > 0) & (solved < 1), solved, row_fraction)
    params = identity(num_samples)
    params["tx"], params["ty"] = col_fraction, row_fraction  # Keras' names move the other axis
    spread = np.zeros((num_samples, 3, 3, channels), np.uint8)
    samples = np.arange(num_samples)
    spread[samples, :, :, samples % channels] = batch[..., 0]
    return spread, params, middle
