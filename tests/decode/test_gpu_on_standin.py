"""Folders decoded "on the GPU": the decoders' CPU side and the stand-in for CuPy in the place of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.decode import gpu as decode_device
from gpuseq.decode import gpu_backend as decode_backend
from gpuseq.decode.options import DecodeOptions
from tests.iterators.test_on_standin import GEOMETRY, assert_equal_but_on_device, generator
from tests.parity import quiet
from tests.photos import write_broken, write_tree
from tests.standin import cupy as standin

pytest.importorskip("nvidia.nvimgcodec")
pytestmark = pytest.mark.dali


class StandInBackend(decode_backend.GpuBackend):
    """The GPU's decoder and stream, which `standin` has given the CPU's decoder."""

    def __init__(self, device: str, options: DecodeOptions, num_threads: int) -> None:
        super().__init__(device, options, num_threads)
        self.num_decoded = 0

    def decode(self, encoded: list[bytes]) -> list[Any]:
        self.num_decoded += len(encoded)
        return super().decode(encoded)


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StandInBackend]]:
    made: list[StandInBackend] = []

    def open_backend(device: str, options: DecodeOptions, num_threads: int) -> StandInBackend:
        made.append(StandInBackend(device, options, num_threads))
        return made[-1]

    standin.install(monkeypatch)
    monkeypatch.setattr(decode_device, "GpuBackend", open_backend)
    yield made
    assert len(made) == 1
    assert made[0].num_decoded


def flows(tree: Path, on_host: dict[str, Any], decoder: str = "nvimgcodec", **options: Any) -> tuple[Any, Any]:
    arguments = {"target_size": (10, 12), "batch_size": 4, "seed": 2, "verbose": False, "interpolation": "bilinear"}
    with quiet():
        wanted = generator("cpu", **GEOMETRY, rescale=1 / 255).flow_from_directory(tree, **arguments, **on_host)
        got = generator("cuda", **GEOMETRY, rescale=1 / 255).flow_from_directory(
            tree, **arguments, **on_host, **options, decoder=decoder
        )
    return got, wanted


@pytest.mark.parametrize("cache", [None, "device", "host", "auto"])
@pytest.mark.parametrize(("decoder", "prefetch"), [("nvimgcodec", 0), ("nvimgcodec", 2), ("dali", 2)])
def test_the_batches_are_the_hosts(
    backends: list[StandInBackend], tmp_path: Path, cache: str | None, decoder: str, prefetch: int
) -> None:
    tree = write_tree(tmp_path / "tree")
    limit = {"auto": 900}.get(cache or "")
    got, wanted = flows(tree, {"prefetch": prefetch}, decoder, cache=cache, memory_limit=limit)
    for _ in range(2 * len(wanted) + 1):
        assert_equal_but_on_device(next(got), next(wanted))
    last = len(wanted) - 1
    assert_equal_but_on_device(got[last], wanted[last])
    got.close()
    wanted.close()


def test_a_cached_epoch_decodes_nothing(backends: list[StandInBackend], tmp_path: Path) -> None:
    got, wanted = flows(write_tree(tmp_path / "tree"), {"prefetch": 0}, cache="device")
    for _ in range(len(wanted)):
        next(got)
    decoded = backends[0].num_decoded
    for _ in range(len(wanted)):
        next(got)
    assert backends[0].num_decoded == decoded
    got.close()
    wanted.close()


@pytest.mark.parametrize("options", [{"keep_aspect_ratio": True}, {"color_mode": "grayscale"}, {"color_mode": "rgba"}])
def test_options_of_the_decoder(backends: list[StandInBackend], tmp_path: Path, options: dict[str, Any]) -> None:
    got, wanted = flows(write_tree(tmp_path / "tree"), options)
    for _ in range(len(wanted)):
        assert_equal_but_on_device(next(got), next(wanted))
    got.close()
    wanted.close()


@pytest.mark.parametrize("cache", [None, "device"])
@pytest.mark.parametrize("on_error", ["skip", "substitute", "answer"])
def test_bad_files(backends: list[StandInBackend], tmp_path: Path, on_error: Any, cache: str | None) -> None:
    tree = write_tree(tmp_path / "tree")
    write_broken(next(path for path in tree.iterdir() if path.is_dir()), "empty")
    if on_error == "answer":
        on_error = lambda path, error: np.full((10, 12, 3), 9, np.uint8)  # noqa: E731
    got, wanted = flows(tree, {"on_error": on_error}, cache=cache)
    for _ in range(2 * len(wanted)):
        assert_equal_but_on_device(next(got), next(wanted))
    assert got.bad_files == wanted.bad_files
    assert got.bad_files
    got.close()
    wanted.close()


def test_explain_names_the_decoder_and_the_device(backends: list[StandInBackend], tmp_path: Path) -> None:
    got, wanted = flows(write_tree(tmp_path / "tree"), {}, hw_decoder_load=0.25)
    assert "nvimgcodec on cuda:0, 25% of it by the GPU's JPEG hardware" in str(got.explain())
    next(got)
    got.close()
    wanted.close()


def test_a_pickled_iterator_makes_a_decoder_of_its_own(backends: list[StandInBackend], tmp_path: Path) -> None:
    import pickle

    got, wanted = flows(write_tree(tmp_path / "tree"), {})
    first = next(got)
    assert got._source._device_decoder is not None
    again = pickle.loads(pickle.dumps(got._source))
    assert again._device_decoder is None
    assert_equal_but_on_device(first, next(wanted))
    got.close()
    wanted.close()


def cropping_flows(tree: Path, masks: Path | None = None, **options: Any) -> tuple[Any, Any]:
    """Return iterators that crop the files of a tree, "on the GPU" by a decoder of its own and on the host."""
    arguments = {"target_size": (10, 12), "batch_size": 4, "seed": 2, "verbose": False, "mask_directory": masks}
    decoder = options.pop("decoder", "nvimgcodec")
    interpolation = options.pop("crop", "bilinear")
    chosen = [gpuseq.RandomResizedCrop((10, 12), interpolation=interpolation), gpuseq.TrivialAugmentWide()]
    with quiet():
        made = [generator(device, augmentations=chosen, rescale=1 / 255) for device in ("cuda", "cpu")]
        got = made[0].flow_from_directory(tree, **arguments, **options, decoder=decoder)
        return got, made[1].flow_from_directory(tree, **arguments, **options)


@pytest.mark.parametrize(("decoder", "prefetch"), [("nvimgcodec", 0), ("nvimgcodec", 2), ("dali", 2)])
@pytest.mark.parametrize("options", [{}, {"crop": "nearest"}, {"color_mode": "rgba"}], ids=str)
def test_crops_are_the_hosts(
    backends: list[StandInBackend], tmp_path: Path, decoder: str, prefetch: int, options: dict[str, Any]
) -> None:
    """Cut out of what the device decoded, where it lies, and of what the host did; masks beside them."""
    tree, masks = write_tree(tmp_path / "tree"), tmp_path / "masks"
    rng = np.random.default_rng(0)
    for path in cropping_flows(tree)[1].filepaths:
        mask = (masks / path[len(str(tree)) + 1 :]).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            Image.fromarray(rng.integers(0, 256, image.size[::-1], np.uint8)).save(mask)
    got, wanted = cropping_flows(tree, masks, decoder=decoder, prefetch=prefetch, **options)
    for _ in range(2 * len(wanted) + 1):
        assert_equal_but_on_device(next(got), next(wanted))
    plan = got.plan_batch()
    assert plan.program is not None
    # Without a crop, and with some: each is resized by the filter that is its own.
    for program in (None, np.where(np.arange(len(plan))[:, None] % 2, plan.program, np.zeros_like(plan.program))):
        replayed = replace(plan, program=program)
        assert_equal_but_on_device(got.replay(replayed), wanted.replay(replayed))
    got.close()
    wanted.close()


@pytest.mark.parametrize("on_error", ["raise", "skip", "substitute", "answer"])
def test_bad_files_among_cropped_ones(backends: list[StandInBackend], tmp_path: Path, on_error: Any) -> None:
    tree = write_tree(tmp_path / "tree")
    write_broken(next(path for path in tree.iterdir() if path.is_dir()), "empty")
    if on_error == "answer":
        on_error = lambda path, error: np.full((10, 12, 3), 9, np.uint8)  # noqa: E731
    got, wanted = cropping_flows(tree, on_error=on_error, prefetch=0)
    failures = []
    for flow in (got, wanted):
        failures.append(0)
        for index in range(len(flow)):
            try:
                flow[index]
            except gpuseq.ImageFileError:
                failures[-1] += 1
    assert failures == ([1, 1] if on_error == "raise" else [0, 0])
    if on_error != "raise":
        for index in range(len(wanted)):
            assert_equal_but_on_device(got[index], wanted[index])
    assert got.bad_files == wanted.bad_files
    got.close()
    wanted.close()


def test_grey_files_of_sixteen_bits_are_refused_by_a_crop(backends: list[StandInBackend], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (30, 20)).save(tmp_path / "a" / "0.jpg")
    Image.fromarray(np.full((20, 30), 1000, np.uint16)).save(tmp_path / "a" / "1.png")
    for flow in cropping_flows(tmp_path, color_mode="grayscale", prefetch=0):
        with pytest.raises(TypeError, match=r"uint8 images, levels 0 to 255; .*1\.png holds uint16"):
            next(flow)
        flow.close()
