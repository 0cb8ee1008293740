"""Devices by name."""

from __future__ import annotations

import pytest

from gpuseq.base.devices import ordinal_of


@pytest.mark.parametrize(("name", "ordinal"), [("cuda:0", 0), ("cuda:12", 12), ("cuda", 0)])
def test_the_number_of_a_gpu(name: str, ordinal: int) -> None:
    assert ordinal_of(name) == ordinal


@pytest.mark.parametrize("name", ["cpu", "auto", "cuda:one", "", "cpu:1"])
def test_the_number_of_what_is_no_gpu(name: str) -> None:
    with pytest.raises(ValueError, match=r"cuda:N|invalid literal"):
        ordinal_of(name)
