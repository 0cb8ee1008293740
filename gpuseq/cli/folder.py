"""A user's folder of pictures, class folders or flat, as the commands take it; and the photographs that ship here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuseq.base.version import PACKAGE
from gpuseq.files.reading import is_url

__all__ = ["Folder", "ignored_pictures", "open_folder", "pick", "shipped_photos"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff"})

OTHER_PICTURES = (
    *(
        ".apng",
        ".avif",
        ".gif",
        ".heic",
        ".heif",
        ".ico",
        ".jfif",
        ".jp2",
        ".jxl",
        ".pbm",
        ".pgm",
        ".psd",
        ".svg",
        ".tga",
    ),
    *(".webp", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),
)
"""Suffixes of pictures that Keras passes over without a word."""


@dataclass(frozen=True)
class Folder:
    """Pictures in class folders or in one flat folder.

    Attributes
    ----------
    path : pathlib.Path
        What the user named.
    files : tuple of pathlib.Path
        Absolute paths of all the pictures below it, sorted.
    is_flat : bool
        Whether pictures lie straight in `path` and no folder in it holds any.
    """

    path: Path
    files: tuple[Path, ...]
    is_flat: bool

    @property
    def streamed(self) -> tuple[Path, ...]:
        """The files that ``flow_from_directory`` takes: beside class folders, not those straight in `path`."""
        return self.files if self.is_flat else tuple(file for file in self.files if file.parent != self.path)

    @property
    def as_arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``flow_from_directory`` that name these pictures; a flat folder counts as one class."""
        # `classes` names the folder itself within its parent: pictures without class folders are one class.
        if self.is_flat:
            return {"directory": str(self.path.parent), "classes": [self.path.name]}
        return {"directory": str(self.path)}


def open_folder(path: str | os.PathLike[str], *, or_file: bool = False) -> Folder:
    """List the pictures below a folder; or take one file, for a command that goes by the list alone.

    Parameters
    ----------
    path : str or os.PathLike
        A folder, or a picture.
    or_file : bool
        Whether a picture is taken: not where `Folder.as_arguments` is used, which would name all of its folder.

    Returns
    -------
    Folder
        With at least one file.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist, or no picture is in it.
    ValueError
        If `path` is a file, but for a picture with `or_file`; or a URL.
    """
    if is_url(os.fspath(path)):
        raise ValueError(f"{path!r} is a URL; this takes a folder on a local disk, and `gpuseq check` takes both")
    # Resolved: "." has no name, and a flat folder's name is its class.
    root = Path(path).expanduser().resolve()
    accepted = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
    if root.is_file():
        if root.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{os.fspath(path)!r} is not a picture that gpuseq reads; accepted suffixes: {accepted}")
        if not or_file:
            raise ValueError(
                f"{os.fspath(path)!r} is one picture; this takes a folder of them, and `gpuseq preview` and "
                "`gpuseq check` take both"
            )
        return Folder(root.parent, (root,), is_flat=True)
    if not root.is_dir():
        raise FileNotFoundError(f"{os.fspath(path)!r} does not exist")
    # Sorted: a disk lists in no order, and the same seed has to show the same pictures everywhere.
    found = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES
    )
    if not found:
        raise FileNotFoundError(f"no picture in {os.fspath(path)!r} or below; accepted suffixes: {accepted}")
    return Folder(root, tuple(found), is_flat=all(file.parent == root for file in found))


def pick(files: Sequence[Path], count: int) -> tuple[Path, ...]:
    """Return at most `count` files, spread evenly over the folders they lie in, then over each folder.

    Parameters
    ----------
    files : sequence of pathlib.Path
        All of them, sorted.
    count : int
        How many to take.
    """
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file)
    folders = list(by_folder.values())
    count = min(count, len(files))
    # Dealt out one by one, so that small folders are used up before large ones give more.
    shares = [0] * len(folders)
    while sum(shares) < count:
        for index, folder in enumerate(folders):
            if shares[index] < len(folder) and sum(shares) < count:
                shares[index] += 1
    chosen = []
    for folder, share in zip(folders, shares, strict=True):
        # Evenly: files that lie side by side are often pictures of one scene.
        chosen += [folder[position * len(folder) // share] for position in range(share)]
    return tuple(chosen)


def shipped_photos() -> Path:
    """Return the folder of the photographs that ship with gpuseq; ``SOURCES.md`` in it names author and licence."""
    return PACKAGE / "photos"


def ignored_pictures(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return how many pictures below a folder have a suffix that is not taken, by suffix, the most frequent first.

    Parameters
    ----------
    path : str or os.PathLike
        A local folder, or a file, beside which nothing is ignored.
    """
    counts = Counter(
        suffix
        for _, _, names in os.walk(Path(path).expanduser())
        for name in names
        if (suffix := os.path.splitext(name)[1].lower()) in OTHER_PICTURES
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
