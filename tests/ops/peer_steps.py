"""Steps of a program as torchvision v2 on PIL images and timm do them: the second oracle. Needs both packages.

Run as a module it prints how many values were compared with torchvision, and how many differ, per step.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
from PIL import Image

import gpuseq
from gpuseq.ops.numpy.program import run_steps
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.program import STEPS, describe
from tests.ops.pillow_steps import as_array, as_image

__all__ = ["by_timm", "by_torchvision", "fill_of", "on_tensor"]


def fill_of(values: np.ndarray, image: Image.Image) -> Any:
    """Return a step's fill as Pillow takes it."""
    levels = values["fill"].tolist()[: len(image.getbands())]
    return levels if len(levels) > 1 else levels[0]


def _affine(functional: Any, image: Image.Image, values: np.ndarray, **kwargs: Any) -> Image.Image:
    """torchvision's ``affine``, at rest but for `kwargs`."""
    interpolation = "bilinear" if values["bilinear"] else "nearest"
    from torchvision.transforms import InterpolationMode

    rest: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return functional.affine(
        image, **{**rest, **kwargs}, interpolation=InterpolationMode(interpolation), fill=fill_of(values, image)
    )


def by_torchvision(image_hwc: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Do a program row with ``torchvision.transforms.v2.functional`` on a PIL image; whole-pixel shifts only."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._functional_pil import affine
    from torchvision.transforms.functional import pil_modes_mapping
    from torchvision.transforms.v2 import functional

    image = as_image(image_hwc)
    for values in steps:
        name, args = STEPS[values["op"]].name, values["arg"].tolist()
        mode = InterpolationMode("bilinear" if values["bilinear"] else "nearest")
        if name == "Identity":
            continue
        if name in ("Brightness", "Contrast", "Color", "Sharpness"):
            function = {"Color": "saturation"}.get(name, name.lower())
            image = getattr(functional, f"adjust_{function}")(image, args[0])
        elif name == "Posterize":
            image = functional.posterize(image, int(args[0]))
        elif name == "Solarize":
            image = functional.solarize(image, args[0])
        elif name in ("Invert", "Equalize", "AutoContrast"):
            image = getattr(functional, name.lower())(image)
        elif name == "Grayscale":
            image = functional.rgb_to_grayscale(image, num_output_channels=3)
        elif name == "PermuteChannels":
            image = functional.permute_channels(image, [int(value) for value in args[:3]])
        elif name in ("ShearX", "ShearY"):
            # Without torchvision's way through an angle, which moves the last bit: see test_shear_is_torchvisions.
            matrix = [1, args[0], 0, 0, 1, 0] if name == "ShearX" else [1, 0, 0, args[0], 1, 0]
            image = affine(image, matrix, interpolation=pil_modes_mapping[mode], fill=fill_of(values, image))
        elif name == "TranslateX":
            image = _affine(functional, image, values, translate=[int(args[0]), 0])
        elif name == "TranslateY":
            image = _affine(functional, image, values, translate=[0, int(args[0])])
        elif name in ("Rotate", "RotateAbout"):
            center = args[1:3] if name == "RotateAbout" else None
            image = functional.rotate(image, args[0], interpolation=mode, center=center, fill=fill_of(values, image))
        elif name in ("Affine", "AffineAbout"):
            image = _affine(
                functional,
                image,
                values,
                angle=args[0],
                translate=[int(args[1]), int(args[2])],
                scale=args[3],
                shear=args[4:6],
                center=args[6:8] if name == "AffineAbout" else None,
            )
        elif name == "Perspective":
            width, height = image.size
            start = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
            end = [[int(x), int(y)] for x, y in zip(args[0::2], args[1::2], strict=True)]
            image = functional.perspective(image, start, end, interpolation=mode, fill=fill_of(values, image))
        elif name in ("HorizontalFlip", "VerticalFlip"):
            image = getattr(functional, "horizontal_flip" if name[0] == "H" else "vertical_flip")(image)
        elif name == "ResizedCrop":
            *box, height, width = (int(value) for value in args[:6])
            image = functional.resized_crop(image, *box, [height, width], interpolation=mode)
        else:
            raise NotImplementedError(describe(values[None]))
    return as_array(image)


def by_timm(image_hwc: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Do a program row with timm's own functions, whose shifts are negative where ours are positive."""
    from timm.data.auto_augment import NAME_TO_OP

    image = as_image(image_hwc)
    names = {"TranslateX": "TranslateX", "TranslateY": "TranslateY"}
    for values in steps:
        step = STEPS[values["op"]]
        if step.kind == "none":
            continue
        args = values["arg"].tolist()[: len(step.arguments)]
        if step.name in names:
            args[0] = -args[0]
        if step.name in ("Posterize", "SolarizeAdd"):
            args = [int(value) for value in args]
        if step.name == "Posterize" and args[0] == 0:
            image = image.point([0] * 256 * len(image.getbands()))  # Pillow 13 refuses 0 bits, which were black before
            continue
        resample = Image.Resampling.BILINEAR if values["bilinear"] else Image.Resampling.NEAREST
        fill = fill_of(values, image)
        fillcolor = tuple(fill) if isinstance(fill, list) else fill
        image = NAME_TO_OP[step.name](image, *args, fillcolor=fillcolor, resample=resample)
    return as_array(image)


def on_tensor(name: str, image_hwc: np.ndarray, *args: Any) -> np.ndarray:
    """Call a function of ``torchvision.transforms.v2.functional`` with a uint8 tensor."""
    import torch
    from torchvision.transforms.v2 import functional

    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image_hwc, 2, 0)))
    return np.moveaxis(getattr(functional, name)(tensor, *args).numpy(), 0, 2)


