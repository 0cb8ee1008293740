"""Masks of images: found, fetched, and dropped together with their images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpuseq.base.devices import is_cupy, on_device
from gpuseq.base.types import Array, DataFormat
from gpuseq.decode.options import DecodeOptions
from gpuseq.files.folders import few, list_images
from gpuseq.files.reading import is_url
from gpuseq.plan.plan import BatchPlan

from .arrays import ArraySource
from .files import FileSource
from .options import MaskOptions
from .source import Fetched, Source

__all__ = ["PairedMasks", "find_masks", "masks_among", "masks_of_arrays", "masks_of_files"]


class PairedMasks:
    """Sources of masks beside that of the images: what `gpuseq.transforms.masks` warps by the images' own plan.

    Parameters
    ----------
    sources : sequence of Source
        One per mask, over the same samples as the images.
    dtypes : list of numpy.dtype or None
        What each mask is handed out in: its own dtype. None: as its file had it.
    source_format : {"channels_last", "channels_first"}
        Axis order of the sources.
    device : str
        ``"cpu"`` or ``"cuda:N"``.
    as_list : bool
        Whether several masks were asked for, and a list of them is handed out.
    ignore_value : int or None
        What masks hold where the transform shows what lies beyond the border. None: as the images are filled.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        dtypes: Sequence[np.dtype[Any] | None],
        source_format: DataFormat,
        device: str,
        as_list: bool,
        ignore_value: int | None = None,
    ) -> None:
        # One plan for all of them. Keras' recipe, two iterators with one seed, drifts apart as soon as one of the two
        # is asked once more (keras-preprocessing#125).
        self.sources = list(sources)
        self.dtypes = list(dtypes)
        self.source_format = source_format
        self.device = device
        self.as_list = as_list
        self.ignore_value = ignore_value

    def describe(self) -> list[tuple[str, str]]:
        """Say how masks come beside their images, as a step of ``explain``."""
        crops = any(isinstance(source, FileSource) and source.crops for source in self.sources)
        shared = "crops, maps and flips" if crops else "maps and flips"
        return [("masks", f"the same plan: the same {shared}, nearest neighbour, no colours")]

    def fetch(self, fetched: Fetched, plan: BatchPlan) -> tuple[Fetched, BatchPlan, list[Fetched]]:
        """Return the masks of a batch, and the batch without the samples whose mask could not be read.

        Parameters
        ----------
        fetched : Fetched
            The images.
        plan : BatchPlan
            Theirs, one row for each.

        Returns
        -------
        fetched, plan
            Of the samples that have all of their masks.
        masks : list of Fetched
            One for each source, of the same samples; as they are kept, to be warped by `plan`.

        Raises
        ------
        ImageFileError
            If a mask cannot be read and ``on_error`` says so.
        """
        masks: list[Fetched] = []
        for source in self.sources:
            # By the images' own sample numbers: where an image was substituted, the mask is that of its substitute.
            found = self._fetch(source, fetched)
            if found.positions is not None:
                fetched, plan = _keep(fetched, found.positions), plan.take(found.positions)
                # A sample has to have all of its masks: those of earlier sources are cut down, too.
                masks = [_keep(earlier, found.positions) for earlier in masks]
            masks.append(found)
        return fetched, plan, masks

    @staticmethod
    def _fetch(source: Source, fetched: Fetched) -> Fetched:
        if fetched.parts is None:
            return source.fetch(fetched.sample_indices)
        assert isinstance(source, FileSource)  # files alone are cropped where they are decoded
        return source.fetch_parts(
            fetched.sample_indices, fetched.parts if fetched.rows is None else fetched.parts[fetched.rows]
        )

    def expect(self, upcoming: Sequence[np.ndarray], current: np.ndarray | None = None) -> None:
        """Announce the next batches, as `FileSource.expect` has it."""
        for source in self.sources:
            source.expect(upcoming, current)

    def close(self) -> None:
        """Stop what runs in the background."""
        for source in self.sources:
            source.close()


