"""What Keras' users complained about for years, one test each: first that Keras does it, then that gpuseq does not."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from tests.cases import images
from tests.compare import assert_same
from tests.photos import write_broken, write_photo

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = pytest.mark.keras

AUGMENT: dict[str, Any] = {
    "rotation_range": 40,
    "zoom_range": 0.3,
    "horizontal_flip": True,
    "channel_shift_range": 30.0,
}


def epoch_by_threads(flow: Any, num_threads: int, *, hold_back: bool = False) -> list[np.ndarray]:
    """Return the batches of an epoch, fetched by index from several threads at once, in order of their index."""
    order = list(reversed(range(len(flow)))) if hold_back else list(range(len(flow)))
    results: dict[int, np.ndarray] = {}
    with ThreadPoolExecutor(num_threads) as pool:
        for index, batch in zip(order, pool.map(flow.__getitem__, order), strict=True):
            results[index] = np.asarray(batch[0])
    return [results[index] for index in sorted(results)]


def test_a_seed_repeats_the_epoch_with_threads() -> None:
    """keras-preprocessing#145, keras#11365: with workers, a seeded epoch differs from run to run.

    Keras' numbers depend on how many batches were asked for before, so on the order in which threads come; counted by
    epoch, batch i is batch i.
    """
    data, labels = images((37, 12, 12, 3), "uint8"), np.arange(37)

    def epoch(num_threads: int, epoch_number: int, *, hold_back: bool = False) -> list[np.ndarray]:
        flow = gpuseq.ImageDataGenerator(**AUGMENT, device="cpu").flow(data, labels, batch_size=5, seed=9)
        flow.set_epoch(epoch_number)
        return epoch_by_threads(flow, num_threads, hold_back=hold_back)

    for epoch_number in (0, 3):
        wanted = epoch(1, epoch_number)
        for num_threads in (1, 4, 8):
            for hold_back in (False, True):
                for got, reference in zip(epoch(num_threads, epoch_number, hold_back=hold_back), wanted, strict=True):
                    assert_same(got, reference)
    assert not np.array_equal(epoch(1, 0)[0], epoch(1, 3)[0]), "two epochs must differ, or nothing was compared"

    theirs = keras_image.ImageDataGenerator(**AUGMENT)
    forward = epoch_by_threads(theirs.flow(data, labels, batch_size=5, seed=9), 1)
    backward = epoch_by_threads(theirs.flow(data, labels, batch_size=5, seed=9), 1, hold_back=True)
    assert any(not np.array_equal(one, other) for one, other in zip(forward, backward, strict=True))


@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_no_sample_repeats_or_goes_missing_with_threads(rng: str) -> None:
    """keras#11365: samples repeat or go missing when several workers share an iterator."""
    data, labels = images((41, 6, 6, 1), "uint8"), np.arange(41)
    generator = gpuseq.ImageDataGenerator(horizontal_flip=True, rng=rng, device="cpu")
    flow = generator.flow(data, labels, batch_size=4, seed=3)
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            seen = np.concatenate([batch[1] for batch in pool.map(lambda _: next(flow), range(len(flow)))])
        assert sorted(seen.tolist()) == list(range(41))
    flow.set_epoch(5)
    with ThreadPoolExecutor(8) as pool:
        seen = np.concatenate([batch[1] for batch in pool.map(flow.__getitem__, range(len(flow)))])
    assert sorted(seen.tolist()) == list(range(41))


def test_keyed_numbers_do_not_depend_on_the_batch_size() -> None:
    """keras-preprocessing#145 once more: the picture of a sample must not change with the batch it comes in."""
    data, labels = images((12, 9, 9, 3), "uint8"), np.arange(12)

    def pictures(batch_size: int) -> dict[int, np.ndarray]:
        generator = gpuseq.ImageDataGenerator(**AUGMENT, rng="keyed", device="cpu")
        flow = generator.flow(data, labels, batch_size=batch_size, seed=3)
        return {
            int(label): image
            for batch in (flow[i] for i in range(len(flow)))
            for image, label in zip(*batch, strict=True)
        }

    wanted = pictures(12)
    for batch_size in (1, 5):
        got = pictures(batch_size)
        assert sorted(got) == sorted(wanted)
        for label, picture in got.items():
            assert_same(picture, wanted[label])


def test_a_seeded_iterator_leaves_the_global_stream_alone(untouched_global_stream: None) -> None:
    """Keras reseeds NumPy's global stream with every batch, and with it everything else that draws from it."""
    data = images((7, 8, 8, 3), "uint8")
    generator = gpuseq.ImageDataGenerator(**AUGMENT, featurewise_center=True, device="cpu")
    generator.fit(data, augment=True, seed=4)
    flow = generator.flow(data, batch_size=3, seed=1)
    for _ in range(5):
        next(flow)
    flow[1]
    flow.on_epoch_end()
    generator.random_transform(data[0], seed=2)
    generator.get_random_transform((8, 8, 3), seed=2)

    before = np.random.get_state()[1].copy()
    next(keras_image.ImageDataGenerator().flow(data, seed=1))
    assert not np.array_equal(np.random.get_state()[1], before), "Keras has changed: this complaint is settled"
    np.random.seed(20240229)


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    """keras#8686, NVIDIA/DALI#3913: one corrupt file ends the job, and no message says which."""
    for number in range(6):
        write_photo(tmp_path / "one" / f"good_{number}", "jpeg", seed=number)
    broken = write_broken(tmp_path / "one", "truncated")
    arguments: dict[str, Any] = {"class_mode": None, "target_size": (16, 16), "batch_size": 32}

    with pytest.raises(OSError, match="truncated") as theirs:
        next(keras_image.ImageDataGenerator().flow_from_directory(str(tmp_path), **arguments))
    assert broken.name not in str(theirs.value), "Keras has changed: this complaint is settled"

    with pytest.raises(gpuseq.ImageFileError) as ours:
        next(gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(tmp_path, **arguments))
    assert str(broken) in str(ours.value)

    survivors = gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(tmp_path, on_error="skip", **arguments)
    assert len(next(survivors)) == 6
    assert list(survivors.bad_files) == [str(broken)]


