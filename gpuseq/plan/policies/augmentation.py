"""What all modern augmentations have in common: frozen values that say how many numbers they take, and what of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from importlib import import_module
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np

from gpuseq.base.arguments import checked_arguments, did_you_mean
from gpuseq.base.types import BatchDType, DataFormat, Device, SameArray
from gpuseq.plan.choices import LINE_DTYPE, Choices, choose_steps, draw_steps, write_steps
from gpuseq.plan.philox import philox_rows
from gpuseq.plan.program import COLOURED, STEPS, as_bytes, code_of, empty_program, of_kind

__all__ = [
    "Augmentation",
    "Chosen",
    "Fill",
    "Interpolation",
    "OneStep",
    "Range",
    "between",
    "checked_call",
    "checked_fill",
    "checked_interpolation",
    "checked_number",
    "checked_probability",
    "checked_range",
    "checked_whole",
    "choose",
    "one_step",
    "put",
    "reading",
    "spread_over",
    "steps_named",
]

Interpolation: TypeAlias = Literal["nearest", "bilinear"]
Fill: TypeAlias = float | Sequence[float] | None
Range: TypeAlias = tuple[float, float]
Kind = TypeVar("Kind", bound=type)


@dataclass(frozen=True, repr=False)
class Augmentation:
    """A modern augmentation: a name and ranges. It holds no generator: every number it takes is handed to `draw`.

    Pass one, or a list, as ``augmentations=`` of `~gpuseq.ImageDataGenerator`, or to `~gpuseq.Compose`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a subclass with a `draw` of its own be drawn by that: a way to draw a batch at once is of another one."""
        super().__init_subclass__(**kwargs)
        if "draw" in vars(cls) and "draw_to" not in vars(cls):
            cls.draw_to = Augmentation.draw_to  # type: ignore[method-assign]

    @property
    def num_steps(self) -> int:
        """Steps of a program that it takes up at most."""
        return 1

    @property
    # Fixed, whatever is drawn: a choice made for one sample must not move the numbers of what follows in the list.
    def num_uniform(self) -> int:
        """Numbers in [0, 1) that `draw` takes for each sample, whatever comes of them."""
        return 1

    @property
    def changes_colours(self) -> bool:
        """Whether it may draw a step that is defined on grey, RGB and RGBA images alone."""
        return False

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for.

        Parameters
        ----------
        uniform : numpy.ndarray
            Shape ``(N, num_uniform)``, float64 in [0, 1).
        image_size : (int, int)
            Rows and columns of the images.

        Returns
        -------
        numpy.ndarray
            Shape ``(N, num_steps)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
        """
        raise NotImplementedError

    def draw_to(
        self,
        program: np.ndarray,
        sample_ids: np.ndarray,
        image_size: tuple[int, int],
        *,
        seed: int,
        epoch: int,
        place: int,
    ) -> None:
        """Draw the steps of a batch into a part of its program, those that do nothing last.

        Parameters
        ----------
        program : numpy.ndarray
            Shape ``(N, num_steps)``, dtype `~gpuseq.plan.program.STEP_DTYPE`; the steps of a sample lie one after
            another. Written to.
        sample_ids, seed, epoch, place
            Of the numbers: see `~gpuseq.plan.philox.philox_rows`.
        image_size : (int, int)
            Rows and columns of the images.
        """
        uniform = philox_rows(sample_ids, self.num_uniform, seed=seed, epoch=epoch, place=place)
        write_steps(program, self.draw(uniform, image_size))

    @checked_arguments()
    def __call__(
        self,
        images: SameArray,
        *,
        epoch: int | None = None,
        sample_ids: Any = None,
        seed: int | None = None,
        dtype: BatchDType | None = None,
        data_format: DataFormat | None = None,
        device: Device | None = None,
    ) -> SameArray:
        """Apply it to a batch: as `~gpuseq.Compose` of this one alone, and as a call of that.

        Parameters
        ----------
        images, epoch, sample_ids
            As in a call of `~gpuseq.Compose`.
        seed, dtype, data_format, device
            As `~gpuseq.Compose` takes them.
        """
        # By name, with the first call: `compose` stands above `plan`, and whoever unpickled this value never loaded it.
        compose = import_module("gpuseq.compose").Compose(
            [self], seed=seed, dtype=dtype, data_format=data_format, device=device
        )
        made: SameArray = compose(images, epoch=epoch, sample_ids=sample_ids)
        return made

    def __repr__(self) -> str:
        # As one would write it, with what was changed alone: messages and `explain` name policies by this.
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class Chosen(Augmentation):
    """An augmentation whose steps are chosen from a space, each by numbers of its own."""

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        raise NotImplementedError

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        return choose_steps(self.choices(image_size), uniform)

    def draw_to(
        self,
        program: np.ndarray,
        sample_ids: np.ndarray,
        image_size: tuple[int, int],
        *,
        seed: int,
        epoch: int,
        place: int,
    ) -> None:
        """Draw the steps of a batch; see `Augmentation.draw_to`."""
        draw_steps(self.choices(image_size), program, sample_ids, seed=seed, epoch=epoch, place=place)


