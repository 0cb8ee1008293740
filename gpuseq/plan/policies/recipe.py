"""A list of augmentations, read once, and the program that is drawn from it for each sample of a batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from gpuseq.plan.choices import put_identities_last, write_steps
from gpuseq.plan.philox import philox_rows
from gpuseq.plan.program import STEP_DTYPE

from .augmentation import Augmentation
from .combine import checked_augmentations, may_erase
from .erasing import RandomErasing
from .geometry import RandomResizedCrop
from .strings import parse_policy

__all__ = ["Augmentations", "Recipe"]

Augmentations: TypeAlias = Augmentation | str | Sequence[Augmentation | str]
"""What a user may pass as augmentations: one, the name of a policy, or several of them in order."""


@dataclass(frozen=True)
class Recipe:
    """What is done to each sample after Keras' own ranges: augmentations, in order.

    Attributes
    ----------
    augmentations : tuple of Augmentation
        A `~gpuseq.RandomResizedCrop` first and a `~gpuseq.RandomErasing` last.
    """

    augmentations: tuple[Augmentation, ...]

    @classmethod
    def parse(cls, name: str, given: Any) -> Recipe | None:
        """Read a user's ``augmentations``: None, one, a list of them, or a policy's string.

        Parameters
        ----------
        name : str
            The argument or the callable, for messages.
        given : None, Augmentation, str, or list of Augmentation and str
            What the user wrote.

        Raises
        ------
        TypeError
            If something else is in it, such as another library's transform.
        ValueError
            If it is empty, a string spells no policy, or the order cannot be.
        """
        if given is None:
            return None
        if isinstance(given, str | Augmentation):
            given = [given]
        if isinstance(given, list | tuple):
            given = [parse_policy(item) if isinstance(item, str) else item for item in given]
        augmentations = checked_augmentations(name, given)
        for position, item in enumerate(augmentations):
            if isinstance(item, RandomResizedCrop) and position:
                raise ValueError(f"{name}: RandomResizedCrop must come first, because it gives the batch its size")
            # Several may stand at the end, one after another.
            if may_erase(item) and not all(isinstance(later, RandomErasing) for later in augmentations[position + 1 :]):
                raise ValueError(
                    f"{name}: RandomErasing must come last: it is done after normalisation, and all others before"
                )
        return cls(augmentations)

    @property
    def begins_with_crop(self) -> bool:
        """Whether the images' own sizes are asked for, which files have lost by the time they are resized."""
        return isinstance(self.augmentations[0], RandomResizedCrop)

    def check_channels(self, num_channels: int) -> None:
        """Refuse images whose channels a step may not be defined on, whether or not it is drawn for the first batch.

        Raises
        ------
        ValueError
            If there are other than 1, 3 or 4 and an augmentation may change colours.
        """
        if num_channels in (1, 3, 4):
            return
        for item in self.augmentations:
            if item.changes_colours:
                raise ValueError(
                    f"{item!r} takes images of 1, 3 or 4 channels (grey, RGB, RGBA); got {num_channels}. Geometry, "
                    "blur, sharpness and erasing take any number"
                )

    def __repr__(self) -> str:
        return repr(list(self.augmentations))

    # Cached, because every batch asks for them.
    @cached_property
    def num_steps(self) -> int:
        """Steps of each sample's program."""
        return sum(item.num_steps for item in self.augmentations)

    @cached_property
    def _parts(self) -> tuple[slice, ...]:
        """Which of a sample's steps are whose."""
        ends = [0, *itertools.accumulate(item.num_steps for item in self.augmentations)]
        return tuple(itertools.starmap(slice, itertools.pairwise(ends)))

    def image_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of the finished images."""
        first = self.augmentations[0]
        return first.target_size if isinstance(first, RandomResizedCrop) else image_size

    def draw(
        self,
        sample_ids: np.ndarray,
        image_size: tuple[int, int],
        *,
        seed: int,
        epoch: int,
        crops_by_key: bool = False,
    ) -> np.ndarray:
        """Draw the program of a batch: each sample's from (seed, epoch, sample id) alone.

        Parameters
        ----------
        sample_ids : numpy.ndarray
            Shape ``(N,)``, non-negative integers.
        image_size : (int, int)
            Rows and columns of the images that come in.
        seed, epoch : int
            The key, each from 0 to 2**64 - 1.
        crops_by_key : bool
            Whether a crop is left to whoever knows the sizes, and `image_size` is that after it.

        Returns
        -------
        numpy.ndarray
            Shape ``(N, num_steps)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, steps that do nothing last. An
            augmentation's numbers depend on its place in the list and on nothing behind it.
        """
        program = np.empty((len(sample_ids), self.num_steps), STEP_DTYPE)
        # A crop comes first and alone changes the size, so all others see that of the finished images.
        size = image_size
        for place, item in enumerate(self.augmentations):
            part = program[:, self._parts[place]]
            # A counter space for each place in the list: an augmentation more at the end changes no number before it.
            if crops_by_key and isinstance(item, RandomResizedCrop):
                uniform = philox_rows(sample_ids, item.num_uniform, seed=seed, epoch=epoch, place=place)
                write_steps(part, item.draw_key(uniform))
            else:
                item.draw_to(part, sample_ids, size, seed=seed, epoch=epoch, place=place)
            size = self.image_size(image_size)
        if len(self.augmentations) > 1:
            put_identities_last(program)
        return program
