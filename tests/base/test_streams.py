"""Buffers that are filled again, with events that are none; streams that outlive their owners."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from gpuseq.base import streams
from gpuseq.base.streams import Buffer, Ring, own_stream
from tests.standin import cupy as standin


class FakeEvent:
    def __init__(self) -> None:
        self.done = True
        self.waited = 0

    def synchronize(self) -> None:
        self.waited += not self.done
        self.done = True


@pytest.fixture
def ring() -> Ring:
    return Ring(lambda num_bytes: Buffer(None, max(num_bytes, 1 << 15)), 3)


def take_busy(ring: Ring, num_bytes: int = 100) -> Any:
    """Take a slot and give it back with its copy still on the way."""
    slot = ring.take(num_bytes)
    slot.last_use = FakeEvent()
    slot.last_use.done = False
    ring.give(slot)
    return slot


def test_a_slot_that_was_read_is_used_again(ring: Ring) -> None:
    slot = take_busy(ring)
    slot.last_use.done = True
    assert ring.take(100) is slot
    assert slot.last_use.waited == 0


def test_a_slot_in_flight_is_left_alone_while_there_may_be_another(ring: Ring) -> None:
    slots = [take_busy(ring) for _ in range(3)]
    assert len(set(map(id, slots))) == 3
    assert all(slot.last_use.waited == 0 for slot in slots)


def test_with_all_in_flight_the_oldest_is_waited_for(ring: Ring) -> None:
    slots = [take_busy(ring) for _ in range(3)]
    assert ring.take(100) is slots[0]
    assert [slot.last_use.waited for slot in slots] == [1, 0, 0]


def test_a_slot_that_is_too_small_gives_way_to_a_larger_one(ring: Ring) -> None:
    slots = [take_busy(ring) for _ in range(3)]
    larger = ring.take(1 << 20)
    assert larger.num_bytes >= 1 << 20
    assert slots[0].last_use.waited == 1, "nobody may free a buffer that is still being read"
    ring.give(larger)
    assert [ring.take(1), ring.take(1)] == slots[1:]


def test_two_takers_never_share(ring: Ring) -> None:
    first, second = ring.take(10), ring.take(10)
    assert first is not second


def test_a_buffer_that_nobody_used_is_free(ring: Ring) -> None:
    """Its taker failed before it put anything on a stream."""
    buffer = ring.take(10)
    ring.give(buffer)
    assert len(ring) == 1
    assert ring.take(10) is buffer
    assert len(ring) == 0


class Owner:
    def __init__(self, ordinal: int = 0) -> None:
        self.stream = own_stream(self, ordinal)


def test_an_owner_has_a_stream_alone_and_leaves_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that another library frees in the order of a stream may live longer than who asked for it."""
    standin.install(monkeypatch)
    monkeypatch.setattr(streams, "_idle", {})  # those of other tests' objects come back when these are collected
    first, second, elsewhere = Owner(), Owner(), Owner(1)
    assert first.stream is not second.stream
    assert (first.stream.device_id, elsewhere.stream.device_id) == (0, 1)
    left, handle = weakref.ref(first.stream), first.stream.ptr
    del first
    gc.collect()
    assert left() is not None, "the stream went with its owner"
    third = Owner()
    assert third.stream.ptr == handle
    assert Owner(1).stream is not elsewhere.stream


def test_the_stream_of_an_owner_in_a_circle_stays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    standin.install(monkeypatch)
    owner = Owner()
    owner.stream_of_itself = owner  # type: ignore[attr-defined]
    left = weakref.ref(owner.stream)
    del owner
    gc.collect()
    assert left() is not None
