"""DALI and nvImageCodec on the CPU: where the routes send a file to them, every pixel is Pillow's."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq.base import forks
from gpuseq.base.errors import ImageFileError
from gpuseq.base.types import ColorMode, literals
from gpuseq.decode import dali as decode_dali
from gpuseq.decode import host as decode
from gpuseq.decode import nvimgcodec as decode_nvimgcodec
from gpuseq.decode.headers import read_header
from gpuseq.decode.options import DecodeOptions
from gpuseq.decode.routes import route
from tests.compare import assert_same
from tests.decode.imagefiles import broken, matrix, picture

pytestmark = pytest.mark.dali

MODULES: dict[str, Any] = {"dali": decode_dali, "nvimgcodec": decode_nvimgcodec}

# The rows of the table of what equals Pillow: these must reach the decoder, in mode "rgb".
MUST_ROUTE = {
    "jpeg_444", "jpeg_422", "jpeg_420", "jpeg_progressive", "jpeg_rgb", "jpeg_grey", "jpeg_exif6",
    "png_rgb", "png_rgba", "png_palette", "png_palette_trns", "png_grey", "png_1bit", "png_grey_alpha",
    "png_rgb_interlaced", "png_grey_2bit", "bmp_rgb", "bmp_palette", "ppm_rgb", "ppm_grey", "ppm_1bit",
    "tiff_rgb", "tiff_rgb_tiled", "tiff_rgb_pages", "tiff_rgb_big_endian",
    "webp_rgb", "webp_rgba", "webp_rgb_lossless",
}  # fmt: skip

# And these must not, in any mode: the others' pixels differ, or damage goes unnoticed.
MUST_NOT_ROUTE = {
    "tiff_palette", "tiff_grey_alpha", "tiff_1bit", "tiff_rgba", "tiff_rgb_orientation", "tiff_grey16", "tiff_grey32",
    "tiff_float", "tiff_rgb_lzw", "png_grey16", "png_rgb16", "png_rgba16", "png_grey_alpha16", "png_animated",
    "gif", "gif_animated", "ico", "avif_rgb", "webp_animated", "ppm_maximum", "ppm_grey16", "bmp_rgba",
    "jpeg2000_rgb", "jpeg2000_grey", "jpeg_cmyk", "tiff_rgb_adobe_deflate", "tiff_rgb_jpeg", "tiff_cmyk",
}  # fmt: skip


@pytest.fixture(params=list(MODULES))
def decoder(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip("nvidia.dali.experimental.dynamic" if request.param == "dali" else "nvidia.nvimgcodec")
    return request.param


@pytest.fixture
def calls(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Count what the decoder was given and what it decoded, so that Pillow behind it hides nothing."""
    calls: list[tuple[int, int]] = []
    really_decode = MODULES[decoder].decode_host

    def decode_host(encoded: Any, layout: Any, num_threads: int) -> Any:
        images = really_decode(encoded, layout, num_threads)
        calls.append((len(images), sum(image is not None for image in images)))
        return images

    monkeypatch.setattr(MODULES[decoder], "decode_host", decode_host)
    return calls


@pytest.mark.parametrize("color_mode", literals(ColorMode))
@pytest.mark.parametrize("exif_orientation", [False, True])
@pytest.mark.parametrize("target_size", [None, (20, 31)])
def test_the_whole_matrix_equals_pillow(
    decoder: Any, calls: list[tuple[int, int]], color_mode: Any, exif_orientation: bool, target_size: Any
) -> None:
    names = list(matrix())
    encoded = list(matrix().values())
    common: dict[str, Any] = {
        "color_mode": color_mode,
        "target_size": target_size,
        "interpolation": "bicubic",
        "keep_aspect_ratio": target_size is not None,
        "exif_orientation": exif_orientation,
        "num_threads": 2,
    }
    expected = decode.decode(encoded, DecodeOptions(decoder="pillow", **common), names)
    assert not calls
    actual = decode.decode(encoded, DecodeOptions(decoder=decoder, **common), names)
    for name, got, want in zip(names, actual, expected, strict=True):
        if isinstance(want, ImageFileError):
            assert isinstance(got, ImageFileError), name
            assert got.reason == want.reason
        else:
            assert_same(got, want, message=f"{name}: ")
    given, decoded = (sum(numbers) for numbers in zip(*calls, strict=True))
    routed = sum(
        route(read_header(data), DecodeOptions(color_mode=color_mode), decoder) is not None for data in encoded
    )
    assert given == decoded == routed > 25


