"""Files that cannot be read: named, with the reason, and handled as `on_error` says; labels stay with their images."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.compare import assert_same
from tests.photos import write_broken, write_photo

HOW = ("empty", "text", "truncated", "cut_png", "header_only")
SIZE = (12, 12)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of two classes, six pictures each, one of which is each a flat colour that tells which it is."""
    from PIL import Image

    folder = tmp_path / "data"
    for label, name in enumerate(("left", "right")):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            level = 10 + 100 * label + 10 * number
            Image.new("RGB", (20, 16), (level, level, level)).save(folder / name / f"picture_{number}.png")
    return folder


def flow(folder: Path, **arguments: Any) -> Any:
    arguments = {"target_size": SIZE, "class_mode": "sparse", "batch_size": 4, "shuffle": False} | arguments
    return gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(folder, **arguments)


def levels_and_labels(batches: list[Any]) -> list[tuple[int, int]]:
    """Return what each sample shows and says: (grey level, label)."""
    pairs = []
    for images, labels in batches:
        assert len(images) == len(labels)
        for image, label in zip(np.asarray(images), np.asarray(labels), strict=True):
            assert (image == image[0, 0, 0]).all()
            pairs.append((int(image[0, 0, 0]), int(label)))
    return pairs


def assert_labels_fit(pairs: list[tuple[int, int]]) -> None:
    """Every level from 110 up is a picture of the second class."""
    assert pairs
    assert all((level >= 110) == (label == 1) for level, label in pairs), pairs


@pytest.mark.parametrize("how", HOW)
def test_the_file_is_named_with_its_reason(how: str, root: Path) -> None:
    broken = write_broken(root / "left", how)
    batches = flow(root, batch_size=32)
    with pytest.raises(gpuseq.ImageFileError) as raised:
        next(batches)
    assert raised.value.path == str(broken)
    assert str(broken) in str(raised.value)
    assert raised.value.reason
    assert raised.value.reason in str(raised.value)
    assert isinstance(raised.value, OSError), "code that caught Keras' OSError still does"


def test_a_missing_file_is_named(root: Path) -> None:
    batches = flow(root, batch_size=32)
    (root / "right" / "picture_3.png").unlink()
    with pytest.raises(gpuseq.ImageFileError, match=r"picture_3\.png"):
        next(batches)


def test_an_unreadable_file_is_named(root: Path) -> None:
    (root / "left" / "picture_9.png").mkdir()
    (root / "left" / "picture_8.png").symlink_to(root / "nowhere.png")
    batches = flow(root, batch_size=32)
    with pytest.raises(gpuseq.ImageFileError, match=r"picture_8\.png"):
        next(batches)


