"""Data frames that name files and labels: their columns checked, their rows filtered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseq.base.arguments import did_you_mean, warn

from .folders import few
from .listing import are_files

__all__ = ["check_frame", "filter_classes", "filter_filenames", "masks_by_column"]


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
    # By what is used of it and not by class: pandas is not imported, and other libraries' frames of this shape serve.
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
            f"the data frame has no column {few(map(str, missing))}; it has {few(map(str, frame.columns), 20)}. "
            f"x_col, y_col and weight_col name its columns{did_you_mean(missing[0], frame.columns)}"
        )
    if class_mode in ("binary", "categorical", "sparse") and isinstance(y_col, (list, tuple)):
        one = f": y_col={y_col[0]!r}" if len(y_col) == 1 else ', or class_mode="raw" or "multi_output" for several'
        message = f'class_mode="{class_mode}" takes the name of one column; got y_col={y_col!r}. Write it alone{one}'
        raise TypeError(message)
    # Of a name that stands twice, frame[name] is a frame and not a column, and fails much later.
    columns = list(frame.columns)
    twice = [name for name in (needed if class_mode != "raw" else [x_col]) if columns.count(name) > 1]
    if twice:
        raise TypeError(
            f"the data frame has {columns.count(twice[0])} columns of the name {twice[0]!r}, and which one is meant is "
            "not known: frame.loc[:, ~frame.columns.duplicated()] keeps the first"
        )
    if class_mode == "multi_output" and not isinstance(y_col, list):
        raise TypeError(f'If class_mode="{class_mode}", y_col must be a list. Received {type(y_col).__name__}.')
    _check_types(frame, x_col, (str,), f"All values in column x_col={x_col} must be strings.", "")
    if class_mode in ("binary", "sparse"):
        message = f'If class_mode="{class_mode}", y_col="{y_col}" column values must be strings.'
        _check_types(frame, y_col, (str,), message, _NUMBERS)
    if class_mode == "binary":
        # The classes that are asked for decide where they are given: rows of others are left out afterwards.
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
    if class_mode == "multi_output":  # under "raw" a value is the user's own, NaN for a masked loss among them
        for name in y_col:
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
    # Each once and in the order of the caller; through a set the class indices would differ between processes.
    wanted = list(dict.fromkeys(classes))

    def keep(labels: Any) -> Any:
        if isinstance(labels, (list, tuple)):
            return [label for label in labels if label in wanted] or None
        return labels if labels in wanted else None

    # The frame is the caller's.
    frame = frame.copy()
    frame[y_col] = frame[y_col].apply(keep)
    return frame.dropna(subset=[y_col]), wanted


def filter_filenames(frame: Any, x_col: str, directory: str, formats: tuple[str, ...]) -> Any:
    """Return the rows whose file exists and has an accepted extension; warn with the number of the others."""
    has_extension = frame[x_col].str.lower().str.endswith(tuple(formats)).to_numpy(bool)
    # Both tests over the whole column at once: behind a URL each folder is then listed once, and not a file at a time.
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


def raw_targets(values: Any) -> np.ndarray:
    """Return the values of one or several columns of a data frame as they are, lists of numbers stacked.

    Parameters
    ----------
    values : array
        What pandas gives for the columns: shape ``(n,)`` or ``(n, columns)``.

    Returns
    -------
    numpy.ndarray
        `values`, and of a column of rows of numbers one array with them, unless they are of several lengths or its
        dtype would change one of them: text beside numbers, a large integer beside a fraction, a truth value beside a
        number.
    """
    targets = np.asarray(values)
    is_rows = targets.dtype == object and targets.ndim == 1
    if not is_rows or not all(isinstance(row, (list, tuple, np.ndarray)) for row in targets):
        return targets
    try:
        stacked = np.array([np.asarray(row) for row in targets])
    except ValueError:  # of several lengths, such as the boxes in each image
        return targets
    if stacked.dtype == object:  # of the same objects
        return stacked
    before = [value for row in targets for value in np.asarray(row, object).ravel().tolist()]
    # Python compares numbers of different types exactly.
    is_kept = all(
        (was == now or was != was) and isinstance(was, (bool, np.bool_)) == isinstance(now, bool)
        for was, now in zip(before, stacked.ravel().tolist(), strict=True)
    )
    return stacked if is_kept else targets


def masks_by_column(frame: Any, column: str, directory: str) -> list[str]:
    """Return the path of the mask of each row.

    Parameters
    ----------
    frame : pandas.DataFrame
        The rows.
    column : str
        The column of the masks' names.
    directory : str
        What they are relative to.

    Raises
    ------
    ValueError
        If there is no such column.
    TypeError
        If it holds something else than names.
    FileNotFoundError
        If a mask is not there; the message names the first ones.
    """
    if column not in frame.columns:
        raise ValueError(
            f"the data frame has no column {column!r}; it has {few(map(str, frame.columns), 20)}. mask_col names the "
            f"column of the masks' files{did_you_mean(column, frame.columns)}"
        )
    _check_types(frame, column, (str,), f"All values in column mask_col={column} must be strings.", "")
    paths = [os.path.join(directory, name) for name in frame[column]]
    # All of them in one look, as above; a mask that is missing is an error, because a row without one cannot be left
    # out in silence.
    missing = [path for path, is_there in zip(paths, are_files(paths), strict=True) if not is_there]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} masks that mask_col={column!r} names are no files: {few(missing)}. "
            "mask_directory says what the names are relative to, if not to directory"
        )
    return paths
