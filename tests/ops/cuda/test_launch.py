"""What `kernels.cast_arguments` lets through and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq.base import devices as compat
from gpuseq.ops.cuda import compile as kernels

ARRAY = np.zeros((2, 3), np.int64)


def test_scalars_are_cast_to_the_declared_width() -> None:
    table, count = kernels.cast_arguments("resample_pass", (ARRAY, 7.0))
    assert table is ARRAY
    assert (type(count), count) == (np.int32, 7)


def test_none_is_a_null_pointer() -> None:
    null, _ = kernels.cast_arguments("resample_pass", (None, 1))
    assert (null, null.itemsize) == (0, 8)


def test_a_strided_array_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'passes' of kernel 'resample_pass' must be C-contiguous"):
        kernels.cast_arguments("resample_pass", (ARRAY[:, ::2], 1))


@pytest.mark.parametrize("arguments", [(ARRAY,), (ARRAY, 1, 2)])
def test_a_wrong_number_of_arguments_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=f"takes 2 arguments; got {len(arguments)}"):
        kernels.cast_arguments("resample_pass", arguments)


@pytest.mark.parametrize("name", kernels.SIGNATURES)
def test_each_argument_has_its_width(name: str) -> None:
    """Also where the sizes are those of the launch before, and 0.0 and -0.0 are two numbers."""
    kinds = [kind for _, kind in kernels.SIGNATURES[name][1]]
    types = {"pointer": np.ndarray, "int32": np.int32, "int64": np.int64, "float64": np.float64}
    for real in (0.0, -0.0):
        given = [ARRAY if kind == "pointer" else 7 if kind.startswith("int") else real for kind in kinds]
        cast = kernels.cast_arguments(name, given)
        assert [type(value) for value in cast] == [types[kind] for kind in kinds]
        assert all(np.signbit(value) == np.signbit(real) for value in cast if isinstance(value, np.float64))


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        kernels.cast_arguments("resample_pass", (ARRAY, 2**31))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CuPy's modules on a full disk: what they compile is not kept. Returns what was compiled and launched."""
    compiled: list[str] = []

    class Function:
        def __call__(self, *arguments: Any, **options: Any) -> None:
            if os.environ.get("CUPY_CACHE_IN_MEMORY") != "1":
                raise OSError(28, "No space left on device", "/home/nobody/.cupy")
            compiled.append("launched")

    class Module:
        def __init__(self, *, code: str, options: tuple[str, ...]) -> None: ...

        def get_function(self, name: str) -> Function:
            compiled.append(name)
            if os.environ.get("CUPY_CACHE_IN_MEMORY") != "1" and name != "augment":
                raise OSError(28, "No space left on device", "/home/nobody/.cupy")
            return Function()

    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "0")
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(RawModule=Module))
    monkeypatch.setattr(kernels, "cast_arguments", lambda name, arguments: arguments)
    return compiled


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("resample_pass", ["resample_pass", "resample_pass", "launched"]),
        ("augment", ["augment", "launched"]),  # compiled for this device, and at the launch for another
    ],
)
def test_a_disk_that_is_full_costs_the_cache_and_not_the_run(full_disk: list[str], name: str, steps: list[str]) -> None:
    with pytest.warns(RuntimeWarning, match=r"/home/nobody/\.cupy.*CUPY_CACHE_DIR") as warned:
        kernels.Kernel(name, ()).launch((1,), 1, ())
    assert full_disk == steps
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_a_folder_that_cannot_be_made_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    """In a process of its own, as CuPy is imported once."""
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    environment = {**os.environ, "CUPY_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    script = "import os, gpuseq; gpuseq.ImageDataGenerator(); assert os.environ['CUPY_CACHE_DIR'].endswith('cache')"
    for arguments in (["-c", script], ["-m", "gpuseq", "doctor"]):
        run = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=300
        )
        assert "Traceback" not in run.stderr
        assert run.returncode == 0, run.stderr
        if "doctor" in arguments:
            (line,) = (line for line in run.stdout.splitlines() if str(folder) in line and "compiled kernels" in line)
            assert "set CUPY_CACHE_DIR to a folder that can be written to" in line


def test_a_folder_without_write_access_is_found_before_the_first_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", "/proc")  # a folder that is there, and takes no file even from root
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "0")
    problem = compat.kernel_cache_problem.__wrapped__()
    assert isinstance(problem, OSError)
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=RuntimeError)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime), __spec__=types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(compat, "kernel_cache_problem", lambda: problem)
    with pytest.warns(RuntimeWarning, match="CuPy cannot write to its cache .*/proc"):
        assert compat.gpu_problem.__wrapped__() is None
    assert os.environ["CUPY_CACHE_IN_MEMORY"] == "1"
    assert os.environ["CUPY_CACHE_DIR"] == "/proc"
    assert compat.gpu_problem.__wrapped__() is None  # and says it once
