"""Which files there are and what they are labelled: folders listed, class indices, splits."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpuseq.base.arguments import did_you_mean, warn
from gpuseq.base.threads import submit

from .listing import are_files, subfolders, walk
from .reading import is_url

__all__ = ["few", "find_classes", "list_images", "scan_classes", "split_bounds", "validate_filename"]

logger = logging.getLogger("gpuseq")


def validate_filename(filename: str, white_list_formats: tuple[str, ...]) -> bool:
    """Tell whether a name ends in an accepted extension and is a file.

    Parameters
    ----------
    filename : str
        Path or URL of a file.
    white_list_formats : tuple of str
        Accepted extensions, lower case.

    Raises
    ------
    OSError
        If `filename` is a URL whose folder is there and cannot be listed.
    MissingDependencyError
        If it is a URL and fsspec or the package of its protocol is not installed.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.validate_filename`` (Keras 3.15).
    """
    return filename.lower().endswith(tuple(white_list_formats)) and are_files([filename])[0]


def list_images(directory: str, formats: tuple[str, ...], follow_links: bool) -> list[str]:
    """List the image files below a directory, by folder and then by name.

    Parameters
    ----------
    directory : str
        Where to look, subfolders included: a local path, or a URL that fsspec knows.
    formats : tuple of str
        Accepted extensions, lower case.
    follow_links : bool
        Enter symbolic links to folders, but for those that lead back to a folder above them.

    Returns
    -------
    list of str
        Paths relative to `directory`.

    Raises
    ------
    OSError
        If the directory cannot be read.
    """
    return [
        os.path.join(inner, name)
        for inner, files in walk(directory, follow_links)
        for name in files
        if name.lower().endswith(formats)
    ]


def find_classes(directory: str | os.PathLike[str], classes: Any = None, *, may_be_flat: bool = False) -> list[str]:
    """Return the names of a directory's subfolders, sorted: Keras' classes; or those that a user names.

    Parameters
    ----------
    directory : str or os.PathLike
        The folder that holds the class folders; may be a URL that fsspec knows.
    classes : sequence of str or None
        The user's choice, in the user's order.
    may_be_flat : bool
        Whether a folder without subfolders is taken as it is, as one class ".": where labels do not come from folders.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such directory, or none of its subfolders is named, or one by a misspelt name.
    TypeError
        If `classes` is no sequence of names.
    """
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"directory must be the path of a folder; got {directory!r:.80}")
    directory = os.fspath(directory)
    found = subfolders(directory)
    if classes is None or len(classes) == 0:
        return found or (["."] if may_be_flat else [])
    # A string is a sequence of names of one letter each, and would be taken for that.
    names = [] if isinstance(classes, (str, bytes)) else list(classes)
    if not names or not all(isinstance(name, str) for name in names):
        remedy = f": classes=[{classes!r}]" if isinstance(classes, str) else ""
        raise TypeError(f"classes must be a list of folder names; got {classes!r}{remedy}")
    missing = [name for name in names if name not in found and not _is_folder(directory, name)]
    hints = [hint for name in missing if (hint := did_you_mean(name, set(found) - set(names)))]
    if hints or len(missing) == len(names):
        raise FileNotFoundError(
            f"classes names {few(missing)}, and {directory!r} has no such folder; it has "
            f"{few(found, 10) or 'none'}{''.join(hints[:1])}"
        )
    if missing:
        # As in Keras: the classes of the training data are named for the validation data, which may lack one.
        warn(
            f"classes names {few(missing)}, and {directory!r} has no such folder: there are no images of it, and it "
            "keeps its class index and column"
        )
    return names


def _is_folder(directory: str, name: str) -> bool:
    """Tell whether a path relative to a folder, "." or one deeper than a subfolder, is a folder."""
    if not is_url(directory):
        return os.path.isdir(os.path.join(directory, name))
    try:
        subfolders(_join(directory, name))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _join(directory: str, name: str) -> str:
    """Join a path; "." means something in local ones only."""
    return directory if name == "." and is_url(directory) else os.path.join(directory, name)


def split_bounds(split: tuple[float, float] | None, count: int) -> slice:
    """Return the part of `count` files that a split ``(from, to)`` takes, as Keras rounds it."""
    # int() truncates as in Keras: the part (0, v) ends where (v, 1) begins, so no file is in both or in neither.
    return slice(None) if split is None else slice(int(split[0] * count), int(split[1] * count))


def scan_classes(
    directory: str,
    classes: Sequence[str],
    formats: tuple[str, ...],
    split: tuple[float, float] | None,
    follow_links: bool,
    is_left_out: Callable[[str], bool] | None = None,
) -> tuple[list[str], np.ndarray]:
    """List the images of each class folder.

    Parameters
    ----------
    directory : str
        The folder that holds the class folders.
    classes : sequence of str
        Their names, in the order of the class indices.
    formats : tuple of str
        Accepted extensions, lower case.
    split : (float, float) or None
        The part of each class to take.
    follow_links : bool
        Enter symbolic links.
    is_left_out : callable or None
        Asked for each path, relative to `directory`, whether it is no image of the data set: a mask beside the images.

    Returns
    -------
    filenames : list of str
        Relative to `directory`.
    labels : numpy.ndarray
        Shape ``(len(filenames),)``, int32: class indices.

    Raises
    ------
    ValueError
        If there is no class, or none has an image.
    """
    if not classes:
        raise ValueError(
            f"no class folders in {directory!r}: images are expected in one subfolder per class. "
            'For a folder of images without classes pass class_mode=None, or classes=["."]'
        )

    def scan(name: str) -> list[str] | None:
        try:
            files = list_images(_join(directory, name), formats, follow_links)
        except FileNotFoundError:
            files = []
        if not files and not _is_folder(directory, name):  # a store says of either that nothing is there
            return None  # `find_classes` has named it
        return files if is_left_out is None else [file for file in files if not is_left_out(os.path.join(name, file))]

    # Listing waits for a disk or a store, one class folder a thread. The pool is not the one of `for_each`, whose
    # threads are as many as cores.
    with ThreadPoolExecutor() as pool:
        futures = [submit(pool, scan, name) for name in classes]
        listed = [
            scan(name) if future is None else future.result() for name, future in zip(classes, futures, strict=True)
        ]
    found = [files or [] for files in listed]
    if any(file.lower().endswith(".tiff") for files in found for file in files):
        # Keras' own warning, word for word.
        warn('Using ".tiff" files with multiple bands will cause distortion. Please verify your output.')
    empty = [name for name, files in zip(classes, listed, strict=True) if files is not None and not files]
    none_in = f"no images in {len(empty)} of {len(classes)} class folders of {directory!r}: {few(empty)}. "
    accepted = f"Accepted extensions are {', '.join(formats)}"
    if not any(found):
        loose = sum(name.lower().endswith(formats) for inner, files in walk(directory) if not inner for name in files)
        remedy = f'. {loose} lie in the folder itself, which classes=["."] takes' if loose else ""
        raise ValueError(f"{none_in}{accepted}{remedy}")
    if empty:
        # As in Keras, whose users rely on the indices of the other classes.
        warn(f"{none_in}They keep their class indices and columns. {accepted}; classes=[...] names the folders to take")
    # The split is taken in each class and not over all files, as in Keras: both subsets see every class.
    parts = [files[split_bounds(split, len(files))] for files in found]
    without = [name for name, part, files in zip(classes, parts, found, strict=True) if files and not part]
    if without and any(parts):
        logger.warning("the subset has no image of class %s: too few files for the split", few(without))
    # A store has no folder ".": joining it would make keys that do not exist.
    inner = ["" if name == "." and is_url(directory) else name for name in classes]
    filenames = [os.path.join(name, file) for name, files in zip(inner, parts, strict=True) for file in files]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in parts])
    return filenames, labels


def few(names: Iterable[str], limit: int = 5) -> str:
    """Return the first of some names for a message, and how many more there are."""
    names = list(names)
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
