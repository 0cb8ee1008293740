"""Streams, devices and memory on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuseq import ImageDataGenerator
from gpuseq.ops import dispatch as ops
from gpuseq.ops.cuda import memory as device
from gpuseq.ops.options import AugmentOptions
from tests.cases import draw_params, images
from tests.compare import assert_same
from tests.standin.rehearsal import scaled

pytestmark = pytest.mark.gpu

OPTIONS = AugmentOptions(rescale=1 / 255, samplewise_center=True, data_format="channels_first")


def inputs(num_samples: int = scaled(16, 2), side: int = scaled(64, 9)) -> tuple[np.ndarray, np.ndarray]:
    shape = (num_samples, side, side, 3)
    return images(shape), draw_params(num_samples, side, side, colour=True)


def test_memory_does_not_grow_over_two_thousand_batches() -> None:
    import cupy

    batch, params = inputs()
    source = cupy.asarray(batch)
    pool = cupy.get_default_memory_pool()
    for _ in range(50):
        ops.augment(source, params, OPTIONS)
    cupy.cuda.get_current_stream().synchronize()
    before = pool.total_bytes(), len(device._rings[cupy.cuda.Device().id, False]._buffers)
    for _ in range(scaled(2000, 100)):
        ops.augment(source, params, OPTIONS)
    cupy.cuda.get_current_stream().synchronize()
    after = pool.total_bytes(), len(device._rings[cupy.cuda.Device().id, False]._buffers)
    assert after[0] == before[0]
    assert after[1] <= device.MAX_BUFFERS


def test_the_current_stream_is_used_and_the_host_does_not_wait() -> None:
    """While the stream is held up by a host function, the call has to come back, and its result has to wait."""
    import threading

    import cupy

    batch, params = inputs()
    source = cupy.asarray(batch)
    wanted = ops.augment(batch, params, OPTIONS)
    ops.augment(source, params, OPTIONS)  # compiled, buffers made
    stream, gate = cupy.cuda.Stream(non_blocking=True), threading.Event()
    cupy.cuda.get_current_stream().synchronize()
    with stream:
        ops.augment(source, params, OPTIONS)
        stream.synchronize()
        stream.launch_host_func(lambda _: gate.wait(20), None)
        got = ops.augment(source, params, OPTIONS)
        assert not stream.done
        gate.set()
        stream.synchronize()
    assert_same(got, wanted, where="cupy:0", atol=2e-5)


def test_pinned_buffers_are_not_rewritten_before_they_are_read() -> None:
    """Many batches with parameters of their own, enqueued faster than they run, each on its own numbers."""
    import cupy

    side = scaled(128, 9)
    batch, _ = inputs(8, side)
    source = cupy.asarray(batch)
    options = replace(OPTIONS, samplewise_center=False)
    drawn = [draw_params(8, side, side, seed=seed, colour=True) for seed in range(64)]
    got = [ops.augment(source, params, options) for params in drawn]
    for params, result in zip(drawn, got, strict=True):
        assert_same(result, ops.augment(batch, params, options), where="cupy:0")


def test_two_streams_at_once() -> None:
    import cupy

    batch, params = inputs()
    source = cupy.asarray(batch)
    wanted = ops.augment(batch, params, OPTIONS)
    cupy.cuda.get_current_stream().synchronize()
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
    got: list[Any] = []
    for turn in range(30):
        with streams[turn % 3]:
            got.append(ops.augment(source, params, OPTIONS))
    for stream in streams:
        stream.synchronize()
    for result in got:
        assert_same(result, wanted, where="cupy:0", atol=2e-5)


def test_what_stays_on_the_device_is_read_in_order_and_let_go_of_in_order() -> None:
    """Uploaded on one stream, read on another that is held up, dropped, and its memory taken again."""
    import gc
    import time

    import cupy

    batch, _ = inputs(scaled(64, 4), scaled(256, 9))
    made = ImageDataGenerator(rescale=1 / 255, device="cuda")
    side = cupy.cuda.Stream(non_blocking=True)
    cupy.get_default_memory_pool().free_all_blocks()
    for turn in range(scaled(10, 3)):
        data = batch ^ np.uint8(turn)
        flow = made.flow(data, masks=data[..., 0], batch_size=len(data), shuffle=False)
        with side:
            side.launch_host_func(lambda _: time.sleep(0.05), None)
            got = next(flow)
        del flow
        gc.collect()
        again = made.flow(255 - data, masks=255 - data[..., 0], batch_size=len(data), shuffle=False)
        with side:
            assert_same(got[0], data.astype(np.float32) / 255, where="cupy:0", atol=1e-6)
            assert_same(got[1], data[..., :1], where="cupy:0")
        assert_same(next(again)[1], 255 - data[..., :1], where="cupy:0")


def test_a_large_array_goes_up_in_chunks() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (scaled(200, 3), 1 << 20, 1, 1), dtype=np.uint8)
    rows = rng.permutation(len(data))
    assert_same(ops.upload(data, "cuda:0"), data, where="cupy:0")
    assert_same(ops.upload(data, "cuda:0", rows), data[rows], where="cupy:0")


def test_rows_that_there_are_not_are_refused() -> None:
    import cupy

    batch, params = inputs()
    for row in (len(batch), -len(batch) - 1):
        with pytest.raises(IndexError, match="out of bounds"):
            ops.augment(cupy.asarray(batch), params[:1], OPTIONS, indices=np.array([row]))


def test_a_second_device_works_with_the_first_one_current() -> None:
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one device only")
    batch, params = inputs()
    wanted = ops.augment(batch, params, OPTIONS)
    with cupy.cuda.Device(1):
        source = cupy.asarray(batch)
        got = ops.augment(source, params, OPTIONS)
        resized = ops.resize([source[0], source[1]], (20, 30), "bilinear")
    assert cupy.cuda.Device().id == 0
    assert_same(got, wanted, where="cupy:1", atol=2e-5)
    assert_same(resized, ops.resize([batch[0], batch[1]], (20, 30), "bilinear"), where="cupy:1")


def test_a_batch_larger_than_two_to_the_31_values() -> None:
    """64-bit positions: the last sample of 2.2e9 values is the right one."""
    import cupy

    num_samples, side = 46_000, 224
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < 6 * num_samples * side * side:
        pytest.skip("not enough memory")
    rng = np.random.default_rng(0)
    source = cupy.asarray(rng.integers(0, 256, (4, side, side, 1), dtype=np.uint8))
    params = draw_params(num_samples, side, side)
    options = AugmentOptions(dtype="uint8", has_channel_shift=False, has_brightness=False)
    indices = np.arange(num_samples) % 4
    got = ops.augment(source, params, options, indices=indices)
    wanted = ops.augment(source.get()[indices[-2:]], params[-2:], options)
    assert_same(got[-2:], wanted, where="cupy:0")
