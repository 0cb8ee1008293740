"""What `kernels.cast_arguments` lets through and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuseq import DeviceError, kernels

ARRAY = np.zeros((2, 3), np.int64)


def test_scalars_are_cast_to_the_declared_width() -> None:
    table, count = kernels.cast_arguments("resample_pass", (ARRAY, 7.0))
    assert table is ARRAY
    assert (type(count), count) == (np.int32, 7)


def test_none_is_a_null_pointer() -> None:
    null, _ = kernels.cast_arguments("resample_pass", (None, 1))
    assert (null, null.itemsize) == (0, 8)


def test_a_strided_array_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'passes' of kernel 'resample_pass' must be C-contiguous"):
        kernels.cast_arguments("resample_pass", (ARRAY[:, ::2], 1))


@pytest.mark.parametrize("arguments", [(ARRAY,), (ARRAY, 1, 2)])
def test_a_wrong_number_of_arguments_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=f"takes 2 arguments; got {len(arguments)}"):
        kernels.cast_arguments("resample_pass", arguments)


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        kernels.cast_arguments("resample_pass", (ARRAY, 2**31))


def test_a_home_that_cannot_be_written_to_is_named_with_the_remedy() -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", "/home/nobody/.cupy")

    kernel = kernels.Kernel.__new__(kernels.Kernel)
    kernel.name, kernel._function = "resample_pass", refuse
    with pytest.raises(DeviceError, match=r"resample_pass.*/home/nobody/.cupy.*CUPY_CACHE_DIR"):
        kernel.launch((1,), 1, (ARRAY, 1))
