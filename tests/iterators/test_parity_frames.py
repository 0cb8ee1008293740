"""`flow_from_dataframe` equals Keras', batch by batch, in 50 random configurations."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base.types import COLOR_CHANNELS, Interpolation, literals
from tests.compare import assert_same_structure
from tests.parity import Config, Streams, assert_same_attributes, assert_same_walk, quiet, sample_generator, sample_walk

pandas = pytest.importorskip("pandas")
keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
pytestmark = [pytest.mark.keras, pytest.mark.each_cpu_engine]

NUM_CONFIGS = 50
CLASS_MODES = ("categorical", "binary", "sparse", "input", "multi_output", "raw", None, "lists")
INTERPOLATIONS = literals(Interpolation)
COLOR_MODES = tuple(COLOR_CHANNELS)


def make_frame(tree: Path, *, absolute: bool, with_bad_rows: bool, seed: int) -> Any:
    """Return a shuffled data frame of the tree: paths, labels of every form, weights; an index that is not 0..n-1."""
    rng = np.random.default_rng(seed)
    paths = sorted(path for path in tree.glob("*/*") if path.suffix not in ("", ".txt"))
    names = [str(path) if absolute else str(path.relative_to(tree)) for path in paths]
    labels = [path.parent.name for path in paths]
    if with_bad_rows:
        names += ["ants/missing.jpg", "notes.txt"]
        labels += ["ants", "ants"]
    frame = pandas.DataFrame(
        {
            "filename": names,
            "class": labels,
            "many": [[label, "small"] if i % 3 else (label,) for i, label in enumerate(labels)],
            "two": ["yes" if label == "ants" else "no" for label in labels],
            "age": rng.integers(0, 90, len(names)),
            "height": rng.random(len(names)).astype(np.float32),
            "vector": [rng.random(3).tolist() for _ in names],
            "weight": rng.random(len(names)),
        }
    )
    return frame.sample(frac=1, random_state=seed)


def sample(number: int) -> Config:
    """Return configuration `number`: a pure function of the number."""
    rng = random.Random(f"frames-{number}")
    seeded = rng.random() < 0.8
    color_mode = COLOR_MODES[number // 6 % 3]
    mode = CLASS_MODES[number % len(CLASS_MODES)]
    generator, _ = sample_generator(
        rng,
        channels=COLOR_CHANNELS[color_mode],
        from_files=True,
        # 16-bit grey files do not fit into uint8, where Keras wraps them around.
        dtype=rng.choice(("float32",) * 6 + ("float64", "float64" if color_mode == "grayscale" else "uint8")),
        data_format=rng.choice(("channels_last", "channels_last", "channels_first")),
    )
    for name in ("featurewise_center", "featurewise_std_normalization"):
        generator.pop(name, None)
    flow: dict[str, Any] = {
        "class_mode": "categorical" if mode == "lists" else mode,
        "y_col": {
            "binary": "two",
            "lists": "many",
            "multi_output": rng.choice((["age", "height"], ["age", "vector"], ["class"])),
            "raw": rng.choice(("age", "height", ["age", "height"])),
        }.get(str(mode), "class"),
        "weight_col": rng.choice((None, "weight")),
        "target_size": rng.choice(((16, 16), (13, 21), (24, 24))),
        "color_mode": color_mode,
        "batch_size": rng.choice((3, 5, 32)),
        "shuffle": rng.random() < 0.6,
        "seed": rng.randrange(10_000) if seeded else None,
        "interpolation": INTERPOLATIONS[number % 6],
        "validate_filenames": rng.random() < 0.6,
    }
    if mode in ("categorical", "sparse"):
        flow["classes"] = rng.choice((None, ["cats", "ants"], ["cats", "bees", "ants", "cats"]))
    if mode == "lists":
        flow["classes"] = rng.choice((None, ["small", "cats"]))
    if rng.random() < 0.3:
        generator["validation_split"] = rng.choice((0.25, 0.5))
        flow["subset"] = rng.choice(("training", "validation"))
    data = {
        "absolute": rng.random() < 0.4,
        "bad_rows": flow["validate_filenames"] and rng.random() < 0.5,
        "walk_seed": rng.randrange(1 << 30),
        "renamed": rng.random() < 0.2,
    }
    return Config(generator, flow, data=data)


@pytest.mark.parametrize("number", [pytest.param(number, id=f"{number:03d}") for number in range(NUM_CONFIGS)])
def test_frames(number: int, tree: Path) -> None:
    config = sample(number)
    frame = make_frame(tree, absolute=config.data["absolute"], with_bad_rows=config.data["bad_rows"], seed=number)
    arguments = dict(config.flow)
    if config.data["renamed"]:
        frame = frame.rename(columns={"filename": "path"})
        arguments["x_col"] = "path"
    directory = None if config.data["absolute"] else str(tree)
    before = frame.copy(deep=True)
    with quiet():
        theirs = keras_image.ImageDataGenerator(**config.generator).flow_from_dataframe(frame, directory, **arguments)
        ours = gpuseq.ImageDataGenerator(**config.generator, device="cpu").flow_from_dataframe(
            frame, directory, **arguments
        )
        assert_same_attributes(theirs, ours)
        walk = sample_walk(random.Random(config.data["walk_seed"]), len(theirs), seeded=theirs.seed is not None)
        assert_same_walk(
            theirs, ours, walk, Streams(number), config.tolerance, input_labels=config.flow["class_mode"] == "input"
        )
    pandas.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("word", ["has_ext", "sort", "drop_duplicates"])
def test_old_words_warn_as_in_keras(word: str, tree: Path) -> None:
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0)
    with pytest.warns(DeprecationWarning, match=word):
        gpuseq.ImageDataGenerator(device="cpu").flow_from_dataframe(frame, str(tree), **{word: True})


def test_class_mode_other_is_raw(tree: Path) -> None:
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0)
    with pytest.warns(DeprecationWarning, match="raw"):
        ours = gpuseq.ImageDataGenerator(device="cpu").flow_from_dataframe(
            frame, str(tree), class_mode="other", y_col="age", target_size=(8, 8), seed=1
        )
    assert ours.class_mode == "raw"
    assert_same_structure(next(ours)[1], frame["age"].to_numpy()[np.random.RandomState(1).permutation(len(frame))[:32]])


def test_invalid_file_names_are_counted_in_a_warning(tree: Path) -> None:
    frame = make_frame(tree, absolute=False, with_bad_rows=True, seed=0)
    generator = gpuseq.ImageDataGenerator(device="cpu")
    with pytest.warns(UserWarning, match=r"Found 2 invalid image filename\(s\) in x_col=\"filename\""):
        kept = generator.flow_from_dataframe(frame, str(tree))
    assert kept.samples == len(frame) - 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unchecked = generator.flow_from_dataframe(frame, str(tree), validate_filenames=False)
    assert unchecked.samples == len(frame)


def test_unused_classes_warn(tree: Path) -> None:
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0)
    with pytest.warns(UserWarning, match="`classes` will be ignored"):
        gpuseq.ImageDataGenerator(device="cpu").flow_from_dataframe(frame, str(tree), class_mode=None, classes=["ants"])


def test_the_sampler_reaches_every_corner() -> None:
    configs = [sample(number) for number in range(NUM_CONFIGS)]
    flows = [config.flow for config in configs]
    assert {flow["class_mode"] for flow in flows} == {mode for mode in CLASS_MODES if mode != "lists"}
    assert {flow["weight_col"] for flow in flows} == {None, "weight"}
    assert {flow["validate_filenames"] for flow in flows} == {False, True}
    assert {flow.get("subset") for flow in flows} == {None, "training", "validation"}
    assert {config.data["absolute"] for config in configs} == {False, True}
    assert any(config.data["bad_rows"] for config in configs)
    assert any(isinstance(flow["y_col"], list) for flow in flows)


LARGE = 2**53 + 1


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [31, 32, 33], "b": ["x", "y", "z"]},
        {"a": [LARGE, 1, 2], "b": ["x", "y", "z"], "c": [0.5, 1.5, 2.5]},
        {"a": [True, False, True], "b": [0.5, 1.5, 2.5]},
        {"a": [True, False, True], "b": [1, 2, 3]},
        {"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]},
    ],
    ids=lambda columns: "-".join(type(values[0]).__name__ for values in columns.values()),
)
def test_raw_columns_of_several_types_are_keras_values(tree: Path, columns: dict[str, list[Any]]) -> None:
    """A number beside a text became a text, a truth value 1.0."""
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0).head(3).assign(**columns)
    options: dict[str, Any] = {"class_mode": "raw", "y_col": list(columns), "target_size": (8, 8), "shuffle": False}
    theirs = next(keras_image.ImageDataGenerator().flow_from_dataframe(frame, str(tree), **options))[1]
    ours = next(gpuseq.ImageDataGenerator(device="cpu").flow_from_dataframe(frame, str(tree), **options))[1]
    assert ours.dtype == theirs.dtype
    assert [[(type(value), value) for value in row] for row in ours] == [
        [(type(value), value) for value in row] for row in theirs
    ]


@pytest.mark.parametrize(
    ("rows", "stacked"),
    [
        ([[0, 0.5], [1, 2], [3, 4]], np.array([[0, 0.5], [1, 2], [3, 4]])),
        ([[float("nan"), 0.5], [1, 2], [3, 4]], np.array([[float("nan"), 0.5], [1, 2], [3, 4]])),
        ([[[1, 2]], [[3, 4]], [[5, 6]]], np.array([[[1, 2]], [[3, 4]], [[5, 6]]])),
        ([["x", "y"], ["z", ""], ["", ""]], np.array([["x", "y"], ["z", ""], ["", ""]])),
        ([[31, "x"], [32, "y"], [33, "z"]], None),
        ([[LARGE, 0.5], [1, 2], [3, 4]], None),
        ([[True, 0.5], [True, 2], [False, 4]], None),
        ([[1, 2], [3], [4, 5, 6]], None),
        ([[[1, 2], [3]], [[4], [5]], [[6], [7, 8]]], None),
    ],
    ids=repr,
)
def test_rows_are_stacked_where_that_changes_none_of_their_values(tree: Path, rows: Any, stacked: Any) -> None:
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0).head(3).assign(rows=rows)
    options: dict[str, Any] = {"class_mode": "raw", "y_col": "rows", "target_size": (8, 8), "shuffle": False}
    got = next(gpuseq.ImageDataGenerator(device="cpu").flow_from_dataframe(frame, str(tree), **options))[1]
    if stacked is None:
        assert got.dtype == object
        assert got.tolist() == rows
    else:
        assert_same_structure(got, stacked)


@pytest.mark.parametrize("values", [([1, 2], [3, 4]), ([], []), (np.arange(2), np.arange(3)), ({}, None)], ids=repr)
def test_objects_in_a_cell_stay_what_they_are(tree: Path, values: tuple[Any, ...]) -> None:
    cells = [np.empty(2, object) for _ in range(3)]
    for cell in cells:
        cell[:] = values
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0).head(3).assign(cells=cells)
    options: dict[str, Any] = {"class_mode": "raw", "y_col": "cells", "target_size": (8, 8), "shuffle": False}
    for generator in (gpuseq.ImageDataGenerator(device="cpu"), keras_image.ImageDataGenerator()):
        got = next(generator.flow_from_dataframe(frame, str(tree), **options))[1]
        assert [[id(value) for value in cell] for cell in got] == [[id(value) for value in values]] * 3


@pytest.mark.parametrize("y_col", ["age", ["age", "height"]])
def test_missing_labels_pass_as_they_are_under_raw(tree: Path, y_col: Any) -> None:
    """For a loss that leaves them out: regression of several targets, none of which every row has."""
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0).astype({"age": float})
    frame.loc[frame.index[::3], "age"] = np.nan
    options: dict[str, Any] = {"class_mode": "raw", "y_col": y_col, "target_size": (8, 8), "seed": 1, "batch_size": 9}
    theirs = next(keras_image.ImageDataGenerator().flow_from_dataframe(frame, str(tree), **options))[1]
    got = next(gpuseq.ImageDataGenerator(device="cpu").flow_from_dataframe(frame, str(tree), **options))[1]
    assert np.isnan(got).any()
    assert got.dtype == theirs.dtype
    assert np.array_equal(got, theirs, equal_nan=True)


@pytest.mark.parametrize("mode", ["categorical", "sparse", "binary", "multi_output", "raw"])
def test_columns_of_one_name_are_refused_but_where_keras_takes_all_of_them(tree: Path, mode: str) -> None:
    """One-hot rows of the wrong width came, and all labels were 0."""
    frame = make_frame(tree, absolute=False, with_bad_rows=False, seed=0)[["filename", "two"]]
    frame = pandas.concat([frame, frame[["two"]]], axis=1)
    y_col: Any = ["two"] if mode == "multi_output" else "two"
    options: dict[str, Any] = {"class_mode": mode, "y_col": y_col, "target_size": (8, 8), "shuffle": False}
    ours = gpuseq.ImageDataGenerator(device="cpu")
    if mode == "raw":
        theirs = next(keras_image.ImageDataGenerator().flow_from_dataframe(frame, str(tree), **options))[1]
        assert next(ours.flow_from_dataframe(frame, str(tree), **options))[1].tolist() == theirs.tolist()
        return
    with pytest.raises(TypeError, match="2 columns of the name 'two'"):
        ours.flow_from_dataframe(frame, str(tree), **options)
    with pytest.raises((TypeError, AttributeError)):
        keras_image.ImageDataGenerator().flow_from_dataframe(frame, str(tree), **options)
