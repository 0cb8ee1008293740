"""Arguments that are accepted in one place and not in another."""

from __future__ import annotations

import pytest

from gpuseq.base.arguments import checked_dtype


def test_bfloat16_is_a_dtype_of_gpus_alone() -> None:
    assert checked_dtype("bfloat16", "cuda:1") == "bfloat16"
    with pytest.raises(ValueError, match=r"dtype must be one of (?!.*bfloat16.*on 'cpu').*float32.* on 'cpu'; got 'bf"):
        checked_dtype("bfloat16", "cpu")
