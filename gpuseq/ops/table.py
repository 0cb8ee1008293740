"""What compiled engines share with their launchers: the table of a batch, the numbers of names, and what comes first.

The table has a row of doubles per sample: the drawn columns first, then what the host adds.

`TableColumn` in ``kernels/geometry.cuh`` names the same columns for C++. `layout_check` is pasted behind it, so that a
column which stands elsewhere in the two is an error of the compiler and no wrong picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseq.plan.columns import COLUMNS

from .options import AugmentOptions

__all__ = [
    "FILL_MODES",
    "NUM_COLUMNS",
    "OUT_KINDS",
    "PREPROCESSING",
    "TABLE",
    "fill_table",
    "layout_check",
    "needs_range",
    "table_of",
]


# The numbers of OUT_..., FILL_... and PREPROCESS in kernels/common.cuh.
OUT_KINDS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3, "uint8": 4}
FILL_MODES = {"nearest": 0, "constant": 1, "reflect": 2, "wrap": 3}
PREPROCESSING = {None: 0, "tf": 1, "caffe": 2, "torch": 3}


def table_of(drawn: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns of the table, in order.

    Parameters
    ----------
    drawn : tuple of str
        Symbols of the drawn columns.
    """
    return (*drawn, "cos_theta", "sin_theta", "cos_shear", "sin_shear", "source_index")


TABLE = table_of(tuple(column.symbol for column in COLUMNS))
NUM_COLUMNS = -(-len(TABLE) // 4) * 4
"""Doubles per sample, padded to whole sectors of the device's memory, 32 bytes each."""

_SOURCE_INDEX = TABLE.index("source_index")
_ANGLES = tuple((COLUMNS.names.index(name), TABLE.index(f"cos_{name}")) for name in ("theta", "shear"))
"""Where the angles are among the drawn columns, and where their cosines are in the table: the sines come next."""


def fill_table(rows: np.ndarray, params: np.ndarray, indices: np.ndarray | None) -> None:
    """Write the table of a batch.

    Parameters
    ----------
    rows : numpy.ndarray
        Shape ``(N, NUM_COLUMNS)``, float64, uninitialised; written to.
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.
    indices : numpy.ndarray or None
        Shape ``(N,)``, int64: the source row of each sample. None: row i for sample i.

    Raises
    ------
    ValueError
        If `params` have other columns than the table.
    """
    if params.dtype.names != COLUMNS.names:
        ours, theirs = ", ".join(COLUMNS.names), ", ".join(params.dtype.names or ())
        raise ValueError(f"the engines' table holds {ours}; the parameters hold {theirs}")
    num_drawn = len(COLUMNS)
    # Fields of one dtype without gaps are a matrix of doubles: one copy, no loop over fields. Not by `view`, which asks
    # Python whether that is safe.
    drawn = np.ndarray((len(params), num_drawn), np.float64, np.ascontiguousarray(params))
    rows[:, :num_drawn] = drawn
    # The angles' functions are NumPy's on every engine: the maps, and so the pixels, are the same to the bit.
    for angle, cosine in _ANGLES:
        radians = np.deg2rad(drawn[:, angle])
        np.cos(radians, rows[:, cosine])
        np.sin(radians, rows[:, cosine + 1])
    # An int64 in the bits of a double.
    rows.view(np.int64)[:, _SOURCE_INDEX] = np.arange(len(rows)) if indices is None else indices
    # The padding is uploaded, too, and uninitialised memory of this process should not be.
    rows[:, len(TABLE) :] = 0.0


def layout_check(table: tuple[str, ...] = TABLE) -> str:
    """Return C++ that does not compile unless ``TableColumn`` has these columns at these places.

    Parameters
    ----------
    table : tuple of str
        Names in order.
    """
    num_columns = -(-len(table) // 4) * 4
    places = [*((name.upper(), place) for place, name in enumerate(table)), ("NUM_COLUMNS", num_columns)]
    same = " && ".join(f"{name} == {place}" for name, place in places)
    return f'static_assert({same}, "TableColumn is not the table of gpuseq.ops.table");\n'


def needs_range(options: AugmentOptions, source_dtype: np.dtype[Any]) -> bool:
    """Tell whether a sample's least and greatest value after the affine map decide about its colours.

    The channel shift clips to them, and brightness stretches an image that leaves 0 to 255. 8-bit images stay within
    unless the border is filled with something else; in double the weights' rounding can lift 255 by a bit, which Keras
    takes for a stretched image, and so do we.

    Parameters
    ----------
    options : AugmentOptions
        What is done to every sample.
    source_dtype : numpy.dtype
        Of the images.
    """
    if options.has_channel_shift or not options.has_brightness:
        return options.has_channel_shift
    # Any float may leave 0 to 255, and uint16 does.
    if source_dtype != np.uint8:
        return True
    if not options.has_affine:
        return False
    is_filled_outside = options.fill_mode == "constant" and not 0 <= options.cval <= 255
    return is_filled_outside or (options.compute_dtype == np.float64 and not options.round_affine)
