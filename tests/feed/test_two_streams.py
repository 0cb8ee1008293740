"""Work on several streams: what stays on a device is read after it was written, and goes when it has been read.

The stand-in refuses what nothing puts in order, and hands a freed block to the next taker on its stream.
"""

from __future__ import annotations

import gc
import itertools
import pickle
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base.devices import on_device, place
from gpuseq.base.errors import DeviceError
from gpuseq.base.streams import PER_THREAD, made_here
from gpuseq.feed import tensors as streams
from gpuseq.feed.lookahead import to_device
from gpuseq.ops import dispatch as ops
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda.resident import DeviceResident
from gpuseq.ops.options import AugmentOptions, Statistics
from tests.cases import draw_params, images
from tests.iterators.test_on_standin import assert_equal_but_on_device, generator
from tests.parity import quiet
from tests.photos import write_tree
from tests.standin import cupy as standin
from tests.standin import torch as standin_torch
from tests.standin.cupy import RaceError
from tests.standin.streams import timeline

GEOMETRY = {"rotation_range": 25, "zoom_range": 0.3}
DATA = images((8, 9, 9, 3), "uint8")


@pytest.fixture(autouse=True)
def cupy() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        import cupy

        yield cupy


@pytest.fixture
def side(cupy: Any) -> Any:
    return cupy.cuda.Stream(non_blocking=True)


def flows(**arguments: Any) -> list[Any]:
    """Return the same flow on the CPU and on a device."""
    with quiet():
        return [generator(name, **GEOMETRY).flow(DATA, **{"batch_size": 4, "seed": 1, **arguments}) for name in CPU_GPU]


CPU_GPU = ("cpu", "cuda:0")


@pytest.mark.parametrize(
    "arguments", [{}, {"masks": DATA[..., 0]}, {"memory_limit": 100}], ids=["kept", "masks", "not kept"]
)
def test_an_array_is_read_on_another_stream_than_it_came_up_on(side: Any, arguments: dict[str, Any]) -> None:
    host, device = flows(**arguments)
    with side:
        for _ in range(3):
            assert_equal_but_on_device(next(device), next(host), atol=1e-4)
    assert_equal_but_on_device(next(device), next(host), atol=1e-4)


def test_an_array_of_the_users_is_read_on_another_stream(cupy: Any, side: Any) -> None:
    flow = generator("cuda:0", **GEOMETRY).flow(cupy.asarray(DATA), batch_size=4, seed=1)
    with side:
        got = next(flow)
        assert_equal_but_on_device(got, next(flows()[0]), atol=1e-4)


