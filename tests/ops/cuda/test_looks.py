"""Looks at images that stay on a device are kept: once for all of them, and then the tables go up with the batch."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.ops import looks as kept
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.looks import Looks
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests.compare import assert_same
from tests.ops.pillow_steps import step
from tests.standin import cupy as standin
from tests.standin import host_runner, work

LOOKING = [step("Equalize"), step("AutoContrast"), step("Contrast", 0.3), step("Contrast", 1.9), step("Contrast", 0.0)]


@pytest.fixture
def cuda() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield standin.install(patch)


def pictures(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """Return images of some levels only, one of a single level."""
    images = np.random.default_rng(2).integers(40, 200, (count, height, width, channels), np.uint8)
    images[0], images[1] = 77, images[1] // 8 * 8
    return images


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
def test_tables_are_those_of_a_look(order: Any, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The NumPy engine's pixels, of first steps and later ones; the images are looked at three at once."""
    host = host_runner.install(monkeypatch)
    monkeypatch.setattr(cuda_program, "MAX_COUNTED_BYTES", 3 * len(kept.LOOKS) * cuda_program.PARTIAL_COUNTS * 4)
    images = pictures(7, 19, 23, channels)
    if order == "channels_first":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    options, looks, rows = (
        AugmentOptions(order, order, dtype="uint8"),
        Looks(7),
        np.array([6, 0, 1, 5, 3, 1, 2, 6, 0, 4]),
    )
    program = np.stack([np.concatenate([LOOKING[at % 5], step("Posterize", 5)]) for at in range(10)])
    for count in (7, 1):  # two launches for three images once, then none
        before = host.num_launches
        got = cuda_program.run_program(images, program, options, indices=rows, looks=looks)
        assert_same(got, numpy_program.run_program(images, program, options, indices=rows))
        assert host.num_launches - before == count
    later = np.stack([np.concatenate([LOOKING[at % 5], step("Rotate", 9.0), LOOKING[at % 3]]) for at in range(10)])
    got = cuda_program.run_program(images, later, options, indices=rows, looks=looks)
    assert_same(got, numpy_program.run_program(images, later, options, indices=rows))
    assert host.num_launches - before == 4


def test_small_images_have_none() -> None:
    """Tables of 1.5 KB beside an image of 3 KB would be no saving."""
    assert Looks.of((50_000, 32, 32, 3), np.dtype(np.uint8)) is None
    assert Looks.of((9, 90, 91, 3), np.dtype(np.uint8)) is None
    assert Looks.of((9, 91, 91, 3), np.dtype(np.uint8)) is not None
    assert Looks.of((9, 3, 91, 91), np.dtype(np.uint8)) is not None
    assert Looks.of((9, 90, 90, 1), np.dtype(np.uint8)) is None
    assert Looks.of((9, 224, 224, 1), np.dtype(np.uint8)) is not None
    assert Looks.of((9, 224, 224, 3), np.dtype(np.float32)) is None


def test_a_pickle_takes_what_is_known_along() -> None:
    found = np.random.default_rng(0).integers(0, 256, (2, 3, 1, 256), np.uint8)
    looks = Looks(2)
    codes, rows, factors = np.array(kept.LOOKS), np.array([0, 1, 1]), np.array([0.0, 0.0, 0.0])
    tables = looks.tables(codes, rows, factors, lambda: found)
    again = pickle.loads(pickle.dumps(looks))
    assert_same(again.tables(codes, rows, factors, lambda: pytest.fail("looked again")), tables)
    assert_same(tables[1], np.repeat(found[1, 1], 3, axis=0))


@pytest.mark.parametrize("ranges", [{}, {"rotation_range": 30}], ids=["alone", "ranges"])
def test_a_flow_looks_once(cuda: Any, ranges: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """TrivialAugment of an array takes one launch from the second batch on; what ranges have changed is looked at."""
    monkeypatch.setattr(kept, "MAX_SHARE", 1.0)
    x, flows = pictures(32, 24, 24, 3), []
    for device in ("cpu", "cuda"):
        generator = gpuseq.ImageDataGenerator(augmentations=gpuseq.TrivialAugmentWide(), device=device, **ranges)
        flows.append(generator.flow(x, batch_size=32, seed=4))
    launched = []
    for _ in range(3):
        before = work.done()
        got, wanted = next(flows[1]), next(flows[0])
        assert_same(got.get(), wanted)
        launched.append(Counter(name for name, _ in (work.done() - before).elements()))
    looking = Counter(prepare=1, tabulate=1, program=1)
    if ranges:
        assert launched == [looking] * 3
    else:
        assert launched == [looking, Counter(program=1), Counter(program=1)]


def test_an_array_of_the_users_is_looked_at_in_each_batch(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be written to in between."""
    import cupy

    monkeypatch.setattr(kept, "MAX_SHARE", 1.0)
    recipe = Recipe.parse("augmentations", gpuseq.RandomEqualize(1.0))
    assert recipe is not None
    host = pictures(8, 24, 24, 3)
    x = cupy.asarray(host)
    flow = gpuseq.ImageDataGenerator(augmentations=recipe.augmentations[0], device="cuda").flow(
        x, batch_size=8, shuffle=False
    )
    next(flow)
    x[...] = cupy.asarray(255 - host // 2)
    wanted = numpy_program.run_program(255 - host // 2, np.stack([step("Equalize")] * 8), AugmentOptions())
    assert_same(next(flow).get(), wanted)


def test_files_that_are_kept_are_looked_at_once_until_one_changes(
    cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the cache fills each batch looks; then at all slots at once, and again once a changed file has its slot."""
    monkeypatch.setattr(kept, "MAX_SHARE", 1.0)
    folder = tmp_path / "a"
    folder.mkdir()
    for number, pixels in enumerate(pictures(6, 24, 24, 3)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    flows = []
    for device in ("cpu", "cuda"):
        generator = gpuseq.ImageDataGenerator(augmentations=gpuseq.RandomEqualize(1.0), device=device)
        cache = "device" if device == "cuda" else None
        more = {"shuffle": False, "class_mode": None, "verbose": False, "prefetch": 0}
        flows.append(generator.flow_from_directory(tmp_path, (24, 24), batch_size=3, cache=cache, **more))

    def launched() -> dict[str, int]:
        before = work.done()
        got, wanted = next(flows[1]), next(flows[0])
        assert_same(got.get(), wanted)
        del got
        return dict(Counter(name for (name, _) in (work.done() - before).elements() if name != work.DECODED))

    two, one = {"prepare": 1, "tabulate": 1, "program": 1}, {"program": 1}
    # The second batch fills the cache, looks at all of it, and needs nothing else.
    assert [launched() for _ in range(4)] == [two, two, one, one]
    Image.fromarray(pictures(3, 24, 24, 3)[2] + np.arange(24, dtype=np.uint8)[:, None]).save(folder / "1.png")
    # Of the changed file the slot is used again once no batch is left that reads it; until then a batch is of its own.
    for _ in range(6):
        launched()
    assert [launched(), launched()] == [one, one]
    for flow in flows:
        flow.close()