class OneStep(Chosen):
    """An augmentation that is one step with fixed arguments, done with probability ``p``."""

    step: ClassVar[str]
    p: float

    def __post_init__(self) -> None:
        """Check `p`."""
        checked_probability(self, self.p)

    @property
    def arguments(self) -> tuple[float, ...]:
        """Of the step."""
        return ()

    @property
    def changes_colours(self) -> bool:
        """By the kind of its step."""
        return self.p > 0 and STEPS[code_of(self.step)].kind in COLOURED

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        return one_step(self.step, *self.arguments, p=self.p)


@functools.lru_cache(maxsize=64)
def one_step(
    name: str,
    *args: float,
    p: float | None = None,
    drawn: int = 0,
    within: Range | None = None,
    bilinear: bool = False,
    fill: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Choices:
    """Return one step to choose from.

    Parameters
    ----------
    name : str
        Of the step.
    *args : float
        Its arguments; any number for the one that is drawn.
    p : float or None
        With a number, the first of a sample is a coin: the step is done where it lies below `p`.
    drawn : int
        Which argument is drawn.
    within : (float, float) or None
        Range that a sample's last number is spread over. None: nothing is drawn, the arguments are all given.
    bilinear, fill
        As of `put`.
    """
    steps = steps_named([name], bilinear=bilinear, fill=fill)
    steps["arg"][0, : len(args)] = args
    num_uniform = (p is not None) + (within is not None)
    limits = None if p is None else np.array([[(0.0, p)]])
    columns = np.array([(num_uniform - 1, num_uniform - 1, num_uniform - 1, 0)])
    if within is None:
        arguments = np.full((1, 1, 1, 2), steps["arg"][0, 0])
        return Choices(steps[None], columns, num_uniform, arguments, within=limits)
    return Choices(
        steps[None], columns, num_uniform, lines=np.array([[spread_over(*within)]]), within=limits, argument=drawn
    )


def spread_over(low: float, high: float) -> np.ndarray:
    """Return how a number in [0, 1) is spread over a range; shape ``()``, dtype `~gpuseq.plan.choices.LINE_DTYPE`."""
    return np.array((high - low, 0.0, (1.0, 1.0), low, -np.inf, np.inf), LINE_DTYPE)


def checked_call(kind: Kind) -> Kind:
    """Let a value's constructor refuse a wrong argument with the nearest right name, and hold plain Python values."""
    # Around the constructor that `dataclass` has made, whose own TypeError names no nearest word.
    construct = checked_arguments()(kind.__init__)  # type: ignore[misc]

    @functools.wraps(construct)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})

    kind.__init__ = init  # type: ignore[misc]
    return kind


def _plain(value: Any) -> Any:
    # torchvision's enumerations hold the same words, and compare unequal to them.
    if isinstance(value, Enum):
        value = value.value
    # Tuples in the place of lists and arrays: a list has no hash, and arrays cannot be compared by `==`.
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value


