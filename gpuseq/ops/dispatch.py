"""The contract of each op, in front of the engine that computes it: on the host or on CUDA.

The engine follows from the arrays: CuPy arrays run on their device, on the current stream; NumPy arrays on the host, by
the compiled engine or by NumPy as the environment's ``GPUSEQ_CPU_ENGINE`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuseq.base.devices import is_cupy, on_device, place
from gpuseq.base.forks import forks_wait
from gpuseq.base.machine import available_memory
from gpuseq.base.threads import cpu_count
from gpuseq.base.types import Array
from gpuseq.ops.cuda import memory as gpu
from gpuseq.ops.cuda.resident import DeviceResident, Resident
from gpuseq.plan.program import names_in, only_erasing

from .compiled import augment as ops_compiled
from .compiled import boxes as _compiled_boxes  # noqa: F401  the plans' rectangles come from there from now on
from .compiled import choices as _compiled_choices  # noqa: F401  the plans' steps come from there from now on
from .compiled import library
from .compiled import philox as _compiled_philox  # noqa: F401  the plans' numbers come from there from now on
from .numpy import augment as ops_numpy
from .options import AugmentOptions, RangesFirst, Statistics

if TYPE_CHECKING:
    from .looks import Looks

__all__ = [
    "Resident",
    "augment",
    "describe",
    "empty",
    "erase",
    "free_memory",
    "host_engine",
    "resident",
    "resize",
    "run_geometry",
    "run_program",
    "standardize",
    "upload",
    "whiten",
]

_IMPORT = "the import of an engine"  # on whatever thread makes the first batch


def _rows(indices: np.ndarray, num_rows: int) -> np.ndarray:
    """Return row numbers as from 0, or refuse them as NumPy does: a device reads whatever lies there."""
    indices = np.asarray(indices, np.int64)
    # One look for both ends: as unsigned numbers the negative ones are the largest.
    if not indices.size or int(np.maximum.reduce(indices.view(np.uint64))) < num_rows:
        return indices
    for index in (int(indices.min()), int(indices.max())):
        if not -num_rows <= index < num_rows:
            raise IndexError(f"index {index} is out of bounds for axis 0 with size {num_rows}")
    return np.where(indices < 0, indices + num_rows, indices)


def host_engine() -> library.InstructionSet | None:
    """Return the instruction set of the compiled engine, where that works on host arrays; None where NumPy does.

    Raises
    ------
    ValueError
        If the environment's ``GPUSEQ_CPU_ENGINE`` is none of the accepted values.
    MissingDependencyError
        If it insists on what is not there.
    """
    return library.chosen()


def _engine_for(array: Array) -> tuple[ModuleType, AbstractContextManager[Any]]:
    """Return the engine of an array, and a context in which the array's device is the current one."""
    if isinstance(array, np.ndarray):
        return ops_numpy if host_engine() is None else ops_compiled, nullcontext()
    return _cuda_engine(), on_device(array)  # CuPy launches on the current device, whatever device the arrays are of


@cache  # an import statement within a function looks the module up anew each time
def _cuda_engine() -> ModuleType:
    # Imported where the first device array arrives: `import gpuseq` brings no CUDA.
    with forks_wait(_IMPORT):
        from .cuda import augment as ops_cuda

    return ops_cuda


def _program_engine_for(array: Array) -> tuple[ModuleType, AbstractContextManager[Any]]:
    """As `_engine_for`, of programs, which are a module of their own in each engine, imported with the first."""
    if not isinstance(array, np.ndarray):
        return _program_engine("cuda"), on_device(array)
    return _program_engine("numpy" if host_engine() is None else "compiled"), nullcontext()


@cache  # as `_cuda_engine`
def _program_engine(name: str) -> ModuleType:
    with forks_wait(_IMPORT):
        if name == "cuda":
            from .cuda import program as cuda_program

            return cuda_program
        if name == "numpy":
            from .numpy import program as numpy_program

            return numpy_program
        from .compiled import program as compiled_program

        return compiled_program


@cache  # as `_cuda_engine`
def _program_checks() -> tuple[Callable[..., np.ndarray], Callable[..., None], Callable[..., bool]]:
    with forks_wait(_IMPORT):
        from gpuseq.plan.boxes import with_boxes

        from .checks import check_program
        from .compiled.checks import are_within_limits

    return with_boxes, check_program, are_within_limits


