"""`Compose`: the modern augmentations as a callable on batches, drawn per sample."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from gpuseq.base.arguments import check_choice, check_count, checked_arguments, checked_data_format, checked_dtype, warn
from gpuseq.base.devices import is_cupy, on_device, place, resolve_device
from gpuseq.base.types import Array, BatchDType, DataFormat, Device, SameArray
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import params_at_rest
from gpuseq.plan.draw import freeze
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.policies.geometry import RandomResizedCrop
from gpuseq.plan.policies.recipe import Augmentations, Recipe
from gpuseq.plan.program import only_geometry

__all__ = ["Compose"]

_UNKEYED = 1 << 63
"""Added to the number of a call, where there is no epoch: the two count apart, for epochs lie below."""


class Compose:
    """Augmentations one after another on batches of uint8 images, each sample with numbers of its own.

    Takes NumPy, CuPy, PyTorch and JAX arrays and returns what it got. Without `sample_ids` and `epoch` every call draws
    anew; with both, the picture of a sample depends on (seed, epoch, sample id) alone.

    Parameters
    ----------
    augmentations : Augmentation, str or list of them
        As `~gpuseq.ImageDataGenerator` takes them.
    seed : int or None
        None takes one from NumPy's global stream, now.
    dtype : str or None
        Of the result, in levels 0 to 255; None keeps uint8.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of what comes in and goes out. None: "channels_last".
    device : {"cpu", "cuda", "cuda:N"} or None
        Where to work; the result stays there. None: where the images are.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the accepted values.
    DeviceError
        If there is no such device.

    References
    ----------
    ``torchvision.transforms.v2.Compose``.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuseq
    >>> augment = gpuseq.Compose([gpuseq.RandAugment(), gpuseq.RandomHorizontalFlip()], seed=1)
    >>> images = np.zeros((4, 32, 32, 3), np.uint8)
    >>> augment(images, epoch=3, sample_ids=[10, 11, 12, 13]).shape
    (4, 32, 32, 3)
    """

    @checked_arguments()
    def __init__(
        self,
        augmentations: Augmentations,
        *,
        seed: int | None = None,
        dtype: BatchDType | None = None,
        data_format: DataFormat | None = None,
        device: Device | None = None,
    ) -> None:
        recipe = Recipe.parse("Compose", augmentations)
        if recipe is None:
            raise ValueError("Compose got no augmentations: there is nothing to do")
        check_count("seed", seed, least=0)
        if seed is not None and seed >= 1 << 64:
            raise ValueError(f"seed must be below 2**64; got {seed!r}")
        self.recipe = recipe
        # From the global stream, as Keras' unseeded iterators: `numpy.random.seed` makes it repeatable.
        self.seed = int(np.random.randint(2**31)) if seed is None else int(seed)
        self.device = None if device is None else resolve_device(device)
        self.dtype = "uint8" if dtype is None else checked_dtype(dtype, self.device or "cpu")
        self.data_format = checked_data_format(data_format)
        self._num_calls = 0

    def __repr__(self) -> str:
        dtype = "" if self.dtype == "uint8" else f", dtype={self.dtype!r}"
        order = "" if self.data_format == "channels_last" else f", data_format={self.data_format!r}"
        return f"Compose({self.recipe!r}, seed={self.seed}{dtype}{order})"

    @checked_arguments()
    def __call__(self, images: SameArray, *, epoch: int | None = None, sample_ids: Any = None) -> SameArray:
        """Return the augmented batch.

        Parameters
        ----------
        images : array
            Shape ``(N, H, W, C)`` or ``(N, C, H, W)``, uint8; or with a time axis after N, of frames that share a
            sample's steps. Not written to.
        epoch : int or None
            Another epoch, other numbers. None: another call, other numbers; each worker process of a DataLoader has its
            own.
        sample_ids : sequence of int or None
            Shape ``(N,)``. None: the position in the batch.

        Returns
        -------
        array
            Of the library of `images`, and where they are, or on `device`.

        Raises
        ------
        TypeError
            If the images are not uint8, or no array.
        ValueError
            If their rank, their channels or the number of ids do not fit.
        """
        array, back = _taken(images)
        self._check(array)
        size = self._size(array.shape)
        plan = self.plan(len(array), size, epoch=epoch, sample_ids=sample_ids)
        made: SameArray = back(self._made(array, plan))
        return made

    @checked_arguments()
    def plan(
        self, n: int, image_size: tuple[int, int], *, epoch: int | None = None, sample_ids: Any = None
    ) -> BatchPlan:
        """Draw the plan of a batch without making it.

        Parameters
        ----------
        n : int
            Samples.
        image_size : (int, int)
            Rows and columns.
        epoch, sample_ids
            As in a call.

        Returns
        -------
        BatchPlan
            For `apply`: to images, and to their masks.

        Raises
        ------
        ValueError
            If `image_size` is no pair of sides of at least a pixel, or `sample_ids` are not `n` integers.
        """
        check_count("epoch", epoch, least=0)
        if epoch is not None and epoch >= _UNKEYED:
            raise ValueError(f"epoch must be below 2**63; got {epoch!r}")
        check_count("n", n, least=0, or_none=False)
        rows, cols = _checked_size(image_size)
        ids = np.arange(n) if sample_ids is None else _checked_ids(sample_ids, n)
        seed, number = self.seed, epoch
        if number is None:
            # Worker processes are copies of this object and count calls alike; torch's seed of the worker tells them
            # apart.
            number, self._num_calls = _UNKEYED + self._num_calls, self._num_calls + 1
            seed = (seed ^ _worker_seed()) % 2**64
        program = self.recipe.draw(ids, (rows, cols), seed=seed, epoch=number)
        params = params_at_rest(n)
        freeze(ids, params, program)
        return BatchPlan(
            indices=ids,
            params=params,
            epoch=-1 if epoch is None else int(epoch),
            image_size=(rows, cols),
            program=program,
        )

    @checked_arguments()
    def apply(
        self, plan: BatchPlan, images: SameArray, interpolation: Literal["nearest"] | None = None, fill: int = 0
    ) -> SameArray:
        """Make the batch of a plan.

        Parameters
        ----------
        plan : BatchPlan
            From `plan`.
        images : array
            As in a call; masks may have any dtype.
        interpolation : {"nearest", None}
            "nearest" is for masks: they get the geometry, with nearest pixels, and nothing else. None does all of it.
        fill : int
            For masks: 0 to 255, where no pixel comes from.

        Returns
        -------
        array
            As from a call; masks keep their dtype.

        Raises
        ------
        ValueError
            If the plan is of another number of samples or another image size.
        """
        check_choice("interpolation", interpolation, (None, "nearest"))
        check_count("fill", fill, least=0, or_none=False)
        if fill > 255:
            raise ValueError(f"fill must be from 0 to 255; got {fill!r}")
        if not isinstance(plan, BatchPlan):
            raise TypeError(f"apply takes a plan, from Compose.plan, and then images; got {type(plan).__name__}")
        array, back = _taken(images)
        if plan.program is None:
            raise ValueError("the plan holds no program: it was drawn by something else than Compose.plan")
        # Masks may be of any dtype; images are levels.
        if interpolation is None:
            self._check(array)
        if len(array) != len(plan) or self._size(array.shape) != plan.image_size:
            raise ValueError(
                f"the plan was drawn for {len(plan)} images of {plan.image_size}; got {len(array)} of "
                f"{self._size(array.shape)}"
            )
        if interpolation is None:
            made: SameArray = back(self._made(array, plan))
            return made
        if self.device is not None:
            array = place(array, self.device)
        frames, program = _flat(array, only_geometry(plan.program, fill))
        mask: SameArray = back(self._outgoing(array, ops.run_geometry(frames, program, self.data_format)))
        return mask

    def _check(self, array: Array) -> None:
        if array.ndim not in (4, 5):
            more = ": one image is a batch of one, images[None]" if array.ndim == 3 else ""
            raise ValueError(f"a batch has rank 4, or 5 with time; got shape {tuple(array.shape)}{more}")
        if array.dtype != np.uint8:
            is_float = array.dtype.kind == "f"
            raise TypeError(
                f"{self.recipe!r} work on uint8 images, levels 0 to 255, as Pillow's do; got {array.dtype}. "
                + ("Augment before scaling to floats" if is_float else "Hand in images of dtype uint8")
            )
        num_channels, num_others = array.shape[-1], array.shape[-3]
        if self.data_format == "channels_first":
            num_channels, num_others = num_others, num_channels
        # So few rows of so many channels are no image: steps that take any number would be done along the wrong axes.
        if num_channels >= 16 and num_others in (1, 3, 4):
            other = "channels_last" if self.data_format == "channels_first" else "channels_first"
            warn(
                f"images of shape {tuple(array.shape)} have {num_channels} channels with "
                f"data_format={self.data_format!r}: Compose(..., data_format={other!r}) takes {num_others}"
            )
        self.recipe.check_channels(num_channels)

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        rows, cols = shape[-3:-1] if self.data_format == "channels_last" else shape[-2:]
        return int(rows), int(cols)

    def _made(self, array: Array, plan: BatchPlan) -> Array:
        if self.device is not None:
            array = place(array, self.device)
        assert plan.program is not None
        # Frames of a sample share its steps, so a clip moves as one.
        frames, program = _flat(array, plan.program)
        order = self.data_format
        options = AugmentOptions(source_format=order, data_format=order, dtype=self.dtype)
        with on_device(frames):
            return self._outgoing(array, ops.run_program(frames, program, options))

    def _outgoing(self, array: Array, frames: Array) -> Array:
        """Return frames in the batch and the clips of `array`."""
        shape = frames.shape[1:]
        # A program of no sample says nothing of a crop.
        if not len(frames) and self.output_size is not None:
            last = self.data_format == "channels_last"
            shape = (*self.output_size, shape[2]) if last else (shape[0], *self.output_size)
        return frames.reshape(*array.shape[: array.ndim - 3], *shape)

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Rows and columns of the result; None where they are those that come in."""
        first = self.recipe.augmentations[0]
        return first.target_size if isinstance(first, RandomResizedCrop) else None


