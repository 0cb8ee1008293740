"""Explanations and notebook pages say what the next batch will be, and change nothing."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq import ImageDataGenerator
from gpuseq.decode.host import check_decoder
from gpuseq.ops.compiled.library import describe
from gpuseq.ops.cuda import augment as cuda_augment
from gpuseq.ops.options import AugmentOptions
from tests.cases import images
from tests.compare import assert_same
from tests.photos import write_broken, write_photo

MOVES: dict[str, Any] = {"rotation_range": 20, "zoom_range": 0.2, "horizontal_flip": True, "conventions": "corrected"}


def folder(root: Path) -> Path:
    for number in range(10):
        write_photo(root / ("ants" if number % 2 else "bees") / f"{number}", "jpeg", height=20, width=24, seed=number)
    return root


def make(kind: str, root: Path, **flow: Any) -> Any:
    generator = ImageDataGenerator(**MOVES, device="cpu")
    if kind == "array":
        return generator.flow(images((10, 12, 12, 3), "uint8"), np.arange(10), batch_size=4, **flow)
    return generator.flow_from_directory(folder(root), target_size=(12, 12), batch_size=4, verbose=False, **flow)


def first(batch: Any) -> np.ndarray:
    return np.asarray(batch[0])


@pytest.mark.parametrize("look", ["explain", "explain(1)", "html"])
@pytest.mark.parametrize("kind", ["array", "folder"])
@pytest.mark.parametrize(
    "flow", [{"seed": 3}, {"seed": None}, {"seed": 3, "rng": "keyed"}, {"seed": 3, "shard": (1, 2)}]
)
def test_looking_changes_nothing(look: str, kind: str, flow: dict[str, Any], tmp_path: Path) -> None:
    looked, left = make(kind, tmp_path / "a", **flow), make(kind, tmp_path / "b", **flow)

    def walk(iterator: Any, looks: bool) -> list[np.ndarray]:
        np.random.seed(11)
        batches = []
        for step in range(5):
            if looks and look == "html":
                assert "<img" in iterator._repr_html_()
            elif looks:
                assert len(iterator.explain(1 if look == "explain(1)" else None).rows) in (2, 4, 1)
            if step == 2:  # draws the next order from wherever the stream stands
                iterator.on_epoch_end()
            batches.append(first(next(iterator) if step != 3 else iterator[0]))
            if iterator.seed is not None:
                batches.append(np.frombuffer(repr(iterator.state_dict()).encode(), np.uint8))
        return batches

    for got, wanted in zip(walk(looked, True), walk(left, False), strict=True):
        assert_same(got, wanted)
    looked.close()
    left.close()


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_the_plan_shown_is_the_plan_that_comes(kind: str, tmp_path: Path) -> None:
    iterator = make(kind, tmp_path, seed=5)
    next(iterator)
    found = iterator.explain()
    plan = iterator.plan_batch()
    assert found.plan == plan
    assert [row[0] for row in found.rows] == [str(index) for index in plan.indices]
    turns = found.head.index("turn, deg")
    for row, values in zip(found.rows, plan.to_dicts(), strict=True):
        assert float(row[turns]) == pytest.approx(values["theta"], rel=1e-3)
    assert iterator.explain(2).plan == iterator.plan_batch(2)
    text = str(found)
    assert text.startswith(f"{type(iterator).__name__}: batch 1 of 3, 4 samples")
    for row in found.rows:
        assert any(all(cell in line for cell in row) for line in text.splitlines())
    iterator.close()


def test_columns_that_nothing_draws_are_left_out() -> None:
    iterator = ImageDataGenerator(rotation_range=5, device="cpu").flow(images((4, 6, 6, 3), "uint8"), seed=0)
    assert iterator.explain().head == ("sample", "turn, deg")
    plain = ImageDataGenerator(device="cpu").flow(images((4, 6, 6, 3), "uint8"), np.arange(4), seed=0)
    assert plain.explain().head == ("sample", "label")


def path_of(iterator: Any) -> dict[str, str]:
    return dict(iterator.explain().path)


def test_the_path_of_an_array_says_resident_and_counts_bytes() -> None:
    data = images((10, 12, 8, 3), "uint8")
    path = path_of(ImageDataGenerator(device="cpu", dtype="float16").flow(data, batch_size=4, seed=0))
    assert path["source"].startswith("resident: (10, 12, 8, 3) uint8, 2.9 kB")
    assert path["batch"] == "(4, 12, 8, 3) float16, 2.3 kB on cpu"
    assert path["bytes"].startswith("1.2 kB of pixels in, 2.3 kB out")
    assert path["engine"].startswith(describe())
    assert "slow path" not in path


def test_the_path_of_files_names_decoder_and_cache(tmp_path: Path) -> None:
    generator = ImageDataGenerator(device="cpu")
    flow: dict[str, Any] = {"target_size": (8, 8), "batch_size": 5, "seed": 1, "verbose": False, "prefetch": 0}
    iterator = generator.flow_from_directory(folder(tmp_path), cache="host", **flow)
    path = path_of(iterator)
    assert path["source"].startswith("decoded: 10 files, when asked for")
    assert path["decoder"].startswith(f"{check_decoder('auto')} (auto); ")
    assert path["decoder"].endswith("resized to 8 x 8, nearest")
    assert path["cache"] == "0 of this batch's 5 images; room for 10 of 10; 0 B kept so far"
    for _ in range(2):
        next(iterator)
    assert path_of(iterator)["cache"] == "5 of this batch's 5 images; room for 10 of 10; 1.9 kB kept so far"
    assert path_of(generator.flow_from_directory(tmp_path, **flow))["cache"].startswith("none")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"samplewise_center": True},
        {"has_channel_shift": False, "has_brightness": False},
        {"has_channel_shift": False},
        {"has_channel_shift": False, "fill_mode": "constant", "cval": -1.0},
        {"has_channel_shift": False, "dtype": "float64"},
    ],
)
def test_the_launches_shown_are_those_of_the_variant(asked: dict[str, Any], dtype: str) -> None:
    options = AugmentOptions(**asked)
    variant = cuda_augment._variant(options, np.dtype(dtype), 3, True, False, False)
    first = [name for name in ("sample_range", "sample_moments") if getattr(variant, name) is not None]
    assert cuda_augment.launches(options, np.dtype(dtype)) == [*first, "augment"]


def test_what_is_slow_stands_beside_what_makes_it_slow() -> None:
    """The planner says it of the drawing, the transform of the pixels."""

    class Drawn(ImageDataGenerator):
        def get_random_transform(self, *arguments: Any) -> Any:
            return super().get_random_transform(*arguments)

    generator = Drawn(preprocessing_function=halved, interpolation_order=3, device="cpu")
    path = generator.flow(images((4, 6, 6, 3), "uint8"), seed=0).explain().path
    stations = [name for name, _ in path]
    assert stations == ["plan", "slow path", "source", "engine", "slow path", "slow path", "batch", "bytes"]
    slow = [text for name, text in path if name == "slow path"]
    for text, words in zip(slow, ("get_random_transform", "interpolation_order=3", "batched"), strict=True):
        assert words in text


def halved(image: Any) -> Any:
    return image / 2


class Own(ImageDataGenerator):
    def standardize(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (lambda: ImageDataGenerator(interpolation_order=3, device="cpu"), "splines"),
        (lambda: ImageDataGenerator(preprocessing_function=halved, device="cpu"), "a Python call per image"),
        (lambda: Own(device="cpu"), "a subclass"),
    ],
)
def test_what_is_slow_is_named(generator: Any, words: str) -> None:
    path = path_of(generator().flow(images((4, 6, 6, 3), "uint8"), seed=0))
    assert words in path["slow path"]


class Page(HTMLParser):
    """Checks that tags close in order, and collects the pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def pictures(text: str) -> list[np.ndarray]:
    found = []
    for source in Page(text).sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    return found


