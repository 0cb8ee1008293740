"""The part of a file that its plan crops: cut out of an image, and out of the image's mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from gpuseq.base.devices import is_cupy
from gpuseq.base.errors import ImageFileError
from gpuseq.base.types import Array
from gpuseq.decode.pillow import to_array
from gpuseq.ops import dispatch as ops
from gpuseq.plan.program import has_kind

__all__ = ["NUM_PART_COLUMNS", "Cut", "Part", "Whole", "WholeOnHost", "crop_mask", "cut_image", "resize_cuts"]


class Whole(Protocol):
    """Files that were decoded, each of its own size.

    Attributes
    ----------
    images : list
        Item i is file i, ``(h, w, C)``; of no meaning where it failed.
    """

    @property
    def images(self) -> Sequence[Any]:
        """All files."""

    def read(self, work: Callable[[], Array]) -> Array:
        """Return what `work` makes of the images. To be called once."""


@dataclass(frozen=True)
class WholeOnHost:
    """Files that the host decoded: nobody else writes to them.

    Attributes
    ----------
    images : list
        Item i is file i, or what is wrong with it.
    """

    images: Sequence[np.ndarray | ImageFileError]

    def read(self, work: Callable[[], Array]) -> Array:
        """Return what `work` makes of the images."""
        return work()


class Part(NamedTuple):
    """A rectangle of an image's pixels, and the size of the image that it lies in."""

    top: int
    left: int
    height: int
    width: int
    image_height: int
    image_width: int


NUM_PART_COLUMNS = len(Part._fields)


class Cut(NamedTuple):
    """What is resized of an image, and by which filter."""

    pixels: Array
    part: Part
    interpolation: str


def cut_image(image: Array, step: np.ndarray | None, path: str, interpolation: str) -> Cut:
    """Return the part of a file's image that the first step of its program crops, or all of it.

    Parameters
    ----------
    image : array
        Shape ``(h, w, C)``: the whole file.
    step : numpy.ndarray or None
        Shape ``(1, 1)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    path : str
        The file, for messages.
    interpolation : str
        Of an image without a crop; a crop has its own.

    Returns
    -------
    Cut
        Its pixels are a view of the image's.

    Raises
    ------
    ValueError
        If the rectangle lies outside of the image.
    TypeError
        If the image is not of uint8, as grey files of 16 bits are.
    """
    from gpuseq.plan.boxes import with_boxes  # not where no program is: it brings Philox

    if image.dtype != np.uint8:
        raise TypeError(f"augmentations work on uint8 images, levels 0 to 255; {path} holds {image.dtype}")
    height, width = image.shape[:2]
    part = _whole(image)
    if step is not None and has_kind(step, "crop"):
        (crop,) = with_boxes(step, (height, width))[:, 0]
        top, left, rows, cols = crop["arg"][:4].astype(int).tolist()
        part = Part(top, left, rows, cols, height, width)
        interpolation = "bilinear" if crop["bilinear"] else "nearest"
    pixels = _pixels(image, part)
    if pixels.shape[:2] != (part.height, part.width):
        raise ValueError(
            f"{path} has {height} x {width} pixels, and the plan crops {part.height} x {part.width} "
            f"from ({part.top}, {part.left})"
        )
    return Cut(pixels, part, interpolation)


def resize_cuts(cuts: Sequence[Cut | None], shape: tuple[int, ...], device: str) -> Array:
    """Resize the cuts of a batch, each where it lies, in few launches on a GPU; only what comes out is uploaded.

    Parameters
    ----------
    cuts : sequence of Cut or None
        Of each sample; None where its file failed.
    shape : tuple of int
        ``(H, W, C)`` of the result.
    device : str
        ``"cpu"`` or ``"cuda:N"``: where the result is.

    Returns
    -------
    array
        Shape ``(N, H, W, C)``, uint8. The row of a file that failed is of no meaning.
    """
    size = shape[0], shape[1]
    out = ops.empty((len(cuts), *shape), "uint8", device)
    alike: dict[tuple[bool, str], dict[int, Array]] = {}
    for position, cut in enumerate(cuts):
        if cut is not None:
            alike.setdefault((is_cupy(cut.pixels), cut.interpolation), {})[position] = cut.pixels
    for (is_there, interpolation), pixels in alike.items():
        if len(pixels) == len(cuts) and is_there == is_cupy(out):
            return ops.resize(list(pixels.values()), size, interpolation, out=out)
        resized = ops.resize(list(pixels.values()), size, interpolation)
        out[np.array(list(pixels))] = resized if is_there else ops.upload(resized, device)
    return out


def crop_mask(mask: np.ndarray, part: Part, size: tuple[int, int]) -> np.ndarray:
    """Return the part of a mask that was taken of its image, resized to the nearest pixels.

    Parameters
    ----------
    mask : numpy.ndarray
        Shape ``(h, w, 1)``, uint8, uint16 or int32: the whole file. Where it has another size than the image it is of
        the same scene, as without a crop: the rectangle is scaled along.
    part : Part
        Of the image; zeros where it was not made of its file: then all of the mask is taken.
    size : (int, int)
        Rows and columns of the result.

    References
    ----------
    ``torchvision.transforms.v2.functional.resized_crop`` of a PIL image with ``InterpolationMode.NEAREST``; where sizes
    differ, ``PIL.Image.Image.resize`` with ``box=``.
    """
    height, width = mask.shape[:2]
    part = part if any(part) else _whole(mask)
    box = None
    if (height, width) == (part.image_height, part.image_width):
        # Cut out first: positions that are counted from the rim of the whole mask round otherwise.
        mask = _pixels(mask, part)
    else:
        # The product before the quotient: a part that ends with the image ends with the mask, to the bit.
        x0, x1 = (x * width / part.image_width for x in (part.left, part.left + part.width))
        y0, y1 = (y * height / part.image_height for y in (part.top, part.top + part.height))
        box = x0, y0, x1, y1
    # Pillow itself: it adds positions up for 8 and 32 bits, and multiplies for 16.
    resized = Image.fromarray(mask[..., 0]).resize(size[::-1], Image.Resampling.NEAREST, box)
    return to_array(resized)


def _whole(image: Array) -> Part:
    height, width = image.shape[:2]
    return Part(0, 0, height, width, height, width)


def _pixels(image: Array, part: Part) -> Array:
    # A negative start would count from the end: what is cut off here makes the shape a wrong one.
    return image[max(part.top, 0) : part.top + part.height, max(part.left, 0) : part.left + part.width]
