"""EXIF orientation: what a file says of it, and an image turned as it says."""

from __future__ import annotations

from PIL import Image

from gpuseq.base.errors import ImageFileError

from .pillow import decode_failure, open_image

__all__ = ["orientation_of", "transpose"]

_ORIENTATION = 0x0112

_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(encoded: bytes, name: str) -> int:
    """Return the EXIF orientation, 1 to 8, of an encoded image; 1 where it says nothing.

    Parameters
    ----------
    encoded : bytes
        A whole image file.
    name : str
        For messages.

    Raises
    ------
    ImageFileError
        If its header cannot be read.
    """
    try:
        orientation = open_image(encoded, None, name).getexif().get(_ORIENTATION, 1)
    except ImageFileError:
        raise
    except Exception as error:
        raise ImageFileError(name, decode_failure(error)) from error
    return orientation if orientation in _TRANSPOSED else 1


def transpose(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as its EXIF orientation says.

    Parameters
    ----------
    image : PIL.Image.Image
        As it is stored.
    orientation : int
        From `orientation_of`.

    References
    ----------
    ``PIL.ImageOps.exif_transpose``.
    """
    method = _TRANSPOSED.get(orientation)
    return image if method is None else image.transpose(method)
