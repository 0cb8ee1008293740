"""A bad file never spoils its batch: it is named with a reason, and the others' pixels are those of a clean run."""

from __future__ import annotations

import io
import os
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from gpuseq.base import forks
from gpuseq.base.errors import ImageFileError, StorageError
from gpuseq.decode import host as decode
from gpuseq.decode import pillow
from gpuseq.decode.options import DecodeOptions
from gpuseq.files import reading as readers
from gpuseq.sources.files import FileSource
from gpuseq.sources.options import OnError
from tests.compare import assert_same
from tests.decode.imagefiles import broken, matrix, picture

DECODERS = ["pillow", pytest.param("dali", marks=pytest.mark.dali), pytest.param("nvimgcodec", marks=pytest.mark.dali)]


@pytest.fixture(params=DECODERS)
def options(request: pytest.FixtureRequest) -> DecodeOptions:
    if request.param != "pillow":
        pytest.importorskip("nvidia.dali.experimental.dynamic" if request.param == "dali" else "nvidia.nvimgcodec")
    return DecodeOptions(decoder=request.param, target_size=(20, 24), interpolation="bilinear", num_threads=2)


def write_good(folder: Path) -> list[str]:
    names = ("jpeg_420", "png_rgb", "jpeg_grey", "tiff_rgb", "bmp_rgb", "png_palette")
    paths = []
    for name in names:
        (folder / name).write_bytes(matrix()[name])
        paths.append(str(folder / name))
    return paths


def assert_isolated(good: list[str], bad: dict[str, str | None], options: DecodeOptions) -> None:
    """Mix the `bad` files (path -> part of the reason) with the good ones, and compare with the good ones alone."""
    clean = decode.decode_files(good, options)
    mixed = list(good)
    for number, path in enumerate(bad):
        mixed.insert(1 + 2 * number % len(mixed), path)
    results = decode.decode_files(mixed, options)
    survivors = []
    for path, result in zip(mixed, results, strict=True):
        if path not in bad:
            survivors.append(result)
            continue
        assert isinstance(result, ImageFileError), f"{path!r} was decoded"
        assert result.path == path
        reason = result.reason
        assert reason
        assert "\n" not in reason
        assert not re.search("0x[0-9a-f]{8}", reason)  # no object addresses
        wanted = bad[path]
        assert wanted is None or wanted in reason, f"{path!r}: {reason}"
    for after, before in zip(survivors, clean, strict=True):
        assert_same(after, before)


def test_damaged_files(tmp_path: Path, options: DecodeOptions) -> None:
    bad = {}
    for name, encoded in broken().items():
        (tmp_path / f"bad_{name}").write_bytes(encoded)
        bad[str(tmp_path / f"bad_{name}")] = {"empty": "the file is empty"}.get(name)
    assert_isolated(write_good(tmp_path), bad, options)


@pytest.mark.parametrize("name", ["jpeg_420", "jpeg_progressive", "png_rgb", "bmp_rgb", "tiff_rgb", "ppm_rgb"])
def test_files_cut_anywhere_fail_where_pillow_fails(name: str, options: DecodeOptions) -> None:
    whole = matrix()[name]
    cuts = [whole[:length] for length in {*range(1, 60), *range(60, len(whole), len(whole) // 12), len(whole) - 1}]
    with_pillow = decode.decode(cuts, DecodeOptions(decoder="pillow", target_size=(20, 24), interpolation="bilinear"))
    assert any(isinstance(result, ImageFileError) for result in with_pillow)
    for got, want in zip(decode.decode(cuts, options), with_pillow, strict=True):
        if isinstance(want, ImageFileError):
            assert isinstance(got, ImageFileError)
            assert got.reason == want.reason
        else:
            assert_same(got, want)


def test_reasons_say_what_is_wrong() -> None:
    names = {
        "empty": "the file is empty",
        "text": "not an image that Pillow can read (it starts with b'this is ')",
        "jpeg_cut_header": "the file ends within its header",
        "jpeg_truncated": "image file is truncated (",
        "gif_truncated": "it begins like GIF, but its header cannot be read",
    }
    results = decode.decode([broken()[name] for name in names], DecodeOptions())
    for result, reason in zip(results, names.values(), strict=True):
        assert isinstance(result, ImageFileError)
        assert result.reason.startswith(reason)


def test_each_format_is_asked_once_about_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's plugins come in two lots: those of the first have said already that the file is none of theirs."""
    Image.init()
    asked: list[str] = []

    def watched(name: str, accept: Callable[[bytes], bool | str]) -> Callable[[bytes], bool | str]:
        return lambda prefix: (asked.append(name), accept(prefix))[1]

    for name, (factory, accept) in list(Image.OPEN.items()):
        if accept:
            monkeypatch.setitem(Image.OPEN, name, (factory, watched(name, accept)))
    with pytest.raises(ImageFileError, match="not an image that Pillow can read"):
        pillow.open_image(b"no image" * 99, None, "text.png")
    assert "PNG" in asked
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_half_done_import_is_no_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: OnError) -> None:
    """A child that could not import Pillow's plugins would else pass over every file that it has."""
    monkeypatch.setattr(forks, "_inherited", {"Pillow's preinit()"})
    pillow._once.cache_clear()  # as in a process that has opened no image
    source = FileSource(write_good(tmp_path), DecodeOptions(target_size=(4, 4)), on_error=on_error)
    with pytest.raises(forks.InheritedLockError, match=r"Pillow's preinit\(\)"):
        source.fetch(np.arange(2))
    assert not source.bad_files


def test_forks_wait_for_pillows_plugins_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_for: list[str] = []
    forks_wait = pillow.forks_wait

    def watched(work: str) -> AbstractContextManager[None]:
        waited_for.append(work)
        return forks_wait(work)

    monkeypatch.setattr(pillow, "forks_wait", watched)
    pillow._once.cache_clear()  # as in a process that has opened no image
    for _ in range(3):
        assert pillow.open_image(matrix()["png_rgb"], None, "name").format == "PNG"
    assert waited_for == ["Pillow's preinit()"]
    for _ in range(3):
        with pytest.raises(ImageFileError):
            pillow.open_image(b"no image" * 99, None, "name")
    assert waited_for == ["Pillow's preinit()", "Pillow's init()"]


def test_wrong_extensions_are_read_by_content(tmp_path: Path, options: DecodeOptions) -> None:
    path = tmp_path / "a_png_in_truth.jpg"
    path.write_bytes(matrix()["png_rgb"])
    as_jpg, as_png = decode.decode_files([str(path), write_good(tmp_path)[1]], options)
    assert_same(as_jpg, as_png)


def test_corrupt_entropy_data_gives_what_pillow_gives(options: DecodeOptions) -> None:
    damaged = bytearray(matrix()["jpeg_420"])
    damaged[-200] ^= 0x10
    with_pillow = DecodeOptions(target_size=(20, 24), interpolation="bilinear")
    (got,), (want,) = decode.decode([bytes(damaged)], options), decode.decode([bytes(damaged)], with_pillow)
    (clean,) = decode.decode([matrix()["jpeg_420"]], options)
    assert_same(got, want)
    assert (np.asarray(want) != np.asarray(clean)).any()


def bomb(side: int = 30_000) -> bytes:
    """Return a small PNG that says, and holds, `side` x `side` zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    line = bytes(1 + side // 8)
    body = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_from_its_header(
    tmp_path: Path, options: DecodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb())
    assert path.stat().st_size < 150_000
    good = write_good(tmp_path)
    assert_isolated(good, {str(path): "30000x30000 is 900,000,000 pixels, more than the limit of"}, options)
    decoded: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    tracemalloc.start()
    (refused,) = decode.decode_files([str(path)], options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(refused, ImageFileError)
    assert decoded == []
    assert peak < 2_000_000


def test_a_jpeg_whose_header_lies_about_its_size(options: DecodeOptions) -> None:
    encoded = bytearray(matrix()["jpeg_420"])
    start = encoded.index(b"\xff\xc0")
    encoded[start + 5 : start + 9] = struct.pack(">HH", 65000, 65000)
    (refused,) = decode.decode([bytes(encoded)], options)
    assert isinstance(refused, ImageFileError)
    assert "65000x65000" in refused.reason


def vanished(folder: Path) -> str:
    path = folder / "vanished.png"
    path.write_bytes(matrix()["png_rgb"])
    path.unlink()
    return str(path)


def directory(folder: Path) -> str:
    (folder / "a_directory.png").mkdir()
    return str(folder / "a_directory.png")


def symlink_loop(folder: Path) -> str:
    (folder / "loop.png").symlink_to(folder / "pool.png")
    (folder / "pool.png").symlink_to(folder / "loop.png")
    return str(folder / "loop.png")


def dangling(folder: Path) -> str:
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    return str(folder / "dangling.png")


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.png")
    return str(folder / "pipe.png")


def below_a_file(folder: Path) -> str:
    (folder / "plain.txt").write_text("x")
    return str(folder / "plain.txt" / "image.png")


def too_long(folder: Path) -> str:
    return str(folder / ("x" * 300 + ".png"))


def null_byte(folder: Path) -> str:
    return str(folder / "null\0byte.png")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (vanished, "no such file or directory"),
        (directory, "is a directory"),
        (symlink_loop, "too many levels of symbolic links"),
        (dangling, "no such file or directory"),
        (pipe, "is a named pipe"),
        (below_a_file, "not a directory"),
        (too_long, "file name too long"),
        (null_byte, "null"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, options: DecodeOptions, make: Callable[[Path], str], reason: str
) -> None:
    assert_isolated(write_good(tmp_path), {make(tmp_path): reason}, options)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [("bmp_rgb", 14, 93), ("bmp_palette", 14, 197), ("bmp_1bit", 14, 93), ("png_rgb_gamma", b"gAMA", 255)],
)
def test_a_header_that_pillow_refuses_is_refused_by_every_decoder(
    tmp_path: Path, options: DecodeOptions, name: str, place: Any, value: int
) -> None:
    """NVIDIA's CPU codecs read past an unknown header size of BMP, and a wrong checksum of PNG."""
    encoded = bytearray(matrix()[name])
    at = place if isinstance(place, int) else encoded.index(place) + 8  # the chunk's checksum
    encoded[at] ^= value
    (tmp_path / name).write_bytes(encoded)
    with pytest.raises((OSError, SyntaxError)):
        Image.open(tmp_path / name).load()
    (found,) = decode.decode_files([str(tmp_path / name)], options)
    assert isinstance(found, ImageFileError)
    (wanted,) = decode.decode_files([str(tmp_path / name)], replace(options, decoder="pillow"))
    assert isinstance(wanted, ImageFileError)
    assert found.reason == wanted.reason


def test_a_file_that_is_far_larger_than_its_picture_is_not_read(
    tmp_path: Path, options: DecodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file of 4 GiB was read whole, in 28 s, into 8 GB of memory."""
    bad: dict[str, str | None] = {}
    for name, begin, reason in [
        ("empty.jpg", b"", "not an image that Pillow can read"),
        ("small.jpg", matrix()["jpeg_420"], "has 4295.0 MB, and its header says"),
        ("small.png", matrix()["png_rgb"], "has 4295.0 MB, and its header says"),
        ("log.jpg", b"12:00 started\n", "not an image that Pillow can read"),
    ]:
        path = tmp_path / name
        path.write_bytes(begin)
        os.truncate(path, 2**32)
        bad[str(path)] = reason
    sizes: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(2**63 if size is None or size < 0 else size)
            return super().read(size)

    monkeypatch.setattr(readers.io, "FileIO", Counted)
    assert_isolated(write_good(tmp_path), bad, options)
    assert max(sizes) <= readers.PREFIX


def test_no_picture_is_taken_for_one_that_is_too_large(
    tmp_path: Path, options: DecodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever format: here all are looked at before they are read."""
    paths = []
    for name, encoded in matrix().items():
        (tmp_path / name).write_bytes(encoded)
        paths.append(str(tmp_path / name))
    before = decode.decode_files(paths, options)
    monkeypatch.setattr(readers, "LARGE", 0)
    after = decode.decode_files(paths, options)
    for path, was, now in zip(paths, before, after, strict=True):
        assert isinstance(was, ImageFileError) == isinstance(now, ImageFileError), f"{path}: {now}"


def test_a_file_without_permission_is_no_bad_file(
    tmp_path: Path, options: DecodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_good(tmp_path)
    locked = tmp_path / "locked.png"
    locked.write_bytes(matrix()["png_rgb"])
    locked.chmod(0)
    if os.geteuid() == 0:  # root may read everything
        really_open = os.open

        def refuse(path: str, flags: int) -> int:
            if path == str(locked):
                raise PermissionError(13, "Permission denied", path)
            return really_open(path, flags)

        monkeypatch.setattr(readers.os, "open", refuse)
    with pytest.raises(StorageError, match=r"locked\.png': permission denied \(1 attempt\)"):
        decode.decode_files([*map(str, good), str(locked)], options)


@pytest.mark.parametrize(
    "name",
    [
        "with spaces.png",
        "with\nnewline.png",
        "日本語 ümläut 🐈.png",
        "-dash.png",
        "100%.png",
        "a;b&c'd\"e.png",
        b"\xff\xfe.png",
    ],
)
def test_odd_names(tmp_path: Path, options: DecodeOptions, name: str | bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name) if isinstance(name, bytes) else str(tmp_path / name)
    try:
        with open(path, "wb") as stream:
            stream.write(matrix()["png_rgb"])
    except OSError:
        pytest.skip("this file system cannot have such a name")
    (image,) = decode.decode_files([os.fsdecode(path)], options)
    (plain,) = decode.decode([matrix()["png_rgb"]], options)
    assert_same(image, plain)


def test_all_bad_is_all_named(tmp_path: Path, options: DecodeOptions) -> None:
    paths = [str(tmp_path / f"missing{number}.png") for number in range(9)]
    results = decode.decode_files(paths, options)
    assert [isinstance(result, ImageFileError) and result.path for result in results] == paths


def test_errors_do_not_keep_the_bytes_alive(tmp_path: Path) -> None:
    path = tmp_path / "bad.bmp"
    Image.fromarray(picture(3, size=(1000, 1200))).save(path)
    path.write_bytes(path.read_bytes()[:3_200_000])
    decode.decode_files([str(path)], DecodeOptions())  # lets Pillow load its plugins
    tracemalloc.start()
    results = decode.decode_files([str(path)] * 8, DecodeOptions(num_threads=2))
    current, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(isinstance(result, ImageFileError) for result in results)
    assert peak > 3_000_000
    assert current < 1_000_000


def test_a_programming_error_is_no_bad_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*arguments: object) -> None:
        raise ZeroDivisionError("defect")

    monkeypatch.setattr(decode, "load_pixels", defect)
    with pytest.raises(ZeroDivisionError, match="defect"):
        decode.decode([matrix()["png_rgb"]] * 5, DecodeOptions(decoder="pillow", num_threads=2))


def test_truncated_data_may_be_allowed_as_in_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    (image,) = decode.decode([broken()["jpeg_truncated"]], DecodeOptions())
    assert not isinstance(image, ImageFileError)
    assert image.shape == picture(3).shape
