"""What a caller gets wrong: it fails at construction, and the message holds the value and what to write instead."""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base import arguments
from gpuseq.base import devices as compat
from gpuseq.iterators import arrays as array_iterator
from tests.cases import images
from tests.compare import assert_same

# Values that are not accepted: the message holds the value and what would have been.

IMAGES = images((6, 8, 8, 3), "uint8")


def generator(**arguments: Any) -> gpuseq.ImageDataGenerator:
    return gpuseq.ImageDataGenerator(**arguments, device="cpu")


@contextmanager
def refuses(error: type[Exception] | tuple[type[Exception], ...], *fragments: str) -> Iterator[None]:
    """Fail unless the block raises `error` with a message that holds every fragment."""
    with pytest.raises(error) as raised:
        yield
    for fragment in fragments:
        assert fragment in str(raised.value), f"{fragment!r} is not in: {raised.value}"


GENERATOR_CASES: list[tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = [
    ({"data_format": "channels_middle"}, ValueError, ("channels_middle", "channels_last", "channels_first")),
    ({"fill_mode": "mirror"}, ValueError, ("'mirror'", "nearest", "constant", "reflect", "wrap")),
    ({"validation_split": 1.0}, ValueError, ("validation_split", "1.0")),
    ({"validation_split": -0.2}, ValueError, ("validation_split", "-0.2")),
    ({"zoom_range": [0.5, 1.0, 2.0]}, ValueError, ("zoom_range", "[0.5, 1.0, 2.0]", "two")),
    ({"zoom_range": "big"}, ValueError, ("zoom_range", "big")),
    ({"zoom_range": ("a", "b")}, ValueError, ("zoom_range", "'a'")),
    ({"zoom_range": (0.5, float("nan"))}, ValueError, ("zoom_range", "finite", "nan")),
    ({"zoom_range": float("inf")}, ValueError, ("zoom_range", "finite", "inf")),
    ({"brightness_range": 0.5}, ValueError, ("brightness_range", "0.5", "two")),
    ({"brightness_range": (0.5,)}, ValueError, ("brightness_range", "(0.5,)", "two")),
    ({"interpolation_order": 6}, ValueError, ("interpolation_order", "6", "0", "5")),
    ({"interpolation_order": -1}, ValueError, ("interpolation_order", "-1")),
    ({"dtype": "int7"}, ValueError, ("dtype", "int7", "float32")),
    ({"dtype": "complex64"}, ValueError, ("dtype", "complex64", "float32")),
    ({"width_shift_range": "wide"}, ValueError, ("width_shift_range", "'wide'")),
    ({"height_shift_range": [[0.1], [0.2]]}, ValueError, ("height_shift_range", "[[0.1], [0.2]]")),
    ({"width_shift_range": float("nan")}, ValueError, ("width_shift_range", "nan")),
    ({"rotation_range": "ninety"}, (ValueError, TypeError), ("rotation_range", "'ninety'")),
    ({"rotation_range": float("inf")}, ValueError, ("rotation_range", "inf")),
    ({"shear_range": None}, (ValueError, TypeError), ("shear_range", "None")),
    ({"channel_shift_range": "loud"}, (ValueError, TypeError), ("channel_shift_range", "'loud'")),
    ({"rng": "philox"}, ValueError, ("rng", "'philox'", "'keras'", "'keyed'")),
    ({"conventions": "fixed"}, ValueError, ("conventions", "'fixed'", "'keras'", "'corrected'")),
    ({"preprocessing_function": 3}, (ValueError, TypeError), ("preprocessing_function", "3")),
]


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"),
    GENERATOR_CASES,
    ids=[f"{next(iter(a))}={next(iter(a.values()))}" for a, *_ in GENERATOR_CASES],
)
def test_generator(arguments: dict[str, Any], error: type[Exception], fragments: tuple[str, ...]) -> None:
    with refuses(error, *fragments):
        generator(**arguments)


def test_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="rotate"):
        generator(rotate=3)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu", 0])
