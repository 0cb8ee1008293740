"""Which files there are and what they are labelled: directory walks, class indices, splits, data frames. Host only."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .arguments import did_you_mean, warn
from .listing import are_files, subfolders, walk
from .readers import is_url

__all__ = ["find_classes", "list_images", "scan_classes", "split_bounds", "validate_filename"]

logger = logging.getLogger("gpuseq")


def validate_filename(filename: str, white_list_formats: tuple[str, ...]) -> bool:
    """Tell whether a name ends in an accepted extension and is a file.

    Parameters
    ----------
    filename : str
        Path or URL of a file.
    white_list_formats : tuple of str
        Accepted extensions, lower case.
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
        Enter symbolic links to folders; a link back to a folder above itself is not entered again.

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


def find_classes(directory: str | os.PathLike[str], classes: Any = None) -> list[str]:
    """Return the names of a directory's subfolders, sorted: Keras' classes; or those that a user names.

    Parameters
    ----------
    directory : str or os.PathLike
        The folder that holds the class folders; may be a URL that fsspec knows.
    classes : sequence of str or None
        The user's choice, in the user's order.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such directory, or it has no such subfolder.
    TypeError
        If `classes` is no sequence of names.
    """
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"directory must be the path of a folder; got {directory!r:.80}")
    directory = os.fspath(directory)
    found = subfolders(directory)
    if classes is None or len(classes) == 0:
        return found
    names = [] if isinstance(classes, (str, bytes)) else list(classes)
    if not names or not all(isinstance(name, str) for name in names):
        remedy = f": classes=[{classes!r}]" if isinstance(classes, str) else ""
        raise TypeError(f"classes must be a list of folder names; got {classes!r}{remedy}")
    missing = [name for name in names if name not in found and not _is_folder(directory, name)]
    if missing:
        raise FileNotFoundError(
            f"classes names {_few(missing)}, and {directory!r} has no such folder; it has "
            f"{_few(found, 10) or 'none'}{did_you_mean(missing[0], found)}"
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
    return slice(None) if split is None else slice(int(split[0] * count), int(split[1] * count))


def scan_classes(
    directory: str,
    classes: Sequence[str],
    formats: tuple[str, ...],
    split: tuple[float, float] | None,
    follow_links: bool,
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

    Returns
    -------
    filenames : list of str
        Relative to `directory`.
    labels : numpy.ndarray
        Shape ``(len(filenames),)``, int32: class indices.

    Raises
    ------
    ValueError
        If there is no class, or a class has no image.
    """
    if not classes:
        raise ValueError(
            f"no class folders in {directory!r}: images are expected in one subfolder per class. "
            'For a folder of images without classes pass classes=["."] and class_mode=None'
        )

    def scan(name: str) -> list[str]:
        return list_images(_join(directory, name), formats, follow_links)

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(scan, classes))
    if any(file.lower().endswith(".tiff") for files in found for file in files):
        warn('Using ".tiff" files with multiple bands will cause distortion. Please verify your output.')
    empty = [name for name, files in zip(classes, found, strict=True) if not files]
    if empty:
        raise ValueError(
            f"no images in {len(empty)} of {len(classes)} class folders of {directory!r}: {_few(empty)}. "
            f"Accepted extensions are {', '.join(formats)}. Remove the folders or name the others in classes=[...]"
        )
    parts = [files[split_bounds(split, len(files))] for files in found]
    without = [name for name, part in zip(classes, parts, strict=True) if not part]
    if without and len(without) < len(classes):
        logger.warning("the subset has no image of class %s: too few files for the split", _few(without))
    inner = ["" if name == "." and is_url(directory) else name for name in classes]
    filenames = [os.path.join(name, file) for name, files in zip(inner, parts, strict=True) for file in files]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(files) for files in parts])
    return filenames, labels


def _few(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def check_frame(
    frame: Any, x_col: str, y_col: Any, weight_col: str | None, classes: Any, class_mode: str | None
) -> None:
    """Check that a data frame has the columns and values that `class_mode` wants.

    Raises
    ------
    ValueError
        If a column is missing, labels are NaN, or "binary" does not have two classes.
    TypeError
        If a column holds values of the wrong type.
    """
    if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
        is_path = isinstance(frame, (str, os.PathLike))
        shown = repr(frame) if is_path or frame is None else f"a {type(frame).__name__}"
        remedy = ": read it first, with pandas.read_csv(path)" if is_path else ""
        remedy = ": pandas.DataFrame(...) makes one of it" if isinstance(frame, (dict, list)) else remedy
        raise TypeError(f"dataframe must be a pandas.DataFrame; got {shown}{remedy}")
    if not len(frame):
        raise ValueError("the data frame has no rows")
    needed = [x_col]
    if class_mode not in ("input", None):
        needed += list(y_col) if isinstance(y_col, (list, tuple)) else [y_col]
    needed += [weight_col] if weight_col else []
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the data frame has no column {_few(map(str, missing))}; it has {_few(map(str, frame.columns), 20)}. "
            f"x_col, y_col and weight_col name its columns{did_you_mean(missing[0], frame.columns)}"
        )
    if class_mode == "multi_output" and not isinstance(y_col, list):
        raise TypeError(f'If class_mode="{class_mode}", y_col must be a list. Received {type(y_col).__name__}.')
    _check_types(frame, x_col, (str,), f"All values in column x_col={x_col} must be strings.", "")
    if class_mode in ("binary", "sparse"):
        message = f'If class_mode="{class_mode}", y_col="{y_col}" column values must be strings.'
        _check_types(frame, y_col, (str,), message, _NUMBERS)
    if class_mode == "binary":
        count = len(set(classes)) if classes else frame[y_col].nunique()
        if count != 2:
            remedy = 'For more use class_mode="categorical" or "sparse"' if count > 2 else ""
            raise ValueError(f'If class_mode="binary" there must be 2 classes. Found {count} classes. {remedy}'.strip())
    if class_mode == "categorical":
        message = f'If class_mode="{class_mode}", y_col="{y_col}" column values must be type string, list or tuple.'
        _check_types(frame, y_col, (str, list, tuple), message, _NUMBERS)
        first = next(iter(frame[y_col]), "")
        if not isinstance(first, str) and len(first) > len(set(first)) and set(first) <= {0, 1}:
            warn(
                f"y_col={y_col!r} holds lists of 0 and 1, and they are read as lists of classes named 0 and 1. For "
                'one-hot rows use class_mode="raw"'
            )
    if class_mode in ("raw", "multi_output"):
        for name in y_col if isinstance(y_col, list) else [y_col]:
            rows = np.flatnonzero(frame[name].isna())
            if len(rows):
                raise ValueError(
                    f"column {name!r} has {len(rows)} missing labels, the first in row {frame.index[rows[0]]!r}"
                )
    if classes and class_mode in ("input", "multi_output", "raw", None):
        warn(f'`classes` will be ignored given the class_mode="{class_mode}"')
    if weight_col and not issubclass(frame[weight_col].dtype.type, np.number):
        raise TypeError(f"Column weight_col={weight_col} must be numeric.")


_NUMBERS = 'frame[column].astype(str) makes class names of numbers; class_mode="raw" hands numbers on as they are'


def _check_types(frame: Any, column: str, types: tuple[type, ...], message: str, remedy: str) -> None:
    for row, value in zip(frame.index, frame[column], strict=True):
        if not isinstance(value, types):
            if value is None or value != value:  # pandas' missing values
                remedy = f"frame.dropna(subset=[{column!r}]) leaves such rows out"
            raise TypeError(f"{message} Row {row!r} has {value!r} of type {type(value).__name__}. {remedy}".rstrip())


def filter_classes(frame: Any, y_col: str, classes: Sequence[str] | None) -> tuple[Any, list[str]]:
    """Return the rows whose label is among `classes`, and the classes: those given, or all there are, sorted."""
    if not classes:
        found: set[str] = set()
        for value in frame[y_col]:
            found.update(value if isinstance(value, (list, tuple)) else [value])
        return frame, sorted(found)
    wanted = list(dict.fromkeys(classes))

    def keep(labels: Any) -> Any:
        if isinstance(labels, (list, tuple)):
            return [label for label in labels if label in wanted] or None
        return labels if labels in wanted else None

    frame = frame.copy()
    frame[y_col] = frame[y_col].apply(keep)
    return frame.dropna(subset=[y_col]), wanted


def filter_filenames(frame: Any, x_col: str, directory: str, formats: tuple[str, ...]) -> Any:
    """Return the rows whose file exists and has an accepted extension; warn with the number of the others."""
    has_extension = frame[x_col].str.lower().str.endswith(tuple(formats)).to_numpy(bool)
    mask = has_extension & are_files([os.path.join(directory, name) for name in frame[x_col]])
    num_invalid = int((~mask).sum())
    if num_invalid:
        first = frame[x_col][~mask].iloc[0]
        wrong = "" if first.lower().endswith(formats) else f", and its extension is none of {', '.join(formats)}"
        warn(
            f'Found {num_invalid} invalid image filename(s) in x_col="{x_col}". These filename(s) will be ignored. The '
            f"first is {first!r}, looked up as {os.path.join(directory, first)!r}{wrong}"
        )
    return frame[mask]
