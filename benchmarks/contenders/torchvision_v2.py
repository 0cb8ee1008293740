"""torchvision's v2 transforms, one image at a time in a DataLoader."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from benchmarks.work import picture

from . import Absent, need
from .torch_loader import LoaderContender

__all__ = ["TorchvisionV2", "import_torchvision"]


class TorchvisionV2(LoaderContender):
    """RandomAffine composes rotation, shift, zoom and shear in one map; outside it fills with black."""

    def prepare(self) -> None:
        if self.case.dtype != "float32":
            raise Absent("not measured: float32 only")
        need("torch")
        import_torchvision()
        self.v2 = importlib.import_module("torchvision.transforms.v2")

    def rotate(self, degrees: float) -> np.ndarray | None:
        import torch

        affine = self.v2.RandomAffine((degrees, degrees), interpolation=self.v2.InterpolationMode.BILINEAR)
        return affine(torch.from_numpy(picture()).permute(2, 0, 1)).permute(1, 2, 0).numpy()

    def start(self) -> None:
        import torch
        from PIL import Image

        v2, size = self.v2, (self.case.size, self.case.size)
        steps: list[Any] = []
        if self.case.augment:
            steps = [
                v2.RandomAffine(
                    20, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10, interpolation=v2.InterpolationMode.BILINEAR
                ),
                v2.RandomHorizontalFlip(),
            ]
        steps.append(v2.ToDtype(torch.float32, scale=True))
        if self.case.files:
            paths = self.file_names()
            transform = v2.Compose([v2.Resize(size, antialias=True), v2.ToImage(), *steps])
            self.open_loader(len(paths), lambda index: Image.open(paths[index]).convert("RGB"), transform)
        else:
            images = torch.from_numpy(self.array()).permute(0, 3, 1, 2).contiguous()
            self.open_loader(len(images), images.__getitem__, v2.Compose(steps))


def import_torchvision() -> None:
    """Import the package, also where its compiled ops do not fit; raise Absent where that fails."""
    try:
        importlib.import_module("torchvision")
    except ImportError as error:
        raise Absent(f"not installed ({error})") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise Absent(f"installed, but does not import: {error}") from error
        _import_without_compiled_ops()


def _import_without_compiled_ops() -> None:
    """Import a torchvision whose compiled detection ops do not fit this torch: v2's transforms need none of them."""
    import sys

    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    TorchvisionV2.compiled_ops_stub = library  # type: ignore[attr-defined]  # its ops live as long as it does
    for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise Absent(f"installed, but does not import: {error}") from error
