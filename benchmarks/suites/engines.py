"""The compiled engine against the NumPy engine on one array, in turns: dtypes, orders, fill modes, colour, sums."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.measure import Row, Settings, row
from benchmarks.work import AUGMENTATION, pictures
from gpuseq.generator import ImageDataGenerator
from gpuseq.ops import dispatch as ops
from gpuseq.ops.compiled import library
from gpuseq.ops.options import AugmentOptions, Statistics

__all__ = ["COMPILED", "NUMPY", "VARIANTS", "run"]

COMPILED, NUMPY = "gpuseq, compiled", "gpuseq, NumPy"
ENGINES = {COMPILED: "auto", NUMPY: "numpy"}

_PLAIN = AugmentOptions(has_channel_shift=False, has_brightness=False, rescale=1 / 255)
VARIANTS: dict[str, AugmentOptions] = {
    "float32": _PLAIN,
    "channels first": replace(_PLAIN, data_format="channels_first"),
    "float16": replace(_PLAIN, dtype="float16"),
    "uint8": replace(_PLAIN, dtype="uint8", rescale=1.0),
    "float64": replace(_PLAIN, dtype="float64"),
    "order 0": replace(_PLAIN, order=0),
    "constant": replace(_PLAIN, fill_mode="constant"),
    "reflect": replace(_PLAIN, fill_mode="reflect"),
    "wrap": replace(_PLAIN, fill_mode="wrap"),
    "channel shift": replace(_PLAIN, has_channel_shift=True),
    "brightness": replace(_PLAIN, has_brightness=True),
    "samplewise": replace(_PLAIN, samplewise_center=True, samplewise_std=True),
    "featurewise": replace(_PLAIN, featurewise_center=True, featurewise_std=True),
}


def run(settings: Settings) -> list[Row]:
    """Give each engine a slice in turn; absent where the compiled one is not installed."""
    size, count = (24, 4) if settings.smoke else (224, 32)
    found = library.instruction_sets()
    batch = pictures(max(count, 8), size)[:count]
    ranges = AUGMENTATION | {"channel_shift_range": 20.0, "brightness_range": (0.7, 1.3)}
    generator = ImageDataGenerator(**ranges, device="cpu")
    params = generator.flow(batch, batch_size=count, seed=1).plan_batch().params
    channels = np.full(3, 0.5, np.float32)
    statistics = Statistics(mean=channels, std=channels)
    outside = os.environ.get(library.ENGINE)
    rows: list[Row] = []
    try:
        for name, options in VARIANTS.items():
            case = f"{size}x{size}, {name}"
            if isinstance(found, str):
                rows += [row("engines", case, engine, "img/s", absent=found) for engine in ENGINES]
                continue
            values: dict[str, list[float]] = {engine: [] for engine in ENGINES}
            for _ in range(settings.rounds):
                for engine, asked in ENGINES.items():
                    os.environ[library.ENGINE] = asked
                    values[engine].append(_slice(batch, params, options, statistics, settings))
            rows += [row("engines", case, engine, "img/s", figures) for engine, figures in values.items()]
            settings.say(f"  engines | {case}: {rows[-2]['median'] / rows[-1]['median']:.2f} times NumPy")
    finally:
        os.environ.pop(library.ENGINE)
        if outside is not None:
            os.environ[library.ENGINE] = outside
    return rows


def _slice(
    batch: np.ndarray, params: Any, options: AugmentOptions, statistics: Statistics, settings: Settings
) -> float:
    """Return images a second over a part of the time; the first call is not measured."""
    seconds = settings.seconds / settings.rounds / len(ENGINES)
    out = ops.augment(batch, params, options, statistics=statistics)
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not done:
        ops.augment(batch, params, options, statistics=statistics, out=out)
        done += len(batch)
    return done / elapsed
