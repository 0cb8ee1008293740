"""JPEG on the GPU: close to Pillow, and no write into memory that someone still reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuseq import decode, decode_device
from gpuseq.options import DecodeOptions
from tests.compare import assert_same
from tests.host.imagefiles import matrix, picture

pytestmark = [pytest.mark.gpu, pytest.mark.dali]

# Against Pillow, on a 0..255 scale: other inverse DCTs, and other rounding of upsampled chroma.
LARGEST, MEAN = 16, 1.0


def jpegs(count: int, size: tuple[int, int]) -> list[bytes]:
    import io

    from PIL import Image

    encoded = []
    for seed in range(count):
        stream = io.BytesIO()
        Image.fromarray(picture(3, seed=seed, size=size)).save(stream, "JPEG", quality=90, subsampling=2)
        encoded.append(stream.getvalue())
    return encoded


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
def test_close_to_pillow(color_mode: Any, deterministic: bool) -> None:
    names = [name for name in matrix() if name.startswith("jpeg_")]
    encoded = [matrix()[name] for name in names] + jpegs(20, (240, 320))
    names += [f"random{number}" for number in range(20)]
    options = DecodeOptions(color_mode=color_mode)
    batch = decode_device.DeviceDecoder(options, deterministic=deterministic).decode(encoded, names)
    assert batch.decoders.count("nvimgcodec") > len(names) // 2
    for name, by, got, want in zip(names, batch.decoders, batch.images, decode.decode(encoded, options), strict=True):
        host = got.get() if by == "nvimgcodec" else got
        apart = np.abs(host.astype(int) - np.asarray(want).astype(int))
        assert apart.max() <= LARGEST, name
        assert apart.mean() <= MEAN, name


def test_deterministic_pixels_do_not_depend_on_the_batch() -> None:
    encoded = jpegs(16, (123, 97))
    ring = decode_device.DeviceDecoder(DecodeOptions(), deterministic=True)
    together = [image.get() for image in ring.decode(encoded, [""] * 16).images]
    for data, want in zip(encoded, together, strict=True):
        assert_same(ring.decode([data], [""]).images[0].get(), want)


def test_no_write_before_the_reader_is_done() -> None:
    """Slow readers on the consumer's stream, 200 times: each must see its own batch, and the canaries must live."""
    import cupy

    encoded = jpegs(64, (256, 256))
    ring = decode_device.DeviceDecoder(DecodeOptions(), hw_decoder_load=1.0)
    want = [image.copy() for image in ring.decode(encoded, [""] * 64).images]
    cupy.cuda.Device().synchronize()
    consumer = cupy.cuda.Stream(non_blocking=True)
    busy = cupy.random.random((2048, 2048), dtype=cupy.float32)
    wrong = 0
    for iteration in range(200):
        shift = iteration % 64
        batch = ring.decode(encoded[shift:] + encoded[:shift], [""] * 64)
        with consumer:
            canary = cupy.full((64, 256, 256, 3), 0xA5, cupy.uint8)
            for _ in range(4):
                busy = busy @ busy / 1000  # keeps the stream behind the host
            seen = cupy.stack(batch.images)
            batch.release()
        expected = cupy.stack(want[shift:] + want[:shift])
        consumer.synchronize()
        wrong += int((seen != expected).any() or (canary != 0xA5).any())
        del canary  # its memory goes round
    assert wrong == 0
