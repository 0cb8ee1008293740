"""Listings of folders equal Keras' in names, order, labels and splits, and end where links run in a circle."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpuseq.base.errors import StorageError
from gpuseq.files import listing, reading
from gpuseq.files.folders import find_classes, list_images, scan_classes, validate_filename
from gpuseq.iterators import iterator as iterators
from tests.compare import assert_same
from tests.threads import wait_for_end

keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")

FORMATS = iterators.Iterator.white_list_formats
names = st.text("ab-_.1 Zé", min_size=1, max_size=5).filter(lambda name: name.strip(". ") != "" and "/" not in name)
extensions = st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".gif", ".txt", "", ".jpg.bak"])
files = st.builds(str.__add__, names, extensions)
trees = st.dictionaries(
    st.sampled_from(["ants", "bees", "Cats", "a b"]),
    st.lists(st.tuples(st.lists(st.sampled_from(["sub", "Sub", "a", "z.jpg"]), max_size=2), files), max_size=9),
    min_size=1,
    max_size=3,
)


def touch(root: Path, tree: dict[str, list[tuple[list[str], str]]]) -> None:
    for label, entries in tree.items():
        (root / label).mkdir(parents=True)
        (root / label / "always.png").touch()
        for folders, name in entries:
            folder = root.joinpath(label, *folders)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
            except OSError:  # a file of that name is where a folder should be, or the other way round
                continue


@given(tree=trees, split=st.sampled_from([None, (0, 0.3), (0.3, 1), (0, 0.5), (0.5, 1)]))
@settings(max_examples=40)
def test_any_tree_is_listed_as_keras_lists_it(
    tree: dict[str, list[tuple[list[str], str]]], split: tuple[float, float] | None
) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        touch(root, tree)
        fraction = 0.0 if split is None else split[0] or split[1]
        keras = keras_image.ImageDataGenerator(validation_split=fraction)
        subset = None if split is None else ("validation" if split[0] == 0 else "training")
        wanted = keras.flow_from_directory(str(root), subset=subset)
        classes = find_classes(str(root))
        filenames, labels = scan_classes(str(root), classes, FORMATS, split, False)
        assert filenames == wanted.filenames
        assert_same(labels, wanted.classes)
        assert {name: number for number, name in enumerate(classes)} == wanted.class_indices
    finally:
        shutil.rmtree(root)


@given(tree=trees, fraction=st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.9]))
@settings(max_examples=25)
def test_the_two_subsets_are_disjoint_and_cover(tree: dict[str, list[tuple[list[str], str]]], fraction: float) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        touch(root, tree)
        classes = find_classes(str(root))
        everything, _ = scan_classes(str(root), classes, FORMATS, None, False)
        validation, _ = scan_classes(str(root), classes, FORMATS, (0, fraction), False)
        training, _ = scan_classes(str(root), classes, FORMATS, (fraction, 1), False)
        assert not set(validation) & set(training)
        assert set(validation) | set(training) == set(everything)
    finally:
        shutil.rmtree(root)


def test_links_are_followed_only_if_asked_and_never_in_a_circle(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "linked.png").touch()
    root = tmp_path / "root" / "one"
    (root / "deep").mkdir(parents=True)
    (root / "own.png").touch()
    (root / "link").symlink_to(beside, target_is_directory=True)
    (root / "deep" / "up").symlink_to(root, target_is_directory=True)
    assert list_images(str(root), FORMATS, False) == ["own.png"]
    assert sorted(list_images(str(root), FORMATS, True)) == [os.path.join("link", "linked.png"), "own.png"]


@pytest.mark.keras
def test_a_file_that_is_reached_on_two_ways_is_found_on_both_as_keras_finds_it(tmp_path: Path) -> None:
    """Which of them it was depended on the order in which the system lists a folder."""
    keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
    root, shared = tmp_path / "root" / "one", tmp_path / "shared"
    (root / "a").mkdir(parents=True)
    (shared / "inner").mkdir(parents=True)
    (shared / "inner" / "0.png").touch()
    for link in (root / "x", root / "y", root / "a" / "z"):
        link.symlink_to(shared, target_is_directory=True)
    (root / "inner").symlink_to(shared / "inner", target_is_directory=True)
    theirs = [os.path.relpath(os.path.join(*pair), root) for pair in keras_image._iter_valid_files(root, FORMATS, True)]
    assert list_images(str(root), FORMATS, True) == theirs
    assert len(theirs) == 4
    (shared / "back").symlink_to(tmp_path / "root", target_is_directory=True)  # where Keras goes round, 40 times
    ours = list_images(str(root), FORMATS, True)
    assert set(theirs) <= set(ours)
    assert all(ours.count(name) == 1 for name in ours)


@pytest.mark.keras
def test_a_link_to_itself_beside_the_classes_is_no_class(tmp_path: Path) -> None:
    keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "one" / "itself").symlink_to(tmp_path / "one" / "itself")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    theirs = keras_image.ImageDataGenerator().flow_from_directory(tmp_path, follow_links=True)
    assert find_classes(tmp_path) == list(theirs.class_indices) == ["one", "two"]
    assert scan_classes(str(tmp_path), ["one", "two"], FORMATS, None, True)[0] == theirs.filenames


def test_tiff_warns_in_class_folders_and_tif_does_not(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for name in ("a.tiff", "b.TIFF", "c.tif"):
        (tmp_path / "one" / name).touch()
    with pytest.warns(UserWarning, match="tiff") as caught:
        filenames, _ = scan_classes(str(tmp_path), ["one"], FORMATS, None, False)
    assert filenames == [os.path.join("one", name) for name in ("a.tiff", "b.TIFF", "c.tif")]
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list_images(str(tmp_path), FORMATS, False)) == 3
        (tmp_path / "one" / "a.tiff").unlink()
        (tmp_path / "one" / "b.TIFF").unlink()
        assert scan_classes(str(tmp_path), ["one"], FORMATS, None, False)[0] == [os.path.join("one", "c.tif")]


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="absent"):
        find_classes(str(tmp_path / "absent"))
    with pytest.raises(NotADirectoryError, match="file"):
        find_classes(str(tmp_path / "file"))


@pytest.fixture
def bucket() -> Iterator[str]:
    """A store behind a URL: three classes, one of them without images, one with a folder in it."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in ("cats/2.jpg", "cats/1.PNG", "cats/deep/3.jpg", "cats/notes.txt", "dogs/1.jpg", "readme.jpg"):
        store.pipe(f"/bucket/train/{name}", b"x")
    yield "memory://bucket/train"
    store.rm("/bucket", recursive=True)


