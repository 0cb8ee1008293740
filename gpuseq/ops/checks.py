"""What a program's steps are held to before any engine sees them: programs are read from text, and written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpuseq.plan.boxes import NUM_KEYS
from gpuseq.plan.program import COLOURED, STEPS, code_of, names_in, of_kind

from .crops import size_after

__all__ = ["check_program"]


def check_program(
    program: np.ndarray,
    dtype: np.dtype,
    num_channels: int,
    image_size: tuple[int, int],
    present: tuple[str, ...] | None = None,
) -> None:
    """Refuse images that a program's steps are not defined for, and steps that would reach beyond an image.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    dtype : numpy.dtype
        Of the images.
    num_channels : int
        Of the images.
    image_size : (int, int)
        Their rows and columns.
    present : tuple of str or None
        The names of the steps that occur, where they are known already.

    Raises
    ------
    TypeError
        If they are not uint8.
    ValueError
        If a step of colour meets other than 1, 3 or 4 channels, or a number of a step lies outside its limits.
    """
    if dtype != np.uint8:
        # Erasing alone works on the finished batch, of any dtype.
        working = ~of_kind(program, "none", "erase")
        if working.any():
            name = STEPS[int(program["op"][working][0])].name
            raise TypeError(
                f"{name} is defined on uint8 images, levels 0 to 255, as Pillow has them; got {dtype}. Hand in uint8"
            )
    if num_channels not in (1, 3, 4):
        coloured = of_kind(program, *COLOURED)
        if coloured.any():
            name = STEPS[int(program["op"][coloured][0])].name
            raise ValueError(f"{name} takes images of 1, 3 or 4 channels (grey, RGB, RGBA); got {num_channels}")
    for name, args, fits, wanted in _limits(program, image_size, names_in(program) if present is None else present):
        # Written so that NaN does not fit.
        if not fits.all():
            numbers = " ".join(f"{value:g}" for value in args[np.argmin(fits)][: len(STEPS[code_of(name)].arguments)])
            raise ValueError(f"{name} {numbers}: {wanted}")


_LIMITED = frozenset(
    (
        *("Posterize", "PermuteChannels", "Hue", "GaussianBlur", "Affine", "AffineAbout", "RotateAbout", "AugMix"),
        *("Erase", "EraseNoise", "ResizedCrop"),
    )
)
"""The steps of which `_limits` knows what their numbers may be."""


def _limits(
    program: np.ndarray, image_size: tuple[int, int], present: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray, Any, str]]:
    """Yield the steps whose numbers an engine would follow anywhere: name, arguments, which fit, and what does."""
    if _LIMITED.isdisjoint(present):
        return
    rows, cols = size_after(program, image_size) if "ResizedCrop" in present else image_size
    frame = f"the rectangle has to lie within the {rows} x {cols} pixels of the image"

    def found(name: str) -> np.ndarray | None:
        return program["arg"][program["op"] == code_of(name)] if name in present else None

    if (args := found("Posterize")) is not None:
        yield "Posterize", args, (args[:, 0] >= 0) & (args[:, 0] <= 8), "bits go from 0 to 8"
    if (args := found("PermuteChannels")) is not None:
        yield "PermuteChannels", args, np.isin(args[:, :3], (0, 1, 2)).all(axis=1), "channels are 0, 1 and 2"
    if (args := found("Hue")) is not None:
        yield "Hue", args, abs(args[:, 0]) <= 0.5, "a shift goes from -0.5 to 0.5"
    if (args := found("GaussianBlur")) is not None:
        width, height = args[:, 0], args[:, 1]
        fits = (width >= 1) & (height >= 1) & (width % 2 == 1) & (height % 2 == 1)
        fits &= (width // 2 < cols) & (height // 2 < rows)
        yield (
            "GaussianBlur",
            args,
            fits,
            f"a kernel has odd sides, half of which fit an image of {rows} x {cols} pixels",
        )
        yield "GaussianBlur", args, (args[:, 2] > 0) & np.isfinite(args[:, 2]), "sigma is a number above 0"
    for name, count in (("Affine", 6), ("AffineAbout", 8)):
        if (args := found(name)) is not None:
            yield (
                name,
                args,
                np.isfinite(args[:, :count]).all(axis=1) & (args[:, 3] != 0),
                "a scale of 0 leaves no image",
            )
    if (args := found("RotateAbout")) is not None:
        yield "RotateAbout", args, np.isfinite(args[:, :3]).all(axis=1), "an angle and a centre are finite numbers"
    if (args := found("AugMix")) is not None:
        yield "AugMix", args, np.isin(args[:, 1], (1, 2, 3, 4, 5)), "it mixes 1 to 5 chains"
    for name in ("Erase", "EraseNoise"):
        if (args := found(name)) is not None:
            yield name, args, _inside(args, rows, cols), frame
            key = args[:, 4]
            if name == "EraseNoise":
                yield name, args, (key >= 0) & (key < NUM_KEYS) & (key == np.floor(key)), "a key is a whole number"
    if (args := found("ResizedCrop")) is not None:
        fits = _inside(args, *image_size) & (args[:, 2:6] >= 1).all(axis=1)
        yield (
            "ResizedCrop",
            args,
            fits,
            f"it has to lie within the {image_size[0]} x {image_size[1]} pixels of the image",
        )


def _inside(args: np.ndarray, rows: int, cols: int) -> Any:
    corner, sides = args[:, 0:2], args[:, 2:4]
    return ((corner >= 0) & (sides >= 0) & (corner + sides <= (rows, cols))).all(axis=1)
