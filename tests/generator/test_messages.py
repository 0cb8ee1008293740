"""What a newcomer misspells: the message names the public function and the nearest right word, and comes at once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base import arguments
from tests.cases import images
from tests.generator.test_bad_arguments import frame, generator, refuses

IMAGES = images((6, 8, 8, 3), "uint8")


# Misspelt names.


MISSPELT: list[tuple[str, Callable[..., Any], dict[str, Any], tuple[str, ...]]] = [
    ("ImageDataGenerator", gpuseq.ImageDataGenerator, {"rotation_rnage": 20}, ("'rotation_range'",)),
    ("ImageDataGenerator", gpuseq.ImageDataGenerator, {"flip": 1}, ("'horizontal_flip' or 'vertical_flip'",)),
    ("ImageDataGenerator", gpuseq.ImageDataGenerator, {"target_size": 1}, ("flow_from_directory()", "belongs to")),
    ("ImageDataGenerator", gpuseq.ImageDataGenerator, {"xyz": 1, "zom_range": 1}, ("'xyz'", "'zoom_range'")),
    ("ImageDataGenerator.flow", lambda **k: generator().flow(IMAGES, **k), {"batchsize": 2}, ("'batch_size'",)),
    (
        "ImageDataGenerator.flow_from_directory",
        lambda **k: generator().flow_from_directory("absent", **k),
        {"targt_size": (8, 8)},
        ("did you mean 'target_size'?",),
    ),
    (
        "ImageDataGenerator.flow_from_directory",
        lambda **k: generator().flow_from_directory("absent", **k),
        {"rescale": 1 / 255},
        ("belongs to ImageDataGenerator()",),
    ),
    (
        "ImageDataGenerator.flow_from_dataframe",
        lambda **k: generator().flow_from_dataframe(None, **k),
        {"keep_aspect": True},
        ("'keep_aspect_ratio'",),
    ),
    ("ImageDataGenerator.fit", lambda **k: generator().fit(IMAGES, **k), {"augument": True}, ("'augment'",)),
    (
        "ImageDataGenerator.fit_directory",
        lambda **k: generator().fit_directory("absent", **k),
        {"num_thread": 1},
        ("'num_threads'",),
    ),
    ("NumpyArrayIterator", gpuseq.NumpyArrayIterator, {"remaindr": "pad"}, ("'remainder'",)),
    ("DirectoryIterator", gpuseq.DirectoryIterator, {"shards": (0, 2)}, ("'shard'",)),
    ("DataFrameIterator", gpuseq.DataFrameIterator, {"worker": 2}, ("'workers'",)),
    ("Iterator", lambda **k: gpuseq.Iterator(6, 2, False, None, **k), {"worker": 2}, ("'workers'",)),
    ("Sequence", gpuseq.Sequence, {"worker": 2}, ("'workers'",)),
    ("load_img", lambda **k: gpuseq.load_img("absent.jpg", **k), {"colormode": "rgb"}, ("'color_mode'",)),
    ("random_rotation", lambda **k: gpuseq.random_rotation(IMAGES[0], 3, **k), {"fil_mode": 1}, ("'fill_mode'",)),
]


@pytest.mark.parametrize(
    ("name", "call", "given", "fragments"), MISSPELT, ids=[f"{m[0]}-{next(iter(m[2]))}" for m in MISSPELT]
)
def test_a_misspelt_argument(
    name: str, call: Callable[..., Any], given: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    with refuses(TypeError, f"{name}() got an unexpected keyword argument '{next(iter(given))}'", *fragments):
        call(**given)


def test_an_argument_like_no_other_gets_the_list() -> None:
    with refuses(TypeError, "load_img()", "'qqq'; it takes path, color_mode, target_size"):
        gpuseq.load_img("absent.jpg", qqq=1)


def test_a_subclass_is_named_by_its_own_name() -> None:
    class Mine(gpuseq.ImageDataGenerator):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(device="cpu", **arguments)

    with refuses(TypeError, "Mine()", "'zoom_range'"):
        Mine(zoomrange=0.2)


def test_too_many_and_too_few_arguments_name_the_public_function() -> None:
    with refuses(TypeError, "ImageDataGenerator()", "too many"):
        gpuseq.ImageDataGenerator(*range(40))
    with refuses(TypeError, "ImageDataGenerator.flow()", "'x'"):
        generator().flow()


def test_a_type_error_from_inside_stays_as_it_is() -> None:
    def broken(image: Any) -> Any:
        raise TypeError("from inside")

    with pytest.raises(TypeError, match="^from inside$"):
        next(generator(preprocessing_function=broken).flow(IMAGES))


def test_checked_functions_keep_their_signature_and_name() -> None:
    for function in (gpuseq.load_img, gpuseq.random_zoom, gpuseq.ImageDataGenerator.flow):
        assert hasattr(function, "__wrapped__")
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)
        assert function.__name__ == function.__wrapped__.__name__


# Misspelt values.


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"fill_mode": "refelct"}, "'reflect'"),
        ({"rng": "Keras"}, "'keras'"),
        ({"conventions": "correct"}, "'corrected'"),
        ({"dtype": "flaot32"}, "'float32'"),
        ({"data_format": "channel_last"}, "'channels_last'"),
        ({"preprocessing_function": "cafe"}, "'caffe'"),
    ],
    ids=str,
)
def test_a_misspelt_value_of_the_generator(given: dict[str, Any], meant: str) -> None:
    with refuses(ValueError, next(iter(given)), f"did you mean {meant}?"):
        generator(**given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"class_mode": "categorial"}, "'categorical'"),
        ({"class_mode": "None"}, "None"),
        ({"color_mode": "RGB"}, "'rgb'"),
        ({"interpolation": "cubic"}, "'bicubic'"),
        ({"decoder": "pilow"}, "'pillow'"),
        ({"cache": "hots"}, "'host'"),
        ({"on_error": "skp"}, "'skip'"),
        ({"rng": "key"}, "'keyed'"),
        ({"subset": "valid"}, "'validation'"),
        ({"remainder": "dropp"}, "'drop'"),
        ({"save_to_dir": ".", "save_format": "pgn"}, "'png'"),
    ],
    ids=str,
)
def test_a_misspelt_value_of_a_flow(given: dict[str, Any], meant: str, plain_tree: Path) -> None:
    with refuses(ValueError, list(given)[-1], f"did you mean {meant}?"):
        generator().flow_from_directory(plain_tree, **given)


def test_no_guess_where_nothing_is_near() -> None:
    assert arguments.did_you_mean("qqq", ("nearest", "wrap")) == ""
    assert arguments.did_you_mean(3, ("nearest", "wrap")) == ""
    assert arguments.did_you_mean("wrap", ("nearest", "wrap")) == ""


# Bad arguments before anything is looked for or said.


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 0},
        {"batch_size": None},
        {"seed": "one"},
        {"shard": (2, 2)},
        {"remainder": "keep"},
        {"rng": "philox"},
        {"cache": "disk"},
        {"decoder": "magic"},
        {"on_error": "ignore"},
        {"prefetch": -1},
        {"num_threads": 0},
        {"max_pixels": -5},
        {"memory_limit": "1GB"},
        {"shuffle": "False"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["directory", "dataframe"])
def test_arguments_are_checked_before_files_are_looked_for(
    kind: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def walked(*args: Any, **kwargs: Any) -> None:
        pytest.fail("files were looked for before the arguments were checked")

    for name in ("find_classes", "scan_classes", "filter_filenames"):
        monkeypatch.setattr(gpuseq.iterators.files, name, walked)
    with refuses((ValueError, TypeError), next(iter(given)), repr(next(iter(given.values())))):
        if kind == "directory":
            generator().flow_from_directory("absent", **given)
        else:
            generator().flow_from_dataframe(frame(), "absent", **given)
    assert capsys.readouterr().out == ""


def test_nothing_is_counted_aloud_before_the_masks_are_there(
    plain_tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError, match="mask_directory"):
        generator().flow_from_directory(plain_tree, mask_directory=plain_tree / "absent")
    assert capsys.readouterr().out == ""
    generator().flow_from_directory(plain_tree)
    assert capsys.readouterr().out == "Found 10 images belonging to 2 classes.\n"


# Warnings point at the user's line.


def _flows(module: Any, tree: Path) -> dict[str, Callable[[], Any]]:
    def ours(**arguments: Any) -> Any:
        return module.ImageDataGenerator(width_shift_range=0.3, device="cpu", **arguments)

    return {
        "flow": lambda: ours().flow(IMAGES),
        "flow_from_directory": lambda: ours().flow_from_directory(tree, verbose=False),
        "flow_from_dataframe": lambda: ours().flow_from_dataframe(frame(), tree, class_mode=None, verbose=False),
        "settings": lambda: ours(featurewise_std_normalization=True),
        "zoom": lambda: ours(zoom_range=1.5),
        "first batch": lambda: next(
            module.ImageDataGenerator(featurewise_center=True, device="cpu").flow(IMAGES, batch_size=2)
        ),
        "odd channels": lambda: module.ImageDataGenerator(device="cpu").flow(np.zeros((2, 4, 4, 2))),
        "fit": lambda: module.ImageDataGenerator(featurewise_center=True, device="cpu").fit(np.zeros((2, 4, 4, 2))),
        "missing files": lambda: module.ImageDataGenerator(device="cpu").flow_from_dataframe(
            frame(filename=["left/0.jpg", "a", "b", "c"]), tree, class_mode=None, verbose=False
        ),
        "deprecated": lambda: module.ImageDataGenerator(device="cpu").flow_from_dataframe(
            frame(), tree, sort=True, class_mode=None, verbose=False
        ),
    }


@pytest.mark.parametrize("module", ["gpuseq", "gpuseq.keras"])
@pytest.mark.parametrize("name", list(_flows(None, Path())))
def test_warnings_point_at_the_callers_line(module: str, name: str, plain_tree: Path) -> None:
    imported = gpuseq if module == "gpuseq" else pytest.importorskip(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _flows(imported, plain_tree)[name]()
    assert caught
    assert {item.filename for item in caught} == {__file__}
