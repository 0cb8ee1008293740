"""Files read by the compiled engine are those that Python reads, with the same headers; the rest is left to Python."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseq.base.errors import ImageFileError
from gpuseq.decode import reading
from gpuseq.decode.headers import is_complete, read_header
from gpuseq.decode.orientation import orientation_of
from gpuseq.decode.reading import FileReader, ReadFiles, header_of
from gpuseq.files import reading as readers
from gpuseq.ops.compiled import library
from tests import compiled_library
from tests.decode.imagefiles import corpus, matrix
from tests.interrupts import descriptors_of


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library.require()
    monkeypatch.setenv(library.ENGINE, "compiled")
    monkeypatch.setattr(reading, "SECONDS", 600.0)  # how many calls a batch takes is not to depend on the machine


def write(folder: Path, files: dict[str, bytes]) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [str(folder / name) for name in files]


def is_left(found: ReadFiles) -> list[bool]:
    return [data is None for data in found.data]


def check(found: ReadFiles, index: int, data: bytes) -> None:
    """A file's content and header are what Python reads and says."""
    view, record = found.data[index], found.records[index]
    assert view is not None
    assert view.tobytes() == data
    header = read_header(data)
    is_jpeg = header is not None and header.format == "JPEG"
    assert header_of(record) == (header if is_jpeg else None)
    assert bool(record["is_complete"]) == (header is not None and is_jpeg and is_complete(data, header))
    if record["orientation"]:
        # Pillow may find fault with what has nothing to do with it.
        with suppress(ImageFileError), warnings.catch_warnings(action="ignore"):
            assert orientation_of(data, "file") == record["orientation"]


@pytest.mark.parametrize("num_threads", [1, 4])
def test_whole_files_and_their_headers_are_those_of_python(tmp_path: Path, num_threads: int) -> None:
    files = corpus()
    found = FileReader(num_threads).read(write(tmp_path / "files", files))
    assert len(found.data) == len(found.records) == len(files)
    for index, data in enumerate(files.values()):
        check(found, index, data)
    by_name = dict(zip(files, found.records, strict=True))
    # That there is something to be seen.
    assert by_name["jpeg_rgb"]["is_stored_as_rgb"]
    assert by_name["fill_named_first"]["is_stored_as_rgb"]
    assert not by_name["jpeg_cmyk"]["is_plain"]
    assert not by_name["jpeg_truncated"]["is_complete"]
    assert by_name["padded_4094"]["is_complete"]
    assert not by_name["padded_4095"]["is_complete"]
    told = {name: int(record["orientation"]) for name, record in by_name.items()}
    assert [told[f"jpeg_exif{number}"] for number in range(1, 9)] == list(range(1, 9))
    known = {"jpeg_420": 1, "exif_none": 1, "exif_of_nothing": 1, "exif_zero": 1, "exif_nine": 1, "exif_camera": 6}
    known |= {"exif_camera_big": 3, "exif_then_xmp": 6, "exif_after_xmp": 8}
    assert {name: told[name] for name in known} == known
    # Only Pillow says what these mean.
    assert {name for name in told if name.startswith("exif_") and not told[name]} == {
        name for name in told if name.startswith("exif_") and name not in known
    }
    assert told["xmp_first"] == 0
    assert descriptors_of(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["jpeg_420", "jpeg_rgb", "jpeg_grey", "jpeg_exif6", "adobe_rgb_bare_last", "fill_named_first", "exif_camera"],
)
def test_cut_files_are_read_no_further_than_they_go(tmp_path: Path, name: str) -> None:
    """From the end on, into the same buffer: what stands behind the cut there is what was there in the file."""
    data = corpus()[name]
    (path,) = write(tmp_path, {"file": data})
    reader = FileReader(1)
    ends = [*range(len(data), len(data) - 20, -1), *range(min(len(data) - 20, 760), -1, -1)]
    for length in ends:
        os.truncate(path, length)
        found = reader.read([path])
        check(found, 0, data[:length])
        del found


