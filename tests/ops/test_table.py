"""The table that compiled engines read has the same columns in Python and in C++."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.options import AugmentOptions
from gpuseq.ops.table import NUM_COLUMNS, TABLE, fill_table, layout_check, needs_range, table_of
from gpuseq.plan.columns import COLUMNS
from tests.cases import draw_params
from tests.compare import assert_same
from tests.standin import host_runner


def test_the_enumeration_names_the_columns_of_the_table() -> None:
    text = re.sub(r"//[^\n]*", "", (kernels.kernel_folder() / "geometry.cuh").read_text())
    (body,) = re.findall(r"enum TableColumn \{(.*?)\};", text, re.DOTALL)
    *names, last = (item.strip() for item in body.split(","))
    assert [name.lower() for name in names] == list(TABLE)
    assert last == f"NUM_COLUMNS = {NUM_COLUMNS}"


@pytest.mark.parametrize(
    "table",
    [
        table_of((*(column.symbol for column in COLUMNS), "hue")),
        table_of(tuple(column.symbol for column in COLUMNS[:-1])),
        (TABLE[1], TABLE[0], *TABLE[2:]),
    ],
    ids=["one_more", "one_less", "exchanged"],
)
def test_a_table_that_is_not_the_kernels_does_not_compile(
    table: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pasted = kernels.pasted_source("augment.cu")
    assert pasted.count(layout_check()) == 1
    monkeypatch.setattr(kernels, "pasted_source", lambda *_: pasted.replace(layout_check(), layout_check(table)))
    with pytest.raises(RuntimeError, match="is not the table of|was not declared"):
        host_runner.build("augment", ())


@pytest.mark.parametrize("indices", [None, np.array([4, 0, 2, 1, 3])])
def test_the_table_holds_each_number_at_its_name(indices: np.ndarray | None) -> None:
    params = draw_params(5, 9, 9, colour=True)
    rows = np.full((5, NUM_COLUMNS), 7.0)
    fill_table(rows, params, indices)
    for place, name in enumerate(TABLE):
        wanted = {
            **{column.symbol: params[column.name] for column in COLUMNS},
            # Same functions, same bits: the maps of the engines cannot drift apart.
            "cos_theta": np.cos(np.deg2rad(params["theta"])),
            "sin_theta": np.sin(np.deg2rad(params["theta"])),
            "cos_shear": np.cos(np.deg2rad(params["shear"])),
            "sin_shear": np.sin(np.deg2rad(params["shear"])),
            "source_index": (np.arange(5) if indices is None else indices).astype(np.int64).view(np.float64),
        }[name]
        assert_same(rows[:, place].copy(), np.ascontiguousarray(wanted))
    assert not rows[:, len(TABLE) :].any()


@pytest.mark.parametrize(
    ("changes", "dtype", "wanted"),
    [
        ({}, "uint8", False),
        ({}, "uint16", True),
        ({}, "float32", True),
        ({"has_affine": False}, "float32", True),
        ({"cval": 0.0}, "uint8", False),
        ({"cval": 255.0}, "uint8", False),
        ({"cval": -0.5}, "uint8", True),
        ({"cval": 255.5}, "uint8", True),
        ({"cval": 300.0, "fill_mode": "nearest"}, "uint8", False),
        ({"cval": 300.0, "has_affine": False}, "uint8", False),
        ({"dtype": "float64"}, "uint8", True),
        ({"dtype": "float64", "round_affine": True}, "uint8", False),
        ({"has_brightness": False}, "float32", False),
        ({"has_brightness": False, "has_channel_shift": True}, "uint8", True),
        ({"has_channel_shift": True, "has_affine": False}, "uint8", True),
    ],
)
def test_a_range_is_looked_for_only_where_it_decides(changes: dict[str, Any], dtype: str, wanted: bool) -> None:
    """A pass over each image is saved where its values cannot leave 0 to 255."""
    options = AugmentOptions(**{"has_brightness": True, "has_channel_shift": False, "fill_mode": "constant"} | changes)
    assert needs_range(options, np.dtype(dtype)) == wanted
