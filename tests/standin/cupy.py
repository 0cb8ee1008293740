"""A stand-in for CuPy on the host, so that everything above the kernels runs with ``device="cuda"`` without a GPU.

Arrays live in NumPy's memory, kernels are compiled by g++ (`host_runner`) or, where `install` is told so, by NVRTC and
interpreted (`tests.standin.ptx`), and the order of streams is watched instead of run (`streams`). What it cannot show
is what only a GPU has: speed, real memory, the frameworks' own CUDA.
``tests/standin/test_conformance.py`` holds it to the real CuPy: it offers nothing that CuPy lacks.
"""

from __future__ import annotations

import importlib.machinery
import itertools
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from gpuseq.base import devices as compat
from gpuseq.decode import gpu_backend as decode_backend
from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.cuda import resize as ops_cuda_resize
from gpuseq.ops.table import NUM_COLUMNS, TABLE
from tests.standin import array as standin_array
from tests.standin import door, host_runner, work
from tests.standin import memory as standin_memory
from tests.standin import streams as standin_streams
from tests.standin.array import ndarray as DeviceArray  # noqa: N812
from tests.standin.memory import FREE_BYTES, OutOfMemoryError
from tests.standin.streams import NUM_DEVICES, Device, RaceError

if TYPE_CHECKING:
    import pytest

__all__ = ["MODULES", "NUM_DEVICES", "DeviceArray", "RaceError", "install", "modules"]

MODULES = ("cupy", "cupy.cuda", "cupy.cuda.memory", "cupy.cuda.runtime", "cupy.random", "cupyx", "cupyx.scipy")

