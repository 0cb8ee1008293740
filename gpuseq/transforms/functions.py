"""Keras' free transform functions, thin over the ops.

The ``random_*`` ones draw from NumPy's global stream, as Keras' do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpuseq.base.arguments import check_choice, checked_arguments
from gpuseq.base.devices import array_module, is_cupy, on_device
from gpuseq.base.forks import LINEAR_ALGEBRA, forks_wait
from gpuseq.base.types import Array, FillMode, literals
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import identity_params

__all__ = [
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "flip_axis",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "transform_image",
    "transform_matrix_offset_center",
]


@checked_arguments()
def flip_axis(x: Array, axis: int) -> Array:
    """Reverse an array along one axis; a view.

    Parameters
    ----------
    x : array
        Any shape, on the host or a device.
    axis : int
        Which axis.

    Raises
    ------
    ValueError
        If `x` has no such axis; NumPy's own error.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.flip_axis`` (Keras 3.15).
    """
    x = x if is_cupy(x) else np.asarray(x)
    # A view, as Keras returns.
    return x.swapaxes(axis, 0)[::-1, ...].swapaxes(0, axis)


@checked_arguments()
def transform_matrix_offset_center(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    """Make a homogeneous matrix act about the centre of an image.

    Parameters
    ----------
    matrix : numpy.ndarray
        Shape ``(3, 3)``.
    x, y : float
        Size of the image along the matrix' first and second axis, pixels.

    Returns
    -------
    numpy.ndarray
        Shape ``(3, 3)``, float64.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.transform_matrix_offset_center`` (Keras 3.15).
    """
    # Half a pixel less than half the side: the centre between the outermost pixels' centres.
    first, second = float(x) / 2 - 0.5, float(y) / 2 - 0.5
    forth = np.array([[1, 0, first], [0, 1, second], [0, 0, 1]])
    back = np.array([[1, 0, -first], [0, 1, -second], [0, 0, 1]])
    with forks_wait(LINEAR_ALGEBRA):
        centred: np.ndarray = np.dot(np.dot(forth, matrix), back)
    return centred


def transform_image(image_hwc: Array, params: np.ndarray, options: AugmentOptions) -> Array:
    """Warp, shift channels, flip and brighten one image, and return it in the dtype that Keras would.

    Parameters
    ----------
    image_hwc : array
        Shape ``(H, W, C)`` or ``(C, H, W)`` as `options.source_format` says; any real dtype.
    params : numpy.ndarray
        Shape ``(1,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.
    options : AugmentOptions
        Its dtype fields are replaced by what follows from the image.

    Returns
    -------
    array
        Same axis order. float32 after a brightness shift; else the image's own dtype, integers rounded by the warp and
        turned into float64 by a channel shift.
    """
    xp = array_module(image_hwc)
    own = image_hwc.dtype
    brightened, shifted = not np.isnan(params["brightness"][0]), not np.isnan(params["channel_shift_intensity"][0])
    small = own == np.uint8
    # The warp itself rounds to uint8 (`round_affine`); wider integers are rounded below, and double holds them exactly.
    compute = "float64" if own == np.float64 or (own.kind != "f" and not small) else "float32"
    options = replace(
        options, dtype=compute, round_affine=small, source_format="channels_last", data_format="channels_last"
    )
    # A batch of one: single images go the way of batches, so that they cannot drift apart.
    batch = image_hwc[None]
    if own not in (np.uint8, np.uint16, np.float32, np.float64):
        batch = batch.astype(compute)
    if brightened and compute == "float64":
        # Keras' result is float64 only where the values had to be stretched to 0..255 and back.
        factor, params = params["brightness"][0], params.copy()
        params["brightness"] = np.nan
        return apply_brightness_shift(ops.augment(batch, params, options)[0], factor, False)
    result = ops.augment(batch, params, options)[0]
    if brightened:
        return result
    if own.kind == "f":
        return result.astype(own, copy=False)
    # NumPy adds an integer array and a Python float to float64, and Keras hands that on.
    if shifted:
        return result.astype(np.float64)
    # Rounded in the warp already.
    if small:
        return result.astype(own)
    # SciPy rounds where it stores integers.
    bounds = np.iinfo(own)
    return xp.clip(xp.floor(result + 0.5), bounds.min, bounds.max).astype(own)


@checked_arguments()
def apply_affine_transform(
    x: Array,
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: FillMode = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> Array:
    """Apply an affine map to one image, with Keras' conventions.

    Parameters
    ----------
    x : array
        Shape ``(C, H, W)`` or as the axes say; on the host or a device.
    theta, shear : float
        Degrees.
    tx, ty : float
        Shifts in pixels. Keras moves columns by `tx` and rows by `ty`.
    zx, zy : float
        Zoom factors.
    row_axis, col_axis, channel_axis : int
        Which axis is which; channels come first or last.
    fill_mode : {"nearest", "constant", "reflect", "wrap"}
        What lies beyond the border::

            nearest   aaaa|abcd|dddd
            constant  kkkk|abcd|kkkk
            reflect   dcba|abcd|dcba
            wrap      bcda|bcd(a)|bcda  with SciPy's period of one less than the size
    cval : float
        The k of "constant".
    order : int
        Spline order, 0 to 5; above 1 needs SciPy.

    Returns
    -------
    array
        Shape, axis order and dtype of `x`, where `x` lives.

    Raises
    ------
    ValueError
        If the axes, the rank or an option is not accepted.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.apply_affine_transform`` (Keras 3.15); ``scipy.ndimage.affine_transform``.
    """
    # The messages of the axes are Keras' own.
    if len({row_axis, col_axis, channel_axis}) != 3:
        raise ValueError("'row_axis', 'col_axis', and 'channel_axis' must be distinct")
    if {row_axis, col_axis, channel_axis} != {0, 1, 2}:
        raise ValueError(f"Invalid axis' indices: { ({row_axis, col_axis, channel_axis} - {0, 1, 2}) }")
    x = x if is_cupy(x) else np.asarray(x)
    if x.ndim != 3:
        raise ValueError(f"Input arrays must be multi-channel 2D images (rank 3); got shape {x.shape}")
    if channel_axis not in (0, 2):
        raise ValueError("Channels are allowed and the first and last dimensions.")
    check_choice("fill_mode", fill_mode, literals(FillMode))
    params = identity_params(1)
    for name, value in {"theta": theta, "tx": tx, "ty": ty, "shear": shear, "zx": zx, "zy": zy}.items():
        params[name] = value
    # The ops work on channels last; a transpose is a view.
    axes = (row_axis, col_axis, channel_axis)
    options = AugmentOptions(fill_mode=fill_mode, cval=float(cval), order=order)
    with on_device(x):
        return transform_image(x.transpose(axes), params, options).transpose(np.argsort(axes))


def _affine(x: Array, rest: tuple[Any, ...], **drawn: Any) -> Array:
    """Apply drawn parameters; `rest` is what the four random functions hand on."""
    names = ("row_axis", "col_axis", "channel_axis", "fill_mode", "cval", "order")
    return apply_affine_transform(x, **drawn, **dict(zip(names, rest, strict=True)))


@checked_arguments()
def random_rotation(
    x: Array,
    rg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: FillMode = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Rotate one image by a random angle within +-`rg` degrees.

    The other arguments are those of `apply_affine_transform`. NumPy's global stream is drawn from.

    Raises
    ------
    ValueError
        As `apply_affine_transform`.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.random_rotation`` (Keras 3.15).
    """
    theta = np.random.uniform(-rg, rg)
    rest = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    return _affine(x, rest, theta=theta)


@checked_arguments()
def random_shift(
    x: Array,
    wrg: float,
    hrg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: FillMode = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Shift one image by random fractions of its width (within +-`wrg`) and height (+-`hrg`).

    The other arguments are those of `apply_affine_transform`. NumPy's global stream is drawn from.

    Raises
    ------
    ValueError
        As `apply_affine_transform`.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.random_shift`` (Keras 3.15).
    """
    # Height first, in Keras' order of draws.
    tx = np.random.uniform(-hrg, hrg) * np.shape(x)[row_axis]
    ty = np.random.uniform(-wrg, wrg) * np.shape(x)[col_axis]
    rest = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    return _affine(x, rest, tx=tx, ty=ty)


@checked_arguments()
def random_shear(
    x: Array,
    intensity: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: FillMode = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Shear one image by a random angle within +-`intensity` degrees.

    The other arguments are those of `apply_affine_transform`. NumPy's global stream is drawn from.

    Raises
    ------
    ValueError
        As `apply_affine_transform`.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.random_shear`` (Keras 3.15).
    """
    shear = np.random.uniform(-intensity, intensity)
    rest = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    return _affine(x, rest, shear=shear)


@checked_arguments()
def random_zoom(
    x: Array,
    zoom_range: tuple[float, float],
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: FillMode = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Zoom one image by two random factors from `zoom_range`, ``(low, high)``.

    The other arguments are those of `apply_affine_transform`. NumPy's global stream is drawn from.

    Raises
    ------
    ValueError
        If the range is not a pair; and as `apply_affine_transform`.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.random_zoom`` (Keras 3.15).
    """
    if np.ndim(zoom_range) != 1 or len(zoom_range) != 2:
        raise ValueError(f"`zoom_range` should be a tuple or list of two floats. Received: {zoom_range}")
    # At (1, 1) Keras takes nothing from the stream.
    zx, zy = 1.0, 1.0
    if not (zoom_range[0] == 1 and zoom_range[1] == 1):
        zx, zy = np.random.uniform(zoom_range[0], zoom_range[1], 2)
    rest = (row_axis, col_axis, channel_axis, fill_mode, cval, interpolation_order)
    return _affine(x, rest, zx=zx, zy=zy)


@checked_arguments()
def apply_channel_shift(x: Array, intensity: float, channel_axis: int = 0) -> Array:
    """Add `intensity` to an image, clipped to the image's own smallest and largest value.

    Parameters
    ----------
    x : array
        One image, rank 3.
    intensity : float
        What to add.
    channel_axis : int
        Kept from Keras; all channels are shifted alike.

    Returns
    -------
    array
        Shape of `x`; integers become float64.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.apply_channel_shift`` (Keras 3.15).
    """
    with on_device(x):
        # Of all channels together: Keras takes the extremes of the whole image.
        return array_module(x).clip(x + intensity, x.min(), x.max())


@checked_arguments()
def random_channel_shift(x: Array, intensity_range: float, channel_axis: int = 0) -> Array:
    """Shift an image's channels by a random value within +-`intensity_range`; see `apply_channel_shift`.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.random_channel_shift`` (Keras 3.15).
    """
    return apply_channel_shift(x, np.random.uniform(-intensity_range, intensity_range), channel_axis=channel_axis)


@checked_arguments()
def apply_brightness_shift(x: Array, brightness: float, scale: bool = True) -> Array:
    """Scale an image's colours through Pillow's 8-bit blend with black.

    Parameters
    ----------
    x : array
        One image, shape ``(H, W, C)``; a fourth channel is alpha and stays.
    brightness : float
        0 is black, 1 changes nothing but the rounding to 8 bit.
    scale : bool
        Stretch the image to 0..255 first, and leave it so. False stretches only images with values outside 0..255, and
        undoes it.

    Returns
    -------
    array
        Shape of `x`, float32 (float64 where a stretched float64 image is turned back), where `x` lives.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.apply_brightness_shift`` (Keras 3.15); ``PIL.ImageEnhance.Brightness``.
    """
    with on_device(x):
        return _brightened(x, brightness, scale)


def _brightened(x: Array, brightness: float, scale: bool) -> Array:
    xp = array_module(x)
    image = xp.asarray(x, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    if scale:
        image = image.astype(np.float32)
        image = image - image.min()
        top = image.max()
        # Without a branch on the device's value, which the host would have to wait for: a constant image stays 0.
        image = xp.where(top != 0, image / xp.where(top != 0, top, 1), image) * 255
    params = identity_params(1)
    params["brightness"] = brightness
    options = AugmentOptions(dtype=image.dtype.name, has_affine=False, has_flip=False, has_channel_shift=False)
    result = ops.augment(image[None], params, options)[0]
    # This look at the values waits for the device; Keras' result has another dtype there.
    stretched = not scale and bool((image.min() < 0) | (image.max() > 255))
    return result if stretched else result.astype(np.float32, copy=False)


@checked_arguments()
def random_brightness(x: Array, brightness_range: tuple[float, float], scale: bool = True) -> Array:
    """Brighten an image by a random factor from `brightness_range`; see `apply_brightness_shift`.

    Raises
    ------
    ValueError
        If the range is not a pair.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.random_brightness`` (Keras 3.15).
    """
    if np.ndim(brightness_range) != 1 or len(brightness_range) != 2:
        raise ValueError(f"`brightness_range` should be tuple or list of two floats. Received: {brightness_range}")
    return apply_brightness_shift(x, np.random.uniform(brightness_range[0], brightness_range[1]), scale)
