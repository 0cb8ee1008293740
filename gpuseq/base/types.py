"""Names for arrays, axis orders and modes, shared by every layer. Imports NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np

__all__ = [
    "COLOR_CHANNELS",
    "Array",
    "BatchArray",
    "BatchDType",
    "Cache",
    "ClassMode",
    "ColorMode",
    "Conventions",
    "DTypeName",
    "DataFormat",
    "DecoderChoice",
    "Device",
    "FactorRange",
    "FillMode",
    "FrameClassMode",
    "Interpolation",
    "Labels",
    "Preprocessing",
    "Remainder",
    "Rng",
    "Shard",
    "ShiftRange",
    "Size",
    "Subset",
    "Weights",
    "ZoomRange",
    "literals",
]

Array: TypeAlias = Any
"""A NumPy or CuPy array. Where only one is meant the annotation says ``np.ndarray``."""

SameArray = TypeVar("SameArray")
"""An array of any library, for what returns another one of the same."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar as _TypeVar  # with a default; type checkers bring it along

    # Covariant, because what an iterator was asked for is a union of what its arguments were: see `Iterator.__next__`.
    Labels = _TypeVar("Labels", default=Any, covariant=True)
    Weights = _TypeVar("Weights", default=Any, covariant=True)

    class BatchArray(np.ndarray[Any, np.dtype[Any]]):
        """An array of NumPy or, where batches are made on a GPU, of CuPy, which has NumPy's names and these."""

        def get(self, stream: Any = None, order: str = "C", out: Any = None) -> np.ndarray:
            """Return a copy on the host."""
else:
    Labels = TypeVar("Labels", covariant=True)
    Weights = TypeVar("Weights", covariant=True)
    BatchArray = np.ndarray  # for annotations alone: no array is made of it or tested for it
"""Of an iterator: what stands beside its images as labels and as weights, None for none. `next` follows from both."""

DataFormat: TypeAlias = Literal["channels_last", "channels_first"]
FillMode: TypeAlias = Literal["nearest", "constant", "reflect", "wrap"]
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
ColorMode: TypeAlias = Literal["rgb", "rgba", "grayscale"]
ClassMode: TypeAlias = Literal["categorical", "binary", "sparse", "input"]
FrameClassMode: TypeAlias = Literal[ClassMode, "multi_output", "raw"]
Subset: TypeAlias = Literal["training", "validation"]
Cache: TypeAlias = Literal["host", "device", "auto"]
DecoderChoice: TypeAlias = Literal["auto", "dali", "nvimgcodec", "pillow", "simplejpeg"]
Rng: TypeAlias = Literal["keras", "keyed"]
Conventions: TypeAlias = Literal["keras", "corrected"]
Preprocessing: TypeAlias = Literal["tf", "caffe", "torch"]
Remainder: TypeAlias = Literal["pad", "drop", "exact"]
Shard: TypeAlias = tuple[int, int] | Literal["auto"]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1"] | str
"""Any string to a type checker, because most are computed, f"cuda:{rank}"; an editor offers the literals."""

DTypeName: TypeAlias = Literal["float32", "float16", "bfloat16", "float64", "uint8"]
BatchDType: TypeAlias = DTypeName | np.dtype[Any] | type[np.generic]
"""Of batches: a name, or what NumPy makes a dtype of."""

ShiftRange: TypeAlias = float | Sequence[float] | np.ndarray
"""A fraction, a number of pixels, or the pixels to choose from."""

ZoomRange: TypeAlias = float | tuple[float, float] | list[float] | np.ndarray
FactorRange: TypeAlias = tuple[float, float] | list[float] | np.ndarray
"""Lowest and highest factor."""

Size: TypeAlias = tuple[int, int] | list[int]
"""Rows and columns."""

COLOR_CHANNELS: dict[str, int] = {"rgb": 3, "rgba": 4, "grayscale": 1}


def literals(alias: Any) -> tuple[str, ...]:
    """Return the accepted strings of a ``Literal`` alias, for checks and messages."""
    return get_args(alias)