def test_device_names(device: Any) -> None:
    with refuses(ValueError, "device", repr(device), '"auto"', '"cpu"', '"cuda"'):
        gpuseq.ImageDataGenerator(device=device)


@pytest.mark.skipif(compat.has_gpu(), reason="a GPU is here, so nothing is refused")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_a_gpu_says_what_is_missing(device: str) -> None:
    with refuses(gpuseq.DeviceError, device, "cpu"):
        gpuseq.ImageDataGenerator(device=device)


@pytest.mark.skipif(compat.has_gpu(), reason="a GPU is here, so nothing is refused")
def test_the_environment_names_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUSEQ_DEVICE", "cuda")
    with pytest.raises(gpuseq.DeviceError):
        gpuseq.ImageDataGenerator()
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    assert gpuseq.ImageDataGenerator().device == "cpu"
    monkeypatch.setenv("GPUSEQ_DEVICE", "abacus")
    with pytest.raises(ValueError, match="abacus"):
        gpuseq.ImageDataGenerator()


def test_auto_says_in_the_log_what_it_chose(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUSEQ_DEVICE", raising=False)
    with caplog.at_level(logging.INFO, logger="gpuseq"):
        chosen = gpuseq.ImageDataGenerator().device
    assert chosen in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"),
    [
        ({"batch_size": 0}, ValueError, ("batch_size", "0", "positive")),
        ({"batch_size": -3}, ValueError, ("batch_size", "-3")),
        ({"batch_size": 2.5}, ValueError, ("batch_size", "2.5")),
        ({"batch_size": True}, ValueError, ("batch_size", "True")),
        ({"seed": 1.5}, TypeError, ("seed", "1.5", "float")),
        ({"seed": "7"}, TypeError, ("seed", "'7'", "str")),
        ({"seed": -1}, ValueError, ("seed", "-1")),
        ({"seed": 2**32}, ValueError, ("seed", str(2**32))),
        ({"y": [1, 2]}, ValueError, ("same length", "(6, 8, 8, 3)", "(2,)")),
        ({"sample_weight": [1.0]}, ValueError, ("sample_weight", "(6, 8, 8, 3)", "(1,)")),
        ({"subset": "test"}, ValueError, ("test", "training", "validation")),
        ({"save_to_dir": "/no/such/folder"}, FileNotFoundError, ("save_to_dir", "/no/such/folder")),
        ({"shard": (2, 2)}, ValueError, ("shard", "(2, 2)")),
        ({"shard": (-1, 2), "seed": 1}, ValueError, ("shard", "(-1, 2)")),
        ({"shard": "all"}, ValueError, ("shard", "'all'", "auto")),
        ({"shard": (0, 2), "seed": None}, ValueError, ("shard", "seed")),
        (
            {"remainder": "keep", "shard": (0, 2), "seed": 1},
            ValueError,
            ("remainder", "'keep'", "pad", "drop", "exact"),
        ),
    ],
    ids=str,
)
def test_flow(arguments: dict[str, Any], error: type[Exception], fragments: tuple[str, ...]) -> None:
    with refuses(error, *fragments):
        generator().flow(IMAGES, **arguments)


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 8), (6, 8, 8, 3, 1), (5,)], ids=str)
def test_flow_wants_rank_four(shape: tuple[int, ...]) -> None:
    with refuses(ValueError, "rank 4", str(shape)):
        generator().flow(np.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 0, 8, 3), (3, 8, 8, 0)], ids=str)
def test_flow_refuses_images_without_pixels(shape: tuple[int, ...]) -> None:
    with refuses(ValueError, str(shape)):
        generator().flow(np.zeros(shape))


def test_flow_refuses_what_is_no_number() -> None:
    with pytest.raises(TypeError, match="numbers"):
        generator().flow(np.full((2, 4, 4, 3), "a"))


def test_flow_refuses_extra_inputs_of_another_length() -> None:
    with pytest.raises(ValueError, match="same length"):
        generator().flow((IMAGES, np.zeros(5)))


