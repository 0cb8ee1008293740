"""Small pictures of a batch for notebooks, as HTML that needs nothing beside itself."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gpuseq.base.devices import is_cupy
from gpuseq.base.types import Array

__all__ = ["SIDE", "picture_strip", "pictures_of"]

SIDE = 112
"""Longest side of a picture, in pixels."""


def pictures_of(batch: Array, data_format: str) -> list[Image.Image]:
    """Turn a batch into small pictures: as it is where it spans 0..255 or 0..1, else stretched image by image.

    Parameters
    ----------
    batch : array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)``, any real dtype, on the host or a device; not written to. The first
        three channels are shown, or the first where there are fewer.
    data_format : {"channels_last", "channels_first"}
        Its axis order.

    Returns
    -------
    list of PIL.Image.Image
        Mode RGB, at most `SIDE` pixels on each side.
    """
    host = np.asarray(batch.get() if is_cupy(batch) else batch)
    if data_format == "channels_first":
        host = host.transpose(0, 2, 3, 1)
    pictures = []
    for image in host.astype(np.float64):
        # NaN, and infinity, have no level.
        image = np.nan_to_num(image[..., : 3 if image.shape[2] >= 3 else 1])
        low, high = float(image.min()), float(image.max())
        # A guess at what the numbers are: a batch does not say whether it was normalised.
        if low < 0 or high > 255:
            image = (image - low) * (255 / max(high - low, 1e-12))
        elif high <= 1:
            image = image * 255
        pixels = image.astype(np.uint8)
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")
        picture.thumbnail((SIDE, SIDE))
        pictures.append(picture)
    return pictures


def picture_strip(pictures: Sequence[Image.Image], titles: Sequence[str]) -> str:
    """Return pictures side by side as HTML, each a ``data:`` URI with its title under it.

    Parameters
    ----------
    pictures : sequence of PIL.Image.Image
        What to show.
    titles : sequence of str
        One per picture; those without a picture are left out. Escaped here.
    """
    figures = []
    for picture, title in zip(pictures, titles, strict=False):  # a file that failed has no picture
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        spoken = html.escape(title, quote=True)
        figures.append(
            f'<figure style="margin:0;width:{SIDE}px"><img alt="{spoken}" width="{picture.width}" '
            f'height="{picture.height}" src="data:image/png;base64,{data}"><figcaption style="font-size:smaller;'
            f'overflow-wrap:anywhere">{html.escape(title)}</figcaption></figure>'
        )
    return f'<div style="display:flex;flex-wrap:wrap;gap:.5rem">{"".join(figures)}</div>'
