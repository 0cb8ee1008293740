"""The generator as an object: live attributes, subclasses written for Keras, named preprocessing, copies."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from tests.cases import images
from tests.compare import assert_same
from tests.parity import Streams, assert_same_walk, quiet
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


def set_items(items: Any, *values: float) -> None:
    items[:] = values


CHANGED_IN_PLACE = {
    "mean": lambda generator: generator.mean.__setitem__(slice(None), 50),
    "one channel's mean": lambda generator: generator.mean.__setitem__((0, 0, 1), -9),
    "std": lambda generator: generator.std.__imul__(3),
    "zoom_range": lambda generator: set_items(generator.zoom_range, 0.5, 0.6),
    "brightness_range": lambda generator: set_items(generator.brightness_range, 0.3, 0.4),
    "width_shift_range": lambda generator: generator.width_shift_range.append(5),
    "height_shift_range": lambda generator: set_items(generator.height_shift_range, 0.5, 0.4),
}


@pytest.mark.parametrize("what", CHANGED_IN_PLACE)
@pytest.mark.parametrize("per_pixel", [False, True])
def test_what_is_changed_in_place_counts_from_the_next_batch(what: str, per_pixel: bool) -> None:
    """Keras reads its attributes at every batch; after the first one nothing may be remembered of them."""
    arguments = {
        "featurewise_center": True,
        "featurewise_std_normalization": True,
        "zoom_range": 0.1,
        "brightness_range": [0.9, 1.1],
        "width_shift_range": [1, 2],
        "height_shift_range": [0.1, 0.2],
    }
    sides = pair(**arguments)[0], pair(**copy.deepcopy(arguments))[1]  # both keep the lists that they are given
    batches = []
    for side in sides:
        side.mean = np.full((12, 12, 3) if per_pixel else (1, 1, 3), 100.0, np.float32)
        side.std = np.full((1, 1, 3), 20.0, np.float32)
        with quiet():
            flow = side.flow(DATA, seed=2, batch_size=4, shuffle=False)
            first = np.asarray(next(flow))
            CHANGED_IN_PLACE[what](side)
            batches.append((first, np.asarray(next(flow))))
    (theirs, theirs_after), (ours, ours_after) = batches
    assert_same(ours, theirs, atol=PIXELS)
    assert_same(ours_after, theirs_after, atol=PIXELS)


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


@pytest.mark.parametrize(
    "overridden", [("apply_transform",), ("standardize",), ("apply_transform", "standardize")], ids="-".join
)
def test_subclasses_with_their_own_transform_or_normalisation_are_asked(overridden: tuple[str, ...]) -> None:
    """Keras' iterators call both for each image, so users override them."""

    def make(base: type) -> Any:
        def apply_transform(self: Any, x: np.ndarray, transform_parameters: dict[str, Any]) -> np.ndarray:
            return base.apply_transform(self, x, {**transform_parameters, "theta": 10.0})[::-1]

        def standardize(self: Any, x: np.ndarray) -> np.ndarray:
            return base.standardize(self, x) - 3.0

        methods = {"apply_transform": apply_transform, "standardize": standardize}
        return type("Custom", (base,), {name: methods[name] for name in overridden})

    theirs = make(keras_image.ImageDataGenerator)(zoom_range=0.3, rescale=0.5)
    ours = make(gpuseq.ImageDataGenerator)(zoom_range=0.3, rescale=0.5, device="cpu")
    wanted, got = (next(side.flow(DATA, seed=2)) for side in (theirs, ours))
    assert_same(np.asarray(got), wanted, atol=PIXELS)


def quarter_turns(base: type) -> Any:
    """Return a generator class with random parameters of its own, drawn as Keras users draw: from ``numpy.random``."""

    class QuarterTurns(base):  # type: ignore[misc]
        def get_random_transform(self, img_shape: tuple[int, ...], seed: int | None = None) -> dict[str, Any]:
            parameters = super().get_random_transform(img_shape, seed)
            parameters["theta"] = 90 * np.random.randint(4) + img_shape[0]
            return parameters

    return QuarterTurns


