"""A generator's settings: Keras' arguments checked, and what they mean to the layers below. Functions only."""

from __future__ import annotations

from inspect import Signature
from typing import Any, Protocol

import numpy as np

from gpuseq.base.arguments import check_choice, check_flag, warn
from gpuseq.base.types import Conventions, DataFormat, DTypeName, FillMode, Preprocessing, literals
from gpuseq.plan.ranges import ShiftRange, TransformRanges

__all__ = [
    "Settings",
    "check_flags",
    "check_rescale",
    "checked_brightness",
    "checked_number",
    "checked_preprocessing",
    "checked_split",
    "checked_zoom",
    "ranges_of",
    "settle",
    "text_of",
    "warn_of_conventions",
]

FLAGS = (
    "featurewise_center",
    "samplewise_center",
    "featurewise_std_normalization",
    "samplewise_std_normalization",
    "zca_whitening",
    "horizontal_flip",
    "vertical_flip",
)


class Settings(Protocol):
    """Keras' arguments as the attributes of a generator, which users read and set at any time.

    ``mean``, ``std`` and ``zca_whitening_matrix`` are what `fit` finds; users set those too.
    """

    featurewise_center: bool
    samplewise_center: bool
    featurewise_std_normalization: bool
    samplewise_std_normalization: bool
    zca_whitening: bool
    rotation_range: float
    width_shift_range: Any
    height_shift_range: Any
    brightness_range: Any
    shear_range: float
    zoom_range: Any
    channel_shift_range: float
    fill_mode: FillMode
    cval: float
    horizontal_flip: bool
    vertical_flip: bool
    rescale: float | None
    preprocessing_function: Any
    data_format: DataFormat
    interpolation_order: int
    dtype: DTypeName
    conventions: Conventions
    augmentations: Any
    mean: Any
    std: Any
    zca_whitening_matrix: Any


# What is checked when an argument is given.


def checked_number(name: str, value: Any) -> Any:
    """Return `value` if it is a finite number.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
        What the caller gave.

    Raises
    ------
    ValueError
        If it is not.
    """
    if isinstance(value, (bool, int, float, np.integer, np.floating)) and np.isfinite(value):
        return value
    remedy = ": one number n stands for -n to n" if np.ndim(value) == 1 and name.endswith("_range") else ""
    raise ValueError(f"`{name}` must be a finite number; got {value!r}{remedy}")


def checked_zoom(value: Any) -> list[float]:
    """Return the two ends of a `zoom_range`, ``1 - z`` and ``1 + z`` for one number.

    Raises
    ------
    ValueError
        If `value` is neither a number nor a pair of numbers.
    """
    if isinstance(value, (float, int, np.number)):
        # A number is a half-width about 1; Keras' order, low first.
        pair = [1 - value, 1 + value]
    elif np.ndim(value) == 1 and len(value) == 2 and all(isinstance(end, (float, int, np.number)) for end in value):
        pair = [value[0], value[1]]
    else:
        raise ValueError(f"`zoom_range` should be a float or a tuple or list of two floats. Received: {value}")
    for end in pair:
        checked_number("zoom_range", end)
    if min(pair) <= 0:
        warn(
            f"zoom_range={value!r} draws factors from {min(pair)} to {max(pair)}, and those of 0 or less turn an image "
            "inside out. 0.2 stands for 0.8 to 1.2; both ends can be given: (0.8, 1.2)"
        )
    return pair


def checked_brightness(value: Any) -> Any:
    """Return a `brightness_range` if it is None or a pair of numbers.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(
            f"`brightness_range` should be tuple or list of two floats. Received: {value}. They are factors, and 1 "
            "changes nothing: (0.8, 1.2)"
        )
    for end in value:
        checked_number("brightness_range", end)
    # A warning and no error: Keras draws from such a range as well.
    if min(value) < 0:
        warn(
            f"brightness_range={value!r} are factors, not offsets: 1 changes nothing, and those of 0 or less make "
            "an image black. For a fifth darker or brighter write (0.8, 1.2)"
        )
    return value


def checked_preprocessing(value: Any) -> Any:
    """Return a `preprocessing_function` if it is None, callable, or the name of one of Keras' modes.

    Raises
    ------
    ValueError
        If it is none of the three.
    """
    if isinstance(value, str):
        check_choice("preprocessing_function", value, literals(Preprocessing))
    elif value is not None and not callable(value):
        raise ValueError(f"preprocessing_function must be callable or one of 'tf', 'caffe', 'torch'; got {value!r}")
    return value


def checked_split(value: Any) -> Any:
    """Return a `validation_split` if it is a fraction, or nothing.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if value and not 0 < value < 1:
        # Keras' own words, its two spaces included.
        raise ValueError(f"`validation_split` must be strictly between 0 and 1.  Received: {value}")
    return value


