"""`fit` in pieces: batches, folders, chunks and merges give the statistics of the whole."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuseq
from gpuseq.transforms import statistics as stats
from gpuseq.transforms.statistics import ChannelMoments
from tests.cases import images
from tests.compare import assert_same
from tests.parity import quiet


def generator(**arguments: Any) -> gpuseq.ImageDataGenerator:
    with quiet():
        return gpuseq.ImageDataGenerator(
            **{"featurewise_center": True, "featurewise_std_normalization": True} | arguments, device="cpu"
        )


def assert_same_statistics(got: Any, wanted: Any, rtol: float = 1e-6) -> None:
    for name in ("mean", "std"):
        assert getattr(got, name).dtype == getattr(wanted, name).dtype
        assert getattr(got, name).shape == getattr(wanted, name).shape
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=rtol, err_msg=name)


@given(
    cuts=st.lists(st.integers(0, 40), max_size=5),
    offset=st.sampled_from([0.0, 1e6]),
    axis=st.sampled_from([1, 3]),
)
@settings(max_examples=60)
def test_moments_of_parts_merge_into_those_of_the_whole(cuts: list[int], offset: float, axis: int) -> None:
    """The offset would drown a variance computed as E[x^2] - E[x]^2."""
    data = np.random.default_rng(5).normal(offset, 3.0, (40, 4, 5, 6))
    edges = [0, *sorted(cuts), 40]
    parts = [data[start:stop] for start, stop in itertools.pairwise(edges) if stop > start]
    merged = ChannelMoments.of(parts[0], axis)
    for part in parts[1:]:
        merged = merged.merge(ChannelMoments.of(part, axis))
    others = tuple(other for other in range(4) if other != axis)
    assert merged.count == data.size // data.shape[axis]
    np.testing.assert_allclose(merged.mean, data.mean(axis=others), rtol=1e-12)
    np.testing.assert_allclose(merged.std, data.std(axis=others), rtol=1e-9)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rescale", [None, 1 / 255])
def test_fit_batches_equals_fit(rescale: float | None, data_format: str) -> None:
    data = images((23, 6, 9, 3) if data_format == "channels_last" else (23, 3, 6, 9), "uint8")
    whole = generator(rescale=rescale, data_format=data_format)
    whole.fit(data)
    pieces = generator(rescale=rescale, data_format=data_format)
    pieces.fit_batches(data[start : start + 5] for start in range(0, 23, 5))
    assert_same_statistics(pieces, whole)


@pytest.mark.parametrize("chunk_values", [1, 500, 1 << 24])
def test_fit_does_not_depend_on_its_chunks(chunk_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images((7, 6, 9, 3), "uint8")
    arguments = {"rotation_range": 30, "zoom_range": 0.2, "horizontal_flip": True}
    whole = generator(**arguments)
    whole.fit(data, augment=True, rounds=3, seed=2)
    monkeypatch.setattr(stats, "CHUNK_VALUES", chunk_values)
    pieces = generator(**arguments)
    pieces.fit(data, augment=True, rounds=3, seed=2)
    assert_same_statistics(pieces, whole)


def test_statistics_of_large_numbers_are_exact() -> None:
    """float32 sums of many large values lose the spread; ours are taken in float64."""
    data = np.full((64, 32, 32, 1), 60_000, np.uint16)
    data[::2] += 2
    fitted = generator()
    fitted.fit(data)
    assert fitted.mean.item() == 60_001
    assert fitted.std.item() == pytest.approx(1.0, rel=1e-6)


def test_fit_directory_equals_fit_on_the_loaded_images(plain_tree: Path) -> None:
    arguments: dict[str, Any] = {"target_size": (12, 10), "interpolation": "bilinear"}
    fitted = generator(rescale=1 / 255)
    fitted.fit_directory(plain_tree, **arguments, batch_size=3, progress=False)
    flow = gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(
        plain_tree, **arguments, class_mode=None, batch_size=64, shuffle=False
    )
    whole = generator(rescale=1 / 255)
    whole.fit(next(flow))
    assert_same_statistics(fitted, whole)


def test_fit_directory_shows_its_progress(plain_tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    generator().fit_directory(plain_tree, (8, 8), progress=True)
    assert "img" in capfd.readouterr().err
    generator().fit_directory(plain_tree, (8, 8), progress=False)
    assert "img" not in capfd.readouterr().err


def test_fit_directory_skips_bad_files_if_asked(plain_tree: Path, tmp_path: Path) -> None:
    from tests.photos import write_broken

    (tmp_path / "left").symlink_to(plain_tree / "left", target_is_directory=True)
    write_broken(tmp_path / "right", "text")
    with pytest.raises(gpuseq.ImageFileError, match="broken_text"):
        generator().fit_directory(tmp_path, (8, 8), progress=False)
    fitted = generator()
    fitted.fit_directory(tmp_path, (8, 8), progress=False, on_error="skip")
    assert np.isfinite(fitted.mean).all()


def test_nothing_to_fit_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        generator().fit_batches([])
    with pytest.raises(ValueError, match="rounds"):
        generator().fit(images((3, 4, 4, 3), "uint8"), augment=True, rounds=0)


def test_whitening_in_batches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"zca_whitening.*fit\(x\)"):
        generator(zca_whitening=True).fit_batches([images((3, 4, 4, 3), "uint8")])


def test_whitening_that_cannot_fit_says_how_many_gigabytes_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "available_memory", lambda: 10_000_000)
    with pytest.raises(MemoryError, match=r"48 images of 1728 values needs about 0\.\d GB") as raised:
        generator(zca_whitening=True).fit(images((48, 24, 24, 3), "uint8"))
    assert "0.0 GB are free" in str(raised.value)


def test_whitened_images_have_no_correlations() -> None:
    """What ZCA is for, whoever computes it: the covariance of the fitted data becomes the identity."""
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(16, 16))
    data = (rng.normal(size=(4000, 16)) @ mix).reshape(4000, 4, 4, 1).astype(np.float32)
    whitener = generator(zca_whitening=True, featurewise_std_normalization=False)
    whitener.fit(data)
    white = np.asarray(next(whitener.flow(data, batch_size=4000, shuffle=False))).reshape(4000, 16)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(16), atol=2e-3)


def test_a_fitted_generator_may_be_refitted_and_flows_see_it() -> None:
    data = images((6, 5, 5, 3), "uint8")
    fitted = generator(featurewise_std_normalization=False)
    fitted.fit(data)
    flow = fitted.flow(data, shuffle=False)
    assert_same(np.asarray(next(flow)) + fitted.mean, data.astype(np.float32), atol=1e-4)
    earlier = fitted.mean
    fitted.fit(data // 2)
    assert abs(earlier - fitted.mean).min() > 20
    assert_same(np.asarray(next(flow)) + fitted.mean, data.astype(np.float32), atol=1e-4)
