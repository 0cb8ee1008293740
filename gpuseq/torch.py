"""Batches for PyTorch: `loader` around an iterator, and `augment` for tensors that are there already."""

from __future__ import annotations

import mmap
import sys
import warnings
from collections.abc import Iterator as IteratorABC
from struct import Struct
from typing import Any

import numpy as np

from gpuseq.base.arguments import checked_data_format
from gpuseq.base.errors import GpuseqError, require
from gpuseq.base.types import DataFormat
from gpuseq.feed.loader import Loader
from gpuseq.feed.lookahead import map_arrays
from gpuseq.feed.tensors import cupy_view, torch_memory, torch_tensor
from gpuseq.generator import ImageDataGenerator
from gpuseq.iterators.iterator import Iterator
from gpuseq.plan.draw import draw_keyed

torch = require("torch", extra="torch", purpose="gpuseq.torch")

__all__ = ["TorchLoader", "augment", "loader"]

_TOLD = Struct("=QQ")


def loader(iterator: Iterator, data_format: DataFormat | None = None) -> TorchLoader:
    """Turn an iterator into what a PyTorch training loop iterates over.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of images and masks. None: "channels_first", ``(N, C, H, W)``, as PyTorch's layers want it, unless
        the generator was told another one. The arrays that a flow is made from keep theirs.

    Returns
    -------
    TorchLoader
        Its batches are tensors where the iterator makes them: over the same memory on the host, in torch's own memory
        on a GPU. Class indices, those of ``class_mode="sparse"`` and integers of shape ``(N,)``, are int64.

    Raises
    ------
    TypeError
        If `iterator` is something else.
    ValueError
        If there is no such axis order.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuseq import ImageDataGenerator
    >>> from gpuseq.torch import loader
    >>> images = np.zeros((5, 8, 8, 3), np.uint8)
    >>> flow = ImageDataGenerator(device="cpu").flow(images, np.arange(5), batch_size=2, seed=1)
    >>> [(tuple(images.shape), labels.dtype) for images, labels in loader(flow)]
    [((2, 3, 8, 8), torch.int64), ((2, 3, 8, 8), torch.int64), ((1, 3, 8, 8), torch.int64)]
    """
    return TorchLoader(iterator, data_format)


class TorchLoader(Loader, torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]  # numpydoc ignore=PR02
    """An iterable with a length, ``sampler.set_epoch``, ``state_dict`` and ``load_state_dict``.

    Use it as it is, in Lightning, or where a ``DataLoader`` is demanded as ``DataLoader(loader, batch_size=None)`` or
    torchdata's ``StatefulDataLoader(loader, batch_size=None)``. No worker processes are needed: files are decoded ahead
    on threads. With ``num_workers=n`` on the CPU each process makes every n-th batch, in order, each once. Processes
    that are made anew for each pass begin where this loader stands: call ``sampler.set_epoch`` before each epoch. With
    ``persistent_workers=True`` they begin there once and count on: each pass, be it left early or not, is followed by
    the next epoch, and no later ``set_epoch`` reaches them, which they say. A state that StatefulDataLoader saved after
    the last batch gives an empty pass, the rest of its epoch, and then the next one.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of images and masks. None: "channels_first", ``(N, C, H, W)``, as PyTorch's layers want it, unless
        the generator was told another one. The arrays that a flow is made from keep theirs.
    """

    batch_sampler = None
    """Lightning asks everything that has a `sampler` for this, too, where it validates."""

    def __init__(self, iterator: Iterator, data_format: DataFormat | None = None) -> None:
        super().__init__(iterator)
        if data_format is not None or not iterator._is_told_format:
            data_format = "channels_first" if data_format is None else checked_data_format(data_format)
        # PyTorch's layers want channels first, and its losses class indices of int64: what was not chosen follows that.
        iterator._hand_out(data_format, "int64")
        self._begin_told()

    def _begin_told(self) -> None:
        # The number of calls of `set_epoch` and the last one's epoch, in memory that forked workers see change.
        self._told = mmap.mmap(-1, _TOLD.size)
        self._num_told = 0  # when this process' copy was made

    def __getstate__(self) -> dict[str, Any]:
        # Shared memory is for forked children; a pickled copy has its own.
        return {key: value for key, value in self.__dict__.items() if key != "_told"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_told()

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its start; in worker processes, if they are started after this call.

        Parameters
        ----------
        epoch : int
            From 0.

        Raises
        ------
        ValueError
            If `epoch` is not a non-negative integer.
        """
        super().set_epoch(epoch)
        self._num_told += 1
        _TOLD.pack_into(self._told, 0, self._num_told, epoch)

    def __iter__(self) -> IteratorABC[Any]:
        """Begin a pass over the current epoch.

        Raises
        ------
        GpuseqError
            In a ``DataLoader`` without ``batch_size=None``, which would make batches of batches; in a worker process,
            where batches are made on a GPU.
        """
        # That a DataLoader collates is said in a local variable of its fetcher only, where it asks for items.
        if sys._getframe(1).f_locals.get("auto_collation"):
            raise GpuseqError(
                "a loader's items are batches, and this DataLoader would make batches of them. Write "
                "DataLoader(loader, batch_size=None)"
            )
        begun = super().__iter__()
        if self._worker() is not None:
            self._say_what_is_not_heard(self._next.epoch - 1)
        return begun

    def _say_what_is_not_heard(self, epoch: int) -> None:
        num_told, told = _TOLD.unpack_from(self._told, 0)
        # The main process may have left this pass already, and be one further.
        if num_told > self._num_told and told not in (epoch, epoch + 1):
            self._num_told = num_told
            warnings.warn(
                f"set_epoch({told}) came after this worker process was started, and does not reach it: this pass is "
                f"epoch {epoch}, and each one after it the next. Leave out persistent_workers=True, or num_workers",
                stacklevel=2,
            )

    def _worker(self) -> tuple[int, int] | None:
        worker = torch.utils.data.get_worker_info()
        if worker is None:
            return None
        if getattr(self.iterator, "device", "cpu") != "cpu":
            raise GpuseqError(
                "batches are made on a GPU, and a CUDA context does not survive in a worker process. Use "
                "DataLoader(loader, batch_size=None, num_workers=0), or the loader without a DataLoader"
            )
        return worker.id, worker.num_workers

    def _make(self, epoch: int, index: int) -> Any:
        with torch_memory(getattr(self.iterator, "device", "cpu")) as blocks:
            # Made and turned into tensors within torch's own memory, so that nothing is copied from one pool to the
            # other.
            batch = self.iterator.replay(self.iterator.plan_batch(index, epoch=epoch))
            batch = map_arrays(lambda array: torch_tensor(array, blocks), batch)
        return (batch[0], _as_indices(batch[1]), *batch[2:]) if isinstance(batch, tuple) else batch


def _as_indices(labels: Any) -> Any:
    """Return labels with class indices as int64, the one type that PyTorch's losses take for them."""
    if isinstance(labels, (list, tuple)):
        return type(labels)(_as_indices(item) for item in labels)
    # One axis alone: masks have four, and may be uint8 for a reason.
    is_index = labels.ndim == 1 and labels.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32)
    return labels.to(torch.int64) if is_index else labels


