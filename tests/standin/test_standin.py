"""The stand-in refuses what a GPU would do wrong in silence: races, host addresses, other devices' memory."""

from __future__ import annotations

import ast
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuseq.ops import dispatch as ops
from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.cuda import memory as device
from gpuseq.ops.cuda.resident import DeviceResident
from gpuseq.ops.options import AugmentOptions
from tests.cases import draw_params, images
from tests.standin import cupy as standin
from tests.standin import door, memory
from tests.standin.cupy import RaceError


@pytest.fixture
def cupy() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        import cupy

        yield cupy


def test_what_another_stream_wrote_is_waited_for(cupy: Any) -> None:
    writer, reader = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with writer:
        array = cupy.full(4, 1.0)
    with pytest.raises(RaceError, match="reads what a result on cuda:0, stream"), reader:
        array + 1
    with reader:
        reader.wait_event(writer.record())
        assert (array + 1).get().tolist() == [2.0] * 4


@pytest.mark.parametrize("how", ["stream", "event", "device", "get"])
def test_the_host_may_wait_for_it(cupy: Any, how: str) -> None:
    writer, reader = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with writer:
        array = cupy.full(4, 1.0)
        event = writer.record()
        assert not event.done
        assert not writer.done
        {"stream": writer, "event": event, "device": cupy.cuda.Device(), "get": SimpleNamespace(synchronize=array.get)}[
            how
        ].synchronize()
    assert event.done
    with reader:
        array + 1


def test_what_another_stream_reads_is_not_overwritten(cupy: Any) -> None:
    array = cupy.full(4, 1.0)
    cupy.cuda.get_current_stream().synchronize()
    other = cupy.cuda.Stream(non_blocking=True)
    with other:
        array + 1
    with pytest.raises(RaceError, match="overwrites what add"):
        array[...] = 2.0
    other.synchronize()
    array[...] = 2.0


def test_memory_that_goes_round_is_not_overwritten_under_a_reader(cupy: Any) -> None:
    array = cupy.full(4, 1.0)
    cupy.cuda.get_current_stream().synchronize()
    with cupy.cuda.Stream(non_blocking=True):
        array + 1
    address = array.data.ptr
    del array
    with pytest.raises(RaceError, match="overwrites"):
        assert cupy.full(4, 2.0).data.ptr == address


def test_the_default_stream_waits_for_blocking_streams_only(cupy: Any) -> None:
    for non_blocking in (False, True):
        with cupy.cuda.Stream(non_blocking=non_blocking):
            array = cupy.full(4, 1.0)
        if non_blocking:
            with pytest.raises(RaceError):
                array + 1
        else:
            array + 1


