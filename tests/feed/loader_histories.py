"""Histories of a loader under PyTorch's DataLoader and torchdata's StatefulDataLoader, beside a model of what is due.

A history is what a training script may do: set the epoch, begin a pass, leave it after some batches or none, run into
an exception, save, load into the same loader or into a new process' one, begin again. `Model` says which batch of which
epoch is due next; the real thing must give that batch, every batch of an epoch once.

Runs in a process of its own, because worker processes are forked from it::

    python -m tests.feed.loader_histories plain 100
    HYPOTHESIS_PROFILE=explore python -m tests.feed.loader_histories stateful 1000
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from gpuseq import ImageDataGenerator
from gpuseq.base.errors import EmptyBatchError
from gpuseq.torch import TorchLoader, loader

Step = tuple[Any, ...]


@dataclass(frozen=True)
class Setting:
    """What does not change in a history."""

    stateful: bool
    n: int
    batch_size: int
    rng: str
    workers: int
    persistent: bool
    prefetch: int
    every: int
    bad: int | None
    """Number within its epoch of the batch that raises."""
    empty: int | None
    """Number of the batch of which nothing is left."""

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)


@st.composite
def setting(draw: Any, stateful: bool) -> Setting:
    n, batch_size = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    length = -(-n // batch_size)
    workers = draw(st.sampled_from([0, 1, 2, 2, 3, 3, 4, 7]))
    fault = draw(st.sampled_from(["none", "none", "none", "bad", "empty"])) if length > 1 else "none"
    number = draw(st.integers(0, length - 1))
    return Setting(
        stateful=stateful,
        n=n,
        batch_size=batch_size,
        rng=draw(st.sampled_from(["keras", "keyed"])),
        workers=workers,
        persistent=workers > 0 and draw(st.booleans()),
        prefetch=draw(st.integers(1, 3)),
        # torchdata makes the batches since its last snapshot again while it loads, and an exception in one ends that.
        every=draw(st.sampled_from([1, 1, 2, 3])) if stateful and fault == "none" else 1,
        bad=number if fault == "bad" else None,
        empty=number if fault == "empty" else None,
    )


STEP = st.one_of(
    st.tuples(st.just("pass"), st.one_of(st.integers(0, 10), st.just(99))),
    st.tuples(st.just("pass"), st.integers(1, 5)),
    st.tuples(st.just("save")),
    st.tuples(st.just("load"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("set_epoch"), st.integers(0, 4)),
)


def flow(here: Setting) -> Any:
    images = np.zeros((here.n, 2, 2, 1), np.uint8)
    own = ImageDataGenerator(device="cpu", rng=here.rng)
    return own.flow(images, np.arange(here.n), batch_size=here.batch_size, seed=7)


class Faulty(TorchLoader):
    """A loader of which one batch of each epoch raises, or has nothing left."""

    here: Setting

    def _make(self, epoch: int, index: int) -> Any:
        if index == self.here.bad:
            raise RuntimeError("a bad file")
        if index == self.here.empty:
            raise EmptyBatchError("name", "nothing is left")
        return super()._make(epoch, index)


@cache
def _oracle(n: int, batch_size: int, rng: str, epoch: int) -> tuple[tuple[int, ...], ...]:
    here = Setting(False, n, batch_size, rng, 0, False, 1, 1, None, None)
    batches = loader(flow(here))
    batches.set_epoch(epoch)
    return tuple(tuple(labels.tolist()) for _, labels in batches)


def oracle(here: Setting, epoch: int) -> tuple[tuple[int, ...], ...]:
    """Return the labels of each batch of an epoch, as a pass without any DataLoader has them."""
    return _oracle(here.n, here.batch_size, here.rng, epoch)


# The model.


@dataclass
class Pass:
    """One pass: what is left of an epoch."""

    epoch: int = -1
    """-1: not begun; the pass begins where the loader stands when its first batch is asked for."""
    left: list[int] = field(default_factory=list)
    index: int = 0
    """Without workers: the number of the next batch, be it good or not."""
    is_over: bool = False
    """Whether its end was seen, which torchdata notes."""
    is_ordered: bool = True
    """With workers, a batch that is passed over moves those of its worker forward, and one that raised comes late."""
    raised: set[int] = field(default_factory=set)
    origin: Any = None


@dataclass
class Model:
    """Where everything stands: the loader of the main process, and the pass or the worker processes."""

    here: Setting
    start: tuple[int, int] = (0, 0)
    """Where the loader of the main process begins its next pass."""
    is_put: bool = True
    """Whether `start` was set, and no batch asked for since."""
    last: Pass | None = None
    """The pass that gave the main process' last batch, without workers."""
    current: Pass | None = None
    """What a StatefulDataLoader asks for its state; with workers that persist, the pass that they are in."""
    pending: Pass | None = None
    """A state that torchdata was given and has not used yet."""
    is_waiting: bool = False
    """Whether `current` was begun to get a state from, and is the next pass."""

    def whole(self, epoch: int, first: int = 0) -> Pass:
        here = self.here
        left = [index for index in range(first, len(here)) if index != here.empty]
        return Pass(epoch, left, first, is_ordered=not here.workers or here.empty is None)

    def set_epoch(self, epoch: int) -> None:
        if not (self.is_put and self.start[0] == epoch):
            self.start, self.is_put, self.last = (epoch, 0), True, None

    def put(self, epoch: int, index: int) -> None:
        self.start = (epoch, index) if index < len(self.here) else (epoch + 1, 0)
        self.is_put = True

    def make(self) -> None:
        """Do what a data loader does that needs a pass: of a state, or a new one."""
        here, state = self.here, self.pending
        self.pending = None
        if state is not None:
            self.current = replace(state, left=list(state.left), raised=set(state.raised))
            if not here.workers:
                self.put(state.epoch, state.index)
                self.current.origin = self.start
                self.last = self.current
        elif here.workers:
            self.current = self.whole(*self.start)
        else:
            self.current = Pass()

    def begin(self) -> Pass:
        """Do what ``iter`` does."""
        here = self.here
        if self.is_waiting:
            self.is_waiting = False
        else:
            self.renew()
        assert self.current is not None
        if self.current.is_over and here.stateful:
            self.renew()
        return self.current

    def renew(self) -> None:
        if self.here.persistent and self.current is not None and self.pending is None:
            self.current = self.whole(self.current.epoch + 1)
        else:
            self.make()

    def due(self, walk: Pass) -> list[int]:
        """Return the numbers of which one comes next; none: the pass is over."""
        if walk.epoch < 0:
            begun = self.whole(*self.start)
            walk.epoch, walk.left, walk.index, walk.origin = begun.epoch, begun.left, begun.index, self.start
        if not self.here.workers:
            self.last, self.is_put = walk, False
        return walk.left[:1] if walk.is_ordered else list(walk.left)

    def came(self, walk: Pass, index: int | None) -> None:
        """Note batch `index`, or the end."""
        if index is None:
            walk.is_over = True
            walk.index = len(self.here)
        else:
            walk.left.remove(index)
            walk.index = index + 1
        if not self.here.workers and walk.index >= len(self.here) and walk.origin is self.start:
            self.start = (walk.epoch + 1, 0)

    def save(self) -> Any:
        here = self.here
        if not here.stateful:
            if self.last is None:
                return self.start
            return self.last.epoch, self.last.index
        if self.current is None:
            self.make()
            self.is_waiting = True
        assert self.current is not None
        state = replace(self.current, left=list(self.current.left), raised=set(self.current.raised))
        if state.epoch < 0:
            begun = self.whole(*self.start)
            state = replace(begun, raised=set())
        if here.workers and state.raised:
            state.is_ordered = False  # a worker's state is that of its last batch
            state.left = sorted({*state.left, *state.raised})
        return state

    def load(self, state: Any) -> None:
        if self.here.stateful:
            self.pending, self.current, self.is_waiting = state, None, False
            return
        self.put(*state)
        if self.last is not None:
            self.last.epoch, self.last.index = self.start