def _checked_size(image_size: Any) -> tuple[int, int]:
    """Return rows and columns, or refuse what is no pair of them."""
    sides = tuple(image_size) if np.iterable(image_size) else ()
    if len(sides) != 2 or not all(hasattr(side, "__index__") and side >= 1 for side in sides):
        raise ValueError(f"image_size must be rows and columns, of at least a pixel each; got {image_size!r}")
    return int(sides[0]), int(sides[1])


def _checked_ids(sample_ids: Any, n: int) -> np.ndarray:
    """Return the numbers of `n` samples as int64, a copy, or refuse what is none."""
    # As they are at first: a number that is cut off, of 1.7 or of 2**64, would be another sample's.
    reason = None
    try:
        ids = np.asarray(sample_ids)
        if ids.shape == (n,) and (not n or (ids.dtype.kind in "iu" and ids.min() >= 0 and ids.max() < 1 << 63)):
            return ids.astype(np.int64)
    except (TypeError, ValueError) as error:
        reason = error
    raise ValueError(f"sample_ids must be {n} integers from 0 to 2**63 - 1; got {sample_ids!r}") from reason


def _flat(array: Array, program: np.ndarray) -> tuple[Array, np.ndarray]:
    """Return the frames of a batch as a batch, each with its sample's steps."""
    if array.ndim == 4:
        return array, program
    return array.reshape(-1, *array.shape[2:]), np.repeat(program, array.shape[1], axis=0)


