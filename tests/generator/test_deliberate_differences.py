"""Where gpuseq differs from Keras on purpose: each difference shown on both sides, so that it stays a decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.cases import images
from tests.compare import assert_same
from tests.parity import quiet
from tests.photos import write_photo

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = pytest.mark.keras


@pytest.mark.parametrize("subset", ["training", "validation"])
def test_weights_of_a_subset_belong_to_its_own_samples(subset: str) -> None:
    """Keras splits images and labels and not the weights, so training images get the validation images' weights."""
    data, labels = images((10, 4, 4, 3), "uint8"), np.tile([0, 1], 5)
    weights = np.arange(10, dtype=np.float64)
    arguments: dict[str, Any] = {"sample_weight": weights, "subset": subset, "shuffle": False, "batch_size": 10}
    theirs = next(keras_image.ImageDataGenerator(validation_split=0.4).flow(data, labels, **arguments))
    ours = next(gpuseq.ImageDataGenerator(validation_split=0.4, device="cpu").flow(data, labels, **arguments))
    assert_same(np.asarray(ours[0]), theirs[0])
    kept = slice(0, 4) if subset == "validation" else slice(4, 10)
    assert_same(np.asarray(ours[2]), weights[kept])
    assert np.array_equal(theirs[2], weights[: len(theirs[0])])


def test_uint8_saturates_where_keras_wraps_around(tmp_path: Path) -> None:
    """A float beyond 0..255 has no uint8: C leaves the cast undefined, and NumPy's wraps on most machines."""
    write_photo(tmp_path / "one" / "wide", "png_gray16", height=16, width=16)
    flow = {"target_size": (16, 16), "color_mode": "grayscale", "class_mode": None}
    with quiet():
        floats = next(keras_image.ImageDataGenerator().flow_from_directory(str(tmp_path), **flow))
        ours = next(gpuseq.ImageDataGenerator(dtype="uint8", device="cpu").flow_from_directory(tmp_path, **flow))
    assert floats.max() > 255
    assert_same(np.asarray(ours), np.clip(floats, 0, 255).astype(np.uint8))


def test_splines_into_uint8_saturate(tmp_path: Path) -> None:
    write_photo(tmp_path / "one" / "sharp", "png_bits", height=20, width=20)
    arguments: dict[str, Any] = {"rotation_range": 40, "interpolation_order": 3}
    flow: dict[str, Any] = {"target_size": (20, 20), "class_mode": None, "seed": 3}
    with quiet():
        floats = next(keras_image.ImageDataGenerator(**arguments).flow_from_directory(str(tmp_path), **flow))
        ours = next(
            gpuseq.ImageDataGenerator(**arguments, dtype="uint8", device="cpu").flow_from_directory(tmp_path, **flow)
        )
    assert floats.min() < 0
    assert floats.max() > 255
    assert_same(np.asarray(ours), np.trunc(np.clip(floats, 0, 255)).astype(np.uint8), atol=1)


@pytest.mark.parametrize("level", [0.0, 7.3, 255.0])
def test_a_constant_image_is_exactly_zero_after_samplewise_normalisation(level: float) -> None:
    """Keras' float32 mean misses the value by a rounding, and divides that by 1e-6."""
    data = np.full((2, 33, 41, 3), level, np.float32)
    arguments: dict[str, Any] = {"samplewise_center": True, "samplewise_std_normalization": True}
    ours = next(gpuseq.ImageDataGenerator(**arguments, device="cpu").flow(data))
    assert_same(np.asarray(ours), np.zeros_like(data))


def test_a_seeded_iterator_shuffles_from_its_seed_even_before_the_first_batch() -> None:
    """Keras' ``on_epoch_end`` before the first batch draws from the global stream, whatever the seed."""
    data, labels = images((20, 4, 4, 1), "uint8"), np.arange(20)

    def first_labels(module: Any, global_seed: int, **arguments: Any) -> np.ndarray:
        np.random.seed(global_seed)
        flow = module.ImageDataGenerator(**arguments).flow(data, labels, seed=7, batch_size=20)
        flow.on_epoch_end()
        return np.asarray(flow[0][1])

    assert not np.array_equal(first_labels(keras_image, 1), first_labels(keras_image, 2))
    assert_same(first_labels(gpuseq, 1, device="cpu"), first_labels(gpuseq, 2, device="cpu"))


