"""Augmentations made of others: one of them, all or none, and all in a drawn order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from gpuseq.plan.program import as_bytes, empty_program

from .augmentation import Augmentation, checked_call, checked_probability
from .erasing import RandomErasing
from .geometry import RandomResizedCrop

__all__ = ["RandomApply", "RandomChoice", "RandomOrder", "checked_augmentations", "may_erase"]


def checked_augmentations(name: str, given: Any) -> tuple[Augmentation, ...]:
    """Return a list of augmentations as a tuple, or refuse what is none.

    Parameters
    ----------
    name : str
        Whose argument it is, for messages.
    given : Any
        A list or tuple of `Augmentation`.

    Raises
    ------
    ValueError
        If it is empty.
    TypeError
        If something else is in it.
    """
    if isinstance(given, type) and issubclass(given, Augmentation):
        given = [given]
    if not isinstance(given, list | tuple):
        of_what = ": hand in the list that it was made of" if type(given).__name__ == "Compose" else ""
        raise TypeError(f"{name} takes a list of augmentations; got {_foreign(given)}{of_what}")
    if not given:
        raise ValueError(f"{name} got an empty list: there is nothing to do")
    for item in given:
        if isinstance(item, type) and issubclass(item, Augmentation):
            raise TypeError(f"{name} got the class {item.__name__}: write {item.__name__}(...)")
        if not isinstance(item, Augmentation):
            # torchvision's transforms are the usual case: the message says why they are not taken, and what is.
            raise TypeError(
                f"{name} takes gpuseq's own augmentations, which are drawn per sample and kept in the plan; got "
                f"{_foreign(item)}. {_instead(item)}"
            )
    return tuple(given)


def _foreign(given: object) -> str:
    """Return what was given in one line, and whose it is where it is another library's."""
    home = type(given).__module__.partition(".")[0]
    whose = f" of {home}" if home not in ("builtins", "__main__", "gpuseq") else ""
    return " ".join(repr(given).split()) + whose


def _instead(given: object) -> str:
    """Say what to write in the place of something that is no augmentation of gpuseq's."""
    if isinstance(given, FunctionType):
        return "A function of your own goes to preprocessing_function= of ImageDataGenerator"
    name = type(given).__name__
    if name in {kind.__name__ for kind in _kinds(Augmentation)}:
        return f"Write gpuseq.{name}(...)"
    return "gpuseq has most of torchvision's under the same names: gpuseq.RandAugment, ..."


def _kinds(of: type) -> Iterator[type]:
    kind: type
    for kind in of.__subclasses__():
        yield kind
        yield from _kinds(kind)


def may_erase(item: Augmentation) -> bool:
    """Tell whether an augmentation is a `RandomErasing`, or a choice that holds one."""
    return isinstance(item, RandomErasing) or any(map(may_erase, getattr(item, "transforms", ())))


def _movable(owner: object, given: Any) -> tuple[Augmentation, ...]:
    kind = type(owner).__name__
    checked = checked_augmentations(kind, given)
    for item in checked:
        # Samples without the crop would keep their size, and a batch has one.
        if isinstance(item, RandomResizedCrop):
            raise ValueError(f"{kind}: RandomResizedCrop gives the batch its size, so it cannot be left to chance")
        if may_erase(item) and not isinstance(owner, RandomChoice):
            raise ValueError(
                f"{kind}: RandomErasing comes after normalisation; put it last in the list, with its own p"
            )
    return checked


@checked_call
@dataclass(frozen=True, repr=False)
class RandomApply(Augmentation):
    """All of the transforms, or none.

    Attributes
    ----------
    transforms : sequence of Augmentation
        In order.
    p : float
        Within 0 and 1: of all.

    Raises
    ------
    TypeError, ValueError
        If `transforms` is empty or holds something else, or `p` lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomApply``.
    """

    transforms: Sequence[Augmentation]
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "transforms", _movable(self, self.transforms))
        checked_probability(self, self.p)

    @property
    def num_steps(self) -> int:
        """Those of all."""
        return sum(item.num_steps for item in self.transforms)

    @property
    def num_uniform(self) -> int:
        """A coin, and what each takes."""
        return 1 + sum(item.num_uniform for item in self.transforms)

    @property
    def changes_colours(self) -> bool:
        """Whether one of the transforms does."""
        return any(item.changes_colours for item in self.transforms)

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        # All are drawn, and thrown away where the coin says no: see `Augmentation.num_uniform`.
        program = empty_program(len(uniform), self.num_steps)
        is_done, first = (uniform[:, 0] < self.p)[:, None], 0
        for part in _each(self.transforms, uniform[:, 1:], image_size):
            np.copyto(as_bytes(program[:, first : first + part.shape[1]]), as_bytes(part), where=is_done)
            first += part.shape[1]
        return program


