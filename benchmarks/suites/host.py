"""What the host spends per batch of 256: plan, draw, launch, hand-over. Independent of the images' pixels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

import gpuseq
from benchmarks import REHEARSES
from benchmarks.measure import Row, Settings, row, time_each
from benchmarks.work import AUGMENTATION, labels
from gpuseq.base.devices import is_cupy, synchronize
from gpuseq.iterators.batch import Layout, assemble, gathered, make_images
from gpuseq.ops import dispatch as ops
from gpuseq.ops.compiled.segments import pack
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.cuda import memory as device
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.table import NUM_COLUMNS, fill_table
from gpuseq.plan.draw import draw_params
from gpuseq.plan.policies.augmentation import Augmentation
from gpuseq.plan.policies.recipe import Recipe

__all__ = ["run", "without_a_device"]

BATCH = 8 if REHEARSES else 256
POLICIES: dict[str, Augmentation] = {
    "RandAugment(2, 9)": gpuseq.RandAugment(2, 9),
    "TrivialAugmentWide()": gpuseq.TrivialAugmentWide(),
    "AugMix()": gpuseq.AugMix(),
}
"""By their calls in torchvision or timm."""


def run(settings: Settings) -> list[Row]:
    """Time each part by itself, and the whole through the iterator."""
    count = 20 if settings.smoke else 400
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        note = None
        if settings.device == "cpu":
            stack.enter_context(without_a_device())
            note = "launch into the void: no GPU"
        # Small pictures: what the host does per batch does not depend on their size.
        images = np.zeros((4 * BATCH, 8, 8, 3), np.uint8)
        generator = gpuseq.ImageDataGenerator(**AUGMENTATION, device=settings.device)
        iterator = generator.flow(images, labels(len(images)), batch_size=BATCH, seed=1)
        plan = iterator.plan_batch()
        layout = Layout("channels_last", "channels_last", "channels_last", "float32", "float32")

        def launch(plan: Any = plan) -> Any:
            return make_images(plan, iterator._source, None, generator, layout).images

        def beside() -> Any:
            return assemble(batch, gathered(iterator.y, plan.indices, iterator.device), None)

        table = np.empty((BATCH, NUM_COLUMNS))

        def before_launch() -> None:
            plan = iterator.plan_batch()
            fill_table(table, plan.params, plan.indices)
            beside()

        batch = launch()
        stream = np.random.RandomState(1)
        parts: dict[str, Any] = {
            "plan, the draw included": iterator.plan_batch,
            "the draw alone": lambda: draw_params(stream, generator._transform_ranges, BATCH, 8, 8),
            "launch": launch,
            "labels and tuple": beside,
            "plan, table and labels": before_launch,
            "plan and launch": lambda: launch(iterator.plan_batch()),
            "everything, by next()": lambda: next(iterator),
            "list and cut RandAugment(2, 9)": _cutting(gpuseq.RandAugment(2, 9)),
            "list and cut AugMix()": _cutting(gpuseq.AugMix()),
        }
        for name, policy in POLICIES.items():
            parts[f"{name}, by next()"] = _handing_out(policy, images, settings.device)
        for name, work in parts.items():
            seconds = time_each(work, count, warm_up=30, after=lambda: synchronize(generator.device))
            rows.append(
                row("host", "batch of 256", name, "us per batch", [1e6 * value for value in seconds], note=note)
            )
        rows += [row("host", "batch of 256", *item) for item in _handed_over(batch, count)]
    for made in rows:
        made["values"] = made["values"][:: max(1, len(made["values"]) // 25)]  # enough to see the spread
        settings.say(f"  host | {made['contender']}: {made['median']:.1f} {made['unit']}")
    return rows


def _cutting(policy: Augmentation) -> Callable[[], Any]:
    """Return what makes the tables of a drawn batch for the kernels: its steps, cut into segments, and written."""
    rows, size = np.arange(BATCH), (224, 224)
    recipe = Recipe.parse("host", policy)
    assert recipe is not None
    program = recipe.draw(rows, size, seed=1, epoch=0)
    memory = np.empty(pack(program, rows, *size, 3).begins[-1], np.uint8)
    return lambda: pack(program, rows, *size, 3).write(memory.ctypes.data)


def _handing_out(policy: Augmentation, images: np.ndarray, device: str) -> Callable[[], Any]:
    """Return what makes a batch of a policy, from the draw to the hand-over."""
    generator = gpuseq.ImageDataGenerator(augmentations=policy, rescale=1 / 255, device=device)
    iterator = generator.flow(images, batch_size=BATCH, shuffle=False, seed=1)
    return lambda: next(iterator)


def _handed_over(batch: Any, count: int) -> Iterator[tuple[str, str, list[float]]]:
    """Yield what it costs to give a batch to a framework, without a copy."""
    try:
        import torch
    except ImportError:
        return
    take = torch.from_numpy if not is_cupy(batch) else torch.from_dlpack
    seconds = time_each(lambda: take(batch), count, warm_up=30)
    yield "hand over to PyTorch, no copy", "us per batch", [1e6 * value for value in seconds]


@contextlib.contextmanager
def without_a_device() -> Iterator[None]:
    """Let the CUDA launcher run without a GPU: all Python, table and casts are real, the launch does nothing."""
    memory = [np.zeros(0, np.uint8)]

    def buffer(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        # All of them lie in one place: nothing reads them, and fresh memory would take the host's time.
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if len(memory[0]) < num_bytes:
            memory[0] = np.zeros(2 * num_bytes, np.uint8)
        return np.ndarray(shape, dtype, memory[0])

    def upload(shape: tuple[int, ...], dtype: Any, fill: Any) -> np.ndarray:
        table = buffer(shape, dtype)
        fill(table)
        return table

    def send(memory: np.ndarray, num_bytes: int, write: Any) -> None:
        write(memory.ctypes.data)

    def load(name: str, macros: kernels.Macros) -> kernels.Kernel:
        if (name, macros) not in loaded:
            kernel = kernels.Kernel.__new__(kernels.Kernel)
            kernel.name, kernel.macros, kernel._cuda = name, macros, None
            kernel._function = lambda grid, block, arguments, shared_mem: None
            loaded[name, macros] = kernel
        return loaded[name, macros]

    loaded: dict[Any, kernels.Kernel] = {}
    with (
        mock.patch.object(ops, "_engine_for", return_value=(ops_cuda, contextlib.nullcontext())),
        mock.patch.object(ops, "_program_engine_for", return_value=(cuda_program, contextlib.nullcontext())),
        mock.patch.object(device, "empty", buffer),
        mock.patch.object(device, "upload", upload),
        mock.patch.object(device, "block", lambda num_bytes: buffer((num_bytes,), np.uint8)),
        mock.patch.object(device, "part", lambda memory, begin, end: memory[begin:end]),
        mock.patch.object(device, "send", send),
        mock.patch.object(kernels, "load", load),
    ):
        yield
