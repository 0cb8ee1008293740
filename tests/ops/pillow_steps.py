"""Each step as Pillow does it, for a grid of arguments, and images to try it on: the oracle of the NumPy engine.

Run as a module it prints how many values were compared, and how many differ, per step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from gpuseq.ops.numpy.program import run_steps
from gpuseq.plan.program import as_text, code_of, empty_program

__all__ = ["CASES", "Case", "pictures", "step"]

FILL = (11, 22, 33, 255)


def step(name: str, *args: float, bilinear: bool = False, fill: tuple[int, ...] = FILL) -> np.ndarray:
    """Return a program row of one step."""
    row = empty_program(1, 1)[0]
    row["op"], row["bilinear"], row["fill"] = code_of(name), bilinear, fill
    row["arg"][0, : len(args)] = args
    return row


FAR: list[tuple[tuple[int, int], np.ndarray]] = [
    ((2, 20_000), step("TranslateX", -16_000.0)),
    ((20_000, 2), step("TranslateY", -13_000.0)),
    ((5, 32_000), step("ShearX", 300.0)),
    ((41, 51), step("Affine", 30.0, 0.0, 0.0, 3e-5, 5.0, 0.0)),
]
"""Where Pillow's fixed point ends: whole pixels far along a wide image, and maps that reach far beyond one."""

FAR_IDS = [f"{height} x {width}, {as_text(row)}" for (height, width), row in FAR]


@dataclass(frozen=True)
class Case:
    """A step and what Pillow does instead; `modes` are those that Pillow has it for."""

    name: str
    args: tuple[float, ...]
    oracle: Callable[[Image.Image], Image.Image]
    bilinear: bool = False
    modes: tuple[str, ...] = field(default=("L", "RGB", "RGBA"))

    @property
    def steps(self) -> np.ndarray:
        """The program row."""
        return step(self.name, *self.args, bilinear=self.bilinear)

    def __str__(self) -> str:
        return f"{self.name}{self.args}{' bilinear' if self.bilinear else ''}"


def _transformed(data: tuple[float, ...], bilinear: bool) -> Callable[[Image.Image], Image.Image]:
    def oracle(image: Image.Image) -> Image.Image:
        resampling = _resampling(bilinear)
        return image.transform(image.size, Image.Transform.AFFINE, data, resampling, fillcolor=_fill(image))

    return oracle


def _resampling(bilinear: bool) -> Image.Resampling:
    return Image.Resampling.BILINEAR if bilinear else Image.Resampling.NEAREST


def _fill(image: Image.Image) -> int | tuple[int, ...]:
    return FILL[0] if image.mode == "L" else FILL[: len(image.getbands())]


def _beside_alpha(oracle: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Image.Image]:
    """Pillow refuses alpha for these; ours keeps it as it is."""

    def both(image: Image.Image) -> Image.Image:
        if image.mode != "RGBA":
            return oracle(image)
        colours = oracle(Image.merge("RGB", image.split()[:3]))
        return Image.merge("RGBA", (*colours.split(), image.getchannel("A")))

    return both