def _taken(images: Any) -> tuple[Array, Callable[[Array], Any]]:
    """Return images as a NumPy or CuPy array, without a copy where there is a way, and how a result goes back."""
    if isinstance(images, np.ndarray) or is_cupy(images):
        return images, lambda batch: batch
    library = type(images).__module__.partition(".")[0]
    # An array of a library is there only where the library is imported.
    module = sys.modules.get("jax" if library in ("jax", "jaxlib") else library)
    if library == "torch" and module is not None:
        return _by_dlpack(images.detach()), module.from_dlpack
    if library in ("jax", "jaxlib") and module is not None:
        return _by_dlpack(images), module.numpy.from_dlpack
    if isinstance(images, list | tuple):
        raise TypeError(
            f"a batch is one array; got a {type(images).__name__} of {len(images)}: np.stack(images), of images of one "
            "size"
        )
    raise TypeError(
        f"a batch is an array of NumPy, CuPy, PyTorch or JAX; got {type(images).__name__}. Pillow's image: "
        "np.asarray(image)[None]"
    )


def _by_dlpack(images: Any) -> Array:
    kind, _ = images.__dlpack_device__()
    # DLPack's number for the host.
    if int(kind) == 1:
        try:
            return np.from_dlpack(images)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(
                f"{images.dtype} is no dtype that NumPy has: images are uint8, and masks of any that it has"
            ) from error
    import cupy

    return cupy.from_dlpack(images)


def _worker_seed() -> int:
    """Return what tells the worker processes of a DataLoader apart, and their epochs; 0 outside of one."""
    # Asked of the module that torch has loaded, so that torch is not imported for it.
    worker = sys.modules.get("torch.utils.data._utils.worker")
    info = None if worker is None else worker._worker_info
    return 0 if info is None else int(info.seed)


Compose.__module__ = "gpuseq"  # where users find it: see there