def _checked(
    program: np.ndarray, dtype: np.dtype[Any], channels: int, size: tuple[int, int]
) -> tuple[np.ndarray, bool]:
    """Return a program with its crops as rectangles, or refuse what it is not defined for; and whether it may crop."""
    with_boxes, check_program, are_within_limits = _program_checks()
    # The same look, by the library: what it lets through is defined on uint8 images of colours and greys.
    if dtype == np.uint8 and channels in (1, 3, 4) and are_within_limits(program, size):
        return program, False
    present = names_in(program)
    if "CropByKey" in present:
        program = with_boxes(program, size)
        present = names_in(program)
    check_program(program, dtype, channels, size, present)
    return program, "ResizedCrop" in present


def augment(
    images: Array,
    params: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: Array | None = None,
) -> Array:
    """Gather, warp, recolour, standardise, lay out and cast a batch; on a GPU in one launch where nothing is reduced.

    Parameters
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)`` as `options.source_format` says; uint8, uint16, float32 or float64;
        where it lives decides the engine. Not written to.
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`, on the host.
    options : AugmentOptions
        What is done to every sample.
    indices : numpy.ndarray or None
        Shape ``(N,)``, int64, on the host: the row of `images` for each sample; negative ones count from the end. None:
        row i for sample i.
    statistics : Statistics or None
        Per-channel mean and std where `options` asks for featurewise steps.
    out : array or None
        Written to where given: shape and dtype of the result, C-contiguous, where `images` lives.

    Returns
    -------
    array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.data_format` says, dtype `options.dtype`, where `images`
        lives.

    Raises
    ------
    IndexError
        If there is no such row.
    MissingDependencyError
        On the host, if `options.order` is above 1 and SciPy is not installed.
    ValueError
        On a GPU, if one image holds 2**31 values or more.

    References
    ----------
    ``ImageDataGenerator.apply_transform`` and ``standardize`` of Keras 3.15; ``scipy.ndimage.affine_transform`` of
    SciPy 1.16 and later for the warp; ``cupyx.scipy.ndimage.affine_transform`` for splines on a GPU.
    """
    # Checked here once for all engines: NumPy would raise by itself, a kernel would read foreign memory.
    if indices is not None:
        indices = _rows(indices, len(images))
    # A kernel would read past the end of the images.
    elif len(params) > len(images):
        raise IndexError(f"parameters of {len(params)} samples, and {len(images)} images")
    engine, current = _engine_for(images)
    with current:
        # Where an image is warped beforehand its row is its sample, hence no indices for the fused pass.
        if options.order > 1:
            # Splines are rare: SciPy (or cupyx) warps each plane in a pass of its own, and the fused one does the rest.
            if options.has_affine:
                gathered = images[: len(params)] if indices is None else images[indices]
                images, indices = engine.warp_spline(gathered, params, options), None
            options = replace(options, order=1, has_affine=False)
        return engine.augment(images, params, options, indices=indices, statistics=statistics, out=out)


