"""Looks at images that stay are kept: each image is looked at once, and then the tables go up with the batch."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.ops import dispatch as ops
from gpuseq.ops import looks as kept
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.looks import KeptLooks, Looks
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests.compare import assert_same
from tests.ops.pillow_steps import step
from tests.standin import cupy as standin
from tests.standin import streams as standin_streams
from tests.standin import work

LOOKING = [step("Equalize"), step("AutoContrast"), step("Contrast", 0.3), step("Contrast", 1.9), step("Contrast", 0.0)]
ONE: dict[str, int] = {"program": 1}
LOOKS: dict[str, int] = {"prepare": 1, "program": 1}
LEARNS: dict[str, int] = {"prepare": 2, "program": 1}
"""Of a batch: the launches where all is known, where it looks, and where it looks and learns for later ones."""


@pytest.fixture
def cuda() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "MAX_SHARE", 1.0)
        yield standin.install(patch)


def pictures(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """Return images of some levels only, one of a single level."""
    images = np.random.default_rng(2).integers(40, 200, (count, height, width, channels), np.uint8)
    images[0], images[1] = 77, images[1] // 8 * 8
    return images


def folder_of(images: np.ndarray, folder: Path) -> Path:
    (folder / "a").mkdir(parents=True)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / "a" / f"{number}.png")
    return folder


def flows_of(folder: Path, augmentations: Any, *, on_device: dict[str, Any], **options: Any) -> list[Any]:
    """Return iterators over a folder, the host's and the device's; `on_device` is for that one alone."""
    flows = []
    for device, more in (("cpu", {}), ("cuda", on_device)):
        generator = gpuseq.ImageDataGenerator(augmentations=augmentations, rng="keyed", device=device)
        both = {"class_mode": None, "verbose": False, "batch_size": 3, "seed": 4, "prefetch": 0} | options
        flows.append(generator.flow_from_directory(folder, (24, 24), **both, **more))
    return flows


def launched(flows: list[Any]) -> dict[str, int]:
    """Compare the next batch of both, and return how often each kernel was launched for it."""
    before = work.done()
    got, wanted = next(flows[1]), next(flows[0])
    assert_same(got.get(), wanted)
    return dict(Counter(name for (name, _) in (work.done() - before).elements() if name != work.DECODED))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
def test_tables_are_those_of_a_look(cuda: Any, order: Any, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The NumPy engine's pixels, of first steps and later ones; the images are looked at three at once."""
    import cupy

    parts = 3 * len(kept.LOOKS) * cuda_program.PARTIAL_COUNTS * 4
    monkeypatch.setattr(cuda_program, "MAX_COUNTED_BYTES", parts)
    images = pictures(7, 19, 23, channels)
    if order == "channels_first":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    options, looks = AugmentOptions(order, order, dtype="uint8"), Looks(KeptLooks(7, 1 if channels == 1 else 3))
    rows = np.array([6, 0, 1, 5, 3, 1, 2, 6, 0, 4])
    program = np.stack([np.concatenate([LOOKING[at % 5], step("Posterize", 5)]) for at in range(10)])
    there = cupy.asarray(images)
    for count in (2 + 3, 1):  # a launch for three images, after those of the batch; then the batch alone
        before = cuda.num_launches
        got = ops.run_program(there, program, options, indices=rows, looks=looks)
        assert_same(got.get(), numpy_program.run_program(images, program, options, indices=rows))
        assert cuda.num_launches - before == count
    later = np.stack([np.concatenate([LOOKING[at % 5], step("Rotate", 9.0), LOOKING[at % 3]]) for at in range(10)])
    got = ops.run_program(there, later, options, indices=rows, looks=looks)
    assert_same(got.get(), numpy_program.run_program(images, later, options, indices=rows))
    assert cuda.num_launches - before == 3


