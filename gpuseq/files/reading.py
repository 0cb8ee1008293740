"""Reading files: local paths and fsspec URLs behind two functions. Every failure names the file."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from gpuseq.base.errors import ImageFileError, MissingDependencyError, require

__all__ = ["is_url", "open_filesystem", "read_bytes", "read_failure", "stat_token"]

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


def read_bytes(path: str) -> bytes:
    """Read a whole file.

    Parameters
    ----------
    path : str
        A local path, or a URL that fsspec knows (``s3://``, ``gs://``, ``memory://``, ...).

    Returns
    -------
    bytes
        The file's content, possibly empty.

    Raises
    ------
    ImageFileError
        If the file cannot be read; its reason is one clause.
    MissingDependencyError
        If `path` is a URL and fsspec or the package of its protocol is not installed.
    """
    try:
        if is_url(path):
            filesystem, key = open_filesystem(path)
            return bytes(filesystem.cat_file(key))
        return _read_local(path)
    except (ImageFileError, MissingDependencyError):
        raise
    except ImportError as error:  # fsspec knows the protocol, but not without its package (s3fs, gcsfs, ...)
        raise MissingDependencyError(f"{path!r} cannot be read: {error}") from error
    except Exception as error:  # remote file systems raise their own classes
        raise ImageFileError(path, read_failure(error)) from error


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
        If the file is not there or may not be looked at.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageFileError(path, read_failure(error)) from error
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


def _read_local(path: str) -> bytes:
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
            raise ImageFileError(path, f"is {kind}")
        # One byte more than the size, so that a single short read proves the end.
        data = os.read(descriptor, status.st_size + 1)
        if len(data) == status.st_size:
            return data
        parts = [data]
        while data:
            data = os.read(descriptor, 1 << 20)
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(descriptor)


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
    filesystem, key = fsspec.core.url_to_fs(path)
    return filesystem, key
