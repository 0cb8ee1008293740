"""What a newcomer hands over in the place of what is wanted: the message says what to write."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.iterators import arrays as array_iterator
from tests.cases import images
from tests.compare import assert_same
from tests.generator.test_bad_arguments import frame, generator, refuses

IMAGES = images((6, 8, 8, 3), "uint8")
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
