"""`resize.cu`, run on the CPU, and its NumPy twin equal Pillow to the bit."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from gpuseq.base.types import Interpolation, literals
from gpuseq.ops import resample
from gpuseq.ops.cuda import resize as ops_cuda_resize
from gpuseq.ops.numpy import resize as ops_numpy_resize
from tests.compare import assert_same, read_only
from tests.standin import host_runner
from tests.standin.host_runner import HostRun, Launch

FILTERS = literals(Interpolation)
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SIZES = [(1, 1), (1, 9), (13, 1), (7, 11), (16, 16), (31, 23), (40, 9), (9, 40)]
TARGETS = [(1, 1), (1, 5), (16, 16), (7, 23), (37, 29)]


def pictures(channels: int, seed: int = 0) -> list[np.ndarray]:
    """Return one image of noise per size; where there is alpha, half of it is all or nothing."""
    rng = np.random.default_rng([seed, channels])
    images = []
    for height, width in SIZES:
        image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        if channels in (2, 4):
            solid = rng.random((height, width)) < 0.5
            image[..., -1][solid] = rng.choice(np.array([0, 1, 255], np.uint8), int(solid.sum()))
        images.append(read_only(image))
    return images


def crops(kind: str) -> np.ndarray | None:
    """Return a box per size: none, fractional, whole pixels, or `keep_aspect_ratio`'s centre."""
    if kind == "whole":
        return None
    boxes = []
    rng = np.random.default_rng(len(kind))
    for height, width in SIZES:
        if kind == "centre":
            side = min(height, width)
            left, upper = (width - side) // 2, (height - side) // 2
            boxes.append((left, upper, left + side, upper + side))
        else:
            left, upper = rng.uniform(0, 0.4, 2) * (width, height)
            right, lower = rng.uniform(0.6, 1, 2) * (width, height)
            boxes.append((left, upper, right, lower))
    return np.array(boxes, np.float32)


def by_pillow(
    images: list[np.ndarray], target_size: tuple[int, int], interpolation: str, boxes: np.ndarray | None
) -> np.ndarray:
    results = []
    for sample, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        assert picture.mode == MODES[image.shape[2]]
        box = None if boxes is None else tuple(map(float, boxes[sample]))
        resized = picture.resize(target_size[::-1], Image.Resampling[interpolation.upper()], box=box)
        results.append(np.asarray(resized).reshape(*target_size, image.shape[2]))
    return np.stack(results)


@pytest.fixture(params=["numpy", "kernel"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if request.param == "kernel":
        host_runner.install(monkeypatch)
        monkeypatch.setattr(ops_cuda_resize, "_kept", type(ops_cuda_resize._kept)())
    return ops_cuda_resize if request.param == "kernel" else ops_numpy_resize


@pytest.mark.parametrize("boxes", ["whole", "fraction", "centre"])
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("channels", MODES)
def test_equals_pillow(channels: int, interpolation: str, boxes: str, engine: ModuleType) -> None:
    images = pictures(channels)
    for target_size in TARGETS:
        got = engine.resize(images, target_size, interpolation, boxes=crops(boxes))
        wanted = by_pillow(images, target_size, interpolation, crops(boxes))
        assert_same(got, wanted, message=f"{target_size}")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "lanczos"])
def test_photograph_sized_lines_equal_pillow(interpolation: str, engine: ModuleType) -> None:
    """Long lines show what short ones hide: steps that add up, weights that nearly round."""
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (3, 4001, 3), dtype=np.uint8), rng.integers(0, 256, (2999, 2, 3), dtype=np.uint8)]
    for target_size in ((3, 224), (299, 5)):
        got = engine.resize(images, target_size, interpolation)
        assert_same(got, by_pillow(images, target_size, interpolation, None))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_out_is_filled_and_returned(interpolation: str, engine: ModuleType) -> None:
    images = pictures(3)
    out = np.full((len(images), 6, 7, 3), 77, np.uint8)
    assert engine.resize(images, (6, 7), interpolation, out=out) is out
    assert_same(out, by_pillow(images, (6, 7), interpolation, None))


@pytest.mark.parametrize("vertical", [False, True])
def test_both_orders_of_the_passes(vertical: bool, engine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Pillow is installed, the other's order is there too: it is the same passes, taken the other way."""
    image = pictures(3)[5]
    for module in (ops_cuda_resize, ops_numpy_resize):
        monkeypatch.setattr(module, "vertical_first", lambda *_: vertical)
    ops_cuda_resize._plan.cache_clear()
    try:
        got = engine.resize([image], (8, 6), "bicubic")
    finally:
        ops_cuda_resize._plan.cache_clear()
    first = by_pillow([image], (8, 23) if vertical else (31, 6), "bicubic", None)
    assert_same(got, by_pillow(list(first), (8, 6), "bicubic", None))


@pytest.mark.parametrize(
    ("version", "size", "wanted"),
    [
        ("12.3.0", (300, 100), False),
        ("13.0.0", (300, 100), True),
        ("13.1.0", (100, 300), False),
        ("10.4.0", (300, 100), False),
    ],
)
def test_the_order_of_the_passes_follows_pillow(
    version: str, size: tuple[int, int], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.__version__", version)
    resample._weighs_passes.cache_clear()
    try:
        assert resample.vertical_first(*size, (50, 50)) is wanted
    finally:
        resample._weighs_passes.cache_clear()


@pytest.mark.parametrize(
    "how", [Launch((1, 1)), Launch((3, 2), reverse=True), Launch((40, 20))], ids=["one", "few", "many"]
)
@pytest.mark.parametrize("block", [1, 5, 256])
def test_the_answer_does_not_depend_on_the_launch(how: Launch, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_cuda_resize, "BLOCK", block)
    monkeypatch.setattr(ops_cuda_resize, "_kept", type(ops_cuda_resize._kept)())
    host_runner.install(monkeypatch, how, host_runner.OPTIMIZED)
    images = pictures(4)
    got = ops_cuda_resize.resize(images, (7, 9), "hamming")
    assert_same(got, by_pillow(images, (7, 9), "hamming", None))


def test_tables_go_up_once_and_the_oldest_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuseq.ops.cuda import memory as device

    run: HostRun = host_runner.install(monkeypatch)
    uploads: list[int] = []
    upload = device.upload
    monkeypatch.setattr(device, "upload", lambda shape, *rest: (uploads.append(len(shape)), upload(shape, *rest))[1])
    monkeypatch.setattr(ops_cuda_resize, "_kept", type(ops_cuda_resize._kept)())
    monkeypatch.setattr(ops_cuda_resize, "MAX_DEVICE_TABLES", 6)
    images = pictures(3)[:3]
    ops_cuda_resize.resize(images, (5, 4), "bilinear")
    assert uploads.count(1) == 1, "one copy holds all tables"
    ops_cuda_resize.resize(images, (5, 4), "bilinear")
    assert uploads.count(1) == 1, "the tables are there already"
    assert run.num_launches == 4
    ops_cuda_resize.resize(pictures(3)[3:], (5, 4), "bilinear")
    assert len(ops_cuda_resize._kept) == 6
    ops_cuda_resize.resize(images, (5, 4), "bilinear")
    assert uploads.count(1) == 3
