"""The Pillow path gives what Keras' load_img and img_to_array give, value by value."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from gpuseq.base.errors import ImageFileError, MissingDependencyError
from gpuseq.base.types import ColorMode, Interpolation, literals
from gpuseq.decode import host as decode
from gpuseq.decode import pillow as decode_pillow
from gpuseq.decode.options import DecodeOptions
from tests.compare import assert_same
from tests.decode.imagefiles import SIZE, matrix, picture

MODES = literals(ColorMode)
INTERPOLATIONS = literals(Interpolation)
TARGETS = (None, (24, 24), (64, 40), SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, encoded in matrix().items():
        (folder / name).write_bytes(encoded)
    return folder


def by_keras(path: Path, **options: Any) -> np.ndarray | None:
    """What Keras gives, in the smallest dtype that holds it; None where Keras raises."""
    keras = pytest.importorskip("keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about transparency, which we do not pass on
        try:
            image = keras.utils.load_img(path, **options)
        except Exception:
            return None
    dtype = {"I;16": "uint16", "I": "int32"}.get(image.mode, "uint8")
    return keras.utils.img_to_array(image, data_format="channels_last", dtype=dtype)


def assert_as_keras(folder: Path, names: list[str], **options: Any) -> None:
    expected = [by_keras(folder / name, **options) for name in names]
    actual = decode.decode_files([str(folder / name) for name in names], DecodeOptions(**options, num_threads=2))
    for name, want, got in zip(names, expected, actual, strict=True):
        if want is None:
            assert isinstance(got, ImageFileError), name
        else:
            assert not isinstance(got, ImageFileError), got
            assert_same(got, want, message=f"{name} {options}: ")


@pytest.mark.keras
@pytest.mark.parametrize("color_mode", MODES)
@pytest.mark.parametrize("target_size", TARGETS)
def test_every_format_and_mode_equals_keras(folder: Path, color_mode: str, target_size: Any) -> None:
    assert_as_keras(folder, list(matrix()), color_mode=color_mode, target_size=target_size)


@pytest.mark.keras
@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("color_mode", MODES)
def test_every_interpolation_equals_keras(
    folder: Path, color_mode: str, interpolation: str, keep_aspect_ratio: bool
) -> None:
    names = ["jpeg_420", "png_rgba", "png_grey16", "png_palette_trns", "tiff_grey32", "tiff_rgb_orientation"]
    for target_size in ((20, 31), (90, 17), (16, 16), (111, 113)):
        assert_as_keras(
            folder,
            names,
            color_mode=color_mode,
            target_size=target_size,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
        )


def test_deep_grey_keeps_its_values(folder: Path) -> None:
    paths = [str(folder / name) for name in ("png_grey16", "tiff_grey32", "png_grey")]
    deep, wide, plain = decode.decode_files(paths, DecodeOptions(color_mode="grayscale"))
    assert_same(deep, picture(1, np.uint16))
    assert_same(wide, picture(1, np.int32))
    assert_same(plain, picture(1))


@pytest.mark.parametrize("name", [f"jpeg_exif{number}" for number in range(1, 9)] + ["png_rgb_exif", "png_rgb"])
def test_exif_orientation_equals_pillow(folder: Path, name: str) -> None:
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(matrix()[name])))
    for target_size in (None, (20, 31)):
        options = DecodeOptions(exif_orientation=True, target_size=target_size, interpolation="bilinear")
        want = turned if target_size is None else turned.resize((31, 20), Image.Resampling.BILINEAR)
        (got,) = decode.decode_files([str(folder / name)], options)
        assert_same(got, np.asarray(want.convert("RGB")))


def test_exif_orientation_is_ignored_by_default(folder: Path) -> None:
    plain, turned = decode.decode_files([str(folder / f"jpeg_exif{n}") for n in (1, 6)], DecodeOptions())
    assert_same(turned, plain)


def test_decode_of_buffers_equals_decode_of_files(folder: Path) -> None:
    names = list(matrix())
    options = DecodeOptions(target_size=(24, 32), interpolation="bicubic")
    from_files = decode.decode_files([str(folder / name) for name in names], options)
    from_buffers = decode.decode([matrix()[name] for name in names], options, names)
    for one, other in zip(from_files, from_buffers, strict=True):
        assert_same(one, other)


def test_a_missing_buffer_is_an_error_with_its_name() -> None:
    good = matrix()["png_rgb"]
    first, second = decode.decode([None, good], DecodeOptions(), ["gone.png", "here.png"])
    assert isinstance(first, ImageFileError)
    assert first.path == "gone.png"
    assert_same(second, picture(3))
    (unnamed,) = decode.decode([None], DecodeOptions())
    assert isinstance(unnamed, ImageFileError)
    assert unnamed.path == "<image 0>"
    with pytest.raises(ValueError, match="2 names for 1 images"):
        decode.decode([good], DecodeOptions(), ["a", "b"])


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_into_a_block_equals_one_by_one(folder: Path, num_threads: int) -> None:
    paths = [str(folder / name) for name in matrix() if name != "ico"] * 2
    options = DecodeOptions(target_size=(19, 23), interpolation="lanczos", num_threads=num_threads)
    block = np.full((len(paths), 19, 23, 3), 7, np.uint8)
    assert decode.decode_into(paths, options, block) == [None] * len(paths)
    assert_same(block, np.stack(decode.decode_files(paths, options)))


def test_into_a_block_leaves_bad_rows_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = [str(folder / "png_rgb"), str(tmp_path / "bad.png"), str(folder / "jpeg_420")]
    options = DecodeOptions(target_size=SIZE)
    block = np.full((3, *SIZE, 3), 7, np.uint8)
    errors = decode.decode_into(paths, options, block)
    assert [error and error.path for error in errors] == [None, paths[1], None]
    assert_same(block[0], picture(3))
    assert (block[1] == 7).all()
    assert_same(block[2], decode.decode_files(paths[2:], options)[0])


def test_deep_grey_does_not_fit_a_uint8_block_but_a_float_one(folder: Path) -> None:
    paths = [str(folder / "png_grey16"), str(folder / "png_grey"), str(folder / "tiff_grey32")]
    options = DecodeOptions(color_mode="grayscale", target_size=SIZE)
    errors = decode.decode_into(paths, options, np.empty((3, *SIZE, 1), np.uint8))
    assert [error and error.reason for error in errors] == [
        "its uint16 pixels do not fit a uint8 block",
        None,
        "its int32 pixels do not fit a uint8 block",
    ]
    block = np.empty((3, *SIZE, 1), np.float32)
    assert decode.decode_into(paths, options, block) == [None] * 3
    assert_same(block[0], picture(1, np.uint16).astype(np.float32))
    assert_same(block[2], picture(1, np.int32).astype(np.float32))


def test_blocks_of_the_wrong_shape_are_refused(folder: Path) -> None:
    path = str(folder / "png_rgb")
    with pytest.raises(ValueError, match=r"out must have shape \(1, 8, 9, 3\); got \(1, 9, 8, 3\)"):
        decode.decode_into([path], DecodeOptions(target_size=(8, 9)), np.empty((1, 9, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="target_size"):
        decode.decode_into([path], DecodeOptions(), np.empty((1, 8, 9, 3), np.uint8))


def test_nothing_in_nothing_out() -> None:
    assert decode.decode_files([], DecodeOptions()) == []
    assert decode.decode_into([], DecodeOptions(target_size=(2, 2)), np.empty((0, 2, 2, 3), np.uint8)) == []
    assert list(decode.check_files([])) == []


@pytest.mark.parametrize("kind", [str, Path, os.fsencode, "buffer"])
def test_load_image_takes_what_keras_takes(folder: Path, kind: Any) -> None:
    path = folder / "png_rgb"
    image = decode.load_image(io.BytesIO(path.read_bytes()) if kind == "buffer" else kind(path), DecodeOptions())
    assert image.mode == "RGB"
    assert_same(np.asarray(image), picture(3))


def test_load_image_refuses_other_types() -> None:
    with pytest.raises(TypeError, match=r"path-like or io\.BytesIO"):
        decode.load_image(3, DecodeOptions())  # type: ignore[arg-type]


def test_load_image_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="no such file") as caught:
        decode.load_image(tmp_path / "missing.png", DecodeOptions())
    assert caught.value.path == str(tmp_path / "missing.png")


def test_decoders_are_checked() -> None:
    assert decode.check_decoder("auto") in ("pillow", "simplejpeg")
    assert decode.check_decoder("pillow") == "pillow"
    with pytest.raises(ValueError, match="got 'opencv'"):
        decode.check_decoder("opencv")


@pytest.mark.parametrize(("decoder", "package"), [("dali", "nvidia"), ("nvimgcodec", "nvidia")])
def test_a_missing_decoder_names_its_extra(monkeypatch: pytest.MonkeyPatch, decoder: str, package: str) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"gpuseq\[dali\]"):
        decode.check_decoder(decoder)


def test_check_files_names_what_fails(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    paths = [str(folder / "png_rgb"), str(tmp_path / "bad.png"), str(folder / "jpeg_420")] * 30
    found = list(decode.check_files(paths, DecodeOptions(num_threads=2)))
    assert [path for path, _ in found] == paths
    assert [reason for _, reason in found] == [None, "the file is empty", None] * 30


def test_check_files_shows_progress(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(folder / "png_rgb")] * 3
    assert len(list(decode.check_files(paths, progress=True))) == 3
    assert "3/3" in capsys.readouterr().err


@pytest.fixture
def small_pillow_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pillow's limit between one and two times the test images' size: it warns and does not refuse."""
    limit = SIZE[0] * SIZE[1] - 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    return limit


