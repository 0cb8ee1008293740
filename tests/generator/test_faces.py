"""The package's faces: names of `keras.preprocessing.image` in one module, and public names that say `gpuseq`."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq import image
from tests.cases import images
from tests.compare import assert_same

DATA = images((6, 8, 8, 3), "uint8")


def test_image_is_there_without_an_import_of_its_own() -> None:
    assert gpuseq.image is image


@pytest.mark.keras
def test_image_has_the_names_of_keras_preprocessing_image() -> None:
    legacy = pytest.importorskip("keras.src.legacy.preprocessing.image")
    utils = pytest.importorskip("keras.src.utils.image_utils")
    own = {
        name
        for module in (legacy, utils)
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    }
    assert {"ImageDataGenerator", "load_img", "random_shift"} <= own
    assert own - set(image.__all__) == {"smart_resize"}


@pytest.mark.parametrize("name", image.__all__)
def test_names_in_image_are_the_packages_own(name: str) -> None:
    assert getattr(image, name) is getattr(gpuseq, name)


def test_the_old_habit_works(tmp_path: Path) -> None:
    Image.fromarray(DATA[0]).save(tmp_path / "one.png")
    x = image.img_to_array(image.load_img(tmp_path / "one.png"))
    generator = image.ImageDataGenerator(rescale=0.5, device="cpu")
    assert_same(next(generator.flow(x[None])), DATA[:1].astype(np.float32) / 2)


@pytest.mark.parametrize("name", gpuseq.__all__)
def test_public_names_say_gpuseq(name: str) -> None:
    assert getattr(gpuseq, name).__module__ == "gpuseq"
    assert pickle.loads(pickle.dumps(getattr(gpuseq, name))) is getattr(gpuseq, name)


@pytest.mark.keras
def test_public_names_for_keras_say_gpuseq_keras() -> None:
    face = pytest.importorskip("gpuseq.keras")
    assert {getattr(face, name).__module__ for name in face.__all__} == {"gpuseq", "gpuseq.keras"}
    assert face.NumpyArrayIterator.__module__ == face.SaveState.__module__ == "gpuseq.keras"


def test_texts_print_what_users_import() -> None:
    flow = gpuseq.ImageDataGenerator(device="cpu").flow(DATA)
    assert repr(flow).startswith("<gpuseq.NumpyArrayIterator of 6 samples")
    assert str(gpuseq.ImageDataGenerator) == "<class 'gpuseq.ImageDataGenerator'>"
    with pytest.raises(TypeError, match=r"gpuseq\.ImageDataGenerator"):
        gpuseq.to_device(gpuseq.ImageDataGenerator(device="cpu"))


def modules_in(pickled: bytes) -> set[str]:
    """Return the modules of this package that a pickle imports."""
    strings = (argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str))
    return {text.split(" ")[0] for text in strings if text.partition(".")[0].split(" ")[0] == "gpuseq"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "arguments",
    [
        {"rotation_range": 30, "zoom_range": (0.5, 2), "width_shift_range": [1, 2], "conventions": "corrected"},
        {"featurewise_center": True, "preprocessing_function": "caffe", "horizontal_flip": True},
        {"augmentations": ["trivial", gpuseq.RandomErasing(0.5)]},
    ],
    ids=["ranges", "fitted", "augmentations"],
)
def test_a_pickled_generator_holds_public_names_alone(arguments: dict[str, Any], protocol: int) -> None:
    generator = gpuseq.ImageDataGenerator(**arguments, device="cpu")
    generator.fit(DATA)
    wanted = next(generator.flow(DATA, seed=1))  # and what was derived for it is not pickled
    pickled = pickle.dumps(generator, protocol)
    assert modules_in(pickled) == {"gpuseq"}
    assert_same(next(pickle.loads(pickled).flow(DATA, seed=1)), wanted)
