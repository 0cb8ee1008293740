"""The ring of pinned buffers, with buffers and events that are none."""

from __future__ import annotations

from typing import Any

import pytest

from gpuseq.ops.cuda import memory as device


class FakeEvent:
    def __init__(self) -> None:
        self.done = True
        self.waited = 0

    def synchronize(self) -> None:
        self.waited += not self.done
        self.done = True


class FakeSlot:
    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.event = FakeEvent()


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(device, "_Slot", FakeSlot)
    return device._Ring(3)


def take_busy(ring: Any, num_bytes: int = 100) -> Any:
    """Take a slot and give it back with its copy still on the way."""
    slot = ring.take(num_bytes)
    slot.event.done = False
    ring.give(slot)
    return slot


def test_a_slot_that_was_read_is_used_again(ring: Any) -> None:
    slot = take_busy(ring)
    slot.event.done = True
    assert ring.take(100) is slot
    assert slot.event.waited == 0


def test_a_slot_in_flight_is_left_alone_while_there_may_be_another(ring: Any) -> None:
    slots = [take_busy(ring) for _ in range(3)]
    assert len(set(map(id, slots))) == 3
    assert all(slot.event.waited == 0 for slot in slots)


def test_with_all_in_flight_the_oldest_is_waited_for(ring: Any) -> None:
    slots = [take_busy(ring) for _ in range(3)]
    assert ring.take(100) is slots[0]
    assert [slot.event.waited for slot in slots] == [1, 0, 0]


def test_a_slot_that_is_too_small_gives_way_to_a_larger_one(ring: Any) -> None:
    slots = [take_busy(ring) for _ in range(3)]
    larger = ring.take(1 << 20)
    assert larger.num_bytes >= 1 << 20
    assert slots[0].event.waited == 1, "nobody may free a buffer that is still being read"
    ring.give(larger)
    assert [ring.take(1), ring.take(1)] == slots[1:]


def test_two_takers_never_share(ring: Any) -> None:
    first, second = ring.take(10), ring.take(10)
    assert first is not second