def standardize(
    batch: Array, options: AugmentOptions, statistics: Statistics | None = None, *, out: Array | None = None
) -> Array:
    """Do the part of `augment` from the preprocessing mode on, for a batch that already exists.

    Parameters
    ----------
    batch : array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.source_format` says. Not written to.
    options : AugmentOptions
        Its colour and geometry fields are ignored.
    statistics : Statistics or None
        Per-channel mean and std where `options` asks for featurewise steps.
    out : array or None
        As in `augment`.

    Returns
    -------
    array
        As in `augment`.
    """
    engine, current = _engine_for(batch)
    with current:
        return engine.standardize(batch, options, statistics, out=out)


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
) -> Array:
    """Gather, do each sample's program on uint8, standardise, lay out, cast and erase.

    Parameters
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)`` as `options.source_format` says, uint8; where it lives decides the
        engine. Not written to.
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, on the host. Step after step is done on uint8, as
        Pillow does it; erasing comes last of all, on the finished batch.
    options : AugmentOptions
        What follows the program, from the preprocessing mode on; the fields of geometry and colour are ignored.
    indices : numpy.ndarray or None
        As in `augment`.
    statistics : Statistics or None
        Per-channel mean and std where `options` asks for featurewise steps.
    out : array or None
        As in `augment`.
    ranges : RangesFirst or None
        What is done to the images before the program. None: nothing. On a GPU it is done in the program's launch where
        it can be.
    looks : Looks or None
        Of `images`: what would be looked at is taken from there, or put there. None: each batch looks. The NumPy engine
        looks at each image anyway.

    Returns
    -------
    array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.data_format` says, dtype `options.dtype`, where `images`
        lives. H and W are the images', or those that the program crops to.

    Raises
    ------
    TypeError
        If the images are not uint8.
    ValueError
        If a step of colour meets other than 1, 3 or 4 channels, or a step reaches beyond an image.
    DeviceError
        On a GPU, for crops that do not come first, and for images that its maps cannot count.

    References
    ----------
    Pillow's ``ImageEnhance``, ``ImageOps`` and ``Image.transform``, torchvision's v2 transforms on PIL images, timm's
    ``auto_augment``. Of tensors: torchvision's hue and gamma.
    """
    if options.source_format == "channels_last":
        _, *size, channels = images.shape
    else:
        _, channels, *size = images.shape
    # Before any engine is asked, so that the refusal is the same on each.
    program, has_crops = _checked(program, images.dtype, channels, (size[0], size[1]))
    if indices is not None:
        indices = _rows(indices, len(images))
    further: dict[str, Any] = {} if isinstance(images, np.ndarray) else {"may_crop": has_crops}
    engine, current = _program_engine_for(images)
    with current:
        if ranges is not None:
            if not isinstance(images, np.ndarray) and engine.takes_ranges(ranges.options, program):
                further["ranges"] = ranges
            else:
                images, indices, looks = augment(images, ranges.params, ranges.options, indices=indices), None, None
        if looks is not None and (not isinstance(images, np.ndarray) or host_engine() is not None):
            further["looks"] = looks
        batch: Array = engine.run_program(
            images, program, options, indices=indices, statistics=statistics, out=out, **further
        )
    return batch


def run_geometry(images: Array, program: np.ndarray, source_format: str, *, indices: np.ndarray | None = None) -> Array:
    """Do what a program does to masks: its geometry with nearest pixels, of any dtype.

    Parameters
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)`` as `source_format` says, any dtype. Not written to.
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, from `~gpuseq.plan.program.only_geometry`.
    source_format : {"channels_last", "channels_first"}
        Axis order of `images` and of the result.
    indices : numpy.ndarray or None
        As in `augment`.

    Returns
    -------
    array
        One image per row of the program, in the axis order, the dtype and the place of `images`.

    Raises
    ------
    DeviceError
        As `run_program`.
    """
    size = images.shape[1:3] if source_format == "channels_last" else images.shape[2:]
    program, _ = _checked(program, np.dtype(np.uint8), 3, size)  # of masks any dtype and number of channels will do
    if indices is not None:
        indices = _rows(indices, len(images))
    engine, current = _program_engine_for(images)
    with current:
        moved: Array = engine.run_geometry(images, program, source_format, indices=indices)
    return moved


def erase(batch: Array, program: np.ndarray, data_format: str) -> None:
    """Overwrite the rectangles of a program's erasing steps, in place.

    Parameters
    ----------
    batch : array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `data_format` says. Written to.
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`; its other steps are ignored.
    data_format : {"channels_last", "channels_first"}
        Axis order of `batch`.

    Raises
    ------
    ValueError
        If a rectangle lies outside of the images.
    """
    _, check_program, _ = _program_checks()
    size = batch.shape[1:3] if data_format == "channels_last" else batch.shape[2:]
    check_program(only_erasing(program), batch.dtype, 3, size)
    engine, current = _program_engine_for(batch)
    with current:
        engine.erase_rectangles(batch, program, data_format)


def whiten(batch: Array, matrix: Array) -> Array:
    """Apply the ZCA matrix to a batch by one matrix product.

    Parameters
    ----------
    batch : array
        Shape ``(N, ...)``, floating; each sample is flattened in C order.
    matrix : array
        Shape ``(D, D)`` with D the size of one sample.

    Returns
    -------
    array
        Shape and dtype of `batch`, new.
    """
    engine, current = _engine_for(batch)
    with current:
        return engine.whiten(batch, matrix)