def test_some_images_of_an_array_stay(cuda: Any) -> None:
    """A batch of its own, of kept images in any order and others: these are looked at each time."""
    import cupy

    images = pictures(5, 19, 23, 3)
    looks = Looks(KeptLooks(9, 3), np.array([4, -1, 8, 0, -1]))
    program = np.stack([LOOKING[at] for at in range(5)])
    wanted = numpy_program.run_program(images, program, AugmentOptions())
    for count in (3, 2, 2):
        before = cuda.num_launches
        assert_same(ops.run_program(cupy.asarray(images), program, AugmentOptions(), looks=looks).get(), wanted)
        assert cuda.num_launches - before == count
    again = Looks(looks.kept, np.array([-1, 0, 4]))  # two of them lie elsewhere in the next array
    assert again.known(np.arange(3)).tolist() == [False, True, True]
    assert looks.take(np.array([2, 1, 2])).known(np.arange(3)).tolist() == [True, False, True]
    got = ops.run_program(cupy.asarray(images[[1, 3, 0]]), program[[3, 1, 0]], AugmentOptions(), looks=again)
    assert_same(
        got.get(), numpy_program.run_program(images, program[[3, 1, 0]], AugmentOptions(), indices=np.array([1, 3, 0]))
    )


def test_what_looks_at_no_source_image_learns_nothing(cuda: Any) -> None:
    """A look after another step, a chain of a mix, steps without a look: no batch will ask for these tables."""
    import cupy

    images, looks = pictures(4, 19, 23, 3), Looks(KeptLooks(4, 3))
    recipe = Recipe.parse("augmentations", gpuseq.AugMix())
    assert recipe is not None
    blurred = np.stack([np.concatenate([step("Rotate", 9.0), step("Equalize")])] * 4)
    for program in (recipe.draw(np.arange(4), (19, 23), seed=1, epoch=0), np.stack([step("Invert")] * 4), blurred):
        for _ in range(2):
            ops.run_program(cupy.asarray(images), program, AugmentOptions(), looks=looks)
    assert not looks.known(np.arange(4)).any()


def test_small_images_have_none() -> None:
    """Tables of 1.5 KB beside an image of 3 KB would be no saving."""
    assert KeptLooks.of((50_000, 32, 32, 3), np.dtype(np.uint8)) is None
    assert KeptLooks.of((9, 90, 91, 3), np.dtype(np.uint8)) is None
    assert KeptLooks.of((9, 91, 91, 3), np.dtype(np.uint8)) is not None
    assert KeptLooks.of((9, 3, 91, 91), np.dtype(np.uint8)) is not None
    assert KeptLooks.of((9, 90, 90, 1), np.dtype(np.uint8)) is None
    assert KeptLooks.of((9, 224, 224, 1), np.dtype(np.uint8)) is not None
    assert KeptLooks.of((0, 224, 224, 1), np.dtype(np.uint8)) is None
    assert KeptLooks.of((9, 224, 224, 3), np.dtype(np.float32)) is None


def found_of(slots: np.ndarray, version: int = 0) -> np.ndarray:
    """Return what looks at images say that differ by place and version."""
    numbers = (np.arange(256) * (slots[:, None, None, None] + 1) + version) % 256
    return (numbers + np.arange(3)[:, None, None]).astype(np.uint8)


def tables_of(looks: KeptLooks, slots: np.ndarray) -> np.ndarray:
    return looks.looked.tables_of(np.full(len(slots), kept.EQUALIZE), slots, np.zeros(len(slots)))


def test_a_pickle_takes_what_is_known_along() -> None:
    found = np.random.default_rng(0).integers(0, 256, (2, 3, 1, 256), np.uint8)
    looks = KeptLooks(3, 1)
    looks.learn(np.array([0, 1]), lambda: found)
    looks.learn(np.array([2]), lambda: pytest.fail("fetched"))
    codes, slots, factors = np.array(kept.LOOKS), np.array([0, 1, 1]), np.array([0.0, 0.0, 0.0])
    assert looks.known(slots).all()
    tables = looks.looked.tables_of(codes, slots, factors)
    again = pickle.loads(pickle.dumps(looks))
    # What nobody has fetched does not go along: it would be of another process's device.
    assert again.known(np.arange(3)).tolist() == [True, True, False]
    assert_same(again.looked.tables_of(codes, slots, factors), tables)
    assert_same(tables[1], np.repeat(found[1, 1], 3, axis=0))
    again.learn(np.array([2]), lambda: found[:1])
    assert again.known(np.arange(3)).all()


