"""Whose stream and whose memory: how a batch on a GPU goes from CuPy to a framework without a copy or a race.

The rules, for each consumer:

torch
    A batch is made when it is asked for, on torch's current stream of the asking thread, in blocks of torch's own
    caching allocator. One stream and one pool: everything is in order by itself, a freed block is reused in stream
    order, and ``Tensor.record_stream`` means something where the tensor is taken to another stream.
jax
    JAX has no stream to borrow. It is handed an alias by DLPack (CuPy lets JAX' stream wait for CuPy's) and copies it
    on the device; the alias is kept until that copy is done. What JAX owns, CuPy's pool never writes again.
tensorflow
    As jax, with a host wait before the alias is made, because TensorFlow's import does not wait, and a copy first where
    the memory is not aligned to 64 bytes, because TensorFlow aborts the process there.

What stays on the device from batch to batch, images, masks and caches, was brought there on some stream, and is read on
whichever asks: `gpuseq.ops.cuda.resident` keeps that in order.

Not used, and why: CuPy's pool is per stream and has no ``record_stream`` (cupy#8068), so a plain DLPack hand-over lets
the producer overwrite what the consumer still reads; and a framework's global allocator is not for a library to
change.

``tests/feed/test_tensors.py`` holds the stress test for a GPU, which is rehearsed on a stand-in for CuPy that watches
the order of streams; ``docs/parity.md`` says what has run on a GPU.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import numpy as np

from gpuseq.base.devices import ALIGNMENT, is_cupy, on_device, ordinal_of
from gpuseq.base.errors import DeviceError
from gpuseq.base.types import Array

__all__ = ["host_array", "jax_array", "tensorflow_tensor", "torch_memory", "torch_tensor"]

NUM_LENT = 8
"""How many batches handed to TensorFlow are kept, at least, after their copy was asked for."""


class _Borrowed:
    """A framework's stream under CUDA's stream protocol."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


@contextmanager
def torch_memory(device: str) -> Iterator[MutableMapping[int, Any]]:
    """Let CuPy work on torch's current stream and in torch's memory, in this thread, for a while.

    Parameters
    ----------
    device : str
        ``"cpu"``, where nothing is done, or ``"cuda:N"``.

    Yields
    ------
    mapping
        Address to block, for `torch_tensor`.

    Raises
    ------
    DeviceError
        If torch has no CUDA, but the batches do.
    """
    # Weak, so that a block goes back to torch with the last array or tensor over it, whichever that is.
    blocks: MutableMapping[int, Any] = weakref.WeakValueDictionary()
    if device == "cpu":
        yield blocks
        return
    import cupy
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            f"batches are made on {device!r}, but this torch {torch.__version__} cannot use CUDA. Install a CUDA build "
            'of torch, or make the batches on the host: ImageDataGenerator(..., device="cpu")'
        )
    ordinal = ordinal_of(device)

    def allocate(num_bytes: int) -> Any:
        try:
            # A tensor of one byte where nothing is asked for: torch gives an empty one no address.
            block = torch.empty(max(num_bytes, 1), dtype=torch.uint8, device=f"cuda:{ordinal}")
        except torch.cuda.OutOfMemoryError as error:
            # As CuPy's own allocator says it, which the callers turn into a message.
            total = torch.cuda.memory_reserved(ordinal)
            raise cupy.cuda.memory.OutOfMemoryError(num_bytes, total) from error
        blocks[block.data_ptr()] = block
        return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(block.data_ptr(), num_bytes, block, ordinal), 0)

    with ExitStack() as stack:
        # Both libraries keep a current device of their own, a thread each.
        stack.enter_context(torch.cuda.device(ordinal))
        stack.enter_context(cupy.cuda.Device(ordinal))
        # Asked for at each batch: `torch.cuda.stream(...)` around a loop changes it.
        handle = torch.cuda.current_stream(ordinal).cuda_stream
        stack.enter_context(cupy.cuda.Stream.from_external(_Borrowed(handle)))
        stack.enter_context(cupy.cuda.using_allocator(allocate))
        yield blocks


