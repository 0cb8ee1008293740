"""Frozen option values, each validated once when it is made. The layers below read them and check nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from .arguments import check_count, did_you_mean
from .arrays import ColorMode, DataFormat, FillMode, Interpolation
from .errors import ImageFileError

__all__ = [
    "READ_ARGUMENTS",
    "AugmentOptions",
    "DecodeOptions",
    "OnError",
    "ReadOptions",
    "ShiftRange",
    "Statistics",
    "TransformRanges",
    "WalkOptions",
    "check_choice",
]

OnError: TypeAlias = Literal["raise", "skip", "substitute"] | Callable[[str, ImageFileError], Any]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What `fit` found: per-channel mean and standard deviation, and the ZCA matrix.

    Attributes
    ----------
    mean, std : array or None
        Shape ``(C,)``, float32 or float64; `std` without Keras' 1e-6, which the ops add.
    whitening : array or None
        Shape ``(H*W*C, H*W*C)``; applied to images flattened in the generator's data format.
    """

    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    whitening: np.ndarray | None = None


@dataclass(frozen=True)
class AugmentOptions:
    """What one fused augment launch does to every sample, apart from the drawn parameters.

    The order is Keras': affine, channel shift, flips, brightness, `preprocessing` mode, rescale,
    samplewise centre and std, featurewise centre and std.

    Attributes
    ----------
    source_format, data_format : {"channels_last", "channels_first"}
        Axis order of the images handed in, and of the batch handed out.
    dtype : str
        Name of the output dtype. ``float64`` computes in double, everything else in float32.
    order : {0, 1}
        Spline order of the affine map; 2 to 5 never reach this value.
    conventions : {"keras", "corrected"}
        Which axis Keras' ``tx`` moves and where non-square images turn.
    has_affine, has_flip, has_channel_shift, has_brightness : bool
        False promises that no row asks for it, so a kernel may leave the code out.
    round_affine : bool
        Round (half up) and saturate to uint8 after the affine map: Keras with ``dtype="uint8"`` arrays.
    preprocessing : {None, "tf", "caffe", "torch"}
        Keras' ``imagenet_utils`` modes, fused.
    rescale : float
        Multiplier, 1.0 for none.
    """

    source_format: DataFormat = "channels_last"
    data_format: DataFormat = "channels_last"
    dtype: str = "float32"
    fill_mode: FillMode = "nearest"
    cval: float = 0.0
    order: int = 1
    conventions: Literal["keras", "corrected"] = "keras"
    has_affine: bool = True
    has_flip: bool = True
    has_channel_shift: bool = True
    has_brightness: bool = True
    round_affine: bool = False
    preprocessing: Literal["tf", "caffe", "torch"] | None = None
    rescale: float = 1.0
    samplewise_center: bool = False
    samplewise_std: bool = False
    featurewise_center: bool = False
    featurewise_std: bool = False

    @property
    def compute_dtype(self) -> np.dtype[np.floating]:
        """The dtype the arithmetic runs in: float64 for float64 output, else float32."""
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)


@dataclass(frozen=True)
class DecodeOptions:
    """How encoded files become images.

    Attributes
    ----------
    target_size : (int, int) or None
        Rows and columns after the resize; None keeps each file's own size.
    decoder : {"auto", "dali", "nvimgcodec", "pillow"}
        Who decodes; formats that it cannot decode exactly go to Pillow.
    exif_orientation : bool
        Turn the image as its EXIF tag says. Keras does not.
    max_pixels : int or None
        Refuse larger images from their header. None takes Pillow's own limit.
    num_threads : int or None
        Decoding threads; None takes all the cores this process may use.
    hw_decoder_load : float
        Share of a batch, 0 to 1, for the JPEG engine of GPUs that have one, where the GPU decodes. Its pixels differ
        slightly from those of the CUDA decoder.
    deterministic : bool
        Let the GPU's CUDA decoder do all of its share, so that a file's pixels do not depend on its place in the batch.
    """

    color_mode: ColorMode = "rgb"
    target_size: tuple[int, int] | None = None
    interpolation: Interpolation = "nearest"
    keep_aspect_ratio: bool = False
    decoder: Literal["auto", "dali", "nvimgcodec", "pillow"] = "auto"
    exif_orientation: bool = False
    max_pixels: int | None = None
    num_threads: int | None = None
    hw_decoder_load: float = 0.65
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Check what no caller has checked."""
        if not 0 <= self.hw_decoder_load <= 1:
            raise ValueError(f"hw_decoder_load must be within 0 and 1; got {self.hw_decoder_load!r}")


@dataclass(frozen=True)
class ReadOptions:
    """What the iterators over files take beyond Keras' arguments; `flow_from_directory` documents each.

    Raises
    ------
    ValueError
        If a value is not one of the accepted ones.
    """

    on_error: OnError = "raise"
    prefetch: int = 2
    cache: Literal["host", "device", "auto"] | None = None
    memory_limit: int | None = None
    decoder: Literal["auto", "dali", "nvimgcodec", "pillow"] = "auto"
    exif_orientation: bool = False
    max_pixels: int | None = None
    num_threads: int | None = None
    hw_decoder_load: float = 0.65
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Check each value."""
        if not callable(self.on_error):
            check_choice("on_error", self.on_error, ("raise", "skip", "substitute"))
        check_count("prefetch", self.prefetch, least=0, unit="batches", or_none=False)
        check_count("memory_limit", self.memory_limit, unit="bytes")
        check_count("max_pixels", self.max_pixels)
        check_count("num_threads", self.num_threads)
        check_choice("cache", self.cache, (None, "host", "auto", "device"))
        check_choice("decoder", self.decoder, ("auto", "dali", "nvimgcodec", "pillow"))


