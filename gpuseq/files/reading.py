"""Reading files: local paths and fsspec URLs behind two functions. Every failure names the file.

Two kinds of failure are told apart. An `ImageFileError` is about the file: it is not there, or is no file. Whatever
else goes wrong is a `StorageError`: the disk or store refuses, is out of order, or does not answer.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpuseq.base.errors import ImageFileError, MissingDependencyError, StorageError, require
from gpuseq.base.forks import forks_wait

__all__ = [
    "ask_store",
    "is_url",
    "open_filesystem",
    "read_bytes",
    "read_failure",
    "read_timeout",
    "says_missing",
    "stat_token",
]

logger = logging.getLogger("gpuseq")

LARGE = 2**28
"""Bytes of a local file that are read without a look at its beginning."""

PREFIX = 2**20
"""Bytes of that beginning."""

ATTEMPTS = 3
"""How often a store is asked for a file. Its own package may try again within each attempt."""

_PAUSES = (0.5, 1.5)
"""Seconds before the second and the third attempt."""

# What the system says of the file itself; ENXIO and ENODEV of a socket and a device that nothing serves. Other errors,
# such as too many open files, a stale handle, no permission, would be the same for the next file.
_OF_THE_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENODEV,
}

# Two letters at least, so that a Windows drive is no scheme. "::" chains protocols ("simplecache::s3://bucket/key").
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(::|://)")

# A named pipe in a data folder would block open() for ever without O_NONBLOCK; regular files ignore the flag.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_url(path: str) -> bool:
    """Return whether `path` is read through fsspec (``scheme://...``, ``cache::scheme://...``).

    Parameters
    ----------
    path : str
        A local path or a URL. Absolute local paths are never URLs.
    """
    return _URL.match(path) is not None


def read_bytes(path: str, refuse: Callable[[bytes, int], str | None] | None = None) -> bytes:
    """Read a whole file.

    Parameters
    ----------
    path : str
        A local path, or a URL that fsspec knows (``s3://``, ``gs://``, ``memory://``, ...).
    refuse : callable or None
        Gets the first `PREFIX` bytes of a local file of more than `LARGE` bytes, and its size; what it returns, unless
        None, is why the file is not read.

    Returns
    -------
    bytes
        The file's content, possibly empty.

    Raises
    ------
    ImageFileError
        If there is no such file, it is no file, or `refuse` says so; its reason is one clause.
    StorageError
        If it cannot be had for another reason. Stores are asked `ATTEMPTS` times, unless access is refused; each
        attempt may take ``GPUSEQ_READ_TIMEOUT`` seconds, 30 by default.
    MissingDependencyError
        If `path` is a URL and fsspec or the package of its protocol is not installed.
    ValueError
        If ``GPUSEQ_READ_TIMEOUT`` is no positive number.
    """
    seconds = read_timeout() if is_url(path) else math.inf
    try:
        return _read_remote(path, seconds) if is_url(path) else _read_local(path, refuse)
    except (ImageFileError, MissingDependencyError, StorageError, MemoryError):
        raise
    except ImportError as error:  # fsspec knows the protocol, but not without its package (s3fs, gcsfs, ...)
        raise MissingDependencyError(f"{path!r} cannot be read: {error}") from error
    except Exception as error:
        raise _named(path, error) from error


def stat_token(path: str) -> tuple[int, int]:
    """Return what changes when a local file's content changes, for caches to compare.

    Parameters
    ----------
    path : str
        A local path.

    Returns
    -------
    (int, int)
        Size in bytes and modification time in nanoseconds.

    Raises
    ------
    ImageFileError
        If the file is not there.
    StorageError
        If it may not be looked at, or its disk does not answer.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise _named(path, error) from error
    return status.st_size, status.st_mtime_ns


def read_failure(error: BaseException) -> str:
    """Turn what an ``open`` or a remote store raised into one clause without the path.

    Parameters
    ----------
    error : BaseException
        The exception.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _named(path: str, error: Exception) -> ImageFileError | StorageError:
    # ValueError: a null character in a path, a protocol that fsspec does not know.
    is_of_the_file = isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _OF_THE_FILE)
    reason = read_failure(error)
    return ImageFileError(path, reason) if is_of_the_file else StorageError(path, reason)


def _read_remote(path: str, seconds: float) -> bytes:
    # On this thread: fsspec keeps a file system, and its connections, for each thread.
    filesystem, key = open_filesystem(path)
    try:
        return bytes(ask_store(path, lambda: filesystem.cat_file(key), seconds))
    except Exception as error:
        if says_missing(error):
            raise ImageFileError(path, read_failure(error)) from error
        raise


def ask_store(path: str, question: Callable[[], Any], seconds: float, failed: str = "") -> Any:
    """Ask a store until it answers: `ATTEMPTS` times, unless it says that there is no such thing, or refuses access.

    Parameters
    ----------
    path : str
        The URL that it is asked for, as the caller named it.
    question : callable
        Asks; what it returns is the answer.
    seconds : float
        That each attempt may take.
    failed : str
        What could not be done, as the start of the reason.

    Raises
    ------
    StorageError
        If it does not answer.
    Exception
        What `says_missing` knows, and errors of missing packages and memory, as they come.
    """
    began = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _within(seconds, question)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # stores raise their own classes
            if says_missing(error):
                raise
            is_refused = isinstance(error, PermissionError) or _status(error) in (400, 401, 403)
            took = time.monotonic() - began
            if is_refused or attempt == ATTEMPTS:
                raise StorageError(path, failed + read_failure(error), attempt, took) from error
            logger.warning(
                "%r: attempt %d of %d failed, after %.0f s: %s", path, attempt, ATTEMPTS, took, read_failure(error)
            )
            time.sleep(_PAUSES[attempt - 1])
    raise AssertionError("the last attempt returns or raises")


def says_missing(error: Exception) -> bool:
    """Tell whether a store answered, and said that there is no such thing, or that it is of another kind.

    Parameters
    ----------
    error : Exception
        What it raised.
    """
    kinds = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
    return isinstance(error, kinds) or _status(error) in (404, 410)


def _status(error: Exception) -> Any:
    return getattr(error, "status", getattr(error, "code", None))


def read_timeout() -> float:
    """Return how many seconds an attempt to read from a store may take: ``GPUSEQ_READ_TIMEOUT``, or 30.

    Raises
    ------
    ValueError
        If the variable is no positive number.
    """
    text = os.environ.get("GPUSEQ_READ_TIMEOUT", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"GPUSEQ_READ_TIMEOUT must be a number of seconds above 0; got {text!r}")
    return seconds


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Call a function that may never return, and raise `TimeoutError` when its time is over."""
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:
            answers.put((None, error))

    # A thread of its own, which the end of the process does not wait for: a call that hangs cannot be stopped.
    try:
        threading.Thread(target=run, name="gpuseq-read", daemon=True).start()
    except RuntimeError:  # no thread can be started
        return function()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(
            f"no answer within {seconds:g} s (GPUSEQ_READ_TIMEOUT sets how long a store may take)"
        ) from None
    if error is not None:
        raise error
    return answer


def _read_local(path: str, refuse: Callable[[bytes, int], str | None] | None) -> bytes:
    with _open(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
            raise ImageFileError(path, f"is {kind}")
        if refuse is not None and status.st_size > LARGE:
            reason = refuse(file.read(PREFIX), status.st_size)
            if reason is not None:
                raise ImageFileError(path, reason)
            file.seek(0)
        # One byte more than the size, so that a single short read proves the end.
        data = file.read(status.st_size + 1)
        if len(data) == status.st_size:
            return data
        parts = [data]
        while data:
            data = file.read(1 << 20)
            parts.append(data)
        return b"".join(parts)


def _open(path: str) -> io.FileIO:
    """Open a local file of any kind, without waiting for a pipe's other end."""
    # Ctrl-C may raise after any call of Python, and a descriptor that only a variable names would then stay open. The
    # two `map` go from the path to the descriptor to the object that owns it in one call of C: from there on whoever
    # drops the object closes it. Not `FileIO(path)`, which cannot be told the flags; its `opener` would be Python. What
    # is left is a directory that is listed as a picture, and Ctrl-C in the two instructions before its `os.close`.
    try:
        return next(map(io.FileIO, map(os.open, (path,), (_OPEN_FLAGS,))))
    except IsADirectoryError as error:
        if isinstance(error.filename, int):  # from FileIO, which takes no directory, and does not own this one
            os.close(error.filename)
        raise ImageFileError(path, "is a directory") from None


def open_filesystem(path: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the URL's key in it.

    Parameters
    ----------
    path : str
        A URL.

    Raises
    ------
    MissingDependencyError
        If fsspec is not installed.
    ImportError
        If the package of its protocol is not installed.
    """
    fsspec = require("fsspec", extra="fsspec", purpose=f"Reading the URL {path!r}")
    # By itself, and not within the next line, which may ask a server: a fork waits for imports.
    with forks_wait("the import of fsspec's file systems"):
        for part in path.split("::"):
            with suppress(ImportError, ValueError):  # what is missing or unknown is said by the next line
                fsspec.get_filesystem_class(part.partition("://")[0])
    filesystem, key = fsspec.core.url_to_fs(path)
    return filesystem, key