def augment(images: Any, generator: ImageDataGenerator, *, seed: int, epoch: int = 0, sample_ids: Any = None) -> Any:
    """Transform a batch of tensors, each image by parameters of its own.

    Parameters
    ----------
    images : torch.Tensor
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as the generator's `data_format` says, on the host or a GPU; uint8,
        uint16 or floating. Not written to; gradients do not flow through.
    generator : ImageDataGenerator
        What is done: everything from the rotation to the standard deviation.
    seed : int
        With the generator's ``rng="keras"`` the parameters are those of ``RandomState(seed)``, in order. With "keyed"
        those of sample i are a function of (seed, epoch, ``sample_ids[i]``).
    epoch : int
        For "keyed".
    sample_ids : tensor, array or None
        For "keyed": shape ``(N,)``, integers. None: 0 to N - 1.

    Returns
    -------
    torch.Tensor
        Shape of `images`, the generator's dtype, where `images` is.

    Raises
    ------
    ValueError
        If `images` has not four axes, `sample_ids` another length, `seed` or `epoch` is negative, or the generator
        overrides ``get_random_transform``, which "keyed" cannot ask, or has augmentations.
    TypeError
        If `images` is no tensor, or `seed`, `epoch` or one of `sample_ids` no integer.
    """
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a torch.Tensor; got {type(images).__name__}. For arrays see generator.flow")
    if images.ndim != 4:
        raise ValueError(f"images must have four axes; got shape {tuple(images.shape)}")
    # They take images of uint8 after the ranges, which have made floats of them: left out, they would not be missed.
    if generator.augmentations is not None:
        raise ValueError(
            f"augment() does the generator's ranges, and not augmentations={generator.augmentations!r}: call "
            "gpuseq.Compose(...) of them on the tensors, and give augment() a generator without"
        )
    # Batches of PyTorch are channels first nearly always; three columns and hundreds of channels are not meant.
    if generator._told_format is None and images.shape[3] not in (1, 3, 4) and images.shape[1] in (1, 3, 4):
        raise ValueError(
            f"images of shape {tuple(images.shape)} are (N, C, H, W), and the generator was made for (N, H, W, C): "
            'ImageDataGenerator(..., data_format="channels_first")'
        )
    for name, number in (("seed", seed), ("epoch", epoch)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"{name} must be an integer; got {number!r} of type {type(number).__name__}")
        if not 0 <= number < 2**32:
            raise ValueError(f"{name} must be from 0 to 2**32 - 1; got {number!r}")
    if images.dtype not in (torch.uint8, torch.uint16, torch.float32, torch.float64):
        images = images.to(torch.float32)
    height, width = images.shape[generator.row_axis], images.shape[generator.col_axis]
    generator._check_conventions((height, width))
    if generator.rng == "keyed":
        if generator._draws_its_own:
            raise ValueError(
                f'rng="keyed" draws the numbers of {type(generator).__name__} by key, and cannot ask the '
                'get_random_transform that it overrides: use rng="keras"'
            )
        ids = np.arange(len(images)) if sample_ids is None else np.asarray(sample_ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise TypeError(f"sample_ids must be integers; got {ids.dtype}")
        if ids.shape != (len(images),):
            raise ValueError(f"sample_ids must have shape ({len(images)},); got {ids.shape}")
        params = draw_keyed(generator._transform_ranges, ids.astype(np.int64), height, width, seed=seed, epoch=epoch)
    else:
        stream: Any = np.random.RandomState(seed)
        params = generator._drawing(tuple(images.shape[1:])).params(stream, len(images))
    device = "cpu" if images.device.type == "cpu" else f"cuda:{images.device.index}"
    # One stream and one pool for the tensor that comes in, the work on it and the tensor that goes out.
    # Contiguous: a tensor may be a view with any strides, and the engines read rows one behind the other.
    with torch_memory(device) as blocks:
        return torch_tensor(generator.process(cupy_view(images.contiguous()), params), blocks)