# The real thing.


class Real:
    """A loader, and the data loader around it."""

    def __init__(self, here: Setting) -> None:
        self.here = here
        self.loader = Faulty(flow(here))
        self.loader.here = here
        options: dict[str, Any] = {"batch_size": None, "num_workers": here.workers}
        if here.workers:
            options |= {"persistent_workers": here.persistent, "prefetch_factor": here.prefetch}
        if here.stateful:
            from torchdata.stateful_dataloader import StatefulDataLoader

            self.batches: Any = StatefulDataLoader(self.loader, snapshot_every_n_steps=here.every, **options)
        else:
            self.batches = torch.utils.data.DataLoader(self.loader, **options)

    @property
    def holder(self) -> Any:
        return self.batches if self.here.stateful else self.loader

    def save(self) -> bytes:
        return pickle.dumps(self.holder.state_dict())

    def load(self, state: bytes) -> None:
        self.holder.load_state_dict(pickle.loads(state))


def _walk(real: Real, model: Model, count: int) -> None:
    """Begin a pass in both, and compare `count` batches."""
    here = real.here
    steps, walk = iter(real.batches), model.begin()
    for _ in range(count):
        due = model.due(walk)
        try:
            labels: Any = tuple(next(steps)[1].tolist())
        except StopIteration:
            missing = [index for index in due if index not in walk.raised]
            assert not missing, f"epoch {walk.epoch} is over, without its batches {missing}"
            model.came(walk, None)
            return
        except RuntimeError as error:
            if "a bad file" not in str(error) or here.bad not in due:
                raise AssertionError(f"of the batches {due} one raised") from error
            model.came(walk, here.bad)
            walk.raised.add(here.bad)
            continue
        wanted = {oracle(here, walk.epoch)[index]: index for index in due if index != here.bad}
        assert labels in wanted, f"got {labels}; due in epoch {walk.epoch} were batches {due}: {list(wanted)}"
        model.came(walk, wanted[labels])


