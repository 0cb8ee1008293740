"""Every variant of every kernel that the catalogue asks for, without running it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import compile as kernels
from tests.ops.cuda.catalogue import CASES

__all__ = ["all_variants", "cut", "label"]


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


def cut(
    patch: pytest.MonkeyPatch,
    *,
    block: int,
    tile_cols: int,
    across: int,
    rows_per_band: int | None,
    grid: tuple[int, ...] | None = None,
) -> None:
    """Let `augment` cut every batch in one way: blocks of so many threads, bands of so many rows or whole images."""
    original = ops_cuda._variant

    def geometry(num_samples: int, height: int, width: int, tile_cols: int, has_range: bool) -> Any:
        rows = rows_per_band or height
        num_bands = -(-height // rows)
        return ops_cuda._Geometry(grid or (num_bands, num_samples), block, across, rows, num_bands)

    def variant(*arguments: Any) -> Any:
        found = original(*arguments)
        of_kernels = {
            name: tuple((macro, str(tile_cols) if macro == "TILE_COLS" else value) for macro, value in macros)
            for name in ("augment", "sample_range", "sample_moments")
            if (macros := getattr(found, name)) is not None
        }
        return replace(found, tile_cols=tile_cols, **of_kernels)

    patch.setattr(ops_cuda, "_geometry", geometry)
    patch.setattr(ops_cuda, "_variant", variant)
