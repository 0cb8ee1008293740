"""A batch that lies on the device, augmented there by a modern policy: uint8 in, float32 in 0..1 out.

Those that augment on the host image by image do so in a DataLoader, of as many processes as there are cores.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

import gpuseq
from gpuseq.base.devices import place, resolve_device, synchronize

from . import Absent, Contender, need
from .torch_loader import LoaderContender
from .torchvision_v2 import import_torchvision

__all__ = [
    "POLICIES",
    "AlbumentationsLoader",
    "KerasLayers",
    "Kornia",
    "Ours",
    "TimmLoader",
    "TorchvisionLoader",
    "TorchvisionV2",
]

POLICIES = {
    "RandAugment(2, 9)": gpuseq.RandAugment(2, 9),
    "TrivialAugmentWide()": gpuseq.TrivialAugmentWide(),
    "ColorJitter(0.4, 0.4, 0.4)": gpuseq.ColorJitter(0.4, 0.4, 0.4),
    "RandomErasing(1.0)": gpuseq.RandomErasing(1.0),
}
"""By their calls in torchvision. What matters most comes first."""


class Ours(Contender):
    """gpuseq, through the iterator of a resident array or through `gpuseq.Compose`: it draws for each sample."""

    def prepare(self) -> None:
        assert self.case.policy is not None
        self.policy = POLICIES[self.case.policy]
        self.device = resolve_device(self.case.device)

    def start(self) -> None:
        resident = place(self.array(), self.device)
        if self.case.way == "iterator":
            generator = gpuseq.ImageDataGenerator(augmentations=self.policy, rescale=1 / 255, device=self.device)
            iterator = generator.flow(resident, batch_size=self.case.batch, shuffle=False, seed=1)
            self.make: Callable[[], Any] = lambda: next(iterator)
            return
        compose = gpuseq.Compose(self.policy, seed=1, dtype="float32")
        self.note = "levels 0 to 255, divided after"

        def make() -> Any:
            batch = compose(resident)
            batch *= np.float32(1 / 255)
            return batch

        self.make = make

    def next_batch(self) -> Any:
        return self.make()

    def to_host(self, batch: Any) -> np.ndarray:
        return np.asarray(place(batch, "cpu"))

    def synchronize(self) -> None:
        synchronize(self.device)


class _OfTorch(Contender):
    """What the libraries on PyTorch share; a subclass says what is done to the batch."""

    def prepare(self) -> None:
        self.torch = need("torch")

    def augmentation(self) -> Callable[[Any], Any]:
        """Return what makes the batch of uint8 images ``(N, H, W, C)``."""
        raise NotImplementedError

    def start(self) -> None:
        self.torch.manual_seed(1)
        self.resident = self.torch.from_numpy(self.array()).to(self.case.device)
        self.augment = self.augmentation()

    def next_batch(self) -> Any:
        with self.torch.no_grad():
            return self.augment(self.resident)

    def to_host(self, batch: Any) -> np.ndarray:
        place, wanted = batch.device.type, self.case.device
        assert place == wanted, f"the batch was made on {place}, not on {wanted}"
        return np.asarray(batch.cpu())

    def synchronize(self) -> None:
        if self.case.device == "cuda":
            self.torch.cuda.synchronize()

    def planes(self) -> Any:
        """Return the resident images with channels first."""
        return self.resident.permute(0, 3, 1, 2).contiguous()


class TorchvisionV2(_OfTorch):
    """The transforms draw once for whatever they are given: a batch as one tensor, or sample by sample."""

    def prepare(self) -> None:
        super().prepare()
        import_torchvision()

    def augmentation(self) -> Callable[[Any], Any]:
        v2, torch, planes = importlib.import_module("torchvision.transforms.v2"), self.torch, self.planes()
        transform = _of_torchvision(v2, str(self.case.policy))
        scale = v2.ToDtype(torch.float32, scale=True)
        if self.case.way == "batch":
            return lambda _: scale(transform(planes))
        return lambda _: scale(torch.stack([transform(image) for image in planes]))


def _of_torchvision(v2: Any, policy: str) -> Any:
    """Return a policy as torchvision has it."""
    return {
        "RandAugment(2, 9)": lambda: v2.RandAugment(2, 9),
        "TrivialAugmentWide()": v2.TrivialAugmentWide,
        "ColorJitter(0.4, 0.4, 0.4)": lambda: v2.ColorJitter(0.4, 0.4, 0.4),
        "RandomErasing(1.0)": lambda: v2.RandomErasing(1.0),
    }[policy]()


class _Loader(LoaderContender):
    """In worker processes, image by image: what is in memory goes through the transform to a float tensor."""

    def prepare(self) -> None:
        need("torch")
        import_torchvision()
        self.v2 = importlib.import_module("torchvision.transforms.v2")

    def open(self, items: Any, *steps: Callable[[Any], Any]) -> None:
        """Open a loader of these images, each of which goes through the steps."""
        self.open_loader(len(items), items.__getitem__, self.v2.Compose(steps))

    def scale(self) -> list[Callable[[Any], Any]]:
        """Return the steps from a picture or a tensor to floats in 0..1."""
        return [self.v2.ToImage(), self.v2.ToDtype(need("torch").float32, scale=True)]

    def tensors(self) -> Any:
        """Return the images with channels first."""
        return need("torch").from_numpy(self.array()).permute(0, 3, 1, 2).contiguous()


class TorchvisionLoader(_Loader):
    """On PIL images or on tensors, as `Case.way` says."""

    def start(self) -> None:
        from PIL import Image

        policy = str(self.case.policy)
        transform = _of_torchvision(self.v2, policy)
        images = [Image.fromarray(image) for image in self.array()] if self.case.way == "PIL" else self.tensors()
        # Erasing is defined on the finished image.
        if policy == "RandomErasing(1.0)":
            self.open(images, *self.scale(), transform)
        else:
            self.open(images, transform, *self.scale())


class TimmLoader(_Loader):
    """Its RandomErasing."""

    def prepare(self) -> None:
        super().prepare()
        need("timm")

    def start(self) -> None:
        erasing = importlib.import_module("timm.data.random_erasing").RandomErasing(1.0, device="cpu")
        self.open(self.tensors(), *self.scale(), erasing)


class AlbumentationsLoader(_Loader):
    """Its ColorJitter, by formulas of its own."""

    def prepare(self) -> None:
        super().prepare()
        self.library = need("albumentations")

    def start(self) -> None:
        ends = (0.6, 1.4)
        jitter = self.library.ColorJitter(brightness=ends, contrast=ends, saturation=ends, hue=(0, 0), p=1)
        self.open(self.array(), lambda image: jitter(image=image)["image"], *self.scale())
        self.note = f"other formulas; {self.note}"


class Kornia(_OfTorch):
    """On floats in 0..1, as its functions expect them."""

    def prepare(self) -> None:
        super().prepare()
        need("kornia")
        self.note = {
            "RandAugment(2, 9)": "its steps are chosen once for the batch",
            "TrivialAugmentWide()": "its TrivialAugment: the step is chosen once for the batch",
            "ColorJitter(0.4, 0.4, 0.4)": "its ColorJiggle: other formulas; the order is drawn once for the batch",
        }.get(str(self.case.policy))

    def augmentation(self) -> Callable[[Any], Any]:
        single = importlib.import_module("kornia.augmentation")
        auto = importlib.import_module("kornia.augmentation.auto")
        transform = {
            "RandAugment(2, 9)": lambda: auto.RandAugment(n=2, m=9),
            "TrivialAugmentWide()": auto.TrivialAugment,
            "ColorJitter(0.4, 0.4, 0.4)": lambda: single.ColorJiggle(0.4, 0.4, 0.4, 0.0, p=1.0),
            "RandomErasing(1.0)": lambda: single.RandomErasing(p=1.0),
        }[str(self.case.policy)]()
        planes = self.planes()
        return lambda _: transform(planes.float() / 255)


class KerasLayers(_OfTorch):
    """Keras 3's layers on PyTorch, with ranges that come nearest to the policy's."""

    def prepare(self) -> None:
        super().prepare()
        self.keras = need("keras")
        if self.case.policy == "TrivialAugmentWide()":
            raise Absent("not measured: Keras has no layer for TrivialAugment")
        self.note = {
            "RandAugment(2, 9)": "its steps are chosen once for the batch, all 11 are done for each; clipped here",
            "ColorJitter(0.4, 0.4, 0.4)": "its RandomColorJitter: other formulas, always in one order; clipped here",
        }.get(str(self.case.policy))

    def augmentation(self) -> Callable[[Any], Any]:
        layers, ops = self.keras.layers, self.keras.ops
        saturation = (0.6 / 1.6, 1.4 / 2.4)  # shares of which share / (1 - share) is the factor: 0.6 to 1.4
        layer = {
            "RandAugment(2, 9)": lambda: layers.RandAugment((0, 255), num_ops=2, factor=9 / 30, seed=1),
            "ColorJitter(0.4, 0.4, 0.4)": lambda: layers.RandomColorJitter(
                (0, 255), brightness_factor=0.4, contrast_factor=0.4, saturation_factor=saturation, seed=1
            ),
            "RandomErasing(1.0)": lambda: layers.RandomErasing((1.0, 1.0), fill_value=0.0, seed=1),
        }[str(self.case.policy)]()
        if self.case.policy == "RandomErasing(1.0)":
            return lambda images: layer(images, training=True) / 255
        # These two leave the range of values that they are told.
        return lambda images: ops.clip(layer(images, training=True) / 255, 0, 1)