def run(here: Setting, steps: list[Step]) -> None:
    """Go through a history, and one whole pass at its end."""
    real, model = Real(here), Model(here)
    saved: list[tuple[bytes, Any]] = []
    for step in [*steps, ("pass", 99)]:
        if step[0] == "pass":
            _walk(real, model, step[1])
        elif step[0] == "set_epoch":
            real.loader.sampler.set_epoch(step[1])
            model.set_epoch(step[1])
        elif step[0] == "save":
            saved.append((real.save(), model.save()))
        elif saved:
            state, modelled = saved[step[1] % len(saved)]
            if step[2]:
                real, model = Real(here), Model(here)
            real.load(state)
            model.load(modelled)


def known(stateful: bool) -> list[dict[str, Any]]:
    """Return histories that once went wrong: they are run first."""

    def of(length: int, workers: int, persistent: bool, steps: list[Step]) -> dict[str, Any]:
        here = Setting(stateful, length, 1, "keras", workers, persistent, 2, 1, None, None)
        return {"here": here, "steps": steps}

    cases = [of(8, 2, True, [("pass", 3)] * 3)]
    if stateful:
        saved_after = {2: 5, 3: 4, 4: 3, 5: 2, 7: 0}
        for workers, count in saved_after.items():
            cases.append(of(6, workers, False, [("pass", count), ("save",), ("load", 0, True)]))
        for workers in (3, 4, 8):
            cases.append(of(5, workers, True, [("pass", 3), ("save",), ("load", 0, True), ("pass", 99), ("pass", 99)]))
    return cases


def main(kind: str, count: int) -> None:
    """Run `count` generated histories and the known ones, and print how many there were."""
    # Now and then a worker does not hear that it is to end, and PyTorch gives it 5 seconds before it ends it.
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5
    gc.freeze()  # what was imported stays: a collection after each history, and in each worker, need not walk over it
    passed = 0
    explore = os.environ.get("HYPOTHESIS_PROFILE") == "explore"

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=not explore,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink] if explore else [Phase.explicit, Phase.generate],
        print_blob=True,
    )
    @given(here=setting(stateful=kind == "stateful"), steps=st.lists(STEP, min_size=1, max_size=7))
    def histories(here: Setting, steps: list[Step]) -> None:
        nonlocal passed
        run(here, steps)
        passed += 1
        gc.collect()  # PyTorch says so where a child process finds the data loader of an earlier history

    for case in known(kind == "stateful"):
        histories = example(**case)(histories)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        histories()
    print(f"{passed} histories of {kind}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
