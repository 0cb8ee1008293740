"""`get_random_transform`, `apply_transform`, `random_transform`, `standardize` and `fit` equal Keras'."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.cases import images
from tests.compare import assert_same
from tests.parity import Streams, darken, quiet, sample_generator
from tests.tolerance import NORMALISED, PIXELS, unit_of

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = [pytest.mark.keras, pytest.mark.each_cpu_engine]

FIELDS = {
    "theta",
    "tx",
    "ty",
    "shear",
    "zx",
    "zy",
    "flip_horizontal",
    "flip_vertical",
    "channel_shift_intensity",
    "brightness",
}


def pair(**arguments: Any) -> tuple[Any, Any]:
    """Return Keras' generator and ours, of the same arguments."""
    with quiet():
        return keras_image.ImageDataGenerator(**arguments), gpuseq.ImageDataGenerator(**arguments, device="cpu")


def assert_same_parameters(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare two dictionaries of parameters: a shift may be one rounding away (the order of one multiplication)."""
    assert set(got) == set(wanted) == FIELDS
    for name, value in wanted.items():
        if value is None:
            assert got[name] is None, name
        elif name.startswith("flip"):
            assert bool(got[name]) == bool(value), name
        else:
            assert got[name] is not None, name
            assert abs(got[name] - value) <= np.spacing(abs(float(value))), f"{name}: {got[name]!r} is not {value!r}"


@pytest.mark.parametrize("number", range(40))
def test_get_random_transform(number: int) -> None:
    rng = random.Random(f"transforms-{number}")
    data_format = rng.choice(("channels_last", "channels_first"))
    arguments, _ = sample_generator(rng, channels=3, dtype="float32", data_format=data_format)
    theirs, ours = pair(**arguments)
    shape = (11, 17, 3) if data_format == "channels_last" else (3, 11, 17)
    streams = Streams(number)
    for seed in (number, None, 12, None, None):
        before = streams.position("ours")
        wanted = streams.run("keras", lambda seed=seed: theirs.get_random_transform(shape, seed))
        got = streams.run("ours", lambda seed=seed: ours.get_random_transform(shape, seed))
        assert_same_parameters(got, wanted)
        if seed is not None:
            assert streams.position("ours") == before, "the global stream moved although a seed was given"
            streams = Streams(number + 1)
        else:
            assert streams.position("ours") == streams.position("keras")


@pytest.mark.parametrize(
    "shift",
    [0.0, 0, 0.3, 1.0, 2.5, 1, 4, -0.2, [0.1, 0.2], (0.1,), [1, -2], [0], (0.5, 3)],
    ids=str,
)
@pytest.mark.parametrize("name", ["width_shift_range", "height_shift_range"])
def test_every_form_of_a_shift_range(name: str, shift: Any) -> None:
    theirs, ours = pair(**{name: shift})
    streams = Streams(5)
    for _ in range(6):
        wanted = streams.run("keras", lambda: theirs.get_random_transform((11, 17, 3)))
        got = streams.run("ours", lambda: ours.get_random_transform((11, 17, 3)))
        assert_same_parameters(got, wanted)
        assert streams.position("ours") == streams.position("keras")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"theta": 40},
        {"tx": 2, "ty": -3.5},
        {"shear": 10.0},
        {"zx": 0.5},
        {"flip_horizontal": True},
        {"flip_vertical": 1},
        {"flip_horizontal": True, "flip_vertical": True, "theta": 90},
        {"channel_shift_intensity": 30.0},
        {"channel_shift_intensity": None, "brightness": None},
        {"brightness": 0.4},
        {"theta": 12.0, "brightness": 1.4, "channel_shift_intensity": -9.0, "unknown": 3},
    ],
    ids=lambda parameters: "_".join(parameters) or "none",
)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64"])
def test_apply_transform_takes_partial_dictionaries(parameters: dict[str, Any], dtype: str) -> None:
    theirs, ours = pair()
    single = images((12, 9, 3), dtype)
    untouched = single.copy()
    wanted = theirs.apply_transform(single, parameters)
    with quiet():
        got = ours.apply_transform(single, parameters)
    assert_same(np.asarray(got), np.asarray(wanted), atol=0.0 if wanted.dtype.kind == "u" else PIXELS)
    assert_same(single, untouched)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("seed", [0, 7, None])
def test_random_transform(seed: int | None, data_format: str) -> None:
    theirs, ours = pair(
        rotation_range=30,
        width_shift_range=0.2,
        height_shift_range=0.1,
        shear_range=10,
        zoom_range=0.3,
        channel_shift_range=20.0,
        horizontal_flip=True,
        vertical_flip=True,
        data_format=data_format,
    )
    single = images((12, 9, 3) if data_format == "channels_last" else (3, 12, 9), "float32")
    streams = Streams(3)
    with quiet():
        wanted = streams.run("keras", lambda: theirs.random_transform(single, seed))
        got = streams.run("ours", lambda: ours.random_transform(single, seed))
    assert_same(np.asarray(got), wanted, atol=PIXELS * unit_of(wanted))


@pytest.mark.parametrize("shape", [(12, 9, 3), (4, 12, 9, 3)], ids=["image", "batch"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rescale": 1 / 255},
        {"rescale": -1 / 255},
        {"samplewise_center": True},
        {"samplewise_center": True, "samplewise_std_normalization": True},
        {"preprocessing_function": darken, "rescale": 2},
        {"featurewise_center": True},
        {"featurewise_center": True, "featurewise_std_normalization": True, "rescale": 1 / 255},
        {"zca_whitening": True, "featurewise_center": True},
    ],
    ids=lambda arguments: "_".join(arguments) or "nothing",
)
def test_standardize(arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    if arguments.get("zca_whitening"):
        shape = (*shape[:-3], 4, 3, 1)
    theirs, ours = pair(**arguments)
    sample_data = images((60, *shape[-3:]), "float32", seed=4)
    with quiet():
        theirs.fit(sample_data)
        ours.fit(sample_data)
    given = images(shape, "float32", seed=9)
    mine, reference = given.copy(), given.copy()
    wanted = theirs.standardize(reference)
    got = ours.standardize(mine)
    assert_same(np.asarray(got), wanted, atol=NORMALISED * unit_of(wanted))
    # Keras documents that the input is changed in place.
    assert_same(mine, reference, atol=NORMALISED * unit_of(reference), message="the input, afterwards")


@pytest.mark.parametrize("name", ["featurewise_center", "featurewise_std_normalization", "zca_whitening"])
def test_standardize_without_fit_warns(name: str) -> None:
    with quiet():
        ours = gpuseq.ImageDataGenerator(**{name: True}, device="cpu")
    with pytest.warns(UserWarning, match=r"(?s)hasn't.*been fit"):
        got = ours.standardize(np.ones((4, 4, 1), np.float32))
    assert_same(np.asarray(got), np.ones((4, 4, 1), np.float32))


@pytest.mark.parametrize("number", range(24))
def test_fit(number: int) -> None:
    rng = random.Random(f"fit-{number}")
    data_format = rng.choice(("channels_last", "channels_first"))
    whiten = number % 4 == 0
    channels = rng.choice((1, 2)) if whiten else rng.choice((1, 3, 5))
    augmented, _ = sample_generator(rng, channels=channels, dtype="float32", data_format=data_format)
    for name in ("samplewise_center", "samplewise_std_normalization"):
        augmented.pop(name, None)
    augmented["dtype"] = rng.choice(("float32", "float32", "float64"))
    augmented |= {
        "featurewise_center": True,
        "featurewise_std_normalization": rng.random() < 0.6 and not whiten,
        "zca_whitening": whiten,
    }
    theirs, ours = pair(**augmented)
    height, width = (4, 3) if whiten else (9, 14)
    shape = (12 * channels * 8 if whiten else 11, height, width, channels)
    data = images(shape, rng.choice(("uint8", "float32", "float64")), seed=number)
    if data_format == "channels_first":
        data = data.transpose(0, 3, 1, 2)
    untouched = data.copy()
    arguments = {"augment": rng.random() < 0.6, "rounds": rng.choice((1, 2, 3)), "seed": rng.choice((None, 4))}
    streams = Streams(number)
    before = streams.position("ours")
    with quiet():
        streams.run("keras", lambda: theirs.fit(data, **arguments))
        streams.run("ours", lambda: ours.fit(data, **arguments))
    assert_same(data, untouched)
    if arguments["seed"] is not None:
        assert streams.position("ours") == before, "the global stream moved although a seed was given"
    else:
        assert streams.position("ours") == streams.position("keras")
    for name in ("mean", "std"):
        wanted, got = getattr(theirs, name), getattr(ours, name)
        if wanted is None:
            assert got is None, name
        else:
            assert np.asarray(got).shape == wanted.shape, name
            np.testing.assert_allclose(np.asarray(got), wanted, rtol=2e-5, atol=2e-5 * unit_of(data), err_msg=name)
    if whiten:
        wanted = theirs.zca_whitening_matrix
        assert ours.zca_whitening_matrix.shape == wanted.shape
        np.testing.assert_allclose(ours.zca_whitening_matrix, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
    else:
        assert ours.zca_whitening_matrix is None


def test_fit_forgets_nothing_between_calls() -> None:
    theirs, ours = pair(featurewise_center=True)
    for seed in (1, 2):
        data = images((5, 6, 6, 3), "uint8", seed=seed)
        theirs.fit(data)
        ours.fit(data)
    np.testing.assert_allclose(np.asarray(ours.mean), theirs.mean, rtol=1e-6)


def test_fit_wants_rank_four() -> None:
    with pytest.raises(ValueError, match="rank 4"):
        gpuseq.ImageDataGenerator(featurewise_center=True, device="cpu").fit(np.zeros((4, 4, 3)))


def test_fit_warns_about_an_odd_number_of_channels() -> None:
    generator = gpuseq.ImageDataGenerator(featurewise_center=True, device="cpu")
    with pytest.warns(UserWarning, match="5 channels"):
        generator.fit(np.ones((3, 4, 4, 5)))


def test_statistics_may_be_set_by_hand() -> None:
    theirs, ours = pair(featurewise_center=True, featurewise_std_normalization=True)
    data = images((4, 8, 8, 3), "uint8")
    for generator in (theirs, ours):
        generator.mean = np.array([[[10.0, 20.0, 30.0]]], np.float32)
        generator.std = np.array([[[50.0, 60.0, 70.0]]], np.float32)
    wanted = next(theirs.flow(data, seed=1))
    assert_same(np.asarray(next(ours.flow(data, seed=1))), wanted, atol=NORMALISED * unit_of(wanted))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_brightness_works_on_channels_first(channels: int) -> None:
    """Keras ignores `data_format` there and fails; ours is what channels_last gives, transposed."""
    arguments: dict[str, Any] = {"brightness_range": (0.3, 1.7), "rotation_range": 20, "horizontal_flip": True}
    data = images((6, 12, 12, channels), "uint8")
    last = keras_image.ImageDataGenerator(**arguments).flow(data, seed=8, batch_size=6)
    first = gpuseq.ImageDataGenerator(**arguments, data_format="channels_first", device="cpu").flow(
        data.transpose(0, 3, 1, 2), seed=8, batch_size=6
    )
    assert_same(np.asarray(next(first)).transpose(0, 2, 3, 1), next(last), atol=PIXELS)