def test_a_pinned_buffer_is_not_rewritten_before_it_is_read(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(rows: np.ndarray) -> None:
        rows[...] = 1

    for _ in range(40):
        device.upload((3,), np.float64, fill)
    monkeypatch.setattr(cupy.cuda.Event, "synchronize", lambda event: None)
    with pytest.raises(RaceError, match="pinned buffer"):
        for _ in range(40):
            device.upload((3,), np.float64, fill)


def test_the_engine_is_refused_where_nothing_orders_it(cupy: Any) -> None:
    batch, params = images((2, 5, 5, 3)), draw_params(2, 5, 5)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        source = cupy.asarray(batch)
    with pytest.raises(RaceError, match="kernel augment"):
        ops.augment(source, params, AugmentOptions(has_channel_shift=False, has_brightness=False))
    stream.synchronize()
    ops.augment(source, params, AugmentOptions())


def test_a_kernel_gets_device_memory_only(cupy: Any) -> None:
    kernel = kernels.load("resample_pass", (("CHANNELS", "3"),))
    with pytest.raises(AssertionError, match="passes of resample_pass is a host array"):
        kernel.launch((1,), 32, (np.zeros(10, np.int64), 1))
    with cupy.cuda.Device(1):
        elsewhere = cupy.zeros(10, np.int64)
    with pytest.raises(ValueError, match="lies on cuda:1"):
        kernel.launch((1,), 32, (elsewhere, 1))


def test_the_current_device_belongs_to_a_thread(cupy: Any) -> None:
    import threading

    seen = []
    with cupy.cuda.Device(1):
        thread = threading.Thread(target=lambda: seen.append(cupy.cuda.Device().id))
        thread.start()
        thread.join()
    assert seen == [0]


def test_freed_memory_shows(cupy: Any) -> None:
    array = cupy.zeros(1000, np.uint8)
    block = array.data.mem.memory
    assert cupy.get_default_memory_pool().used_bytes() == 1024
    del array
    assert (block.bytes() == 0xDB).all()
    assert cupy.get_default_memory_pool().used_bytes() == 0
    assert cupy.get_default_memory_pool().free_bytes() == 1024


def test_no_array_of_numpys_is_let_in(cupy: Any) -> None:
    array = cupy.asarray(np.arange(3.0))
    for mix in (
        lambda: array + np.arange(3.0),
        lambda: cupy.stack([array, np.arange(3.0)]),
        lambda: np.asarray(array),
        lambda: np.mean(array),
    ):
        with pytest.raises(TypeError):
            mix()


# ---------------------------------------------------------------------------------------------------- aliases
def test_what_another_stream_wrote_is_waited_for_through_an_alias(cupy: Any) -> None:
    writer, reader = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with writer:
        alias = cupy.from_dlpack(cupy.full(4, 1.0))
    with pytest.raises(RaceError, match="reads what"), reader:
        alias + 1
    reader.wait_event(writer.record())
    with reader:
        assert (alias + 1).get().tolist() == [2.0] * 4


def test_what_is_read_through_an_alias_is_not_overwritten(cupy: Any) -> None:
    array = cupy.full(4, 1.0)
    alias = cupy.from_dlpack(array)[1:]
    cupy.cuda.get_current_stream().synchronize()
    other = cupy.cuda.Stream(non_blocking=True)
    with other:
        alias + 1
    with pytest.raises(RaceError, match="overwrites what add"):
        array[...] = 2.0
    other.synchronize()
    array[...] = 2.0
    assert alias.get().tolist() == [2.0] * 3


def test_what_is_written_through_an_alias_is_waited_for(cupy: Any) -> None:
    array = cupy.full(4, 1.0)
    alias = cupy.from_dlpack(array)
    cupy.cuda.get_current_stream().synchronize()
    with cupy.cuda.Stream(non_blocking=True):
        alias[...] = 3.0
    with pytest.raises(RaceError, match="reads what an assignment"):
        array + 1


def test_an_array_of_another_library_keeps_its_history_on_the_way_back(cupy: Any) -> None:
    """NumPy stands for it here: it holds the memory and knows nothing of streams."""
    array = cupy.full(4, 1.0)
    foreign = np.from_dlpack(array)
    with cupy.cuda.Stream(non_blocking=True), pytest.raises(RaceError, match="reads what"):
        cupy.from_dlpack(foreign) + 1
    assert (cupy.from_dlpack(foreign) + 1).get().tolist() == [2.0] * 4


def test_memory_is_not_handed_out_again_under_an_alias(cupy: Any) -> None:
    array = cupy.full(4, 1.0)
    alias, foreign, address = cupy.from_dlpack(array), np.from_dlpack(array), array.data.ptr
    del array
    assert cupy.full(4, 2.0).data.ptr != address
    del alias
    assert cupy.full(4, 2.0).data.ptr != address
    assert foreign.tolist() == [1.0] * 4
    del foreign
    assert cupy.full(4, 2.0).data.ptr == address


def test_a_hand_over_names_the_stream_that_goes_on(cupy: Any) -> None:
    """``__dlpack__(stream=)``: the one who takes it waits for the current stream of the one who gives."""
    giver, taker = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with giver:
        array = cupy.full(4, 1.0)
        array.__dlpack__(stream=-1)
    with taker, pytest.raises(RaceError):
        array + 1
    with giver:
        array.__dlpack__(stream=taker.ptr)
    with taker:
        array + 1


def test_memory_that_is_nobodys_alias_begins_anew(cupy: Any) -> None:
    with cupy.cuda.Stream(non_blocking=True):
        assert (cupy.from_dlpack(np.arange(3.0)) + 1).get().tolist() == [1.0, 2.0, 3.0]


def test_the_door_is_the_only_way_in() -> None:
    """No module of the stand-ins replaces anything of gpuseq by itself, so that a name which moves is found in one."""
    here = Path(__file__).parent
    files = [path for path in here.rglob("*.py") if not path.name.startswith("test_") and path.name != "door.py"]
    assert len(files) > 8
    for path in files:
        tree = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpuseq")
            for alias in node.names
        }
        targets = [
            ast.unparse(node.args[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr") and node.args
        ]
        assigned = [
            ast.unparse(target.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Attribute)
        ]
        assert not imported & {*targets, *assigned}, path.name


def test_each_place_of_the_door_is_there() -> None:
    for module, name in door.PLACES.values():
        assert hasattr(module, name), f"{module.__name__} has no {name}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("is_another_there", [False, True])
def test_a_block_that_outlives_the_stand_in_lets_go_of_it(is_another_there: bool) -> None:
    """Whichever test triggers the collection must not be the one that fails: nothing asks for CuPy then."""
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        import cupy

        block = DeviceResident(cupy.full((2, 4), 1.0))
        elsewhere = cupy.cuda.Stream(non_blocking=True)
        with elsewhere, block.reading() as array:
            copied = array + 1
        assert block._uses
    unraisable: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", unraisable.append)
        if is_another_there:
            standin.install(patch)
        else:
            patch.setitem(sys.modules, "cupy", None)  # an import of it raises
        gone = weakref.ref(block)
        del block, array, copied
        gc.collect()
        assert gone() is None
    assert [str(one.exc_value) for one in unraisable] == []


def test_memory_is_found_while_another_thread_takes_some() -> None:
    """Decoders' threads allocate while the caller's thread looks up what it was handed."""
    base = 1 << 60  # nothing is read there
    held = [memory.Memory(base + 64 * index, 32, 0, None) for index in range(2000)]
    ended = threading.Event()

    def allocate() -> None:
        num_made = 0
        while not ended.is_set():
            num_made += 1
            held.append(memory.Memory(base - 64 * num_made, 32, 0, None))
            if num_made % 50 == 0:
                del held[2000:]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other = threading.Thread(target=allocate)
    other.start()
    try:
        found = {memory.known_memory(base + 64 * 1999 + 31) for _ in range(300)}
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(interval)
    assert found == {held[1999]}
