"""What looks at images say, kept for images that stay as they are: then no batch has to look at them again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gpuseq.base.threads import PerProcess

from .levels import LEVELS, blend
from .listing import AUTOCONTRAST, CONTRAST, EQUALIZE

__all__ = ["LOOKS", "MAX_SHARE", "MAX_WAITING", "KeptLooks", "Known", "Looked", "Looks"]

LOOKS = (CONTRAST, AUTOCONTRAST, EQUALIZE)
"""Steps that look at an image, in the order in which `KeptLooks.learn` takes their tables."""

MAX_SHARE = 1 / 16
"""Of the images' bytes that the tables may take: 1.5 KB for an RGB image, so that those from 91 x 91 on have them."""

MAX_WAITING = 4096
"""Images whose tables are left on a device, 2.3 KB each, before the oldest are fetched: those of 16 batches of 256."""


@dataclass(frozen=True, eq=False)
class Looked:
    """What looks at M images say.

    Attributes
    ----------
    middles : numpy.ndarray
        Shape ``(M,)``, uint8: the mean that contrast turns about.
    tables : numpy.ndarray
        Shape ``(M, 2, C, 256)``, uint8, C-contiguous: of autocontrast and equalize, for one colour or three.
    is_known : numpy.ndarray
        Shape ``(M,)``, bool: of which images the others say anything.
    """

    middles: np.ndarray
    tables: np.ndarray
    is_known: np.ndarray

    @cached_property
    def addresses(self) -> tuple[int, int, int]:
        """Where the library reads what is known: `is_known`, `middles` and `tables`, in this order."""
        arrays = self.is_known, self.middles, self.tables
        assert all(array.flags.c_contiguous for array in arrays)
        return self.is_known.ctypes.data, self.middles.ctypes.data, self.tables.ctypes.data

    def __reduce__(self) -> Any:
        return Looked, (self.middles, self.tables, self.is_known)  # no addresses: those of a copy are others

    def tables_of(self, codes: np.ndarray, slots: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Return the tables of steps that look at these images.

        Parameters
        ----------
        codes : numpy.ndarray
            Shape ``(K,)``: one of `LOOKS` each.
        slots : numpy.ndarray
            Shape ``(K,)``, int64: the places of the images.
        factors : numpy.ndarray
            Shape ``(K,)``, float64: of a contrast.

        Returns
        -------
        numpy.ndarray
            Shape ``(K, 3, 256)``, uint8.
        """
        made = np.empty((len(codes), 3, 256), np.uint8)
        is_contrast = codes == CONTRAST
        middles = self.middles[slots[is_contrast], None].astype(np.int64)
        made[is_contrast] = blend(middles, LEVELS, factors[is_contrast, None].astype(np.float32))[:, None]
        made[~is_contrast] = self.tables[slots[~is_contrast], (codes[~is_contrast] == EQUALIZE).astype(np.intp)]
        return made


class Known(NamedTuple):
    """What is known of the source images of a batch before they are looked at.

    Attributes
    ----------
    slots : numpy.ndarray
        Shape ``(N,)``, int64: the place of each one's source image in `looked`; -1 for one that has none.
    looked : Looked
        What is known.
    """

    slots: np.ndarray
    looked: Looked

    @property
    def samples(self) -> np.ndarray:
        """Shape ``(N,)``, bool: those whose source image is known, now."""
        found: np.ndarray = self.looked.is_known[self.slots] & (self.slots >= 0)
        return found


class KeptLooks(PerProcess):
    """The tables that autocontrast and equalize make of each image, and the mean that contrast turns about.

    They lie in the host's memory and, to a GPU, go up with the other tables of a batch.

    On a GPU an image is looked at, for all three, by the first batch that reads it and looks at one of its images that
    is not known. That batch itself gains nothing: its own looks are launched before, those for later batches after it,
    and nobody waits for these. The host fetches their tables when a batch reads one of these images again, an epoch
    later, or when `MAX_WAITING` more have been looked at. So the first epoch takes a launch a batch more, and a
    copy of 2.3 KB an image; all later ones take the launches of looks no more.

    The compiled engine looks for all three where it has to look for one, in the same pass over the image. No image is
    looked at for a later batch alone.

    Parameters
    ----------
    num_images : int
        Places for images. What is written to is forgotten by `forget`.
    num_colours : int
        1 or 3.

    Attributes
    ----------
    looked : Looked
        By the places; of an image that is not known any numbers.
    """

    # Not fetched yet: whose tables, how often what lay there had changed, and what fetches them.
    _waiting: deque[tuple[np.ndarray, np.ndarray, Callable[[], np.ndarray]]]

    def __init__(self, num_images: int, num_colours: int) -> None:
        self.num_images = num_images
        # Of zeros, for which the system gives no memory before something is written there.
        tables = np.zeros((num_images, 2, num_colours, 256), np.uint8)
        self.looked = Looked(np.zeros(num_images, np.uint8), tables, np.zeros(num_images, bool))
        self._is_waiting = np.zeros(num_images, bool)
        self._num_changes = np.zeros(num_images, np.int64)

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: np.dtype) -> KeptLooks | None:
        """Return what can be kept of images of shape ``(M, ...)``; None where it would take too much beside them."""
        colours = 1 if 1 in (shape[1], shape[-1]) else 3  # the channels are one of the two
        takes = 1 + 2 * 256 * colours
        if dtype != np.uint8 or not shape[0] or takes > MAX_SHARE * math.prod(shape[1:]):
            return None
        return cls(shape[0], colours)

    def known(self, slots: np.ndarray) -> np.ndarray:
        """Tell which images are known, once what has been learned of them is fetched.

        Parameters
        ----------
        slots : numpy.ndarray
            Shape ``(K,)``: their places; -1 for what has none.

        Returns
        -------
        numpy.ndarray
            Shape ``(K,)``, bool.
        """
        return self.about(slots).samples

    def about(self, slots: np.ndarray) -> Known:
        """As `known`, with what is known."""
        # Nothing waits from the second epoch on.
        if self._waiting:
            with self._lock:
                # What else is waited for has been asked of a device before these.
                while self._waiting and (self._is_waiting[slots] & (slots >= 0)).any():
                    self._fetch()
        return Known(slots, self.looked)

    def learn(self, slots: np.ndarray, fetch: Callable[[], np.ndarray]) -> None:
        """Take note of looks at images; what they say is fetched when it is needed.

        Parameters
        ----------
        slots : numpy.ndarray
            Shape ``(K,)``, int64: the places of the images, which are not written to before this returns.
        fetch : callable
            Called at most once, perhaps by another thread. It returns shape ``(K, 3, C, 256)``, uint8, in the order of
            `LOOKS`: of a contrast with the factor 0, which makes of each level the mean, and of the others themselves.
        """
        with self._lock:
            self._waiting.append((slots, self._num_changes[slots], fetch))
            self._num_waiting += len(slots)
            self._is_waiting[slots] = True
            while self._num_waiting > MAX_WAITING:
                self._fetch()

    def forget(self, slots: np.ndarray) -> None:
        """Know nothing of images any more: others are written to their places.

        Parameters
        ----------
        slots : numpy.ndarray
            Shape ``(K,)``, int64: the places.
        """
        with self._lock:
            self._num_changes[slots] += 1
            self.looked.is_known[slots] = self._is_waiting[slots] = False

    def _fetch(self) -> None:
        """Fetch what has waited longest."""
        slots, num_changes, fetch = self._waiting.popleft()
        self._num_waiting -= len(slots)
        found = fetch()
        # What was looked at may have made room for other images since.
        as_then = self._num_changes[slots] == num_changes
        if not as_then.all():
            slots, found = slots[as_then], found[as_then]
        self.looked.middles[slots], self.looked.tables[slots] = found[:, 0, 0, 0], found[:, 1:]
        self.looked.is_known[slots], self._is_waiting[slots] = True, False

    def _renew(self) -> None:
        super()._renew()
        self._waiting, self._num_waiting = deque(), 0


@dataclass(frozen=True, eq=False)
class Looks:
    """What is kept of looks at the images of one array, in whatever order they lie there.

    Attributes
    ----------
    kept : KeptLooks
        Of the images where they stay.
    slots : numpy.ndarray or None
        Shape ``(M,)``, int64: the place of each image of the array; -1 for one that does not stay. None: the array is
        where they stay.
    """

    kept: KeptLooks
    slots: np.ndarray | None = None

    def take(self, rows: np.ndarray | None) -> Looks:
        """Return the same of an array of these rows; None: of all, in order."""
        return self if rows is None else replace(self, slots=self._slots_of(rows))

    def stay(self, rows: np.ndarray) -> np.ndarray:
        """Tell which rows of the array have a place: shape ``(K,)``, bool."""
        return self._slots_of(rows) >= 0

    def known(self, rows: np.ndarray) -> np.ndarray:
        """As `KeptLooks.known`, of rows of the array."""
        return self.kept.known(self._slots_of(rows))

    def about(self, rows: np.ndarray) -> Known:
        """Return what is known of rows of the array."""
        return self.kept.about(self._slots_of(rows))

    def learn(self, rows: np.ndarray, fetch: Callable[[], np.ndarray]) -> None:
        """As `KeptLooks.learn`, of rows of the array that stay."""
        self.kept.learn(self._slots_of(rows), fetch)

    def _slots_of(self, rows: np.ndarray) -> np.ndarray:
        return rows if self.slots is None else self.slots[rows]