def test_torchs_stream(side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    standin_torch.install(monkeypatch)
    from gpuseq.torch import loader

    host, device = flows(y=np.arange(8))
    with torch.cuda.stream(torch.cuda.Stream()):
        for (got, _), (wanted, _) in zip(loader(device), loader(host), strict=True):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=0, atol=1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    tree = write_tree(tmp_path / "tree")

    def make(device: str, **options: Any) -> Any:
        with quiet():
            flow = generator(device, **GEOMETRY).flow_from_directory(
                tree, target_size=(10, 10), batch_size=4, seed=2, verbose=False, prefetch=0, **options
            )
        flow.set_epoch(0)
        return flow

    return make


@pytest.mark.parametrize("memory_limit", [None, 900], ids=["room", "some room"])
def test_a_cache_is_filled_and_read_on_streams_in_turn(cupy: Any, folder: Any, memory_limit: int | None) -> None:
    host, device = folder("cpu"), folder("cuda:0", cache="device", memory_limit=memory_limit)
    turn = [cupy.cuda.Stream.null, *(cupy.cuda.Stream(non_blocking=True) for _ in range(2))]
    made = []
    for epoch, index in itertools.product(range(3), range(len(host))):
        with turn[(epoch + index) % 3] as stream:
            made.append((stream, device.replay(device.plan_batch(index)), host.replay(host.plan_batch(index))))
    for stream, got, wanted in made:  # until now nothing waited
        with stream:
            assert_equal_but_on_device(got, wanted, atol=1e-4)


def test_a_file_that_changed_is_decoded_again_under_another_streams_eyes(cupy: Any, folder: Any) -> None:
    import os

    host, device = folder("cpu"), folder("cuda:0", cache="device")
    plan = host.plan_batch(0)
    for number in range(6):
        for path in host.filepaths:
            os.utime(path, (number // 2, number // 2))
        device.replay(plan)  # nothing waits for it
        with cupy.cuda.Stream(non_blocking=True):
            device.replay(plan)
    assert_equal_but_on_device(device.replay(plan), host.replay(plan), atol=1e-4)


def test_a_file_that_changes_while_its_image_is_about_to_be_read(cupy: Any, folder: Any) -> None:
    """The reader has its rows, and has put nothing on its stream: it gets the image that it asked for."""
    import os

    device = folder("cuda:0", cache="device")
    plan, source = device.plan_batch(0), device._source
    device.replay(plan)
    old = source.fetch(plan.indices)
    rewritten = Path(device.filepaths[plan.indices[0]])
    rewritten.write_bytes(Path(device.filepaths[plan.indices[1]]).read_bytes())
    os.utime(rewritten, (1, 1))
    with cupy.cuda.Stream(non_blocking=True):
        new = source.fetch(plan.indices)
        with new.reading() as block:
            pixels = block if new.rows is None else block[new.rows]
            np.testing.assert_array_equal(pixels[0].get(), pixels[1].get())
    with cupy.cuda.Stream(non_blocking=True), old.reading() as block:
        pixels = block[old.rows]
        assert (pixels[0].get() != pixels[1].get()).any()


@pytest.mark.parametrize("writer", ["home", "another"])
def test_a_slot_is_used_again_after_its_last_readers_on_other_streams(
    cupy: Any, side: Any, folder: Any, writer: str
) -> None:
    import os

    host, device = folder("cpu"), folder("cuda:0", cache="device")
    everything = [device.plan_batch(index) for index in range(len(host))]
    for plan in everything:
        device.replay(plan)
    readers = [side, cupy.cuda.Stream.null]
    for stream in readers:
        with stream:
            for plan in everything:
                device.replay(plan)  # nothing waits for it
    for path in host.filepaths:
        os.utime(path, (1, 1))
    with cupy.cuda.Stream.null if writer == "home" else cupy.cuda.Stream(non_blocking=True):
        for plan in everything * 2:  # the first time no slot is free
            got = device.replay(plan)
        assert device._source.cache.num_kept(np.arange(len(host.filepaths))) == len(host.filepaths)
        assert_equal_but_on_device(got, host.replay(everything[-1]), atol=1e-4)


@pytest.mark.parametrize("num_turns", [1, 3])
def test_files_that_change_again_and_again_keep_to_their_block(cupy: Any, folder: Any, num_turns: int) -> None:
    """Slots are used again, on whatever stream, after whoever read them; at rest, all is kept once more."""
    import os

    host, device = folder("cpu"), folder("cuda:0", cache="device")
    cache = device._source.cache
    turn = [cupy.cuda.Stream.null, *(cupy.cuda.Stream(non_blocking=True) for _ in range(2))][:num_turns]
    held = None
    for number in range(9):
        for path in host.filepaths[:: 1 + number % 2]:
            os.utime(path, (number, number))
        for index in range(len(host)):
            with turn[(number + index) % num_turns]:
                device.replay(device.plan_batch(index))  # nothing waits for it
                held = device._source.fetch(device.plan_batch(index).indices) if number % 3 else None
        assert cache.used <= cache.capacity == len(host.filepaths)
    del held
    for _ in range(3):
        for index in range(len(host)):
            got, wanted = device.replay(device.plan_batch(index)), host.replay(host.plan_batch(index))
            assert_equal_but_on_device(got, wanted, atol=1e-4)
    assert cache.num_kept(np.arange(len(host.filepaths))) == len(host.filepaths)


@pytest.mark.parametrize("cache", [None, "device"])
def test_answers_for_bad_files_on_streams_in_turn(cupy: Any, folder: Any, cache: str | None) -> None:
    answer = {"on_error": lambda path, error: np.full((10, 10, 3), 9, np.uint8)}
    host, device = folder("cpu", **answer), folder("cuda:0", cache=cache, **answer)
    Path(host.filepaths[host.plan_batch(0).indices[1]]).write_bytes(b"")
    plan = host.plan_batch(0)
    for _ in range(3):
        with cupy.cuda.Stream(non_blocking=True):
            device.replay(plan)
    with cupy.cuda.Stream(non_blocking=True):
        got = device.replay(plan)
        assert_equal_but_on_device(got, host.replay(plan), atol=1e-4)
    assert device.bad_files


def test_what_another_stream_reads_is_not_handed_on_before(cupy: Any, side: Any) -> None:
    made = generator("cuda:0", **GEOMETRY)
    flow = made.flow(DATA, batch_size=4, seed=1)
    cupy.cuda.Device(0).synchronize()
    address = flow.x.data.ptr
    with side:
        got = next(flow)
    del flow
    gc.collect()
    again = made.flow(255 - DATA, batch_size=4, seed=1)
    assert again.x.data.ptr == address, "the pool hands the block on"
    with side:
        assert_equal_but_on_device(got, next(flows()[0]), atol=1e-4)


def test_a_cache_that_another_stream_writes_is_not_handed_on_before(cupy: Any, side: Any, folder: Any) -> None:
    flow = folder("cuda:0", cache="device")
    with side:
        next(flow)
    address = flow._source.cache.block.data.ptr
    flow.close()
    del flow
    gc.collect()
    assert folder("cuda:0", cache="device")._source.cache.block.data.ptr == address
    next(folder("cuda:0", cache="device"))


def test_the_stream_that_it_was_made_on_pays_nothing(
    cupy: Any, side: Any, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event and no wait from batch to batch; another stream waits once, and the host never."""
    flow = generator("cuda:0", **GEOMETRY).flow(DATA, masks=DATA[..., 0], batch_size=4, seed=1)
    cached = folder("cuda:0", cache="device")
    for _ in range(len(cached)):
        next(cached)
    calls: list[str] = []
    for kind, name in ((cupy.cuda.Stream, "wait_event"), (cupy.cuda.Event, "__init__")):
        whole = getattr(kind, name)

        def counted(self: Any, *arguments: Any, whole: Any = whole, name: str = name, **options: Any) -> Any:
            calls.append(name)
            return whole(self, *arguments, **options)

        monkeypatch.setattr(kind, name, counted)
    resident = (flow._source.resident, flow._masks.sources[0].resident, cached._source.cache.resident)
    for one in resident:
        for _ in range(3):
            with one.reading():
                pass
    assert calls == []

    def refuse(*_: Any) -> None:
        raise AssertionError("the host waits")

    monkeypatch.setattr(cupy.cuda.Event, "synchronize", refuse)
    monkeypatch.setattr(cupy.cuda.Stream, "synchronize", refuse)
    with side:
        for one in resident:
            for _ in range(3):
                with one.reading():
                    pass
    assert calls.count("wait_event") == len(resident)


ROW = np.array([0])


def test_who_appends_waits_for_no_reader(cupy: Any, side: Any) -> None:
    """Neither for one that is about to put its work on a stream, nor for what it has put there."""
    resident = DeviceResident(cupy.full((2, 4), 1.0))
    with resident.appending() as array:
        array[ROW] = cupy.full((1, 4), 1.0)
    inside, may_read, seen = threading.Event(), threading.Event(), []

    def read() -> None:
        with side, resident.reading() as array:
            inside.set()
            assert may_read.wait(120)
            seen.append(array[ROW] + 1)

    reader = threading.Thread(target=read)
    reader.start()
    assert inside.wait(120)
    with resident.appending() as array:
        array[ROW + 1] = cupy.full((1, 4), 5.0)  # another row
    may_read.set()
    reader.join()
    assert seen[0].shape == (1, 4)
    third = cupy.cuda.Stream(non_blocking=True)
    with third, resident.reading() as array:
        assert array[ROW].get().tolist() == [[1.0] * 4]
        assert array[ROW + 1].get().tolist() == [[5.0] * 4]


def test_a_row_that_somebody_reads_is_not_appended(cupy: Any, side: Any) -> None:
    """Else the test above would prove nothing."""
    resident = DeviceResident(cupy.full((2, 4), 1.0))
    with resident.appending() as array:
        array[ROW] = cupy.full((1, 4), 1.0)
    with side, resident.reading() as array:
        array[ROW] + 1
    with resident.appending() as array, pytest.raises(RaceError, match="an assignment on cuda:0, the default stream"):
        array[ROW] = cupy.full((1, 4), 5.0)


def test_what_nobody_will_read_is_overwritten_when_it_has_been_read_on_any_stream(cupy: Any, side: Any) -> None:
    third = cupy.cuda.Stream(non_blocking=True)
    resident = DeviceResident(cupy.full(4, 0.0))
    for number, stream in enumerate((side, third, cupy.cuda.Stream.null, side, cupy.cuda.Stream.null), 1):
        with stream, resident.overwriting() as array:
            array[...] = float(number)
    for reader in (third, cupy.cuda.Stream.null):
        with reader, resident.reading() as array:
            array + 1  # nothing waits for it
        with side, resident.overwriting() as array:
            array[...] = 6.0
    with third, resident.reading() as array:
        assert array.get().tolist() == [6.0] * 4


@pytest.mark.parametrize("how", ["reading", "appending", "overwriting"])
def test_it_goes_when_the_last_one_has_left(cupy: Any, side: Any, how: str) -> None:
    resident = DeviceResident(cupy.full(4, 0.0))
    cupy.cuda.Device(0).synchronize()
    address = resident.array.data.ptr
    with side, getattr(resident, how)() as array:
        array[...] = 1.0
    del array, resident
    assert cupy.full(4, 2.0).data.ptr == address


def test_it_can_be_pickled(cupy: Any, side: Any) -> None:
    with side:
        resident = DeviceResident(cupy.full(4, 1.0))
    copy = pickle.loads(pickle.dumps(resident))
    with copy.reading() as array:
        assert array.get().tolist() == [1.0] * 4


def test_what_is_kept_for_a_stream_is_for_that_stream(cupy: Any) -> None:
    """Means, and the tables of the resize: the copy that brought them up is on the stream that reads them."""
    statistics = Statistics(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
    options = AugmentOptions(featurewise_center=True, featurewise_std=True)
    params = draw_params(2, 9, 9)
    source = cupy.asarray(DATA[:2])
    cupy.cuda.Device(0).synchronize()
    turn = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    made = []
    for stream in turn:  # nothing waits for the first one's copies
        with stream:
            got = ops.augment(source, params, options, statistics=statistics)
            made.append((got, ops.resize([source[0], source[1]], (5, 4), "bilinear")))
    wanted = ops.augment(DATA[:2], params, options, statistics=statistics)
    for stream, (got, resized) in zip(turn, made, strict=True):
        with stream:
            np.testing.assert_allclose(got.get(), wanted, rtol=0, atol=1e-3)
            np.testing.assert_array_equal(resized.get(), ops.resize(list(DATA[:2]), (5, 4), "bilinear"))
    assert len(ops_cuda._constants_of[statistics]) == 2


def test_memory_is_lent_to_jax_until_its_copy_is_made(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax")

    class Copy:
        ready = False

        def is_ready(self) -> bool:
            return self.ready

    copies: list[Copy] = []

    def copied(alias: Any) -> tuple[object, Copy]:
        copies.append(Copy())
        return object(), copies[-1]

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.dlpack, "from_dlpack", lambda array: object())
    monkeypatch.setattr(streams, "_copying", lambda: copied)
    monkeypatch.setattr(streams, "_lent", type(streams._lent)())
    used = cupy.get_default_memory_pool().used_bytes
    before = used()
    for _ in range(3):
        streams.jax_array(cupy.full(128, 1.0, np.float32))
    assert used() == before + 3 * 512, "each batch is still being copied"
    copies[0].ready = copies[1].ready = True
    streams.jax_array(cupy.full(128, 1.0, np.float32))
    assert used() == before + 2 * 512, "two are copied, two are not"


def test_a_batch_may_be_donated_to_a_jitted_step(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is deleted with it, and whoever asks JAX for its state then ends the process."""
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.dlpack, "from_dlpack", lambda array: jax.device_put(array.get()))
    asked: list[Any] = []

    class Lent(deque):  # type: ignore[type-arg]
        def append(self, entry: Any) -> None:
            asked.append(entry[-1])
            super().append(entry)

    monkeypatch.setattr(streams, "_lent", Lent())
    for number in range(4):
        batch = streams.jax_array(cupy.full(128, float(number), np.float32))
        assert batch.dtype == np.float32
        assert (np.asarray(batch) == number).all()
        batch.delete()  # as ``jax.jit(step, donate_argnums=0)(batch)`` does where it can use the memory
    assert not any(mark.is_deleted() for mark in asked)


def test_a_tensor_of_torchs_has_the_arrays_order(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    standin_torch.install(monkeypatch)
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    with streams.torch_memory("cuda:0") as blocks:
        array = cupy.asarray(host)
        for view in (array, array.T, array[1:], array[:, 1:]):
            np.testing.assert_array_equal(streams.torch_tensor(view, blocks).numpy(), view.get())


def test_no_room_in_torchs_memory_is_said_as_of_cupys(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    standin_torch.install(monkeypatch)

    def full(*shape: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    said = r"cuda:0 has no room for 0\.30 GB: .* GB are free\. Pass a smaller memory_limit or batch_size"
    array = cupy.asarray(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", full)
        with streams.torch_memory("cuda:0"):
            with pytest.raises(DeviceError, match=said):
                ops.empty((300, 1000, 1000), "uint8", "cuda:0")
            with pytest.raises(DeviceError, match="cuda:0 has no room"):
                ops.augment(array, draw_params(8, 9, 9), AugmentOptions())
    with streams.torch_memory("cuda:0"):
        assert ops.empty((3,), "uint8", "cuda:0").shape == (3,)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "cpu"])
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_of_a_threads_stream_is_not_written_to_under_the_callers_eyes(
    cupy: Any, side: Any, workers: int, device: str
) -> None:
    """And on a GPU no thread of the host waits for it."""

    class Counted(gpuseq.Sequence):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            if workers:
                side.use()
            return cupy.full(4, float(index))

    read, before = [], timeline().num_waits
    for batch in to_device(Counted(), prefetch=1, workers=workers, device=device):
        with on_device(device):
            read.append(batch + 1)  # nothing waits for it, and the batch goes
        del batch
    assert timeline().num_waits == before + (12 if device == "cpu" else 0)
    assert [place(array, "cpu").tolist() for array in read] == [[index + 1.0] * 4 for index in range(12)]


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "cpu"])
def test_where_each_thread_has_a_default_stream_of_its_own_the_host_waits(cupy: Any, device: str) -> None:
    """CUPY_CUDA_PER_THREAD_DEFAULT_STREAM: two streams of one number, of which neither thread can name the other's."""

    class OfAThread:
        def __init__(self, number: int) -> None:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.ptr = PER_THREAD

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    mine, others = OfAThread(1), OfAThread(2)
    with others.stream:
        array = cupy.full(4, 1.0)
        before = timeline().num_waits
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cupy.cuda, "get_current_stream", lambda device=-1: others)
            made = made_here(cupy.cuda.Device(0))
    assert timeline().num_waits == before + 1
    with mine.stream if device == "cuda:0" else on_device(device):
        assert (place(place(array, device, made) + 1, "cpu") == 2.0).all()


@pytest.mark.parametrize("what", ["reads what was written", "keeps means and tables"])
def test_threads_with_default_streams_of_their_own_share_what_stays(
    what: str, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, for what is kept on a device: the number of a stream says nothing about its order."""
    current = cupy.cuda.get_current_stream

    class OfAThread:
        ptr = PER_THREAD

        def __init__(self) -> None:
            self.stream = current()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda device=-1: OfAThread())
    statistics = Statistics(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
    options = AugmentOptions(featurewise_center=True, featurewise_std=True)
    kept: list[Any] = []

    def first() -> None:
        with cupy.cuda.Stream(non_blocking=True):
            kept.append(DeviceResident(cupy.asarray(DATA)))
            ops.standardize(kept[0].array, options, statistics)

    def second() -> None:
        with cupy.cuda.Stream(non_blocking=True):
            if what == "reads what was written":
                with kept[0].reading() as array:
                    kept.append((array + 1).get())
            else:
                got = ops.standardize(cupy.asarray(DATA), options, statistics).get()
                np.testing.assert_allclose(got, ops.standardize(DATA, options, statistics), rtol=0, atol=1e-5)

    errors: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    for work in (first, second):
        thread = threading.Thread(target=run, args=(work,))
        thread.start()
        thread.join()
    assert errors == []


def test_the_stand_in_would_have_refused(cupy: Any, side: Any) -> None:
    """What the tests above rest on."""
    array = cupy.asarray(DATA)
    with side, pytest.raises(RaceError, match="reads what an upload"):
        ops.augment(array, draw_params(8, 9, 9), AugmentOptions())
