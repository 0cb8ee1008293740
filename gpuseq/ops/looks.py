"""What looks at images say, kept for images that stay as they are: then no batch has to look at them again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gpuseq.base.threads import PerProcess

from .levels import LEVELS, blend
from .listing import AUTOCONTRAST, CONTRAST, EQUALIZE

__all__ = ["LOOKS", "MAX_SHARE", "Looks"]

LOOKS = (CONTRAST, AUTOCONTRAST, EQUALIZE)
"""Steps that look at an image, in the order in which `Looks.learn` takes their tables."""

MAX_SHARE = 1 / 16
"""Of the images' bytes that the tables may take: 1.5 KB for an RGB image, so that those from 91 x 91 on have them."""


class Looks(PerProcess):
    """The tables that autocontrast and equalize make of each image, and the mean that contrast turns about.

    They lie in the host's memory and go up with the other tables of a batch. All images are looked at together, when
    the first batch asks.

    Parameters
    ----------
    num_images : int
        Of images that nobody writes to.
    """

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self._middle = np.zeros(0, np.uint8)
        self._tables = np.zeros((0, 2, 1, 256), np.uint8)

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: np.dtype) -> Looks | None:
        """Return what can be kept of images of shape ``(M, ...)``; None where it would take too much beside them."""
        colours = 1 if 1 in (shape[1], shape[-1]) else 3  # the channels are one of the two
        takes = 1 + 2 * 256 * colours
        if dtype != np.uint8 or not shape[0] or takes > MAX_SHARE * math.prod(shape[1:]):
            return None
        return cls(shape[0])

    def tables(
        self, codes: np.ndarray, rows: np.ndarray, factors: np.ndarray, look: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Return the tables of steps that look at images.

        Parameters
        ----------
        codes : numpy.ndarray
            Shape ``(K,)``: one of `LOOKS` each.
        rows : numpy.ndarray
            Shape ``(K,)``, int64: which image.
        factors : numpy.ndarray
            Shape ``(K,)``, float64: of a contrast.
        look : callable
            Looks at all images; called once. It returns shape ``(num_images, 3, C, 256)``, uint8, in the order of
            `LOOKS`: of a contrast with the factor 0, which makes of each level the mean, and of the others themselves.

        Returns
        -------
        numpy.ndarray
            Shape ``(K, 3, 256)``, uint8.
        """
        # Others wait: else each of them would look at all images.
        with self._lock:
            if not len(self._middle):
                found = look()
                self._middle, self._tables = found[:, 0, 0, 0].copy(), np.ascontiguousarray(found[:, 1:])
        made = np.empty((len(codes), 3, 256), np.uint8)
        is_contrast = codes == CONTRAST
        middle = self._middle[rows[is_contrast], None].astype(np.int64)
        made[is_contrast] = blend(middle, LEVELS, factors[is_contrast, None].astype(np.float32))[:, None]
        made[~is_contrast] = self._tables[rows[~is_contrast], (codes[~is_contrast] == EQUALIZE).astype(np.intp)]
        return made
