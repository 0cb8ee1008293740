"""`Drawing`: what is drawn for the samples of a batch, as one value that the planner is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .draw import draw_params
from .policies.recipe import Recipe
from .ranges import TransformRanges

__all__ = ["Drawing"]


@dataclass(frozen=True)
class Drawing:
    """What is drawn for the samples of a batch, as it stands when the batch is planned.

    Attributes
    ----------
    ranges : TransformRanges or None
        What may be drawn. None: nothing, and no number is taken.
    recipe : Recipe or None
        The augmentations. None: none, and no program is drawn.
    image_size : (int, int)
        Rows and columns of the images, for fractional shifts.
    file_number_limit : int
        The numbers in the names of saved files are below it. 0: none are drawn.
    own : callable or None
        A user's own way to draw: takes a stream and a number of samples, and returns their parameters.
    """

    ranges: TransformRanges | None = None
    recipe: Recipe | None = None
    image_size: tuple[int, int] = (1, 1)
    file_number_limit: int = 0
    own: Callable[[Any, int], np.ndarray] | None = None

    def params(self, stream: Any, num_samples: int) -> np.ndarray:
        """Draw the parameters of a batch in Keras' random mode.

        Parameters
        ----------
        stream : numpy.random.RandomState or module
            A private stream, or ``numpy.random`` for the global one.
        num_samples : int
            Number of rows.

        Returns
        -------
        numpy.ndarray
            Shape ``(num_samples,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.
        """
        if self.own is not None:
            return self.own(stream, num_samples)
        # Without ranges Keras takes the numbers of the two flips all the same.
        return draw_params(stream, self.ranges or TransformRanges(), num_samples, *self.image_size)