@pytest.mark.parametrize("seed", [6, None])
@pytest.mark.parametrize("kind", ["arrays", "folders"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_subclasses_that_draw_their_own_parameters_are_asked(
    data_format: str, kind: str, seed: int | None, plain_tree: Path
) -> None:
    arguments: dict[str, Any] = {"zoom_range": 0.2, "horizontal_flip": True, "data_format": data_format}
    theirs = quarter_turns(keras_image.ImageDataGenerator)(**arguments)
    ours = quarter_turns(gpuseq.ImageDataGenerator)(**arguments, device="cpu")
    walk = [("next", 0)] * 4 + [("getitem", 1), ("on_epoch_end", 0), ("getitem", 0), ("next", 0)]
    with quiet():
        if kind == "arrays":
            data = DATA if data_format == "channels_last" else DATA.transpose(0, 3, 1, 2)
            flows = [side.flow(data, batch_size=3, seed=seed) for side in (theirs, ours)]
        else:
            flows = [
                side.flow_from_directory(str(plain_tree), target_size=(12, 12), batch_size=3, seed=seed)
                for side in (theirs, ours)
            ]
        assert_same_walk(*flows, walk, Streams(4), lambda expected: PIXELS)
    flows[1].close()


def test_own_parameters_are_fitted_on_planned_and_resumed() -> None:
    theirs = quarter_turns(keras_image.ImageDataGenerator)(featurewise_center=True, vertical_flip=True)
    ours = quarter_turns(gpuseq.ImageDataGenerator)(featurewise_center=True, vertical_flip=True, device="cpu")
    for side in (theirs, ours):
        side.fit(DATA, augment=True, rounds=2, seed=5)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-5)
    flow = ours.flow(DATA, batch_size=3, seed=1)
    plan = flow.plan_batch()
    assert {round(theta - 12) % 90 for theta in plan.params["theta"]} == {0}
    for _ in range(4):
        next(flow)
    flow.on_epoch_end()
    again = ours.flow(DATA, batch_size=3, seed=1)
    again.load_state_dict(flow.state_dict())
    for index in (1, 0, 2):
        assert_same(np.asarray(again[index]), np.asarray(flow[index]))


def test_own_parameters_that_nothing_knows_are_named() -> None:
    class Odd(gpuseq.ImageDataGenerator):
        def get_random_transform(self, img_shape: tuple[int, ...], seed: int | None = None) -> dict[str, Any]:
            return {"theta": 3.0, "hue": 0.5}

    with pytest.raises(ValueError, match=r"'hue'.*theta, tx, ty"):
        next(Odd(device="cpu").flow(DATA))
    with pytest.raises(ValueError, match=r"keyed.*Odd.*get_random_transform"):
        Odd(device="cpu", rng="keyed").flow(DATA)


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


def test_a_batched_preprocessing_function_broadcasts_as_a_single_one_does() -> None:
    def grey(images: np.ndarray) -> np.ndarray:
        return images.mean(-1, keepdims=True)

    data = images((4, 8, 8, 3), "uint8")
    single = gpuseq.ImageDataGenerator(preprocessing_function=grey, device="cpu")
    wanted = next(single.flow(data, shuffle=False))
    grey.batched = True  # type: ignore[attr-defined]
    assert_same(next(single.flow(data, shuffle=False)), wanted)
    assert wanted.shape == data.shape


def test_no_images_at_all_are_no_batch() -> None:
    generator = gpuseq.ImageDataGenerator(rescale=1 / 255, device="cpu")
    assert len(generator.flow(np.zeros((0, 8, 8, 3), np.float32))) == 0


@pytest.mark.parametrize("how", ["next(it)", "it.next()"])
def test_what_walks_for_ever_in_keras_2_is_said_for_folders_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    monkeypatch.setitem(sys.modules, "tf_keras", ModuleType("tf_keras"))  # it is loaded, where it asks for batches
    (tmp_path / "one").mkdir()
    Image.fromarray(images((8, 8, 3), "uint8")).save(tmp_path / "one" / "1.png")
    generator = gpuseq.ImageDataGenerator(device="cpu")
    folder = generator.flow_from_directory(tmp_path, target_size=(8, 8), verbose=False, prefetch=0)
    namespace: dict[str, Any] = {"__name__": "tf_keras.src.engine.data_adapter"}
    exec(f"def step(it): return {how}", namespace)
    for iterator in (generator.flow(images((2, 8, 8, 3), "uint8")), folder):
        with pytest.warns(UserWarning, match="end"):
            namespace["step"](iterator)
    folder.close()


def test_a_preprocessing_function_sees_single_images_unless_it_says_otherwise() -> None:
    seen = []

    def function(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        return image - image.min()

    got = next(gpuseq.ImageDataGenerator(preprocessing_function=function, device="cpu").flow(DATA, shuffle=False))
    assert seen == [DATA.shape[1:]] * len(DATA)
    assert_same(np.asarray(got), (DATA - DATA.min(axis=(1, 2, 3), keepdims=True)).astype(np.float32))


@pytest.mark.parametrize("option", ["zca_whitening", "featurewise_center", "featurewise_std_normalization"])
def test_what_is_switched_off_after_fit_is_not_done(option: str) -> None:
    theirs, ours = pair(**{option: True})
    for switch in (True, False, True):
        made = []
        for side in (theirs, ours):
            side.fit(DATA)
            flow = side.flow(DATA, shuffle=False)
            setattr(side, option, switch)
            with quiet():
                made.append(np.asarray(next(flow)))
        assert_same(made[1], made[0], atol=1e-3)
        is_touched = option == "zca_whitening" and np.abs(made[1] - (DATA - ours.mean)).max() > 1
        assert is_touched == (option == "zca_whitening" and switch)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize(
    "arguments",
    [
        {"channel_shift_range": 20.0},
        {"brightness_range": (0.5, 1.5)},
        {"channel_shift_range": 20.0, "brightness_range": (0.5, 1.5)},
        {"samplewise_center": True},
    ],
    ids=str,
)
def test_an_infinite_pixel_does_what_it_does_in_keras(arguments: dict[str, Any], value: float) -> None:
    """Brightness scales by the least and the greatest value of the picture, so that all of it becomes NaN."""
    data = DATA.astype(np.float32)
    data[1, 2, 3, 0] = value
    wanted, got = (np.asarray(next(side.flow(data, shuffle=False, seed=3))) for side in pair(**arguments))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    if "brightness_range" in arguments:
        assert np.isnan(got).all(axis=(1, 2, 3)).tolist() == [index == 1 for index in range(len(data))]
    np.testing.assert_allclose(got, wanted, atol=1e-3)
