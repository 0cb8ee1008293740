"""What runs against what: gpuseq first, Keras' generator second, then every library that can do the work."""

from __future__ import annotations

from typing import Any

from benchmarks import REHEARSES
from benchmarks.measure import Runner, Settings
from gpuseq.base.threads import cpu_count

__all__ = ["KERAS", "OURS", "augmenters", "in_arrays", "in_files", "ours_and_keras"]

KERAS = "Keras ImageDataGenerator"
OURS = "gpuseq"

TORCH = {"KERAS_BACKEND": "torch"}
JAX = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def _wanted(runners: list[Runner], settings: Settings) -> list[Runner]:
    return [runner for runner in runners if settings.wants(runner.contender)]


def _theirs(case: dict[str, Any]) -> dict[str, Any]:
    """Return a peer's case: in a rehearsal there is no GPU for it."""
    return case | {"device": "cpu"} if REHEARSES else case


GPU_DECODERS = {"nvimgcodec": "nvImageCodec on the GPU", "dali": "DALI's decoder on the GPU"}


def ours_and_keras(case: dict[str, Any], settings: Settings) -> list[Runner]:
    """Return gpuseq, on the GPU too where that is asked for, and Keras' generator."""
    host = case | {"device": "cpu"}
    runners = [Runner("gpuseq", f"{OURS}, GPU", case)] if settings.device == "cuda" else []
    runners += [
        Runner("gpuseq", f"{OURS}, CPU", host),
        Runner("keras", KERAS, host, TORCH),
    ]
    return _wanted(runners, settings)


def in_arrays(case: dict[str, Any], settings: Settings, *, slow: bool) -> list[Runner]:
    """Return all that augment an array in memory; `slow` lets the very slow ones in."""
    ours, host = ours_and_keras(case, settings), case | {"device": "cpu"}
    case = _theirs(case)
    peers = [
        *([Runner("gpuseq", f"{OURS}, CPU, one thread", host, {"GPUSEQ_NUM_THREADS": "1"})] if cpu_count() > 1 else []),
        Runner("torchvision", "torchvision v2, DataLoader", host),
        Runner("albumentations", "albumentations, DataLoader", host),
        Runner("dali", "DALI pipeline", case),
        Runner("kornia", "Kornia", case),
        Runner("kornia-compiled", "Kornia, compiled", case),
    ]
    if slow:
        peers += [
            Runner("keras-layers-jax", "Keras layers, JAX", case, JAX),
            Runner("keras-layers-torch", "Keras layers, PyTorch", case, TORCH),
        ]
    return ours + _wanted(peers, settings)


def in_files(case: dict[str, Any], settings: Settings) -> list[Runner]:
    """Return all that augment a folder of JPEG files, one epoch to a slice."""
    host, count = case | {"device": "cpu"}, case["samples"]
    runners: list[Runner] = []
    for device in ("cuda", "cpu") if settings.device == "cuda" else ("cpu",):
        name, at = f"{OURS}, {'GPU' if device == 'cuda' else 'CPU'}", case | {"device": device}
        cache = {"cache": "device" if device == "cuda" else "host"}
        runners += [
            Runner("gpuseq", f"{name}, epoch 1", at, images=count, reopen=True),
            Runner("gpuseq", f"{name}, epoch 2 on, no cache", at, images=count),
            Runner(
                "gpuseq", f"{name}, epoch 1, filling the {cache['cache']} cache", at | cache, images=count, reopen=True
            ),
            Runner("gpuseq", f"{name}, epoch 2 on, {cache['cache']} cache", at | cache, images=count),
        ]
    for decoder, how in GPU_DECODERS.items() if settings.device == "cuda" else ():
        at = case | {"device": "cuda", "decoder": decoder}
        runners += [
            Runner("gpuseq", f"{OURS}, GPU, {how}, epoch 1", at, images=count, reopen=True),
            Runner("gpuseq", f"{OURS}, GPU, {how}, epoch 2 on, no cache", at, images=count),
        ]
    runners += [
        Runner("keras", KERAS, host, TORCH, images=count),
        Runner("torchvision", "torchvision v2, DataLoader", host, images=count),
        Runner("albumentations", "albumentations, DataLoader", host, images=count),
        Runner("dali", "DALI pipeline", _theirs(case), images=count),
    ]
    return _wanted(runners, settings)


def augmenters(case: dict[str, Any], settings: Settings) -> list[Runner]:
    """Return all that augment a batch on the GPU by a policy."""
    theirs = _theirs(case)
    runners = [
        Runner("gpuseq", f"{OURS}, GPU, iterator", case | {"way": "iterator"}),
        Runner("gpuseq", f"{OURS}, GPU, Compose", case | {"way": "Compose"}),
        Runner("torchvision", "torchvision v2, one choice for the batch", theirs | {"way": "batch"}),
        Runner("torchvision", "torchvision v2, sample by sample", theirs | {"way": "sample"}),
        Runner("kornia", "Kornia", theirs),
        Runner("keras-layers-torch", "Keras layers, PyTorch", theirs, TORCH),
    ]
    return _wanted(runners, settings)