def _native(array: np.ndarray) -> np.ndarray:
    """Return an array in this machine's byte order: no framework has tensors of the other one, files have."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def torch_tensor(array: Array, blocks: MutableMapping[int, Any]) -> Any:
    """Return an array as a tensor over the same memory.

    Parameters
    ----------
    array : array
        NumPy, or CuPy made within `torch_memory`.
    blocks : mapping
        From `torch_memory`.

    Returns
    -------
    torch.Tensor
        On the host or the device. NumPy arrays that are read-only or of another byte order are copied: torch has no
        such thing.

    Raises
    ------
    TypeError
        If the array holds no numbers.
    """
    import torch

    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "biufc":
            raise TypeError(f"torch has no tensors of dtype {array.dtype}: turn the labels into numbers first")
        array = _native(array)
        return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy(order="C"))
    # The tensor that allocated the memory is cut to size, so that torch's allocator knows its holders; an alias by
    # DLPack would hide that from `record_stream`.
    block = blocks.get(array.data.mem.ptr)
    if block is None or not array.flags.c_contiguous:
        return torch.from_dlpack(array)
    start = array.data.ptr - block.data_ptr()
    return block[start : start + array.nbytes].view(getattr(torch, array.dtype.name)).view(array.shape)


def cupy_view(tensor: Any) -> Array:
    """Return a torch tensor as an array over the same memory, NumPy or CuPy as it lives.

    Parameters
    ----------
    tensor : torch.Tensor
        Within `torch_memory` where it is on a GPU.
    """
    tensor = tensor.detach()
    if tensor.device.type == "cpu":
        return tensor.numpy()
    import cupy

    return cupy.from_dlpack(tensor)


_lent: deque[tuple[Array, Any, Any]] = deque()
_lent_lock = threading.Lock()


def jax_array(array: Array) -> Any:
    """Return an array as JAX' own.

    Parameters
    ----------
    array : array
        NumPy or CuPy. NumPy arrays may be aliased on the CPU backend: do not write to them afterwards.

    Returns
    -------
    jax.Array
        On JAX' default device, or on the array's GPU.

    Raises
    ------
    DeviceError
        If the array is on a GPU and JAX sees none.
    """
    import jax

    if not is_cupy(array):
        return jax.device_put(_native(array))
    if jax.default_backend() != "gpu":
        raise DeviceError(
            f"batches are made on cuda:{array.device.id}, but JAX runs on {jax.default_backend()!r}. Install "
            'jax[cuda13], or make the batches on the host: ImageDataGenerator(..., device="cpu")'
        )
    with on_device(array):
        # As device_put does on the host: no 64-bit numbers unless JAX was told so.
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
        alias = jax.dlpack.from_dlpack(array)
    # The only copy on this way: JAX may keep its arrays for ever, and CuPy's pool reuses a block once its array is
    # gone.
    copy, mark = _copying()(alias)
    with _lent_lock:
        _lent.append((array, alias, mark))
        # In order, and without a wait: copies end in the order in which they were asked for, and what is not over waits
        # for the next call.
        while _lent and _lent[0][2].is_ready():
            _lent.popleft()
    return copy


@cache
def _copying() -> Any:
    """Return what copies an array of JAX', and with the copy returns a mark that is ready when the copy is.

    The copy itself must not be asked: a training step may have been given its memory (``donate_argnums``), and
    ``is_ready`` of an array that is deleted ends the process (JAX 0.10).
    """
    import jax

    return jax.jit(lambda alias: (jax.numpy.array(alias, copy=True), jax.numpy.zeros((), bool)))


_lent_to_tensorflow: deque[tuple[Array, Any]] = deque(maxlen=NUM_LENT)


def tensorflow_tensor(array: Array) -> Any:
    """Return an array as an eager tensor.

    Parameters
    ----------
    array : array
        NumPy or CuPy. A NumPy array that begins at a multiple of 64 bytes is aliased, others are copied: do not write
        to it afterwards.

    Returns
    -------
    tf.Tensor
        On the host or the array's GPU.

    Raises
    ------
    DeviceError
        If the array is on a GPU and TensorFlow sees none.
    """
    import tensorflow as tf

    if not is_cupy(array):
        array = _native(array)
        if (
            # What NumPy, DLPack and TensorFlow agree on. NumPy exports no read-only array.
            array.dtype.kind in "iuf"
            and array.itemsize <= 8
            and array.flags.c_contiguous
            and array.flags.writeable
            and not (array.size == 0 or array.ctypes.data % ALIGNMENT)
        ):
            return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        return tf.convert_to_tensor(array)
    if not tf.config.list_physical_devices("GPU"):
        raise DeviceError(
            f"batches are made on cuda:{array.device.id}, but this TensorFlow {tf.__version__} sees no GPU. Install "
            'tensorflow[and-cuda], or make the batches on the host: ImageDataGenerator(..., device="cpu")'
        )
    import cupy

    with on_device(array):
        if array.data.ptr % 64 or not array.flags.c_contiguous:
            array = cupy.array(array, order="C", copy=True)
        # TensorFlow's import does not look at the producer's stream, so the host waits.
        cupy.cuda.get_current_stream().synchronize()
        alias = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    tensor = tf.raw_ops.DeepCopy(x=alias)
    _lent_to_tensorflow.append((array, alias))
    return tensor


def host_array(array: Array) -> np.ndarray:
    """Return an array on the host.

    Parameters
    ----------
    array : array
        NumPy or CuPy.
    """
    host: np.ndarray = array.get() if is_cupy(array) else array
    return host
