"""Devices by name: which there are, where an array lives, how it comes to another. CuPy is imported when asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from .arguments import warn
from .errors import DeviceError
from .streams import Made, hand_over, made_here, to_host

__all__ = [
    "ALIGNMENT",
    "NUMBERS",
    "array_module",
    "gpu_problem",
    "has_gpu",
    "is_cupy",
    "keep_kernels_in_memory",
    "kernel_cache_problem",
    "on_device",
    "ordinal_of",
    "place",
    "resolve_device",
    "synchronize",
]

ALIGNMENT = 64
"""Bytes: where a batch on the host begins, so that JAX and TensorFlow can take it without a copy. TensorFlow's DLPack
import ends the process where an array begins elsewhere."""

NUMBERS = frozenset("biufc")
"""Kinds of dtypes that a device holds: text and Python objects have no representation there."""

_importing_cupy = threading.Lock()


@cache
def kernel_cache_problem() -> OSError | None:
    """Return None where CuPy can keep compiled kernels on disk, else what came of an attempt to write there."""
    import tempfile

    folder = os.environ.get("CUPY_CACHE_DIR", os.path.expanduser("~/.cupy/kernel_cache"))
    try:
        os.makedirs(folder, exist_ok=True)
        # A file is really made: permissions alone do not tell of a full disk or a quota.
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def _import_cupy() -> ModuleType:
    """Import CuPy, also where it has no folder to keep compiled kernels in.

    It makes that folder while it is imported, whatever ``CUPY_CACHE_IN_MEMORY`` says, so that an unusable one is an
    OSError of a plain ``import cupy``.
    """
    with _importing_cupy:  # of two threads, one would restore what the other has set
        if kernel_cache_problem() is None:
            return importlib.import_module("cupy")
        asked = os.environ.get("CUPY_CACHE_DIR")
        os.environ["CUPY_CACHE_DIR"] = os.sep  # a folder that is there, so that none is made; nothing is written to it
        try:
            return importlib.import_module("cupy")
        finally:
            del os.environ["CUPY_CACHE_DIR"]
            if asked is not None:
                os.environ["CUPY_CACHE_DIR"] = asked


def keep_kernels_in_memory(error: OSError) -> None:
    """Switch CuPy's cache on disk off for this process and its children, with a warning.

    Parameters
    ----------
    error : OSError
        What came of an attempt to write to it.
    """
    if os.environ.get("CUPY_CACHE_IN_MEMORY") == "1":
        return
    os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
    warn(
        f"CuPy cannot write to its cache ({error}), so every process compiles its kernels anew. Set the environment "
        "variable CUPY_CACHE_DIR to a folder that can be written to",
        RuntimeWarning,
    )


@cache
def gpu_problem() -> str | None:
    """Return None where CuPy sees a CUDA device, else one line that says what is missing and what to install."""
    # Looked up without an import, which takes 0.15 s where CuPy is installed.
    if importlib.util.find_spec("cupy") is None:
        return 'CuPy is not installed. Install it with: pip install "gpuseq[cuda13]" (or cuda12)'
    cupy = _import_cupy()
    try:
        # Without a driver this raises instead of returning 0.
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return (
            f"CuPy {cupy.__version__} is installed, but no CUDA driver or device answered ({error}). "
            "Check nvidia-smi; in a container, start it with --gpus all"
        )
    if count == 0:
        return "CuPy and a driver are installed, but no CUDA device is visible. Check CUDA_VISIBLE_DEVICES"
    if (unwritable := kernel_cache_problem()) is not None:
        keep_kernels_in_memory(unwritable)
    return None


def has_gpu() -> bool:
    """Return whether CuPy is installed and sees a CUDA device."""
    return gpu_problem() is None


def resolve_device(device: str | None) -> str:
    """Turn a user's `device` into ``"cpu"`` or ``"cuda:N"``.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"} or None
        None and "auto" read the environment's ``GPUSEQ_DEVICE`` and then look for a GPU.

    Raises
    ------
    ValueError
        If `device` is none of these.
    DeviceError
        If a GPU is asked for and CuPy, the driver or the device is missing.
    """
    asked = device
    if asked in (None, "auto"):
        asked = os.environ.get("GPUSEQ_DEVICE") or "auto"
    name, _, ordinal = str(asked).partition(":")
    if asked not in ("auto", "cpu", "cuda") and not (name == "cuda" and ordinal.isdecimal()):
        source = "" if asked == device else " from the environment's GPUSEQ_DEVICE"
        raise ValueError(f'device must be "auto", "cpu", "cuda" or "cuda:N"; got {asked!r}{source}')
    if asked == "cpu":
        return "cpu"
    # "auto" falls back in silence, and a name does not: code that says "cuda" must not run for hours on the host.
    problem = gpu_problem()
    if problem is not None:
        if asked == "auto":
            return "cpu"
        raise DeviceError(f'device={asked!r} cannot be used: {problem}. Or use device="cpu"')
    import cupy

    # "cuda" is the current device and not number 0: a launcher may have set it for this process.
    if not ordinal:
        return f"cuda:{cupy.cuda.Device().id}"
    if int(ordinal) >= cupy.cuda.runtime.getDeviceCount():
        raise DeviceError(
            f"device={asked!r} does not exist: this process sees {cupy.cuda.runtime.getDeviceCount()} CUDA device(s)"
        )
    return f"cuda:{int(ordinal)}"


@cache  # asked several times for each batch
def ordinal_of(device: str) -> int:
    """Return the number of a GPU, as CUDA counts those that this process sees.

    Parameters
    ----------
    device : str
        ``"cuda:N"``; ``"cuda"`` is the first one.

    Raises
    ------
    ValueError
        If it is no GPU: nothing but a name that `resolve_device` has returned may come this far.
    """
    name, _, ordinal = device.partition(":")
    if name != "cuda":
        raise ValueError(f'a GPU is named "cuda:N"; got {device!r}')
    return int(ordinal or 0)


def is_cupy(array: Any) -> bool:
    """Return whether `array` is a CuPy array, without importing CuPy."""
    # An array of CuPy exists only where CuPy is imported already.
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def array_module(array: Any) -> Any:
    """Return ``cupy`` for a CuPy array and ``numpy`` for everything else."""
    if is_cupy(array):
        return sys.modules["cupy"]
    return np


def on_device(where: Any) -> AbstractContextManager[Any]:
    """Make a device the current one for a while: CuPy allocates and computes there, and refuses arrays of others.

    Parameters
    ----------
    where : str or array
        ``"cpu"`` or ``"cuda:N"``; or an array, for the device that it lives on. Nothing happens for the host.
    """
    if isinstance(where, str):
        if where == "cpu":
            return nullcontext()
        import cupy

        device: AbstractContextManager[Any] = cupy.cuda.Device(ordinal_of(where))
        return device
    return where.device if is_cupy(where) else nullcontext()


def place(array: Any, device: str, made: Made | None = None) -> Any:
    """Return `array` on a device: unchanged where it is there already or holds Python objects.

    Parameters
    ----------
    array : array
        NumPy or CuPy.
    device : str
        ``"cpu"`` or ``"cuda:N"``.
    made : Made or None
        Of a CuPy array: where it was made. None: on the current stream of its device.
    """
    if not is_cupy(array):
        if device == "cpu" or array.dtype.kind not in NUMBERS:
            return array
        import cupy

        with on_device(device):
            return cupy.asarray(array)
    if device == "cpu":
        return array.get() if made is None else to_host(array, made)
    # With `made` even an array of the same device goes through `hand_over`: it may be of another stream.
    if made is None and array.device.id == ordinal_of(device):
        return array
    return hand_over(array, ordinal_of(device), made_here(array.device) if made is None else made)


def synchronize(device: str) -> None:
    """Wait until all the work on `device` is done; nothing to wait for on the CPU.

    Parameters
    ----------
    device : str
        As `resolve_device` returns it.
    """
    if device.startswith("cuda"):
        import cupy

        cupy.cuda.Device(ordinal_of(device)).synchronize()
