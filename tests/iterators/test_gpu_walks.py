"""Whole generators on a device beside the same ones on the host: random configurations, and no Keras needed.

Where Keras is installed ``tests/iterators/test_parity_*.py`` compare more; the host's engine has passed those.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base.types import COLOR_CHANNELS, Interpolation, literals
from tests.cases import images, transposed
from tests.compare import assert_same, assert_same_structure
from tests.parity import Config, fetched, quiet, sample_generator
from tests.photos import write_tree

pytestmark = pytest.mark.gpu

NUM_ARRAYS, NUM_FOLDERS = 60, 30
NUMBERS = [pytest.param(number, id=f"{number:02d}") for number in range(NUM_ARRAYS)]


def assert_equal_walks(config: Config, flows: list[Any]) -> None:
    def atol_of(path: str, array: np.ndarray) -> float:
        return config.tolerance(array) if array.ndim == 4 else 0.0

    for _ in range(2 * len(flows[0]) + 1):
        wanted, got = (next(flow) for flow in flows)
        assert_same_structure(fetched(got, "cupy:0"), wanted, atol_of=atol_of)


@pytest.mark.parametrize("number", NUMBERS)
def test_arrays(number: int) -> None:
    rng = random.Random(f"device-arrays-{number}")
    channels, dtype = rng.choice((1, 3, 3, 4, 8)), rng.choice(("float32", "float32", "float64", "uint8"))
    data_format = rng.choice(("channels_last", "channels_first"))
    arguments, fit = sample_generator(rng, channels=channels, dtype=dtype, data_format=data_format)
    config = Config(arguments, fit=fit)
    source = "uint8" if dtype == "uint8" else rng.choice(("uint8", "uint16", "float32", "float64"))
    shape = (7, *rng.choice(((8, 8), (13, 7), (1, 17), (32, 40))), channels)
    batch = images(shape, source, seed=number)
    batch = transposed(batch) if data_format == "channels_first" else batch
    flows = []
    for device in ("cpu", "cuda:0"):
        with quiet():
            made = gpuseq.ImageDataGenerator(**arguments, device=device)
            if fit is not None:
                made.fit(batch.astype(np.float32), **fit)
            flows.append(made.flow(batch, np.arange(7), batch_size=3, seed=number, sample_weight=np.ones(7)))
    with quiet():
        assert_equal_walks(config, flows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("walks") / "tree")


@pytest.mark.parametrize("number", NUMBERS[:NUM_FOLDERS])
def test_folders(number: int, folder: Path) -> None:
    rng = random.Random(f"device-folders-{number}")
    color_mode = rng.choice(tuple(COLOR_CHANNELS))
    arguments, _ = sample_generator(
        rng,
        channels=COLOR_CHANNELS[color_mode],
        dtype=rng.choice(("float32", "float32", "float64")),
        data_format=rng.choice(("channels_last", "channels_first")),
        from_files=True,
    )
    arguments = {name: value for name, value in arguments.items() if not name.startswith("featurewise")}
    flow = {
        "target_size": rng.choice(((16, 16), (13, 21), (31, 17))),
        "color_mode": color_mode,
        "class_mode": rng.choice(("categorical", "sparse", "input")),
        "batch_size": 8,
        "seed": number,
        "interpolation": rng.choice(literals(Interpolation)),
        "keep_aspect_ratio": rng.random() < 0.4,
        "verbose": False,
    }
    cache = rng.choice((None, "device", "host"))
    flows = []
    for device in ("cpu", "cuda:0"):
        with quiet():
            made = gpuseq.ImageDataGenerator(**arguments, device=device)
            more = {"decoder": "pillow", **({} if device == "cpu" else {"cache": cache})}
            flows.append(made.flow_from_directory(folder, **flow, **more))
    with quiet():
        assert_equal_walks(Config(arguments), flows)
    for iterator in flows:
        iterator.close()


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["all", "half"])
@pytest.mark.parametrize("cache", ["device", "host"])
def test_looks_that_are_kept(cache: str, share: float, folder: Path) -> None:
    """A look at each image in the first epoch, for which nobody waits; its tables in those after it."""
    side, flows = 96, list[Any]()
    for device in ("cpu", "cuda:0"):
        made = gpuseq.ImageDataGenerator(
            augmentations=gpuseq.TrivialAugmentWide(), rng="keyed", dtype="uint8", device=device
        )
        more = {"class_mode": None, "batch_size": 4, "seed": 1, "decoder": "pillow", "verbose": False}
        if device != "cpu":
            num_files = flows[0].samples
            more |= {"cache": cache, "memory_limit": int(share * num_files) * side * side * 3}
        flows.append(made.flow_from_directory(folder, (side, side), **more))
    for _ in range(4 * len(flows[0])):
        assert_same(next(flows[1]).get(), next(flows[0]))
    # A small batch that looks at none of its images learns none.
    known = flows[1]._source.known(np.arange(num_files))
    assert int(share * num_files) // 2 < known.sum() <= int(share * num_files)
    for iterator in flows:
        iterator.close()
