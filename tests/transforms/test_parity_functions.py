"""The free functions equal Keras': the same arrays, the same dtypes, the same draws from the global stream."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.base.types import COLOR_CHANNELS, Interpolation, literals
from tests.cases import DTYPES, FILL_MODES, ORDERS, images
from tests.compare import assert_same, read_only
from tests.photos import KINDS, photo, write_photo
from tests.tolerance import PIXELS, unit_of

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
keras_files = pytest.importorskip("keras.src.utils.image_utils")
pytestmark = [pytest.mark.keras, pytest.mark.each_cpu_engine]

AXES = {
    "channels_first": {"row_axis": 1, "col_axis": 2, "channel_axis": 0},
    "channels_last": {"row_axis": 0, "col_axis": 1, "channel_axis": 2},
    "channels_first_turned": {"row_axis": 2, "col_axis": 1, "channel_axis": 0},
    "channels_last_turned": {"row_axis": 1, "col_axis": 0, "channel_axis": 2},
}
"""Keras' defaults are channels_first; with the column axis before the row axis it does not swap the axes."""


def image(
    dtype: str, axes: str = "channels_last", *, height: int = 13, width: int = 9, channels: int = 3
) -> np.ndarray:
    """Return one read-only image in the layout that `axes` means."""
    drawn = images((height, width, channels), dtype)
    return read_only(drawn if axes.startswith("channels_last") else drawn.transpose(2, 0, 1))


def both(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Call Keras' function and ours from the same place of the global stream; both must leave it alike."""
    start = np.random.get_state()
    wanted = getattr(keras_image, name)(*args, **kwargs)
    wanted_end = np.random.get_state()
    np.random.set_state(start)
    got = getattr(gpuseq, name)(*args, **kwargs)
    got_end = np.random.get_state()
    assert got_end[2] == wanted_end[2], "the global stream stands elsewhere"
    assert np.array_equal(got_end[1], wanted_end[1]), "the global stream was reseeded"
    return got, wanted


# ---------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_axis(dtype: str, axis: int) -> None:
    got, wanted = both("flip_axis", image(dtype), axis)
    assert_same(got, wanted)


def test_flip_axis_takes_lists() -> None:
    got, wanted = both("flip_axis", [[1, 2], [3, 4]], 0)
    assert_same(np.asarray(got), wanted)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("axes", AXES)
def test_apply_affine_transform(axes: str, fill_mode: str, order: int) -> None:
    got, wanted = both(
        "apply_affine_transform",
        image("float32", axes),
        theta=33.0,
        tx=2.5,
        ty=-1.25,
        shear=12.0,
        zx=0.8,
        zy=1.3,
        fill_mode=fill_mode,
        cval=17.0,
        order=order,
        **AXES[axes],
    )
    assert_same(np.asarray(got), wanted, atol=0.0 if order == 0 else PIXELS * unit_of(wanted))


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_apply_affine_transform_keeps_the_dtype(dtype: str, order: int) -> None:
    got, wanted = both(
        "apply_affine_transform", image(dtype), theta=70, zx=0.7, zy=0.6, order=order, **AXES["channels_last"]
    )
    assert_same(np.asarray(got), wanted, atol=0.0 if wanted.dtype.kind == "u" or order == 0 else PIXELS)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"theta": 90},
        {"theta": 180},
        {"tx": 3},
        {"ty": 3},
        {"tx": 0.5},
        {"shear": 45},
        {"zx": 0.5, "zy": 0.5},
        {"zx": 2},
    ],
    ids=lambda parameters: "_".join(parameters) or "identity",
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (8, 8), (5, 12)], ids=str)
def test_apply_affine_transform_at_the_edges(shape: tuple[int, int], parameters: dict[str, float]) -> None:
    single = image("float32", height=shape[0], width=shape[1], channels=2)
    for fill_mode in FILL_MODES:
        got, wanted = both(
            "apply_affine_transform", single, fill_mode=fill_mode, cval=5.0, **parameters, **AXES["channels_last"]
        )
        assert_same(np.asarray(got), wanted, atol=PIXELS, message=fill_mode)