def check_rescale(rescale: float | None, dtype: str) -> None:
    """Warn where a factor made for floats would leave nothing of batches of integers."""
    # Negative ones too: they are legal, as in Keras, and uint8 saturates at 0.
    if dtype == "uint8" and rescale and abs(rescale) <= 1 / 128:
        warn(f"rescale={rescale:.6g} leaves nothing but 0, 1 and 2 in batches of uint8: choose one of the two")


def check_flags(settings: Settings) -> None:
    """Refuse text where True or False is meant.

    Raises
    ------
    ValueError
        If a flag is text: "False" would count as true.
    """
    for name in FLAGS:
        check_flag(name, getattr(settings, name))


def settle(settings: Settings) -> None:
    """Let one option override another, in Keras' order and with Keras' warnings where that changes something."""
    # In this order: what a line sets is read by those below it.
    for cause, name, value in (
        ("zca_whitening", "featurewise_center", True),
        ("zca_whitening", "featurewise_std_normalization", False),
        ("featurewise_std_normalization", "featurewise_center", True),
        ("samplewise_std_normalization", "samplewise_center", True),
    ):
        if getattr(settings, cause) and bool(getattr(settings, name)) is not value:
            setattr(settings, name, value)
            warn(f"This ImageDataGenerator specifies `{cause}`, which overrides setting of `{name}`.")


# What the settings mean, at the moment when they are asked.


def ranges_of(settings: Settings) -> TransformRanges:
    """Return the ranges that parameters are drawn from.

    Raises
    ------
    ValueError
        If a shift range is neither a number nor a sequence of numbers.
    """
    # Python's floats: the attributes may be NumPy's, or arrays that their owner changes.
    brightness = settings.brightness_range
    return TransformRanges(
        rotation=float(settings.rotation_range),
        height_shift=ShiftRange.parse("height_shift_range", settings.height_shift_range),
        width_shift=ShiftRange.parse("width_shift_range", settings.width_shift_range),
        shear=float(settings.shear_range),
        zoom=(float(settings.zoom_range[0]), float(settings.zoom_range[1])),
        horizontal_flip=bool(settings.horizontal_flip),
        vertical_flip=bool(settings.vertical_flip),
        channel_shift=float(settings.channel_shift_range),
        brightness=brightness and (float(brightness[0]), float(brightness[1])),
    )


def text_of(generator: object, signature: Signature) -> str:
    """Return a generator as the call that makes it: what was changed, and the device.

    Parameters
    ----------
    generator : object
        With an attribute for each parameter.
    signature : inspect.Signature
        Of its constructor.
    """
    # What the constructor makes of a default.
    settled = {"zoom_range": [1, 1], "dtype": "float32", "data_format": "channels_last"}
    given = []
    for name, parameter in signature.parameters.items():
        value = getattr(generator, "_validation_split" if name == "validation_split" else name, parameter.default)
        # As arrays: a list of shifts, or a pair of factors, compares to several truths.
        unchanged = np.array_equal(np.asarray(value), np.asarray(settled.get(name, parameter.default)))
        if name not in ("self", "device") and not unchanged:
            given.append(f"{name}={value!r}")
    given.append(f"device={vars(generator)['device']!r}")
    return f"{type(generator).__name__}({', '.join(given)})"


def warn_of_conventions(settings: Settings, ranges: TransformRanges, image_size: tuple[int, int]) -> bool:
    """Warn where Keras' conventions and the arguments' names part ways, and return whether that was so.

    Parameters
    ----------
    settings : Settings
        Of a generator.
    ranges : TransformRanges
        Its ranges.
    image_size : (int, int)
        Rows and columns of the images to come.
    """
    differs = ranges.height_shift != ranges.width_shift or (ranges.has_affine and image_size[0] != image_size[1])
    if settings.conventions != "keras" or not differs:
        return False
    warn(
        'conventions="keras": as in Keras 3, height_shift_range moves columns, width_shift_range moves rows, '
        "and non-square images turn about a point off their centre (keras#17398). Pass "
        'conventions="corrected" for what the names say.'
    )
    return True
