"""Folders and data frames whose files lie behind URLs give the batches of the same files on the local disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import gpuseq
from tests.compare import assert_same_structure
from tests.parity import quiet
from tests.photos import write_tree

fsspec = pytest.importorskip("fsspec")
pandas = pytest.importorskip("pandas")


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The same files here and there."""
    tree = write_tree(tmp_path / "tree")
    store = fsspec.filesystem("memory")
    for path in tree.rglob("*"):
        if path.is_file():
            store.pipe(f"/pictures/{path.relative_to(tree)}", path.read_bytes())
    yield str(tree), "memory://pictures"
    store.rm("/pictures", recursive=True)


def assert_same_epochs(flows: list[gpuseq.Iterator]) -> None:
    assert len(flows[0]) == len(flows[1])
    for _ in range(2 * len(flows[0])):
        assert_same_structure(next(flows[1]), next(flows[0]))
    for flow in flows:
        flow.close()


@pytest.mark.parametrize("cache", [None, "host"])
def test_a_folder(trees: tuple[str, str], cache: str | None) -> None:
    generator = gpuseq.ImageDataGenerator(rotation_range=20, validation_split=0.4, device="cpu")
    with quiet():
        flows = [
            generator.flow_from_directory(
                root, target_size=(9, 9), batch_size=4, seed=3, subset="training", cache=cache, verbose=False
            )
            for root in trees
        ]
    assert flows[0].filenames == flows[1].filenames
    assert_same_epochs(flows)


def test_masks(trees: tuple[str, str]) -> None:
    generator = gpuseq.ImageDataGenerator(rotation_range=20, device="cpu")
    with quiet():
        flows = [
            generator.flow_from_directory(
                root, classes=["bees"], mask_directory=root, target_size=(9, 9), batch_size=4, seed=3, verbose=False
            )
            for root in trees
        ]
    assert_same_epochs(flows)


def test_a_data_frame(trees: tuple[str, str]) -> None:
    generator = gpuseq.ImageDataGenerator(horizontal_flip=True, device="cpu")
    local, remote = trees
    names = sorted(str(path.relative_to(local)) for path in Path(local).glob("*/*") if path.suffix not in ("", ".txt"))
    names.append("ants/missing.jpg")
    frame = pandas.DataFrame({"filename": names, "class": [name.partition("/")[0] for name in names]})
    whole = frame.assign(filename=[f"{remote}/{name}" for name in frame["filename"]])
    flows = []
    for rows, directory in ((frame, local), (frame, remote), (whole, None)):
        with pytest.warns(UserWarning, match="Found 1 invalid image filename"):
            flows.append(
                generator.flow_from_dataframe(
                    rows, directory, target_size=(9, 9), batch_size=4, seed=3, verbose=False, class_mode="sparse"
                )
            )
    assert_same_epochs(flows[:2])
    with pytest.warns(UserWarning, match="Found 1 invalid image filename"):
        again = generator.flow_from_dataframe(
            frame, local, target_size=(9, 9), batch_size=4, seed=3, verbose=False, class_mode="sparse"
        )
    assert_same_epochs([again, flows[2]])
