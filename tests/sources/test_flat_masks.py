"""Masks as they are usually kept: flat folders, suffixes, one folder for both, columns, palettes, ignored rims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpuseq import ImageDataGenerator, RandomRotation
from gpuseq.sources.options import MaskOptions
from tests.compare import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:conventions=")

SIZE = (16, 18)


def write_pairs(images: Path, masks: Path, *, suffix: str = "", count: int = 7, inner: str = "") -> None:
    """Write photographs of noise and masks that are a function of them, which nearest pixels keep."""
    rng = np.random.default_rng(3)
    (images / inner).mkdir(parents=True, exist_ok=True)
    (masks / inner).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(1, 256, (20 + number, 24, 3), np.uint8)
        Image.fromarray(pixels).save(images / inner / f"p{number}.bmp")
        Image.fromarray(label_of(pixels)[..., 0]).save(masks / inner / f"p{number}{suffix}.png")


def label_of(pixels: np.ndarray) -> np.ndarray:
    return ((pixels[..., :1] > 100) * np.uint8(2) + 1).astype(np.uint8)


def generator(**options: Any) -> ImageDataGenerator:
    options = {"rotation_range": 40, "zoom_range": 0.3, "horizontal_flip": True, **options}
    return ImageDataGenerator(interpolation_order=0, dtype="uint8", conventions="corrected", device="cpu", **options)


def walk(iterator: Any, num_samples: int) -> None:
    """Take one epoch: each mask is still that function of its image."""
    seen = 0
    for index in range(len(iterator)):
        x, masks = iterator[index]
        assert np.array_equal(masks, label_of(x))
        seen += len(x)
    assert seen == num_samples


OPTIONS: dict[str, Any] = {"target_size": SIZE, "batch_size": 3, "seed": 5, "verbose": False}


@pytest.mark.parametrize("classes", [None, ["."]])
@pytest.mark.parametrize("class_mode", ["categorical", None])
def test_a_flat_folder_beside_a_flat_folder(tmp_path: Path, classes: Any, class_mode: Any) -> None:
    write_pairs(tmp_path / "images", tmp_path / "masks")
    iterator = generator().flow_from_directory(
        tmp_path / "images", mask_directory=tmp_path / "masks", classes=classes, class_mode=class_mode, **OPTIONS
    )
    walk(iterator, 7)


def test_the_recipe_of_the_message_works(tmp_path: Path) -> None:
    write_pairs(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(ValueError, match=r"pass class_mode=None, or classes=\[\".\"\]"):
        generator().flow_from_directory(tmp_path / "images", **OPTIONS)
    assert len(next(generator().flow_from_directory(tmp_path / "images", class_mode=None, **OPTIONS))) == 3
    images, labels = next(generator().flow_from_directory(tmp_path / "images", classes=["."], **OPTIONS))
    assert labels.shape == (3, 1)
    x, y = next(generator().flow_from_directory(tmp_path / "images", class_mode="input", **OPTIONS))
    assert_same(y, x)


def test_loose_files_beside_empty_class_folders_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, tmp_path / ".checkpoints" / "masks")
    for path in (tmp_path / ".checkpoints" / "masks").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r'7 lie in the folder itself, which classes=\["\."\] takes'):
        generator().flow_from_directory(tmp_path, class_mode=None, **OPTIONS)


@pytest.mark.parametrize("where", ["apart", "together", "inside", "inside with classes"])
def test_a_suffix_and_masks_that_lie_among_the_images(tmp_path: Path, where: str) -> None:
    images = tmp_path / "data"
    masks = {"apart": tmp_path / "masks", "together": images}.get(where, images / "masks")
    suffix = "" if where == "inside" else "_mask"
    write_pairs(images, masks, suffix=suffix, inner="one" if where == "inside with classes" else "")
    classes = {"inside": ["."], "inside with classes": ["one"]}.get(where)
    iterator = generator().flow_from_directory(
        images, mask_directory=masks, mask_suffix=suffix, classes=classes, **OPTIONS
    )
    assert iterator.samples == 7
    assert not [name for name in iterator.filenames if "mask" in name]
    walk(iterator, 7)


def test_a_folder_whose_name_begins_as_that_of_the_masks_holds_images(tmp_path: Path) -> None:
    write_pairs(tmp_path, tmp_path / "masks", inner="masks2")
    iterator = generator().flow_from_directory(
        tmp_path, mask_directory=tmp_path / "masks", classes=["masks2"], **OPTIONS
    )
    walk(iterator, 7)


def test_a_subset_of_images_among_masks_is_one_of_the_images(tmp_path: Path) -> None:
    write_pairs(tmp_path, tmp_path, suffix="_mask", count=10)
    iterator = generator(validation_split=0.3).flow_from_directory(
        tmp_path, mask_directory=tmp_path, mask_suffix="_mask", subset="validation", **OPTIONS
    )
    assert sorted(Path(name).name for name in iterator.filenames) == ["p0.bmp", "p1.bmp", "p2.bmp"]
    walk(iterator, 3)


def test_where_masks_seem_to_be_is_said(tmp_path: Path) -> None:
    write_pairs(tmp_path / "images", tmp_path / "masks", suffix="-label")
    with pytest.raises(FileNotFoundError, match=r"p0-label.png': mask_suffix='-label' finds it"):
        generator().flow_from_directory(tmp_path / "images", mask_directory=tmp_path / "masks", **OPTIONS)
    with pytest.raises(FileNotFoundError, match=r"with '_mask' behind it and any image extension"):
        generator().flow_from_directory(
            tmp_path / "images", mask_directory=tmp_path / "masks", mask_suffix="_mask", **OPTIONS
        )
    with pytest.raises(FileNotFoundError, match=r"is 'images' the folder of the images"):
        write_pairs(tmp_path / "images", tmp_path / "masks")
        generator().flow_from_directory(tmp_path, classes=["images"], mask_directory=tmp_path / "masks", **OPTIONS)


@pytest.mark.parametrize("apart", [False, True])
def test_a_column_names_the_masks(tmp_path: Path, apart: bool) -> None:
    pandas = pytest.importorskip("pandas")
    write_pairs(tmp_path / "images", tmp_path / "masks", suffix="_m")
    inside = "" if apart else "masks/"
    frame = pandas.DataFrame(
        {
            "picture": [str(tmp_path / "images" / f"p{i}.bmp") if apart else f"images/p{i}.bmp" for i in range(7)],
            "outline": [f"{inside}p{i}_m.png" for i in range(7)],
            "weight": np.arange(7.0),
        }
    )
    folders = {"directory": None, "mask_directory": tmp_path / "masks"} if apart else {"directory": tmp_path}
    iterator = generator().flow_from_dataframe(frame, x_col="picture", mask_col="outline", **folders, **OPTIONS)
    walk(iterator, 7)
    weighted = generator().flow_from_dataframe(
        frame, x_col="picture", mask_col="outline", weight_col="weight", shuffle=False, **folders, **OPTIONS
    )
    x, masks, weights = next(weighted)
    assert np.array_equal(masks, label_of(x))
    assert weights.tolist() == [0, 1, 2]


def test_a_table_of_images_alone_with_a_folder_of_masks(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_pairs(tmp_path / "images", tmp_path / "masks", suffix="_m")
    frame = pandas.DataFrame({"filename": [f"p{i}.bmp" for i in (4, 2, 6)]})
    iterator = generator().flow_from_dataframe(
        frame, tmp_path / "images", mask_directory=tmp_path / "masks", mask_suffix="_m", **OPTIONS
    )
    walk(iterator, 3)


def test_wrong_columns_of_masks_are_named(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_pairs(tmp_path, tmp_path / "masks")
    frame = pandas.DataFrame({"filename": ["p0.bmp", "p1.bmp"], "mask": ["p0.png", None]})

    def flow(frame: Any, mask_col: str) -> Any:
        folder = tmp_path / "masks"
        return generator().flow_from_dataframe(frame, tmp_path, mask_col=mask_col, mask_directory=folder, **OPTIONS)

    with pytest.raises(ValueError, match="no column 'masks'.*mask_col.*did you mean 'mask'"):
        flow(frame, "masks")
    with pytest.raises(TypeError, match=r"Row 1 has .* frame.dropna\(subset=\['mask'\]\)"):
        flow(frame, "mask")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 masks that mask_col='mask' names are no files.*gone"):
        flow(frame.assign(mask=["p0.png", "gone.png"]), "mask")


def test_a_palette_is_read_as_its_indices(tmp_path: Path) -> None:
    """As Pascal VOC keeps its labels: classes 0 to 20, and 255 for what no loss should count."""
    write_pairs(tmp_path / "images", tmp_path / "masks", count=2)
    labels = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24) % 21
    labels[0] = 255
    for number in range(2):
        image = Image.fromarray(labels)
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        assert image.mode == "P"
        image.save(tmp_path / "masks" / f"p{number}.png")
        Image.new("RGB", (24, 20)).save(tmp_path / "images" / f"p{number}.bmp")
    flow = ImageDataGenerator(device="cpu").flow_from_directory
    options = {**OPTIONS, "target_size": (20, 24)}
    _, masks = next(flow(tmp_path / "images", mask_directory=tmp_path / "masks", **options))
    assert_same(masks, np.stack([labels[..., None]] * 2))


def as_files(folder: Path, images: np.ndarray, masks: np.ndarray, **options: Any) -> Any:
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        for kind, pixels in (("images", image), ("masks", mask[..., 0])):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    made = options.pop("generator")
    return made.flow_from_directory(
        folder / "images", images.shape[1:3], mask_directory=folder / "masks", verbose=False, **options
    )


@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize("fill_mode", ["nearest", "reflect"])
@pytest.mark.each_cpu_engine
def test_what_lies_beyond_the_border_gets_the_ignore_value(tmp_path: Path, as_array: bool, fill_mode: str) -> None:
    """Where an image that is filled with a constant shows it, and nowhere else; the images are filled as ever."""
    images = np.random.default_rng(0).integers(1, 256, (6, 15, 15, 3), np.uint8)
    masks = label_of(images)

    def flow(made: ImageDataGenerator, name: str, **options: Any) -> Any:
        if as_array:
            return made.flow(images, masks=masks, batch_size=6, seed=4, shuffle=False, **options)
        (tmp_path / name).mkdir()
        return as_files(tmp_path / name, images, masks, generator=made, batch_size=6, seed=4, shuffle=False, **options)

    shown = next(flow(generator(fill_mode="constant", cval=0), "shown"))[0]
    x, ignored = next(flow(generator(fill_mode=fill_mode), "ignored", ignore_value=255))
    assert_same(x, next(flow(generator(fill_mode=fill_mode), "plain"))[0])
    outside = (shown == 0).all(-1, keepdims=True)
    assert 20 < outside.sum() < outside.size / 2
    assert_same(ignored, np.where(outside, 255, label_of(x)).astype(np.uint8))


def test_augmentations_leave_the_ignore_value_too() -> None:
    images = np.full((4, 15, 15, 3), 200, np.uint8)
    masks = np.ones((4, 15, 15), np.uint8)
    made = ImageDataGenerator(augmentations=[RandomRotation((30, 40))], device="cpu", dtype="uint8")
    x, ignored = next(made.flow(images, masks=masks, ignore_value=255, seed=1))
    assert set(np.unique(ignored)) == {1, 255}
    _, filled = next(made.flow(images, masks=masks, seed=1))
    assert_same(ignored == 255, filled == 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mask_suffix": "_mask"}, ValueError, "there are none: mask_directory"),
        ({"ignore_value": 255}, ValueError, "there are none: mask_directory"),
        ({"mask_directory": "masks", "ignore_value": 256}, ValueError, "from 0 to 255; got 256"),
        ({"mask_directory": "masks", "ignore_value": -1}, ValueError, "ignore_value must be a non-negative integer"),
        ({"mask_directory": "masks", "mask_suffix": 3}, TypeError, "mask_suffix must be text"),
        ({"mask_col": "mask", "mask_suffix": "_m"}, ValueError, "names each mask whole: leave out mask_suffix"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MaskOptions(**options)


def test_arrays_that_cannot_hold_the_ignore_value_are_refused() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"masks of bool cannot hold ignore_value=255"):
        generator().flow(images, masks=images[..., 0] > 3, ignore_value=255)
    with pytest.raises(ValueError, match=r"masks of int8 cannot hold ignore_value=255"):
        generator().flow(images, masks=images[..., 0].astype(np.int8), ignore_value=255)
    with pytest.raises(ValueError, match="there are none"):
        generator().flow(images, ignore_value=255)


def test_extensions_are_taken_when_asked(tmp_path: Path) -> None:
    for number, suffix in enumerate(("webp", "gif", "png", "WEBP")):
        Image.new("RGB", (9, 8), (number, 0, 0)).save(tmp_path / f"{number}.{suffix}")
    options = {**OPTIONS, "class_mode": None, "shuffle": False}
    made = ImageDataGenerator(device="cpu")
    assert made.flow_from_directory(tmp_path, **options).filenames == ["./2.png"]
    flow = made.flow_from_directory(tmp_path, extensions=["webp", ".gif"], **options)
    assert [Path(name).name for name in flow.filenames] == ["0.webp", "1.gif", "3.WEBP"]
    assert len(next(flow)) == 3
    for extensions, error, message in (
        ("webp", TypeError, r"extensions=\['webp'\]"),
        (["wepb"], ValueError, "did you mean '.webp'"),
        (["heic"], ValueError, "pillow-heif"),
        ([], TypeError, "list of file extensions"),
    ):
        with pytest.raises(error, match=message):
            made.flow_from_directory(tmp_path, extensions=extensions, **options)


def test_extensions_of_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    Image.new("RGB", (9, 8)).save(tmp_path / "a.webp")
    frame = pandas.DataFrame({"filename": ["a.webp"]})
    made = ImageDataGenerator(device="cpu")
    flow = made.flow_from_dataframe(frame, tmp_path, class_mode=None, extensions=["webp"], **OPTIONS)
    assert flow.filenames == ["a.webp"]
    with (
        pytest.warns(UserWarning, match=r"its extension is none of"),
        pytest.raises(ValueError, match="no usable rows"),
    ):
        made.flow_from_dataframe(frame, tmp_path, class_mode=None, **OPTIONS)
