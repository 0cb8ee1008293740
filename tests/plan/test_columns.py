"""One row of a table declares what is drawn: everything else about a column is derived from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.ops.options import AugmentOptions
from gpuseq.ops.table import NUM_COLUMNS, fill_table
from gpuseq.plan import columns as table
from gpuseq.plan.columns import (
    COLUMNS,
    Column,
    Columns,
    are_neutral,
    captions,
    cells,
    dicts_to_params,
    identity_params,
    is_at_rest,
    params_to_dicts,
    put_to_rest,
)
from gpuseq.plan.plan import BatchPlan
from tests.cases import draw_params, images
from tests.compare import assert_same

HUE = Column("hue", np.nan, "colour", "hue", "hue", "turns", caption=("hue", "{:+.2f}"))
BEND = Column("bend", 0.0, "geometry", "bend", "bend", "px")
GREY = Column("to_grey", 0.0, "colour", "grey", "grey", caption=("colours", "grey"), is_flag=True)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Columns:
    """Three more rows in the table, and nothing else, for the time of a test."""
    columns = Columns([*COLUMNS, HUE, BEND, GREY])
    monkeypatch.setattr(table, "COLUMNS", columns)
    return columns


def drawn(num_samples: int = 3) -> np.ndarray:
    """Return parameters in which every column has been drawn, for every sample."""
    params = identity_params(num_samples)
    for number, name in enumerate(params.dtype.names or (), 1):
        params[name] = 1.0 if name.startswith(("flip", "to_")) else 0.1 * number
    return params


# The table as it is


def test_the_columns_are_keras_keys_and_their_neutral_values_keras_draws_without_ranges() -> None:
    keras = pytest.importorskip("keras.src.legacy.preprocessing.image")
    theirs = keras.ImageDataGenerator(data_format="channels_last").get_random_transform((8, 8, 3))
    ours = params_to_dicts(identity_params(1))[0]
    assert list(ours.items()) == list(theirs.items())


def test_each_step_is_an_option_of_the_engines() -> None:
    options = {item.name for item in fields(AugmentOptions)}
    assert {f"has_{column.step}" for column in COLUMNS} == {name for name in options if name.startswith("has_")}


def test_rows_are_neutral_until_one_column_of_one_row_is_drawn() -> None:
    assert are_neutral(identity_params(0))
    assert are_neutral(identity_params(3))
    for column in COLUMNS:
        params = identity_params(3)
        params[column.name][1] = 0.25
        assert not are_neutral(params), column


def test_a_row_is_at_rest_in_a_group_when_no_column_of_it_is_drawn() -> None:
    for column in COLUMNS:
        params = identity_params(2)
        params[column.name][1] = 0.5
        for group in COLUMNS.groups:
            assert list(is_at_rest(params, group)) == [True, group not in (column.kind, column.step)], (column, group)


def test_what_is_put_to_rest_is_a_copy_and_the_rest_stays() -> None:
    params = draw_params(50, 9, 9, colour=True)
    before = params.copy()
    for group, columns in COLUMNS.groups.items():
        rest = put_to_rest(params, group)
        assert is_at_rest(rest, group).all()
        for column in COLUMNS:
            if column not in columns:
                assert_same(rest[column.name], params[column.name])
    assert params.tobytes() == before.tobytes()


# One row more


def test_nothing_is_left_behind_by_a_registered_column(registered: Columns) -> None:
    assert len(registered) == len(COLUMNS) + 3
    assert "hue" not in COLUMNS.names


def test_the_dtype_and_the_row_at_rest_follow(registered: Columns) -> None:
    params = identity_params(4)
    assert params.dtype.names == (*COLUMNS.names, "hue", "bend", "to_grey")
    assert np.isnan(params["hue"]).all()
    assert not params["bend"].any()
    assert params.view(np.float64).shape == (4 * 13,)


def test_the_dictionaries_follow(registered: Columns) -> None:
    (at_rest,) = params_to_dicts(identity_params(1))
    assert list(at_rest)[-3:] == ["hue", "bend", "to_grey"]
    assert (at_rest["hue"], at_rest["bend"], at_rest["to_grey"]) == (None, 0.0, False)
    rows = [{"hue": 0.25, "to_grey": True}, {"hue": None, "bend": 2.0, "theta": 3.0}]
    params = dicts_to_params(rows)
    for row, back in zip(rows, params_to_dicts(params), strict=True):
        assert back == at_rest | {"hue": None} | row
    assert type(params_to_dicts(params)[0]["to_grey"]) is bool
    nothing = dicts_to_params([dict.fromkeys(registered.names)])
    assert nothing.tobytes() == identity_params(1).tobytes()


def test_an_unregistered_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'hue'.*known are theta, .*brightness"):
        dicts_to_params([{"hue": 0.25}])
    assert dicts_to_params([{"hue": 0.25}], ignore_unknown=True).tobytes() == identity_params(1).tobytes()


def test_masks_share_the_geometry_and_no_colour(registered: Columns) -> None:
    params = drawn()
    shared = put_to_rest(params, "colour")
    assert np.isnan(shared["hue"]).all()
    assert not shared["to_grey"].any()
    assert_same(shared["bend"], params["bend"])
    assert_same(shared["theta"], params["theta"])


def test_another_step_of_the_geometry_is_not_the_affine_maps(registered: Columns) -> None:
    params = identity_params(2)
    params["bend"] = 2.0
    assert is_at_rest(params, "affine").all()
    assert_same(put_to_rest(params, "affine")["bend"], params["bend"])
    assert list(is_at_rest(params, "geometry")) == [False, False]


def test_the_texts_follow(registered: Columns) -> None:
    params = drawn()
    params["hue"][1] = np.nan
    plan = BatchPlan(np.arange(3), params)
    head, *rows = str(plan).splitlines()
    assert head.split() == ["sample", *(column.symbol for column in registered)]
    assert [row.split()[11] for row in rows] == ["1.1", "-", "1.1"]
    found = cells(params)
    assert found["hue, turns"] == ["1.1", "-", "1.1"]
    assert found["bend, px"] == ["1.2"] * 3
    assert found["grey"] == ["yes"] * 3
    lines = dict(captions(params[0]))
    assert (lines["hue"], lines["bend"], lines["colours"]) == ("+1.10", "1.2", "grey")
    assert "hue" not in dict(captions(params[1]))


def test_what_a_subclass_draws_is_explained_and_replayed(registered: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    # NumPy's engine takes columns by name; the compiled ones have to be built with a new one, and refuse it until then.
    monkeypatch.setenv("GPUSEQ_CPU_ENGINE", "numpy")

    class Tinted(gpuseq.ImageDataGenerator):
        def get_random_transform(self, img_shape: tuple[int, ...], seed: int | None = None) -> dict[str, Any]:
            return super().get_random_transform(img_shape, seed) | {"hue": 0.25}

    iterator = Tinted(rotation_range=9, device="cpu").flow(images((6, 8, 8, 3), "uint8"), batch_size=3, seed=1)
    found = iterator.explain()
    assert found.head == ("sample", "turn, deg", "hue, turns")
    assert [row[2] for row in found.rows] == ["0.25"] * 3
    assert [row["hue"] for row in found.plan.to_dicts()] == [0.25] * 3
    assert iterator.replay(found.plan).shape == (3, 8, 8, 3)


def test_a_table_without_the_column_is_not_filled(registered: Columns) -> None:
    rows = np.empty((2, NUM_COLUMNS))
    with pytest.raises(ValueError, match=r"table holds .*brightness; the parameters hold .*brightness, hue"):
        fill_table(rows, identity_params(2), None)


# Further parts of a plan


@dataclass(frozen=True, eq=False)
class Boxed(BatchPlan):
    """A plan with a part of its own."""

    boxes: np.ndarray | None = None


def boxed(first: int) -> Boxed:
    boxes = np.zeros(3, [("corner", np.int64, (2,)), ("share", np.float64)])
    boxes["corner"][:, 0] = [first, 2, 3]
    boxes["share"] = np.nan
    return Boxed(np.arange(3), identity_params(3), epoch=4, boxes=boxes)


def test_a_further_part_is_taken_compared_and_read_only() -> None:
    plan = boxed(1)
    part = plan.take(np.array([2, 0]))
    assert isinstance(part, Boxed)
    assert part.boxes is not None
    assert not part.boxes.flags.writeable
    assert part.boxes["corner"][:, 0].tolist() == [3, 1]
    assert (part.indices.tolist(), part.epoch) == ([2, 0], 4)
    assert plan == boxed(1)
    assert plan != boxed(7)
    assert plan != plan.take(np.array([0, 1]))


def test_plans_are_equal_where_they_make_the_same_batch() -> None:
    params = drawn()
    plan = BatchPlan(np.arange(3), params, epoch=1, batch_index=2, file_numbers=np.arange(3))
    assert plan == BatchPlan(np.arange(3), params.copy())
    assert plan != BatchPlan(np.arange(3), params, image_size=(1, 2))
    assert plan != BatchPlan(np.arange(3), params, weights=np.ones(3, np.float32))
    assert plan != BatchPlan(np.arange(1, 4), params)
    assert plan != BatchPlan(np.arange(3), identity_params(3))


def test_a_part_of_a_plan_keeps_its_samples_files_and_weights() -> None:
    weights = np.array([1, 0.5, 0], np.float32)
    plan = BatchPlan(np.arange(3), drawn(), file_numbers=np.array([70, 80, 90]), weights=weights, batch_index=4)
    part = plan.take(np.array([2, 0]))
    assert part.file_numbers is not None
    assert part.weights is not None
    assert (part.file_numbers.tolist(), part.weights.tolist()) == ([90, 70], [0, 1])
    assert (part.params == plan.params[[2, 0]]).all()
    assert part.batch_index == 4


def test_weights_are_compared_by_their_values() -> None:
    params, weights = drawn(), np.array([1, 1, 0], np.float32)
    assert BatchPlan(np.arange(3), params, weights=weights) == BatchPlan(np.arange(3), params, weights=weights.copy())
    assert BatchPlan(np.arange(3), params, weights=weights) != BatchPlan(np.arange(3), params, weights=1 - weights)
    assert BatchPlan(np.arange(3), params, weights=weights) != BatchPlan(np.arange(3), params)
