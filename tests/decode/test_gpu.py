"""JPEG on the GPU: close to Pillow, and no write into memory that is still read."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.decode import gpu as decode_device
from gpuseq.decode import host as decode
from gpuseq.decode.options import DecodeOptions
from gpuseq.decode.pillow import finish
from tests.compare import assert_same
from tests.decode.imagefiles import matrix, picture
from tests.standin.rehearsal import scaled

pytestmark = [pytest.mark.gpu, pytest.mark.dali]

# Against Pillow, on a 0..255 scale: other inverse DCTs, and other rounding of upsampled chroma.
LARGEST, MEAN = 16, 1.0


@pytest.fixture(params=["nvimgcodec", "dali"])
def which(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip(f"nvidia.{request.param}")
    return request.param


def jpegs(count: int, size: tuple[int, int]) -> list[bytes]:
    encoded = []
    for seed in range(count):
        stream = io.BytesIO()
        Image.fromarray(picture(3, seed=seed, size=size)).save(stream, "JPEG", quality=90, subsampling=2)
        encoded.append(stream.getvalue())
    return encoded


def in_order(batch: decode_device.DeviceBatch) -> Any:
    """The images of a batch, on the device, in the order in which they were asked for."""
    assert not any(batch.errors)
    return batch.take()[batch.rows]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
def test_close_to_pillow(color_mode: Any, deterministic: bool, which: Any) -> None:
    names = [name for name in matrix() if name.startswith("jpeg_")]
    encoded = [matrix()[name] for name in names]
    large = scaled(240, 24), scaled(320, 32)
    for size, some in (((37, 53), encoded), (large, jpegs(20, large))):
        options = DecodeOptions(color_mode=color_mode, target_size=size, deterministic=deterministic, decoder=which)
        batch = decode_device.DeviceDecoder(options).decode(some, [str(number) for number in range(len(some))])
        assert batch.decoders.count("device") > len(some) // 2
        want = np.stack(decode.decode(some, options))
        apart = np.abs(in_order(batch).get().astype(int) - want)
        for number, one in enumerate(apart):
            assert one.max() <= LARGEST, (size, number)
            assert one.mean() <= MEAN, (size, number)


def test_deterministic_pixels_do_not_depend_on_the_batch(which: Any) -> None:
    encoded = jpegs(16, (123, 97))
    ring = decode_device.DeviceDecoder(
        DecodeOptions(target_size=(50, 40), interpolation="bilinear", deterministic=True, decoder=which)
    )
    together = in_order(ring.decode(encoded, [""] * 16)).get()
    for data, want in zip(encoded, together, strict=True):
        assert_same(in_order(ring.decode([data], [""])).get()[0], want)


def test_where_huffman_codes_are_undone_changes_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_nvimgcodec = pytest.importorskip("nvidia.nvimgcodec") and importlib.import_module("gpuseq.decode.nvimgcodec")
    encoded = [data for name, data in matrix().items() if name in ("jpeg_444", "jpeg_422", "jpeg_420", "jpeg_grey")]
    encoded += [matrix()["jpeg_progressive"], matrix()["jpeg_restart"], *jpegs(8, (scaled(480, 24), scaled(640, 32)))]
    options = DecodeOptions(target_size=(64, 48), interpolation="bilinear", deterministic=True, decoder="nvimgcodec")

    def pixels() -> Any:
        return in_order(decode_device.DeviceDecoder(options).decode(encoded, [""] * len(encoded))).get()

    by_gpu = pixels()
    monkeypatch.setattr(decode_nvimgcodec, "_OPTIONS", decode_nvimgcodec._OPTIONS[:1])
    assert_same(by_gpu, pixels())


def test_resized_on_the_device_as_on_the_host(which: Any) -> None:
    """The crop and the resize are Pillow's to the bit: what differs is what the decoder made."""
    encoded = jpegs(8, (120, 90))
    whole = decode_device.DeviceDecoder(DecodeOptions(target_size=(120, 90), deterministic=True, decoder=which))
    pixels = in_order(whole.decode(encoded, [""] * 8)).get()
    options = DecodeOptions(
        target_size=(33, 47), interpolation="lanczos", keep_aspect_ratio=True, deterministic=True, decoder=which
    )
    got = in_order(decode_device.DeviceDecoder(options).decode(encoded, [""] * 8)).get()
    for image, small in zip(pixels, got, strict=True):
        assert_same(small, np.asarray(finish(Image.fromarray(image), options)))


def test_no_write_before_the_reader_is_done(which: Any) -> None:
    """Slow readers on the consumer's stream, 200 times: each must see its own batch, and the canaries must live."""
    import cupy

    count, side = scaled(64, 4), scaled(256, 16)
    encoded = jpegs(count, (side, side))
    ring = decode_device.DeviceDecoder(DecodeOptions(target_size=(side, side), hw_decoder_load=1.0, decoder=which))
    want = in_order(ring.decode(encoded, [""] * count))
    cupy.cuda.Device().synchronize()
    consumer = cupy.cuda.Stream(non_blocking=True)
    busy = cupy.random.random((scaled(2048, 8),) * 2, dtype=cupy.float32)
    cupy.cuda.Device().synchronize()
    wrong = 0
    for iteration in range(scaled(200, 10)):
        shift = iteration % count
        batch = ring.decode(encoded[shift:] + encoded[:shift], [""] * count)
        with consumer:
            canary = cupy.full((count, side, side, 3), 0xA5, cupy.uint8)
            for _ in range(4):
                busy = busy @ busy / 1000  # keeps the stream behind the host
            seen = in_order(batch)
            expected = cupy.concatenate([want[shift:], want[:shift]])
            bad = (seen != expected).any() | (canary != 0xA5).any()
        later = ring.decode(encoded, [""] * count)  # while the consumer is still busy
        consumer.synchronize()
        wrong += int(bad) + int((in_order(later) != want).any())
        del canary, seen  # their memory goes round
    assert wrong == 0


@pytest.mark.parametrize(("cache", "crops"), [(None, False), ("device", False), ("host", False), (None, True)])
def test_a_folder_decoded_on_the_gpu(tmp_path: Path, cache: str | None, crops: bool, which: Any) -> None:
    """From the generator down: close to the batches of the host's decoder, and the second epoch like the first."""
    (tmp_path / "one").mkdir()
    for number, data in enumerate(jpegs(40, (scaled(200, 50), scaled(150, 40)))):
        (tmp_path / "one" / f"{number:02}.jpg").write_bytes(data)
    arguments: dict[str, Any] = {
        "target_size": (scaled(64, 16), 24),
        "batch_size": 16,
        "shuffle": False,
        "interpolation": "bilinear",
    }
    chosen = gpuseq.RandomResizedCrop(arguments["target_size"]) if crops else None
    flows = [
        gpuseq.ImageDataGenerator(device=device, horizontal_flip=True, augmentations=chosen).flow_from_directory(
            tmp_path, **arguments, seed=1, verbose=False, **more
        )
        for device, more in (("cpu", {}), ("cuda", {"decoder": which, "cache": cache}))
    ]
    for _ in range(2 * len(flows[0])):
        (want, want_labels), (got, labels) = (next(flow) for flow in flows)
        assert_same(labels.get(), want_labels)
        apart = np.abs(got.get() - want)
        assert apart.max() <= LARGEST
        assert apart.mean() <= MEAN
    for flow in flows:
        flow.close()
