"""Rank and world size, by hand or from the launcher."""

from __future__ import annotations

import numpy as np

__all__ = ["resolve_shard"]


def resolve_shard(shard: tuple[int, int] | str | None) -> tuple[int, int]:
    """Turn a user's `shard` into (rank, world).

    Parameters
    ----------
    shard : None, (int, int) or "auto"
        None is (0, 1).

    Raises
    ------
    ValueError
        If `shard` is something else, or the rank is not below the world size.
    """
    if shard is None:
        return 0, 1
    if isinstance(shard, (tuple, list)) and len(shard) == 2 and all(isinstance(item, (int, np.integer)) for item in shard):
        rank, world = int(shard[0]), int(shard[1])
        if 0 <= rank < world:
            return rank, world
    raise ValueError(f'shard must be None, (rank, world) with 0 <= rank < world, or "auto"; got {shard!r}')