@pytest.mark.parametrize("kind", ["", "exif_"])
@settings(max_examples=100)
@given(data=st.data())
def test_damaged_files_have_the_headers_that_python_sees(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    jpegs = [name for name in corpus() if corpus()[name].startswith(b"\xff\xd8\xff")]
    names = [name for name in jpegs if name.startswith(kind)]
    files = {}
    for number in range(4):
        file = bytearray(corpus()[data.draw(st.sampled_from(names))])
        head = min(len(file), 220) - 1
        for place, byte in data.draw(st.lists(st.tuples(st.integers(2, head), st.integers(0, 255)), max_size=4)):
            file[place] = byte
        cut = data.draw(st.integers(0, 3))
        files[str(number)] = bytes(file[: data.draw(st.integers(0, len(file)))] if cut == 0 else file)
    found = FileReader(2).read(write(tmp_path_factory.mktemp("damaged"), files))
    for index, content in enumerate(files.values()):
        check(found, index, content)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    names = ["line\nbreak.jpg", os.fsdecode(b"\xff\xfe.jpg"), "é.jpg", "a::b.jpg", " ", "-"]
    paths = write(tmp_path, dict.fromkeys(names, matrix()["jpeg_420"]))
    (tmp_path / "link").symlink_to(paths[0])
    paths.append(str(tmp_path / "link"))
    assert is_left(FileReader(2).read(paths)) == [False] * len(paths)
    without_colons = [path for path in paths if "::" not in path]
    for batch in (paths, without_colons, [os.path.relpath(path) for path in without_colons]):
        for index in range(len(batch)):
            check(FileReader(2).read(batch), index, matrix()["jpeg_420"])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (good,) = write(tmp_path, {"good": b"x"})
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    waited: list[int] = []

    def end_the_wait() -> None:
        with suppress(OSError):  # ENXIO: nobody waits
            waited.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    # So that the test fails, where it would else never end.
    timer = threading.Timer(20, end_the_wait)
    timer.start()
    found = FileReader(1).read([good, pipe, good])
    timer.cancel()
    timer.join()
    for end in waited:
        os.close(end)
    assert not waited
    assert is_left(found) == [False, True, False]


def test_what_is_no_ordinary_file_is_left_to_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rest of the batch read."""
    (good,) = write(tmp_path, {"good": matrix()["jpeg_420"]})
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    write(tmp_path, {"large": bytes(5001), "at_the_limit": bytes(5000), "empty": b""})
    monkeypatch.setattr(readers, "LARGE", 5000)
    odd = [
        *(str(tmp_path / name) for name in ("dangling", "circle", "missing", "large", "x" * 300)),
        "/dev/null",
    ]
    odd += [str(tmp_path), f"{good}/below", "", f"{good}\0", f"{good}\0{good}", "memory://a.jpg", f"file://{good}"]
    odd += [
        "simplecache::memory://a.jpg",
        "\ud800.jpg",
        *(["/proc/self/status"] if os.path.exists("/proc/self/status") else []),
    ]
    for some in ([path] for path in odd):
        assert is_left(FileReader(2).read([good, *some, good])) == [False, True, False], some
    ordinary = [str(tmp_path / name) for name in ("at_the_limit", "empty")]
    assert is_left(FileReader(2).read([*ordinary, *odd, good])) == [False, False, *[True] * len(odd), False]
    assert descriptors_of(tmp_path) == []


def test_batches_of_none_and_one_and_without_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(tmp_path, {"file": b"x"})
    reader = FileReader(3)
    assert reader.read([]).data == []
    assert is_left(reader.read([path])) == [False]
    monkeypatch.setenv(library.ENGINE, "numpy")
    found = reader.read([path, path])
    assert is_left(found) == [True, True]
    assert len(found.records) == 2


def address(found: ReadFiles) -> int:
    assert found.data[0] is not None
    return int(found.data[0].ctypes.data)


def test_a_buffer_is_filled_again_once_nothing_is_a_part_of_it(tmp_path: Path) -> None:
    first, second = write(tmp_path, {"first": b"a" * 1000, "second": b"b" * 1000})
    reader = FileReader(1)
    held = reader.read([first, second])
    before = address(held)
    starts = held.records["start"].tolist()
    assert starts[0] % 64 == starts[1] % 64 == 0
    view = held.data[1]
    assert view is not None
    part = view[10:]
    del view
    held = reader.read([second])
    assert address(held) != before
    assert part.tobytes() == b"b" * 990
    del part
    assert address(reader.read([second])) == before
    assert held.data[0] is not None
    assert held.data[0].tobytes() == b"b" * 1000


def test_what_does_not_fit_gets_a_buffer_of_its_own_and_the_next_batch_one_for_all(tmp_path: Path) -> None:
    sizes = [700_000, 900_000, 10, 3_000_000, 64, 0]
    contents = [bytes([number]) * size for number, size in enumerate(sizes)]
    paths = write(tmp_path, {str(number): content for number, content in enumerate(contents)})
    reader = FileReader(2)
    buffers = []
    for _ in range(2):
        found = reader.read(paths)
        assert [None if data is None else data.tobytes() for data in found.data] == contents
        buffers.append(len(set(found.records["buffer"].tolist())))
    assert buffers == [2, 1]


def test_a_file_that_never_fits_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it grew and grew."""
    paths = write(tmp_path, {"small": b"a", "large": bytes(1000)})
    asked: list[int] = []

    def buffer(num_bytes: int) -> np.ndarray:
        asked.append(num_bytes)
        assert len(asked) < 5
        return np.empty(100, np.uint8)

    reader = FileReader(1)
    monkeypatch.setattr(reader, "_buffer", buffer)
    assert is_left(reader.read(paths)) == [False, True]


def test_a_call_that_is_over_before_all_is_read_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that Ctrl-C is seen: no time at all lets each thread read one file a call."""
    monkeypatch.setattr(reading, "SECONDS", 0.0)
    engine = reading.host_engine()
    assert engine is not None
    num_left: list[int] = []

    def counted(names: bytes, records: int, count: int, *more: Any) -> int:
        states = np.ctypeslib.as_array((library.FileRecord * count).from_address(records))["state"]
        num_left.append(int((states == 0).sum()))
        taken: int = engine.functions.gpuseq_read_files(names, records, count, *more)
        return taken

    functions = SimpleNamespace(gpuseq_read_files=counted)
    monkeypatch.setattr(reading, "host_engine", lambda: library.InstructionSet("counted", 0, functions))
    contents = {str(number): bytes([number]) * 100 for number in range(9)}
    paths = write(tmp_path, contents)
    for num_threads in (1, 3):
        found = FileReader(num_threads).read([*paths, str(tmp_path)])
        assert is_left(found) == [*[False] * 9, True]
        for index, content in enumerate(contents.values()):
            check(found, index, content)
        if num_threads == 1:
            assert num_left == list(range(10, 0, -1))


def test_callers_on_several_threads_do_not_mix(tmp_path: Path) -> None:
    reader = FileReader(3)
    batches = [{f"{number}_{index}": bytes([number]) * (5000 + index) for index in range(12)} for number in range(4)]
    paths = [write(tmp_path, batch) for batch in batches]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(40):
            found = reader.read(paths[number])
            for view, content in zip(found.data, batches[number].values(), strict=True):
                if view is None or view.tobytes() != content:
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_child_reads_with_the_reader_of_its_parent(tmp_path: Path, run_script: Callable[..., object]) -> None:
    paths = write(tmp_path / "files", {str(number): bytes([number]) * 3000 for number in range(30)})
    run_script(
        """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from gpuseq.decode.reading import FileReader
reader = FileReader(4)
def contents():
    return [data.tobytes() for data in reader.read(sys.argv[1:]).data]
wanted = [bytes([number]) * 3000 for number in range(30)]
held = reader.read(sys.argv[1:])
assert contents() == wanted
child = os.fork()
if child == 0:
    good = all(contents() == wanted for _ in range(20))
    os._exit(0 if good else 1)
assert contents() == wanted
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert [data.tobytes() for data in held.data] == wanted
""",
        *paths,
        GPUSEQ_CPU_ENGINE="compiled",
    )


# What a disk does at the wrong moment, which no test can wait for: the system's calls are replaced.

FAULTS = r"""
#include <cerrno>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
struct Faults { int open_error, stat_error, read_error, after, piece, grow, thread_error, is_late, num_late, is_slow; };
static Faults faults;
static pthread_t caller;
static void *(*late_run)(void *), *late[8];
static int faulty_open(const char *name, int flags)
{
    if (faults.open_error) { errno = faults.open_error; return -1; }
    return open(name, flags);
}
static int faulty_fstat(int file, struct stat *status)
{
    if (faults.stat_error) { errno = faults.stat_error; return -1; }
    const int done = fstat(file, status);
    status->st_size -= faults.grow;      // it has been longer or shorter by so much when it was asked for its size
    return done;
}
static ssize_t faulty_read(int file, void *to, size_t count)
{
    if (faults.read_error && faults.after-- == 0) { errno = faults.read_error; return -1; }
    // No thread but the one that made the call is as quick as it.
    if (faults.is_slow && !pthread_equal(pthread_self(), caller)) usleep(20000);
    return read(file, to, faults.piece && (size_t)faults.piece < count ? (size_t)faults.piece : count);
}
static int faulty_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    if (faults.is_late) {
        late_run = run;
        late[faults.num_late++] = argument;
        return 0;
    }
    return faults.thread_error ? faults.thread_error : pthread_create(thread, attributes, run, argument);
}
#define open faulty_open
#define fstat faulty_fstat
#define read faulty_read
#define pthread_create faulty_create
#include "files.h"
extern "C" Faults *the_faults() { return &faults; }
extern "C" void start_the_late() { while (faults.num_late) late_run(late[--faults.num_late]); }
extern "C" int64_t gpuseq_read_files(const char *names, FileRecord *records, int64_t count, uint8_t *room,
                                     int64_t room_bytes, int64_t taken, int32_t buffer, int64_t largest, int64_t most,
                                     int32_t num_threads)
{
    caller = pthread_self();
    return read_files(names, records, count, room, room_bytes, taken, buffer, largest, most, num_threads);
}
"""


class Faults(ctypes.Structure):
    """What the next calls of the system do."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            "open_error",
            "stat_error",
            "read_error",
            "after",
            "piece",
            "grow",
            "thread_error",
            "is_late",
            "num_late",
        )
    )


