"""Launches Pillow's resize for a ragged list of device images: two launches for a whole batch, one for nearest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from gpuseq.base.types import Array
from gpuseq.ops.resample import line_table, nearest_indices, vertical_first

from . import compile as kernels
from . import memory as device

__all__ = ["resize"]

NUM_PASS_COLUMNS = 10
"""int64s of a pass' descriptor (``PassColumn`` in ``kernels/resize.cu``)."""

MAX_DEVICE_TABLES = 4096
"""Tables kept on the devices; the least recently used go first. A table of a photograph's side takes some 10 KB."""

MAX_PIXELS = 2**31
"""Positions within a pass are 32-bit in the kernel."""

MAX_GRID_X, MAX_GRID_Y = 2**31 - 1, 65535

COPY, NEAREST, HORIZONTAL, VERTICAL = range(1, 5)
PREMULTIPLY, UNPREMULTIPLY = 1, 2
BLOCK = 256

TableKey: TypeAlias = tuple[int, int, str, float, float]
"""Arguments of `line_table`; those of `nearest_indices` have "nearest" in the filter's place."""


@dataclass(frozen=True)
class _Pass:
    """One pass over one image, but for the addresses. Fields are those of ``PassColumn``."""

    kind: int
    source_offset: int  # bytes from the image's first pixel
    pitch: int  # pixels from one row to the next
    rows: int
    cols: int
    tables: tuple[TableKey, ...] = ()
    origin: int = 0
    alpha: int = 0


@dataclass(frozen=True)
class _Plan:
    """What one image needs: at most two passes, the last of which writes the result."""

    first: _Pass | None
    last: _Pass
    between_bytes: int  # what the first pass leaves for the last one


