"""Each op on the GPU: bytes moved over time, against the copy bandwidth measured beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpuseq
from benchmarks import REHEARSES
from benchmarks.measure import OUT_OF_TIME, Row, Settings, row
from benchmarks.work import AUGMENTATION, pictures
from gpuseq.base.devices import gpu_problem
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.plan.columns import identity_params
from gpuseq.plan.draw import draw_params
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.ranges import TransformRanges

__all__ = ["OPS", "run"]

_NOTHING: dict[str, Any] = {"has_affine": False, "has_flip": False, "has_channel_shift": False, "has_brightness": False}
_AFFINE = _NOTHING | {"has_affine": True}
_ALL = _AFFINE | {"has_flip": True, "rescale": 1 / 255}

OPS: dict[str, dict[str, Any]] = {
    "rotation, shifts, shear, zoom, flip, rescale": _ALL,
    "the same, channels_first": _ALL | {"data_format": "channels_first"},
    "the same, channels_first, float16": _ALL | {"data_format": "channels_first", "dtype": "float16"},
    "the same, uint8": _AFFINE | {"has_flip": True, "dtype": "uint8", "round_affine": True},
    "affine, order 0": _AFFINE | {"order": 0},
    "affine, order 1, nearest": _AFFINE,
    "affine, order 1, constant": _AFFINE | {"fill_mode": "constant"},
    "affine, order 1, reflect": _AFFINE | {"fill_mode": "reflect"},
    "affine, order 1, wrap": _AFFINE | {"fill_mode": "wrap"},
    "flip": _NOTHING | {"has_flip": True},
    "cast and rescale": _NOTHING | {"rescale": 1 / 255},
    "brightness": _NOTHING | {"has_brightness": True},
    "channel shift": _NOTHING | {"has_channel_shift": True},
    "samplewise mean and std": _NOTHING | {"samplewise_center": True, "samplewise_std": True},
    "featurewise mean and std": _NOTHING | {"featurewise_center": True, "featurewise_std": True},
}


def run(settings: Settings) -> list[Row]:
    """Time each op by events on the device, on rotating buffers larger than its cache."""
    case = "batch 256, 224x224x3 uint8"
    problem = "asked for the CPU" if settings.device == "cpu" and gpu_problem() is None else gpu_problem()
    if problem is not None:
        return [row("kernel", case, name, "us", absent=problem) for name in ("device copy", *OPS, *PROGRAMS)]
    import cupy

    busy = _Filler(settings.smoke)
    count, batch, size = (3, 8, 24) if settings.smoke else (50, 256, 224)
    repeats = 1 if settings.smoke else 4
    source = cupy.asarray(np.concatenate([pictures(batch, size)] * repeats))
    copied = busy.buffers
    seconds = busy.timed(lambda number: cupy.copyto(copied[number % 2], copied[1 - number % 2]), count)
    bandwidth = 2 * copied[0].nbytes / float(np.median(seconds))
    rows = [row("kernel", case, "device copy", "us", [1e6 * value for value in seconds], at={"bytes_per_s": bandwidth})]
    ranges = TransformRanges(
        rotation=AUGMENTATION["rotation_range"],
        shear=AUGMENTATION["shear_range"],
        zoom=(0.8, 1.2),
        horizontal_flip=True,
        channel_shift=20.0,
        brightness=(0.7, 1.3),
    )
    params = draw_params(np.random.RandomState(1), ranges, batch, size, size)
    params["tx"], params["ty"] = np.random.RandomState(2).uniform(-0.1 * size, 0.1 * size, (2, batch))
    statistics = Statistics(mean=np.full(3, 100, np.float32), std=np.full(3, 50, np.float32))
    for name, changes in OPS.items():
        if settings.is_late:
            rows.append(row("kernel", case, name, "us", absent=OUT_OF_TIME))
            continue
        options = AugmentOptions(**changes)
        drawn = params if any(changes[key] for key in _NOTHING) else identity_params(batch)
        indices = [np.random.RandomState(number).permutation(len(source))[:batch] for number in range(8)]
        outs = [ops.augment(source, drawn, options, indices=indices[0], statistics=statistics) for _ in range(2)]

        def launch(
            number: int, options: Any = options, drawn: Any = drawn, indices: Any = indices, outs: Any = outs
        ) -> None:
            ops.augment(
                source, drawn, options, indices=indices[number % 8], statistics=statistics, out=outs[number % 2]
            )

        seconds = busy.timed(launch, count)
        moved = batch * source[0].nbytes + outs[0].nbytes
        share = moved / float(np.median(seconds)) / bandwidth
        rows.append(
            row(
                "kernel",
                case,
                name,
                "us",
                [1e6 * value for value in seconds],
                at={"bytes": moved, "share_of_copy": share},
            )
        )
        settings.say(f"  kernel | {name}: {rows[-1]['median']:.1f} us, {100 * share:.0f} % of the copy's bandwidth")
    rows += _programs(case, source[:batch], count, bandwidth, settings, busy)
    return rows + _resizes(case, batch, count, bandwidth, settings, busy)


PROGRAMS = {
    "RandAugment(2, 9)": gpuseq.RandAugment(2, 9),
    "TrivialAugmentWide()": gpuseq.TrivialAugmentWide(),
    "ColorJitter(0.4, 0.4, 0.4, 0.1)": gpuseq.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "RandomErasing(1.0) with noise": gpuseq.RandomErasing(1.0, value="random"),
}


def _programs(case: str, images: Any, count: int, bandwidth: float, settings: Settings, busy: _Filler) -> list[Row]:
    """Time the modern augmentations, rescaled to float32 with channels first."""
    options = AugmentOptions(data_format="channels_first", rescale=1 / 255)
    batch, height, width, _ = images.shape
    rows = []
    for name, policy in PROGRAMS.items():
        if settings.is_late:
            rows.append(row("kernel", case, name, "us", absent=OUT_OF_TIME))
            continue
        recipe = Recipe.parse("augmentations", policy)
        assert recipe is not None
        program = recipe.draw(np.arange(batch), (height, width), seed=1, epoch=0)
        out = ops.run_program(images, program, options)

        def launch(_: int, program: np.ndarray = program, out: Any = out) -> None:
            ops.run_program(images, program, options, out=out)

        try:
            seconds = busy.timed(launch, max(1, count // 5))
        except RuntimeError as error:  # the host cuts programs, a batch at a time
            rows.append(row("kernel", case, name, "us", absent=str(error)))
            continue
        moved = images.nbytes + out.nbytes
        at = {"bytes": moved, "share_of_copy": moved / float(np.median(seconds)) / bandwidth}
        rows.append(row("kernel", case, name, "us", [1e6 * value for value in seconds], at=at))
        settings.say(f"  kernel | {name}: {rows[-1]['median']:.1f} us")
    return rows


def _resizes(case: str, batch: int, count: int, bandwidth: float, settings: Settings, busy: _Filler) -> list[Row]:
    """Time Pillow's resize of a ragged batch of decoded photographs."""
    import cupy

    side = 24 if settings.smoke else 224
    photos = [cupy.asarray(photo) for photo in pictures(batch, 2 * side)]
    images = [photo[: 2 * side - number % 7, : 2 * side - number % 5].copy() for number, photo in enumerate(photos)]
    rows = []
    for name in ("nearest", "bilinear", "lanczos"):
        what = f"resize, {name}, about {2 * side}x{2 * side} to {side}x{side}"
        if settings.is_late:
            rows.append(row("kernel", case, what, "us", absent=OUT_OF_TIME))
            continue
        out = ops.resize(images, (side, side), name)

        def launch(_: int, name: str = name, out: Any = out) -> None:
            ops.resize(images, (side, side), name, out=out)

        seconds = busy.timed(launch, count)
        moved = sum(image.nbytes for image in images) + out.nbytes
        at = {"bytes": moved, "share_of_copy": moved / float(np.median(seconds)) / bandwidth}
        rows.append(row("kernel", case, what, "us", [1e6 * value for value in seconds], at=at))
        settings.say(f"  kernel | {what}: {rows[-1]['median']:.1f} us")
    return rows


