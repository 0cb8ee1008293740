"""Memory of batches that nobody holds any more is written to again, and that of the others is not."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpuseq.base.devices import ALIGNMENT
from gpuseq.ops import dispatch as ops
from gpuseq.ops.numpy import augment as ops_numpy
from gpuseq.ops.numpy import blocks
from gpuseq.ops.numpy.augment import empty_batch
from gpuseq.ops.numpy.blocks import KEPT_BYTES, kept_block
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import identity_params
from tests.compare import assert_same

NUM_BYTES = KEPT_BYTES[0] + 24


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    # What died in a circle before would come back in the middle of a test.
    gc.collect()
    blocks._kept.clear()
    yield
    blocks._kept.clear()


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def block_of(num_bytes: int) -> np.ndarray:
    """Return a batch of one sample, one row and one channel, of which each pixel is a byte."""
    return empty_batch(1, 1, num_bytes, 1, AugmentOptions(dtype="uint8")).reshape(-1)


def batch_of(images: np.ndarray) -> np.ndarray:
    made = ops.augment(images, identity_params(len(images)), AugmentOptions(rescale=0.5))
    assert isinstance(made, np.ndarray)
    return made


def test_the_next_batch_is_written_where_the_last_one_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another thread may hold its part of the work for a moment longer than the batch is held here.
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", "1")
    images = np.random.default_rng(1).integers(0, 256, (4, 200, 150, 3), np.uint8)
    batch = batch_of(images)
    wanted, place = batch.copy(), address(batch)
    del batch
    again = batch_of(images)
    assert address(again) == place
    assert_same(again, wanted)
    # While it is held, another one lies elsewhere.
    assert not np.shares_memory(again, batch_of(images))


@pytest.mark.parametrize("take", ["view", "dtype", "memoryview", "dlpack", "torch"])
def test_what_is_a_part_of_a_batch_holds_its_memory(take: str) -> None:
    block = block_of(NUM_BYTES)
    block[:] = 7
    place = address(block)
    part: object
    if take == "view":
        part = block.reshape(2, -1)[1:, 3:40:2].T
    elif take == "dtype":
        part = block.view(np.float32)[5:6]
    elif take == "memoryview":
        part = memoryview(block)[:10]
    elif take == "dlpack":
        part = np.from_dlpack(block)[:10]
    else:
        part = pytest.importorskip("torch").from_numpy(block)[3:5]
    del block
    others = [block_of(NUM_BYTES) for _ in range(4)]
    assert place not in map(address, others)
    for other in others:
        other[:] = 1
    assert np.asarray(part).tobytes()[:1] == b"\x07"
    del part, other, others
    # And no longer than that.
    held = [block_of(NUM_BYTES) for _ in range(2)]
    assert blocks._kept.maxlen == len(held)
    assert len(set(map(address, held))) == 2
    assert not blocks._kept


def test_two_blocks_are_kept_and_one_of_another_size_is_not_taken() -> None:
    held = [block_of(NUM_BYTES + 8 * number) for number in range(3)]
    assert {address(block) % ALIGNMENT for block in held} == {0}
    places = [address(block) for block in held]
    del held[0], held[0], held[0]
    assert [len(block) for block in blocks._kept] == [NUM_BYTES + 8, NUM_BYTES + 16]
    found = block_of(NUM_BYTES + 8)
    assert (address(found), len(found), found.flags.writeable) == (places[1], NUM_BYTES + 8, True)
    assert [len(block) for block in blocks._kept] == [NUM_BYTES + 16]


def test_small_and_huge_blocks_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # A huge one by its name only, so that the test needs no such memory.
    monkeypatch.setattr(ops_numpy, "KEPT_BYTES", range(KEPT_BYTES[0], NUM_BYTES))
    for num_bytes in (KEPT_BYTES[0] - 1, NUM_BYTES):
        block = block_of(num_bytes)
        del block
        assert not blocks._kept, num_bytes
    block = block_of(NUM_BYTES - 1)
    del block
    assert len(blocks._kept) == 1


def test_what_is_kept_is_let_go_where_memory_runs_out() -> None:
    block = block_of(NUM_BYTES)
    del block
    asked = []

    def scarce(num_bytes: int) -> np.ndarray:
        asked.append(len(blocks._kept))
        if blocks._kept:
            raise MemoryError
        return np.empty(num_bytes, np.uint8)

    assert len(kept_block(NUM_BYTES + 1, scarce)) == NUM_BYTES + 1
    assert asked == [1, 0]

    def none(num_bytes: int) -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        kept_block(NUM_BYTES + 3, none)
    assert all(isinstance(block, np.ndarray) for block in blocks._kept)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="pages of its own are for Linux")
def test_a_block_has_pages_of_its_own_which_no_other_process_writes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pages(mmap.mmap):
        def __new__(cls, *arguments: int, flags: int) -> Pages:
            asked.append(flags)
            return super().__new__(cls, *arguments, flags=flags)

        def madvise(self, *arguments: int) -> None:
            super().madvise(*arguments)
            raise OSError("this kernel knows no large pages")

    monkeypatch.setattr(mmap, "mmap", Pages)
    block = block_of(NUM_BYTES)
    block[:] = 3
    assert asked == [mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS]
    assert address(block) % mmap.PAGESIZE == 0

    def none(*_: object, **__: object) -> mmap.mmap:
        raise OSError("no memory left")

    monkeypatch.setattr(mmap, "mmap", none)
    with pytest.raises(MemoryError, match="no memory left"):
        block_of(NUM_BYTES + 1)


def test_no_block_is_lent_twice() -> None:
    def work(number: int) -> int:
        wrong = 0
        for turn in range(60):
            block = block_of(NUM_BYTES + 64 * (turn % 3))
            block[::4096] = number
            other = block_of(NUM_BYTES)
            other[::4096] = number + 100
            wrong += int((block[::4096] != number).sum() + (other[::4096] != number + 100).sum())
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert len(blocks._kept) <= 2