def masks_of_arrays(
    masks: Any, images: Array, data_format: DataFormat, device: str, part: slice, ignore_value: int | None = None
) -> PairedMasks:
    """Pair arrays of masks with an array of images.

    Parameters
    ----------
    masks : array, or list or tuple of array
        Each ``(n, H, W)`` or like the images with any number of channels; any real or boolean dtype, which is kept.
    images : array
        The images, before `part` is taken of them.
    data_format : {"channels_last", "channels_first"}
        Axis order.
    device : str
        Where batches are made.
    part : slice
        The subset.
    ignore_value : int or None
        See `PairedMasks`.

    Raises
    ------
    ValueError
        If the length or the size of a mask is not the images', or its dtype cannot hold `ignore_value`.
    TypeError
        If a mask holds no numbers.
    """
    as_list = isinstance(masks, (list, tuple))
    sources, dtypes = [], []
    channel_axis = 3 if data_format == "channels_last" else 1
    # Any number of channels, since one-hot masks have one for each class; rows and columns have to agree.
    size = tuple(np.delete(images.shape, channel_axis)) if len(images.shape) == 4 else None
    for mask in masks if as_list else [masks]:
        array = mask if is_cupy(mask) else np.asarray(mask)
        if array.dtype.kind not in "buif":
            raise TypeError(f"masks must be arrays of numbers; got dtype {array.dtype}")
        if array.ndim == 3:
            array = array[..., None] if channel_axis == 3 else array[:, None]
        if array.ndim != 4 or tuple(np.delete(array.shape, channel_axis)) != size:
            raise ValueError(
                f"masks must have the images' length, rows and columns: x.shape = {images.shape}, "
                f"masks.shape = {tuple(mask.shape) if hasattr(mask, 'shape') else np.shape(mask)}"
            )
        # A float holds every level; integers may be too small for it.
        if ignore_value is not None and array.dtype.kind in "biu" and not _holds(array.dtype, ignore_value):
            raise ValueError(
                f"masks of {array.dtype} cannot hold ignore_value={ignore_value}: masks.astype('uint8') can"
            )
        dtypes.append(array.dtype)
        with on_device(array):
            # Cast once, at construction, and only where the ops do not read the dtype.
            exact = _exact(array[part])
        sources.append(ArraySource(exact, device))
    if not sources:
        raise ValueError("masks is an empty list: give one array, or a list of them")
    return PairedMasks(sources, dtypes, data_format, device, as_list, ignore_value)


def masks_of_files(
    paths: Sequence[str],
    options: DecodeOptions,
    images: FileSource,
    device: str,
    ignore_value: int | None = None,
) -> PairedMasks:
    """Pair files of masks with files of images: labels, nearest in the resize, read ahead and kept like the images.

    Parameters
    ----------
    paths : sequence of str
        One per image, in the images' order.
    options : DecodeOptions
        The images'.
    images : FileSource
        The images' source, whose policy on bad files is the masks'; whose crops are, too.
    device : str
        Where batches are made.
    ignore_value : int or None
        See `PairedMasks`.
    """
    # A mask without its image is of no use: what is substituted for images is left out here.
    on_error = "raise" if images.on_error == "raise" else "skip"
    cache = images.cache
    source = FileSource(
        paths,
        replace(options, color_mode="grayscale", interpolation="nearest", decoder="pillow", keep_palette=True),
        on_error=on_error,  # type: ignore[arg-type]
        prefetch=images.prefetch,
        # In what the images' cache leaves of its limit: nothing, where they do not fit themselves.
        cache=None if cache is None else "host" if cache.device == "cpu" else "device",
        memory_limit=None if cache is None else cache.spare_bytes,
        device=device,
    )
    source.crops = images.crops
    return PairedMasks([source], [None], "channels_last", device, False, ignore_value)


