"""The generator as an object: live attributes, subclasses written for Keras, named preprocessing, copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.cases import images
from tests.compare import assert_same
from tests.parity import quiet
from tests.tolerance import PIXELS, unit_of

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = pytest.mark.keras

DATA = images((8, 12, 12, 3), "uint8")


def pair(**arguments: Any) -> tuple[Any, Any]:
    with quiet():
        return keras_image.ImageDataGenerator(**arguments), gpuseq.ImageDataGenerator(**arguments, device="cpu")


def test_attributes_are_keras_attributes() -> None:
    for arguments in (
        {},
        {"rotation_range": 3, "zoom_range": 0.2, "brightness_range": [1, 2], "data_format": "channels_first"},
        {"zca_whitening": True, "featurewise_std_normalization": True, "validation_split": 0.3, "cval": 4.0},
        {"samplewise_std_normalization": True, "width_shift_range": [1, 2], "dtype": "float64", "rescale": 2},
    ):
        theirs, ours = pair(**arguments)
        for name, value in vars(theirs).items():
            assert getattr(ours, name) == value, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotation_range", 90),
        ("zoom_range", [0.5, 0.9]),
        ("width_shift_range", [1, 2]),
        ("horizontal_flip", True),
        ("fill_mode", "reflect"),
        ("rescale", 0.5),
        ("interpolation_order", 0),
        ("samplewise_center", True),
        ("brightness_range", (0.3, 0.6)),
        ("channel_shift_range", 50.0),
        ("preprocessing_function", lambda image: image / 2),
    ],
)
def test_attributes_set_later_count_from_the_next_batch(name: str, value: Any) -> None:
    theirs, ours = pair(rotation_range=10)
    flows = [side.flow(DATA, seed=2, batch_size=4) for side in (theirs, ours)]
    assert_same(np.asarray(next(flows[1])), next(flows[0]), atol=PIXELS)
    setattr(theirs, name, value)
    setattr(ours, name, value)
    with quiet():
        wanted, got = next(flows[0]), np.asarray(next(flows[1]))
    assert_same(got, wanted, atol=PIXELS * max(1.0, unit_of(wanted)))


@pytest.mark.parametrize(
    ("cause", "changed"),
    [
        ("zca_whitening", "featurewise_center"),
        ("featurewise_std_normalization", "featurewise_center"),
        ("samplewise_std_normalization", "samplewise_center"),
    ],
)
def test_an_option_that_needs_another_sets_it_with_keras_warning(cause: str, changed: str) -> None:
    with pytest.warns(UserWarning, match=f"{cause}.*overrides.*{changed}"):
        ours = gpuseq.ImageDataGenerator(**{cause: True}, device="cpu")
    assert getattr(ours, changed) is True
    gpuseq.ImageDataGenerator(**{cause: True, changed: True}, device="cpu")  # silent: warnings are errors here


def test_whitening_switches_division_off_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"zca_whitening.*overrides.*featurewise_std_normalization"):
        ours = gpuseq.ImageDataGenerator(
            zca_whitening=True, featurewise_center=True, featurewise_std_normalization=True, device="cpu"
        )
    assert ours.featurewise_std_normalization is False


def test_subclasses_with_their_own_transform_or_normalisation_are_asked() -> None:
    """Keras' iterators call both for each image, so users override them."""

    def make(base: type) -> Any:
        class Custom(base):  # type: ignore[misc]
            def apply_transform(self, x: np.ndarray, transform_parameters: dict[str, Any]) -> np.ndarray:
                return super().apply_transform(x, {**transform_parameters, "theta": 10.0})[::-1]

            def standardize(self, x: np.ndarray) -> np.ndarray:
                return super().standardize(x) - 3.0

        return Custom

    theirs = make(keras_image.ImageDataGenerator)(zoom_range=0.3, rescale=0.5)
    ours = make(gpuseq.ImageDataGenerator)(zoom_range=0.3, rescale=0.5, device="cpu")
    wanted, got = (next(side.flow(DATA, seed=2)) for side in (theirs, ours))
    assert_same(np.asarray(got), wanted, atol=PIXELS)


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_named_preprocessing_is_keras_imagenet_utils(mode: str, data_format: str) -> None:
    utils = pytest.importorskip("keras.src.applications.imagenet_utils")
    data = DATA if data_format == "channels_last" else DATA.transpose(0, 3, 1, 2)

    def function(image: np.ndarray) -> np.ndarray:
        return utils.preprocess_input(image, data_format=data_format, mode=mode)

    arguments: dict[str, Any] = {"horizontal_flip": True, "data_format": data_format}
    theirs = keras_image.ImageDataGenerator(**arguments, preprocessing_function=function)
    ours = gpuseq.ImageDataGenerator(**arguments, preprocessing_function=mode, device="cpu")
    wanted, got = (next(side.flow(data, seed=2)) for side in (theirs, ours))
    assert_same(np.asarray(got), wanted, atol=PIXELS * unit_of(wanted))
    single = data[0].astype(np.float32)
    assert_same(np.asarray(ours.standardize(single.copy())), theirs.standardize(single.copy()), atol=PIXELS)


def test_a_batched_preprocessing_function_sees_whole_batches() -> None:
    shapes = []

    def function(batch: np.ndarray) -> np.ndarray:
        shapes.append(batch.shape)
        return batch + 1

    function.batched = True  # type: ignore[attr-defined]
    got = next(gpuseq.ImageDataGenerator(preprocessing_function=function, device="cpu").flow(DATA, shuffle=False))
    assert shapes == [DATA.shape]
    assert_same(np.asarray(got), DATA.astype(np.float32) + 1)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
def test_copies_work_alike_and_apart(clone: Any) -> None:
    original = gpuseq.ImageDataGenerator(rotation_range=30, featurewise_center=True, device="cpu")
    original.fit(DATA)
    other = clone(original)
    wanted = np.asarray(next(original.flow(DATA, seed=1)))
    assert_same(np.asarray(next(other.flow(DATA, seed=1))), wanted)
    other.rotation_range = 0
    assert_same(np.asarray(next(original.flow(DATA, seed=1))), wanted)


def test_its_repr_says_what_was_asked_for() -> None:
    text = repr(gpuseq.ImageDataGenerator(rotation_range=30, fill_mode="wrap", device="cpu"))
    assert text == "ImageDataGenerator(rotation_range=30, fill_mode='wrap', device='cpu')"
