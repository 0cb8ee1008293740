"""The program of a batch: what the modern augmentations do to each sample, as one structured array of steps.

A row holds the steps of a sample in the order in which they are done. A step holds parameters and not magnitudes (a
factor of 1.27, not bin 9), so it can be read, edited, stored and replayed whatever became of the policy that drew it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from gpuseq.base.arguments import did_you_mean

__all__ = [
    "COLOURED",
    "IDENTITY",
    "NUM_ARGUMENTS",
    "STEPS",
    "STEP_DTYPE",
    "Kind",
    "Step",
    "as_bytes",
    "as_text",
    "code_of",
    "describe",
    "dicts_to_program",
    "empty_program",
    "has_kind",
    "names_in",
    "of_kind",
    "only_erasing",
    "only_geometry",
    "program_to_dicts",
    "without_erasing",
]

Kind: TypeAlias = Literal["none", "table", "measured", "pixel", "neighbourhood", "geometry", "crop", "erase", "mix"]
"""What an engine has to know of a step.

``table``: each level goes to a level, whatever its pixel. ``measured``: the same, once the image has been looked at.
``pixel``: a pixel's channels go to its channels. ``neighbourhood``: a pixel and those around it. ``geometry``: pixels
move. ``crop``: pixels move, and the image may change its size. ``erase``: a rectangle of the normalised image.
``mix``: several chains of steps are blended.
"""

COLOURED: tuple[Kind, ...] = ("table", "measured", "pixel")
"""Kinds that are defined on grey, RGB and RGBA alone."""


@dataclass(frozen=True)
class Step:
    """One kind of step: a row of the table that everything else derives from.

    Attributes
    ----------
    name : str
        As `describe` shows it: Pillow's or torchvision's word.
    kind : str
        See `Kind`.
    arguments : tuple of str
        Names of what ``arg`` holds, first to last.
    """

    name: str
    kind: Kind
    arguments: tuple[str, ...] = ()


STEPS = (
    Step("Identity", "none"),
    Step("Brightness", "table", ("factor",)),
    Step("Contrast", "measured", ("factor",)),
    Step("Color", "pixel", ("factor",)),
    Step("Sharpness", "neighbourhood", ("factor",)),
    Step("Posterize", "table", ("bits",)),
    Step("Solarize", "table", ("threshold",)),
    Step("SolarizeAdd", "table", ("addition", "threshold")),
    Step("Invert", "table"),
    Step("AutoContrast", "measured"),
    Step("Equalize", "measured"),
    Step("Gamma", "table", ("gamma", "gain")),
    Step("Grayscale", "pixel"),
    Step("Hue", "pixel", ("shift",)),
    Step("PermuteChannels", "pixel", ("first", "second", "third")),
    Step("GaussianBlur", "neighbourhood", ("kernel_width", "kernel_height", "sigma")),
    Step("ShearX", "geometry", ("shear",)),
    Step("ShearY", "geometry", ("shear",)),
    Step("TranslateX", "geometry", ("pixels",)),
    Step("TranslateY", "geometry", ("pixels",)),
    Step("Rotate", "geometry", ("degrees",)),
    Step("Affine", "geometry", ("degrees", "translate_x", "translate_y", "scale", "shear_x_deg", "shear_y_deg")),
    Step(
        "Perspective",
        "geometry",
        (
            *("top_left_x", "top_left_y", "top_right_x", "top_right_y"),
            *("bottom_right_x", "bottom_right_y", "bottom_left_x", "bottom_left_y"),
        ),
    ),
    Step("HorizontalFlip", "geometry"),
    Step("VerticalFlip", "geometry"),
    Step("ResizedCrop", "crop", ("top", "left", "height", "width", "target_height", "target_width")),
    Step("Erase", "erase", ("top", "left", "height", "width", "value_0", "value_1", "value_2", "value_3")),
    Step("EraseNoise", "erase", ("top", "left", "height", "width", "key")),
    Step("AugMix", "mix", ("blend", "width", "weight_1", "weight_2", "weight_3", "weight_4", "weight_5")),
    Step(
        "CropByKey",
        "crop",
        ("key", "least_share", "most_share", "least_ratio", "most_ratio", "target_height", "target_width"),
    ),
    # The centre as it was given and not as a distance from the middle: such a sum would round numbers like 0.1.
    Step("RotateAbout", "geometry", ("degrees", "center_x", "center_y")),
    Step(
        "AffineAbout",
        "geometry",
        (
            *("degrees", "translate_x", "translate_y", "scale", "shear_x_deg", "shear_y_deg"),
            *("center_x", "center_y"),
        ),
    ),
)
"""All steps; the position is the code. Codes are stored in plans: new steps go to the end."""

IDENTITY = 0
"""The code of a step that does nothing."""

NUM_ARGUMENTS = 8
"""Numbers that a step can hold."""

STEP_DTYPE = np.dtype(
    [
        ("op", np.int16),  # position in STEPS
        ("chain", np.int8),  # 0: done to the image; 1, 2, ...: to that chain of the AugMix step before it
        ("bilinear", np.int8),  # how geometry reads between pixels: 1 bilinear, 0 nearest
        ("fill", np.uint8, (4,)),  # what geometry puts where no pixel comes from, one value per channel
        ("arg", np.float64, (NUM_ARGUMENTS,)),
    ]
)
"""One step. A program has shape ``(N, S)``: sample, step."""

_BYTES = np.dtype((np.void, STEP_DTYPE.itemsize))

_CODES = {step.name: code for code, step in enumerate(STEPS)}


def code_of(name: str) -> int:
    """Return the code of a step.

    Parameters
    ----------
    name : str
        One of those in `STEPS`.

    Raises
    ------
    ValueError
        If there is no such step; names the nearest.
    """
    if name not in _CODES:
        raise ValueError(f"there is no step {name!r}{did_you_mean(name, _CODES) or '; known are ' + ', '.join(_CODES)}")
    return _CODES[name]


def empty_program(num_samples: int, num_steps: int) -> np.ndarray:
    """Return a program that does nothing.

    Parameters
    ----------
    num_samples, num_steps : int
        Its shape.

    Returns
    -------
    numpy.ndarray
        Shape ``(num_samples, num_steps)``, dtype `STEP_DTYPE`.
    """
    return np.zeros((num_samples, num_steps), STEP_DTYPE)


def as_bytes(program: np.ndarray) -> np.ndarray:
    """Return a program whose steps are bytes, in the same memory: to copy whole steps, in a quarter of the time.

    Parameters
    ----------
    program : numpy.ndarray
        Any shape, dtype `STEP_DTYPE`.

    Returns
    -------
    numpy.ndarray
        The shape of `program`, of elements that only others of their kind can be copied into.
    """
    return program.view(_BYTES)


def of_kind(program: np.ndarray, *kinds: Kind) -> np.ndarray:
    """Tell for each step whether it is of one of these kinds.

    Parameters
    ----------
    program : numpy.ndarray
        Any shape, dtype `STEP_DTYPE`.
    *kinds : str
        See `Kind`.

    Returns
    -------
    numpy.ndarray
        The shape of `program`, bool.
    """
    chosen: np.ndarray = _codes_of(kinds).take(program["op"])
    return chosen


@functools.cache
def _codes_of(kinds: tuple[Kind, ...]) -> np.ndarray:
    return np.array([step.kind in kinds for step in STEPS])


def names_in(program: np.ndarray) -> tuple[str, ...]:
    """Return the names of the steps that occur in a program, each once, in the order of `STEPS`."""
    # Counted and not sorted: there are few codes. What occurs together does so in every batch of a policy.
    return _names(np.bincount(program["op"].reshape(-1), minlength=len(STEPS)).astype(bool).tobytes())


@functools.lru_cache(maxsize=256)
def _names(occurs: bytes) -> tuple[str, ...]:
    return tuple(step.name for step, is_there in zip(STEPS, occurs, strict=True) if is_there)


def has_kind(program: np.ndarray | None, *kinds: Kind) -> bool:
    """Tell whether any step is of one of these kinds."""
    return program is not None and bool(of_kind(program, *kinds).any())


def only_geometry(program: np.ndarray, fill: int = 0) -> np.ndarray:
    """Return what a mask of the samples takes part in: the geometry, with nearest pixels, and nothing else.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `STEP_DTYPE`.
    fill : int
        The label, 0 to 255, where no pixel comes from.

    Returns
    -------
    numpy.ndarray
        The shape of `program`, new.

    Raises
    ------
    ValueError
        If pictures are mixed of several: a mask has no such mixture.
    """
    if has_kind(program, "mix"):
        raise ValueError("AugMix blends several pictures of a sample, and masks cannot be blended: leave it out")
    kept = program.copy()
    kept[~of_kind(program, "geometry", "crop")] = np.zeros((), STEP_DTYPE)
    # A mask holds labels, and between two labels there is none.
    kept["bilinear"] = 0
    # What geometry brings in is a label too, and not the grey of the pictures.
    kept["fill"] = fill
    return kept


def without_erasing(program: np.ndarray) -> np.ndarray:
    """Return a program that ends before its erasing steps."""
    # Steps become Identity and are not cut out: a program is one array, and samples erase at different places of it.
    kept = program.copy()
    kept[of_kind(program, "erase")] = np.zeros((), STEP_DTYPE)
    return kept


def only_erasing(program: np.ndarray) -> np.ndarray:
    """Return the erasing steps of a program alone."""
    kept = program.copy()
    kept[~of_kind(program, "erase")] = np.zeros((), STEP_DTYPE)
    return kept


def describe(steps: np.ndarray) -> list[tuple[Any, ...]]:
    """Return the steps of one sample as ``[("Rotate", 9.0), ("Color", 1.27)]``; those that do nothing are left out.

    Parameters
    ----------
    steps : numpy.ndarray
        Shape ``(S,)``, dtype `STEP_DTYPE`: a row of a program.

    Returns
    -------
    list of tuple
        Name and arguments of each step. Steps of a chain that AugMix blends carry its number: ``"1:Rotate"``.
    """
    shown = []
    for values in steps:
        step = STEPS[values["op"]]
        if step.kind == "none":
            continue
        name = f"{values['chain']}:{step.name}" if values["chain"] else step.name
        shown.append((name, *values["arg"][: len(step.arguments)].tolist()))
    return shown


def as_text(steps: np.ndarray) -> str:
    """Return the steps of one sample in a line: ``Rotate 9, Color 1.27``.

    Parameters
    ----------
    steps : numpy.ndarray
        Shape ``(S,)``, dtype `STEP_DTYPE`: a row of a program.
    """
    return ", ".join(" ".join((name, *(f"{value:.4g}" for value in args))) for name, *args in describe(steps))


def program_to_dicts(program: np.ndarray) -> list[list[dict[str, Any]]]:
    """Return a program as lists of dictionaries that JSON can hold, without the steps that do nothing.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `STEP_DTYPE`.

    Returns
    -------
    list of list of dict
        Per sample and step: ``op``, the arguments by name, for geometry also ``interpolation`` and ``fill``, and
        ``chain`` within AugMix.
    """
    rows = []
    for steps in program:
        row = []
        for values in steps:
            step = STEPS[values["op"]]
            if step.kind == "none":
                continue
            # By name, so that a stored plan outlives changes of codes and of the order of arguments.
            entry: dict[str, Any] = {"op": step.name}
            entry.update(zip(step.arguments, values["arg"].tolist(), strict=False))
            if step.kind in ("geometry", "crop"):
                entry["interpolation"] = "bilinear" if values["bilinear"] else "nearest"
                entry["fill"] = values["fill"].tolist()
            if values["chain"]:
                entry["chain"] = int(values["chain"])
            row.append(entry)
        rows.append(row)
    return rows


def dicts_to_program(rows: Iterable[Sequence[Mapping[str, Any]]], num_steps: int | None = None) -> np.ndarray:
    """Return the program that `program_to_dicts` wrote, or that was written by hand.

    Parameters
    ----------
    rows : iterable of sequence of mapping
        Per sample and step; what is missing is 0, and nearest.
    num_steps : int or None
        Steps per sample, at least those of the longest row. None: as many as that.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, S)``, dtype `STEP_DTYPE`.

    Raises
    ------
    ValueError
        If a step or one of its arguments is unknown, or a value is none that a step can hold.
    """
    rows = [list(row) for row in rows]
    longest = max(map(len, rows), default=0)
    program = empty_program(len(rows), longest if num_steps is None else max(longest, num_steps))
    for row, steps in zip(rows, program, strict=True):
        # Not strict: a row may be shorter than the program, whose steps are zeros, that is to say Identity.
        for entry, values in zip(row, steps, strict=False):
            step = STEPS[code_of(entry["op"])]
            known = ("op", *step.arguments, "interpolation", "fill", "chain")
            for name in entry:
                if name not in known:
                    raise ValueError(f"the step {step.name} has no {name!r}{did_you_mean(name, known)}")
            values["op"] = code_of(entry["op"])
            # What is left out is what a step of its own has: a plan may be written by hand.
            values["chain"] = _of_text(step, entry, "chain", 0, "a whole number from 0 to 5", _is_chain)
            read = _of_text(
                step, entry, "interpolation", "nearest", "'nearest' or 'bilinear'", ("nearest", "bilinear").count
            )
            values["bilinear"] = read == "bilinear"
            values["fill"] = _of_text(step, entry, "fill", 0, "a level of 0 to 255, or four of them", _is_fill)
            values["arg"][: len(step.arguments)] = [
                _of_text(step, entry, name, 0.0, "a finite number", _is_finite) for name in step.arguments
            ]
    return program


def _of_text(
    step: Step, entry: Mapping[str, Any], name: str, default: Any, wanted: str, fits: Callable[[Any], Any]
) -> Any:
    """Return what a step's dictionary holds, or refuse what does not fit a step."""
    value = entry.get(name, default)
    if not fits(value):
        raise ValueError(f"the step {step.name}: {name} must be {wanted}; got {value!r}")
    return value


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _is_chain(value: Any) -> bool:
    return _is_finite(value) and value in range(6)


def _is_fill(value: Any) -> bool:
    levels = value if isinstance(value, Sequence | np.ndarray) and len(value) == 4 else (value,)
    return all(_is_finite(level) and 0 <= level <= 255 for level in levels)