def masks_among(directory: str, masks: MaskOptions) -> Callable[[str], bool] | None:
    """Return what tells masks that lie among the images; None where the two have folders apart.

    Parameters
    ----------
    directory : str
        The images' folder.
    masks : MaskOptions
        Where the masks are.

    """
    if masks.mask_directory is None or is_url(directory):
        return None
    # With links followed on both sides: one folder may be reached by two names.
    inner = os.path.relpath(os.path.realpath(masks.mask_directory), os.path.realpath(directory))
    if inner == ".":
        suffix = masks.mask_suffix
        return (lambda name: os.path.splitext(name)[0].endswith(suffix)) if suffix else None
    # With the separator at its end, so that "masks2/" does not count as within "masks".
    inside = os.path.join(inner, "")
    return None if inner.startswith("..") else (lambda name: os.path.normpath(name).startswith(inside))


def find_masks(
    mask_directory: str | os.PathLike[str], filenames: Sequence[str], extensions: Sequence[str], suffix: str = ""
) -> list[str]:
    """Return the path of the mask of each image: the same relative path and the suffix, with any image extension.

    Parameters
    ----------
    mask_directory : str or os.PathLike
        A folder built like the images'.
    filenames : sequence of str
        Of the images, relative to their folder.
    extensions : sequence of str
        Of image files, lower case.
    suffix : str
        What the mask's name has behind the image's, before the extension.

    Raises
    ------
    FileNotFoundError
        If the folder, or the mask of an image, is not there; the message names the first ones.
    ValueError
        If an image has two masks.
    """
    root = os.fspath(mask_directory)
    found: dict[str, list[str]] = {}
    try:
        # The folder is listed once, whatever the number of images: a look for each image and each extension would be a
        # call of the system or of a store.
        names = list_images(root, tuple(extensions), follow_links=True)
    except OSError as error:
        raise FileNotFoundError(f"mask_directory={root!r} is not an existing folder that can be listed") from error
    for name in names:
        found.setdefault(os.path.normpath(os.path.splitext(name)[0]), []).append(os.path.join(root, name))
    paths, missing = [], []
    for name in filenames:
        stem = os.path.normpath(os.path.splitext(name)[0])
        candidates = found.get(stem + suffix, [])
        if len(candidates) > 1:
            raise ValueError(f"{name!r} has {len(candidates)} masks: {', '.join(sorted(candidates))}. Keep one of them")
        if candidates:
            paths.append(candidates[0])
        else:
            missing.append(name)
    if missing:
        what = f"the same relative path with {suffix!r} behind it and" if suffix else "the same relative path with"
        raise FileNotFoundError(
            f"{len(missing)} of {len(filenames)} images have no mask under {root!r}, where {what} any image extension "
            f"is looked up. Missing: {few(missing)}{_near(missing[0], found)}"
        )
    return paths


def _near(missing: str, found: Mapping[str, Sequence[str]]) -> str:
    """Return where the mask of an image seems to be, and the argument that finds it there."""
    stem = os.path.normpath(os.path.splitext(missing)[0])
    first, _, rest = stem.partition(os.sep)
    if rest in found:
        return f". There is {found[rest][0]!r}: is {first!r} the folder of the images, and directory to end in it?"
    for name, paths in found.items():
        if name.startswith(stem) and not name[len(stem)].isalnum():
            return f". There is {paths[0]!r}: mask_suffix={name[len(stem) :]!r} finds it"
    return ""


def _holds(dtype: np.dtype[Any], value: int) -> bool:
    return dtype.kind != "b" and value <= np.iinfo(dtype).max


def _exact(array: Array) -> Array:
    """Return a mask in a dtype that the ops read and that holds its values exactly (integers up to 2**53)."""
    if array.dtype in (np.uint8, np.uint16, np.float32, np.float64):
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    # float32 counts exactly to 2**24, float64 to 2**53.
    small = array.dtype.itemsize <= 2
    return array.astype(np.float32 if small else np.float64)


def _keep(fetched: Fetched, positions: np.ndarray) -> Fetched:
    rows = np.arange(len(fetched.sample_indices)) if fetched.rows is None else fetched.rows
    return fetched._replace(rows=rows[positions], positions=positions, sample_indices=fetched.sample_indices[positions])
