"""Local files and fsspec URLs through one reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpuseq.base.errors import ImageFileError, MissingDependencyError
from gpuseq.decode import host as decode
from gpuseq.decode.options import DecodeOptions
from gpuseq.files import reading as readers
from tests.compare import assert_same
from tests.decode.imagefiles import matrix, picture


@pytest.fixture
def memory() -> Any:
    fsspec = pytest.importorskip("fsspec")
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 3_000_000])
def test_reads_local_files_whole(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert readers.read_bytes(str(tmp_path / "file")) == data[:size]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_reads_files_that_do_not_know_their_size() -> None:
    assert readers.read_bytes("/proc/self/status").startswith(b"Name:")


def test_reads_on_after_a_short_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200)))
    really_read = os.read
    monkeypatch.setattr(readers.os, "read", lambda descriptor, size: really_read(descriptor, min(size, 7)))
    assert readers.read_bytes(str(tmp_path / "file")) == bytes(range(200))


def test_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        readers.read_bytes(str(tmp_path / "file"))
        for bad in (tmp_path, tmp_path / "missing"):
            with pytest.raises(ImageFileError):
                readers.read_bytes(str(bad))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/data/a.png", False),
        ("a.png", False),
        ("C:\\data\\a.png", False),
        ("C://data/a.png", False),
        ("/data/s3://x", False),
        ("dir/a::b.png", False),
        ("s3://bucket/a.png", True),
        ("memory://a.png", True),
        ("simplecache::s3://bucket/a.png", True),
        ("file:///data/a.png", True),
    ],
)
def test_knows_urls(path: str, url: bool) -> None:
    assert readers.is_url(path) is url


def test_reads_urls(memory: Any) -> None:
    memory.pipe("/photos/a b.png", b"content")
    assert readers.read_bytes("memory://photos/a b.png") == b"content"
    with pytest.raises(ImageFileError, match="no such file") as caught:
        readers.read_bytes("memory://photos/missing.png")
    assert caught.value.path == "memory://photos/missing.png"


def test_reads_file_urls(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    (tmp_path / "a.png").write_bytes(b"content")
    assert readers.read_bytes(f"file://{tmp_path}/a.png") == b"content"


def test_decodes_urls(memory: Any) -> None:
    memory.pipe("/a.png", matrix()["png_rgb"])
    memory.pipe("/b.png", b"")
    good, empty, missing = decode.decode_files(["memory://a.png", "memory://b.png", "memory://c.png"], DecodeOptions())
    assert_same(good, picture(3))
    assert isinstance(empty, ImageFileError)
    assert (empty.path, empty.reason) == ("memory://b.png", "the file is empty")
    assert isinstance(missing, ImageFileError)
    assert missing.reason == "no such file"


def test_an_unknown_protocol_is_named() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(ImageFileError, match="Protocol not known: nonsense"):
        readers.read_bytes("nonsense://a.png")


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"gpuseq\[fsspec\]"):
        readers.read_bytes("s3://bucket/a.png")


def test_without_the_protocols_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def absent(path: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingDependencyError, match="s3fs"):
        readers.read_bytes("s3://bucket/a.png")
    with pytest.raises(MissingDependencyError, match="s3fs"):  # a whole data set of them is no bad file
        decode.decode_files(["s3://bucket/a.png"], DecodeOptions())


def test_tokens_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    os.utime(path, ns=(5, 1_000_000_007))
    first = readers.stat_token(str(path))
    assert first == (3, 1_000_000_007)
    assert readers.stat_token(str(path)) == first
    path.write_bytes(b"longer")
    os.utime(path, ns=(5, 1_000_000_007))
    assert readers.stat_token(str(path)) == (6, 1_000_000_007)
    with pytest.raises(ImageFileError, match="no such file or directory"):
        readers.stat_token(str(tmp_path / "missing"))
