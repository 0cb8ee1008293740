"""Devices by name."""

from __future__ import annotations

import os

import pytest

from gpuseq.base.devices import keep_kernels_in_memory, ordinal_of


@pytest.mark.parametrize(("name", "ordinal"), [("cuda:0", 0), ("cuda:12", 12), ("cuda", 0)])
def test_the_number_of_a_gpu(name: str, ordinal: int) -> None:
    assert ordinal_of(name) == ordinal


@pytest.mark.parametrize("name", ["cpu", "auto", "cuda:one", "", "cpu:1"])
def test_the_number_of_what_is_no_gpu(name: str) -> None:
    with pytest.raises(ValueError, match=r"cuda:N|invalid literal"):
        ordinal_of(name)


def test_that_kernels_cannot_be_kept_is_said_once(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """And CuPy is told, in this process and its children, not to try again."""
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "0")
    for _ in range(2):
        keep_kernels_in_memory(OSError(28, "No space left on device"))
        assert os.environ["CUPY_CACHE_IN_MEMORY"] == "1"
    (warned,) = recwarn
    assert warned.category is RuntimeWarning
    assert "CuPy cannot write to its cache ([Errno 28] No space left on device)" in str(warned.message)
