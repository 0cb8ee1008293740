"""What every source offers; what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq.decode.options import DecodeOptions
from gpuseq.ops import dispatch as ops
from gpuseq.plan.columns import identity_params
from gpuseq.plan.plan import BatchPlan
from gpuseq.sources.arrays import ArraySource
from gpuseq.sources.cache import ImageCache
from gpuseq.sources.files import FileSource
from gpuseq.sources.source import Source
from tests.photos import write_tree
from tests.standin import cupy as standin

PLAN = BatchPlan(indices=np.array([1, 0, 2]), params=identity_params(3), image_size=(6, 5))


def of_files(folder: Path, **options: Any) -> FileSource:
    tree = folder / "tree"
    if not tree.exists():
        write_tree(tree)
    paths = sorted(str(path) for path in tree.rglob("*") if path.is_file())
    return FileSource(paths, DecodeOptions(target_size=(6, 5), num_threads=2, decoder="pillow"), **options)


@pytest.fixture(params=["array", "files", "kept files"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    if request.param == "array":
        return ArraySource(np.arange(4 * 6 * 5 * 3, dtype=np.uint8).reshape(4, 6, 5, 3))
    return of_files(tmp_path, cache="host" if request.param == "kept files" else None)


def test_it_keeps_its_promises(source: Source) -> None:
    source.expect([PLAN.indices], PLAN.indices)
    fetched = source.fetch(PLAN.indices)
    with fetched.reading():
        pixels = fetched.images if fetched.rows is None else fetched.images[fetched.rows]
    assert pixels.shape == (3, *source.image_shape)
    assert pixels.dtype == source.dtype
    assert source.device == "cpu"
    assert fetched.sample_indices.tolist() == PLAN.indices.tolist()
    source.close()
    again = source.fetch(PLAN.indices)
    np.testing.assert_array_equal(pixels, again.images if again.rows is None else again.images[again.rows])


def test_an_array_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros((4, 6, 5, 3), np.uint8)
    assert ArraySource(data).describe(PLAN) == [
        ("source", "resident: (4, 6, 5, 3) uint8, 360 B in host memory, gathered by index")
    ]
    standin.install(monkeypatch)
    assert ArraySource(data, "cuda:0").describe(PLAN) == [
        ("source", "resident: (4, 6, 5, 3) uint8, 360 B on cuda:0, gathered by index")
    ]
    assert ArraySource(data, "cuda:0", memory_limit=100).describe(PLAN) == [
        ("source", "(4, 6, 5, 3) uint8, 360 B in host memory, each batch is copied to cuda:0")
    ]


def test_files_say_who_decodes_them_and_what_is_kept(tmp_path: Path) -> None:
    source = of_files(tmp_path, cache="host", prefetch=3, memory_limit=2 * 90)
    number = len(source.paths)
    assert source.describe(PLAN) == [
        ("source", f"decoded: {number} files, 3 batch(es) ahead, on 2 thread(s)"),
        ("decoder", "pillow; resized to 6 x 5, nearest"),
        ("cache", f"0 of this batch's 3 images; room for 2 of {number}; 0 B kept so far"),
    ]
    source.fetch(PLAN.indices)
    assert source.describe(PLAN)[2] == (
        "cache",
        f"2 of this batch's 3 images; room for 2 of {number}; 180 B kept so far",
    )
    name, text = of_files(tmp_path, prefetch=0).describe(PLAN)[2]
    assert (name, text.partition(":")[0]) == ("cache", "none")
    assert "when asked for" in of_files(tmp_path, prefetch=0).describe(PLAN)[0][1]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_cache_takes_seven_tenths_of_what_is_free_where_it_is(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image_bytes = 6 * 5 * 3
    free = {"cpu": 20 * image_bytes + 1, "cuda:0": 10 * image_bytes + 1}
    monkeypatch.setattr(ops, "free_memory", free.__getitem__)
    monkeypatch.setattr(ops, "empty", lambda shape, dtype, where: np.empty(shape, dtype))
    cache = ImageCache([f"{number}.png" for number in range(50)], (6, 5, 3), device, None)
    assert cache.capacity == {"cpu": 14, "cuda:0": 7}[device]
    assert cache.spare_bytes == 0
    limited = ImageCache([f"{number}.png" for number in range(50)], (6, 5, 3), device, 8 * image_bytes + 5)
    assert (limited.capacity, limited.spare_bytes) == (8, 5)
    roomy = ImageCache(["a.png", "b.png"], (6, 5, 3), device, None)
    assert roomy.capacity == 2
    assert roomy.spare_bytes == free[device] * 7 // 10 - 2 * image_bytes


def test_what_two_threads_decode_at_once_is_kept_once(tmp_path: Path) -> None:
    """Both looked before either had decoded: the second finds all of it, in the first slot as in others."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(b"one")
    cache = ImageCache([str(path) for path in paths], (6, 5, 3), "cpu", 10**6)
    decoded = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
    everything = np.arange(3)
    looked_up = [cache.look_up(everything) for _ in range(2)]
    for kept in looked_up:
        images, rows, _ = cache.merge(everything, kept, decoded, everything)
        assert images is cache.block
        np.testing.assert_array_equal(images[rows], decoded)
    assert (cache.used, cache.num_bytes) == (3, decoded.nbytes)