def test_thumbnails_are_the_pictures_of_the_next_batch() -> None:
    data = images((12, 9, 7, 3), "uint8")
    iterator = ImageDataGenerator(horizontal_flip=True, device="cpu").flow(data, batch_size=12, seed=2)
    shown = pictures(iterator._repr_html_())
    batch = next(iterator)
    assert len(shown) == 8
    for picture, image in zip(shown, batch, strict=False):
        assert_same(picture, image.astype(np.uint8))
    assert "and 4 more" in ImageDataGenerator(device="cpu").flow(data, batch_size=12, seed=2)._repr_html_()


@pytest.mark.parametrize("num_samples", [8, 9, 12, 13, 14])
def test_a_page_shows_or_counts_each_sample(num_samples: int) -> None:
    iterator = ImageDataGenerator(device="cpu").flow(
        images((num_samples, 3, 3, 3), "uint8"), batch_size=num_samples, seed=2
    )
    page, explained = iterator._repr_html_(), iterator.explain()._repr_html_()
    rows = re.search("<tbody>(.*?)</tbody>", explained, re.DOTALL)
    assert rows is not None
    for text, shown in ((page, len(pictures(page))), (explained, rows[1].count("<tr>"))):
        more = re.search(r"and (\d+) more", text)
        assert shown + (int(more[1]) if more else 0) == num_samples


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_batch_has_pictures(data_format: str, channels: int) -> None:
    shape = (3, 6, 5, channels) if data_format == "channels_last" else (3, channels, 6, 5)
    generator = ImageDataGenerator(data_format=data_format, samplewise_center=True, rescale=1 / 255, device="cpu")
    shown = pictures(generator.flow(images(shape, "uint8"), seed=0)._repr_html_())
    assert [picture.shape for picture in shown] == [(6, 5, 3)] * 3
    assert all(np.ptp(picture) > 100 for picture in shown)


