"""The GPU decoder's routing, colour, orientation and buffers, on nvImageCodec's CPU decoder; no GPU runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq import decode, decode_device
from gpuseq.arrays import ColorMode, literals
from gpuseq.errors import ImageFileError
from gpuseq.options import DecodeOptions
from tests.compare import assert_same
from tests.host.imagefiles import broken, matrix

pytest.importorskip("nvidia.nvimgcodec")
pytestmark = pytest.mark.dali


def decoder(**options: Any) -> decode_device.DeviceDecoder:
    return decode_device.DeviceDecoder(DecodeOptions(num_threads=2, **options), None)


@pytest.mark.parametrize("color_mode", literals(ColorMode))
@pytest.mark.parametrize("exif_orientation", [False, True])
def test_the_matrix_equals_pillow(color_mode: Any, exif_orientation: bool) -> None:
    names, encoded = list(matrix()), list(matrix().values())
    options: dict[str, Any] = {"color_mode": color_mode, "exif_orientation": exif_orientation}
    expected = decode.decode(encoded, DecodeOptions(**options), names)
    batch = decoder(**options).decode(encoded, names)
    on_device = [name for name, by in zip(names, batch.decoders, strict=True) if by == "nvimgcodec"]
    assert on_device == [name for name in names if name.startswith("jpeg_") and name != "jpeg_cmyk"]
    for name, got, want in zip(names, batch.images, expected, strict=True):
        assert not isinstance(got, ImageFileError), got
        assert got.flags.c_contiguous
        assert_same(got, want, message=f"{name}: ")


def test_only_the_host_resizes() -> None:
    batch = decoder(target_size=(20, 30)).decode([matrix()["jpeg_420"], matrix()["png_rgb"]], ["a", "b"])
    assert [image.shape for image in batch.images] == [(37, 53, 3), (20, 30, 3)]
    assert batch.decoders == ["nvimgcodec", "host"]


def test_bad_files_stand_alone(tmp_path: Path) -> None:
    good = matrix()["jpeg_420"]
    paths = []
    for number, data in enumerate([good, *broken().values(), good]):
        (tmp_path / str(number)).write_bytes(data)
        paths.append(str(tmp_path / str(number)))
    paths.insert(3, str(tmp_path / "missing"))
    batch = decoder().decode_files(paths)
    assert batch.decoders == ["nvimgcodec", *[""] * (len(paths) - 2), "nvimgcodec"]
    for path, image in zip(paths[1:-1], batch.images[1:-1], strict=True):
        assert isinstance(image, ImageFileError)
        assert image.path == path
    assert "no such file" in batch.images[3].reason
    (want,) = decode.decode([good], DecodeOptions())
    assert_same(batch.images[0], want)
    assert_same(batch.images[-1], want)


def test_damage_behind_a_good_header_stands_alone() -> None:
    good = matrix()["jpeg_progressive"]
    damaged = good[: len(good) // 2] + b"\xff\xd9"
    want = decode.decode([good, damaged, good], DecodeOptions())
    ring = decoder()
    for _ in range(3):
        batch = ring.decode([good, damaged, good], ["a", "b", "c"])
        for got, expected in zip(batch.images, want, strict=True):
            if isinstance(expected, ImageFileError):
                assert isinstance(got, ImageFileError)
            else:
                assert_same(got, expected)
        batch.release()


def test_a_size_over_the_limit_is_refused_by_name() -> None:
    batch = decoder(max_pixels=100).decode([matrix()["jpeg_420"]], ["big.jpg"])
    assert isinstance(batch.images[0], ImageFileError)
    assert "53x37" in batch.images[0].reason


def test_buffers_are_used_again_only_after_release() -> None:
    ring = decoder()
    names = ["jpeg_444", "jpeg_420", "jpeg_grey", "jpeg_rgb"]
    held = [ring.decode([matrix()[name]] * 3, [name] * 3) for name in names]
    assert ring.num_buffers == len(names)
    expected = {name: decode.decode([matrix()[name]], DecodeOptions())[0] for name in names}
    for name, batch in zip(names, held, strict=True):  # nobody wrote into another's buffer
        for image in batch.images:
            assert_same(image, expected[name])
    addresses = {image.__array_interface__["data"][0] for image in held[2].images}
    held[2].release()
    again = ring.decode([matrix()["jpeg_444"]] * 3, ["x"] * 3)
    assert {image.__array_interface__["data"][0] for image in again.images} == addresses
    assert ring.num_buffers == len(names)
    for name, batch in zip(names[:2], held[:2], strict=True):
        assert_same(batch.images[0], expected[name])


def test_the_host_waits_for_the_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    ring = decoder()
    queue = ring._queue
    monkeypatch.setattr(queue, "mark", lambda: log.append("mark") or "event", raising=True)
    monkeypatch.setattr(queue, "wait", lambda mark: log.append(f"wait {mark}"))
    monkeypatch.setattr(queue, "synchronize", lambda: log.append("synchronize"))
    for _ in range(3):
        ring.decode([matrix()["jpeg_420"]], ["a"]).release()
    assert log == ["synchronize", "mark", "wait event", "synchronize", "mark", "wait event", "synchronize", "mark"]
    assert ring.num_buffers == 1


def test_a_failing_call_gives_its_buffer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*arguments: object) -> None:
        raise ZeroDivisionError

    ring = decoder()
    with monkeypatch.context() as patch:
        patch.setattr(decode_device, "to_color_mode", defect)
        with pytest.raises(ZeroDivisionError):
            ring.decode([matrix()["jpeg_420"]], ["a"])
    ring.decode([matrix()["jpeg_420"]], ["a"])
    assert ring.num_buffers == 1


def test_batches_may_grow_and_shrink() -> None:
    ring = decoder()
    expected = decode.decode([matrix()["jpeg_420"], matrix()["jpeg_grey"]], DecodeOptions())
    for count in (1, 5, 2, 0, 7):
        names = ["jpeg_420", "jpeg_grey"] * count
        batch = ring.decode([matrix()[name] for name in names], names)
        assert len(batch.images) == 2 * count
        for number, image in enumerate(batch.images):
            assert_same(image, expected[number % 2])
        batch.release()
    assert ring.num_buffers == 1


@pytest.mark.parametrize("load", [-0.1, 1.1, float("nan")])
def test_the_hardware_share_is_checked(load: float) -> None:
    with pytest.raises(ValueError, match="hw_decoder_load"):
        decode_device.DeviceDecoder(DecodeOptions(), None, hw_decoder_load=load)


def test_the_backends_for_a_gpu() -> None:
    from nvidia import nvimgcodec

    kinds = [backend.backend_kind.name for backend in decode_device._backends(nvimgcodec, 0, 0.65)]
    assert kinds == ["HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU"]
    assert decode_device._backends(nvimgcodec, 0, 0.65)[0].load_hint == pytest.approx(0.65)
    pinned = [backend.backend_kind.name for backend in decode_device._backends(nvimgcodec, 0, 0.0)]
    assert pinned == ["GPU_ONLY", "HYBRID_CPU_GPU"]


def test_grey_is_pillows_for_every_colour() -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    assert_same(decode_device.to_color_mode(pixels, "grayscale"), expected)