def test_a_preprocessing_function_draws_from_the_global_stream_and_leaves_the_seed_alone() -> None:
    """In Keras it draws from the iterator's own numbers, so a line in it changes every later rotation."""
    data = images((6, 8, 8, 3), "uint8")
    arguments: dict[str, Any] = {"rotation_range": 90}

    def noisy(image: np.ndarray) -> np.ndarray:
        np.random.random()
        return image

    plain = next(gpuseq.ImageDataGenerator(**arguments, device="cpu").flow(data, seed=3))
    drawing = next(
        gpuseq.ImageDataGenerator(**arguments, preprocessing_function=noisy, device="cpu").flow(data, seed=3)
    )
    assert_same(np.asarray(drawing), np.asarray(plain))
    theirs = next(keras_image.ImageDataGenerator(**arguments).flow(data, seed=3))
    disturbed = next(keras_image.ImageDataGenerator(**arguments, preprocessing_function=noisy).flow(data, seed=3))
    assert not np.array_equal(theirs, disturbed)


def test_float16_batches_are_the_float32_ones_rounded() -> None:
    """SciPy has no float16, so Keras fails as soon as a float16 image is turned."""
    data = images((5, 9, 9, 3), "uint8")
    arguments: dict[str, Any] = {"rotation_range": 90, "rescale": 1 / 255}
    ours = next(gpuseq.ImageDataGenerator(**arguments, dtype="float16", device="cpu").flow(data, seed=3))
    wanted = next(gpuseq.ImageDataGenerator(**arguments, device="cpu").flow(data, seed=3))
    assert_same(np.asarray(ours), np.asarray(wanted).astype(np.float16))
    with pytest.raises(RuntimeError, match="not supported"):
        next(keras_image.ImageDataGenerator(**arguments, dtype="float16").flow(data, seed=3))


def test_rows_of_numbers_in_a_data_frame_are_one_array(plain_tree: Path) -> None:
    """Keras hands out an array of lists with ``class_mode="raw"``, which no loss takes."""
    pandas = pytest.importorskip("pandas")
    rows = [[0, 1], [1, 0], [0, 1]]
    table = pandas.DataFrame({"filename": [f"left/{number}.jpg" for number in range(3)], "class": rows})
    flow: dict[str, Any] = {"class_mode": "raw", "target_size": (8, 8), "shuffle": False}
    theirs = next(keras_image.ImageDataGenerator().flow_from_dataframe(table, str(plain_tree), **flow))
    ours = next(gpuseq.ImageDataGenerator(device="cpu").flow_from_dataframe(table, plain_tree, **flow))
    assert theirs[1].dtype == object
    assert_same(np.asarray(ours[1]), np.array(rows))


def test_a_negative_index_counts_from_the_end() -> None:
    """Keras checks nothing below 0, and slices with what comes of it."""
    data = np.arange(5 * 4 * 4 * 3, dtype=np.float32).reshape(5, 4, 4, 3)
    theirs = keras_image.ImageDataGenerator().flow(data, batch_size=2, shuffle=False)
    ours = gpuseq.ImageDataGenerator(device="cpu").flow(data, batch_size=2, shuffle=False)
    assert theirs[-1].shape == (0, 4, 4, 3)
    for index in (-1, -2, -3):
        assert_same(np.asarray(ours[index]), theirs[len(theirs) + index])
    with pytest.raises(IndexError):
        ours[-4]


def test_a_validation_subset_of_nothing_is_an_error(plain_tree: Path) -> None:
    """Keras finds no images and hands out empty batches, or none."""
    theirs = keras_image.ImageDataGenerator().flow_from_directory(str(plain_tree), subset="validation")
    assert theirs.samples == 0
    with pytest.raises(ValueError, match="validation_split"):
        gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(plain_tree, subset="validation")
