"""The drawn columns: one row of a table declares each, and everything else about it is derived from that.

The dtype of drawn parameters, Keras' dictionaries, what masks share with their images, the texts of plans and pictures
and the table that the engines read follow from `COLUMNS`. What a new column needs beside its row: where it is drawn
(`gpuseq.plan.draw`), and one step in each engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

__all__ = [
    "COLUMNS",
    "PARAMS_DTYPE",
    "Column",
    "Columns",
    "are_neutral",
    "as_lines",
    "captions",
    "cells",
    "dicts_to_params",
    "identity_params",
    "is_at_rest",
    "params_at_rest",
    "params_to_dicts",
    "put_to_rest",
]


@dataclass(frozen=True)
class Column:
    """One number that is drawn for every sample.

    Attributes
    ----------
    name : str
        Field of `PARAMS_DTYPE` and key of Keras' dictionaries.
    neutral : float
        What changes nothing. NaN: the step is not applied at all, which Keras' dictionaries say as None.
    kind : {"geometry", "colour"}
        Masks share the geometry of their images, and no colour.
    step : str
        Which step of the engines reads it: `~gpuseq.ops.options.AugmentOptions` has a ``has_...`` for each.
    label, unit : str
        Head of the column in a table; `unit` is empty where there is none worth a word.
    caption : (str, str)
        Under a picture: name of the line, and the format of the value, or the word for a flag. Columns of one name
        share a line.
    is_flag : bool
        Drawn as 0.0 or 1.0, a bool in Keras' dictionaries.
    short : str
        In the print of a plan and in the kernels. Empty: `name`.
    """

    name: str
    neutral: float
    kind: Literal["geometry", "colour"]
    step: str
    label: str
    unit: str = ""
    caption: tuple[str, str] = ("", "{:.4g}")
    is_flag: bool = False
    short: str = ""

    @property
    def symbol(self) -> str:
        """Its name where `name` is too long."""
        return self.short or self.name

    @property
    def head(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def is_neutral(self, value: float | None) -> bool:
        """Tell whether a value of Keras' dictionaries, or of a row, changes nothing."""
        # NaN is unequal to itself, so it is asked for by name.
        return value is None or value == self.neutral or math.isnan(value)

    def cell(self, value: float | None) -> str:
        """Return a value of Keras' dictionaries as the cell of a table."""
        if value is None or self.is_neutral(value):
            return "-"
        return "yes" if self.is_flag else f"{value:.4g}"


class Columns(tuple[Column, ...]):
    """Columns in the order of Keras' dictionaries, and the layout that follows from them."""

    # Cached, because a batch asks for all of them; a tuple of frozen rows cannot change.
    @cached_property
    def names(self) -> tuple[str, ...]:
        """Fields of `dtype`, in order."""
        return tuple(column.name for column in self)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """One field of float64 for each, so that the parameters of a batch are one matrix where they are uploaded."""
        return np.dtype([(name, np.float64) for name in self.names])

    @cached_property
    def neutral_row(self) -> np.ndarray:
        """Shape ``(1,)``, of `dtype`: the row that changes nothing."""
        return np.array([tuple(column.neutral for column in self)], self.dtype)

    @cached_property
    def groups(self) -> dict[str, tuple[Column, ...]]:
        """The columns of each kind and of each step, by its name."""
        groups: dict[str, tuple[Column, ...]] = {}
        for column in self:
            for group in (column.kind, column.step):
                groups[group] = (*groups.get(group, ()), column)
        return groups


