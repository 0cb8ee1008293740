"""The pictures of the documentation, drawn by gpuseq from its own photographs each time the pages are built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import gpuseq
from gpuseq import ImageDataGenerator

PHOTOS = Path(gpuseq.__file__).with_name("photos")
SIDE = 176


def load(name: str, target_size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    return np.asarray(gpuseq.load_img(PHOTOS / name, target_size=target_size, interpolation="bilinear"))


def strip(images: Sequence[Any], titles: Sequence[str]) -> Image.Image:
    """Set pictures side by side, a title under each."""
    pictures = [Image.fromarray(np.clip(np.asarray(image), 0, 255).astype(np.uint8)) for image in images]
    gap, foot, height = 10, 26, max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + gap * (len(pictures) - 1), height + foot), "#ffffff")
    draw, left = ImageDraw.Draw(sheet), 0
    for picture, title in zip(pictures, titles, strict=True):
        sheet.paste(picture, (left, 0))
        draw.text((left + 2, height + 6), title, "#1c1e21", ImageFont.load_default(13))
        left += picture.width + gap
    return sheet


def one(image: np.ndarray, parameters: dict[str, Any], **arguments: Any) -> np.ndarray:
    generator = ImageDataGenerator(**arguments, device="cpu")
    return np.asarray(generator.apply_transform(image.astype(np.float32), parameters))


def conventions() -> tuple[Image.Image, str]:
    image = load("everyday/chelsea.jpg", (SIDE, SIDE * 3 // 2))
    shift, turn = {"tx": 40.0}, {"theta": 40.0}
    pictures, titles = [image], ["original"]
    for name in ("keras", "corrected"):
        pictures += [one(image, shift, fill_mode="constant", conventions=name)]
        titles += [f"height shift, {name}"]
    for name in ("keras", "corrected"):
        pictures += [one(image, turn, fill_mode="constant", conventions=name)]
        titles += [f"rotation, {name}"]
    return strip(pictures, titles), (
        "In Keras 3 the height shift moves columns, and an image that is not square turns about a point off its "
        'centre. conventions="corrected" does what the names say.'
    )


def fill_modes() -> tuple[Image.Image, str]:
    image = load("everyday/coffee.jpg")
    modes = ("nearest", "constant", "reflect", "wrap")
    return strip([one(image, {"theta": 25.0, "zx": 1.5, "zy": 1.5}, fill_mode=mode) for mode in modes], modes), (
        "What lies beyond the border, for each fill_mode."
    )


def channel_shift() -> tuple[Image.Image, str]:
    image = load("everyday/chelsea.jpg")
    values = (-80.0, 0.0, 80.0)
    pictures = [one(image, {"channel_shift_intensity": value}) for value in values]
    return strip(pictures, [f"{value:+.0f}" for value in values]), (
        "channel_shift_range adds one number to all channels alike and clips to the image's own range: a change of "
        "brightness, not of colour."
    )


def brightness() -> tuple[Image.Image, str]:
    image = load("everyday/chelsea.jpg")
    factors = (0.4, 1.0, 1.6)
    pictures = [one(image, {"brightness": factor}) for factor in factors]
    return strip(pictures, [f"x {factor:g}" for factor in factors]), (
        "brightness_range multiplies, through eight bits: floats are truncated to whole levels on the way."
    )


def augmented() -> tuple[Image.Image, str]:
    image = load("space/astronaut.jpg")
    generator = ImageDataGenerator(
        rotation_range=25, width_shift_range=0.1, height_shift_range=0.1, zoom_range=0.2, horizontal_flip=True,
        channel_shift_range=30, fill_mode="reflect", conventions="corrected", device="cpu",
    )  # fmt: skip
    batch = next(generator.flow(np.repeat(image[None], 4, axis=0), batch_size=4, seed=3, shuffle=False))
    return strip([image, *np.asarray(batch)], ["original", *(f"sample {index}" for index in range(4))]), (
        "One photograph, four draws: rotation, shifts, zoom, flip and channel shift, in one pass."
    )


def _modern(augmentations: Any, count: int, seed: int) -> Image.Image:
    """Draw one photograph `count` times through augmentations, each with its steps under it."""
    image = load("everyday/chelsea.jpg")
    augment = gpuseq.Compose(augmentations, seed=seed)
    plan = augment.plan(count, (SIDE, SIDE), epoch=0)
    batch = augment.apply(plan, np.repeat(image[None], count, axis=0))
    titles = []
    for sample in range(count):
        steps = [" ".join((name, *(f"{value:.3g}" for value in args[:1]))) for name, *args in plan.describe(sample)]
        titles.append(", ".join(steps)[:28] or "as it is")
    return strip(list(batch), titles)


def rand_augment() -> tuple[Image.Image, str]:
    sheet = _modern(gpuseq.RandAugment(num_ops=2, magnitude=15, fill=128), 5, 4)
    return (
        sheet,
        "RandAugment(num_ops=2, magnitude=15): each sample of a batch has its own two steps, with these arguments.",
    )


def trivial() -> tuple[Image.Image, str]:
    sheet = _modern(gpuseq.TrivialAugmentWide(fill=128), 5, 9)
    return sheet, "TrivialAugmentWide(): one step of any strength for each sample."


def jitter() -> tuple[Image.Image, str]:
    sheet = _modern([gpuseq.ColorJitter(0.4, 0.4, 0.4, 0.1), gpuseq.RandomErasing(p=1.0, value=(128, 0, 0))], 5, 2)
    return sheet, "ColorJitter(0.4, 0.4, 0.4, 0.1), its four steps in a drawn order, then RandomErasing."


PICTURES: dict[str, Callable[[], tuple[Image.Image, str]]] = {
    "augmented": augmented,
    "brightness": brightness,
    "channel-shift": channel_shift,
    "conventions": conventions,
    "fill-modes": fill_modes,
    "jitter": jitter,
    "rand-augment": rand_augment,
    "trivial": trivial,
}
