"""A torch loop that changes its stream from batch to batch: everything that stays on the device is met in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.iterators.test_on_standin import GEOMETRY, generator
from tests.parity import quiet
from tests.photos import write_tree
from tests.standin import cupy as standin
from tests.standin import streams as standin_streams
from tests.standin import torch as standin_torch

torch = pytest.importorskip("torch")

FOLDERS = [(cache, decoder) for cache in (None, "device", "host") for decoder in ("pillow", "nvimgcodec", "dali")]


@pytest.fixture
def cuda() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        standin_torch.install(patch)
        yield patch


def open_flow(tree: Path, cache: str | None, decoder: str, augmentations: Any = None, **more: Any) -> Any:
    if decoder != "pillow":
        pytest.importorskip("nvidia.nvimgcodec")
        pytest.importorskip("nvidia.dali")
    arguments: dict[str, Any] = {"target_size": (8, 8), "batch_size": 4, "seed": 1, "verbose": False, **more}
    with quiet():
        made = generator("cuda", **GEOMETRY, rescale=1 / 255, augmentations=augmentations)
        return made.flow_from_directory(write_tree(tree), **arguments, cache=cache, decoder=decoder)


def walk(flow: Any) -> int:
    """Take two epochs on two streams in turn, which nothing puts in order but what the library itself does."""
    from gpuseq.torch import loader

    streams = [torch.cuda.Stream() for _ in range(2)]
    batches = loader(flow)
    for epoch in range(2):
        ahead = iter(batches)
        for number in range(len(flow)):
            with torch.cuda.stream(streams[(number + epoch) % 2]):
                next(ahead)
    flow.close()
    return standin_streams.timeline().num_checked


def test_an_array(cuda: Any) -> None:
    made = generator("cuda", **GEOMETRY, featurewise_center=True, samplewise_center=True)
    made.fit(np.ones((4, 8, 8, 3), np.float32))
    assert walk(made.flow(np.ones((16, 8, 8, 3), np.uint8), np.arange(16.0), batch_size=4, seed=1)) > 20


@pytest.mark.parametrize(("cache", "decoder"), FOLDERS)
def test_a_folder(cuda: Any, tmp_path: Path, cache: str | None, decoder: str) -> None:
    assert walk(open_flow(tmp_path / "tree", cache, decoder)) > 20


@pytest.mark.parametrize("decoder", ["pillow", "nvimgcodec", "dali"])
def test_a_folder_whose_files_are_cropped(cuda: Any, tmp_path: Path, decoder: str) -> None:
    assert walk(open_flow(tmp_path / "tree", None, decoder, augmentations=gpuseq.RandomResizedCrop((8, 8)))) > 20


@pytest.mark.parametrize(("decoder", "wait"), [("pillow", "wait_event"), ("nvimgcodec", "synchronize")])
def test_without_the_waits_it_is_refused(cuda: Any, tmp_path: Path, decoder: str, wait: str) -> None:
    """Else the tests above would prove nothing.

    Nothing is read ahead here: any wait of the host counts for all of its threads, so that with several of them it
    would depend on chance which ones another thread makes up for. A batch that a GPU decodes is waited for by the host.
    """
    cuda.setattr(standin_streams.Stream, wait, lambda stream, event=None: None)
    flow = open_flow(tmp_path / "tree", "device", decoder, prefetch=0)
    with pytest.raises(standin.RaceError):
        walk(flow)
    flow.close()


COLOURS = {"channel_shift_range": 9.0, "brightness_range": (0.5, 1.5), "samplewise_std_normalization": True}


@pytest.mark.parametrize("more", [{}, COLOURS, {"preprocessing_function": lambda image: image * 0.5}])
@pytest.mark.parametrize("masks", [False, True])
def test_a_batch_of_an_array_is_made_without_waiting_for_the_device(cuda: Any, more: Any, masks: bool) -> None:
    data = np.ones((16, 8, 8, 3), np.uint8)
    with quiet():
        made = generator("cuda", **GEOMETRY, horizontal_flip=True, featurewise_center=True, **more)
        made.fit(data)
    y = {"masks": data[..., 0]} if masks else {"y": np.arange(16), "sample_weight": np.ones(16)}
    flow = made.flow(data, batch_size=4, seed=1, **y)
    next(flow)
    before = standin_streams.timeline().num_waits
    for _ in range(12):
        batch = next(flow)
    assert standin_streams.timeline().num_waits == before
    batch[0].get()
    assert standin_streams.timeline().num_waits == before + 1


@pytest.mark.parametrize("cache", [None, "device", "host"])
def test_a_batch_of_a_folder_is_made_without_waiting_for_the_device(cuda: Any, tmp_path: Path, cache: Any) -> None:
    flow = open_flow(tmp_path / "tree", cache, "pillow")
    next(flow)
    before = standin_streams.timeline().num_waits
    for _ in range(2 * len(flow)):
        next(flow)
    flow.close()
    assert standin_streams.timeline().num_waits == before
