"""Looks for races on a GPU: many streams, recycled memory full of canaries, the same plans over and over."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

import gpuseq
from gpuseq.base.devices import gpu_problem
from gpuseq.base.errors import MissingDependencyError
from gpuseq.decode.host import check_decoder
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.draw import draw_params
from gpuseq.plan.ranges import TransformRanges

from .work import folder, pictures

__all__ = ["DECODERS", "decoder_problem", "main", "on_files", "on_streams"]

DECODERS = ("nvimgcodec", "dali", "pillow")
"""Those of the GPU first."""

TOLERANCE = 1e-3 * 255
NUM_STREAMS = 4
RANGES = TransformRanges(rotation=20.0, shear=10.0, zoom=(0.8, 1.2), horizontal_flip=True, channel_shift=10.0)


def on_streams(iterations: int, size: int = 97, batch: int = 24) -> dict[str, Any]:
    """Augment on several streams at once, more launches in flight than there are pinned buffers.

    Every batch must equal the first one of its plan to the bit, and NumPy's within 1e-3 of 255.
    """
    import cupy

    host = pictures(64, size)
    images = cupy.asarray(host)
    options = AugmentOptions(samplewise_center=True)
    random = np.random.RandomState(1)
    plans = [
        (draw_params(random, RANGES, batch, size, size), random.permutation(64)[:batch]) for _ in range(NUM_STREAMS)
    ]
    expected = [ops.augment(host, params, options, indices=indices) for params, indices in plans]
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(NUM_STREAMS)]
    cupy.cuda.Device().synchronize()
    first: list[Any] = [None] * NUM_STREAMS
    wrong = []
    for iteration in range(iterations):
        made: list[list[Any]] = [[] for _ in range(NUM_STREAMS)]
        for _ in range(8):  # 32 launches in flight
            for number, (params, indices) in enumerate(plans):
                with streams[number]:
                    # What a buffer held before must never be seen: fill one of this size and give it back.
                    canary = cupy.full(expected[number].shape, np.nan, np.float32)
                    del canary
                    made[number].append(ops.augment(images, params, options, indices=indices))
        for number, batches in enumerate(made):
            streams[number].synchronize()
            for batch in batches:
                found = batch.get()
                if first[number] is None:
                    first[number] = found
                same = np.array_equal(found, first[number])
                if not same or not np.abs(found - expected[number]).max() <= TOLERANCE:
                    wrong.append((iteration, number))
    return {"launches": iterations * 8 * NUM_STREAMS, "wrong": wrong[:20], "ok": not wrong}


def decoder_problem(name: str) -> str | None:
    """Return None where a decoder can be had, else what is missing.

    Parameters
    ----------
    name : str
        As in ``decoder=``.
    """
    try:
        check_decoder(name)
    except MissingDependencyError as error:
        return str(error)
    return None


def on_files(decoder: str, epochs: int, count: int = 300, size: int = 96) -> dict[str, Any]:
    """Decode the same folder over and over; each epoch must equal the first to the bit, and Pillow's closely.

    Parameters
    ----------
    decoder : str
        One of `DECODERS`.
    epochs, count, size : int
        How often, how many files, to what size.
    """
    if (reason := decoder_problem(decoder)) is not None:
        return {"left_out": reason, "ok": True}
    import cupy

    root = folder(count)
    arguments: dict[str, Any] = {
        "target_size": (size, size),
        "batch_size": 32,
        "interpolation": "bilinear",
        "shuffle": False,
    }
    on_device = gpuseq.ImageDataGenerator(device="cuda").flow_from_directory(
        root, verbose=False, decoder=decoder, **arguments
    )
    on_host = gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(root, verbose=False, **arguments)
    expected = [next(on_host)[0] for _ in range(len(on_host))]
    first: list[Any] = []
    wrong = []
    furthest = 0.0
    for epoch in range(epochs):
        for number in range(len(on_device)):
            canary = cupy.full(expected[number].shape, np.nan, np.float32)
            del canary
            found = next(on_device)[0].get()
            if epoch == 0:
                first.append(found)
            furthest = max(furthest, float(np.abs(found - expected[number]).mean()))
            if not np.array_equal(found, first[number]):
                wrong.append((epoch, number))
    on_device.close()
    on_host.close()
    ok = not wrong and furthest < 2.0  # a GPU's JPEG decoder may round differently from Pillow's
    ok = ok and on_device._source.decodes_on_device == (decoder != "pillow")
    return {"batches": epochs * len(on_device), "wrong": wrong[:20], "mean_distance_of_255": furthest, "ok": ok}


def main() -> int:
    """Run both, print a JSON line, return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stress", description=__doc__)
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try it out")
    options = parser.parse_args()
    if problem := gpu_problem():
        print(f"no GPU: {problem}", file=sys.stderr)
        return 2
    started = time.monotonic()
    streams, files = ({"size": 9, "batch": 3}, {"count": 20, "size": 16}) if options.smoke else ({}, {})
    found = {"streams": on_streams(options.iterations, **streams)}
    for name in DECODERS:
        found[name] = on_files(name, options.epochs, **files)
        print(json.dumps({name: found[name]}), flush=True)  # at once: the next one may hang
    print(json.dumps({**found, "seconds": round(time.monotonic() - started, 1)}))
    return 0 if all(part["ok"] for part in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
