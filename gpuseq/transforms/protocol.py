"""What the rooms above know of a generator, so that they need not import it: a protocol that mypy checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from gpuseq.base.types import Array, DataFormat, Rng
from gpuseq.plan.draw import Drawing
from gpuseq.plan.ranges import TransformRanges

from .batch import BatchTransform
from .settings import Settings

if TYPE_CHECKING:
    from gpuseq.ops.looks import Looks
    from gpuseq.plan.policies.recipe import Recipe

__all__ = ["ImageGenerator"]


class ImageGenerator(Settings, Protocol):
    """A generator as iterators, loaders and `fit` use it: `~gpuseq.ImageDataGenerator` and subclasses of users'.

    Everything is asked for anew at each batch, because attributes may be set at any time. What the properties return
    stays the same object for as long as nothing has changed.
    """

    # Attributes are what users set; the properties below are derived, and a class may compute them as it likes.
    device: str
    rng: Rng
    channel_axis: int
    row_axis: int
    col_axis: int
    zca_epsilon: float
    _validation_split: float

    @property
    def _transform_ranges(self) -> TransformRanges:
        """The ranges that parameters are drawn from."""

    @property
    def _recipe(self) -> Recipe | None:
        """The augmentations that programs are drawn from, None without any."""

    @property
    def _batch_transform(self) -> BatchTransform:
        """What is done to a batch whose parameters are drawn."""

    @property
    def _is_customised(self) -> bool:
        """Whether single images go through methods of a subclass; masks cannot follow then."""

    @property
    def _draws_its_own(self) -> bool:
        """Whether `_drawing` asks a method of a subclass, so that nothing can be drawn by key."""

    def _drawing(self, image_shape: tuple[int, ...], file_number_limit: int = 0, crops_by_key: bool = False) -> Drawing:
        """Return what is drawn for images of one shape, as the attributes stand now."""

    def process(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        program: np.ndarray | None = None,
        source_format: DataFormat | None = None,
        data_format: DataFormat | None = None,
        dtype: str | None = None,
        round_affine: bool = False,
        looks: Looks | None = None,
    ) -> Array:
        """Call `_batch_transform`."""

    def _check_conventions(self, image_size: tuple[int, int]) -> None:
        """Warn, once per generator, where Keras' conventions and the arguments' names part ways."""
