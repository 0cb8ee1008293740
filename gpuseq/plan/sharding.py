"""How an epoch is taken, checked: random mode and shard; rank and world size, by hand or from the launcher."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuseq.base.arguments import check_choice, check_count, check_flag
from gpuseq.base.types import Remainder, Rng, Shard, literals

__all__ = ["PlanOptions", "checked_options", "detect_shard", "resolve_shard"]

logger = logging.getLogger("gpuseq")

# Launchers that a line in the log has named already: once a process, not once an iterator.
_told: list[str] = []


@dataclass(frozen=True)
class PlanOptions:
    """How an epoch is taken: the random mode, and this process' part of it.

    Attributes
    ----------
    rng : {"keras", "keyed"}
        Whose numbers are drawn.
    rank, world : int
        This process and how many share an epoch.
    remainder : {"pad", "drop", "exact"}
        What happens to samples that do not divide by `world`.
    """

    rng: Rng = "keras"
    rank: int = 0
    world: int = 1
    remainder: Remainder = "pad"

    @classmethod
    def parse(cls, rng: Any, rank: int, world: int, remainder: Any) -> PlanOptions:
        """Check a user's values.

        Raises
        ------
        ValueError
            If a value is not one of the accepted ones.
        """
        check_choice("rng", rng, literals(Rng))
        check_choice("remainder", remainder, literals(Remainder))
        return cls(rng, rank, world, remainder)


def checked_options(
    batch_size: object,
    shuffle: object,
    seed: object,
    *,
    rng: object = "keras",
    shard: Shard | None = None,
    remainder: object = "pad",
    **_: object,  # those of `Sequence`
) -> PlanOptions:
    """Check what an iterator can be told about its epochs before it is known how many samples there are."""
    check_count("batch_size", batch_size, or_none=False)
    check_flag("shuffle", shuffle)
    _check_seed(seed)
    rank, world = resolve_shard(shard)
    if world > 1 and seed is None:
        raise ValueError(f"shard=({rank}, {world}) needs a seed: every rank must draw the same order. Pass seed=...")
    return PlanOptions.parse(rng, rank, world, remainder)


def _check_seed(seed: object) -> None:
    if seed is None:
        return
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer or None; got {seed!r} of type {type(seed).__name__}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1; got {seed!r}")


def resolve_shard(shard: Shard | None) -> tuple[int, int]:
    """Turn a user's `shard` into (rank, world).

    Parameters
    ----------
    shard : None, (int, int) or "auto"
        None is (0, 1); under a launcher with several processes it says so once, in the log. "auto" asks
        `detect_shard`.

    Raises
    ------
    ValueError
        If `shard` is something else, or the rank is not below the world size.
    """
    if shard is None:
        _tell_if_launched()
        return 0, 1
    if isinstance(shard, str) and shard == "auto":
        # Logged, because a job whose launcher is not recognised would otherwise train every rank on everything in
        # silence.
        found, rank, world = detect_shard()
        logger.info('shard="auto": rank %d of %d, from %s', rank, world, found or "no launcher: one process")
        return rank, world
    if (
        isinstance(shard, (tuple, list))
        and len(shard) == 2
        and all(isinstance(item, (int, np.integer)) for item in shard)
    ):
        rank, world = int(shard[0]), int(shard[1])
        if 0 <= rank < world:
            return rank, world
    raise ValueError(f'shard must be None, (rank, world) with 0 <= rank < world, or "auto"; got {shard!r}')


def detect_shard() -> tuple[str, int, int]:
    """Ask the launcher of this process for its rank and the number of processes.

    In this order: an initialised ``torch.distributed``, an initialised ``jax.distributed``, a Ray Train worker,
    torchrun's ``RANK`` and ``WORLD_SIZE``, Open MPI's ``OMPI_COMM_WORLD_*``, Slurm's ``SLURM_PROCID`` and
    ``SLURM_NTASKS`` within a job step (under ``srun``). No framework is imported and none is started: only what is
    loaded already is asked.

    Returns
    -------
    launcher : str
        What answered; empty where nothing did.
    rank, world : int
        (0, 1) where nothing did.

    Raises
    ------
    ValueError
        If the environment of a launcher holds something else than a rank below a world size.
    """
    for name, ask in _LAUNCHERS:
        found = ask()
        if found is not None:
            rank, world = found
            if not 0 <= rank < world:
                raise ValueError(f"{name} says rank {rank} of {world}, which cannot be: pass shard=(rank, world)")
            return name, rank, world
    return "", 0, 1


def _tell_if_launched() -> None:
    try:
        name, rank, world = detect_shard()
    # No shard was asked for: a broken environment is no reason to refuse.
    except ValueError:
        return
    if world > 1 and name not in _told:
        _told.append(name)
        logger.warning(
            "%s started %d processes (this is rank %d), but shard=None: every process takes all the samples. "
            'Pass shard="auto" to give each its part, or shard=(0, 1) to keep it so without this line',
            name,
            world,
            rank,
        )


def _loaded(module: str) -> Any:
    return sys.modules.get(module)


def _torch_distributed() -> tuple[int, int] | None:
    distributed = _loaded("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank()), int(distributed.get_world_size())


def _jax_distributed() -> tuple[int, int] | None:
    jax = _loaded("jax")
    # process_index() alone would start the backend, and with it claim the devices.
    if jax is None or not jax.distributed.is_initialized():
        return None
    return int(jax.process_index()), int(jax.process_count())


def _ray_train() -> tuple[int, int] | None:
    train = _loaded("ray.train")
    if train is None:
        return None
    try:
        context = train.get_context()
        rank, world = context.get_world_rank(), context.get_world_size()
    except Exception:  # outside a training worker, which error it is depends on Ray's version
        return None

    return None if rank is None or world is None else (int(rank), int(world))


def _environment(rank_name: str, world_name: str) -> Callable[[], tuple[int, int] | None]:
    def ask() -> tuple[int, int] | None:
        rank, world = os.environ.get(rank_name), os.environ.get(world_name)
        # Both or nothing: RANK alone is a common name.
        if rank is None or world is None:
            return None
        try:
            return int(rank), int(world)
        except ValueError:
            raise ValueError(
                f"{rank_name}={rank!r} and {world_name}={world!r} should be whole numbers: pass shard=(rank, world)"
            ) from None

    return ask


def _slurm() -> tuple[int, int] | None:
    # sbatch sets SLURM_NTASKS, and SLURM_PROCID=0, for the batch script itself: one process, not one of n.
    # 4294967291 is Slurm's number for the batch script's own step (SLURM_BATCH_SCRIPT, 0xfffffffb).
    if "SLURM_STEP_ID" not in os.environ or os.environ.get("SLURM_STEP_ID") in ("batch", "4294967291"):
        return None
    # `srun -n` may start fewer tasks than the job has: the step's count comes first.
    return _environment(
        "SLURM_PROCID", "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_NTASKS"
    )()


# From what answers for itself to what may be left over: a process group that was initialised is this process', while
# environment variables are inherited by whatever a launched process starts.
_LAUNCHERS: tuple[tuple[str, Callable[[], tuple[int, int] | None]], ...] = (
    ("torch.distributed", _torch_distributed),
    ("jax.distributed", _jax_distributed),
    ("Ray Train", _ray_train),
    ("torchrun", _environment("RANK", "WORLD_SIZE")),
    ("Open MPI", _environment("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")),
    ("Slurm", _slurm),
)