@pytest.mark.parametrize("theta", [0.0, 0.7])
def test_transform_matrix_offset_center(theta: float) -> None:
    matrix = np.array([[np.cos(theta), -np.sin(theta), 3], [np.sin(theta), np.cos(theta), 4], [0, 0, 1]])
    got, wanted = both("transform_matrix_offset_center", matrix, 11, 6)
    assert_same(got, wanted)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("random_rotation", (40,)),
        ("random_shift", (0.3, 0.2)),
        ("random_shear", (30,)),
        ("random_zoom", ((0.5, 1.5),)),
        ("random_zoom", ((1, 1),)),
        ("random_zoom", ((1, 1.5),)),
        ("random_zoom", ((0.5, 1),)),
    ],
    ids=["rotation", "shift", "shear", "zoom", "no_zoom", "zoom_up", "zoom_down"],
)
@pytest.mark.parametrize("axes", ["channels_first", "channels_last"])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_random_geometry(name: str, args: tuple[Any, ...], axes: str, order: int) -> None:
    for fill_mode in FILL_MODES:
        got, wanted = both(
            name,
            image("float32", axes),
            *args,
            fill_mode=fill_mode,
            cval=3.0,
            interpolation_order=order,
            **AXES[axes],
        )
        assert_same(np.asarray(got), wanted, atol=0.0 if order == 0 else PIXELS, message=fill_mode)


def test_random_zoom_wants_two_numbers() -> None:
    with pytest.raises(ValueError, match=r"zoom_range.*two floats"):
        gpuseq.random_zoom(image("float32"), (1.0,))


@pytest.mark.parametrize(
    "axes",
    [{"row_axis": 0, "col_axis": 0, "channel_axis": 2}, {"row_axis": 1, "col_axis": 2, "channel_axis": 3}],
    ids=["twice", "too_large"],
)
def test_apply_affine_transform_refuses_axes_as_keras_does(axes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="axis|ind"):
        keras_image.apply_affine_transform(image("float32"), theta=1, **axes)
    with pytest.raises(ValueError, match="axis|ind"):
        gpuseq.apply_affine_transform(image("float32"), theta=1, **axes)


def test_apply_affine_transform_refuses_channels_in_the_middle_and_rank_two() -> None:
    with pytest.raises(ValueError, match="(?i)channels"):
        gpuseq.apply_affine_transform(image("float32"), theta=1, row_axis=0, col_axis=2, channel_axis=1)
    with pytest.raises(ValueError, match="(?i)multi-channel|rank|dimensions|shape"):
        gpuseq.apply_affine_transform(np.zeros((4, 4), np.float32), theta=1)