@pytest.mark.parametrize(
    "name", ["png_rgb", "jpeg_420", "tiff_rgb", "tiff_rgb_adobe_deflate", "bmp_rgb", "webp_rgb", "gif"]
)
def test_large_images_neither_warn_nor_fail(folder: Path, small_pillow_limit: int, name: str) -> None:
    if name not in matrix():
        pytest.skip(f"this Pillow cannot write {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(Image.open(io.BytesIO(matrix()[name])).convert("RGB"))
    (image,) = decode.decode_files([str(folder / name)], DecodeOptions(num_threads=1))
    assert_same(image, expected)


def test_the_limit_is_pillows_or_ours(folder: Path, small_pillow_limit: int) -> None:
    paths = [str(folder / "png_rgb")]
    assert decode_pillow.pixel_limit(DecodeOptions()) == 2 * small_pillow_limit
    (refused,) = decode.decode_files(paths, DecodeOptions(max_pixels=small_pillow_limit))
    assert isinstance(refused, ImageFileError)
    assert refused.reason == (
        "53x37 is 1,961 pixels, more than the limit of 1,960 "
        "(it could be a decompression bomb; max_pixels raises the limit)"
    )
    (allowed,) = decode.decode_files(paths, DecodeOptions(max_pixels=small_pillow_limit + 1))
    assert_same(allowed, picture(3))


def test_max_pixels_may_exceed_pillows_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("png_rgb", "tiff_rgb"):
        (refused,) = decode.decode_files([str(folder / name)], DecodeOptions())
        assert isinstance(refused, ImageFileError)
        (allowed,) = decode.decode_files([str(folder / name)], DecodeOptions(max_pixels=10_000))
        assert_same(allowed, picture(3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_pillow.pixel_limit(DecodeOptions()) is None
