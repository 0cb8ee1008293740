"""Where a planner stands: `Position`, which moves, and `PlannerState`, a checked value.

The value is written by `state_dict` and read by `load_state_dict`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any

from .draw import REPLAYED, replay_cost
from .order import shard_size

__all__ = ["PlannerState", "Position", "at_batch"]

VERSION = 2
"""Version 1 said neither `shuffle` nor `remainder`; a state of it is taken for one of an iterator made alike."""

MAKING = ("rng", "dataset_size", "shuffle", "remainder", "batch_size", "world")
"""What of a state belongs to how the iterator was made."""

# A batch number, perhaps the generator's state (see `order._STATE`), then what was taken since. The digits are bounded,
# so that no state makes a machine count to 10**100.
_POSITION = re.compile(r"\d{1,10}( R\d{1,10}:[0-9a-f]{5014})?( (P\d{1,18}|D\d{1,9}|S\d{1,9}:[1-9]\d{0,8}))*")


@dataclass
class Position:
    """How batches are counted, and which one is next.

    Attributes
    ----------
    by_epoch : bool
        Whether batch i of an epoch is always the same batch; False is Keras' way.
    epoch : int
        The one that `batch` is in; means nothing in Keras' way.
    batch : int
        The number, within its epoch, of the batch that ``next()`` plans.
    served : bool
        Whether a batch of this epoch was planned: then the epoch's end begins the next one.
    is_over : bool
        Whether the epoch's last sample numbers were handed out. Their plan may yet be drawn, with this epoch's numbers,
        so the next epoch begins with the request after them.
    """

    by_epoch: bool
    epoch: int = 0
    batch: int = 0
    served: bool = False
    is_over: bool = False

    def start(self, epoch: int) -> None:
        """Go to an epoch of which nothing was planned; `batch` stays."""
        self.epoch = epoch
        self.served = self.is_over = False


@dataclass(frozen=True)
class PlannerState:
    """Where a planner stands, and how its iterator was made. Integers and strings only, for JSON.

    Attributes
    ----------
    rng, seed, dataset_size, shuffle, remainder, world, batch_size
        As the iterator has them; `shuffle` as 0 or 1. `shuffle` and `remainder` are None in a state of version 1.
    by_epoch, served : int
        0 or 1: whether batches are counted by epoch, and whether a batch of the epoch was asked for.
    epoch, batch_index, total_batches_seen : int
        From 0.
    order, stream : str
        Positions of the stream of numbers, as `KerasStream` has them; `order` is empty before the first order.
    """

    rng: str
    seed: int
    dataset_size: int
    world: int
    batch_size: int
    by_epoch: int
    epoch: int
    served: int
    batch_index: int
    total_batches_seen: int
    order: str
    stream: str
    shuffle: int | None = None
    remainder: str | None = None

    @property
    def global_position(self) -> int:
        """Samples of the epoch's global order that are behind it, those of all ranks together."""
        return self.batch_index * self.batch_size * self.world

    def as_dict(self) -> dict[str, int | str]:
        """Return it as a dictionary that `parse` takes."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def parse(cls, state: Mapping[str, Any]) -> PlannerState:
        """Read a dictionary from `as_dict`, of this version or an earlier one, perhaps by way of JSON.

        Raises
        ------
        TypeError
            If it is no mapping.
        ValueError
            If it has another version, lacks something, or holds what no iterator writes.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"a state is the dictionary that state_dict() returned; got {type(state).__name__}")
        version = state.get("version")
        if version not in (1, VERSION):
            raise ValueError(f"this state has version {version!r}; this gpuseq reads versions 1 and {VERSION}")
        values: dict[str, Any] = {}
        for item in fields(cls):
            if item.name not in state:
                if version == 1 and item.name in ("shuffle", "remainder"):
                    continue
                raise ValueError(f"this state lacks {item.name!r}: hand over all that state_dict() returned")
            values[item.name] = _checked(item.name, state[item.name], "str" in str(item.type))
        for name in ("order", "stream"):
            # Of another size a permutation would be made in full before it is found not to fit.
            sizes = {int(size) for size in re.findall(r"P(\d+)", values[name])}
            if sizes - {values["dataset_size"]} or (name == "order" and values[name] and not sizes):
                raise _strange(name, values[name])
            # What no stream records: it would be drawn again for minutes, or fill the memory.
            too_long = replay_cost(values[name]) > REPLAYED + values["dataset_size"] + 2 or values[name].count("P") > 64
            if too_long or values["seed"] + int(values[name].partition(" ")[0] or 0) >= 2**32:
                raise _strange(name, values[name])
        # RandomState takes seeds below 2**32 (the sum above), so a batch number past it was never written.
        found = cls(**values)
        if found.batch_index > found.num_batches:
            raise _strange("batch_index", found.batch_index)
        return found

    @property
    def num_batches(self) -> int:
        """Batches of an epoch of the iterator whose state this is."""
        return -(-shard_size(self.dataset_size, self.world, self.remainder or "pad") // self.batch_size)

    def check(self, **here: int | str) -> None:
        """Refuse to go on in an iterator that was made otherwise.

        Parameters
        ----------
        **here : int or str
            What of `MAKING` must agree, as the iterator has it.

        Raises
        ------
        ValueError
            With both values.
        """
        for name in MAKING:
            was = getattr(self, name)
            if name in here and was is not None and was != here[name]:
                is_flag = name == "shuffle"
                was, now = (bool(was), bool(here[name])) if is_flag else (was, here[name])
                remedy = "over the same samples" if name == "dataset_size" else f"with {name}={was!r}"
                raise ValueError(
                    f"this state was taken with {name}={was!r}, but the iterator has {name}={now!r}. Make the iterator "
                    f"{remedy}, or begin an epoch anew with set_epoch()"
                )


def at_batch(state: dict[str, int | str], epoch: int, index: int) -> dict[str, int | str]:
    """Return a state that says the same of its iterator and stands at a batch of an epoch.

    Parameters
    ----------
    state : dict
        From `Planner.state_dict`.
    epoch, index : int
        Which batch is next, counted by epoch.
    """
    # `order` is empty because by epoch an order follows from its number; a written one would be restored in its place.
    return state | {"by_epoch": 1, "epoch": epoch, "batch_index": index, "served": int(index > 0), "order": ""}


def _checked(name: str, value: Any, is_text: bool) -> int | str:
    if is_text:
        good = isinstance(value, str)
        if name in ("order", "stream") and good:
            good = bool(_POSITION.fullmatch(value)) or (name == "order" and not value)
    else:
        # NumPy's integers pass, floats do not: JSON of another language may write 3.0, which is no count.
        good = isinstance(value, Integral) and int(value) >= int(name in ("world", "batch_size"))
        good = good and (name not in ("by_epoch", "served", "shuffle") or value <= 1)
        # Batches seen and seeds are added up, and RandomState takes no more.
        good = good and value < 2**32
    if not good:
        raise _strange(name, value)
    return str(value) if is_text else int(value)


def _strange(name: str, value: Any) -> ValueError:
    return ValueError(f"this state has {name}={value!r}, which no iterator writes: it was changed or cut short")
