"""`flow_from_directory` equals Keras', batch by batch, in 90 random configurations."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base.types import COLOR_CHANNELS, Interpolation, literals
from tests.compare import assert_same
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
from tests.photos import KINDS, write_photo

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = [pytest.mark.keras, pytest.mark.each_cpu_engine]

NUM_CONFIGS = 90
INTERPOLATIONS = literals(Interpolation)
COLOR_MODES = tuple(COLOR_CHANNELS)
CLASS_MODES = ("categorical", "binary", "sparse", "input", None)


def sample(number: int) -> Config:
    """Return configuration `number`: a pure function of the number. Arguments that matter most take turns."""
    rng = random.Random(f"folders-{number}")
    seeded = rng.random() < 0.8
    color_mode = COLOR_MODES[number // 6 % 3]
    data_format = rng.choice(("channels_last", "channels_last", "channels_first"))
    generator, fit = sample_generator(
        rng,
        channels=COLOR_CHANNELS[color_mode],
        from_files=True,
        # 16-bit grey files do not fit into uint8, where Keras wraps them around.
        dtype=rng.choice(("float32",) * 6 + ("float64", "float64" if color_mode == "grayscale" else "uint8")),
        data_format=data_format,
    )
    if rng.random() < 0.3:  # decode and resize only: exact
        generator, fit = {"data_format": data_format, "dtype": generator["dtype"]}, None
    classes = rng.choice((None, None, ["cats", "ants"], ["bees"], ["cats", "bees", "ants"]))
    flow: dict[str, Any] = {
        "target_size": rng.choice(((16, 16), (13, 21), (24, 24), (9, 8), (31, 17))),
        "color_mode": color_mode,
        "class_mode": CLASS_MODES[number % 5],
        "classes": classes,
        "batch_size": rng.choice((3, 5, 8, 32)),
        "shuffle": rng.random() < 0.6,
        "seed": rng.randrange(10_000) if seeded else None,
        "interpolation": INTERPOLATIONS[number % 6],
        "keep_aspect_ratio": rng.random() < 0.4,
        "follow_links": rng.random() < 0.3,
    }
    if rng.random() < 0.3:
        generator["validation_split"] = rng.choice((0.25, 0.5))
        flow["subset"] = rng.choice(("training", "validation"))
    return Config(generator, flow, fit, data={"save": rng.random() < 0.1, "walk_seed": rng.randrange(1 << 30)})


@pytest.mark.parametrize("number", [pytest.param(number, id=f"{number:03d}") for number in range(NUM_CONFIGS)])
def test_folders(number: int, tree: Path, tmp_path: Path) -> None:
    assert_folders_equal_keras(number, tree, tmp_path, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("number", [pytest.param(number, id=f"{number:03d}") for number in range(NUM_CONFIGS)])
def test_folders_on_a_device(number: int, tree: Path, tmp_path: Path) -> None:
    assert_folders_equal_keras(number, tree, tmp_path, "cuda:0", decoder="pillow")


def assert_folders_equal_keras(number: int, tree: Path, tmp_path: Path, device: str, **options: Any) -> None:
    """Take both sides through configuration `number`; `options` are our own arguments."""
    config = sample(number)
    folders = {"keras": tmp_path / "keras", "ours": tmp_path / "ours"}
    streams = Streams(number)
    with quiet():
        theirs = keras_image.ImageDataGenerator(**config.generator)
        ours = gpuseq.ImageDataGenerator(**config.generator, device=device)
        if config.fit is not None:
            channels = COLOR_CHANNELS[config.flow["color_mode"]]
            shape = (5, 9, 9, channels) if config.generator["data_format"] == "channels_last" else (5, channels, 9, 9)
            sample_data = np.random.RandomState(number).uniform(0, 255, shape)
            streams.run("keras", lambda: theirs.fit(sample_data, **config.fit))
            streams.run("ours", lambda: ours.fit(sample_data, **config.fit))
            streams = Streams(number)
        flows = {}
        for side, generator in (("keras", theirs), ("ours", ours)):
            arguments = dict(config.flow)
            if config.data["save"]:
                folders[side].mkdir()
                arguments |= {"save_to_dir": str(folders[side]), "save_prefix": "p", "save_format": "png"}
            arguments |= options if side == "ours" else {}
            flows[side] = generator.flow_from_directory(str(tree), **arguments)
        if not config.data["save"]:
            assert_same_attributes(flows["keras"], flows["ours"])
        walk = sample_walk(
            random.Random(config.data["walk_seed"]), len(flows["keras"]), seeded=config.flow["seed"] is not None
        )
        assert_same_walk(
            flows["keras"],
            flows["ours"],
            walk,
            streams,
            config.tolerance,
            where=device.replace("cuda", "cupy").replace("cpu", "numpy"),
            input_labels=config.flow["class_mode"] == "input",
        )
    if config.data["save"]:
        exact = not (config.moves_pixels or config.normalises)
        assert_same_saved(folders["keras"], folders["ours"], levels=0 if exact else 1)


@pytest.mark.parametrize("keep_aspect_ratio", [False, True], ids=["stretch", "keep"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("color_mode", COLOR_MODES)
def test_decode_and_resize_are_exact(color_mode: str, interpolation: str, keep_aspect_ratio: bool, tree: Path) -> None:
    arguments: dict[str, Any] = {
        "target_size": (15, 19),
        "color_mode": color_mode,
        "interpolation": interpolation,
        "keep_aspect_ratio": keep_aspect_ratio,
        "class_mode": None,
        "shuffle": False,
        "batch_size": 64,
    }
    with quiet():
        wanted = next(keras_image.ImageDataGenerator().flow_from_directory(str(tree), **arguments))
        got = next(gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(str(tree), **arguments))
    assert len(wanted) == 22
    assert_same(np.asarray(got), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("color_mode", COLOR_MODES)
def test_each_kind_of_file_is_decoded_exactly(kind: str, color_mode: str, tmp_path: Path) -> None:
    write_photo(tmp_path / "one" / "picture", kind, height=21, width=34, seed=5)
    arguments: dict[str, Any] = {"target_size": (21, 34), "color_mode": color_mode, "class_mode": None}
    with quiet():
        wanted = next(keras_image.ImageDataGenerator().flow_from_directory(str(tmp_path), **arguments))
        got = next(gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(str(tmp_path), **arguments))
    assert wanted.any()
    assert_same(np.asarray(got), wanted)


def test_what_keras_prints_is_logged(
    tree: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="gpuseq"):
        gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(str(tree))
    assert "Found 22 images belonging to 3 classes." in caplog.text + capsys.readouterr().out


def test_directories_may_be_path_objects(tree: Path) -> None:
    ours = gpuseq.ImageDataGenerator(device="cpu")
    by_path = ours.flow_from_directory(tree, target_size=(8, 8), seed=3)
    by_text = ours.flow_from_directory(str(tree), target_size=(8, 8), seed=3)
    assert by_path.filenames == by_text.filenames
    assert_same(np.asarray(next(by_path)[0]), np.asarray(next(by_text)[0]))


def test_the_sampler_reaches_every_corner() -> None:
    configs = [sample(number) for number in range(NUM_CONFIGS)]
    flows = [config.flow for config in configs]
    pairs = {(flow["color_mode"], flow["interpolation"]) for flow in flows}
    assert pairs == {(color_mode, interpolation) for color_mode in COLOR_MODES for interpolation in INTERPOLATIONS}
    assert {flow["class_mode"] for flow in flows} == set(CLASS_MODES)
    assert {flow["keep_aspect_ratio"] for flow in flows} == {False, True}
    assert {flow["follow_links"] for flow in flows} == {False, True}
    assert {flow.get("subset") for flow in flows} == {None, "training", "validation"}
    assert {config.generator["data_format"] for config in configs} == {"channels_last", "channels_first"}
    assert sum(flow["seed"] is None for flow in flows) >= 5
    assert sum(config.data["save"] for config in configs) >= 3