_FUNCTIONS = (
    *("abs", "all", "any", "arange", "argmax", "array_equal", "ascontiguousarray", "broadcast_to", "clip"),
    *("concatenate", "copyto", "dot", "empty_like", "expand_dims", "floor", "full", "isfinite", "isnan", "matmul"),
    *("maximum", "mean", "minimum", "moveaxis", "ones", "rint", "rollaxis", "sqrt", "square", "stack", "std", "sum"),
    *("transpose", "where", "zeros", "zeros_like"),
)
_TYPES = ("bool_", "float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


SOURCE_ROW = TABLE.index("source_index")

_one_at_a_time = threading.Lock()
_interpreter: Any = None
_decoder_of = decode_backend.decoder_of  # taken once, however often the stand-in is put in place


class RawKernel:
    """``cupy.RawKernel``, run by g++'s code or interpreted."""

    def __init__(self, name: str, kernel: Any) -> None:
        self.name, self._kernel = name, kernel

    def __call__(self, grid: Any, block: Any, args: Sequence[Any], *, shared_mem: int = 0) -> None:
        if type(grid) is not tuple or type(block) is not tuple:
            raise TypeError("Argument 'grid' or 'block' has incorrect type: expected tuple")
        assert 0 < len(grid) <= 3
        assert all(1 <= size <= limit for size, limit in zip(grid, (2**31 - 1, 65535, 65535), strict=False)), grid
        assert 1 <= block[0] <= 1024
        assert shared_mem <= 48 << 10, "more dynamic shared memory needs a function attribute"
        arrays = []
        plain: list[Any] = []
        for (parameter, kind), value in zip(kernels.SIGNATURES[self.name][1], args, strict=True):
            if isinstance(value, DeviceArray):
                arrays.append(value)
                plain.append(value._host)
            elif isinstance(value, np.ndarray):
                raise AssertionError(f"{parameter} of {self.name} is a host array: its address means nothing there")
            else:
                assert isinstance(value, np.generic), f"{parameter} of {self.name} is a {type(value)}"
                plain.append(None if kind == "pointer" else value)
        if self.name == "resample_pass":
            standin_array.use(f"kernel {self.name}", arrays, [])
            _use_addresses(arrays[0]._host)
        else:
            # The kernels read all but the last array, `out`; the reductions write their last one, too.
            rows = None
            has_table = kernels.SIGNATURES[self.name][1][1][0] == "table"
            if has_table and plain[1] is not None:  # of the images, those that the table names
                rows = {id(arrays[0]): plain[1].reshape(-1, NUM_COLUMNS).view(np.int64)[:, SOURCE_ROW]}
            standin_array.use(f"kernel {self.name}", arrays[:-1], arrays[-1:], rows=rows)
        with _one_at_a_time:  # g++'s code keeps a block's threads in one place
            self._kernel.launch(grid, block[0], plain, shared_mem)


def _use_addresses(passes: np.ndarray) -> None:
    """Watch what the descriptors of ``resample_pass`` point at, as if it had been handed over as arrays."""
    columns = passes.reshape(-1, ops_cuda_resize.NUM_PASS_COLUMNS)
    is_table = columns[:, 5] == ops_cuda_resize.NEAREST
    reads = {*columns[:, 0].tolist(), *columns[:, 6].tolist(), *columns[is_table, 7].tolist()} - {0}
    found = [
        [standin_memory.memory_at(address) for address in addresses] for addresses in (reads, columns[:, 2].tolist())
    ]
    for memory in (*found[0], *found[1]):
        if memory.device_id != standin_streams.current_device():
            raise ValueError(f"resample_pass: it points at cuda:{memory.device_id}, which is not the current device")
    standin_streams.timeline().enqueue("kernel resample_pass", *found)


class RawModule:
    """``cupy.RawModule`` for the texts of `gpuseq.ops.cuda.compile`."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        assert options == kernels.COMPILE_OPTIONS  # a further set of options costs a compilation in every process
        self._code = code
        defines = itertools.takewhile(lambda line: line.startswith("#define "), code.splitlines())
        self._macros = tuple((name, value) for _, name, value in (line.split(" ", 2) for line in defines))

    def get_function(self, name: str) -> RawKernel:
        assert self._code == kernels.pasted_source(kernels.SIGNATURES[name][0], self._macros)
        if _interpreter is None:
            return RawKernel(name, host_runner.host_kernel(name, self._macros))
        from tests.standin.ptx.runner import PtxKernel

        return RawKernel(name, PtxKernel(name, self._code, kernels.COMPILE_OPTIONS, _interpreter))


def _asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> DeviceArray:
    if not isinstance(a, DeviceArray):
        return standin_array.on_device(a, dtype)
    if a._memptr.device_id == standin_streams.current_device():
        return a if dtype is None else a.astype(dtype, copy=False)
    # From device to device, as CuPy does it: on the current stream, with nothing else said about order.
    moved = DeviceArray(a.shape, a.dtype)
    moved._host[...] = a._host
    memory = a._memptr.mem
    standin_streams.timeline().enqueue("a copy between devices", [getattr(memory, "memory", memory)], [])
    standin_array.use("a copy between devices", [], [moved])
    return moved if dtype is None else moved.astype(dtype, copy=False)


def _array(
    obj: Any, dtype: Any = None, copy: bool = True, order: str = "K", subok: bool = False, ndmin: int = 0
) -> DeviceArray:
    made = _asarray(obj, dtype)
    if copy and made is obj:
        made = made.copy(order)
    return made if order == "K" or made.flags.c_contiguous else made.copy(order)


def _from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> DeviceArray:
    read_only = np.from_dlpack(array)
    host = standin_array.lent(read_only, read_only)
    address = host.ctypes.data
    # What is ours comes back to its own history, whoever held it meanwhile; `host` keeps the memory alive.
    memory = standin_memory.known_memory(address) if host.size else None
    if memory is None or memory.device_id < 0:
        memory = standin_memory.UnownedMemory(address, max(host.nbytes, 1), array)
    made = DeviceArray.__new__(DeviceArray)
    made._become(host, standin_memory.MemoryPointer(memory, address - memory.ptr))
    return made


def _affine_transform(
    input: Any,
    matrix: Any,
    offset: Any = 0.0,
    output_shape: Any = None,
    output: Any = None,
    order: int = 3,
    mode: str = "constant",
    cval: float = 0.0,
    prefilter: bool = True,
    *,
    texture_memory: bool = False,
    float64_coords: bool = False,
) -> DeviceArray:
    """``cupyx.scipy.ndimage.affine_transform``.

    Unlike SciPy's it adds the offset last, counts positions in the type of the image, in float32 where that is an
    integer, and wraps around where an integer overflows.
    """
    from scipy import ndimage

    if not isinstance(input, DeviceArray) or not isinstance(matrix, DeviceArray):
        raise TypeError("the image and the matrix must be device arrays")
    assert output_shape is None
    assert not isinstance(output, DeviceArray), "an array to write to is not rehearsed"
    precision = np.dtype(np.float64) if float64_coords else np.promote_types(input.dtype, np.float32)
    standin_array.use("affine_transform", [input, matrix], [])
    indices = np.indices(input.shape, precision)
    coordinates = [
        sum(each * index for each, index in zip(row, indices, strict=True)) + precision.type(last)
        for row, last in zip(matrix._host.astype(precision), offset, strict=True)
    ]
    plane = input._host.astype(input.dtype if input.dtype.kind == "f" else np.float32)
    moved = ndimage.map_coordinates(plane, coordinates, order=order, mode=mode, cval=cval, prefilter=prefilter)
    target = standin_array.checked_dtype(input.dtype if output is None else output)
    if target.kind in "iu":
        moved = np.rint(moved).astype(np.int64)
    return standin_array.adopt(moved.astype(target), None)


def _random(size: Any = None, dtype: Any = float) -> DeviceArray:
    return standin_array.on_device(np.random.default_rng(0).random(size, np.dtype(dtype)))  # type: ignore[arg-type]


class _DecoderOnHost:
    """What `gpuseq.decode.gpu_backend` asks of a GPU's decoder, done by the same library's CPU side."""

    def __init__(self, kind: Any, ordinal: int, stream: int, num_threads: int, load: float) -> None:
        assert 0 <= load <= 1
        self._images, self._key = kind(None, 0, num_threads, 0.0), (ordinal, stream)

    def decode(self, encoded: list[bytes]) -> list[Any]:
        assert self._key == (standin_streams.current_device(), standin_streams.get_current_stream().ptr)
        work.add(work.DECODED, type(self._images).__module__.rpartition(".")[2], len(encoded))
        return [None if image is None else np.array(image.cpu()) for image in self._images.decode(encoded)]

    @staticmethod
    def view(image: Any) -> Any:
        return sys.modules["cupy"].from_dlpack(image)


def _module(name: str, **members: Any) -> Any:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    vars(module).update(members)
    return module


def modules() -> dict[str, Any]:
    """Return the modules of the stand-in by name."""
    runtime = _module(
        "cupy.cuda.runtime",
        CUDARuntimeError=RuntimeError,
        getDeviceCount=lambda: NUM_DEVICES,
        getDevice=standin_streams.current_device,
        getDeviceProperties=lambda device: {
            "name": b"stand-in",
            "totalGlobalMem": 2 * FREE_BYTES,
            "multiProcessorCount": 1,
        },
        driverGetVersion=lambda: 0,
        runtimeGetVersion=lambda: 0,
        memGetInfo=lambda: (FREE_BYTES, 2 * FREE_BYTES),
        memcpyHostToDevice=1,
        memcpyAsync=standin_memory.memcpy_async,
    )
    memory = _module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError)
    streams = {name: getattr(standin_streams, name) for name in ("Event", "Stream", "get_current_stream")}
    cuda = _module(
        "cupy.cuda",
        runtime=runtime,
        memory=memory,
        Device=Device,
        alloc=standin_memory.allocate,
        get_elapsed_time=standin_streams.get_elapsed_time,
        alloc_pinned_memory=standin_memory.alloc_pinned_memory,
        UnownedMemory=standin_memory.UnownedMemory,
        MemoryPointer=standin_memory.MemoryPointer,
        using_allocator=standin_memory.using_allocator,
        **streams,
    )
    random = _module("cupy.random", random=_random)
    ndimage = _module("cupyx.scipy.ndimage", affine_transform=_affine_transform)
    scipy = _module("cupyx.scipy", ndimage=ndimage)
    cupy = _module(
        "cupy",
        __version__="0 (stand-in)",
        ndarray=DeviceArray,
        cuda=cuda,
        random=random,
        RawModule=RawModule,
        asarray=_asarray,
        array=_array,
        empty=lambda shape, dtype=float, order="C": DeviceArray(shape, dtype, order=order),
        from_dlpack=_from_dlpack,
        get_default_memory_pool=standin_memory.pool,
        **{name: standin_array.wrapped(getattr(np, name)) for name in _FUNCTIONS},
        **{name: getattr(np, name) for name in _TYPES},
    )
    found = (cupy, cuda, memory, runtime, random, _module("cupyx", scipy=scipy), scipy, ndimage)
    return {module.__name__: module for module in found}


def install(patch: pytest.MonkeyPatch, interpreter: Any = None) -> host_runner.HostRun:
    """Make ``import cupy`` find the stand-in, and the kernels run on the host, for as long as `patch` lasts.

    Parameters
    ----------
    patch : pytest.MonkeyPatch
        Takes it all away again.
    interpreter : tests.standin.ptx.runner.PtxRun, optional
        How kernels are interpreted; g++ compiles them without.

    Returns
    -------
    HostRun
        What was loaded; `tests.standin.work` counts what ran.
    """
    run = host_runner.HostRun()
    if interpreter is not None:
        interpreter.find = interpreter.find or standin_memory.array_at
    patch.setattr(sys.modules[__name__], "_interpreter", interpreter)
    made: dict[Any, kernels.Kernel] = {}

    def load(name: str, macros: kernels.Macros) -> kernels.Kernel:
        run.num_launches += 1
        run.variants.append((name, macros))
        if (name, macros) not in made:
            made[name, macros] = kernels.Kernel(name, macros)
        return made[name, macros]

    standin_streams.restart()
    standin_memory.restart()
    compat.gpu_problem.cache_clear()
    problem: Callable[[], str | None] = lambda: None  # noqa: E731
    door.replace_modules(patch, modules())
    door.replace(
        patch,
        load=load,
        rings={},
        constants=WeakKeyDictionary(),
        resize_tables=OrderedDict(),
        quantiles={},
        decoder_of=lambda options: partial(_DecoderOnHost, _decoder_of(options)),
        gpu_problem=problem,
        # CuPy hands an address on; what the stand-in watches has an end.
        part=lambda memory, begin, end: DeviceArray((end - begin,), np.uint8, memory + begin),
    )
    return run
