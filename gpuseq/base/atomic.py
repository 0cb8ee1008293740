"""Files that are there whole or not at all: written beside their name, then renamed onto it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path; what was written there becomes `path` on success, and is removed on any failure.

    An interrupt (Ctrl-C) counts as a failure, so a reader never sees half a file and an older file survives. A link is
    followed: what it points to is replaced, and the link stays. What is there and is no regular file, a device or a
    pipe, is written into and never replaced.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write. Its folder must exist.

    Yields
    ------
    pathlib.Path
        An empty file with the suffix of `path`, for the caller to fill.

    Raises
    ------
    FileNotFoundError
        If the folder of `path`, or of what it links to, does not exist.
    IsADirectoryError
        If `path` is a folder.

    References
    ----------
    POSIX ``rename``, by `os.replace`: replaces the target in one step on one file system.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{os.fspath(target)!r} is a folder; name a file in it")
    is_special = target.exists() and not target.is_file()
    if not is_special:
        target = Path(os.path.realpath(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {os.fspath(target.parent)!r} does not exist; make it first")
    # A name may have 255 bytes, and that of `path` may be as long.
    suffix = Path(path).suffix if len(os.fsencode(Path(path).suffix)) <= 32 else ""
    temporary: Path | None = None
    try:
        if is_special:  # renaming would replace it: the bytes are copied into it
            import shutil
            import tempfile

            descriptor, name = tempfile.mkstemp(suffix=suffix)
            temporary = Path(name)
            os.close(descriptor)
        # Renaming works within a file system only. Not by ``tempfile``, whose files other users may not read: the
        # rights of others depend on the umask, which a process can only read by setting it, for all of its threads.
        while temporary is None:
            temporary = target.parent / f".{Path(path).stem[:40]}-{os.urandom(6).hex()}{suffix}"
            try:
                open(temporary, "xb").close()
            except FileExistsError:  # another's
                temporary = None
        yield temporary
        if is_special:
            with temporary.open("rb") as written, target.open("wb") as into:
                shutil.copyfileobj(written, into)
            temporary.unlink()
        else:
            os.replace(temporary, target)
    except BaseException:
        if temporary is not None:  # named before it is made, so that no interrupt finds it without a name
            temporary.unlink(missing_ok=True)
        raise