def test_flow_refuses_a_split_that_loses_classes() -> None:
    with pytest.raises(ValueError, match="different number of classes"):
        generator(validation_split=0.5).flow(IMAGES, [0, 0, 0, 1, 1, 1], subset="training")
    kept = generator(validation_split=0.5).flow(IMAGES, [0, 0, 0, 1, 1, 1], subset="training", ignore_class_split=True)
    assert kept.n == 3


@pytest.mark.parametrize("channels", [2, 5])
def test_odd_numbers_of_channels_warn_and_work(channels: int) -> None:
    with pytest.warns(UserWarning, match=f"{channels} channels"):
        flow = generator().flow(images((3, 4, 4, channels), "uint8"), shuffle=False)
    assert next(flow).shape == (3, 4, 4, channels)


@pytest.mark.parametrize("index", [2, 99, -3])
def test_an_index_outside_the_epoch(index: int) -> None:
    flow = generator().flow(IMAGES, batch_size=3)
    with pytest.raises(ValueError, match=f"{index}.*2"):  # as in Keras
        flow[index]
    with pytest.raises(IndexError):  # as Python's own protocol needs it
        flow[index]


DIRECTORY_CASES: list[tuple[dict[str, Any], type[Exception] | tuple[type[Exception], ...], tuple[str, ...]]] = [
    ({"color_mode": "cmyk"}, ValueError, ("cmyk", "rgb", "rgba", "grayscale")),
    ({"class_mode": "multi_output"}, ValueError, ("multi_output", "categorical", "binary", "sparse", "input")),
    ({"class_mode": "binaries"}, ValueError, ("binaries", "categorical")),
    ({"interpolation": "cubic"}, ValueError, ("cubic", "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")),
    ({"target_size": (0, 8)}, ValueError, ("target_size", "(0, 8)")),
    ({"target_size": (8,)}, ValueError, ("target_size", "(8,)")),
    ({"target_size": (8, 8, 3)}, ValueError, ("target_size", "(8, 8, 3)")),
    ({"target_size": 8}, (ValueError, TypeError), ("target_size", "8")),
    ({"subset": "testing"}, ValueError, ("testing", "training", "validation")),
    ({"batch_size": 0}, ValueError, ("batch_size", "0")),
    ({"seed": "one"}, TypeError, ("seed", "'one'")),
    ({"save_to_dir": "/no/such/folder"}, FileNotFoundError, ("save_to_dir", "/no/such/folder")),
    ({"classes": ["lefft", "right"]}, (ValueError, FileNotFoundError), ("lefft", "did you mean 'left'")),
    ({"on_error": "ignore"}, ValueError, ("on_error", "'ignore'", "raise", "skip", "substitute")),
    ({"decoder": "magic"}, ValueError, ("decoder", "'magic'", "pillow")),
    ({"cache": "disk"}, ValueError, ("cache", "'disk'")),
    ({"prefetch": -1}, ValueError, ("prefetch", "-1")),
    ({"prefetch": "many"}, (ValueError, TypeError), ("prefetch", "'many'")),
]


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"), DIRECTORY_CASES, ids=[str(case[0]) for case in DIRECTORY_CASES]
)
def test_flow_from_directory(
    arguments: dict[str, Any], error: Any, fragments: tuple[str, ...], plain_tree: Path
) -> None:
    with refuses(error, *fragments):
        generator().flow_from_directory(plain_tree, **arguments)


def test_a_missing_directory(tmp_path: Path) -> None:
    with refuses(FileNotFoundError, str(tmp_path / "absent")):
        generator().flow_from_directory(tmp_path / "absent")


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refuses(OSError, str(tmp_path / "file")):
        generator().flow_from_directory(tmp_path / "file")


def test_a_directory_without_class_folders(tmp_path: Path) -> None:
    with refuses(ValueError, str(tmp_path)):
        generator().flow_from_directory(tmp_path)


def test_a_directory_without_images(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "notes.txt").write_text("")
    with refuses(ValueError, str(tmp_path), "jpg"):
        generator().flow_from_directory(tmp_path)