def put(
    program: np.ndarray,
    name: str,
    *args: Any,
    where: np.ndarray | bool = True,
    bilinear: bool = False,
    fill: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> None:
    """Write a step into a column of a program.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.program.STEP_DTYPE`: one column. Written to.
    name : str
        Of the step.
    *args : array_like
        Its arguments: one number for all, or one per sample.
    where : numpy.ndarray or bool
        Which samples: bool of shape ``(N,)``, or all of them.
    bilinear : bool
        For geometry.
    fill : tuple of int
        For geometry, one level per channel.
    """
    steps = _step(name, bilinear, fill).repeat(len(program))
    for position, values in enumerate(args):
        steps["arg"][:, position] = values
    # Whole steps are written: what an earlier `put` left in these rows would be read as arguments.
    np.copyto(as_bytes(program), as_bytes(steps), where=where)


@functools.lru_cache(maxsize=64)
def _step(name: str, bilinear: bool, fill: tuple[int, int, int, int]) -> np.ndarray:
    return steps_named([name], bilinear=bilinear, fill=fill)


def steps_named(
    names: Sequence[str], *, bilinear: bool = False, fill: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> np.ndarray:
    """Return a step of each name, without arguments.

    Parameters
    ----------
    names : sequence of str
        Of the steps.
    bilinear, fill
        As of `put`.

    Returns
    -------
    numpy.ndarray
        Shape ``(len(names),)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    """
    steps: np.ndarray = empty_program(1, len(names))[0]
    steps["op"] = [code_of(name) for name in names]
    moves = of_kind(steps, "geometry", "crop")
    steps["bilinear"], steps["fill"][moves] = moves & bilinear, fill
    return steps


def between(uniform: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return numbers in [0, 1) spread over a range."""
    spread: np.ndarray = low + (high - low) * uniform
    return spread


def choose(uniform: np.ndarray, num_choices: int) -> np.ndarray:
    """Return numbers in [0, 1) as choices 0 to ``num_choices - 1``, each as likely as the others."""
    # Never `num_choices` itself: for the largest double below 1 the product rounds to the double below.
    return (uniform * num_choices).astype(np.intp)


def checked_probability(owner: object, value: Any, name: str = "p") -> float:
    """Return a probability, or refuse what is none."""
    # A bool is an int in Python: `p=True` would be done always, and was meant for another argument.
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise ValueError(f"{type(owner).__name__}: {name} must be a number within 0 and 1; got {value!r}")
    return float(value)


def checked_whole(owner: object, name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number within its limits, or refuse it by name."""
    limits = f"from {least} on" if most is None else f"from {least} to {most}"
    if (
        isinstance(value, bool)
        or not hasattr(value, "__index__")
        or not least <= value.__index__() <= (value.__index__() if most is None else most)
    ):
        raise ValueError(f"{type(owner).__name__}: {name} must be a whole number {limits}; got {value!r}")
    return int(value)


def checked_number(owner: object, name: str, value: Any, least: float, most: float = math.inf) -> float:
    """Return a finite number within its limits, or refuse what is none by name."""
    limits = f"from {least:g} on" if math.isinf(most) else f"of {least:g} to {most:g}"
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or math.isinf(value):
        raise ValueError(f"{type(owner).__name__}: {name} must be a number {limits}; got {value!r}")
    return float(value)


def checked_range(
    owner: object,
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    around: float | None = None,
    plus_minus: bool = False,
    fixed: bool = False,
) -> Range:
    """Return a range as two floats.

    Parameters
    ----------
    owner : object
        Whose argument it is, for messages.
    name : str
        The argument.
    value : number or (number, number)
        The range, or one number where `around`, `plus_minus` or `fixed` gives it a meaning.
    least, most : float
        Its limits.
    around : float or None
        One number x means ``[around - x, around + x]``, cut off at `least`.
    plus_minus : bool
        One number x means ``[-x, x]``.
    fixed : bool
        One number x means ``[x, x]``.

    Raises
    ------
    ValueError
        If it is no range within the limits.
    """
    kind = type(owner).__name__
    numbers = tuple(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else (value,)
    if any(isinstance(number, bool) or not isinstance(number, int | float | np.number) for number in numbers):
        raise ValueError(f"{kind}: {name} must be a number or a pair of numbers; got {value!r}")
    if len(numbers) == 1 and (plus_minus or around is not None):
        (width,) = numbers
        if not width >= 0:
            raise ValueError(f"{kind}: {name} as one number must not be negative; got {value!r}")
        middle = 0.0 if around is None else around
        # Cut off at the lower end only, as torchvision does: a factor may be as large as one likes.
        numbers = (max(middle - width, least) if around is not None else middle - width, middle + width)
    if len(numbers) == 1 and fixed:
        numbers *= 2
    if len(numbers) != 2 or not least <= numbers[0] <= numbers[1] <= most or not np.isfinite(numbers).all():
        above = {math.ulp(0.0): "0 < ", -math.inf: ""}.get(least, f"{least:g} <= ")
        below = "" if math.isinf(most) else f" <= {most:g}"
        raise ValueError(f"{kind}: {name} must be a pair (low, high) with {above}low <= high{below}; got {value!r}")
    return float(numbers[0]), float(numbers[1])


def checked_interpolation(owner: object, value: Any) -> Interpolation:
    """Return how geometry reads between pixels, or refuse what is no name of that."""
    if value == "nearest" or value == "bilinear":
        return "bilinear" if value == "bilinear" else "nearest"
    raise ValueError(
        f"{type(owner).__name__}: interpolation must be 'nearest' or 'bilinear'; got {value!r}"
        f"{did_you_mean(value, ('nearest', 'bilinear'))}"
    )


def checked_fill(owner: object, value: Any) -> tuple[int, int, int, int]:
    """Return the level of each channel that geometry puts where no pixel comes from; None is black.

    Three levels are those of red, green and blue, and alpha is opaque then.
    """
    numbers = tuple(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else (value,)
    if numbers == (None,):
        numbers = (0,)
    if len(numbers) not in (1, 3, 4) or any(
        isinstance(number, bool) or not isinstance(number, int | float | np.number) or not 0 <= number <= 255
        for number in numbers
    ):
        raise ValueError(
            f"{type(owner).__name__}: fill must be None, a level of 0 to 255, or 3 or 4 of them; got {value!r}"
        )
    levels = [int(number) for number in numbers]
    # Four in any case: a step holds one byte for each of four channels, and engines take as many as images have.
    if len(levels) == 1:
        levels *= 4
    elif len(levels) == 3:
        levels.append(255)
    return levels[0], levels[1], levels[2], levels[3]


def reading(owner: Any) -> dict[str, Any]:
    """Return how the geometry of an augmentation reads pixels, checked: keyword arguments of `put`."""
    return {
        "bilinear": checked_interpolation(owner, owner.interpolation) == "bilinear",
        "fill": checked_fill(owner, owner.fill),
    }
