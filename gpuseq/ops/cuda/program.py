"""Programs on CuPy arrays: the launcher of ``kernels/program.cu``. What they do is said in `gpuseq.ops.dispatch`.

One launch makes the batch, from what Keras' ranges do first to the cast; others come before it where a sample needs an
intermediate image, or a look at one: one for all first such stages, one for all second ones, and so on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpuseq.base.errors import DeviceError
from gpuseq.base.streams import Made, own_stream, recorded, to_host
from gpuseq.base.types import Array
from gpuseq.ops import segments as ops_segments
from gpuseq.ops.compiled.segments import pack
from gpuseq.ops.crops import cropped
from gpuseq.ops.listing import CONTRAST, ERASE_COLUMNS, STEP_COLUMNS
from gpuseq.ops.looks import LOOKS, Known, Looked, Looks
from gpuseq.ops.numpy.erase import normal_quantiles
from gpuseq.ops.options import AugmentOptions, RangesFirst, Statistics
from gpuseq.ops.segments import SAMPLE_COLUMNS, SOURCE, STAGE_COLUMNS, Packed, Segments
from gpuseq.ops.table import FILL_MODES, NUM_COLUMNS, OUT_KINDS, PREPROCESSING, fill_table, needs_range
from gpuseq.plan.columns import is_at_rest
from gpuseq.plan.program import has_kind, only_erasing, without_erasing

from . import augment as ops_cuda
from . import compile as kernels
from . import memory as device
from .resize import resize

__all__ = ["erase_rectangles", "launches", "run_geometry", "run_program", "takes_ranges"]

MAX_CHANNELS = 16
PREPARE_BLOCK = 256
PREPARE_PIXELS = 8
"""Of one image, for each thread of a block of ``prepare``."""

PROGRAM_BLOCK = 256
UNIT_PIXELS = 2048
"""Pixels of one sample that one block works on."""

TABLE_BYTES = 768
PARTIAL_COUNTS = 768
"""Numbers of 32 bits that ``prepare`` writes for a part of an image that is looked at."""

TICKET_BYTES = 4
"""Of a look: the blocks of ``prepare`` count in it what parts of the image are done."""

MAX_COUNTED_BYTES = 1 << 26
"""For what is counted at once, where all images of a batch are looked at."""

MAX_RESIZED_BYTES = 4
"""Of a pixel that the resize moves."""


def takes_ranges(options: AugmentOptions, program: np.ndarray) -> bool:
    """Tell whether Keras' ranges with these options are done in the launch of their programs, or need one before it.

    Splines come from cupyx, a crop is resized from the whole image, and a channel shift clips to the range that an
    image has after the map.
    """
    return options.order <= 1 and not needs_range(options, np.dtype(np.uint8)) and not has_kind(program, "crop")


def launches(options: AugmentOptions, program: np.ndarray, *, known: np.ndarray | None = None) -> list[str]:
    """Return the kernels that a batch of RGB images takes, in order, with the ranges that `options` ask for first.

    `known` says which of the source images have been looked at. Looks for later batches come on top.
    """
    levels = replace(options.unnormalised(), dtype="uint8", round_affine=True)
    has_ranges = options.has_affine or options.has_flip or options.has_channel_shift or options.has_brightness
    found, in_place = [], takes_ranges(levels, program)
    if has_ranges and not in_place:
        found += ops_cuda.launches(levels, np.dtype(np.uint8))
    if has_kind(program, "crop"):
        found += ["resample_pass", "resample_pass"]
    moved = np.full(len(program), has_ranges and in_place)
    # Where a program is cut does not follow from what looks say, nor from the size of the images.
    rows = np.zeros(len(program), np.int64)
    about = None
    if known is not None and in_place:
        looked = Looked(np.zeros(1, np.uint8), np.zeros((1, 2, 1, 256), np.uint8), np.ones(1, bool))
        about = Known(np.where(known, 0, -1), looked)
    packed = pack(program, rows, 64, 64, 3, moved=moved, known=about)
    found += [*["prepare"] * len(packed.rounds), "program"]
    if options.samplewise_center or options.samplewise_std:
        found += ["sample_moments", "augment", *(["erase"] if has_kind(program, "erase") else [])]
    return found


def run_program(
    images: Array,
    program: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: Array | None = None,
    ranges: RangesFirst | None = None,
    looks: Looks | None = None,
    may_crop: bool = True,
) -> Array:
    """CUDA twin of `gpuseq.ops.dispatch.run_program`; the contract is written there. Of ranges: `takes_ranges`.

    Where the caller has seen that there is no crop, `may_crop` is False, and none is looked for.
    """
    if options.samplewise_center or options.samplewise_std:
        # The sample's own mean is that of the finished levels, so these are written first.
        before = _levels_of(options)
        levels = run_program(images, without_erasing(program), before, indices=indices, ranges=ranges, looks=looks)
        after = replace(options, source_format=options.data_format)
        batch = ops_cuda.standardize(levels, after, statistics, out=out)
        erase_rectangles(batch, program, options.data_format)
        return batch
    if may_crop and has_kind(program, "crop"):
        if options.source_format == "channels_first":
            # The resize reads pixels whose channels lie side by side: of planes it copies what a crop shows.
            images = (images if indices is None else images[indices]).transpose(0, 2, 3, 1)
            options, indices = replace(options, source_format="channels_last"), None
        images, program, indices, looks = *cropped(images, program, indices, resize), None
    images = device.contiguous(images)
    last = options.source_format == "channels_last"
    height, width, channels = images.shape[1:] if last else (*images.shape[2:], images.shape[1])
    if channels > MAX_CHANNELS:
        raise DeviceError(
            f"augmentations on a GPU take up to {MAX_CHANNELS} channels; got {channels}: take device='cpu'"
        )
    if height * width * channels >= ops_cuda.MAX_SAMPLE_VALUES:
        raise DeviceError(f"an image of {height} x {width} x {channels} values is too large for the GPU")

    rows = np.arange(len(program)) if indices is None else indices
    moved = None if ranges is None else _moved(ranges)
    if moved is None or not moved.any():
        ranges = moved = None
    known = None if looks is None else looks.about(rows)
    cval = ranges.options.cval if ranges else 0.0
    packed = pack(program, rows, height, width, channels, moved=moved, cval=cval, known=known)
    mean = statistics.mean if statistics is not None and options.featurewise_center else None
    std = statistics.std if statistics is not None and options.featurewise_std else None
    macros = _macros(options, channels, mean is not None, std is not None, ranges.options if ranges else None)
    if out is None:
        shape = (height, width, channels) if options.data_format == "channels_last" else (channels, height, width)
        out = device.empty((len(program), *shape), ops_cuda.out_dtype(options.dtype))
    if out.size == 0:
        return out

    sent = _sent(packed, None if ranges is None else _table_of(ranges))
    made = None
    if packed.rounds:
        # One block: the tables that are made come first, the intermediate images behind them, as the kernels count
        # them.
        num_bytes = packed.num_looks * TABLE_BYTES + packed.num_slots * height * width * channels
        made = device.part(device.block(num_bytes), 0, num_bytes)
        partials, first = _partials(packed.num_looks, height * width), 0
        for count in packed.rounds:
            stages = sent.stages(first, count)
            _prepare(macros, images, stages, sent, made, partials, count, packed.num_looks, height, width)
            first += count
    mean_c = divisor_c = None
    if mean is not None or std is not None:
        assert statistics is not None
        mean_c, divisor_c = ops_cuda.constants(statistics, options.compute_dtype)
    kernels.load("program", macros).launch(
        # CUDA allows 65,535 blocks in y; the kernel goes on in strides.
        (-(-height * width // UNIT_PIXELS), min(len(program), ops_cuda.MAX_GRID_Y)),
        PROGRAM_BLOCK,
        (
            *(images, sent.samples, sent.steps, sent.lines, sent.weights, sent.tables, made),
            *(sent.erases if packed.num_erases else None, _quantiles() if packed.has_noise else None),
            *(mean_c, divisor_c, sent.table, out, len(program), packed.num_looks, height, width, options.rescale),
        ),
    )
    if packed.asks:
        assert looks is not None
        assert known is not None
        new = np.unique(rows[looks.stay(rows) & ~known.samples])
        for some, fetch in _look(images, _macros(options, channels, False, False), new):
            looks.learn(some, fetch)
    return out


def erase_rectangles(batch: Array, program: np.ndarray, data_format: str) -> None:
    """CUDA twin of `gpuseq.ops.dispatch.erase`; the contract is written there."""
    # Erasing alone is left, so there is no segment of anything else.
    kept = only_erasing(program)
    if batch.size == 0 or not (kept["op"] != 0).any():
        return
    height, width, channels = batch.shape[1:] if data_format == "channels_last" else (*batch.shape[2:], batch.shape[1])
    packed = pack(kept, np.arange(len(kept)), height, width, channels)
    sent, quantiles = _sent(packed), _quantiles() if packed.has_noise else None
    options = AugmentOptions(dtype=batch.dtype.name, data_format=data_format)  # type: ignore[arg-type]
    kernels.load("erase", _macros(options, min(channels, MAX_CHANNELS), False, False)).launch(
        (min(len(kept) * height, 2**31 - 1),),
        PROGRAM_BLOCK,
        (sent.samples, sent.erases, quantiles, batch, len(kept), height, width, channels),
    )


def run_geometry(images: Array, program: np.ndarray, source_format: str, *, indices: np.ndarray | None = None) -> Array:
    """CUDA twin of `gpuseq.ops.dispatch.run_geometry`; the contract is written there.

    The bytes of a value travel as channels: nearest pixels are copied whole, whatever they stand for.
    """
    last = source_format == "channels_last"
    images_nhwc = device.contiguous(images if last else images.transpose(0, 2, 3, 1))
    itemsize = images_nhwc.dtype.itemsize
    # A fill is one byte; a value of several bytes would be made of copies of it.
    if itemsize > 1 and program["fill"].any():
        raise DeviceError(f"masks of {images.dtype} are filled with 0 on a GPU: take fill=0, or uint8 masks")
    if has_kind(program, "crop") and images_nhwc.shape[3] * itemsize > MAX_RESIZED_BYTES:
        raise DeviceError(
            f"crops on a GPU take masks of up to {MAX_RESIZED_BYTES} bytes a pixel; got {images_nhwc.shape[3]} "
            f"channels of {images.dtype}: take device='cpu'"
        )
    moved = run_program(images_nhwc.view(np.uint8), program, AugmentOptions(dtype="uint8"), indices=indices)
    moved = moved.view(images_nhwc.dtype)
    return moved if last else device.contiguous(moved.transpose(0, 3, 1, 2))


def _look(
    images: Array, macros: kernels.Macros, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, Callable[[], np.ndarray]]]:
    """Look at images for each of `LOOKS`; yield some of the rows with what fetches their tables, until all have come.

    The host waits for nothing.
    """
    height, width = images.shape[1:3] if dict(macros)["SOURCE_CHANNELS_LAST"] == "1" else images.shape[2:]
    colours = 1 if dict(macros)["CHANNELS"] == "1" else 3
    at_once = max(1, MAX_COUNTED_BYTES // (len(LOOKS) * _num_parts(height * width) * PARTIAL_COUNTS * 4))
    for first in range(0, len(rows), at_once):
        some = rows[first : first + at_once]
        num_looks = len(some) * len(LOOKS)
        # A stage of no steps for each look; a contrast's factor is 0, so that its table holds the mean.
        stages = np.zeros((num_looks, STAGE_COLUMNS))
        stages[:, 0] = stages[:, 3] = SOURCE
        stages[:, 4] = np.tile(np.array(LOOKS) - CONTRAST + 1, len(some))
        stages[:, 5] = np.arange(num_looks)
        stages[:, 7] = some.repeat(len(LOOKS))
        sent = _sent(ops_segments.pack(_only_stages(stages, num_looks)))
        made = device.empty((num_looks * TABLE_BYTES,), np.uint8)
        partials, stages_sent = _partials(num_looks, height * width), sent.stages(0, num_looks)
        _prepare(macros, images, stages_sent, sent, made, partials, num_looks, num_looks, height, width)
        yield some, _Fetched(made, len(some), colours)


class _Fetched:
    """Tables of looks that lie on a device, to be called for them: the host waits for the looks, and no later work."""

    def __init__(self, made: Array, num_images: int, colours: int) -> None:
        import cupy

        self._made, self._shape, self._colours = made, (num_images, len(LOOKS), 3, 256), colours
        stream = cupy.cuda.get_current_stream()
        self._where = Made(stream, recorded(stream))

    def __call__(self) -> np.ndarray:
        # Not on the current stream, whose batches would have to be done first.
        with self._made.device, own_stream(self, self._made.device.id):
            tables: np.ndarray = to_host(self._made, self._where).reshape(self._shape)
        return tables[:, :, : self._colours]


def _only_stages(stages: np.ndarray, num_looks: int) -> Segments:
    none = np.empty(0)
    return Segments(
        samples=np.empty((0, SAMPLE_COLUMNS)),
        stages=stages,
        rounds=[len(stages)],
        steps=np.empty((0, STEP_COLUMNS)),
        tables=np.empty((0, 3, 256), np.uint8),
        lines=none.astype(np.int32),
        weights=none,
        erases=np.empty((0, ERASE_COLUMNS)),
        num_looks=num_looks,
        num_slots=0,
    )


def _num_parts(num_pixels: int) -> int:
    return max(1, -(-num_pixels // (PREPARE_BLOCK * PREPARE_PIXELS)))


def _partials(num_looks: int, num_pixels: int) -> Any:
    """Return room for what is counted of each part of each image that is looked at."""
    num_bytes = max(1, num_looks) * _num_parts(num_pixels) * PARTIAL_COUNTS * 4
    return device.part(device.block(num_bytes), 0, num_bytes)


def _prepare(
    macros: kernels.Macros,
    images: Array,
    stages: Any,
    sent: _Sent,
    made: Any,
    partials: Any,
    count: int,
    num_looks: int,
    height: int,
    width: int,
) -> None:
    """Launch a round of stages: what they write, and the tables of what they look at."""
    num_parts = _num_parts(height * width)
    read = (images, stages, sent.steps, sent.lines, sent.weights, sent.tables, sent.table)
    kernels.load("prepare", macros).launch(
        # CUDA allows 65,535 blocks in y; the kernel goes on in strides.
        (num_parts, min(count, ops_cuda.MAX_GRID_Y)),
        PREPARE_BLOCK,
        (*read, made, partials, sent.tickets, count, num_looks, num_parts, height, width),
    )


def _moved(ranges: RangesFirst) -> np.ndarray:
    """Tell which samples the ranges change: shape ``(N,)``, bool."""
    moved = np.zeros(len(ranges.params), bool)
    for step in ("affine", "flip", "brightness"):
        # What the options leave out is not asked of any sample, whatever its row says.
        if getattr(ranges.options, f"has_{step}"):
            moved |= ~is_at_rest(ranges.params, step)
    return moved


def _table_of(ranges: RangesFirst) -> np.ndarray:
    # The kernels of programs read the source's row from their own tables.
    rows = np.empty((len(ranges.params), NUM_COLUMNS))
    fill_table(rows, ranges.params, None)
    return rows


def _levels_of(options: AugmentOptions) -> AugmentOptions:
    return AugmentOptions(source_format=options.source_format, data_format=options.data_format, dtype="uint8")


class _Sent(NamedTuple):
    """Where the tables of a batch lie on the device; `memory` is what they are parts of."""

    memory: Any
    first_stage: int
    samples: Any
    steps: Any
    weights: Any
    erases: Any
    tables: Any
    lines: Any
    table: Any
    tickets: Any

    def stages(self, first: int, count: int) -> Any:
        """Return some of the stages."""
        begin = self.first_stage + first * _STAGE_BYTES
        return device.part(self.memory, begin, begin + count * _STAGE_BYTES)


_STAGE_BYTES = 8 * STAGE_COLUMNS


def _sent(packed: Packed, table: np.ndarray | None = None) -> _Sent:
    """Upload what was packed, and behind it the table of Keras' ranges and the tickets of looks, in one copy.

    A copy takes the host's time and a buffer. Tickets are zeros of each batch: none is left of a launch that failed.
    """
    begins, end = packed.begins, packed.begins[-1]
    first_ticket = end + (0 if table is None else table.nbytes)
    num_bytes = first_ticket + packed.num_looks * TICKET_BYTES

    def write(to: int) -> None:
        packed.write(to)
        if table is not None:
            ctypes.memmove(to + end, table.ctypes.data, table.nbytes)
        ctypes.memset(to + first_ticket, 0, num_bytes - first_ticket)

    memory, part = device.block(num_bytes), device.part
    device.send(memory, num_bytes, write)
    _, stages, steps, weights, erases, tables, lines, _ = begins
    return _Sent(
        memory=memory,
        first_stage=stages,
        samples=part(memory, 0, stages),
        steps=part(memory, steps, weights),
        weights=part(memory, weights, erases),
        erases=part(memory, erases, tables),
        tables=part(memory, tables, lines),
        lines=part(memory, lines, end),
        table=None if table is None else part(memory, end, first_ticket),
        tickets=part(memory, first_ticket, num_bytes) if packed.num_looks else None,
    )


_quantiles_at: dict[Any, Array] = {}


def _quantiles() -> Array:
    """Return the normal distribution's quantiles on the device, uploaded once for each device and stream."""
    key = device.place_key()
    if key not in _quantiles_at:
        _quantiles_at[key] = device.to_device(normal_quantiles())
    return _quantiles_at[key]


