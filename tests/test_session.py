"""The rules of a session that `tests.conftest` gives: which tests go first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest

FOLDER = Path(__file__).parent
FIRST, SECOND = FOLDER / conftest.LONG[0], FOLDER / conftest.LONG[1]


def order(seed: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    monkeypatch.setenv(conftest.ORDER, seed)
    paths = [*(FOLDER / f"test_{number}.py" for number in range(8)), SECOND, FIRST]
    items: list[Any] = [SimpleNamespace(path=path, number=number) for path in paths for number in range(5)]
    conftest.pytest_collection_modifyitems(items)
    return [(item.path, item.number) for item in items]


def test_the_files_that_take_long_are_there() -> None:
    assert [name for name in conftest.LONG if not (FOLDER / name).is_file()] == []


@pytest.mark.parametrize("seed", ["", "1", "2"])
def test_they_go_first_and_no_file_is_torn_apart(seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = order(seed, monkeypatch)
    assert found == order(seed, monkeypatch)
    assert [path for path, _ in found[:10]] == [FIRST] * 5 + [SECOND] * 5
    files = [path for path, _ in found[::5]]
    assert len(set(files)) == 10
    assert [path for path, _ in found] == [path for path in files for _ in range(5)]
    assert all(sorted(number for path, number in found if path == file) == [0, 1, 2, 3, 4] for file in files)


def test_a_seed_draws_the_order_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, one, two = (order(seed, monkeypatch) for seed in ("", "1", "2"))
    assert plain[10:] == sorted(plain[10:])
    assert plain != one != two != plain
