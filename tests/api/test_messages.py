"""What a newcomer gets wrong first: the message names the public function, the nearest right name and the remedy."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq import arguments, array_iterator
from tests.api.test_bad_arguments import frame, generator, refuses
from tests.cases import images
from tests.compare import assert_same

IMAGES = images((6, 8, 8, 3), "uint8")
FLOATS = np.random.default_rng(3).uniform(0, 1, (6, 8, 8, 3))


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

    for module in (gpuseq.directory_iterator, gpuseq.frame_iterator):
        for name in ("find_classes", "scan_classes", "filter_filenames"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, walked)
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


# Remedies.


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


def test_names_without_their_extension(plain_tree: Path) -> None:
    table = frame()
    table["filename"] = table["filename"].str.removesuffix(".jpg")
    with (
        pytest.warns(UserWarning, match=r"'left/0', looked up as '.*left/0', and its extension is none of png"),
        pytest.raises(ValueError, match="no usable rows"),
    ):
        generator().flow_from_dataframe(table, plain_tree)


def test_single_images_are_told_from_batches() -> None:
    for method in (generator().random_transform, lambda x: generator().apply_transform(x, {})):
        with refuses(ValueError, "rank 3", str(IMAGES.shape), "flow(x)"):
            method(IMAGES)


# Fitting.


def fitted(**options: Any) -> gpuseq.ImageDataGenerator:
    return generator(featurewise_center=True, featurewise_std_normalization=True, **options)


def test_fit_names_the_method_for_what_it_was_given() -> None:
    with refuses(TypeError, "'photos'", "fit_directory"):
        fitted().fit("photos")
    with refuses(TypeError, "generator", "fit_batches"):
        fitted().fit(image for image in IMAGES)
    for method in (fitted().fit, fitted().fit_batches):
        with refuses(TypeError, "NumpyArrayIterator", "fit_directory"):
            method(generator().flow(IMAGES))


def test_a_mean_of_other_channels_says_so() -> None:
    ours = generator(featurewise_center=True)
    ours.mean = np.zeros((1, 1, 3))
    with refuses(ValueError, "generator.mean", "(1, 1, 3)", "(8, 8, 1)"):
        next(ours.flow(IMAGES[..., :1]))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rescale", [None, 1 / 255])
def test_statistics_go_through_a_file(tmp_path: Path, rescale: float | None, data_format: str) -> None:
    data = IMAGES if data_format == "channels_last" else IMAGES.transpose(0, 3, 1, 2)
    first, second = (fitted(rescale=rescale, data_format=data_format) for _ in range(2))
    first.fit(data)
    first.save_statistics(tmp_path / "stats.json", note="of six images")
    second.load_statistics(tmp_path / "stats.json")
    for name in ("mean", "std"):
        assert_same(getattr(second, name), getattr(first, name))
    assert_same(next(second.flow(data, shuffle=False)), next(first.flow(data, shuffle=False)))
    assert json.loads((tmp_path / "stats.json").read_text())["note"] == "of six images"


def test_statistics_are_brought_to_the_rescale_of_the_one_that_loads(tmp_path: Path) -> None:
    """``gpuseq fit`` computes on 0 to 255, and most generators rescale."""
    plain, rescaled, loaded = fitted(), fitted(rescale=1 / 255), fitted(rescale=1 / 255)
    plain.fit(IMAGES)
    rescaled.fit(IMAGES)
    plain.save_statistics(tmp_path / "stats.json")
    loaded.load_statistics(tmp_path / "stats.json")
    for name in ("mean", "std"):
        np.testing.assert_allclose(getattr(loaded, name), getattr(rescaled, name), rtol=1e-5)


def test_a_generator_loads_what_it_asks_for(tmp_path: Path) -> None:
    fitted_one, centred = fitted(), generator(featurewise_center=True)
    fitted_one.fit(IMAGES)
    fitted_one.save_statistics(tmp_path / "both.json")
    centred.load_statistics(tmp_path / "both.json")
    assert_same(centred.mean, fitted_one.mean)
    assert centred.std is None
    centred.save_statistics(tmp_path / "mean.json")
    with refuses(ValueError, "mean.json", "mean and std", "save_statistics"):
        fitted().load_statistics(tmp_path / "mean.json")
    with refuses(ValueError, "featurewise_center=True"):
        generator().load_statistics(tmp_path / "both.json")


def test_files_that_hold_no_statistics(tmp_path: Path) -> None:
    for text in ("", "[1, 2]", '{"mean": "grey"}', '{"std": [1.0]}'):
        (tmp_path / "file.json").write_text(text)
        with refuses(ValueError, "file.json", "mean", "gpuseq fit"):
            fitted().load_statistics(tmp_path / "file.json")
    with pytest.raises(FileNotFoundError, match="absent.json"):
        fitted().load_statistics(tmp_path / "absent.json")


def test_what_cannot_be_saved_leaves_no_file(tmp_path: Path) -> None:
    with refuses(ValueError, "fit"):
        fitted().save_statistics(tmp_path / "none.json")
    whitener = generator(featurewise_center=True, zca_whitening=True)
    whitener.fit(IMAGES)
    with refuses(ValueError, "numpy.save", "zca_whitening_matrix"):
        whitener.save_statistics(tmp_path / "none.json")
    per_pixel = generator(featurewise_center=True)
    per_pixel.mean = np.zeros((8, 8, 3))
    with refuses(ValueError, "numpy.save"):
        per_pixel.save_statistics(tmp_path / "none.json")
    assert list(tmp_path.iterdir()) == []