# ------------------------------------------------------------------------------------------------------------ colour


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("intensity", [-300.0, -12.5, 0.0, 7.25, 90.0])
def test_apply_channel_shift(intensity: float, dtype: str, axis: int) -> None:
    got, wanted = both("apply_channel_shift", image(dtype), intensity, channel_axis=axis)
    assert_same(np.asarray(got), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_channel_shift(dtype: str) -> None:
    got, wanted = both("random_channel_shift", image(dtype, "channels_first"), 50.0)
    assert_same(np.asarray(got), wanted)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_apply_brightness_shift(channels: int, dtype: str, scale: bool) -> None:
    for brightness in (0.0, 0.3, 0.5, 0.999, 1.0, 1.7, 5.0):
        got, wanted = both("apply_brightness_shift", image(dtype, channels=channels), brightness, scale)
        # A float64 image comes back through float32 levels in Keras, through float64 ones here.
        assert_same(np.asarray(got), wanted, atol=1e-4 if dtype == "float64" else 0.0, message=f"{brightness}")


@pytest.mark.parametrize("scale", [True, False])
def test_apply_brightness_shift_over_all_levels(scale: bool) -> None:
    levels = np.arange(256, dtype=np.float32).reshape(16, 16, 1)
    for brightness in np.linspace(0, 5, 101):
        got, wanted = both("apply_brightness_shift", levels, float(brightness), scale)
        assert_same(np.asarray(got), wanted, message=f"{brightness}")


@pytest.mark.parametrize("scale", [True, False])
def test_random_brightness(scale: bool) -> None:
    got, wanted = both("random_brightness", image("float32"), (0.2, 1.8), scale)
    assert_same(np.asarray(got), wanted)


def test_random_brightness_wants_two_numbers() -> None:
    with pytest.raises(ValueError, match=r"brightness_range.*two floats"):
        gpuseq.random_brightness(image("float32"), (1.0,))


# ------------------------------------------------------------------------------------------------------------- files


def assert_same_picture(got: Image.Image, wanted: Image.Image) -> None:
    """Compare two Pillow images: mode, size, pixels."""
    assert isinstance(got, Image.Image)
    assert got.mode == wanted.mode
    assert got.size == wanted.size
    assert_same(np.asarray(got), np.asarray(wanted))


@pytest.mark.parametrize("color_mode", COLOR_CHANNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_load_img(kind: str, color_mode: str, tmp_path: Path) -> None:
    path = write_photo(tmp_path / "picture", kind, height=21, width=34)
    wanted = keras_files.load_img(str(path), color_mode=color_mode)
    assert_same_picture(gpuseq.load_img(str(path), color_mode=color_mode), wanted)


@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
@pytest.mark.parametrize("interpolation", literals(Interpolation))
@pytest.mark.parametrize("size", [(10, 10), (40, 9), (21, 34), (7, 80)], ids=str)
def test_load_img_resizes_exactly(
    size: tuple[int, int], interpolation: str, keep_aspect_ratio: bool, tmp_path: Path
) -> None:
    for kind in ("png", "png_rgba", "png_gray"):
        path = write_photo(tmp_path / kind, kind, height=21, width=34)
        for color_mode in COLOR_CHANNELS:
            arguments = {
                "color_mode": color_mode,
                "target_size": size,
                "interpolation": interpolation,
                "keep_aspect_ratio": keep_aspect_ratio,
            }
            assert_same_picture(gpuseq.load_img(path, **arguments), keras_files.load_img(path, **arguments))


def test_load_img_takes_every_form_of_path(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "picture", "png")
    wanted = keras_files.load_img(path)
    for form in (path, str(path), os.fsencode(path), io.BytesIO(path.read_bytes())):
        assert_same_picture(gpuseq.load_img(form), wanted)


def test_load_img_refuses_what_keras_refuses(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "picture", "png")
    with pytest.raises(TypeError, match="path"):
        gpuseq.load_img(3)
    with pytest.raises(ValueError, match="color_mode"):
        gpuseq.load_img(path, color_mode="cmyk")
    with pytest.raises(ValueError, match=r"(?i)interpolation.*nearest"):
        gpuseq.load_img(path, target_size=(5, 5), interpolation="cubic")


@pytest.mark.parametrize("dtype", [None, "float32", "float64", "uint8"])
@pytest.mark.parametrize("data_format", [None, "channels_last", "channels_first"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_img_to_array(mode: str, data_format: str | None, dtype: str | None) -> None:
    pixels = photo(7, 5, 4)
    if mode == "I;16":
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16))
    else:
        picture = Image.fromarray(pixels).convert(mode)
    arguments = {"data_format": data_format, "dtype": dtype}
    assert_same(gpuseq.img_to_array(picture, **arguments), keras_files.img_to_array(picture, **arguments))


def test_img_to_array_refuses_rank_four() -> None:
    with pytest.raises(ValueError, match="shape"):
        gpuseq.img_to_array(np.zeros((1, 2, 3, 4)))
    with pytest.raises(ValueError, match="channels_last"):
        gpuseq.img_to_array(np.zeros((2, 3, 3)), data_format="channels_middle")


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("data_format", [None, "channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_array_to_img(dtype: str, channels: int, data_format: str | None, scale: bool) -> None:
    top = 255 if dtype.startswith("float") and not scale else None
    pixels = images((6, 9, channels), dtype)
    if top is not None:
        pixels = np.clip(pixels, 0, top)
    elif dtype == "uint16" and not scale and channels > 1:
        pixels = pixels // 257
    if data_format == "channels_first":
        pixels = pixels.transpose(2, 0, 1)
    arguments: dict[str, Any] = {"data_format": data_format, "scale": scale}
    assert_same_picture(gpuseq.array_to_img(pixels, **arguments), keras_files.array_to_img(pixels, **arguments))


def test_array_to_img_of_one_colour() -> None:
    flat = np.full((4, 5, 3), 9.0)
    assert_same_picture(gpuseq.array_to_img(flat), keras_files.array_to_img(flat))


def test_array_to_img_refuses_what_keras_refuses() -> None:
    with pytest.raises(ValueError, match="rank 3"):
        gpuseq.array_to_img(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="channel"):
        gpuseq.array_to_img(np.zeros((4, 4, 2)))
    with pytest.raises(ValueError, match="channels_last"):
        gpuseq.array_to_img(np.zeros((4, 4, 3)), data_format="rows_first")


@pytest.mark.parametrize(
    ("name", "channels", "arguments"),
    [
        ("a.png", 3, {}),
        ("a.png", 4, {}),
        ("a.png", 1, {"scale": False}),
        ("a.jpg", 3, {}),
        ("a.jpeg", 1, {}),
        ("a.bmp", 3, {"scale": False}),
        ("a.any", 3, {"file_format": "png"}),
        ("a.jpg", 3, {"quality": 30}),
    ],
)
def test_save_img_writes_the_same_bytes(name: str, channels: int, arguments: dict[str, Any], tmp_path: Path) -> None:
    pixels = photo(12, 10, channels).astype(np.float32)
    paths = {}
    for side, function in (("keras", keras_files.save_img), ("ours", gpuseq.save_img)):
        (tmp_path / side).mkdir()
        paths[side] = tmp_path / side / name
        function(paths[side], pixels, **arguments)
    assert paths["ours"].read_bytes() == paths["keras"].read_bytes()


def test_save_img_drops_alpha_for_jpeg_with_a_warning(tmp_path: Path) -> None:
    pixels = photo(12, 10, 4)
    with pytest.warns(UserWarning, match="RGBA"):
        keras_files.save_img(tmp_path / "keras.jpg", pixels)
    with pytest.warns(UserWarning, match="RGBA"):
        gpuseq.save_img(tmp_path / "ours.jpg", pixels)
    assert (tmp_path / "ours.jpg").read_bytes() == (tmp_path / "keras.jpg").read_bytes()


def test_save_img_takes_file_objects() -> None:
    pixels = photo(12, 10, 3)
    wanted, got = io.BytesIO(), io.BytesIO()
    keras_files.save_img(wanted, pixels, file_format="png")
    gpuseq.save_img(got, pixels, file_format="png")
    assert got.getvalue() == wanted.getvalue()


@pytest.mark.parametrize(
    ("name", "valid"), [("a.jpg", True), ("B.PNG", True), ("c.gif", False), ("d.txt", False), ("absent.jpg", False)]
)
def test_validate_filename(name: str, valid: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    if not name.startswith("absent"):
        path.write_bytes(b"anything")
    formats = gpuseq.Iterator.white_list_formats
    got, wanted = both("validate_filename", str(path), formats)
    assert got is wanted is valid


def test_a_folder_is_no_valid_filename(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    got, wanted = both("validate_filename", str(tmp_path / "folder.jpg"), ("jpg",))
    assert got is wanted is False


def test_list_pictures(tmp_path: Path) -> None:
    """Keras 2 had it, in keras_preprocessing: every file below a folder with one of the extensions."""
    for name in ("b.jpg", "a.JPEG", "deep/er/c.png", "deep/d.tiff", "notes.txt", "jpg", "e.gif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def found(**arguments: Any) -> set[str]:
        listed = [os.fspath(path) for path in gpuseq.list_pictures(str(tmp_path), **arguments)]
        assert len(listed) == len(set(listed))
        return {os.path.relpath(path, tmp_path) for path in listed}

    assert found() == {"b.jpg", "a.JPEG", os.path.join("deep", "er", "c.png"), os.path.join("deep", "d.tiff")}
    assert found(ext="png") == {os.path.join("deep", "er", "c.png")}
    assert found(ext=("gif", "jpg")) == {"e.gif", "b.jpg"}