@pytest.mark.parametrize("channels", [5, 7, 13])
def test_more_than_four_channels(channels: int) -> None:
    """keras#4664: multispectral images were refused. They warn, as in Keras 3, and every op takes them."""
    data = images((6, 10, 10, channels), "uint16")
    arguments: dict[str, Any] = {**AUGMENT, "samplewise_center": True, "featurewise_center": True}
    ours = gpuseq.ImageDataGenerator(**arguments, brightness_range=(0.5, 1.5), device="cpu")
    with pytest.warns(UserWarning, match=f"{channels} channels"):
        ours.fit(data)
    with pytest.warns(UserWarning, match=f"{channels} channels"):
        flow = ours.flow(data, seed=1)
    batch = next(flow)
    assert batch.shape == (6, 10, 10, channels)
    assert np.isfinite(batch).all()

    with pytest.warns(UserWarning, match="channels"):
        theirs = keras_image.ImageDataGenerator(**AUGMENT).flow(data, seed=1)
    with pytest.warns(UserWarning, match="channels"):
        plain = gpuseq.ImageDataGenerator(**AUGMENT, device="cpu").flow(data, seed=1)
    assert_same(np.asarray(next(plain)), next(theirs), atol=1e-3 * 257)


def test_sixteen_bit_files_keep_their_levels(tmp_path: Path) -> None:
    """keras#4486: 16-bit images were flattened to 8 bits."""
    levels = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 109
    for name in ("a.png", "b.tif"):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "one" / name)
    flow = gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(
        tmp_path, target_size=(20, 30), color_mode="grayscale", class_mode=None, shuffle=False
    )
    batch = next(flow)
    for image in batch:
        assert_same(np.asarray(image[..., 0]), levels.astype(np.float32))
    assert batch.max() > 65_000


def test_sixteen_bit_arrays_keep_their_levels() -> None:
    """keras#4486: and arrays are kept as they are, not copied to floats."""
    data = images((4, 8, 8, 1), "uint16")
    flow = gpuseq.ImageDataGenerator(device="cpu").flow(data, shuffle=False)
    assert flow.x.dtype == np.uint16
    assert np.shares_memory(flow.x, data)
    assert_same(np.asarray(next(flow)), data.astype(np.float32))


def test_uint8_arrays_are_not_copied_to_floats() -> None:
    """keras#5835, #8668: Keras holds a float32 copy of the whole array, four times its size."""
    data = images((64, 16, 16, 3), "uint8")
    ours = gpuseq.ImageDataGenerator(device="cpu").flow(data)
    assert np.shares_memory(ours.x, data)
    assert keras_image.ImageDataGenerator().flow(data).x.nbytes == 4 * data.nbytes


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_memory_does_not_grow_with_the_epochs(kind: str, plain_tree: Path) -> None:
    """keras#5835, #8668: memory grew until the crash."""
    generator = gpuseq.ImageDataGenerator(**AUGMENT, device="cpu")
    if kind == "array":
        flow = generator.flow(images((40, 16, 16, 3), "uint8"), batch_size=8, seed=1)
    else:
        flow = generator.flow_from_directory(plain_tree, target_size=(16, 16), batch_size=4, seed=1)

    def epochs(count: int) -> None:
        for _ in range(count * len(flow)):
            next(flow)
        flow.on_epoch_end()

    epochs(5)
    gc.collect()
    tracemalloc.start()
    try:
        epochs(2)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        epochs(30)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 64 * 1024, f"{after - before} bytes more after 30 epochs"


def test_no_thread_stays_behind(plain_tree: Path) -> None:
    """Background decoding ends with `close`, and with the iterator itself."""
    before = set(threading.enumerate())
    flow = gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(plain_tree, target_size=(8, 8), batch_size=2)
    next(flow)
    flow.close()
    left = [thread for thread in threading.enumerate() if thread not in before and "gpuseq-decode" in thread.name]
    assert not left
    assert next(flow)[0].shape == (2, 8, 8, 3), "a closed iterator stays usable"
    flow.close()


def test_an_unfitted_generator_says_so_once_per_missing_statistic() -> None:
    """Keras warned per image, thousands of times; the words are the same, the number is not."""
    with pytest.warns(UserWarning, match="featurewise_center"):
        generator = gpuseq.ImageDataGenerator(featurewise_std_normalization=True, device="cpu")
    flow = generator.flow(images((8, 6, 6, 3), "uint8"), seed=1)
    with pytest.warns(UserWarning, match=r"(?s)hasn't.*been fit") as caught:
        next(flow)
    assert 1 <= len(caught) <= 2
