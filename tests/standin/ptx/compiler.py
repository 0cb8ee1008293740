"""Asks NVRTC for the PTX of a text, with the options that CuPy adds of its own.

NVRTC is called through ctypes and not through CuPy, in whose place the stand-in may be.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.standin.host_runner import CACHE_FOLDER

__all__ = ["ARCHITECTURES", "CUPY_OPTIONS", "compile_aloud", "compile_ptx", "is_installed", "version"]

ARCHITECTURES = ("compute_80", "compute_90")

CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
"""What CuPy 14 adds to whatever it compiles (``cupy/cuda/compiler.py``)."""


def _candidates() -> Iterator[Path]:
    """Yield NVRTC's libraries: NVIDIA's packages from PyPI first, then a CUDA toolkit."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    toolkit = Path(os.environ.get("CUDA_PATH") or "/usr/local/cuda")
    for pattern in (*((folder, "*/lib/libnvrtc.so.*") for folder in folders), (toolkit, "lib64/libnvrtc.so.*")):
        yield from sorted(pattern[0].glob(pattern[1]), reverse=True)


def is_installed() -> bool:
    """Return whether there is an NVRTC to ask."""
    return next(_candidates(), None) is not None


@cache
def _library() -> ctypes.CDLL:
    path = next(_candidates(), None)
    if path is None:
        raise RuntimeError("NVRTC is not installed; pip install nvidia-cuda-nvrtc, which cupy-cuda13x[ctk] brings too")
    for builtins in path.parent.glob("libnvrtc-builtins.so*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)  # NVRTC looks for it by its bare name
    return ctypes.CDLL(str(path))


def _call(name: str, *arguments: Any) -> int:
    function = getattr(_library(), name)
    function.restype = ctypes.c_int
    return int(function(*arguments))


@cache
def version() -> tuple[int, int]:
    """Return NVRTC's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compile_ptx(source: str, options: tuple[str, ...], architecture: str) -> str:
    """Compile a text and return the PTX; arguments and errors are those of `compile_aloud`."""
    return compile_aloud(source, options, architecture)[0]


def compile_aloud(source: str, options: tuple[str, ...], architecture: str) -> tuple[str, str]:
    """Compile a text.

    Parameters
    ----------
    source : str
        As CuPy's ``RawModule`` takes it.
    options : tuple of str
        The same.
    architecture : str
        Such as ``"compute_80"``.

    Returns
    -------
    tuple of str
        The PTX, and what the compiler said; of a text that an earlier run has compiled both lie in the folder of
        `tests.standin.host_runner`.

    Raises
    ------
    RuntimeError
        With the compiler's messages, or because it is not installed.
    """
    recipe = "\0".join([source, *options, *CUPY_OPTIONS, architecture, str(version()), "PTX, messages"])
    path = CACHE_FOLDER / f"{hashlib.sha256(recipe.encode()).hexdigest()[:32]}.ptx"
    if path.exists():
        ptx, _, messages = path.read_text().partition("\0")
        return ptx, messages
    ptx, messages = _compile(source, (*options, *CUPY_OPTIONS, f"--gpu-architecture={architecture}"))
    CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
    own = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    own.write_text(f"{ptx}\0{messages}")
    own.replace(path)
    return ptx, messages


def _compile(source: str, options: tuple[str, ...]) -> tuple[str, str]:
    program = ctypes.c_void_p()
    if _call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None):
        raise RuntimeError("NVRTC makes no program of the text")
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if _call("nvrtcCompileProgram", program, len(options), given):
            raise RuntimeError(f"NVRTC refused a kernel:\n{_text(program, 'nvrtcGetProgramLog')}")
        return _text(program, "nvrtcGetPTX"), _text(program, "nvrtcGetProgramLog")
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


def _text(program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _call(f"{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(what, program, buffer)
    return buffer.value.decode()
