"""Every variant of every kernel that the catalogue asks for, without running it."""

from __future__ import annotations

import numpy as np

from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import compile as kernels
from tests.ops.cuda.catalogue import CASES

__all__ = ["all_variants", "label"]


def all_variants() -> dict[tuple[str, kernels.Macros], str]:
    """Return (kernel, macros) -> the first case that needs it, each once."""
    variants: dict[tuple[str, kernels.Macros], str] = {}
    for name, case in CASES.items():
        variant = ops_cuda._variant(
            case.options,
            np.dtype(case.dtype),
            case.channels,
            not case.standardize_only,
            case.statistics and case.options.featurewise_center,
            case.statistics and case.options.featurewise_std,
        )
        for kernel in ("augment", "sample_range", "sample_moments"):
            macros = getattr(variant, kernel)
            if macros is not None:
                variants.setdefault((kernel, macros), name)
    for channels in (1, 2, 3, 4):
        variants.setdefault(("resample_pass", (("CHANNELS", str(channels)),)), f"resize_{channels}")
    return variants


def label(key: tuple[str, kernels.Macros]) -> str:
    """Return a test id for a variant."""
    return f"{key[0]}-{all_variants()[key]}"