READ_ARGUMENTS = tuple(field.name for field in fields(ReadOptions))
"""Their names."""


@dataclass(frozen=True)
class ShiftRange:
    """One of Keras' two shift ranges, in the three forms that Keras takes.

    Attributes
    ----------
    choices : tuple of float or None
        An integer n stands for 0..n-1, a list for itself: one is chosen, then its sign. None: uniform in +-`limit`.
    limit : float
        Half-width of the uniform range.
    fractional : bool
        Whether the drawn value is a fraction of the image's side (every value below 1) rather than pixels.
    """

    choices: tuple[float, ...] | int | None
    limit: float
    fractional: bool

    @classmethod
    def parse(cls, name: str, value: object) -> ShiftRange | None:
        """Read a user's `width_shift_range` or `height_shift_range`; None where nothing is to be drawn.

        Raises
        ------
        ValueError
            If the value is neither a finite number nor a non-empty one-dimensional sequence of numbers.
        """
        accepted = f"`{name}` must be a float, an int or a one-dimensional sequence of numbers; got {value!r}"
        try:
            array = np.asarray(value)
        except ValueError:
            raise ValueError(accepted) from None
        if array.dtype.kind not in "biuf" or array.ndim > 1 or not np.isfinite(array).all():
            raise ValueError(accepted)
        if array.ndim == 1:
            if array.size == 0:
                return None
            return cls(tuple(array.tolist()), 0.0, bool(array.max() < 1))
        if array == 0:
            return None
        fractional = bool(array < 1)
        if array.dtype.kind in "iu" and array > 0:
            return cls(int(array), 0.0, fractional)
        return cls(None, float(array), fractional)


@dataclass(frozen=True)
class TransformRanges:
    """What may be drawn for a sample: the ranges of `ImageDataGenerator`, read and checked once.

    Attributes
    ----------
    rotation, shear : float
        Degrees; 0 draws nothing.
    height_shift, width_shift : ShiftRange or None
        None draws nothing.
    zoom : (float, float)
        ``(1, 1)`` draws nothing.
    horizontal_flip, vertical_flip : bool
        Whether the number that is always drawn for a flip has an effect.
    channel_shift : float
        0 draws nothing.
    brightness : (float, float) or None
        None draws nothing.
    """

    rotation: float = 0.0
    height_shift: ShiftRange | None = None
    width_shift: ShiftRange | None = None
    shear: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    channel_shift: float = 0.0
    brightness: tuple[float, float] | None = None

    @property
    def draws_zoom(self) -> bool:
        """Whether the zoom pair is drawn."""
        return not (self.zoom[0] == 1 and self.zoom[1] == 1)

    @property
    def has_affine(self) -> bool:
        """Whether any sample can need resampling."""
        return bool(self.rotation or self.height_shift or self.width_shift or self.shear or self.draws_zoom)


@dataclass(frozen=True)
class WalkOptions:
    """How an epoch is walked: the random mode, and this process' part of it.

    Attributes
    ----------
    rng : {"keras", "keyed"}
        Whose numbers are drawn.
    rank, world : int
        This process and how many share an epoch.
    remainder : {"pad", "drop", "exact"}
        What happens to samples that do not divide by `world`.
    """

    rng: Literal["keras", "keyed"] = "keras"
    rank: int = 0
    world: int = 1
    remainder: Literal["pad", "drop", "exact"] = "pad"

    @classmethod
    def parse(cls, rng: Any, rank: int, world: int, remainder: Any) -> WalkOptions:
        """Check a user's values.

        Raises
        ------
        ValueError
            If a value is not one of the accepted ones.
        """
        check_choice("rng", rng, ("keras", "keyed"))
        check_choice("remainder", remainder, ("pad", "drop", "exact"))
        return cls(rng, rank, world, remainder)


def check_choice(name: str, value: object, accepted: tuple[object, ...]) -> None:
    """Raise a ValueError that names the value and the accepted ones, unless `value` is one of them."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in accepted):
        listed = ", ".join(map(repr, accepted))
        raise ValueError(f"{name} must be one of {listed}; got {value!r}{did_you_mean(value, accepted)}")