def resize(
    images: Sequence[Array],
    target_size: tuple[int, int],
    interpolation: str,
    *,
    boxes: np.ndarray | None = None,
    out: Array | None = None,
) -> Array:
    """Resize a ragged list of 8-bit images into one batch, equal to Pillow to the bit.

    Parameters
    ----------
    images : sequence of array
        Each ``(h, w, C)`` uint8, all on the same side, C the same for all. Not written to.
    target_size : (int, int)
        Rows and columns of the result.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter.
    boxes : numpy.ndarray or None
        Shape ``(N, 4)``, float32: left, upper, right, lower of the part to resize. None: the whole image.
    out : array or None
        Written to where given: ``(N, H, W, C)`` uint8.

    Returns
    -------
    array
        Shape ``(N, H, W, C)``, uint8, where the images live.

    Raises
    ------
    ValueError
        On a GPU, if one image has 2**31 pixels or more after one of the two passes.

    References
    ----------
    ``PIL.Image.Image.resize``.
    """
    engine, current = _engine_for(images[0])
    with current:
        return engine.resize(images, target_size, interpolation, boxes=boxes, out=out)


def empty(shape: tuple[int, ...], dtype: str, device: str) -> Array:
    """Return an uninitialised C-contiguous array on a device.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : str
        Its dtype.
    device : str
        ``"cpu"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        If the device has not that much memory left.
    """
    if device == "cpu":
        return np.empty(shape, dtype)
    return gpu.empty_on(shape, dtype, device)


def upload(images: np.ndarray, device: str, rows: np.ndarray | None = None) -> Array:
    """Bring host images, or some rows of them, to a device: on a GPU in asynchronous copies from pinned memory.

    Parameters
    ----------
    images : array
        Shape ``(M, ...)``: images, or what goes beside them. A device array is returned as
        `~gpuseq.base.devices.place` does.
    device : str
        ``"cpu"`` or ``"cuda:N"``.
    rows : numpy.ndarray or None
        Shape ``(N,)``, int64; negative ones count from the end. None: all rows.

    Returns
    -------
    array
        Shape ``(N, ...)`` on `device`, valid in the order of the device's current stream.

    Raises
    ------
    IndexError
        If there is no such row.
    DeviceError
        If the device has not that much memory left.
    """
    if rows is not None:
        rows = _rows(rows, len(images))
    # Rows of a device array are gathered on its device and never visit the host.
    if is_cupy(images) or device == "cpu":
        images = place(images, device)
        with on_device(device):
            return images if rows is None else images[rows]
    return gpu.upload_rows(images, device, rows)


def resident(array: Array) -> Resident:
    """Return an array as one that stays where it is and is used on any stream.

    Parameters
    ----------
    array : array
        NumPy, or CuPy as the current stream of its device has written it.
    """
    return DeviceResident(array) if is_cupy(array) else Resident(array)


def describe(
    device: str,
    options: AugmentOptions,
    source_dtype: np.dtype[Any],
    program: np.ndarray | None = None,
    *,
    known: np.ndarray | None = None,
) -> str:
    """Say which engine does `augment`, or a program after it, and how, in a few words.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda:N"``: where the images are.
    options : AugmentOptions
        What is done to every sample.
    source_dtype : numpy.dtype
        Of the images.
    program : numpy.ndarray or None
        Of a batch, shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`. None: there is none.
    known : numpy.ndarray or None
        Shape ``(N,)``, bool: of which samples looks at the source image are kept. None: of none.
    """
    if device == "cpu":
        return f"{library.describe()}, {cpu_count()} thread(s), in {options.compute_dtype.name}"
    if program is None or not (program["op"] != 0).any():
        launches = _cuda_engine().launches(options, source_dtype)
    else:
        from .cuda import program as cuda_program

        launches = cuda_program.launches(options, program, known=known)
    return f"cuda, on {device}: {len(launches)} launch(es), {' then '.join(launches)}"


def free_memory(device: str) -> int:
    """Return the bytes that could be allocated on a device now.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda:N"``.
    """
    if device == "cpu":
        return available_memory()
    return gpu.free_bytes(device)