def test_a_class_folder_without_images_is_named(plain_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    root.mkdir()
    for folder in plain_tree.iterdir():
        (root / folder.name).symlink_to(folder, target_is_directory=True)
    (root / "hollow").mkdir()
    with pytest.warns(UserWarning, match=r"'hollow'.*keep their class indices.*jpg.*classes="):
        kept = generator().flow_from_directory(root, batch_size=10)
    theirs = pytest.importorskip("keras.src.legacy.preprocessing.image").ImageDataGenerator()
    keras_flow = theirs.flow_from_directory(str(root), batch_size=10, follow_links=True)
    assert kept.class_indices == keras_flow.class_indices == {"hollow": 0, "left": 1, "right": 2}
    assert kept.num_classes == keras_flow.num_classes
    assert next(kept)[1].shape == next(keras_flow)[1].shape == (10, 3)
    (root / "void").mkdir()
    with refuses(ValueError, "hollow", "void", str(root), "jpg"):
        generator().flow_from_directory(root, classes=["hollow", "void"])
    flow = generator().flow_from_directory(root, classes=["left", "right"])
    assert flow.class_indices == {"left": 0, "right": 1}
    assert flow.samples == 10


def test_a_class_that_has_no_folder_keeps_its_column_as_in_keras(plain_tree: Path) -> None:
    """The classes of the training data, named for the validation data, which lacks one."""
    classes = ["left", "middle", "right"]
    with pytest.warns(UserWarning, match=r"'middle'.*no such folder.*keeps its class index and column") as said:
        ours = generator().flow_from_directory(plain_tree, classes=classes, batch_size=10, shuffle=False)
    assert len(said) == 1
    theirs = pytest.importorskip("keras.src.legacy.preprocessing.image").ImageDataGenerator()
    keras_flow = theirs.flow_from_directory(str(plain_tree), classes=classes, batch_size=10, shuffle=False)
    assert ours.class_indices == keras_flow.class_indices == {"left": 0, "middle": 1, "right": 2}
    assert np.array_equal(next(ours)[1], next(keras_flow)[1])
    with refuses(FileNotFoundError, "'middle'", "'left'", "'right'"):
        generator().flow_from_directory(plain_tree, classes=["middle"])


def frame(**columns: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    names = [f"left/{number}.jpg" for number in range(4)]
    return pandas.DataFrame({"filename": names, "class": ["a", "b", "a", "b"], **columns})


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"),
    [
        ({"x_col": "path"}, ValueError, ("path", "filename")),
        ({"y_col": "label"}, ValueError, ("label", "class")),
        ({"weight_col": "weight"}, ValueError, ("weight", "filename")),
        ({"weight_col": "class"}, TypeError, ("class", "numeric")),
        ({"x_col": "number"}, TypeError, ("number", "strings")),
        ({"y_col": ["class"]}, TypeError, ("categorical", "['class']", "y_col='class'")),
        ({"y_col": ["class"], "class_mode": "sparse"}, TypeError, ("sparse", "['class']", "y_col='class'")),
        ({"y_col": ["class", "many"], "class_mode": "binary"}, TypeError, ("binary", "many", "multi_output")),
        ({"y_col": "number", "class_mode": "sparse"}, TypeError, ("number", "strings")),
        ({"y_col": "number", "class_mode": "categorical"}, TypeError, ("number", "string, list or tuple")),
        ({"y_col": "many", "class_mode": "binary"}, ValueError, ("2 classes", "3")),
        ({"class_mode": "binary", "classes": ["a", "b", "c"]}, ValueError, ("2 classes", "3")),
        ({"y_col": "number", "class_mode": "multi_output"}, TypeError, ("multi_output", "list", "str")),
        ({"class_mode": "none"}, ValueError, ("none", "categorical", "multi_output", "raw")),
        ({"color_mode": "grey"}, ValueError, ("grey", "grayscale")),
        ({"interpolation": "area"}, ValueError, ("area", "nearest")),
        ({"y_col": ["number", "holes"], "class_mode": "multi_output"}, ValueError, ("holes", "missing")),
        ({"y_col": "text_holes", "class_mode": "sparse"}, (TypeError, ValueError), ("text_holes",)),
        ({"y_col": "text_holes", "class_mode": "categorical"}, (TypeError, ValueError), ("text_holes",)),
        ({"subset": "both"}, ValueError, ("both", "training", "validation")),
        ({"on_error": 3}, (TypeError, ValueError), ("on_error", "3")),
    ],
    ids=str,
)
def test_flow_from_dataframe(
    arguments: dict[str, Any], error: Any, fragments: tuple[str, ...], plain_tree: Path
) -> None:
    table = frame(
        number=[1, 2, 3, 4],
        many=["a", "b", "c", "a"],
        holes=[1.0, np.nan, 3.0, np.nan],
        text_holes=["a", None, "b", "a"],
    )
    with refuses(error, *fragments):
        generator().flow_from_dataframe(table, plain_tree, **arguments)


def test_a_frame_without_one_valid_file(plain_tree: Path) -> None:
    table = frame()
    table["filename"] = [f"absent/{number}.jpg" for number in range(4)]
    with pytest.warns(UserWarning, match="Found 4 invalid"), refuses(ValueError, "filename"):
        generator().flow_from_dataframe(table, plain_tree)


# State and epochs.


@pytest.mark.parametrize("epoch", [-1, 1.5, "3", True, None])
def test_set_epoch_wants_a_non_negative_integer(epoch: Any) -> None:
    with refuses((ValueError, TypeError), "epoch", repr(epoch)):
        generator().flow(IMAGES, seed=1).set_epoch(epoch)


def test_a_state_of_other_data_is_refused() -> None:
    state = generator().flow(IMAGES, seed=1).state_dict()
    json.dumps(state)
    with refuses(ValueError, "6", "5"):
        generator().flow(IMAGES[:5], seed=1).load_state_dict(state)


def test_a_state_of_the_other_random_mode_is_refused() -> None:
    state = generator(rng="keyed").flow(IMAGES, seed=1).state_dict()
    with refuses(ValueError, "'keyed'", "'keras'"):
        generator().flow(IMAGES, seed=1).load_state_dict(state)


def test_there_is_no_state_without_a_seed() -> None:
    with pytest.raises(gpuseq.GpuseqError, match="seed"):
        generator().flow(IMAGES).state_dict()


# The one-time warning about Keras' conventions.


@pytest.mark.parametrize(
    "arguments",
    [
        {"width_shift_range": 0.3},
        {"height_shift_range": 2.0},
        {"width_shift_range": 0.1, "height_shift_range": 0.2},
    ],
    ids=str,
)
def test_conventions_warn_once_where_they_differ(arguments: dict[str, Any]) -> None:
    ours = generator(**arguments)
    with pytest.warns(UserWarning, match="conventions") as caught:
        ours.flow(IMAGES)
    assert len(caught) == 1
    ours.flow(IMAGES)  # warnings are errors here: a second one would fail the test


def test_conventions_warn_for_affine_maps_of_non_square_images() -> None:
    with pytest.warns(UserWarning, match="conventions"):
        generator(rotation_range=10).flow(images((3, 8, 9, 3), "uint8"))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rotation_range": 10, "horizontal_flip": True},
        {"width_shift_range": 0.2, "height_shift_range": 0.2},
        {"width_shift_range": 0.3, "conventions": "corrected"},
    ],
    ids=str,
)
def test_conventions_are_silent_where_they_agree_or_are_chosen(arguments: dict[str, Any]) -> None:
    assert len(generator(**arguments).flow(IMAGES)) == 1