COLUMNS = Columns(
    [
        Column("theta", 0.0, "geometry", "affine", "turn", "deg", caption=("rotate", "{:+.1f}°")),
        # Keras' names: tx is drawn for the height shift, ty for the width shift.
        Column("tx", 0.0, "geometry", "affine", "tx", "px", caption=("shift tx", "{:+.1f} px")),
        Column("ty", 0.0, "geometry", "affine", "ty", "px", caption=("shift ty", "{:+.1f} px")),
        Column("shear", 0.0, "geometry", "affine", "shear", "deg", caption=("shear", "{:+.1f}°")),
        Column("zx", 1.0, "geometry", "affine", "zoom x", caption=("zoom", "{:.2f}")),
        Column("zy", 1.0, "geometry", "affine", "zoom y", caption=("zoom", "{:.2f}")),
        Column("flip_horizontal", 0.0, "geometry", "flip", "flip h", caption=("flip", "horizontal"), is_flag=True),
        Column("flip_vertical", 0.0, "geometry", "flip", "flip v", caption=("flip", "vertical"), is_flag=True),
        Column(
            "channel_shift_intensity",
            np.nan,
            "colour",
            "channel_shift",
            "channel shift",
            caption=("channels", "{:+.1f}"),
            short="channel_shift",
        ),
        Column("brightness", np.nan, "colour", "brightness", "brightness", caption=("brightness", "{:.2f}")),
    ]
)
"""Everything that is drawn for a sample, in the order of Keras' dictionaries."""

PARAMS_DTYPE = COLUMNS.dtype
"""Of the parameters of a batch: one row per sample, one field of float64 for each of `COLUMNS`."""


def identity_params(num_samples: int) -> np.ndarray:
    """Return `num_samples` rows that change nothing.

    Parameters
    ----------
    num_samples : int
        Number of rows.

    Returns
    -------
    numpy.ndarray
        Shape ``(num_samples,)``, dtype `PARAMS_DTYPE`.
    """
    return COLUMNS.neutral_row.repeat(num_samples)


@lru_cache(maxsize=16)
def params_at_rest(num_samples: int) -> np.ndarray:
    """Return the rows of `identity_params`, read-only and the same ones each time: for plans of which nothing is drawn.

    Parameters
    ----------
    num_samples : int
        Number of rows.

    Returns
    -------
    numpy.ndarray
        Shape ``(num_samples,)``, dtype `PARAMS_DTYPE`.
    """
    # Memory of bytes, which no one can make writeable: batches share it.
    return np.frombuffer(COLUMNS.neutral_row.tobytes() * num_samples, PARAMS_DTYPE)


def are_neutral(params: np.ndarray) -> bool:
    """Tell whether no row changes anything by any column, in one look; False may also mean a 0.0 that is a -0.0.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `PARAMS_DTYPE`.
    """
    if params is params_at_rest(len(params)):
        return True
    # Bytes, so that the NaN of a neutral value is equal to itself.
    return params.tobytes() == COLUMNS.neutral_row.tobytes() * len(params)


def is_at_rest(params: np.ndarray, group: str) -> np.ndarray:
    """Tell which rows change nothing by the columns of a group.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `PARAMS_DTYPE`.
    group : str
        A kind or a step of `Column`.

    Returns
    -------
    numpy.ndarray
        Shape ``(N,)``, bool.
    """
    at_rest = np.ones(len(params), bool)
    for column in COLUMNS.groups[group]:
        # One NaN test for the columns whose neutral value it is; the others compare, and 0.0 equals -0.0.
        values = params[column.name]
        at_rest &= np.isnan(values) if math.isnan(column.neutral) else values == column.neutral
    return at_rest


def put_to_rest(params: np.ndarray, group: str) -> np.ndarray:
    """Return a copy of drawn parameters in which the columns of a group change nothing.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `PARAMS_DTYPE`.
    group : str
        A kind or a step of `Column`.

    Returns
    -------
    numpy.ndarray
        Shape ``(N,)``, dtype `PARAMS_DTYPE`.
    """
    rest: np.ndarray = params.copy()
    for column in COLUMNS.groups[group]:
        rest[column.name] = column.neutral
    return rest


