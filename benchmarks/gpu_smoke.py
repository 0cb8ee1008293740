"""A minute on a GPU that needs no pytest: every kernel once, every hand-over once, each decoder once.

Each check compares with the CPU, and its result is in the JSON file before the next one begins. What is not installed
is named and left out.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gpuseq
from gpuseq.base.devices import gpu_problem, place
from gpuseq.base.errors import DeviceError
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.plan.columns import identity_params
from gpuseq.plan.draw import draw_params
from gpuseq.plan.ranges import TransformRanges

from . import REHEARSES
from .environment import ROOT
from .stress import DECODERS, decoder_problem
from .suites.kernel import OPS
from .work import AUGMENTATION, device_work, folder, kernels_run, labels, pictures

__all__ = ["CHECKS", "Left", "main", "run"]

SIZE, BATCH = 40, 6
TOLERANCE = 1e-3
"""Of the range of the values: the two engines round differently."""

JPEG_TOLERANCE = 2.0
"""Of 255, on average: a GPU's JPEG decoder may round differently from Pillow's."""


class Left(Exception):  # noqa: N818 - it is an answer, not an error
    """What cannot be tried here, and why."""


Check = Callable[[], None]


def _close(got: Any, wanted: Any, tolerance: float) -> None:
    """Compare a batch of the device with one of the host."""
    if isinstance(wanted, (tuple, list)):
        assert len(got) == len(wanted), f"{len(got)} parts instead of {len(wanted)}"
        for one, other in zip(got, wanted, strict=True):
            _close(one, other, tolerance)
        return
    host = place(got, "cpu") if not hasattr(got, "cpu") else got.cpu().numpy()
    host, wanted = np.asarray(host, np.float64), np.asarray(wanted, np.float64)
    assert host.shape == wanted.shape, f"shape {host.shape} instead of {wanted.shape}"
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    furthest = float(np.abs(host - wanted).max(initial=0.0))
    assert furthest <= tolerance * scale, f"off by {furthest:.3g} where values reach {scale:.3g}"


def _params(options: AugmentOptions) -> np.ndarray:
    """Return drawn parameters that ask for nothing which the options say is not asked for."""
    ranges = TransformRanges(
        rotation=20.0, shear=10.0, zoom=(0.8, 1.2), horizontal_flip=True, channel_shift=20.0, brightness=(0.7, 1.3)
    )
    drawn, params = draw_params(np.random.RandomState(1), ranges, BATCH, SIZE, SIZE), identity_params(BATCH)
    asked = {
        ("theta", "tx", "ty", "shear", "zx", "zy"): options.has_affine,
        ("flip_horizontal", "flip_vertical"): options.has_flip,
        ("channel_shift_intensity",): options.has_channel_shift,
        ("brightness",): options.has_brightness,
    }
    for names, is_asked in asked.items():
        for name in names if is_asked else ():
            params[name] = drawn[name]
    return params


def _op(changes: dict[str, Any]) -> Check:
    def check() -> None:
        host, options = pictures(2 * BATCH, SIZE), AugmentOptions(**changes)
        params = _params(options)
        indices = np.random.RandomState(2).permutation(len(host))[:BATCH]
        statistics = Statistics(mean=np.full(3, 100, np.float32), std=np.full(3, 50, np.float32))
        asked = {"indices": indices, "statistics": statistics}
        got = ops.augment(place(host, "cuda:0"), params, options, **asked)
        tolerance = {"float16": 2e-3, "uint8": 1.01 / 255}.get(options.dtype, TOLERANCE)
        _close(got, ops.augment(host, params, options, **asked), tolerance)

    return check


def _resize(name: str) -> Check:
    def check() -> None:
        images = [
            picture[: 2 * SIZE - number, : 2 * SIZE - 2 * number]
            for number, picture in enumerate(pictures(BATCH, 2 * SIZE))
        ]
        images = [np.ascontiguousarray(image) for image in images]
        got = ops.resize([place(image, "cuda:0") for image in images], (SIZE, SIZE), name)
        assert np.array_equal(got.get(), ops.resize(images, (SIZE, SIZE), name)), "not Pillow's pixels"

    return check


def _generators(**options: Any) -> tuple[Any, Any]:
    return tuple(gpuseq.ImageDataGenerator(**AUGMENTATION, **options, device=name) for name in ("cuda:0", "cpu"))


def _flows(**options: Any) -> tuple[Any, Any]:
    x = pictures(3 * BATCH, SIZE)
    device, host = (made.flow(x, labels(len(x)), batch_size=BATCH, seed=3) for made in _generators(**options))
    return device, host


def _folders(**options: Any) -> tuple[Any, Any]:
    root = folder(3 * BATCH, 96, 72)
    more = {"target_size": (SIZE, SIZE), "batch_size": BATCH, "seed": 3, "interpolation": "bilinear", "verbose": False}
    device, host = _generators()
    return device.flow_from_directory(root, **more, **options), host.flow_from_directory(root, **more)


def _statistics() -> None:
    x = pictures(4 * BATCH, SIZE).astype(np.float32)
    more = {"featurewise_center": True, "featurewise_std_normalization": True}
    for made in (pair := _generators(**more)):
        made.fit(x)
    device, host = (made.flow(x, batch_size=BATCH, seed=3) for made in pair)
    _close(next(device), next(host), TOLERANCE)


def _splines() -> None:
    if importlib.util.find_spec("scipy") is None:
        raise Left("SciPy is not installed")
    device, host = _flows(interpolation_order=3)
    _close(next(device), next(host), 0.02)


def _augmentations(**options: Any) -> Check:
    def check() -> None:
        x = pictures(2 * BATCH, SIZE)
        chain = [gpuseq.RandAugment(3, 12, interpolation="bilinear"), gpuseq.ColorJitter(0.3, 0.3, 0.3, 0.1)]
        chain += [gpuseq.GaussianBlur(3), gpuseq.RandomErasing(1.0, value="random")]
        more = {"augmentations": chain, "rescale": 1 / 255, **options}
        made = [gpuseq.ImageDataGenerator(**more, device=name) for name in ("cuda:0", "cpu")]
        device, host = (one.flow(x, labels(len(x)), batch_size=BATCH, seed=3) for one in made)
        for _ in range(2):
            _close(next(device), next(host), TOLERANCE)

    return check


def _whitening() -> None:
    x = pictures(4 * BATCH, 8).astype(np.float32)
    for made in (pair := _generators(zca_whitening=True)):
        made.fit(x)
    device, host = (made.flow(x, batch_size=BATCH, seed=3) for made in pair)
    _close(next(device), next(host), 0.02)


def _array() -> None:
    device, host = _flows()
    for _ in range(len(host) + 1):
        _close(next(device), next(host), TOLERANCE)


def _masks() -> None:
    x = pictures(2 * BATCH, SIZE)
    device, host = (made.flow(x, masks=x[..., 0], batch_size=BATCH, seed=3) for made in _generators())
    _close(next(device), next(host), TOLERANCE)


def _cache(kind: str) -> Check:
    def check() -> None:
        device, host = _folders(cache=kind)
        for _ in range(2 * len(host)):
            _close(next(device), next(host), TOLERANCE)
        device.close()
        host.close()

    return check


def _two_streams() -> None:
    import cupy

    device, host = _folders(cache="device")
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    made = []
    for number in range(2 * len(host)):
        with streams[number % 2]:
            made.append((streams[number % 2], next(device), next(host)))  # no thread waits for it
    for stream, got, wanted in made:
        stream.synchronize()
        _close(got, wanted, TOLERANCE)
    device.close()
    host.close()


def _threads() -> None:
    device, host = _flows()
    ahead = gpuseq.to_device(device, prefetch=2, workers=2, device="cuda:0")
    for got, number in zip(ahead, range(len(host)), strict=True):
        _close(got, host[number], TOLERANCE)


def _second_device() -> None:
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        raise Left("there is one device")
    device, host = _flows()
    for got, number in zip(gpuseq.to_device(device, prefetch=1, workers=1, device="cuda:1"), range(3), strict=True):
        assert got[0].device.id == 1, f"on device {got[0].device.id}"
        _close(got, host[number], TOLERANCE)


def _framework(name: str) -> Check:
    def check() -> None:
        if importlib.util.find_spec(name) is None:
            raise Left(f"{name} is not installed")
        module = importlib.import_module(f"gpuseq.{name}")
        device, host = _flows()
        # The torch loader's own axis order is channels first.
        make = functools.partial(module.loader, data_format="channels_last") if name == "torch" else module.loader
        try:
            for got, number in zip(make(device), range(len(host)), strict=True):
                arrays = [np.asarray(item) if name != "torch" else item for item in got]
                _close(arrays, host[number], TOLERANCE)
        except DeviceError as error:
            raise Left(str(error)) from error

    return check


def _decoder(name: str) -> Check:
    def check() -> None:
        if (reason := decoder_problem(name)) is not None:
            raise Left(reason)
        device, host = _folders(decoder=name)
        assert device._source.decodes_on_device == (name != "pillow"), "the files are decoded elsewhere"
        for _ in range(len(host)):
            got, wanted = next(device)[0].get(), next(host)[0]
            apart = 255 * float(np.abs(got - wanted).mean())
            assert apart < JPEG_TOLERANCE, f"off by {apart:.2f} of 255 on average"
        device.close()
        host.close()

    return check


CHECKS: dict[str, Check] = {
    **{f"kernel: {name}": _op(changes) for name, changes in OPS.items()},
    **{f"resize: {name}": _resize(name) for name in ("bilinear", "nearest", "bicubic", "lanczos", "box", "hamming")},
    "an array, augmented": _array,
    "augmentations: a chain of them, erasing": _augmentations(),
    "augmentations: and samplewise mean": _augmentations(samplewise_center=True),
    **{f"decoder: {name}": _decoder(name) for name in DECODERS},
    "hand-over: torch": _framework("torch"),
    "hand-over: jax": _framework("jax"),
    "hand-over: threads of to_device": _threads,
    "hand-over: two streams, one cache": _two_streams,
    "hand-over: a second device": _second_device,
    "cache: device": _cache("device"),
    "cache: host": _cache("host"),
    "masks": _masks,
    "fit, featurewise": _statistics,
    "splines of order 3": _splines,
    "zca whitening": _whitening,
    "hand-over: tensorflow": _framework("tensorflow"),
}
"""In the order in which they run: what matters most first."""

_ON_THE_HOST = ("splines of order 3",)
"""Checks whose device work is not a kernel of ours."""


ALONE = frozenset(
    ("decoder: nvimgcodec", "decoder: dali", "hand-over: torch", "hand-over: jax", "hand-over: tensorflow")
)
"""Checks of other libraries, in a process of their own: it may abort, or never end."""

ALONE_S = 30.0


def run(
    seconds: float, checks: dict[str, Check] = CHECKS, alone: frozenset[str] = frozenset()
) -> Iterator[dict[str, Any]]:
    """Run the checks, and yield what each found; after so many seconds begin none.

    Parameters
    ----------
    seconds : float
        For all.
    checks : dict
        By name.
    alone : frozenset of str
        Those of `CHECKS` that get a process of their own.

    Yields
    ------
    dict
        ``name``; ``ok``, True, False or None where it was left out; ``said``, why; ``seconds``; in a rehearsal
        ``device_work``, how many kernels and decodes it took.
    """
    deadline = time.monotonic() + seconds
    for name, check in checks.items():
        started = time.monotonic()
        if started > deadline:
            found: dict[str, Any] = {"name": name, "ok": None, "said": "out of time"}
        elif name in alone and _is_there(name):
            found = _elsewhere(name)
        else:
            found = _here(name, check)
        yield found | {"seconds": round(time.monotonic() - started, 2)}


def _is_there(name: str) -> bool:
    """Return whether a check's library may be had: where it is not, no process is needed to say so."""
    library = name.split()[-1]
    return importlib.util.find_spec({"dali": "nvidia", "nvimgcodec": "nvidia"}.get(library, library)) is not None