# Misspelt names: the message names the public function and the nearest right word, and comes at once.

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
    def listed(*args: Any, **kwargs: Any) -> None:
        pytest.fail("files were looked for before the arguments were checked")

    for name in ("find_classes", "scan_classes"):
        monkeypatch.setattr(gpuseq.iterators.folders, name, listed)
    monkeypatch.setattr(gpuseq.iterators.frames, "filter_filenames", listed)
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


# Other things in the place of what is wanted: the message says what to write.

FLOATS = np.random.default_rng(3).uniform(0, 1, (6, 8, 8, 3))


def test_a_class_that_is_not_there(plain_tree: Path) -> None:
    with refuses(FileNotFoundError, "'lft'", str(plain_tree), "'left', 'right'", "did you mean 'left'?"):
        generator().flow_from_directory(plain_tree, classes=["right", "lft"])
    with refuses(TypeError, "classes=['left']"):
        generator().flow_from_directory(plain_tree, classes="left")


def test_no_directory_at_all() -> None:
    with refuses(TypeError, "directory", "None"):
        generator().flow_from_directory(None)
    with refuses(FileNotFoundError, "~", "expanduser"):
        generator().flow_from_directory("~/absent/photos")


@pytest.mark.parametrize(
    ("x", "error", "fragments"),
    [
        ("photos", TypeError, ("'photos'", "flow_from_directory")),
        (Path("photos"), TypeError, ("'photos'", "flow_from_directory")),
        (None, TypeError, ("None",)),
        ((image for image in IMAGES), TypeError, ("generator", "np.stack(list(images))")),
        (list(IMAGES), ValueError, ("6 items", "np.stack(images)")),
        ([IMAGES[0], IMAGES[1]], ValueError, ("2 items", "np.stack(images)")),
        ([IMAGES[0], IMAGES[1][:4], IMAGES[2]], ValueError, ("3 items", "sizes differ", "load_img(target_size=")),
        (IMAGES[0], ValueError, ("(8, 8, 3)", "x[None]", "x[..., None]")),
    ],
    ids=["path", "Path", "None", "generator", "list", "list of two", "ragged", "one image"],
)
def test_what_is_no_array_of_images(x: Any, error: type[Exception], fragments: tuple[str, ...]) -> None:
    with refuses(error, *fragments):
        generator().flow(x)