def params_to_dicts(params: np.ndarray) -> list[dict[str, float | None]]:
    """Return the rows as the dictionaries that Keras' ``get_random_transform`` gives.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `PARAMS_DTYPE`.

    Returns
    -------
    list of dict
        One per sample; None where nothing is applied, flags as bool.

    References
    ----------
    ``ImageDataGenerator.get_random_transform`` of Keras 3.15.
    """

    def as_keras(column: Column, value: float) -> float | None:
        if math.isnan(column.neutral) and math.isnan(value):
            return None
        return bool(value) if column.is_flag else value

    return [
        {column.name: as_keras(column, value) for column, value in zip(COLUMNS, row, strict=True)}
        for row in params.tolist()
    ]


def dicts_to_params(rows: Sequence[Mapping[str, Any]], *, ignore_unknown: bool = False) -> np.ndarray:
    """Return a user's dictionaries, such as an own ``get_random_transform`` gives, as rows; what is missing is at rest.

    Parameters
    ----------
    rows : sequence of mapping
        One per sample; keys are the names of `COLUMNS`, None stands for "not applied".
    ignore_unknown : bool
        Whether other keys are passed over.

    Returns
    -------
    numpy.ndarray
        Shape ``(len(rows),)``, dtype `PARAMS_DTYPE`.

    Raises
    ------
    ValueError
        If a key is not the name of a column.
    """
    params = identity_params(len(rows))
    known = COLUMNS.names
    for number, row in enumerate(rows):
        unknown = [name for name in row if name not in known]
        if unknown and not ignore_unknown:
            raise ValueError(
                f"get_random_transform returned {', '.join(map(repr, unknown))}; known are {', '.join(known)}"
            )
        for name in known:
            # None means "not applied" where Keras writes it, and "leave it at rest" where a user's own method returns
            # it.
            if row.get(name) is not None:
                params[name][number] = row[name]
    return params


def as_lines(params: np.ndarray) -> list[str]:
    """Return drawn parameters as aligned text, all columns: the head first, then a line for every sample.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `PARAMS_DTYPE`.
    """
    head = [column.symbol for column in COLUMNS]
    rows = (
        ["-" if value is None else f"{float(value):.4g}" for value in row.values()] for row in params_to_dicts(params)
    )
    widths = [max(10, len(symbol)) for symbol in head]
    return [" ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]


def cells(params: np.ndarray) -> dict[str, list[str]]:
    """Return drawn parameters as the columns of a table: the head of each, and a cell for every sample.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `PARAMS_DTYPE`.

    Returns
    -------
    dict
        Head -> N cells, of those columns by which any sample changes.
    """
    rows = params_to_dicts(params)
    columns = {column.head: [column.cell(row[column.name]) for row in rows] for column in COLUMNS}
    return {head: column for head, column in columns.items() if any(cell != "-" for cell in column)}


def captions(row: Mapping[str, Any] | np.void) -> tuple[tuple[str, str], ...]:
    """Return what changes a picture, as short name and value pairs, to be written under it.

    Parameters
    ----------
    row : mapping or numpy.void
        Keras' dictionary of one sample, in which any key may be missing, or one row of a plan's parameters.

    Returns
    -------
    tuple of (str, str)
        Empty where the picture is unchanged. Shifts are named as Keras names them: ``tx`` is drawn from
        ``height_shift_range`` and ``ty`` from ``width_shift_range``.
    """
    # A row has all columns; a dictionary of a user's own method may lack any.
    names = set((row.dtype.names or ()) if isinstance(row, np.void) else row)
    lines: dict[str, list[tuple[Column, float | None]]] = {}
    for column in COLUMNS:
        value = row[column.name] if column.name in names else None
        # Columns of one caption share a line: "zoom 1.1 x 0.9", "flip horizontal + vertical".
        lines.setdefault(column.caption[0] or column.label, []).append((column, value))
    found = []
    for line, pairs in lines.items():
        applied = [column for column, value in pairs if not column.is_neutral(value)]
        if applied and applied[0].is_flag:
            found.append((line, " + ".join(column.caption[1] for column in applied)))
        elif applied:  # of a pair both numbers, though one of them changes nothing
            numbers = (column.neutral if value is None else float(value) for column, value in pairs)
            found.append((line, " x ".join(map(str.format, (column.caption[1] for column, _ in pairs), numbers))))
    return tuple(found)