def _here(name: str, check: Check) -> dict[str, Any]:
    before = device_work()
    found: dict[str, Any] = {"name": name, "ok": True}
    try:
        check()
    except Left as error:
        found |= {"ok": None, "said": str(error)}
    except Exception as error:  # the next check may pass: all of them are wanted
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{Path(where.filename).name}:{where.lineno}"
        found |= {"ok": False, "said": f"{type(error).__name__}: {error} ({line})"[:600]}
    if before is not None and (after := device_work()) is not None:
        found["device_work"] = [now - then for now, then in zip(after, before, strict=True)]
        launches, decodes = found["device_work"]
        is_decode = name in ("decoder: nvimgcodec", "decoder: dali")
        if found["ok"] and not (decodes if is_decode else launches) and name not in _ON_THE_HOST:
            found |= {"ok": False, "said": "it passed, and nothing ran on the device"}
    return found


def _elsewhere(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu_smoke", "--one", name]
    limit = ALONE_S * (10 if REHEARSES else 1)  # there it shares the cores with everything else
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"name": name, "ok": False, "said": f"no answer within {limit:.0f} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        found = {"name": name, "ok": False, "said": f"its process ended with status {done.returncode}: {last}"[:600]}
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run them all; return 1 if one failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_smoke", description=__doc__)
    parser.add_argument("--reports", type=Path, metavar="FOLDER", help="for smoke.json, written after each check")
    parser.add_argument("--seconds", type=float, default=55, help="begin nothing after that (default 55)")
    parser.add_argument("--one", choices=list(CHECKS), metavar="CHECK", help="this check only, as one JSON object")
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(_here(options.one, CHECKS[options.one])), flush=True)
        os._exit(0)  # libraries need not agree on an order of shutting down
    if problem := gpu_problem():
        print(f"no GPU: {problem}", file=sys.stderr)
        return 2
    found: list[dict[str, Any]] = []
    for item in run(options.seconds, alone=ALONE):
        found.append(item)
        mark = {True: "ok", False: "FAILED", None: "left out"}[item["ok"]]
        print(f"{mark:>8}  {item['seconds']:6.2f} s  {item['name']}  {item.get('said', '')}", flush=True)
        if options.reports is not None:
            options.reports.mkdir(parents=True, exist_ok=True)
            temporary = options.reports / "smoke.json.new"
            temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
            temporary.replace(options.reports / "smoke.json")
    bad = [item for item in found if item["ok"] is False]
    left = {item["name"]: item["said"] for item in found if item["ok"] is None}
    said: dict[str, Any] = {"passed": sum(item["ok"] is True for item in found), "failed": bad, "left_out": left}
    if REHEARSES:
        said["kernels"] = kernels_run()
    print(json.dumps(said))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