@lru_cache(maxsize=256)
def _macros(
    options: AugmentOptions, channels: int, has_mean: bool, has_std: bool, ranges: AugmentOptions | None = None
) -> kernels.Macros:
    # A source is always uint8: SOURCE_T keeps its default.
    values: dict[str, Any] = {
        "COMPUTE_T": "double" if options.compute_dtype == np.float64 else "float",
        "OUT_KIND": OUT_KINDS[options.dtype],
        "CHANNELS": channels,
        "SOURCE_CHANNELS_LAST": int(options.source_format == "channels_last"),
        "OUT_CHANNELS_LAST": int(options.data_format == "channels_last"),
        "PREPROCESS": PREPROCESSING[options.preprocessing],
        "HAS_RESCALE": int(options.rescale != 1.0),
        "FEATUREWISE_CENTER": int(has_mean),
        "FEATUREWISE_STD": int(has_std),
    }
    # Without ranges not a word of them, so that the variant is what it was.
    if ranges is not None:
        values |= {
            "HAS_KERAS": 1,
            "HAS_AFFINE": int(ranges.has_affine),
            "HAS_FLIP": int(ranges.has_flip),
            "HAS_BRIGHTNESS": int(ranges.has_brightness),
            "ROUND_AFFINE": 1,
        }
        if ranges.has_affine:
            values |= {
                "ORDER": ranges.order,
                "FILL_MODE": FILL_MODES[ranges.fill_mode],
                "CORRECTED": int(ranges.conventions == "corrected"),
            }
    return tuple((name, str(value)) for name, value in values.items())
