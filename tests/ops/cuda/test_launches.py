"""`kernels/README.md` says how many launches a batch of each policy takes, as the stand-in counts them."""

from __future__ import annotations

from tests.ops.cuda import launches


def test_the_table_of_launches_is_current() -> None:
    remedy = "python -m tests.ops.cuda.launches --write, if that is meant"
    said, now = launches.recorded().splitlines(), launches.table().splitlines()
    assert len(said) == len(now), remedy
    for was, line in zip(said, now, strict=True):
        assert was == line, remedy
