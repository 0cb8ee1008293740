"""A generator's settings: Keras' arguments, checked when given, and what they mean to the layers below."""

from __future__ import annotations

import logging
from collections.abc import Callable
from inspect import signature
from typing import Any, cast

import numpy as np

from gpuseq.base.arguments import check_choice, check_flag, checked_arguments, checked_data_format, checked_dtype, warn
from gpuseq.base.devices import is_cupy, resolve_device
from gpuseq.base.types import DataFormat, FillMode, literals
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.ranges import ShiftRange, TransformRanges

__all__ = ["GeneratorSettings"]

logger = logging.getLogger("gpuseq")

PREPROCESSING_MODES = ("tf", "caffe", "torch")
FLAGS = (
    "featurewise_center",
    "samplewise_center",
    "featurewise_std_normalization",
    "samplewise_std_normalization",
    "zca_whitening",
    "horizontal_flip",
    "vertical_flip",
)


class GeneratorSettings:
    """The arguments of `~gpuseq.ImageDataGenerator` as attributes, as Keras has them, and their derived values.

    Attributes may be set, and lists and arrays among them changed in place, at any time, as with Keras: what follows
    from them is worked out anew at the next batch.
    """

    @checked_arguments()
    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Any = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Any], Any] | str | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
        *,
        device: str = "auto",
        rng: str = "keras",
        conventions: str = "keras",
        augmentations: Any = None,
    ) -> None:
        self.device = resolve_device(device)
        logger.info("device=%r: batches are made on %s", device, self.device)
        check_choice("rng", rng, ("keras", "keyed"))
        check_choice("conventions", conventions, ("keras", "corrected"))
        check_choice("fill_mode", fill_mode, literals(FillMode))
        check_choice("interpolation_order", interpolation_order, tuple(range(6)))
        if isinstance(preprocessing_function, str):
            check_choice("preprocessing_function", preprocessing_function, PREPROCESSING_MODES)
        elif preprocessing_function is not None and not callable(preprocessing_function):
            raise ValueError(
                "preprocessing_function must be callable or one of 'tf', 'caffe', 'torch'; "
                f"got {preprocessing_function!r}"
            )
        self.augmentations = augmentations
        _ = self.recipe  # what they cannot be fails here
        self.rng = rng
        self.conventions = conventions
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = _number("rotation_range", rotation_range)
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = _number("shear_range", shear_range)
        self.zoom_range = _zoom(zoom_range)
        self.channel_shift_range = _number("channel_shift_range", channel_shift_range)
        self.fill_mode = fill_mode
        self.cval = _number("cval", cval)
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = None if rescale is None else _number("rescale", rescale)
        self.preprocessing_function = preprocessing_function
        self.dtype = checked_dtype(dtype, self.device)
        if self.dtype == "uint8" and rescale and 0 < rescale <= 1 / 128:
            warn(f"rescale={rescale:.6g} leaves nothing but 0, 1 and 2 in batches of uint8: choose one of the two")
        self.interpolation_order = int(interpolation_order)
        self.data_format = checked_data_format(data_format)
        last = self.data_format == "channels_last"
        self.channel_axis, self.row_axis, self.col_axis = (3, 1, 2) if last else (1, 2, 3)
        if validation_split and not 0 < validation_split < 1:
            raise ValueError(f"`validation_split` must be strictly between 0 and 1.  Received: {validation_split}")
        self._validation_split = validation_split
        self.mean: Any = None
        self.std: Any = None
        self.zca_whitening_matrix: Any = None
        self.brightness_range = _brightness(brightness_range)
        self._settle("zca_whitening", "featurewise_center", True)
        self._settle("zca_whitening", "featurewise_std_normalization", False)
        self._settle("featurewise_std_normalization", "featurewise_center", True)
        self._settle("samplewise_std_normalization", "samplewise_center", True)
        for name in FLAGS:
            check_flag(name, getattr(self, name))
        _ = self.transform_ranges  # bad shift ranges fail here

    def _settle(self, cause: str, name: str, value: bool) -> None:
        """Let one option override another, with Keras' warning where that changes something."""
        if getattr(self, cause) and bool(getattr(self, name)) is not value:
            setattr(self, name, value)
            warn(f"This ImageDataGenerator specifies `{cause}`, which overrides setting of `{name}`.")

    def __setattr__(self, name: str, value: Any) -> None:
        # What was derived from the attributes is derived anew: Keras reads them at every batch.
        object.__setattr__(self, name, value)
        self.__dict__.pop("_derived", None)

    def _derive(self, name: Any, make: Callable[[], Any], content: Any = None) -> Any:
        """Return what `make` gives, made once for as long as no attribute is set and `content` stays equal."""
        derived = self.__dict__.setdefault("_derived", {})
        known = derived.get(name)
        if known is None or known[0] != content:
            known = derived[name] = (content, make())
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_derived"}

    # What the arguments mean to the layers below.

    @property
    def transform_ranges(self) -> TransformRanges:
        """The ranges that parameters are drawn from."""
        content = (
            _content(self.zoom_range),
            _content(self.width_shift_range),
            _content(self.height_shift_range),
            _content(self.brightness_range),
        )
        ranges: TransformRanges = self._derive("ranges", self._make_ranges, content)
        return ranges

    def _make_ranges(self) -> TransformRanges:
        return TransformRanges(
            rotation=float(self.rotation_range),
            height_shift=ShiftRange.parse("height_shift_range", self.height_shift_range),
            width_shift=ShiftRange.parse("width_shift_range", self.width_shift_range),
            shear=float(self.shear_range),
            zoom=(float(self.zoom_range[0]), float(self.zoom_range[1])),
            horizontal_flip=bool(self.horizontal_flip),
            vertical_flip=bool(self.vertical_flip),
            channel_shift=float(self.channel_shift_range),
            brightness=self.brightness_range and tuple(float(end) for end in self.brightness_range),
        )

    @property
    def recipe(self) -> Recipe | None:
        """The augmentations that programs are drawn from, None without any."""
        recipe: Recipe | None = self._derive(
            "recipe", lambda: Recipe.parse("augmentations", self.augmentations), _content(self.augmentations)
        )
        return recipe

    def _options(
        self, source_format: str, data_format: str, dtype: str, round_affine: bool, asked: tuple[bool, bool, bool, bool]
    ) -> AugmentOptions:
        def make() -> AugmentOptions:
            mode = self.preprocessing_function
            return AugmentOptions(
                source_format=cast(DataFormat, source_format),
                data_format=cast(DataFormat, data_format),
                dtype=dtype,
                fill_mode=cast(FillMode, self.fill_mode),
                cval=float(self.cval),
                order=self.interpolation_order,
                conventions=cast(Any, self.conventions),
                has_affine=asked[0],
                has_flip=asked[1],
                has_channel_shift=asked[2],
                has_brightness=asked[3],
                round_affine=round_affine,
                preprocessing=cast(Any, mode) if isinstance(mode, str) else None,
                rescale=float(self.rescale) if self.rescale else 1.0,
                samplewise_center=bool(self.samplewise_center),
                samplewise_std=bool(self.samplewise_std_normalization),
                featurewise_center=bool(self.featurewise_center) and self.mean is not None,
                featurewise_std=bool(self.featurewise_std_normalization) and self.std is not None,
            )

        key = ("options", source_format, data_format, dtype, round_affine, asked)
        options: AugmentOptions = self._derive(key, make)
        return options

    def _statistics(self, num_channels: int, data_format: str) -> Statistics | None:
        """Per-channel statistics; None where the user's own mean or std is not one number per channel."""

        def per_channel(values: Any) -> np.ndarray | None:
            if values is None:
                return None
            values = np.asarray(values.get() if is_cupy(values) else values)
            if values.ndim == 0:
                return np.full(num_channels, values)
            axis = values.ndim - 1 if data_format == "channels_last" else values.ndim - 3
            flat = values.reshape(-1)
            if axis < 0 or values.shape[axis] != values.size or values.size not in (1, num_channels):
                raise ValueError
            return np.broadcast_to(flat, num_channels).copy()

        def make() -> Statistics | None:
            try:
                return Statistics(per_channel(self.mean), per_channel(self.std), self.zca_whitening_matrix)
            except ValueError:
                return None

        content = (_content(self.mean), _content(self.std))
        statistics: Statistics | None = self._derive(("statistics", num_channels, data_format), make, content)
        return statistics

    def check_conventions(self, image_size: tuple[int, int]) -> None:
        """Warn, once per generator, where Keras' conventions and the arguments' names part ways.

        Parameters
        ----------
        image_size : (int, int)
            Rows and columns of the images to come.
        """
        ranges = self.transform_ranges
        differs = ranges.height_shift != ranges.width_shift or (ranges.has_affine and image_size[0] != image_size[1])
        if self.conventions == "keras" and differs and not self.__dict__.get("_told_conventions"):
            self._told_conventions = True
            warn(
                'conventions="keras": as in Keras 3, height_shift_range moves columns, width_shift_range moves rows, '
                "and non-square images turn about a point off their centre (keras#17398). Pass "
                'conventions="corrected" for what the names say.'
            )

    def __repr__(self) -> str:
        changed = []
        for name, parameter in signature(GeneratorSettings.__init__).parameters.items():
            value = self._validation_split if name == "validation_split" else getattr(self, name, parameter.default)
            default = {"zoom_range": [1, 1], "dtype": "float32", "data_format": "channels_last"}.get(
                name, parameter.default
            )
            if name not in ("self", "device") and not np.array_equal(np.asarray(value), np.asarray(default)):
                changed.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join([*changed, f'device={self.device!r}'])})"


