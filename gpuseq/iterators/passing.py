"""Batches of which bad files have left nothing: the next one takes their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from gpuseq.base.errors import EmptyBatchError
from gpuseq.plan.sharding import PlanOptions

__all__ = ["first_left"]

T = TypeVar("T")


def first_left(
    makers: Iterable[Callable[[], T]], options: PlanOptions | None = None, *, is_under_way: bool = False
) -> T:
    """Return the first of some batches of which anything is left.

    Parameters
    ----------
    makers : iterable of callable
        Each makes one batch, in order; no further one is asked for than is needed.
    options : PlanOptions or None
        Of an iterator whose pass is shorter by each batch that is passed over. With several ranks none may be: every
        rank needs as many, and those that have fewer leave the others waiting. None: the pass keeps its length.
    is_under_way : bool
        Whether the pass has had a batch: then it is over where nothing is left.

    Raises
    ------
    EmptyBatchError
        If nothing is left of all of them, or none may be passed over.
    StopIteration
        If there is no maker, or the pass is over.
    """
    problem: EmptyBatchError | None = None
    for make in makers:
        try:
            return make()
        except EmptyBatchError as error:
            problem = error
            if options is not None and options.world > 1:
                raise EmptyBatchError(
                    error.path,
                    f"{error.reason}. With shard=({options.rank}, {options.world}) no batch can be passed over: every "
                    "rank needs as many. Leave out the files that `gpuseq check` lists, or let on_error return an "
                    "image",
                ) from error
    # Over where the pass has had a batch; else the error, so that a loop over nothing but bad files does not end in
    # silence.
    raise StopIteration if problem is None or is_under_way else problem