def resize(
    images: Sequence[Array],
    target_size: tuple[int, int],
    interpolation: str,
    *,
    boxes: np.ndarray | None = None,
    out: Array | None = None,
) -> Array:
    """CUDA twin of `gpuseq.ops.dispatch.resize`; the contract is written there."""
    # Crops are read in place: a descriptor has a pitch, and no strides within a row.
    images = [image if _is_pitched(image) else device.contiguous(image) for image in images]
    channels = images[0].shape[2]
    if out is None:
        out = device.empty((len(images), *target_size, channels), np.uint8)
    if out.size == 0:
        return out
    # float32 as Pillow's boxes are: the tables are kept by these numbers, and a double would be another key.
    limits = [None] * len(images) if boxes is None else [tuple(box) for box in np.asarray(boxes, np.float32).tolist()]
    plans = [
        _plan(*image.shape, image.strides[0] // channels, target_size, interpolation, box)
        for image, box in zip(images, limits, strict=True)
    ]
    steps = [step for plan in plans for step in (plan.first, plan.last) if step is not None]
    tables = _tables({key for step in steps for key in step.tables})
    num_between = sum(plan.between_bytes for plan in plans)
    # One block for the intermediate images of all samples: one allocation a batch.
    between = device.empty((num_between,), np.uint8) if num_between else None

    first_rows, last_rows = [], []
    between_at, out_at = 0 if between is None else device.address(between), device.address(out)
    sample_bytes = out.size // len(images)
    for image, plan in zip(images, plans, strict=True):
        # By address: `images` and the two blocks are alive in this function until all launches are queued, and the
        # stream keeps the order after that.
        source = device.address(image)
        if plan.first is not None:
            first_rows.append(_descriptor(plan.first, source, between_at, tables))
            source = between_at
        last_rows.append(_descriptor(plan.last, source, out_at, tables))
        between_at += plan.between_bytes
        out_at += sample_bytes
    for rows, passes in (
        (first_rows, [plan.first for plan in plans if plan.first is not None]),
        (last_rows, [plan.last for plan in plans]),
    ):
        if passes:
            # The grid fits the largest image; blocks of smaller ones find nothing to do and end.
            most_pixels = max(step.rows * step.cols for step in passes)
            grid = min(-(-most_pixels // BLOCK), MAX_GRID_X), min(len(rows), MAX_GRID_Y)
            descriptors = _upload(rows)
            kernels.load("resample_pass", (("CHANNELS", str(channels)),)).launch(grid, BLOCK, (descriptors, len(rows)))
    return out


def _is_pitched(image: Array) -> bool:
    """Tell whether pixels lie side by side and rows a whole number of pixels apart: the kernel reads crops in place."""
    channels = image.shape[2]
    pitch, *pixel = image.strides
    return tuple(pixel) == (channels, 1) and pitch > 0 and pitch % channels == 0


def _upload(rows: list[tuple[int, ...]]) -> Array:
    def fill(table: np.ndarray) -> None:
        table[...] = rows

    return device.upload((len(rows), NUM_PASS_COLUMNS), np.int64, fill)


def _descriptor(step: _Pass, source: int, target: int, tables: dict[TableKey, tuple[Array, int]]) -> tuple[int, ...]:
    """Return the row of ``PassColumn`` values."""
    table = taps = 0
    if step.tables:
        array, taps = tables[step.tables[0]]
        table = device.address(array)
        if step.kind == NEAREST:
            # Nearest has two tables: the column's address stands in the place of a number of taps.
            taps = device.address(tables[step.tables[1]][0])
    return (
        *(source + step.source_offset, step.pitch, target, step.rows, step.cols),
        *(step.kind, table, taps, step.origin, step.alpha),
    )


@lru_cache(maxsize=8192)
def _plan(
    height: int,
    width: int,
    channels: int,
    pitch: int,
    target_size: tuple[int, int],
    interpolation: str,
    box: tuple[float, ...] | None,
) -> _Plan:
    """Work out the passes of one image, each of no more pixels than a kernel counts."""
    plan = _passes(height, width, channels, pitch, target_size, interpolation, box)
    for step in (plan.first, plan.last):
        if step is not None and step.rows * step.cols >= MAX_PIXELS:
            raise ValueError(
                f"{step.rows} x {step.cols} pixels are too many for the GPU, which counts them with 31 bits: resize "
                'that image on the host, with decoder="pillow"'
            )
    return plan


def _passes(
    height: int,
    width: int,
    channels: int,
    pitch: int,
    target_size: tuple[int, int],
    interpolation: str,
    box: tuple[float, ...] | None,
) -> _Plan:
    """Work out the passes of one image as Pillow makes them: none, the cheap one first, only the lines that count."""
    target_height, target_width = target_size
    left, upper, right, lower = box or (0.0, 0.0, float(width), float(height))
    moves_cols = target_width != width or (left, right) != (0.0, width)
    moves_rows = target_height != height or (upper, lower) != (0.0, height)
    if not moves_cols and not moves_rows:
        return _Plan(None, _Pass(COPY, 0, pitch, height, width), 0)
    row_key = (height, target_height, interpolation, upper, lower)
    col_key = (width, target_width, interpolation, left, right)
    if interpolation == "nearest":
        return _Plan(None, _Pass(NEAREST, 0, pitch, *target_size, (row_key, col_key)), 0)
    # Pillow weighs colours by their alpha while it resizes, so that what is transparent gives no colour to its
    # neighbours.
    alpha_in, alpha_out = (PREMULTIPLY, UNPREMULTIPLY) if channels in (2, 4) else (0, 0)
    if not moves_rows:
        return _Plan(None, _Pass(HORIZONTAL, 0, pitch, *target_size, (col_key,), 0, alpha_in | alpha_out), 0)
    if not moves_cols:
        return _Plan(None, _Pass(VERTICAL, 0, pitch, *target_size, (row_key,), 0, alpha_in | alpha_out), 0)
    if vertical_first(height, width, target_size):
        # Only the lines that the second pass reads are made by the first, as in Pillow.
        start, stop = line_table(*col_key).span
        num_cols = stop - start
        return _Plan(
            _Pass(VERTICAL, start * channels, pitch, target_height, num_cols, (row_key,), 0, alpha_in),
            _Pass(HORIZONTAL, 0, num_cols, *target_size, (col_key,), start, alpha_out),
            target_height * num_cols * channels,
        )
    start, stop = line_table(*row_key).span
    return _Plan(
        _Pass(HORIZONTAL, start * pitch * channels, pitch, stop - start, target_width, (col_key,), 0, alpha_in),
        _Pass(VERTICAL, 0, target_width, *target_size, (row_key,), start, alpha_out),
        (stop - start) * target_width * channels,
    )


_kept: OrderedDict[Any, tuple[Array, int]] = OrderedDict()
_lock = threading.Lock()


def _tables(keys: Iterable[TableKey]) -> dict[TableKey, tuple[Array, int]]:
    """Return each table on the device and its number of taps; those not there yet go up in one copy.

    Kept per device and stream, so that a table is never read before its copy, whatever other streams do.
    """
    # Of device and stream: what one stream uploaded is not yet there for another.
    place = device.place_key()
    found: dict[TableKey, tuple[Array, int]] = {}
    missing: list[tuple[TableKey, list[np.ndarray], int]] = []
    # Held over the upload, so that no thread finds a table that is not on its way yet.
    with _lock:
        for key in keys:
            if (place, key) in _kept:
                _kept.move_to_end((place, key))
                found[key] = _kept[place, key]
            else:
                missing.append((key, *_host_table(key)))
        if missing:
            lines = [line for _, parts, _ in missing for line in parts]

            def fill(flat: np.ndarray) -> None:
                np.concatenate(lines, out=flat)

            flat = device.upload((sum(line.size for line in lines),), np.int32, fill)
            start = 0
            for key, parts, taps in missing:
                stop = start + sum(part.size for part in parts)
                found[key] = _kept[place, key] = (flat[start:stop], taps)
                start = stop
        while len(_kept) > MAX_DEVICE_TABLES:
            _kept.popitem(last=False)  # `found` still holds what this call reads
    return found


def _host_table(key: TableKey) -> tuple[list[np.ndarray], int]:
    """Return the parts of a table in the order in which the kernel reads them, and the number of taps."""
    n_in, n_out, interpolation, start, stop = key
    if interpolation == "nearest":
        return [nearest_indices(n_in, n_out, start, stop)], 1
    table = line_table(*key)
    return [table.first, table.weights.ravel()], len(table.weights)