def _print_differences() -> None:
    """Draw each step a few thousand times, by policies and alone, and count the values that differ."""
    both = ("nearest", "bilinear")
    drawn: list[Any] = [gpuseq.RandAugment(1, bin_, interpolation=each) for bin_ in range(31) for each in both]
    drawn += [gpuseq.TrivialAugmentWide(interpolation=each, fill=(9, 80, 200)) for each in both for _ in range(9)]
    drawn += [gpuseq.RandomAffine(180, (0.5, 0.5), (0.3, 3.0), (-40, 40, -40, 40), each) for each in both]
    drawn += [gpuseq.RandomAffine((90, 90), (0.3, 0.3), (0.5, 2.0), interpolation="bilinear")]
    drawn += [gpuseq.RandomAffine(180, (0.5, 0.5), (0.3, 3.0), 40, each, center=(30.1, -7)) for each in both]
    drawn += [gpuseq.RandomRotation(360, each, center=center) for each in both for center in (None, (0, 80.3))]
    drawn += [gpuseq.RandomPerspective(0.6, 1.0, each) for each in both]
    drawn += [gpuseq.RandomInvert(1.0), gpuseq.RandomGrayscale(1.0), gpuseq.RandomResizedCrop((40, 31))]
    drawn += [gpuseq.ColorJitter(hue=0.5), gpuseq.RandomGamma((0.2, 3.0), p=1.0), gpuseq.GaussianBlur((5, 3))]
    on_tensors = {"Hue": "adjust_hue", "Gamma": "adjust_gamma", "GaussianBlur": "gaussian_blur"}
    height, width, count = 96, 131, 200
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
    ramps = np.linspace(0, 255, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
    images[1::2] = ramps * np.random.default_rng(1).uniform(0.3, 1, (count // 2, 1, 1, 3))
    compared, differing, largest = Counter[str](), Counter[str](), defaultdict[str, int](int)
    for epoch, augmentation in enumerate(drawn):
        program = Recipe((augmentation,)).draw(np.arange(count), (height, width), seed=1, epoch=epoch)
        for image, steps in zip(images, program, strict=True):
            for name, *args in describe(steps)[:1]:
                if name == "GaussianBlur":
                    args = [[int(side) for side in args[:2]], args[2:] * 2]
                if name in on_tensors:
                    expected = on_tensor(on_tensors[name], image, *args)
                else:
                    expected = by_torchvision(image, steps)
                apart = np.abs(run_steps(image, steps).astype(int) - expected)
                compared[name] += apart.size
                differing[name] += int((apart > 0).sum())
                largest[name] = max(largest[name], int(apart.max()))
    for name, total in compared.items():
        print(f"{name:<16}{total:>12,} values compared{differing[name]:>8,} differ, by {largest[name]} at most")


if __name__ == "__main__":
    _print_differences()
