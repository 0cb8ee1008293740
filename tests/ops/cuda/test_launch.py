"""What `kernels.cast_arguments` lets through and what it refuses."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
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


class Driver:
    """CuPy's driver and what leads to it, on two devices: keeps what a launch reads, by the widths of the signature."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.launched: list[Any] = []
        self.device = 0
        self.runtime = types.SimpleNamespace(getDevice=lambda: self.device)
        self.driver = types.SimpleNamespace(launchKernel=self._launch)
        self.kernel = types.SimpleNamespace(ptr=77)
        self.name = ""
        patch.setitem(sys.modules, "cupy", types.SimpleNamespace(RawModule=self._module, cuda=self))

    def get_current_stream(self) -> Any:
        return types.SimpleNamespace(ptr=5)

    def _module(self, **_: Any) -> Any:
        return types.SimpleNamespace(get_function=self._named)

    def _named(self, name: str) -> Driver:
        self.name = name
        return self

    def __call__(self, grid: Any, block: Any, arguments: Any, shared_mem: int) -> None:
        self.launched.append(("CuPy", grid, block, arguments, shared_mem))

    def _launch(self, function: int, *arguments: Any) -> None:
        assert function == 77
        *sizes, shared, stream, values, extra = arguments
        assert (stream, extra) == (5, 0)
        kinds = [kind for _, kind in kernels.SIGNATURES[self.name][1]]
        cells = (ctypes.c_void_p * len(kinds)).from_address(values)
        read = {"pointer": ctypes.c_uint64, "int32": ctypes.c_int32, "int64": ctypes.c_int64}
        found = [read.get(kind, ctypes.c_double).from_address(at).value for kind, at in zip(kinds, cells, strict=True)]
        self.launched.append((*sizes, shared, found))


def somewhere(address: int, **more: Any) -> Any:
    return types.SimpleNamespace(ptr=address, **more)


def arguments_of(name: str) -> tuple[list[Any], list[Any]]:
    """Return arguments that differ, memory, null pointers and arrays among them, and what a kernel has to read."""
    given: list[Any] = []
    read: list[Any] = []
    for number, (_, kind) in enumerate(kernels.SIGNATURES[name][1], start=1):
        if kind != "pointer":
            given.append(-number if kind.startswith("int") else number / 7)
            read.append(given[-1])
            continue
        array = types.SimpleNamespace(data=somewhere(1 << 40 | number), flags=np.zeros(1).flags)
        given.append([None, Memory(1 << 45 | number), array][number % 3])  # in a launch each of them
        read.append([0, 1 << 45 | number, 1 << 40 | number][number % 3])
    return given, read


class Memory:
    """As CuPy's, it has an address and no strides."""

    def __init__(self, address: int) -> None:
        self.ptr = address


@pytest.mark.parametrize("name", kernels.SIGNATURES)
def test_a_second_launch_is_the_drivers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each argument where the driver reads it, in its width; CuPy makes the first one of a thread on a device."""
    driver, (given, read) = Driver(monkeypatch), arguments_of(name)
    kernel = kernels.Kernel(name, ())
    kernel.launch((3, 2), 128, given, shared_bytes=9)
    assert driver.launched.pop()[:3] == ("CuPy", (3, 2), (128,))
    for grid, sizes in (((3, 2), (3, 2, 1)), ((4,), (4, 1, 1))):
        kernel.launch(grid, 128, given, shared_bytes=9)
        assert driver.launched.pop() == (*sizes, 128, 1, 1, 9, read)
    driver.device = 1
    kernel.launch((3,), 128, given)
    assert driver.launched.pop()[0] == "CuPy"
    other = threading.Thread(target=kernel.launch, args=((3,), 128, given))
    other.start()
    other.join()
    assert driver.launched.pop()[0] == "CuPy"
    kernel.launch((3,), 128, given)
    assert driver.launched.pop()[:2] == (3, 1)


def test_what_does_not_fit_is_cast_or_refused_at_any_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, kernel = Driver(monkeypatch), kernels.Kernel("resample_pass", ())
    for _ in range(2):
        kernel.launch((1,), 1, (None, 7.0))
        assert driver.launched.pop()[3] == [0, 7]  # CuPy's way, cast
        kernel.launch((1,), 1, (None, 7))
        with pytest.raises(OverflowError):
            kernel.launch((1,), 1, (None, 2**31))
        with pytest.raises(TypeError, match="takes 2 arguments; got 3"):
            kernel.launch((1,), 1, (None, 1, 2))
        with pytest.raises(TypeError, match="takes 2 arguments; got 1"):
            kernel.launch((1,), 1, (None,))
        with pytest.raises(ValueError, match="'passes' of kernel 'resample_pass' must be C-contiguous"):
            kernel.launch((1,), 1, (ARRAY[:, ::2], 1))


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
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(RawModule=Module, cuda=None))
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