def test_the_routes_are_those_of_the_table(decoder: Any) -> None:
    for name, encoded in matrix().items():
        layouts = {
            mode: route(read_header(encoded), DecodeOptions(color_mode=mode), decoder) for mode in literals(ColorMode)
        }
        if name in MUST_ROUTE:
            assert layouts["rgb"] == "RGB", name
            assert layouts["grayscale"] == "RGB", name
        if name in MUST_NOT_ROUTE:
            assert set(layouts.values()) == {None}, name
        if any(word in name for word in ("trns", "grey_alpha")):
            assert layouts["rgba"] is None, name
        if name in ("png_rgba", "webp_rgba"):
            assert layouts["rgba"] == ("RGBA" if decoder == "nvimgcodec" else None)
        assert route(read_header(encoded), DecodeOptions(), "pillow") is None
    assert route(None, DecodeOptions(), decoder) is None


def test_random_jpegs_equal_pillow(decoder: Any, calls: list[tuple[int, int]]) -> None:
    import io

    from PIL import Image

    rng = random.Random(5)
    encoded = []
    for seed in range(40):
        stream = io.BytesIO()
        pixels = picture(3, seed=seed, size=(rng.randint(1, 70), rng.randint(1, 70)))
        Image.fromarray(pixels).save(
            stream,
            "JPEG",
            quality=rng.randint(20, 98),
            subsampling=rng.randint(0, 2),
            progressive=rng.random() < 0.3,
            optimize=rng.random() < 0.3,
        )
        encoded.append(stream.getvalue())
    with_pillow = decode.decode(encoded, DecodeOptions())
    for got, want in zip(decode.decode(encoded, DecodeOptions(decoder=decoder)), with_pillow, strict=True):
        assert_same(got, want)
    assert calls == [(40, 40)]


def test_bad_samples_stand_alone(decoder: Any, calls: list[tuple[int, int]]) -> None:
    good, bad = matrix()["jpeg_420"], broken()["jpeg_truncated"]
    encoded = [bad if index in (3, 17, 18) else good for index in range(32)]
    results = MODULES[decoder].decode_host(encoded, "RGB", 2)
    assert [index for index, image in enumerate(results) if image is None] == [3, 17, 18]
    assert calls == [(32, 29)]
    (want,) = decode.decode([good], DecodeOptions())
    for image in results:
        if image is not None:
            assert_same(np.ascontiguousarray(image), want)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_batch_of_damaged_files_does_not_end_the_process(decoder: Any, num_threads: int) -> None:
    # In DALI 2.4 a file that it cannot parse beside one that it cannot decode aborts, hence a process of its own.
    script = f"""
from gpuseq.decode import {decoder} as decode_{decoder}
from tests.decode.imagefiles import matrix
whole = matrix()["png_rgb"]
lengths = sorted({{*range(41, 61), *range(60, len(whole), len(whole) // 12), len(whole) - 1}})
cut = [whole[:length] for length in lengths]
for _ in range(2):
    assert decode_{decoder}.decode_host(cut, "RGB", {num_threads}) == [None] * len(cut)
print("alive")
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "alive", f"exit status {done.returncode}: {done.stderr[-500:]}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_survives_the_decoders_that_it_inherits(decoder: Any, run_script: Any) -> None:
    """Children have none of their threads: to wait for one hangs, to join one ends the process by a signal."""
    script = f"""
import gc, os, signal, sys, threading
import numpy as np
from gpuseq.decode import {decoder} as decoder
from tests.decode.imagefiles import matrix

encoded = [matrix()["jpeg_420"]] * 3

def decode():
    return np.stack([np.asarray(image) for image in decoder.decode_host(encoded, "RGB", 2)])

wanted = decode()
gc.collect()
gc.disable()  # so that garbage is left to the children
held = [decoder.DeviceImages(None, 0, 2, 0.0) for _ in range(4)]
for images in held:
    images.decode(encoded)
