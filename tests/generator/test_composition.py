"""One class, over a frozen value that says what is done to a batch: made anew when an attribute changes."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.plan.columns import identity_params
from gpuseq.transforms import settings
from tests.cases import images
from tests.compare import assert_same
from tests.parity import quiet
from tests.tolerance import PIXELS

DATA = images((6, 8, 8, 3), "uint8")


def test_the_generator_is_one_class() -> None:
    assert [kind.__name__ for kind in gpuseq.ImageDataGenerator.__mro__] == ["ImageDataGenerator", "object"]


def own_classes(kind: type) -> list[str]:
    return [base.__name__ for base in kind.__mro__ if base.__module__.partition(".")[0] == "gpuseq"]


def test_iterators_have_few_bases() -> None:
    """Keras' own names, and no more."""
    assert own_classes(gpuseq.NumpyArrayIterator) == ["NumpyArrayIterator", "Iterator"]
    for kind in (gpuseq.DirectoryIterator, gpuseq.DataFrameIterator):
        assert own_classes(kind) == [kind.__name__, "BatchFromFilesMixin", "Iterator"]


@pytest.mark.keras
def test_iterators_for_keras_add_no_base() -> None:
    face = pytest.importorskip("gpuseq.keras")
    for name in ("NumpyArrayIterator", "DirectoryIterator", "DataFrameIterator"):
        plain = own_classes(getattr(gpuseq, name))
        assert own_classes(getattr(face, name)) == [name, *plain]


def changes() -> list[Any]:
    def in_place(name: str, index: int, value: float) -> Any:
        def change(generator: Any) -> None:
            getattr(generator, name)[index] = value

        return change

    return [
        pytest.param(lambda generator: setattr(generator, "rescale", 0.5), id="rescale is set"),
        pytest.param(lambda generator: setattr(generator, "mean", np.ones(3)), id="mean is set"),
        pytest.param(in_place("zoom_range", 0, 0.25), id="zoom_range in place"),
        pytest.param(in_place("width_shift_range", 1, 3), id="width_shift_range in place"),
        pytest.param(in_place("brightness_range", 1, 3.0), id="brightness_range in place"),
        pytest.param(in_place("std", 0, 9.0), id="std in place"),
    ]


@pytest.mark.parametrize("change", changes())
def test_what_is_done_is_a_value_that_changes_with_an_attribute(change: Any) -> None:
    with quiet():
        generator = gpuseq.ImageDataGenerator(
            featurewise_center=True,
            featurewise_std_normalization=True,
            zoom_range=[0.5, 1.5],
            width_shift_range=[1, 2],
            brightness_range=[0.5, 1.5],
            device="cpu",
        )
    generator.mean, generator.std = np.zeros(3), np.full(3, 2.0)
    before, ranges = generator._batch_transform, generator._transform_ranges
    assert generator._batch_transform is before
    assert generator._transform_ranges is ranges
    params = identity_params(len(DATA))
    wanted = before(DATA, params)
    change(generator)
    after = generator._batch_transform
    assert after is not before
    assert after is generator._batch_transform
    assert_same(before(DATA, params), wanted)  # the older value goes on doing what it did


def test_the_value_cannot_be_written_to() -> None:
    transform = gpuseq.ImageDataGenerator(device="cpu")._batch_transform
    for item, name in ((transform, "options"), (transform.options, "rescale"), (transform.normalisation, "mean")):
        with pytest.raises(FrozenInstanceError):
            setattr(item, name, None)


def test_copies_do_not_share_what_they_derive() -> None:
    generator = gpuseq.ImageDataGenerator(zoom_range=0.2, device="cpu")
    value = generator._batch_transform
    other = copy.copy(generator)
    other.rescale = 0.5
    assert generator._batch_transform is value
    assert value.options.rescale == 1.0
    assert other._batch_transform.options.rescale == 0.5


