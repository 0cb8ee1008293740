"""Who makes batches. Each is at the settings its documentation recommends, and imports its library when opened."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.work import folder, pictures

__all__ = ["AUGMENTERS", "CONTENDERS", "LOADER", "PEERS", "Absent", "Case", "Contender", "load", "need"]

CONTENDERS = {
    "gpuseq": ("ours", "Gpuseq"),
    "keras": ("keras_generator", "KerasGenerator"),
    "keras-layers-torch": ("keras_layers", "KerasLayers"),
    "keras-layers-jax": ("keras_layers", "KerasLayers"),
    "torchvision": ("torchvision_v2", "TorchvisionV2"),
    "kornia": ("kornia_eager", "Kornia"),
    "kornia-compiled": ("kornia_eager", "KorniaCompiled"),
    "albumentations": ("albumentations_loader", "Albumentations"),
    "dali": ("dali_pipeline", "Dali"),
}
"""Name -> (module in this package, class)."""

AUGMENTERS = {
    "gpuseq": ("policies", "Ours"),
    "torchvision": ("policies", "TorchvisionV2"),
    "torchvision-loader": ("policies", "TorchvisionLoader"),
    "timm-loader": ("policies", "TimmLoader"),
    "albumentations-loader": ("policies", "AlbumentationsLoader"),
    "kornia": ("policies", "Kornia"),
    "keras-layers-torch": ("policies", "KerasLayers"),
}
"""The same for cases with a policy: a batch that is on the device is augmented there, or loaded by worker processes."""

LOADER = "-loader"
"""Ends the name of one who is asked for by the library's."""

PEERS = tuple(sorted({name.removesuffix(LOADER) for name in (*CONTENDERS, *AUGMENTERS)} - {"gpuseq"}))
"""The names by which they are asked for."""


class Absent(Exception):  # noqa: N818 - it is an answer, not an error
    """Not installed, or not able to do this work: the message says which."""


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes
    ----------
    size : int
        Rows and columns of the batches' images.
    batch : int
        Images per batch.
    dtype : str
        Of the batches.
    device : {"cpu", "cuda"}
        Where the batches are to be.
    samples : int
        Images in the data set.
    files : bool
        From a folder of 500x375 JPEG files instead of an array.
    augment : bool
        False: decode, resize and rescale only.
    cache : str or None
        gpuseq's, with files.
    decoder : str
        gpuseq's, with files.
    policy : str or None
        One of `benchmarks.contenders.policies.POLICIES`, instead of the work above: of uint8 images that stay on the
        device float32 batches, 0..1, again and again.
    way : str
        With a policy, where a library has two: its interface, what it is given, or whether a batch is given to it as
        one or in a loop.
    """

    size: int = 224
    batch: int = 32
    dtype: str = "float32"
    device: str = "cpu"
    samples: int = 512
    files: bool = False
    augment: bool = True
    cache: str | None = None
    decoder: str = "auto"
    policy: str | None = None
    way: str = ""


class Contender:
    """One who makes batches; subclasses override what they need.

    Attributes
    ----------
    ahead : int
        Batches that may lie ready before they are asked for. So many are taken before a clock starts.
    note : str or None
        What to know about its figures.
    waits_each_batch : bool
        Synchronise after each batch and not only at the end of a slice.
    """

    ahead = 0
    note: str | None = None
    waits_each_batch = False

    def __init__(self, case: Case) -> None:
        self.case = case

    def prepare(self) -> None:
        """Import the library; raise Absent where that fails."""

    def rotate(self, degrees: float) -> np.ndarray | None:
        """Return `benchmarks.work.picture` turned by the code that is timed, on the host, 0..255; None if it cannot."""
        return None

    def start(self) -> None:
        """Open the data set from its beginning."""
        raise NotImplementedError

    def next_batch(self) -> Any:
        """Return the next batch of images; its ``len`` is their number."""
        raise NotImplementedError

    def to_host(self, batch: Any) -> np.ndarray:
        """Return a batch as a NumPy array."""
        return np.asarray(batch)

    def synchronize(self) -> None:
        """Wait for the device."""

    def close(self) -> None:
        """Stop helpers."""

    def array(self) -> np.ndarray:
        """Return the data set in memory, ``(samples, size, size, 3)``, uint8."""
        return pictures(self.case.samples, self.case.size)

    def folder(self) -> str:
        """Return the folder of JPEG files."""
        return str(folder(self.case.samples))


def need(module: str) -> Any:
    """Import a peer's library or raise Absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"not installed ({error})") from error


def load(name: str, *, for_policy: bool = False) -> type[Contender]:
    """Return the class of a contender; `for_policy`: the one that does cases with a policy."""
    module, attribute = (AUGMENTERS if for_policy else CONTENDERS)[name]
    found: type[Contender] = getattr(importlib.import_module(f".{module}", __name__), attribute)
    return found
