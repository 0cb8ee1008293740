"""`flow` over arrays equals Keras', batch by batch, in 160 random configurations."""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.cases import images, transposed
from tests.parity import (
    Config,
    Streams,
    assert_same_attributes,
    assert_same_saved,
    assert_same_walk,
    quiet,
    sample_generator,
    sample_walk,
)

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = [pytest.mark.keras, pytest.mark.each_cpu_engine]

NUM_CONFIGS = 160


def sample(number: int, *, name: str = "arrays", **fixed: Any) -> Config:
    """Return configuration `number`: a pure function of the name and the number."""
    rng = random.Random(f"{name}-{number}")
    seeded = fixed.get("seeded", rng.random() < 0.75)
    whiten = number % 12 == 5
    channels = rng.choice((1, 2)) if whiten else rng.choice((1, 2, 3, 3, 3, 4, 8))
    dtype = (
        rng.choice(("float32", "float32", "float64")) if whiten else rng.choice(("float32",) * 5 + ("float64", "uint8"))
    )
    data_format = rng.choice(("channels_last", "channels_last", "channels_first"))
    size = (
        rng.choice(((4, 4), (3, 5))) if whiten else rng.choice(((8, 8), (13, 7), (11, 19), (1, 17), (5, 5), (16, 16)))
    )
    generator, fit = sample_generator(
        rng,
        channels=channels,
        dtype=dtype,
        data_format=data_format,
        float_ranges_only=fixed.get("float_ranges_only", False),
        may_whiten=whiten,
    )
    num_samples = rng.choice((1, 5, 7, 10))
    batch_size = rng.choice((1, 3, 4, 32))
    flow: dict[str, Any] = {
        "batch_size": batch_size,
        "shuffle": rng.random() < 0.6,
        "seed": rng.randrange(10_000) if seeded else None,
    }
    kept = num_samples
    if num_samples > 4 and rng.random() < 0.25:
        generator["validation_split"] = rng.choice((0.2, 0.4))
        flow["subset"] = rng.choice(("training", "validation"))
        flow["ignore_class_split"] = True
        split = int(num_samples * generator["validation_split"])
        kept = split if flow["subset"] == "validation" else num_samples - split
    if fit is not None and not seeded:
        fit["seed"] = rng.choice((None, fit["seed"]))
    data = {
        "source": rng.choice(("uint8", "uint8", "uint16", "float32", "float64")) if dtype != "uint8" else "uint8",
        "shape": (num_samples, *size, channels),
        "y": rng.choice((None, "integers", "one_hot", "list", "text")),
        # Keras does not slice the weights with a subset: see test_deliberate_differences.py.
        "weights": rng.random() < 0.3 and "subset" not in flow,
        "misc": rng.choice((None, None, None, "array", "list")),
        "save": rng.random() < 0.12 and channels in (1, 3, 4),
    }
    return Config(generator, flow, fit, sample_walk(rng, -(-kept // batch_size), seeded=seeded), data)


def make_data(config: Config, seed: int) -> tuple[Any, dict[str, Any], np.ndarray]:
    """Return what goes into `flow` as `x`, the labels and weights, and the plain images."""
    rng = np.random.default_rng(seed)
    shape = config.data["shape"]
    batch = images(shape, config.data["source"], seed=seed)
    if config.generator["data_format"] == "channels_first":
        batch = transposed(batch)
    num_samples = shape[0]
    labels = {
        None: None,
        "integers": rng.integers(0, 3, num_samples),
        "one_hot": np.eye(3, dtype=np.float32)[rng.integers(0, 3, num_samples)],
        "list": rng.random(num_samples).tolist(),
        "text": np.array(["a", "bb", "ccc"])[rng.integers(0, 3, num_samples)],
    }[config.data["y"]]
    more: dict[str, Any] = {"y": labels}
    if config.data["weights"]:
        more["sample_weight"] = rng.random(num_samples)
    x: Any = batch
    if config.data["misc"] == "array":
        x = (batch, rng.random((num_samples, 2)))
    elif config.data["misc"] == "list":
        x = [batch, [rng.random((num_samples, 2)), rng.integers(0, 9, num_samples)]]
    return x, more, batch


@pytest.mark.parametrize("number", [pytest.param(number, id=f"{number:03d}") for number in range(NUM_CONFIGS)])
def test_arrays(number: int, tmp_path: Path) -> None:
    assert_arrays_equal_keras(number, tmp_path, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("number", [pytest.param(number, id=f"{number:03d}") for number in range(NUM_CONFIGS)])
def test_arrays_on_a_device(number: int, tmp_path: Path) -> None:
    assert_arrays_equal_keras(number, tmp_path, "cuda:0")


def assert_arrays_equal_keras(number: int, tmp_path: Path, device: str) -> None:
    """Take both sides through configuration `number`, and compare all they answer."""
    config = sample(number)
    x, more, batch = make_data(config, number)
    folders = {"keras": tmp_path / "keras", "ours": tmp_path / "ours"}
    streams = Streams(number)
    original = batch.copy()
    with quiet():
        theirs = keras_image.ImageDataGenerator(**config.generator)
        ours = gpuseq.ImageDataGenerator(**config.generator, device=device)
        if config.fit is not None:
            # ZCA with fewer images than values per image amplifies rounding noise a million times.
            shape = (
                3 * int(np.prod(batch.shape[1:])) if config.generator.get("zca_whitening") else 6,
                *batch.shape[1:],
            )
            sample_data = images(shape, "float32", seed=number + 1)
            streams.run("keras", lambda: theirs.fit(sample_data, **config.fit))
            streams.run("ours", lambda: ours.fit(sample_data, **config.fit))
            if config.fit["seed"] is not None:
                streams = Streams(number)  # Keras' fit reseeded the global stream; ours did not
        flows = {}
        for side, generator in (("keras", theirs), ("ours", ours)):
            arguments = dict(config.flow)
            if config.data["save"]:
                folders[side].mkdir()
                arguments |= {"save_to_dir": str(folders[side]), "save_prefix": "p", "save_format": "png"}
            flows[side] = generator.flow(x, **more, **arguments)
        if not config.data["save"]:
            assert_same_attributes(flows["keras"], flows["ours"])
        where = device.replace("cuda", "cupy").replace("cpu", "numpy")
        assert_same_walk(flows["keras"], flows["ours"], config.walk, streams, config.tolerance, where=where)
    if config.data["save"]:
        exact = not (config.moves_pixels or config.normalises)
        assert_same_saved(folders["keras"], folders["ours"], levels=0 if exact else 1)
    assert np.array_equal(batch, original), "the user's array was written to"


@pytest.mark.parametrize("number", [pytest.param(number, id=f"{number:03d}") for number in range(16)])
def test_without_a_seed_the_global_stream_is_read_as_keras_reads_it(number: int) -> None:
    config = sample(number, name="unseeded", seeded=False, float_ranges_only=True)
    config.fit = None
    for name in ("featurewise_center", "featurewise_std_normalization", "zca_whitening"):
        config.generator.pop(name, None)
    x, more, _ = make_data(config, number)
    with quiet():
        theirs = keras_image.ImageDataGenerator(**config.generator).flow(x, **more, **config.flow)
        ours = gpuseq.ImageDataGenerator(**config.generator, device="cpu").flow(x, **more, **config.flow)
        np.random.seed(number)
        wanted = [next(theirs) for _ in range(3)]
        theirs_ends = np.random.get_state()
        np.random.seed(number)
        got = [next(ours) for _ in range(3)]
        ours_ends = np.random.get_state()
    assert ours_ends[2] == theirs_ends[2]
    assert np.array_equal(ours_ends[1], theirs_ends[1])
    for mine, reference in zip(got, wanted, strict=True):
        mine = mine[0] if isinstance(mine, tuple) else mine
        reference = reference[0] if isinstance(reference, tuple) else reference
        mine = mine[0] if isinstance(mine, list) else mine
        reference = reference[0] if isinstance(reference, list) else reference
        np.testing.assert_allclose(mine, reference, rtol=0, atol=config.tolerance(reference))


def test_the_sampler_reaches_every_corner() -> None:
    """The suite is only worth what its configurations cover."""
    configs = [sample(number) for number in range(NUM_CONFIGS)]
    generators = [config.generator for config in configs]
    drawn_elsewhere = {"zca_epsilon", "fill_mode", "cval", "data_format", "interpolation_order", "dtype"}
    for name in set(inspect.signature(keras_image.ImageDataGenerator).parameters) - drawn_elsewhere:
        assert sum(bool(generator.get(name)) for generator in generators) >= 3, name
    assert {generator.get("interpolation_order") for generator in generators} >= {0, 1, 2, 3, 4, 5}
    assert {generator.get("fill_mode") for generator in generators} >= {"nearest", "constant", "reflect", "wrap"}
    assert {generator["dtype"] for generator in generators} == {"float32", "float64", "uint8"}
    assert {config.data["source"] for config in configs} == {"uint8", "uint16", "float32", "float64"}
    assert {config.data["shape"][3] for config in configs} == {1, 2, 3, 4, 8}
    assert {config.flow.get("subset") for config in configs} == {None, "training", "validation"}
    assert any(isinstance(g.get("width_shift_range"), list) for g in generators)
    assert any(isinstance(g.get("width_shift_range"), int) for g in generators)
    assert {name for config in configs for name, _ in config.walk} == {"next", "getitem", "on_epoch_end", "reset"}
    assert sum(config.flow["seed"] is None for config in configs) >= 10
    assert sum(bool(config.data["save"]) for config in configs) >= 4