def _cases() -> Iterator[Case]:
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, ImageEnhance.Sharpness)
    for enhancer in enhancers:
        for factor in (0.0, 0.1, 0.27, 0.5, 0.73, 1.0, 1.27, 1.45, 1.9, 3.0):

            def enhance(image: Image.Image, enhancer=enhancer, factor=factor) -> Image.Image:
                return enhancer(image).enhance(factor)

            yield Case(enhancer.__name__, (factor,), enhance)
    for bits in range(1, 9):
        yield Case("Posterize", (bits,), _beside_alpha(lambda image, bits=bits: ImageOps.posterize(image, bits)))
    yield Case("Posterize", (0,), _beside_alpha(lambda image: image.point([0] * 256 * len(image.getbands()))))
    for threshold in (0, 1, 64, 127.5, 128, 178.5, 255, 256):
        yield Case("Solarize", (threshold,), _beside_alpha(lambda image, t=threshold: ImageOps.solarize(image, t)))
    yield Case("Invert", (), _beside_alpha(ImageOps.invert))
    yield Case("AutoContrast", (), _beside_alpha(ImageOps.autocontrast))
    yield Case("Equalize", (), _beside_alpha(ImageOps.equalize))
    yield Case("Grayscale", (), _beside_alpha(lambda image: image.convert("L").convert(image.mode)))
    for bilinear in (False, True):
        for degrees in (0.0, 1.0, -3.0, 9.0, -9.0, 30.0, 45.0, 90.0, 135.0, 180.0, 270.0, -90.0, 360.5, 12.34567):

            def rotate(image: Image.Image, degrees=degrees, bilinear=bilinear) -> Image.Image:
                return image.rotate(degrees, _resampling(bilinear), fillcolor=_fill(image))

            yield Case("Rotate", (degrees,), rotate, bilinear)
        for degrees, center in (
            *((0.0, (3.0, 4.0)), (9.0, (0.0, 0.0)), (-30.0, (0.1, 5.7)), (12.34567, (-9.3, 70.0)), (45.0, (3.0, 2.0))),
            *((90.0, (3.0, 2.5)), (180.0, (2.25, 3.0)), (270.0, (-1.0, 4.0)), (90.0, (32.0, 32.0))),
        ):

            def about(image: Image.Image, degrees=degrees, center=center, bilinear=bilinear) -> Image.Image:
                return image.rotate(degrees, _resampling(bilinear), center=center, fillcolor=_fill(image))

            yield Case("RotateAbout", (degrees, *center), about, bilinear)
        for shear in (0.0, 0.09, -0.09, 0.3, -0.3, 0.99, -0.99):
            yield Case("ShearX", (shear,), _transformed((1, shear, 0, 0, 1, 0), bilinear), bilinear)
            yield Case("ShearY", (shear,), _transformed((1, 0, 0, shear, 1, 0), bilinear), bilinear)
        for pixels in (0.0, 3.0, -3.0, 30.5, -12.34, -0.4999999, 1000.0):
            yield Case("TranslateX", (pixels,), _transformed((1, 0, -pixels, 0, 1, 0), bilinear), bilinear)
            yield Case("TranslateY", (pixels,), _transformed((1, 0, 0, 0, 1, -pixels), bilinear), bilinear)
        yield Case("HorizontalFlip", (), ImageOps.mirror, bilinear)
        yield Case("VerticalFlip", (), ImageOps.flip, bilinear)
    for bilinear in (False, True):
        for box in ((0, 0, 1, 1), (1, 2, 5, 3), (0, 3, 9, 4)):

            def crop(image: Image.Image, box=box, bilinear=bilinear) -> Image.Image:
                top, left, height, width = box
                part = image.crop((left, top, left + width, top + height))
                return part.resize((8, 6), _resampling(bilinear))

            yield Case("ResizedCrop", (*box, 6, 8), crop, bilinear)


CASES = list(_cases())
"""All of them."""


def pictures(mode: str) -> Iterator[np.ndarray]:
    """Yield noise, smooth gradients and constants, (H, W, C), from one pixel to 224."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    rng = np.random.default_rng(20)
    for height, width in ((1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (17, 23), (64, 64), (61, 97), (224, 224)):
        yield rng.integers(0, 256, (height, width, channels), np.uint8)
        coarse = rng.integers(0, 256, (max(1, height // 6), max(1, width // 6), channels), np.uint8)
        planes = [Image.fromarray(plane).resize((width, height)) for plane in np.moveaxis(coarse, 2, 0)]
        yield np.stack([np.asarray(plane) for plane in planes], axis=2)
        yield np.full((height, width, channels), (10, 200, 77, 128)[:channels], np.uint8)


def as_image(image_hwc: np.ndarray) -> Image.Image:
    """Return an array as Pillow's image."""
    return Image.fromarray(image_hwc[..., 0] if image_hwc.shape[2] == 1 else image_hwc)


def as_array(image: Image.Image) -> np.ndarray:
    """Return Pillow's image as (H, W, C)."""
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


if __name__ == "__main__":
    compared, differing = Counter(), Counter()
    for case in CASES:
        for mode in case.modes:
            for image in pictures(mode):
                if case.name == "ResizedCrop" and min(image.shape[:2]) < 9:
                    continue
                expected = as_array(case.oracle(as_image(image)))
                compared[case.name] += expected.size
                differing[case.name] += int((run_steps(image, case.steps) != expected).sum())
    for name, count in compared.items():
        print(f"{name:<16}{count:>12,} values compared{differing[name]:>8,} differ")
