"""The comparison itself must be able to fail, in every way it claims to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuseq.base import devices as compat
from tests.compare import assert_same, assert_same_structure, read_only, ulp_distance

ONES = np.ones((2, 3), np.float32)


def changed(value: float, dtype: Any = np.float32) -> np.ndarray:
    array = np.ones((2, 3), dtype)
    array[1, 2] = value
    return array


def test_equal_arrays_pass() -> None:
    assert_same(ONES.copy(), ONES)
    assert_same(np.array([np.nan, np.inf, -0.0]), np.array([np.nan, np.inf, 0.0]))
    assert_same(np.array(["a", "b"]), np.array(["a", "b"]))
    assert_same(np.array([True, False]), np.array([True, False]))


def test_one_ulp_fails_unless_allowed() -> None:
    near = changed(np.nextafter(np.float32(1), np.float32(2)))
    with pytest.raises(AssertionError, match=r"1 of 6 differ .* worst at \(1, 2\)"):
        assert_same(near, ONES)
    assert_same(near, ONES, max_ulp=1)


def test_one_ulp_too_far_fails() -> None:
    two = np.nextafter(np.nextafter(np.float32(1), np.float32(2)), np.float32(2))
    with pytest.raises(AssertionError, match="1 of 6 differ"):
        assert_same(changed(two), ONES, max_ulp=1)


def test_ulps_are_counted_across_zero() -> None:
    tiny = np.float32(np.nextafter(np.float32(0), np.float32(1)))
    assert ulp_distance(np.array([tiny, 0.0], np.float32), np.array([-tiny, -0.0], np.float32)).tolist() == [2, 0]
    assert ulp_distance(np.array([1.0]), np.array([np.nextafter(1.0, 0.0)])).tolist() == [1]


def test_atol_is_a_bound_that_holds() -> None:
    assert_same(changed(1.25), ONES, atol=0.25)
    with pytest.raises(AssertionError, match="apart by 0.25"):
        assert_same(changed(1.25), ONES, atol=0.24)


def test_wrong_dtype_fails() -> None:
    with pytest.raises(AssertionError, match="dtype: got float64, expected float32"):
        assert_same(ONES.astype(np.float64), ONES, atol=1e9)


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), (1, 2, 3)])
def test_wrong_shape_fails_even_where_it_broadcasts(shape: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="shape: got"):
        assert_same(ONES.reshape(shape), ONES, atol=1e9)


def test_scalar_does_not_pass_for_an_array() -> None:
    with pytest.raises(AssertionError, match="library"):
        assert_same(1.0, ONES)
    with pytest.raises(AssertionError, match="shape"):
        assert_same(np.float32(1.0), ONES)


def test_list_is_not_an_array() -> None:
    with pytest.raises(AssertionError, match=r"library: got builtins\.list, expected numpy"):
        assert_same(ONES.tolist(), ONES)


def test_empty_arrays_are_compared_by_shape() -> None:
    assert_same(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32))
    with pytest.raises(AssertionError, match="shape"):
        assert_same(np.empty((0, 3), np.float32), np.empty((3, 0), np.float32))
    with pytest.raises(AssertionError, match="shape"):
        assert_same(np.empty((0, 3), np.float32), ONES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_fails_at_any_tolerance(value: float) -> None:
    with pytest.raises(AssertionError, match="1 of 6 differ"):
        assert_same(changed(value), ONES, atol=1e30, max_ulp=10**9)
    with pytest.raises(AssertionError, match="1 of 6 differ"):
        assert_same(ONES, changed(value), atol=1e30, max_ulp=10**9)


def test_unsigned_integers_do_not_wrap() -> None:
    with pytest.raises(AssertionError, match="apart by 255"):
        assert_same(changed(255, np.uint8) * np.uint8(1), changed(0, np.uint8), atol=1)
    assert_same(changed(3, np.uint8), changed(2, np.uint8), atol=1)


def test_strings_and_booleans_fail_too() -> None:
    with pytest.raises(AssertionError, match="1 of 2 differ"):
        assert_same(np.array(["a", "b"]), np.array(["a", "c"]))
    with pytest.raises(AssertionError, match="1 of 2 differ"):
        assert_same(np.array([True, False]), np.array([True, True]))


def test_allowed_number_of_ties_is_a_bound() -> None:
    assert_same(changed(9), ONES, may_differ=1)
    two = changed(9)
    two[0, 0] = 9
    with pytest.raises(AssertionError, match="2 of 6 differ"):
        assert_same(two, ONES, may_differ=1)


class _FakeCupyArray:
    """Looks like a CuPy array on one device; no GPU is needed to ask where it lives."""

    def __init__(self, values: np.ndarray, device: int) -> None:
        self._values, self.dtype, self.shape = values, values.dtype, values.shape
        self.device = type("Device", (), {"id": device})()

    def get(self) -> np.ndarray:
        return self._values


def test_wrong_library_and_wrong_device_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "is_cupy", lambda array: isinstance(array, _FakeCupyArray))
    first, second = _FakeCupyArray(ONES, 0), _FakeCupyArray(ONES, 1)
    with pytest.raises(AssertionError, match="library: got cupy:0, expected numpy"):
        assert_same(first, ONES)
    with pytest.raises(AssertionError, match="library: got numpy, expected cupy:0"):
        assert_same(ONES, first)
    with pytest.raises(AssertionError, match="device: got cupy:1, expected cupy:0"):
        assert_same(second, first)
    assert_same(first, ONES, where="cupy:0")
    with pytest.raises(AssertionError, match="values"):
        assert_same(_FakeCupyArray(changed(2), 0), ONES, where="cupy:0")


def test_structures_are_compared_with_their_containers() -> None:
    assert_same_structure((ONES, [ONES, ONES]), (ONES, [ONES, ONES]))
    with pytest.raises(AssertionError, match="batch: got a list, expected a tuple"):
        assert_same_structure([ONES, ONES], (ONES, ONES))
    with pytest.raises(AssertionError, match="batch: got 1 items, expected 2"):
        assert_same_structure((ONES,), (ONES, ONES))
    with pytest.raises(AssertionError, match=r"batch\[1\]\[0\]: values"):
        assert_same_structure((ONES, [changed(2)]), (ONES, [ONES]))
    assert_same_structure((changed(2),), (ONES,), atol_of=lambda path, expected: 1.0)


def test_read_only_arrays_refuse_writes() -> None:
    array = read_only(ONES)
    with pytest.raises(ValueError, match="read-only"):
        array += 1
    assert_same(array, ONES)