def test_a_page_survives_names_and_files_that_are_bad(tmp_path: Path) -> None:
    write_photo(tmp_path / "one" / "<b>&.png", "png")
    iterator = ImageDataGenerator(device="cpu").flow_from_directory(tmp_path, batch_size=4, seed=0, verbose=False)
    assert "&lt;b&gt;&amp;.png" in iterator._repr_html_()
    Page(iterator.explain()._repr_html_())
    write_broken(tmp_path / "one", "text")
    iterator = ImageDataGenerator(device="cpu").flow_from_directory(tmp_path, batch_size=4, seed=0, verbose=False)
    page = iterator._repr_html_()
    assert "ImageFileError" in page
    assert "broken_text.jpg" in page


def test_looking_writes_no_files(tmp_path: Path) -> None:
    iterator = ImageDataGenerator(device="cpu").flow(images((4, 6, 6, 3), "uint8"), seed=0, save_to_dir=str(tmp_path))
    iterator._repr_html_()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_generator_shows_what_it_does(data_format: str) -> None:
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    generator = ImageDataGenerator(**MOVES, rescale=1 / 255, data_format=data_format, device="cpu")
    page = generator._repr_html_()
    assert re.search(r"rotation_range=20", page)
    shown = pictures(page)
    assert len(shown) == 5
    assert not np.array_equal(shown[0], shown[1])
    assert np.array_equal(np.random.get_state()[1], state)
    called = []
    quiet = ImageDataGenerator(preprocessing_function=lambda image: called.append(1) or image, device="cpu")
    assert "<img" not in quiet._repr_html_()
    assert called == []


def test_explanations_are_public() -> None:
    assert hasattr(gpuseq.NumpyArrayIterator, "explain")
    assert hasattr(gpuseq.DirectoryIterator, "explain")
    assert hasattr(gpuseq.DataFrameIterator, "explain")


@pytest.mark.parametrize("looks_at", [True, False])
def test_the_steps_of_the_augmentations_are_shown(looks_at: bool) -> None:
    """One column with each sample's steps, and a station that says what they are and where they stand."""
    chosen = gpuseq.RandomEqualize(1.0) if looks_at else gpuseq.RandomSolarize(100, 0.5)
    generator = ImageDataGenerator(rotation_range=9, augmentations=chosen, device="cpu", conventions="corrected")
    iterator = generator.flow(images((10, 12, 12, 3), "uint8"), batch_size=8, seed=1)
    found = iterator.explain()
    assert found.head[-1] == "augmentations"
    column = [row[-1] for row in found.rows]
    assert set(column) == ({"Equalize"} if looks_at else {"Solarize 100", "-"})
    assert [[tuple(text.split())] if text != "-" else [] for text in column] == [
        [
            tuple(f"{part:.4g}" if isinstance(part, float) else part for part in one)
            for one in found.plan.describe(sample)
        ]
        for sample in range(8)
    ]
    stations = dict(found.path)
    assert repr(chosen) in stations["augmentations"]
    assert "after the ranges are rounded to uint8" in stations["augmentations"]
    assert found.plan == iterator.plan_batch()
    plain = ImageDataGenerator(device="cpu").flow(images((10, 12, 12, 3), "uint8"), batch_size=8, seed=1)
    assert "augmentations" not in (*plain.explain().head, *dict(plain.explain().path))


def test_names_that_are_no_utf8_are_written_out(tmp_path: Path) -> None:
    """A notebook, and a terminal, take UTF-8 only."""
    (tmp_path / "a").mkdir()
    with open(os.fsencode(tmp_path) + b"/a/caf\xe9.png", "wb") as file:
        Image.new("RGB", (4, 4)).save(file, "PNG")
    flow = gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(tmp_path, (4, 4), verbose=False)
    for text in (flow._repr_html_(), str(flow.explain()), flow.explain()._repr_html_(), repr(flow)):
        assert text.encode("utf-8")
    assert "caf\\udce9.png" in str(flow.explain())
