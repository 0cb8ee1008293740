"""Local files and fsspec URLs through one reader."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from gpuseq import ImageDataGenerator
from gpuseq.base import forks
from gpuseq.base.errors import ImageFileError, MissingDependencyError, StorageError
from gpuseq.decode import host as decode
from gpuseq.decode.options import DecodeOptions
from gpuseq.files import reading as readers
from tests.compare import assert_same
from tests.decode.imagefiles import matrix, picture
from tests.interrupts import descriptors_of, interrupted_everywhere
from tests.threads import wait_for_end


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


def test_a_large_file_is_read_where_its_beginning_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LARGE", 1000)
    monkeypatch.setattr(readers, "PREFIX", 10)
    data = bytes(range(256)) * 4
    (tmp_path / "large").write_bytes(data)
    (tmp_path / "small").write_bytes(data[:1000])
    asked: list[tuple[bytes, int]] = []
    assert readers.read_bytes(str(tmp_path / "large"), lambda *given: asked.append(given)) == data
    assert asked == [(data[:10], 1024)]
    assert readers.read_bytes(str(tmp_path / "small"), lambda *given: "is refused") == data[:1000]
    with pytest.raises(ImageFileError, match=r"large.*is refused"):
        readers.read_bytes(str(tmp_path / "large"), lambda *given: "is refused")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_reads_files_that_do_not_know_their_size() -> None:
    assert readers.read_bytes("/proc/self/status").startswith(b"Name:")


def test_reads_on_after_a_short_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200)))

    class ReadsLittle(io.FileIO):
        def read(self, size: int | None = -1, /) -> Any:
            return super().read(min(size or 0, 7))

    monkeypatch.setattr(readers.io, "FileIO", ReadsLittle)
    assert readers.read_bytes(str(tmp_path / "file")) == bytes(range(200))


def test_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for _ in range(20):
        readers.read_bytes(str(tmp_path / "file"))
        for bad in (tmp_path, tmp_path / "missing"):
            with pytest.raises(ImageFileError):
                readers.read_bytes(str(bad))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageFileError, match="is a named pipe"):
        readers.read_bytes(str(tmp_path / "pipe"))
    assert descriptors_of(tmp_path) == []


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_an_interrupt_anywhere_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    number = 0
    for number in interrupted_everywhere(lambda: readers.read_bytes(str(tmp_path / "file")), readers.__file__):
        assert descriptors_of(tmp_path) == [], f"after {number} instructions"
    assert number > 20


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


# Access is not a bad file.


class RefusedError(Exception):
    """As HTTP clients raise it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}")
        self.status = status


@pytest.fixture
def store(memory: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder in a store, whose ``cat_file`` asks `store.answer` first."""
    for number in range(6):
        memory.pipe(f"/photos/a/{number}.png", matrix()["png_rgb"])
    really = type(memory).cat_file
    asked: list[str] = []

    def cat_file(self: Any, path: str, *more: Any, **options: Any) -> bytes:
        asked.append(path)
        memory.answer(path)
        return really(self, path, *more, **options)

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    monkeypatch.setattr(readers, "_PAUSES", (0.0, 0.0))
    memory.asked, memory.answer = asked, lambda path: None
    yield memory
    del memory.asked, memory.answer


def failing(error: Exception, times: int = 10**6) -> Any:
    left = [times]

    def answer(path: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return answer


@pytest.mark.parametrize("on_error", ["skip", "substitute", lambda path, error: None])
@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (PermissionError("the token has expired"), 1),
        (RefusedError(403), 1),
        (RefusedError(401), 1),
        (RefusedError(503), 3),
        (TimeoutError("timed out"), 3),
        (OSError("connection reset"), 3),
        (RuntimeError("a class of the store's own"), 3),
    ],
    ids=repr,
)
def test_access_is_not_a_bad_file(store: Any, error: Exception, attempts: int, on_error: Any) -> None:
    """An expired token under "skip" was logged as 1,944 bad files of 2,000."""
    own = ImageDataGenerator(device="cpu")
    flow = own.flow_from_directory("memory://photos", (8, 8), on_error=on_error, batch_size=2, seed=1, prefetch=0)
    assert len(next(flow)[0]) == 2
    store.answer = failing(error)
    store.asked.clear()
    for _ in range(2):
        with pytest.raises(StorageError, match=f"({attempts} attempt|in 3 attempts)") as caught:
            next(flow)
    assert (caught.value.attempts, caught.value.__cause__) == (attempts, error)
    assert max(store.asked.count(path) for path in store.asked) % attempts == 0
    assert flow.bad_files == {}
    store.answer = lambda path: None
    assert len(next(flow)[0]) == 2


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), RefusedError(404), IsADirectoryError("a folder")], ids=repr
)
def test_a_file_that_is_not_there_is_a_bad_file(store: Any, error: Exception) -> None:
    store.answer = failing(error)
    with pytest.raises(ImageFileError):
        readers.read_bytes("memory://photos/a/0.png")
    assert len(store.asked) == 1


def test_a_store_that_recovers_is_read_and_the_log_says_so(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    store.answer = failing(RefusedError(503), 2)
    assert readers.read_bytes("memory://photos/a/0.png") == matrix()["png_rgb"]
    assert [record.args[1:3] for record in caplog.records] == [(1, 3), (2, 3)]


def test_a_store_that_hangs_is_given_up(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    store.answer = lambda path: over.wait(300)
    monkeypatch.setenv("GPUSEQ_READ_TIMEOUT", "0.05")
    with pytest.raises(StorageError, match=r"no answer within 0\.05 s.*3 attempts"):
        readers.read_bytes("memory://photos/a/0.png")
    over.set()
    wait_for_end("gpuseq-read")  # on a busy machine one is given up before it has asked
    assert len(store.asked) == 3
    for wrong in ("soon", "nan", "0", "-1", "inf"):
        monkeypatch.setenv("GPUSEQ_READ_TIMEOUT", wrong)
        with pytest.raises(ValueError, match=f"GPUSEQ_READ_TIMEOUT must be .*'{wrong}'"):
            readers.read_bytes("memory://photos/a/0.png")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.ETIMEDOUT])
def test_what_would_fail_for_the_next_file_too_is_no_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(readers.os, "open", refuse)
    with pytest.raises(StorageError) as caught:
        readers.read_bytes(str(tmp_path / "file"))
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


@pytest.mark.parametrize("url", ["memory://pictures/one", "simplecache::memory://pictures/one", "nosuch://one"])
def test_a_fork_waits_for_the_import_of_a_file_system(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    imported, kept_waiting = [], []
    find = fsspec.get_filesystem_class

    def watched(protocol: str) -> Any:
        imported.append(protocol)
        kept_waiting.append(bool(forks._at_work.get(threading.get_ident())))
        return find(protocol)

    monkeypatch.setattr(fsspec, "get_filesystem_class", watched)
    with contextlib.suppress(ValueError):  # a protocol that there is not
        readers.open_filesystem(url)
    wanted = [part.partition("://")[0] for part in url.split("::")]
    assert imported[: len(wanted)] == wanted
    assert all(kept_waiting[: len(wanted)])
    assert threading.get_ident() not in forks._at_work
