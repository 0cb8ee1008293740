"""What is in a folder, a local one or one behind an fsspec URL; in few calls, because a store takes long for each."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence
from typing import Any

from gpuseq.base.errors import MissingDependencyError, StorageError

from .reading import ask_store, is_url, open_filesystem, read_failure, read_timeout, says_missing

__all__ = ["are_files", "subfolders", "walk"]

LONGER = 10
"""How many times longer than a file's reading an attempt to list a folder may take: a store gives it page by page."""


def subfolders(folder: str) -> list[str]:
    """Return the names of a folder's subfolders, sorted.

    Parameters
    ----------
    folder : str
        A local path, or a URL that fsspec knows.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder.
    StorageError
        If its store refuses access or does not answer: it is asked as for a file, and each attempt may take `LONGER`
        times ``GPUSEQ_READ_TIMEOUT`` seconds.
    OSError
        If it cannot be listed for another reason.
    MissingDependencyError
        If `folder` is a URL and fsspec or the package of its protocol is not installed.
    """
    if not is_url(folder):
        if not os.path.isdir(folder):
            if os.path.exists(folder):
                raise NotADirectoryError(f"not a directory: {folder!r}; name the folder that holds the class folders")
            remedy = "; ~ is not expanded: os.path.expanduser does that" if folder.startswith("~") else ""
            raise FileNotFoundError(f"no such directory: {folder!r} (the current one is {os.getcwd()!r}){remedy}")
        # Not entry.is_dir(), which raises for a link to itself.
        return sorted(name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name)))
    entries, key = _listed(folder, lambda filesystem, key: filesystem.ls(key, detail=True))
    if [entry["name"].rstrip("/") for entry in entries if entry["type"] == "file"] == [key.rstrip("/")]:
        raise NotADirectoryError(f"not a directory: {folder!r}; name the folder that holds the class folders")
    names = (posixpath.basename(entry["name"].rstrip("/")) for entry in entries if entry["type"] == "directory")
    return sorted(names)


def walk(folder: str, follow_links: bool = False) -> list[tuple[str, list[str]]]:
    """List all files below a folder.

    Parameters
    ----------
    folder : str
        A local path, or a URL that fsspec knows.
    follow_links : bool
        Enter symbolic links to local folders, but for those that lead back to a folder above them.

    Returns
    -------
    list of (str, list of str)
        Each subfolder, relative to `folder` ("" for itself), and its sorted file names; sorted by subfolder.

    Raises
    ------
    OSError
        If a folder cannot be listed; `StorageError` as `subfolders`.
    MissingDependencyError
        As `subfolders`.
    """
    found = _walk_remote(folder) if is_url(folder) else _walk_local(folder, follow_links)
    return [(inner, sorted(files)) for inner, files in sorted(found.items())]


def are_files(paths: Sequence[str]) -> list[bool]:
    """Tell which paths are files. Of URLs each folder is listed once.

    Parameters
    ----------
    paths : sequence of str
        Local paths or URLs.

    Raises
    ------
    OSError
        If a folder behind a URL is there and cannot be listed; `StorageError` as `subfolders`.
    MissingDependencyError
        As `subfolders`.
    """
    listed: dict[str, set[str]] = {}

    def is_file(path: str) -> bool:
        if not is_url(path):
            return os.path.isfile(path)
        # One listing answers for all names of a folder.
        folder, _, name = path.rpartition("/")
        if folder not in listed:
            try:
                entries, _ = _listed(folder, lambda filesystem, key: filesystem.ls(key, detail=True))
            except FileNotFoundError:
                entries = []
            listed[folder] = {posixpath.basename(entry["name"]) for entry in entries if entry["type"] == "file"}
        return name in listed[folder]

    return [is_file(path) for path in paths]


def _listed(url: str, question: Callable[[Any, str], Any]) -> tuple[Any, str]:
    """Return what a store answers to a question about a folder, and the folder's key; name the URL in what it raises.

    Parameters
    ----------
    url : str
        The folder.
    question : callable
        Gets the file system and the folder's key there.
    """
    seconds = LONGER * read_timeout()
    try:
        # On this thread: fsspec keeps a file system, and its connections, for each thread.
        filesystem, key = open_filesystem(url)
        return ask_store(url, lambda: question(filesystem, key), seconds, "cannot be listed: "), key
    except (MissingDependencyError, StorageError, MemoryError):
        raise
    except ImportError as error:  # fsspec knows the protocol, but not without its package (s3fs, gcsfs, ...)
        raise MissingDependencyError(f"{url!r} cannot be listed: {error}") from error
    except NotADirectoryError as error:
        raise NotADirectoryError(f"not a directory: {url!r}") from error
    except Exception as error:
        if says_missing(error):
            raise FileNotFoundError(f"no such directory: {url!r}") from error
        raise OSError(f"{url!r} cannot be listed: {read_failure(error)}") from error


def _walk_remote(url: str) -> dict[str, list[str]]:
    keys, key = _listed(url, lambda filesystem, key: filesystem.find(key))
    prefix = len(key.rstrip("/")) + 1
    found: dict[str, list[str]] = {}
    for one in keys:
        folder, _, name = one[prefix:].rpartition("/")
        found.setdefault(folder, []).append(name)
    return found


def _walk_local(directory: str, follow_links: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def refuse(error: OSError) -> None:
        raise error

    prefix = len(os.path.join(directory, ""))
    above: dict[str, tuple[tuple[int, int], ...]] = {directory: (_identity(directory),)} if follow_links else {}
    for root, folders, files in os.walk(directory, followlinks=follow_links, onerror=refuse):
        if follow_links:
            # The folders on the way here, by identity: one of them again would go round in a circle. A folder that is
            # reached on two ways is listed on both.
            way = above.pop(root)
            ways = {name: (*way, _identity(os.path.join(root, name))) for name in folders}
            folders[:] = [name for name in folders if ways[name][-1] not in way]
            above |= {os.path.join(root, name): ways[name] for name in folders}
        found[root[prefix:]] = files
    return found


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
