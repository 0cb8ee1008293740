"""What goes up to a device: whole, in order, and through little page-locked memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpuseq.base.errors import DeviceError
from gpuseq.base.streams import Ring
from gpuseq.ops import dispatch as ops
from gpuseq.ops.cuda import memory as device
from gpuseq.sources.arrays import ArraySource
from tests.cases import images
from tests.standin import cupy as standin

CHUNK_BYTES = device.CHUNK_BYTES
DATA = images((23, 9, 7, 3), "uint8")


@pytest.fixture
def pinned() -> Iterator[list[int]]:
    """Chunks of 1000 bytes, and the sizes of the page-locked buffers that are made."""
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        import cupy

        sizes: list[int] = []
        allocate = cupy.cuda.alloc_pinned_memory
        patch.setattr(cupy.cuda, "alloc_pinned_memory", lambda size: (sizes.append(size), allocate(size))[1])
        patch.setattr(device, "CHUNK_BYTES", 1000)
        yield sizes


ROWS = {"all": None, "some": np.array([22, 0, 5, 5, 1, 7, 19, 2]), "none": np.array([], np.int64)}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("rows", ROWS)
def test_in_chunks(pinned: list[int], rows: str, dtype: str) -> None:
    data = DATA.astype(dtype)
    got = ops.upload(data, "cuda:0", ROWS[rows])
    assert (got.dtype, got.flags.c_contiguous) == (data.dtype, True)
    np.testing.assert_array_equal(got.get(), data if ROWS[rows] is None else data[ROWS[rows]])


@pytest.mark.parametrize(
    "data",
    [DATA[::2, :, ::-1], DATA.transpose(0, 3, 1, 2), DATA[:0], DATA[:1].repeat(9, axis=1), DATA[..., :0]],
    ids=["strided", "transposed", "no images", "one large one", "no values"],
)
def test_of_any_layout(pinned: list[int], data: np.ndarray) -> None:
    np.testing.assert_array_equal(ops.upload(data, "cuda:0").get(), data)


def test_the_whole_is_never_page_locked(pinned: list[int]) -> None:
    data = np.tile(DATA, (100, 1, 1, 1))
    source = ArraySource(data, "cuda:0")
    np.testing.assert_array_equal(source.images.get(), data)
    assert pinned
    assert max(pinned) <= 1 << 15, "a slot's least size"
    assert sum(pinned) <= device.MAX_BUFFERS * (1 << 15) < data.nbytes + (1 << 19)


def test_real_chunks_keep_to_a_power_of_two(pinned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's pool rounds up to the next power of two, and keeps it."""
    monkeypatch.setattr(device, "CHUNK_BYTES", CHUNK_BYTES)
    data = np.zeros((70, 1 << 20), np.uint8)
    ops.upload(data[:30], "cuda:0")
    ops.upload(data, "cuda:0")
    assert max(pinned) == CHUNK_BYTES
    assert CHUNK_BYTES.bit_count() == 1


def test_no_room(pinned: list[int]) -> None:
    with pytest.raises(DeviceError, match=r"cuda:0 has no room for .* GB.*memory_limit"):
        ops.upload(np.broadcast_to(np.uint8(1), (1 << 15, 1 << 15, 1)), "cuda:0")
    assert not pinned


def test_a_ring_is_made_once(pinned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    start = Ring.__init__
    monkeypatch.setattr(Ring, "__init__", lambda ring, make, most: (made.append(most), start(ring, make, most))[1])
    for _ in range(5):
        ops.upload(DATA[:1], "cuda:0")
    assert made == [device.MAX_BUFFERS]


def test_what_the_cycle_collector_gave_back_is_found_again(pinned: list[int]) -> None:
    """The stand-in itself: the collector cuts weak references before a block goes back to the pool."""
    import gc

    import cupy

    class Knot:
        pass

    knot: Any = Knot()
    knot.array, knot.itself = cupy.empty(DATA.shape, np.uint8), knot
    address = knot.array.data.ptr
    del knot
    gc.collect()
    got = ops.upload(DATA, "cuda:0")
    assert got.data.ptr == address
    np.testing.assert_array_equal(got.get(), DATA)