def test_an_oversized_image_is_refused_from_its_header(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    write_photo(root / "left" / "huge", "png", height=80, width=80)
    with pytest.raises(gpuseq.ImageFileError, match=r"huge\.png") as raised:
        next(flow(root, batch_size=32))
    assert "6400" in raised.value.reason.replace(",", "").replace("80x80", "6400").replace("80 x 80", "6400")


@pytest.mark.parametrize("how", HOW)
def test_skip_leaves_the_sample_out_and_keeps_labels_aligned(how: str, root: Path) -> None:
    broken = write_broken(root / "left", how)
    batches = flow(root, on_error="skip")
    pairs = levels_and_labels([next(batches) for _ in range(len(batches))])
    assert len(pairs) == 12
    assert len(set(pairs)) == 12
    assert_labels_fit(pairs)
    assert str(broken) in batches.bad_files


def test_skipped_files_are_counted_and_listed_at_the_end_of_the_epoch(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [write_broken(root / "left", "empty"), write_broken(root / "right", "text")]
    batches = flow(root, on_error="skip")
    with caplog.at_level(logging.WARNING, logger="gpuseq"):
        for _ in range(len(batches)):
            next(batches)
        batches.on_epoch_end()
    assert "2" in caplog.text
    for path in broken:
        assert path.name in caplog.text


def test_substitute_keeps_the_batch_size_and_takes_the_donors_label(root: Path) -> None:
    write_broken(root / "left", "truncated")
    write_broken(root / "right", "empty")
    batches = flow(root, on_error="substitute")
    epoch = [next(batches) for _ in range(len(batches))]
    assert [len(images) for images, _ in epoch] == [4, 4, 4, 2]
    assert_labels_fit(levels_and_labels(epoch))


def test_a_callable_is_asked_with_path_and_error(root: Path) -> None:
    broken = write_broken(root / "right", "header_only")
    asked = []

    def answer(path: str, error: Exception) -> np.ndarray:
        asked.append((path, error))
        return np.full((*SIZE, 3), 255, np.uint8)

    batches = flow(root, on_error=answer, batch_size=32)
    pairs = levels_and_labels([next(batches)])
    assert [path for path, _ in asked] == [str(broken)]
    assert isinstance(asked[0][1], gpuseq.ImageFileError)
    assert (255, 1) in pairs
    assert len(pairs) == 13
    assert_labels_fit(pairs)


def test_a_callable_may_skip(root: Path) -> None:
    write_broken(root / "right", "header_only")
    batches = flow(root, on_error=lambda path, error: None, batch_size=32)
    pairs = levels_and_labels([next(batches)])
    assert len(pairs) == 12
    assert_labels_fit(pairs)


def test_a_callable_that_raises_stops_the_epoch_with_its_own_error(root: Path) -> None:
    write_broken(root / "right", "header_only")

    def refuse(path: str, error: Exception) -> None:
        raise KeyError(path)

    with pytest.raises(KeyError, match="broken_header_only"):
        next(flow(root, on_error=refuse, batch_size=32))


def test_a_callables_image_of_another_shape_is_refused(root: Path) -> None:
    write_broken(root / "right", "header_only")
    with pytest.raises(ValueError, match=r"broken_header_only.*\(12, 12, 3\)"):
        next(flow(root, on_error=lambda path, error: np.zeros((5, 5, 3)), batch_size=32))


@pytest.mark.parametrize("policy", ["skip", "substitute"])
def test_a_batch_of_nothing_but_broken_files_is_an_error(policy: str, tmp_path: Path) -> None:
    write_broken(tmp_path / "one", "empty")
    write_broken(tmp_path / "one", "text")
    with pytest.raises(gpuseq.ImageFileError, match="broken_"):
        next(flow(tmp_path, on_error=policy))


@pytest.mark.parametrize("policy", ["raise", "skip", "substitute"])
def test_a_policy_changes_nothing_where_all_files_are_good(policy: str, root: Path) -> None:
    wanted, got = flow(root), flow(root, on_error=policy)
    for _ in range(2 * len(wanted)):
        (images, labels), (reference, reference_labels) = next(got), next(wanted)
        assert_same(np.asarray(images), np.asarray(reference))
        assert_same(np.asarray(labels), np.asarray(reference_labels))
    assert not got.bad_files


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_failure_ahead_of_time_comes_with_its_own_batch(prefetch: int, root: Path) -> None:
    """Decoding ahead must neither lose an error nor raise it a batch too early."""
    broken = write_broken(root / "right", "text")
    position = sorted(path.name for path in (root / "right").iterdir()).index(broken.name) + 6
    batches = flow(root, prefetch=prefetch)
    for number in range(len(batches)):
        if number == position // 4:
            with pytest.raises(gpuseq.ImageFileError, match="broken_text"):
                next(batches)
        else:
            next(batches)


def test_a_repaired_file_is_read_again(root: Path) -> None:
    broken = write_broken(root / "left", "cut_png")
    batches = flow(root, batch_size=32, prefetch=0)
    with pytest.raises(gpuseq.ImageFileError):
        next(batches)
    shutil.copy(root / "left" / "picture_2.png", broken)
    images, _ = next(batches)
    assert len(images) == 13


def test_data_frames_have_the_same_policies(root: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_broken(root / "left", "text")
    names = sorted(str(path.relative_to(root)) for path in root.glob("*/*"))
    frame = pandas.DataFrame({"filename": names, "class": [name.split("/")[0] for name in names]})
    frame["age"] = [float(number) for number in range(len(frame))]
    generator = gpuseq.ImageDataGenerator(device="cpu")
    arguments: dict[str, Any] = {
        "class_mode": "raw",
        "y_col": "age",
        "weight_col": "age",
        "target_size": SIZE,
        "shuffle": False,
    }
    images, ages, weights = next(generator.flow_from_dataframe(frame, root, on_error="skip", **arguments))
    assert len(images) == len(ages) == len(weights) == 12
    assert names.index("left/broken_text.jpg") not in np.asarray(ages).astype(int).tolist()
    assert_same(np.asarray(ages), np.asarray(weights))
    with pytest.raises(gpuseq.ImageFileError, match="broken_text"):
        next(generator.flow_from_dataframe(frame, root, **arguments))