def test_a_folder_behind_a_url_is_listed_as_a_local_one(bucket: str, tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for key in store.find("/bucket/train"):
        local = tmp_path / key.removeprefix("/bucket/train/")
        local.parent.mkdir(parents=True, exist_ok=True)
        local.touch()
    for root in (bucket, bucket + "/"):
        classes = find_classes(root)
        assert classes == find_classes(tmp_path) == ["cats", "dogs"]
        for split in (None, (0, 0.5), (0.5, 1)):
            got, wanted = (scan_classes(where, classes, FORMATS, split, False) for where in (root, str(tmp_path)))
            assert got[0] == wanted[0]
            assert got[1].tolist() == wanted[1].tolist()
    names, _ = scan_classes(bucket, find_classes(bucket, ["."]), FORMATS, None, False)
    assert names[0] == "readme.jpg"
    assert find_classes(bucket, ["cats/deep"]) == ["cats/deep"]


def test_what_is_not_there_behind_a_url_is_named(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory: 'memory://bucket/nothing'"):
        find_classes("memory://bucket/nothing")
    with pytest.raises(NotADirectoryError, match="readme.jpg"):
        find_classes(bucket + "/readme.jpg")
    with pytest.raises(FileNotFoundError, match="'birds'.*it has 'cats', 'dogs'"):
        find_classes(bucket, ["birds"])
    with pytest.warns(UserWarning, match="'birds'.*no such folder"):
        assert find_classes(bucket, ["cats", "birds"]) == ["cats", "birds"]
    with pytest.warns(UserWarning, match="'birds'.*no such folder"):
        names, labels = scan_classes(bucket, find_classes(bucket, ["birds", "cats"]), FORMATS, None, False)
    assert len(names) == len(labels) > 0
    assert set(labels) == {1}


def test_urls_in_a_list_are_looked_up_by_folder(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    asked: list[str] = []
    listed = store.ls
    monkeypatch.setattr(type(store), "ls", lambda self, path, **options: asked.append(path) or listed(path, **options))
    names = [*(f"{bucket}/cats/{name}" for name in ("1.PNG", "2.jpg", "4.jpg", "deep")), f"{bucket}/none/1.jpg"]
    assert listing.are_files(names) == [True, True, False, False, False]
    assert len(asked) == 2
    assert validate_filename(f"{bucket}/cats/2.jpg", FORMATS)
    assert not validate_filename(f"{bucket}/cats/notes.txt", FORMATS)


class AskedStore:
    """What a store does before it lists, and how often it was asked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        import fsspec

        self.num_asked = 0
        self.before: Callable[[], None] = lambda: None
        kind = type(fsspec.filesystem("memory"))
        for name in ("ls", "find"):
            patch.setattr(kind, name, self._asking(getattr(kind, name)))
        patch.setattr(reading, "_PAUSES", (0.0, 0.0))

    def _asking(self, really: Any) -> Any:
        def ask(store: Any, *arguments: Any, **options: Any) -> Any:
            self.num_asked += 1
            self.before()
            return really(store, *arguments, **options)

        return ask


@pytest.fixture
def asked(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[AskedStore]:
    store = AskedStore(monkeypatch)
    yield store
    store.before = lambda: None  # the bucket is emptied before the patch is undone


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(RuntimeError("no credentials"), 3), (OSError("connection reset"), 3), (PermissionError("expired"), 1)],
    ids=repr,
)
@pytest.mark.parametrize("ask", [find_classes, listing.walk, lambda url: listing.are_files([f"{url}/a.jpg"])])
def test_a_store_that_does_not_list_is_named(
    bucket: str, asked: AskedStore, ask: Any, error: Exception, attempts: int
) -> None:
    def refuse() -> None:
        raise error

    asked.before = refuse
    with pytest.raises(StorageError, match=f"memory://bucket/train.*cannot be listed: .*{error}.*attempt") as caught:
        ask(bucket)
    assert (asked.num_asked, caught.value.attempts) == (attempts, attempts)


def test_a_store_that_lists_after_a_failure_is_listed(bucket: str, asked: AskedStore) -> None:
    expected = listing.walk(bucket)
    failures = iter([ConnectionError("reset"), TimeoutError("slow")])
    asked.num_asked = 0

    def fails_twice() -> None:
        for error in failures:
            raise error

    asked.before = fails_twice
    assert listing.walk(bucket) == expected
    assert asked.num_asked >= 3


def test_a_listing_that_hangs_is_given_up(bucket: str, asked: AskedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang() -> None:
        over.wait(300)

    asked.before = hang
    monkeypatch.setenv("GPUSEQ_READ_TIMEOUT", "0.005")
    with pytest.raises(StorageError, match=r"cannot be listed: .*no answer within 0\.05 s.*3 attempts"):
        find_classes(bucket)
    over.set()
    wait_for_end("gpuseq-read")  # on a busy machine one is given up before it has asked
    assert asked.num_asked == 3