class _Filler:
    """Keeps the stream busy while launches are put behind it, so that the device's time is taken and not the host's.

    A launch costs the host more than many kernels take. On an idle stream each one begins at once and ends before the
    next one is there, and the time between two events is then the host's. Here copies of known length come first, so
    many that the first event is not reached until the last one has been recorded; where it is all the same, more of
    them, and the measurement is taken again.

    Attributes
    ----------
    buffers : list of cupy.ndarray
        Two, larger than the device's cache.
    num_copies : int
        How many fill the stream; grows to what is needed.
    """

    LAUNCHES = 8
    MOST_COPIES = 512  # some 0.1 s

    def __init__(self, is_small: bool) -> None:
        import cupy

        self.buffers = [cupy.zeros((1 if is_small else 256) << 20, cupy.uint8) for _ in range(2)]
        self.num_copies = 1 if REHEARSES else 4

    def timed(self, launch: Any, count: int) -> list[float]:
        """Return seconds per launch, once for each of `count` series.

        Parameters
        ----------
        launch : callable
            Takes a number, and puts work on the current stream.
        count : int
            How many.

        Raises
        ------
        RuntimeError
            If no filling keeps the stream busy for as long as the host takes: there is no time of the device to be had.
        """
        launches, warm_up = (1, 1) if REHEARSES else (self.LAUNCHES, 5)
        seconds: list[float] = []
        number = 0
        while len(seconds) < count:
            elapsed = self._series(launch, number * launches, launches)
            number += 1
            if elapsed is None:  # the stream ran dry
                if self.num_copies >= self.MOST_COPIES:
                    raise RuntimeError(
                        f"{launches} launches take the host longer than {self.num_copies} copies of "
                        f"{self.buffers[0].nbytes >> 20} MiB take the device: its time cannot be told from the host's"
                    )
                self.num_copies *= 2
            elif number > warm_up:
                seconds.append(elapsed / launches)
        return seconds

    def _series(self, launch: Any, first: int, launches: int) -> float | None:
        """Return the device's seconds for some launches, None where it did not wait for the host to be ready."""
        import cupy

        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        for copy in range(self.num_copies):
            cupy.copyto(self.buffers[copy % 2], self.buffers[1 - copy % 2])
        begin.record()
        for step in range(launches):
            launch(first + step)
        end.record()
        was_busy = not begin.done
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3 if was_busy else None
