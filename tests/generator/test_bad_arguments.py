"""Bad arguments fail at construction, and the message holds the value and what would have been accepted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base import devices as compat
from tests.cases import images

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
    ({"classes": ["left", "top"]}, (ValueError, FileNotFoundError), ("top",)),
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
    with refuses(ValueError, "hollow", str(root), "jpg", "classes="):
        generator().flow_from_directory(root)
    flow = generator().flow_from_directory(root, classes=["left", "right"])
    assert flow.class_indices == {"left": 0, "right": 1}
    assert flow.samples == 10


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
        ({"y_col": "number", "class_mode": "sparse"}, TypeError, ("number", "strings")),
        ({"y_col": "number", "class_mode": "categorical"}, TypeError, ("number", "string, list or tuple")),
        ({"y_col": "many", "class_mode": "binary"}, ValueError, ("2 classes", "3")),
        ({"class_mode": "binary", "classes": ["a", "b", "c"]}, ValueError, ("2 classes", "3")),
        ({"y_col": "number", "class_mode": "multi_output"}, TypeError, ("multi_output", "list", "str")),
        ({"class_mode": "none"}, ValueError, ("none", "categorical", "multi_output", "raw")),
        ({"color_mode": "grey"}, ValueError, ("grey", "grayscale")),
        ({"interpolation": "area"}, ValueError, ("area", "nearest")),
        ({"y_col": "holes", "class_mode": "raw"}, ValueError, ("holes", "missing")),
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
