"""What `fit` refuses, and what it found kept in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.transforms.statistics import per_channel_of
from tests.cases import images
from tests.compare import assert_same
from tests.generator.test_wrong_arguments import generator, refuses

IMAGES = images((6, 8, 8, 3), "uint8")


def fitted(**options: Any) -> gpuseq.ImageDataGenerator:
    return generator(featurewise_center=True, featurewise_std_normalization=True, **options)


def test_fit_names_the_method_for_what_it_was_given() -> None:
    with refuses(TypeError, "'photos'", "fit_directory"):
        fitted().fit("photos")
    with refuses(TypeError, "generator", "fit_batches"):
        fitted().fit(image for image in IMAGES)
    for method in (fitted().fit, fitted().fit_batches):
        with refuses(TypeError, "NumpyArrayIterator", "fit_directory"):
            method(generator().flow(IMAGES))


def test_fit_takes_no_labels() -> None:
    with refuses(TypeError, "no labels", "augment"):
        fitted().fit(IMAGES, np.arange(6))


def test_a_mean_of_other_channels_says_so() -> None:
    ours = generator(featurewise_center=True)
    ours.mean = np.zeros((1, 1, 3))
    with refuses(ValueError, "generator.mean", "(1, 1, 3)", "(8, 8, 1)"):
        next(ours.flow(IMAGES[..., :1]))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rescale", [None, 1 / 255])
def test_statistics_go_through_a_file(tmp_path: Path, rescale: float | None, data_format: str) -> None:
    data = IMAGES if data_format == "channels_last" else IMAGES.transpose(0, 3, 1, 2)
    first, second = (fitted(rescale=rescale, data_format=data_format) for _ in range(2))
    first.fit(data)
    first.save_statistics(tmp_path / "stats.json", note="of six images")
    second.load_statistics(tmp_path / "stats.json")
    for name in ("mean", "std"):
        assert_same(getattr(second, name), getattr(first, name))
    assert_same(next(second.flow(data, shuffle=False)), next(first.flow(data, shuffle=False)))
    assert json.loads((tmp_path / "stats.json").read_text())["note"] == "of six images"


def test_statistics_are_brought_to_the_rescale_of_the_one_that_loads(tmp_path: Path) -> None:
    """``gpuseq fit`` computes on 0 to 255, and most generators rescale."""
    plain, rescaled, loaded = fitted(), fitted(rescale=1 / 255), fitted(rescale=1 / 255)
    plain.fit(IMAGES)
    rescaled.fit(IMAGES)
    plain.save_statistics(tmp_path / "stats.json")
    loaded.load_statistics(tmp_path / "stats.json")
    for name in ("mean", "std"):
        np.testing.assert_allclose(getattr(loaded, name), getattr(rescaled, name), rtol=1e-5)


def test_a_generator_loads_what_it_asks_for(tmp_path: Path) -> None:
    fitted_one, centred = fitted(), generator(featurewise_center=True)
    fitted_one.fit(IMAGES)
    fitted_one.save_statistics(tmp_path / "both.json")
    centred.load_statistics(tmp_path / "both.json")
    assert_same(centred.mean, fitted_one.mean)
    assert centred.std is None
    centred.save_statistics(tmp_path / "mean.json")
    with refuses(ValueError, "mean.json", "mean and std", "save_statistics"):
        fitted().load_statistics(tmp_path / "mean.json")
    with refuses(ValueError, "featurewise_center=True"):
        generator().load_statistics(tmp_path / "both.json")


def test_files_that_hold_no_statistics(tmp_path: Path) -> None:
    for text in ("", "[1, 2]", '{"mean": "grey"}', '{"std": [1.0]}'):
        (tmp_path / "file.json").write_text(text)
        with refuses(ValueError, "file.json", "mean", "gpuseq fit"):
            fitted().load_statistics(tmp_path / "file.json")
    good = '{"mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 3.0], "rescale": 1.0}'
    (tmp_path / "file.json").write_text(good)
    kept = fitted()
    kept.load_statistics(tmp_path / "file.json")
    for old, new in (
        ('"rescale": 1.0', '"rescale": 0'),
        ('"rescale": 1.0', '"rescale": NaN'),
        ('"rescale": 1.0', '"rescale": "1"'),
        ('"rescale": 1.0', '"rescale": true'),
        ("[1.0, 2.0, 3.0]", "[1.0, NaN, 3.0]"),
        ("[1.0, 2.0, 3.0]", "[1.0, Infinity, 3.0]"),
        ("[1.0, 2.0, 3.0]", '["1", "2", "3"]'),
        ("[1.0, 2.0, 3.0]", "[]"),
        ("[1.0, 2.0, 3.0]", "[[1.0, 2.0, 3.0]]"),
        ("[1.0, 2.0, 3.0]", f"[1{400 * '0'}, 1, 1]"),
        ('"std": [1.0,', '"std": [-1.0,'),
        ('"std": [1.0,', '"std": ['),
    ):
        (tmp_path / "file.json").write_text(good.replace(old, new))
        with refuses(ValueError, "file.json", "mean and std", "gpuseq fit"):
            kept.load_statistics(tmp_path / "file.json")
        np.testing.assert_array_equal(np.ravel(kept.std), [1, 2, 3])
    with pytest.raises(FileNotFoundError, match="absent.json"):
        fitted().load_statistics(tmp_path / "absent.json")


def test_what_cannot_be_saved_leaves_no_file(tmp_path: Path) -> None:
    with refuses(ValueError, "fit"):
        fitted().save_statistics(tmp_path / "none.json")
    whitener = generator(featurewise_center=True, zca_whitening=True)
    whitener.fit(IMAGES)
    with refuses(ValueError, "numpy.save", "zca_whitening_matrix"):
        whitener.save_statistics(tmp_path / "none.json")
    per_pixel = generator(featurewise_center=True)
    per_pixel.mean = np.zeros((8, 8, 3))
    with refuses(ValueError, "numpy.save"):
        per_pixel.save_statistics(tmp_path / "none.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_one_number_per_row_or_column_is_none_per_channel(name: str, data_format: str) -> None:
    """Three rows, three columns and three channels: only the place of the axis says which of them is meant."""
    data = images((4, 3, 3, 3), "uint8")
    option = {"mean": "featurewise_center", "std": "featurewise_std_normalization"}[name]
    for shape in ((3, 1, 1), (1, 3, 1), (1, 1, 3), (3, 3, 3), (3,), (1,)):
        values = np.arange(1.0, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
        ours = generator(data_format=data_format)
        setattr(ours, option, True)
        setattr(ours, name, values)
        wanted = data - values if name == "mean" else data / (values + np.float32(1e-6))
        assert_same(np.asarray(next(ours.flow(data, shuffle=False))), wanted.astype(np.float32), atol=1e-4)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_statistics_follow_their_axis_to_another_order(data_format: str) -> None:
    values = np.array([5.0, 6.0, 7.0])
    shape = {"channels_last": (1, 1, 3), "channels_first": (3, 1, 1)}[data_format]
    other = {"channels_last": (3, 1, 1), "channels_first": (1, 1, 3)}[data_format]
    for fitting in (values.reshape(shape), np.float32(5)):
        found = per_channel_of(fitting, 3, data_format)
        assert found is not None
        np.testing.assert_array_equal(found, np.broadcast_to(np.ravel(fitting), 3))
    for wrong in (values.reshape(other), np.ones((1, 3, 1)), np.ones((3, 3, 3)), np.ones(2).reshape(1, 1, 2)):
        with pytest.raises(ValueError, match="is not one number for each of 3 channels"):
            per_channel_of(wrong, 3, data_format)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_mean_of_the_other_axis_order_says_so(data_format: str) -> None:
    shape = {"channels_last": (3, 1, 1), "channels_first": (1, 1, 3)}[data_format]
    data = IMAGES if data_format == "channels_last" else IMAGES.transpose(0, 3, 1, 2)
    ours = generator(featurewise_center=True, data_format=data_format)
    ours.mean = np.zeros(shape)
    with refuses(ValueError, "generator.mean", str(shape), str(data.shape[1:])):
        next(ours.flow(data))