def test_an_attribute_set_while_another_thread_derives_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = gpuseq.ImageDataGenerator(zoom_range=0.2, device="cpu")
    derive = settings.ranges_of

    def interrupted(of: Any) -> Any:
        ranges = derive(of)
        monkeypatch.setattr(settings, "ranges_of", derive)
        generator.rotation_range = 40  # what another thread might do just now
        return ranges

    monkeypatch.setattr(settings, "ranges_of", interrupted)
    generator.rotation_range = 10
    assert generator._transform_ranges.rotation == 10
    assert generator._transform_ranges.rotation == 40


@pytest.mark.keras
@pytest.mark.parametrize(
    "parameters", [{"brightness": 0.4}, {"channel_shift_intensity": 60.0}, {"flip_vertical": True}]
)
def test_what_a_subclass_draws_is_done_whatever_the_ranges_are(parameters: dict[str, Any]) -> None:
    keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")

    def make(base: type, **arguments: Any) -> Any:
        class Own(base):  # type: ignore[misc]
            def get_random_transform(self, img_shape: tuple[int, ...], seed: int | None = None) -> dict[str, Any]:
                return super().get_random_transform(img_shape, seed) | parameters

        return Own(**arguments)

    theirs, ours = make(keras_image.ImageDataGenerator), make(gpuseq.ImageDataGenerator, device="cpu")
    wanted, got = (next(side.flow(DATA, seed=2)) for side in (theirs, ours))
    assert_same(np.asarray(got), wanted, atol=PIXELS)
    assert not np.array_equal(got, next(gpuseq.ImageDataGenerator(device="cpu").flow(DATA, seed=2)))


def test_a_subclass_has_a_constructor_of_its_own() -> None:
    class Halved(gpuseq.ImageDataGenerator):
        def __init__(self, strength: float, **arguments: Any) -> None:
            super().__init__(rotation_range=90 * strength, **arguments)
            self.strength = strength

    generator = Halved(0.5, device="cpu")
    plain = gpuseq.ImageDataGenerator(rotation_range=45, device="cpu")
    assert_same(next(generator.flow(DATA, seed=1)), next(plain.flow(DATA, seed=1)))
    assert copy.copy(generator).strength == 0.5
    assert repr(generator) == "Halved(rotation_range=45.0, device='cpu')"


@pytest.mark.parametrize("own", ["apply_transform", "standardize"])
def test_single_images_and_batches_go_through_what_is_overridden(own: str) -> None:
    class Marked(gpuseq.ImageDataGenerator):
        pass

    method = getattr(gpuseq.ImageDataGenerator, own)
    setattr(Marked, own, lambda self, x, *more: method(self, x, *more) * 0 + 7)
    generator = Marked(rotation_range=20, device="cpu")
    assert generator._is_customised
    assert_same(next(generator.flow(DATA)), np.full(DATA.shape, 7, np.float32))


@pytest.mark.parametrize("own", ["channels_last", "channels_first"])
def test_a_mean_per_pixel_goes_with_an_iterator_of_the_other_axis_order(own: str) -> None:
    """Keras' way with single images is taken then, and the batch comes out in the iterator's order all the same."""
    other = "channels_first" if own == "channels_last" else "channels_last"
    data = DATA if own == "channels_last" else DATA.transpose(0, 3, 1, 2)
    generator = gpuseq.ImageDataGenerator(featurewise_center=True, data_format=own, device="cpu")
    generator.mean = np.arange(np.prod(data.shape[1:]), dtype=np.float32).reshape(data.shape[1:])
    wanted = data.astype(np.float32) - generator.mean
    assert_same(next(generator.flow(data, shuffle=False)), wanted)
    axes = (0, 3, 1, 2) if other == "channels_first" else (0, 2, 3, 1)
    flow = gpuseq.NumpyArrayIterator(data.transpose(axes), None, generator, data_format=other)
    assert_same(next(flow), np.ascontiguousarray(wanted.transpose(axes)))