@pytest.fixture(scope="module")
def faulty_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "faulty.cpp").write_text(FAULTS)
    flags = (*compiled_library.builder().FLAGS, "-O0", "-shared", "-fvisibility=default")
    command = [*compiled_library.builder().compiler(), *flags, f"-I{compiled_library.HOST}"]
    target = folder / "faulty.so"
    done = subprocess.run(
        [*command, str(folder / "faulty.cpp"), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(target))
    loaded.the_faults.restype = ctypes.POINTER(Faults)
    loaded.gpuseq_read_files.restype = ctypes.c_int64
    loaded.gpuseq_read_files.argtypes = library._load(library._path()).gpuseq_read_files.argtypes
    return loaded


@pytest.fixture
def faults(faulty_library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    found: Any = faulty_library.the_faults().contents
    engine = library.InstructionSet("baseline", 0, faulty_library)
    monkeypatch.setattr(reading, "host_engine", lambda: engine)
    yield found
    ctypes.memset(ctypes.addressof(found), 0, ctypes.sizeof(found))


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_short_reads_are_gone_on_with(tmp_path: Path, faults: Any, piece: int) -> None:
    files = {"photo": matrix()["jpeg_420"], "long": bytes(range(256)) * 33, "empty": b""}
    paths = write(tmp_path, files)
    faults.piece = piece
    found = FileReader(1).read(paths)
    for index, data in enumerate(files.values()):
        check(found, index, data)


@pytest.mark.parametrize("grown", [1, 50, -1, -50])
def test_a_file_of_another_size_than_it_said_is_left(tmp_path: Path, faults: Any, grown: int) -> None:
    paths = write(tmp_path, {"photo": matrix()["jpeg_420"]})
    faults.grow = grown
    assert is_left(FileReader(1).read(paths)) == [True]
    faults.piece = 40
    assert is_left(FileReader(1).read(paths)) == [True]


def counted_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the calls of the library be counted from now on; return the list of one number."""
    engine, num_calls = reading.host_engine(), [0]
    assert engine is not None

    def counted(*arguments: Any) -> int:
        num_calls[0] += 1
        taken: int = engine.functions.gpuseq_read_files(*arguments)
        return taken

    functions = SimpleNamespace(gpuseq_read_files=counted)
    monkeypatch.setattr(reading, "host_engine", lambda: library.InstructionSet("counted", 0, functions))
    return num_calls


@pytest.mark.parametrize("name", ["open_error", "stat_error", "read_error"])
@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EMFILE, errno.EINTR])
def test_a_file_with_any_error_is_left_and_closed(
    tmp_path: Path, faults: Any, name: str, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path, {str(number): bytes(100) for number in range(3)})
    setattr(faults, name, error)
    num_calls = counted_calls(monkeypatch)
    found = FileReader(1).read(paths)
    # A signal ends the call, and Python looks at it.
    assert num_calls == [(2 if name == "read_error" else 3) if error == errno.EINTR and name != "stat_error" else 1]
    if name == "read_error":
        # One of them alone: the count goes on below zero.
        assert is_left(found) == [True, False, False]
        faults.after, faults.piece = 2, 60
        assert is_left(FileReader(1).read(paths)) == [False, True, False]
    else:
        assert is_left(found) == [True] * 3
    assert descriptors_of(tmp_path) == []


def test_without_more_threads_the_caller_reads_all(tmp_path: Path, faults: Any) -> None:
    contents = [bytes([number]) * 100 for number in range(20)]
    paths = write(tmp_path, {str(number): content for number, content in enumerate(contents)})
    faults.thread_error = errno.EAGAIN
    found = FileReader(8).read(paths)
    assert [None if data is None else data.tobytes() for data in found.data] == contents


def test_threads_that_have_not_begun_are_not_waited_for(
    tmp_path: Path, faults: Any, faulty_library: ctypes.CDLL
) -> None:
    """And touch nothing of the call when they do, after it."""
    contents = [bytes([number]) * 100 for number in range(20)]
    paths = write(tmp_path, {str(number): content for number, content in enumerate(contents)})
    faults.is_late = 1
    FileReader(1).read(paths)
    assert faults.num_late == 0
    found = FileReader(8).read(paths)
    assert [None if data is None else data.tobytes() for data in found.data] == contents
    assert faults.num_late == 1
    found.records[:] = 0  # as if they were to be read
    faulty_library.start_the_late()
    assert not found.records.view(np.uint8).any()


def test_threads_that_read_are_waited_for(tmp_path: Path, faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [bytes([number]) * 100 for number in range(20)]
    paths = write(tmp_path, {str(number): content for number, content in enumerate(contents)})
    faults.is_slow = 1
    num_calls = counted_calls(monkeypatch)
    for _ in range(3):
        found = FileReader(4).read(paths)
        assert [None if data is None else data.tobytes() for data in found.data] == contents
    assert num_calls == [3]