def _content(value: Any) -> Any:
    """Return what differs once `value` is changed in place, as cheaply as that can be had at every batch.

    Of an array of one number per pixel it is the shape, the only thing that anything is derived from. One on a GPU is
    told by itself: its values are not looked at.
    """
    if value is None or type(value) is float or type(value) is int:
        return value
    if isinstance(value, (list, tuple)):
        nested = value and isinstance(value[0], (list, tuple, np.ndarray))
        return tuple([_content(item) for item in value]) if nested else tuple(value)
    if isinstance(value, np.ndarray):
        shape, size = value.shape, value.size
        return shape, value.dtype, value.tobytes() if size < 16 or size == max(shape) else None
    return value if type(value).__hash__ is not None else id(value)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, (bool, int, float, np.integer, np.floating)) and np.isfinite(value):
        return value
    remedy = ": one number n stands for -n to n" if np.ndim(value) == 1 and name.endswith("_range") else ""
    raise ValueError(f"`{name}` must be a finite number; got {value!r}{remedy}")


def _zoom(value: Any) -> list[float]:
    if isinstance(value, (float, int, np.number)):
        pair = [1 - value, 1 + value]
    elif np.ndim(value) == 1 and len(value) == 2 and all(isinstance(end, (float, int, np.number)) for end in value):
        pair = [value[0], value[1]]
    else:
        raise ValueError(f"`zoom_range` should be a float or a tuple or list of two floats. Received: {value}")
    for end in pair:
        _number("zoom_range", end)
    if min(pair) <= 0:
        warn(
            f"zoom_range={value!r} draws factors from {min(pair)} to {max(pair)}, and those of 0 or less turn an image "
            "inside out. 0.2 stands for 0.8 to 1.2; both ends can be given: (0.8, 1.2)"
        )
    return pair


def _brightness(value: Any) -> Any:
    if value is not None:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(
                f"`brightness_range` should be tuple or list of two floats. Received: {value}. They are factors, and 1 "
                "changes nothing: (0.8, 1.2)"
            )
        for end in value:
            _number("brightness_range", end)
        if min(value) < 0:
            warn(
                f"brightness_range={value!r} are factors, not offsets: 1 changes nothing, and those of 0 or less make "
                "an image black. For a fifth darker or brighter write (0.8, 1.2)"
            )
    return value