def test_a_data_frame_in_place_of_an_array() -> None:
    with refuses(TypeError, "flow_from_dataframe"):
        generator().flow(frame())


def test_images_and_further_inputs_are_still_a_pair() -> None:
    batch = next(generator().flow([IMAGES, np.arange(6)], shuffle=False))
    assert_same(batch[1], np.arange(6))


def test_tensors_of_other_libraries_are_read() -> None:
    torch = pytest.importorskip("torch")
    wanted = next(generator().flow(IMAGES.astype(np.float32), shuffle=False))
    for tensor in (
        torch.from_numpy(IMAGES.astype(np.float32)),
        torch.from_numpy(IMAGES.astype(np.float32)).requires_grad_(),
    ):
        assert_same(next(generator().flow(tensor, shuffle=False)), wanted)


def test_a_tensor_on_a_gpu_is_taken_over_by_dlpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol alone, without a GPU: who is asked, and for what."""

    class Tensor:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    monkeypatch.setattr(array_iterator, "require", lambda *_, **__: SimpleNamespace(from_dlpack=lambda x: (x, "cupy")))
    tensor = Tensor()
    assert array_iterator.as_array(tensor, "", "") == (tensor, "cupy")


def test_channels_first_is_recognised() -> None:
    with pytest.warns(UserWarning, match='data_format="channels_first"'):
        generator().flow(np.zeros((4, 3, 16, 16)))


@pytest.mark.parametrize("y", [32, 1.5], ids=str)
def test_a_number_in_the_place_of_labels(y: Any) -> None:
    with refuses(ValueError, "y", str(y), "6 images"):
        generator().flow(IMAGES, y)


def test_a_validation_subset_without_a_split(plain_tree: Path) -> None:
    for call in (
        lambda: generator().flow(IMAGES, subset="validation"),
        lambda: generator().flow_from_directory(plain_tree, subset="validation"),
        lambda: generator().flow_from_dataframe(frame(), plain_tree, subset="validation"),
    ):
        with refuses(ValueError, "ImageDataGenerator(validation_split="):
            call()
    assert generator().flow(IMAGES, [0, 0, 0, 1, 1, 1], subset="training").n == 6


def test_a_split_too_small_for_a_class(tmp_path: Path, plain_tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    with refuses(ValueError, "0.05", "6 images"):
        generator(validation_split=0.05).flow(IMAGES, subset="validation")
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "0.jpg").symlink_to(plain_tree / "left" / "0.jpg")
    (tmp_path / "many").symlink_to(plain_tree / "left", target_is_directory=True)
    flow = generator(validation_split=0.4).flow_from_directory(tmp_path, subset="validation")
    assert flow.samples == 2
    assert "'few'" in caplog.text


@pytest.mark.parametrize(
    ("size", "fragment"), [(224, "target_size=(224, 224)"), ((8, 8, 3), "color_mode"), ("8", "'8'"), (None, "None")]
)
def test_a_size_that_is_none(size: Any, fragment: str, plain_tree: Path) -> None:
    with refuses(ValueError, "target_size", fragment):
        generator().flow_from_directory(plain_tree, target_size=size)
    if size is not None:
        with refuses(ValueError, "target_size", fragment):
            gpuseq.load_img(plain_tree / "left" / "0.jpg", target_size=size)


@pytest.mark.parametrize("value", [1.5, 1, (-0.2, 1.0)], ids=str)
def test_a_zoom_that_turns_images_inside_out_warns(value: Any) -> None:
    with pytest.warns(UserWarning, match=r"zoom_range.*\(0\.8, 1\.2\)"):
        generator(zoom_range=value)


@pytest.mark.parametrize("rescale", [1 / 255, 1 / 128, -1 / 255, -1 / 128])
def test_a_factor_for_floats_warns_where_batches_are_integers(rescale: float) -> None:
    with pytest.warns(UserWarning, match=f"rescale={rescale:.6g} leaves nothing but 0, 1 and 2 in batches of uint8"):
        generator(rescale=rescale, dtype="uint8")


def test_factors_that_leave_something_do_not_warn() -> None:
    """Warnings are errors here. A negative factor is legal, as in Keras."""
    assert generator(rescale=2 / 255, dtype="uint8").rescale == 2 / 255
    assert generator(rescale=-1 / 255).rescale == -1 / 255


def test_brightness_as_an_offset_warns() -> None:
    with pytest.warns(UserWarning, match=r"brightness_range.*factors"):
        generator(brightness_range=(-0.2, 0.2))
    with refuses(ValueError, "brightness_range", "0.2", "(0.8, 1.2)"):
        generator(brightness_range=0.2)


def test_floats_rescaled_twice_warn() -> None:
    with pytest.warns(UserWarning, match="0 to 1 already"):
        generator(rescale=1 / 255).flow(FLOATS)
    generator(rescale=1 / 255).flow(FLOATS * 255)
    generator().flow(FLOATS)


def test_rescaling_into_uint8_warns() -> None:
    with pytest.warns(UserWarning, match="uint8"):
        generator(rescale=1 / 255, dtype="uint8")


def test_a_pair_where_one_number_is_wanted() -> None:
    with refuses(ValueError, "rotation_range", "(-20, 20)", "-n to n"):
        generator(rotation_range=(-20, 20))


def test_text_in_place_of_a_flag() -> None:
    with refuses(ValueError, "horizontal_flip", "'False'", "True or False"):
        generator(horizontal_flip="False")


@pytest.mark.parametrize(
    ("given", "fragments"),
    [
        (None, ("None",)),
        ("labels.csv", ("'labels.csv'", "pandas.read_csv")),
        ({"filename": []}, ("dict", "pandas.DataFrame(")),
    ],
    ids=str,
)
def test_what_is_no_data_frame(given: Any, fragments: tuple[str, ...]) -> None:
    with refuses(TypeError, "pandas.DataFrame", *fragments):
        generator().flow_from_dataframe(given, "photos")


def test_numbers_in_the_place_of_class_names(plain_tree: Path) -> None:
    with refuses(TypeError, "strings", "astype(str)", 'class_mode="raw"'):
        generator().flow_from_dataframe(frame(number=[0, 1, 1, 0]), plain_tree, y_col="number", class_mode="sparse")
    with refuses(TypeError, "strings", "dropna"):
        generator().flow_from_dataframe(
            frame(hole=["a", None, "b", "a"]), plain_tree, y_col="hole", class_mode="sparse"
        )


def test_one_hot_rows_are_told_from_lists_of_classes(plain_tree: Path) -> None:
    table = frame(rows=[[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    with pytest.warns(UserWarning, match=r"'rows'.*class_mode=\"raw\""):
        generator().flow_from_dataframe(table, plain_tree, y_col="rows")
    flow = generator().flow_from_dataframe(table, plain_tree, y_col="rows", class_mode="raw", shuffle=False)
    assert_same(next(flow)[1], np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]))


def test_names_without_their_extension(plain_tree: Path) -> None:
    table = frame()
    table["filename"] = table["filename"].str.removesuffix(".jpg")
    with (
        pytest.warns(UserWarning, match=r"'left/0', looked up as '.*left/0', and its extension is none of png"),
        pytest.raises(ValueError, match="no usable rows"),
    ):
        generator().flow_from_dataframe(table, plain_tree)


def test_a_data_frame_without_rows() -> None:
    with refuses(ValueError, "no rows"):
        generator().flow_from_dataframe(frame().iloc[:0], "photos")


@pytest.mark.parametrize("index", ["x", 1.0, slice(2)], ids=str)
def test_batches_are_asked_for_by_number(index: Any) -> None:
    with refuses(TypeError, repr(index), "integer"):
        generator().flow(IMAGES)[index]


@pytest.mark.parametrize(
    ("function", "fragment"), [(lambda image: None, "None"), (lambda image: image[:4], "returned shape (4, 8,")]
)
@pytest.mark.parametrize("batched", [False, True])
def test_a_preprocessing_function_that_returns_no_image(function: Any, fragment: str, batched: bool) -> None:
    def preprocess(images: Any) -> Any:
        return function(images)

    preprocess.batched = batched  # type: ignore[attr-defined]
    with refuses(ValueError, "preprocessing_function", "(6, 8, 8, 3)" if batched else "(8, 8, 3)", fragment):
        next(generator(preprocessing_function=preprocess).flow(IMAGES))


def test_a_preprocessing_function_may_return_one_channel_for_all() -> None:
    """As in Keras, where the image is broadcast into its place in the batch."""
    batch = next(generator(preprocessing_function=lambda image: image[..., :1]).flow(IMAGES, shuffle=False))
    assert_same(batch, np.repeat(IMAGES[..., :1], 3, axis=3).astype(np.float32))


def test_integers_are_not_standardized_in_place() -> None:
    with refuses(TypeError, "uint8", "astype('float32')"):
        generator(rescale=1 / 255).standardize(IMAGES.copy())
    assert_same(generator().standardize(IMAGES.copy()), IMAGES)


def test_pillow_images_and_lists_are_images(plain_tree: Path) -> None:
    photo = gpuseq.load_img(plain_tree / "left" / "0.jpg")
    wanted = gpuseq.apply_affine_transform(np.asarray(photo), theta=20, row_axis=0, col_axis=1, channel_axis=2)
    for image in (photo, np.asarray(photo).tolist()):
        got = gpuseq.apply_affine_transform(image, theta=20, row_axis=0, col_axis=1, channel_axis=2)
        assert_same(got.astype(np.uint8), wanted)
        assert generator().random_transform(image).shape == wanted.shape
        assert gpuseq.random_shift(image, 0.1, 0.1, 0, 1, 2).shape == wanted.shape


def test_one_number_where_two_ends_are_wanted() -> None:
    for function, name in ((gpuseq.random_zoom, "zoom_range"), (gpuseq.random_brightness, "brightness_range")):
        with refuses(ValueError, name, "0.2", "two"):
            function(IMAGES[0], 0.2)


def test_single_images_are_told_from_batches() -> None:
    for method in (generator().random_transform, lambda x: generator().apply_transform(x, {})):
        with refuses(ValueError, "rank 3", str(IMAGES.shape), "flow(x)"):
            method(IMAGES)