@checked_call
@dataclass(frozen=True, repr=False)
class RandomChoice(Augmentation):
    """One of the transforms for each sample.

    Attributes
    ----------
    transforms : sequence of Augmentation
        To choose from.
    p : sequence of float or None
        Weight of each, of any sum. None: all alike.

    Raises
    ------
    TypeError, ValueError
        If `transforms` is empty or holds something else, or `p` has another length or no weight.

    References
    ----------
    ``torchvision.transforms.v2.RandomChoice``.
    """

    transforms: Sequence[Augmentation]
    p: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "transforms", _movable(self, self.transforms))
        if self.p is None:
            return
        weights = np.asarray(self.p, np.float64)
        if weights.shape != (len(self.transforms),) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise ValueError(
                f"RandomChoice: p must hold a weight for each of the {len(self.transforms)} transforms; got {self.p!r}"
            )
        # A tuple, because with a list in it the value would have no hash.
        object.__setattr__(self, "p", tuple(weights.tolist()))

    @property
    def num_steps(self) -> int:
        """Those of the longest."""
        return max(item.num_steps for item in self.transforms)

    @property
    def num_uniform(self) -> int:
        """The choice, and what each takes: so that a choice moves no other's numbers."""
        return 1 + sum(item.num_uniform for item in self.transforms)

    @property
    def changes_colours(self) -> bool:
        """Whether one of the transforms does."""
        return any(item.changes_colours for item in self.transforms)

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        weights = np.ones(len(self.transforms)) if self.p is None else np.asarray(self.p)
        # The last edge is left out, which rounding may put below 1.
        edges = np.cumsum(weights / weights.sum())[:-1]
        # "right": a number on an edge belongs to the choice above it, else one of weight 0 could be chosen.
        chosen = np.searchsorted(edges, uniform[:, 0], side="right")
        program = empty_program(len(uniform), self.num_steps)
        for number, part in enumerate(_each(self.transforms, uniform[:, 1:], image_size)):
            where = (chosen == number)[:, None]
            np.copyto(as_bytes(program[:, : part.shape[1]]), as_bytes(part), where=where)
        return program


@checked_call
@dataclass(frozen=True, repr=False)
class RandomOrder(Augmentation):
    """All of the transforms, in an order drawn for each sample.

    Attributes
    ----------
    transforms : sequence of Augmentation
        To be ordered.

    Raises
    ------
    TypeError, ValueError
        If `transforms` is empty or holds something else.

    References
    ----------
    ``torchvision.transforms.v2.RandomOrder``.
    """

    transforms: Sequence[Augmentation]

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "transforms", _movable(self, self.transforms))

    @property
    def _longest(self) -> int:
        return max(item.num_steps for item in self.transforms)

    @property
    def num_steps(self) -> int:
        """For each as many as the longest takes."""
        return len(self.transforms) * self._longest

    @property
    def num_uniform(self) -> int:
        """One for the place of each, and what each takes."""
        return len(self.transforms) + sum(item.num_uniform for item in self.transforms)

    @property
    def changes_colours(self) -> bool:
        """Whether one of the transforms does."""
        return any(item.changes_colours for item in self.transforms)

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        count = len(self.transforms)
        blocks = empty_program(len(uniform), self.num_steps).reshape(len(uniform), count, self._longest)
        for number, part in enumerate(_each(self.transforms, uniform[:, count:], image_size)):
            as_bytes(blocks[:, number, : part.shape[1]])[...] = as_bytes(part)
        # The order of uniform numbers is a uniform permutation, and takes the same count of them for each sample.
        order = np.argsort(uniform[:, :count], axis=1)
        order += np.arange(0, len(uniform) * count, count)[:, None]
        ordered: np.ndarray = blocks.reshape(-1, self._longest).take(order, axis=0)
        return ordered.reshape(len(uniform), self.num_steps)


def _each(transforms: Sequence[Augmentation], uniform: np.ndarray, image_size: tuple[int, int]) -> list[np.ndarray]:
    """Draw each from its own columns."""
    # By place in the list, so that what is added at the end leaves the numbers before it as they are.
    ends = np.cumsum([item.num_uniform for item in transforms]).tolist()
    starts = [0, *ends[:-1]]
    return [
        item.draw(uniform[:, start:end], image_size) for item, start, end in zip(transforms, starts, ends, strict=True)
    ]
