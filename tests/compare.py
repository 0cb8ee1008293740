"""The one comparison: library, dtype, shape and device first, then values."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseq.base import devices as compat

__all__ = ["assert_same", "assert_same_structure", "place_of", "read_only", "ulp_distance"]


def place_of(array: Any) -> str:
    """Name the place an array lives in, or the type of something that is no array."""
    if isinstance(array, np.ndarray | np.generic):
        return "numpy"
    if compat.is_cupy(array):
        return f"cupy:{array.device.id}"
    return type(array).__module__.partition(".")[0] + "." + type(array).__name__


def _to_host(array: Any) -> np.ndarray:
    return array.get() if compat.is_cupy(array) else np.asarray(array)


def ulp_distance(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return how many representable numbers lie between two finite arrays of one floating dtype.

    Parameters
    ----------
    actual, expected : numpy.ndarray
        The same shape and the same dtype, float16, float32 or float64.

    Returns
    -------
    numpy.ndarray
        int64, the same shape. Zero and minus zero lie 0 apart.
    """
    unsigned = {2: np.uint16, 4: np.uint32, 8: np.uint64}[expected.dtype.itemsize]

    def ordinal(values: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(values).view(unsigned).reshape(values.shape)
        sign = unsigned(1) << unsigned(8 * expected.dtype.itemsize - 1)
        magnitude = (bits & ~sign).astype(np.int64)
        return np.where(bits & sign, -magnitude, magnitude)

    return np.abs(ordinal(actual) - ordinal(expected))


def assert_same(
    actual: Any,
    expected: Any,
    *,
    atol: float = 0.0,
    max_ulp: int = 0,
    where: str | None = None,
    may_differ: int = 0,
    message: str = "",
) -> None:
    """Fail unless `actual` is the array that `expected` is.

    Checks the library, the dtype, the shape, the device, and then the values, in that order. NaN equals NaN at the
    same place and nothing else; infinities must be equal.

    Parameters
    ----------
    actual, expected : array
        NumPy or CuPy arrays. Nothing is converted before it was checked.
    atol : float
        Largest absolute difference of a value.
    max_ulp : int
        A float within this many representable numbers passes too.
    where : {None, "numpy", "cupy:N"}
        Where `actual` has to live; None asks for the place of `expected`.
    may_differ : int
        Number of values that may lie further apart than that (0 but for known ties).
    message : str
        Put before the description of a difference.

    Raises
    ------
    AssertionError
        At the first of these checks that fails; names the worst value and its place.
    """
    prefix = f"{message}: " if message else ""
    wanted_place = where or place_of(expected)
    place = place_of(actual)
    if place.partition(":")[0] != wanted_place.partition(":")[0]:
        raise AssertionError(f"{prefix}library: got {place}, expected {wanted_place}")
    if not hasattr(actual, "dtype") or not hasattr(expected, "dtype"):
        raise AssertionError(f"{prefix}not arrays: got {type(actual)}, expected {type(expected)}")
    if actual.dtype != expected.dtype:
        raise AssertionError(f"{prefix}dtype: got {actual.dtype}, expected {expected.dtype}")
    if actual.shape != expected.shape:
        raise AssertionError(f"{prefix}shape: got {actual.shape}, expected {expected.shape}")
    if place != wanted_place:
        raise AssertionError(f"{prefix}device: got {place}, expected {wanted_place}")

    got, want = _to_host(actual), _to_host(expected)
    if want.size == 0:
        return
    if want.dtype.kind not in "fiub":
        differs = got != want
    elif want.dtype.kind == "f":
        got_nan, want_nan = np.isnan(got), np.isnan(want)
        both_finite = np.isfinite(got) & np.isfinite(want)
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.abs(got.astype(np.float64) - want.astype(np.float64))
        near = both_finite & (distance <= atol)
        if max_ulp:
            near |= both_finite & (ulp_distance(got, want) <= max_ulp)
        differs = ~(near | (got_nan & want_nan) | (got == want))
    else:
        distance = np.abs(got.astype(np.float64) - want.astype(np.float64))
        differs = (distance > atol) if atol else (got != want)

    num_differing = int(np.count_nonzero(differs))
    if num_differing <= may_differ:
        return
    if want.dtype.kind in "fiub":
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where(differs, np.abs(got.astype(np.float64) - want.astype(np.float64)), -1.0)
        error = np.where(differs & np.isnan(error), np.inf, error)
        worst = np.unravel_index(int(np.argmax(error)), error.shape)
        by = f", apart by {error[worst]:.6g} (atol {atol:g}, {max_ulp} ulp)"
    else:
        worst = np.unravel_index(int(np.argmax(differs)), differs.shape)
        by = ""
    index = tuple(int(i) for i in worst)
    raise AssertionError(
        f"{prefix}values: {num_differing} of {want.size} differ (allowed {may_differ}); "
        f"worst at {index}: got {got[worst]!r}, expected {want[worst]!r}{by}"
    )


def assert_same_structure(
    actual: Any, expected: Any, *, path: str = "batch", atol_of: Any = None, where: str | None = None
) -> None:
    """Compare nested tuples and lists of arrays: the same containers, the same lengths, the same leaves.

    Parameters
    ----------
    actual, expected : array, tuple or list
        What two iterators handed out.
    path : str
        The name of this place in messages.
    atol_of : callable(path, expected) -> float, optional
        Tolerance of a leaf; exact without it.
    where : {None, "numpy", "cupy:N"}
        As in `assert_same`; applies to every leaf.

    Raises
    ------
    AssertionError
        At the first difference.
    """
    if isinstance(expected, tuple | list):
        if type(actual) is not type(expected):
            raise AssertionError(f"{path}: got a {type(actual).__name__}, expected a {type(expected).__name__}")
        if len(actual) != len(expected):
            raise AssertionError(f"{path}: got {len(actual)} items, expected {len(expected)}")
        for position, (item, wanted) in enumerate(zip(actual, expected, strict=True)):
            assert_same_structure(item, wanted, path=f"{path}[{position}]", atol_of=atol_of, where=where)
        return
    atol = atol_of(path, expected) if atol_of is not None else 0.0
    assert_same(actual, expected, atol=atol, where=where, message=path)


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a copy of `array` that raises when it is written to: an input backend that catches in-place work.

    Parameters
    ----------
    array : numpy.ndarray
        Any shape and dtype.

    Returns
    -------
    numpy.ndarray
        A C-contiguous copy with ``flags.writeable`` False.
    """
    copy = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy
