"""simplejpeg gives Pillow's pixels for what it decodes, leaves the rest to Pillow, and no file is bad for one alone."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpuseq import ImageDataGenerator
from gpuseq.base.errors import ImageFileError, MissingDependencyError
from gpuseq.decode import host as decode
from gpuseq.decode import simplejpeg as decode_simplejpeg
from gpuseq.decode.options import DecodeOptions
from tests.compare import assert_same
from tests.decode.imagefiles import broken, matrix, picture

simplejpeg = pytest.importorskip("simplejpeg", reason="the test extra brings it")


FILES: set[bytes] = set()
"""Those of the test that runs."""


@pytest.fixture(autouse=True)
def decoded_by_it(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the mode of each file of this test that simplejpeg has decoded whole."""
    assert decode_simplejpeg.problem() is None  # compares once a process, and what it decodes is not to be counted
    modes: list[str] = []
    real = decode_simplejpeg._decode
    FILES.clear()

    def watched(encoded: bytes, mode: str, room: np.ndarray) -> np.ndarray | None:
        pixels = real(encoded, mode, room)
        # Threads that an earlier test has left may still decode files of their own.
        if pixels is not None and encoded in FILES:
            modes.append(mode)
        return pixels

    monkeypatch.setattr(decode_simplejpeg, "_decode", watched)
    return modes


def by_both(encoded: list[bytes], **options: Any) -> list[tuple[Any, Any]]:
    """Decode by Pillow and by simplejpeg."""
    FILES.update(encoded)
    made = [decode.decode(encoded, DecodeOptions(decoder=name, **options)) for name in ("pillow", "simplejpeg")]
    return list(zip(*made, strict=True))


def assert_equal(wanted: Any, got: Any, message: str = "") -> None:
    if isinstance(wanted, ImageFileError):
        assert isinstance(got, ImageFileError), message
        assert got.reason == wanted.reason, message
    else:
        assert not isinstance(got, ImageFileError), f"{message}{got}"
        assert_same(got, wanted, message=message)


def jpeg(size: tuple[int, int], seed: int = 0, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(3, size=size, seed=seed)).save(file, "JPEG", **options)
    FILES.add(file.getvalue())
    return file.getvalue()


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_every_sampling_size_and_quality(subsampling: str, decoded_by_it: list[str]) -> None:
    encoded = [
        simplejpeg.encode_jpeg(picture(3, size=(rows, cols), seed=rows), quality, "RGB", subsampling)
        for rows in (1, 2, 7, 8, 15, 16, 17, 33)
        for cols in (1, 3, 8, 16, 31, 49)
        for quality in (30, 90, 100)
    ]
    for number, (wanted, got) in enumerate(by_both(encoded)):
        assert_equal(wanted, got, f"file {number}: ")
    assert decoded_by_it == ["RGB"] * len(encoded)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 2}])
def test_every_coding(options: dict[str, Any], decoded_by_it: list[str]) -> None:
    encoded = [jpeg((61, 45 + seed), seed, quality=80, **options) for seed in range(4)]
    grey = io.BytesIO()
    Image.fromarray(picture(1)[:, :, 0]).save(grey, "JPEG", **options)
    for wanted, got in by_both(encoded):
        assert_equal(wanted, got)
    for wanted, got in by_both([grey.getvalue()], color_mode="grayscale"):
        assert_equal(wanted, got)
    assert decoded_by_it == ["RGB"] * 4 + ["L"]


@pytest.mark.each_cpu_engine
@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale", "rgba"])
@pytest.mark.parametrize("target_size", [None, (24, 40), (37, 53)])
def test_each_file_in_each_mode_and_size(color_mode: Any, target_size: Any, keep_aspect_ratio: bool) -> None:
    files = {**matrix(), **broken()}
    options = {"color_mode": color_mode, "target_size": target_size, "keep_aspect_ratio": keep_aspect_ratio}
    pairs = by_both(list(files.values()), interpolation="bilinear", num_threads=2, **options)
    for name, (wanted, got) in zip(files, pairs, strict=True):
        assert_equal(wanted, got, f"{name}: ")


def test_an_orientation_that_counts_is_pillows(decoded_by_it: list[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for wanted, got in by_both([jpeg((20, 30), exif=exif)], exif_orientation=True):
        assert_equal(wanted, got)
        assert got.shape == (30, 20, 3)
    assert decoded_by_it == []


WHOLE = [jpeg((40, 50), quality=75), jpeg((40, 50), quality=75, progressive=True)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_the_same_damage(data: st.DataObject) -> None:
    encoded = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(2, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    encoded = encoded[: data.draw(st.integers(len(encoded) // 2, len(encoded)))] + data.draw(st.binary(max_size=8))
    for wanted, got in by_both([bytes(encoded)], max_pixels=10_000):
        assert_equal(wanted, got)


def test_threads_share_no_room(tmp_path: Path, decoded_by_it: list[str]) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.jpg").write_bytes(jpeg((30 + number % 7, 60 - number), number))
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    common: dict[str, Any] = {"target_size": (21, 17), "interpolation": "bicubic"}
    wanted = decode.decode_files(paths, DecodeOptions(decoder="pillow", **common))
    got = decode.decode_files(paths, DecodeOptions(decoder="simplejpeg", num_threads=8, **common))
    for pair in zip(wanted, got, strict=True):
        assert_equal(*pair)
    assert len(decoded_by_it) == 40


def test_too_many_pixels_are_refused_from_the_header(decoded_by_it: list[str]) -> None:
    for wanted, got in by_both([jpeg((40, 50))], max_pixels=100):
        assert isinstance(wanted, ImageFileError)
        assert_equal(wanted, got)
    assert decoded_by_it == []


@pytest.fixture
def unproven() -> Any:
    """Forget the comparison, before and after."""
    decode_simplejpeg.problem.cache_clear()
    yield
    decode_simplejpeg.problem.cache_clear()


def test_auto_is_simplejpeg_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, unproven: None) -> None:
    assert decode.check_decoder("auto") == "simplejpeg"
    decode_simplejpeg.problem.cache_clear()
    monkeypatch.setattr(decode_simplejpeg, "_first_difference", lambda: pytest.fail("there is nothing to compare"))
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert decode.check_decoder("auto") == "pillow"


def test_one_that_does_not_import_leaves_the_files_to_pillow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unproven: None
) -> None:
    """As one that was built for another NumPy."""
    (tmp_path / "simplejpeg.py").write_text("raise ValueError('numpy.dtype size changed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "simplejpeg")
    decode_simplejpeg.problem.cache_clear()
    assert decode.check_decoder("auto") == "pillow"
    assert decode_simplejpeg.problem() == "it does not import: numpy.dtype size changed"


def test_one_that_decodes_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch, unproven: None) -> None:
    """As with a libjpeg that upsamples chroma otherwise."""
    real = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda *given, **named: real(*given, **named | {"fastupsample": True})
    )
    assert decode.check_decoder("auto") == "pillow"
    with pytest.raises(MissingDependencyError, match=r'differ on baseline 4:2:2\. .*decoder="pillow"'):
        decode.check_decoder("simplejpeg")


def test_the_comparison_minds_no_limit_of_pillows(monkeypatch: pytest.MonkeyPatch, unproven: None) -> None:
    """A limit on the user's files is not one on these, whichever of the two is set first."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_simplejpeg.problem() is None


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(MissingDependencyError, match=r"gpuseq\[jpeg\]"):
        decode.check_decoder("simplejpeg")


def test_a_generator_takes_it_and_says_so(tmp_path: Path, decoded_by_it: list[str]) -> None:
    (tmp_path / "class").mkdir()
    for number in range(3):
        (tmp_path / "class" / f"{number}.jpg").write_bytes(jpeg((30, 40), number))
    common: dict[str, Any] = {"target_size": (16, 16), "seed": 1, "verbose": False}
    generator = ImageDataGenerator(rotation_range=20)
    batches = [
        generator.flow_from_directory(tmp_path, decoder=name, **common) for name in ("simplejpeg", "pillow", "auto")
    ]
    assert "simplejpeg; files that it does not decode as Pillow does go to Pillow" in str(batches[0].explain())
    assert "simplejpeg (auto)" in str(batches[2].explain())
    images = [next(iterator)[0] for iterator in batches]
    assert_same(images[0], images[1])
    assert_same(images[2], images[1])
    assert decoded_by_it.count("RGB") >= 6