def test_tables_are_fetched_when_they_are_asked_for_or_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_WAITING", 4)
    looks, fetched = KeptLooks(9, 1), []

    def learn(*slots: int) -> None:
        looks.learn(np.array(slots), lambda: fetched.append(slots) or found_of(np.array(slots)))  # type: ignore[func-returns-value]

    learn(0, 1)
    learn(2, 3)
    assert not fetched
    assert looks.known(np.array([5, -1])).tolist() == [False, False]
    assert not fetched
    learn(4)  # the fifth
    assert fetched == [(0, 1)]
    learn(5)
    assert looks.known(np.array([7, 4])).tolist() == [False, True]
    assert fetched == [(0, 1), (2, 3), (4,)]
    slots = np.arange(6)
    assert looks.known(slots).all()
    assert_same(tables_of(looks, slots), np.repeat(found_of(slots)[:, 2], 3, axis=1))


def test_what_was_looked_at_before_a_change_is_not_known() -> None:
    """A place is written to again: neither what was fetched counts, nor what is fetched later."""
    looks, slots = KeptLooks(4, 1), np.arange(4)
    looks.learn(slots[:2], lambda: found_of(slots[:2]))
    assert looks.known(slots).tolist() == [True, True, False, False]
    looks.learn(slots[2:], lambda: found_of(slots[2:]))
    looks.forget(np.array([1, 2]))
    assert looks.known(slots).tolist() == [True, False, False, True]
    looks.learn(slots[1:3], lambda: found_of(slots[1:3], 7))
    assert looks.known(slots).all()
    wanted = found_of(slots)[:, 2]
    wanted[1:3] = found_of(slots[1:3], 7)[:, 2]
    assert_same(tables_of(looks, slots), np.repeat(wanted, 3, axis=1))


def test_threads_learn_what_each_other_reads() -> None:
    """Whatever is known has its own tables, whoever fetched them."""
    looks, start = KeptLooks(64, 1), np.arange(64)

    def work_on(seed: int) -> int:
        rng, num_known = np.random.default_rng(seed), 0
        for _ in range(60):
            slots = np.unique(rng.choice(start, 8))
            known = looks.known(slots)
            has = slots[known]
            assert_same(tables_of(looks, has), np.repeat(found_of(has)[:, 2], 3, axis=1))
            new = slots[~known]
            looks.learn(new, partial(found_of, new))
            num_known += len(has)
        return num_known

    with ThreadPoolExecutor(4) as pool:
        assert min(pool.map(work_on, range(8))) > 0
    assert looks.known(start).all()


@pytest.mark.parametrize("ranges", [{}, {"rotation_range": 30}], ids=["alone", "ranges"])
def test_a_flow_looks_once(cuda: Any, ranges: dict[str, Any]) -> None:
    """TrivialAugment of an array takes one launch from the second epoch on; what ranges have changed is looked at."""
    x, flows = pictures(32, 24, 24, 3), []
    for device in ("cpu", "cuda"):
        generator = gpuseq.ImageDataGenerator(augmentations=gpuseq.TrivialAugmentWide(), device=device, **ranges)
        flows.append(generator.flow(x, batch_size=16, seed=4))
    assert [launched(flows) for _ in range(6)] == [LOOKS] * 6 if ranges else [LEARNS, LEARNS, ONE, ONE, ONE, ONE]


def test_an_array_of_the_users_is_looked_at_in_each_batch(cuda: Any) -> None:
    """It may be written to in between."""
    import cupy

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


ROOM = 24 * 24 * 3
"""Of an image of the folders below."""

CACHES: dict[str, dict[str, Any]] = {
    "device": {"cache": "device"},
    "host": {"cache": "host"},
    "some of them": {"cache": "device", "memory_limit": 4 * ROOM},
    "some on the host": {"cache": "host", "memory_limit": 4 * ROOM},
}