del held[2:], images
begun, may_end = threading.Event(), threading.Event()
beside = threading.Thread(target=lambda: (decode(), begun.set(), may_end.wait()), daemon=True)
beside.start()
begun.wait()
for end in (os._exit, sys.exit):
    child = os.fork()
    if child == 0:
        signal.alarm(120)  # for ever, without it
        held.clear()
        gc.collect()
        end(0 if (decode() == wanted).all() else 1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == 0, (end, ended)
assert (decode() == wanted).all()
may_end.set()
beside.join()
"""
    run_script(script)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_waits_for_the_batch_that_a_thread_decodes(decoder: Any, run_script: Any) -> None:
    """Within it the libraries hold locks of the whole process, and a child finds them as they are."""
    script = f"""
import os, signal, sys, threading, time
import numpy as np
from gpuseq.decode import {decoder} as decoder
from tests.decode.imagefiles import matrix

encoded = [matrix()["jpeg_420"]] * 3

def decode():
    return np.stack([np.asarray(image) for image in decoder.decode_host(encoded, "RGB", 2)])

wanted = decode()
begun, asked, is_done = threading.Event(), threading.Event(), False
name = "_decode_sound" if {decoder!r} == "dali" else "_to_host"
inner = getattr(decoder, name)
def held_up(*arguments):
    global is_done
    begun.set()
    asked.wait()
    time.sleep(0.2)  # a fork that does not wait is over by now
    result = inner(*arguments)
    is_done = True
    return result
setattr(decoder, name, held_up)
thread = threading.Thread(target=decode)
thread.start()
begun.wait()
os.register_at_fork(before=asked.set)
child = os.fork()
if child == 0:
    signal.alarm(120)
    setattr(decoder, name, inner)
    os._exit(7 if is_done and (decode() == wanted).all() else 1)
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert ended == 7, ended
thread.join()
assert (decode() == wanted).all()
"""
    run_script(script)


def test_what_cannot_be_decoded_with_after_a_fork_is_decoded_by_pillow(
    decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = [matrix()[name] for name in ("jpeg_420", "png_rgba", "gif")]
    wanted = decode.decode(encoded, DecodeOptions(color_mode="rgba"))
    monkeypatch.setattr(forks, "_inherited", {decode_nvimgcodec.DECODING})
    with pytest.warns(RuntimeWarning, match=f"Pillow decodes in the place of '{decoder}': this process was forked"):
        found = decode.decode(encoded, DecodeOptions(color_mode="rgba", decoder=decoder, num_threads=1))
    for image, expected in zip(found, wanted, strict=True):
        assert_same(image, expected)


def test_nothing_in_nothing_out(decoder: Any) -> None:
    assert MODULES[decoder].decode_host([], "RGB", 2) == []


def test_results_outlive_the_next_batch(decoder: Any) -> None:
    first, second = matrix()["png_rgb"], matrix()["png_rgb_interlaced"]
    (image,) = MODULES[decoder].decode_host([first], "RGB", 2)
    for _ in range(20):
        MODULES[decoder].decode_host([matrix()["jpeg_420"], second], "RGB", 2)
    assert_same(np.ascontiguousarray(image), picture(3))


def test_several_threads_at_once(decoder: Any) -> None:
    encoded = [matrix()[name] for name in ("jpeg_420", "png_rgb", "jpeg_grey", "png_palette")]
    want = decode.decode(encoded, DecodeOptions())
    found: list[Any] = []

    def work() -> None:
        for _ in range(10):
            found.append(decode.decode(encoded, DecodeOptions(decoder=decoder, num_threads=1)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    for results in found:
        for one, other in zip(results, want, strict=True):
            assert_same(one, other)


def test_a_defect_in_our_call_is_not_a_bad_sample(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*arguments: Any, **options: Any) -> Any:
        raise AttributeError("renamed in the next version")

    if decoder == "dali":
        monkeypatch.setattr(decode_dali.check()[0].decoders, "image", defect)
    else:
        monkeypatch.setattr(decode_nvimgcodec, "_to_host", defect)
    with pytest.raises(AttributeError, match="renamed"):
        decode.decode([matrix()["png_rgb"]], DecodeOptions(decoder=decoder))


def test_what_dali_looks_at_lives_until_the_images_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """``as_batch`` makes a view of arrays that its caller has to keep."""
    batches: list[list[weakref.ref[np.ndarray]]] = []

    class Dynamic:
        @staticmethod
        def as_batch(arrays: list[np.ndarray]) -> int:
            batches.append([weakref.ref(each) for each in arrays])
            return len(batches) - 1

    def decode(batch: int) -> list[bytes]:
        gc.collect()
        held = [each() for each in batches[batch]]
        assert all(each is not None and each.flags.writeable for each in held)
        found = [each.tobytes() for each in held if each is not None]
        if b"bad" in found:
            raise RuntimeError("one of them is bad")
        return found

    monkeypatch.setattr(decode_dali.decode_nvimgcodec, "parses", lambda data: data != b"unparsed")
    encoded = [b"first", b"unparsed", b"bad", b"last"]
    assert decode_dali._decode_sound(Dynamic, decode, encoded) == [b"first", None, None, b"last"]
    assert len(batches) == 5  # three, then one and two, then each of the two


def test_dali_ties_no_thread_to_a_core() -> None:
    """Those of several ranks would share the first ones."""
    pytest.importorskip("nvidia.dali.experimental.dynamic")
    images = decode_dali.DeviceImages(None, 0, 1, 0.0)
    assert images._decode_options["affine"] is False
    assert "affine" in (decode_dali.check()[0].decoders.image.__doc__ or "")
