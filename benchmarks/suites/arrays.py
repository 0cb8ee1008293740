"""A uint8 array in memory to augmented batches: sizes, batch sizes, dtypes, contenders."""

from __future__ import annotations

from typing import Any

from benchmarks import REHEARSES
from benchmarks.measure import Row, Settings, race

from .field import in_arrays, ours_and_keras

__all__ = ["run"]


def run(settings: Settings) -> list[Row]:
    """Race all contenders on float32 batches of 32; gpuseq and Keras' generator on the rest."""
    rows: list[Row] = []
    if settings.smoke:
        case = {"size": 24, "batch": 4, "samples": 12}
        return race(
            "arrays",
            "24x24, batch 4, float32",
            in_arrays(_on(case, settings), settings, slow=REHEARSES),
            settings,
            at=case,
        )
    # On a GPU batches of 256 are the point; there all peers run below.
    on_cpu = settings.device == "cpu"
    for size, samples in ((32, 4096), (224, 512), (512, 96)) if on_cpu else ():
        case: dict[str, Any] = {"size": size, "batch": 32, "samples": samples}
        rows += race(
            "arrays", _name(case), in_arrays(_on(case, settings), settings, slow=size <= 224), settings, at=case
        )
    if not on_cpu:  # what matters most comes first: time may run out
        case = {"size": 224, "batch": 256, "samples": 512}
        rows += race("arrays", _name(case), in_arrays(_on(case, settings), settings, slow=True), settings, at=case)
    others: list[dict[str, Any]] = [
        *([] if on_cpu else [{"size": size, "batch": 32, "samples": 512} for size in (224, 32, 512)]),
        {"size": 224, "batch": 32, "samples": 512, "dtype": "float16"},
        {"size": 224, "batch": 32, "samples": 512, "dtype": "uint8"},
        {"size": 32, "batch": 256, "samples": 4096},
        {"size": 32, "batch": 1024, "samples": 4096},
        *([{"size": 224, "batch": 256, "samples": 512}] if on_cpu else []),
        {"size": 224, "batch": 1024, "samples": 1024},
    ]
    for case in others:
        rows += race("arrays", _name(case), ours_and_keras(_on(case, settings), settings), settings, at=case)
    return rows


def _on(case: dict[str, Any], settings: Settings) -> dict[str, Any]:
    return case | {"device": settings.device}


def _name(case: dict[str, Any]) -> str:
    return f"{case['size']}x{case['size']}, batch {case['batch']}, {case.get('dtype', 'float32')}"