@pytest.mark.parametrize("cache", CACHES)
def test_files_that_are_kept_are_looked_at_once(cuda: Any, tmp_path: Path, cache: str) -> None:
    """Wherever they are kept, and from the epoch on that follows the one that kept them; others each time."""
    folder = folder_of(pictures(6, 24, 24, 3), tmp_path)
    flows = flows_of(folder, gpuseq.RandomEqualize(1.0), on_device=CACHES[cache], shuffle=False)
    said = []
    for flow_of_device in [flows[1]] * 6:
        said.append(dict(flow_of_device.explain().path)["engine"].count(" then "))
        if len(said) < 3:
            assert launched(flows) == LEARNS
        else:  # the second batch has two files that had no room
            assert launched(flows) == (LOOKS if cache.startswith("some") and len(said) % 2 == 0 else ONE)
    assert said == ([1, 1, 0, 1, 0, 1] if cache.startswith("some") else [1, 1, 0, 0, 0, 0])
    for flow in flows:
        flow.close()


@pytest.mark.parametrize("cache", ["device", "host"])
def test_a_file_that_changes_is_looked_at_anew(cuda: Any, tmp_path: Path, cache: str) -> None:
    """Its place in the cache is used again, first by itself, then by another: neither takes the tables before it."""
    images = pictures(6, 24, 24, 3)
    folder = folder_of(images, tmp_path)
    more = {"cache": cache, "memory_limit": 6 * ROOM}
    flows = flows_of(folder, gpuseq.RandomAutocontrast(1.0), on_device=more, shuffle=False)
    assert [launched(flows) for _ in range(4)] == [LEARNS, LEARNS, ONE, ONE]
    for number, pixels in ((1, images[2] // 3), (4, images[2] // 2 + 9)):
        Image.fromarray(np.concatenate([pixels, pixels[:number]])).save(folder / "a" / f"{number}.png")
    seen = [launched(flows) for _ in range(8)]
    # Where it had no place yet its batch looks at it; where it has one it is learned; then all are known.
    assert seen[-2:] == [ONE, ONE]
    assert LEARNS in seen
    for flow in flows:
        flow.close()


@pytest.mark.parametrize("cache", CACHES)
def test_the_hosts_batches_whatever_is_known(cuda: Any, tmp_path: Path, cache: str) -> None:
    """Shuffled, in shards, decoded ahead, with a broken file, on threads, and gone on with by a second iterator."""
    folder = folder_of(pictures(14, 24, 24, 3), tmp_path)
    (folder / "a" / "5.png").write_bytes(b"no picture")
    policy = [gpuseq.RandomHorizontalFlip(), gpuseq.TrivialAugmentWide()]
    for shard in range(2):
        options = {"shard": (shard, 2), "on_error": "substitute"}
        wanted, flow = flows_of(folder, policy, on_device=CACHES[cache], batch_size=4, prefetch=shard, **options)
        for _ in range(3 * len(flow)):
            assert_same(next(flow).get(), next(wanted))
        state = flow.state_dict()
        _, again = flows_of(folder, policy, on_device=CACHES[cache], batch_size=4, **options)
        again.load_state_dict(state)
        with ThreadPoolExecutor(3) as pool:
            got = [batch.get() for batch in pool.map(flow.__getitem__, list(range(len(flow))) * 6)]
        assert_same(np.concatenate(got), np.concatenate([wanted[at] for at in range(len(flow))] * 6))
        for _ in range(2 * len(again)):
            assert_same(next(again).get(), next(wanted))
        for each in (wanted, flow, again):
            each.close()


def test_nobody_waits_for_a_look(cuda: Any) -> None:
    """Through the first epoch the host waits for no device; in the next one for the looks alone, not for batches."""
    import cupy

    generator = gpuseq.ImageDataGenerator(augmentations=gpuseq.RandomEqualize(1.0), device="cuda")
    flow, timeline = generator.flow(pictures(12, 24, 24, 3), batch_size=3, shuffle=False), standin_streams.timeline()
    num_waits = timeline.num_waits
    batches = [next(flow) for _ in range(4)]
    assert timeline.num_waits == num_waits
    behind = cupy.cuda.get_current_stream().record()
    batches.append(next(flow))
    assert timeline.num_waits == num_waits + 1
    assert not behind.done
