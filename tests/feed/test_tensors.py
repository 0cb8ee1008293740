"""The hand-over: on the host by pointers and flags; on a GPU, where there is one, under stress."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuseq import DeviceError, ImageDataGenerator
from gpuseq.feed import tensors as streams
from gpuseq.feed.lookahead import to_device
from gpuseq.feed.tensors import cupy_view, host_array, torch_memory, torch_tensor
from tests.standin.rehearsal import scaled

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", "int32", "int64", "bool"])
def test_host_tensors_share_memory(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    with torch_memory("cpu") as blocks:
        tensor = torch_tensor(array, blocks)
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.dtype == getattr(torch, dtype)
    assert np.array_equal(tensor.numpy(), array)
    assert cupy_view(tensor).ctypes.data == array.ctypes.data
    assert host_array(array) is array


@pytest.mark.parametrize("kind", ["read only", "reversed", "transposed"])
def test_what_torch_cannot_alias_is_copied(kind: str) -> None:
    array = np.arange(12.0).reshape(3, 4)
    array = {"read only": array, "reversed": array[::-1], "transposed": array.T}[kind]
    array.flags.writeable = kind != "read only"
    tensor = torch_tensor(array, {})
    assert np.array_equal(tensor.numpy(), array)
    tensor.zero_()
    assert array.any()


@pytest.mark.parametrize("dtype", [">i4", ">f4", "<u2", ">u2"])
def test_bytes_in_the_other_order_are_turned(dtype: str) -> None:
    """As IDX and FITS files hold their labels. No framework has such tensors."""
    array = np.arange(12).reshape(3, 4).astype(dtype)
    tensor = torch_tensor(array, {})
    assert tensor.dtype == getattr(torch, np.dtype(dtype).newbyteorder("=").name)
    assert np.array_equal(tensor.numpy(), array)
    pytest.importorskip("jax")
    assert np.array_equal(streams.jax_array(array), array)


def test_a_framework_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cupy")
    pytest.importorskip("jax")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r'cuda:0.*cannot use CUDA.*device="cpu"'), torch_memory("cuda:0"):
        pass
    monkeypatch.setattr(streams, "is_cupy", lambda array: True)
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(DeviceError, match=r"cuda:3.*JAX runs on 'cpu'.*jax\[cuda13\]"):
        streams.jax_array(SimpleNamespace(device=SimpleNamespace(id=3)))


def test_a_tensor_of_torchs_memory_is_a_view_of_its_block() -> None:
    """What `torch_memory` allocates comes back as the block itself, not as an import: the arithmetic, on the host."""
    block = torch.arange(64, dtype=torch.uint8)
    array = SimpleNamespace(
        data=SimpleNamespace(mem=SimpleNamespace(ptr=block.data_ptr()), ptr=block.data_ptr() + 16),
        flags=SimpleNamespace(c_contiguous=True),
        nbytes=24,
        dtype=np.dtype(np.float32),
        shape=(2, 3),
    )
    tensor = torch_tensor(array, {block.data_ptr(): block})
    assert tensor.data_ptr() == block.data_ptr() + 16
    assert (tuple(tensor.shape), tensor.dtype) == ((2, 3), torch.float32)
    assert np.array_equal(tensor.numpy().view(np.uint8).reshape(-1), np.arange(16, 40))


# On a GPU; without one, in a rehearsal (`tests.standin.rehearsal`).

NUM_BATCHES = scaled(200, 12)
SIDE, BATCH = scaled(96, 4), 32
CANARY = 123.0


def canary_flow(device: str = "cuda") -> Any:
    """Batches whose every value is the sample's number: a torn or overwritten batch cannot hide."""
    numbers = np.arange(8.0 * BATCH)
    images = np.ones((len(numbers), SIDE, SIDE, 3), np.float32) * numbers.astype(np.float32).reshape(-1, 1, 1, 1)
    return ImageDataGenerator(rotation_range=10, device=device).flow(images, numbers, batch_size=BATCH, seed=1)


def torn(x: Any, y: Any) -> Any:
    """Count the values that are not their sample's number, on the device; interpolation may round."""
    return (abs(x - y.reshape(-1, 1, 1, 1)) > 0.01).sum()


def test_the_canary_is_quiet_on_the_host() -> None:
    flow = canary_flow("cpu")
    x, y = next(flow)
    assert int(torn(x, y)) == 0
    x[3, 2, 1, 1] = CANARY + 200
    assert int(torn(x, y)) == 1


def torch_batches(flow: Any) -> Any:
    from gpuseq.torch import loader

    batches = loader(flow)
    while True:
        yield from batches


@pytest.mark.gpu
@pytest.mark.parametrize("slow", ["consumer", "producer", "neither"])
@pytest.mark.parametrize("own_stream", [False, True])
def test_torch_stress(slow: str, own_stream: bool) -> None:
    """The consumer checks each batch late, on its own stream, while blocks are freed, recycled and overwritten."""
    assert torch.cuda.is_available(), "a GPU is there, but torch cannot use it"
    stream = torch.cuda.Stream() if own_stream else torch.cuda.current_stream()
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    with torch.cuda.stream(stream):
        for _, (x, y) in zip(range(NUM_BATCHES), torch_batches(canary_flow()), strict=False):
            assert x.is_cuda
            assert x.data_ptr() % 256 == 0
            assert x.is_contiguous()
            if slow == "consumer":
                torch.cuda._sleep(2_000_000)
            if slow == "producer":
                time.sleep(0.002)
            wrong += torn(x, y)
            del x
            # Whatever was freed too early is overwritten here.
            torch.full((BATCH, SIDE, SIDE, 3), CANARY, device="cuda")
    torch.cuda.synchronize()
    assert int(wrong) == 0


@pytest.mark.gpu
def test_torch_memory_is_torchs() -> None:
    """record_stream works on what the loader hands over, and nothing of a batch stays in CuPy's pool."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    batches = torch_batches(canary_flow())
    x, y = next(batches)
    used = cupy.get_default_memory_pool().used_bytes()
    for _ in range(20):
        x, y = next(batches)
    assert cupy.get_default_memory_pool().used_bytes() <= used
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)
        late = torn(x, y)
    x.record_stream(side)
    y.record_stream(side)
    del x, y
    for _ in range(20):
        torch.full((BATCH, SIDE, SIDE, 3), CANARY, device="cuda")
    torch.cuda.synchronize()
    assert int(late) == 0


@pytest.mark.gpu
def test_device_batches_equal_host_batches() -> None:
    from gpuseq.torch import loader

    on_device, on_host = canary_flow(), canary_flow("cpu")
    for (x, y), (wanted_x, wanted_y) in zip(loader(on_device), loader(on_host), strict=True):
        assert torch.allclose(x.cpu(), wanted_x, atol=1e-4)
        assert torch.equal(y.cpu(), wanted_y)


@pytest.mark.gpu
def test_threads_of_to_device() -> None:
    """Batches made on the streams of several threads are whole when they are handed over."""
    import cupy

    flow = canary_flow()
    wrong = 0
    for _ in range(scaled(5, 1)):
        for x, y in to_device(flow, 2, 4):
            wrong += int(torn(x, y))
            del x
            cupy.full((BATCH, SIDE, SIDE, 3), CANARY)
    assert wrong == 0


@pytest.mark.gpu
def test_several_threads_on_streams_of_their_own() -> None:
    import cupy

    flow = canary_flow()
    cupy.cuda.Device().synchronize()  # the images are there before any other stream reads them
    problems: list[str] = []

    def consume(thread: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for step in range(scaled(40, 4)):
                with torch_memory("cuda:0") as blocks:
                    batch = flow.replay(flow.plan_batch((step + thread) % 8, epoch=0))
                    x, y = (torch_tensor(part, blocks) for part in batch)
                if int(torn(x, y)):
                    problems.append(f"thread {thread}, step {step}")
        cupy.cuda.get_current_stream().synchronize()

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


JAX_STRESS = """
import json
import jax, jax.numpy as jnp
from tests.standin import process, rehearsal
if process.ENABLED:
    process.install()
    jax.default_backend = lambda: "gpu"
import cupy
from gpuseq.jax import loader
from tests.feed.test_tensors import BATCH, SIDE, canary_flow
if jax.default_backend() != "gpu":
    print(json.dumps(f"JAX {jax.__version__} runs on {jax.default_backend()!r} here"))
    raise SystemExit
count = jax.jit(lambda x, y: (abs(x - y.reshape(-1, 1, 1, 1)) > 0.01).sum())
slow = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda i, a: jnp.sin(a @ a.T)[:, : a.shape[1]], x))
batches, wrong, filler = loader(canary_flow()), [], jnp.ones((rehearsal.scaled(2048, 8),) * 2)
for epoch in range(rehearsal.scaled(20, 2)):
    for x, y in batches:
        filler = slow(filler)
        wrong.append(count(x, y))
        del x, y
        cupy.full((BATCH, SIDE, SIDE, 3), 123.0, "float32")
print(json.dumps({"batches": len(wrong), "wrong": int(sum(int(item) for item in wrong))}))
"""


@pytest.mark.gpu
def test_jax_stress(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """CuPy's pool hands the memory of a batch out again while JAX still computes on what it was given."""
    pytest.importorskip("jax")
    done = run_script(JAX_STRESS, XLA_PYTHON_CLIENT_PREALLOCATE="false")
    said = json.loads(done.stdout.splitlines()[-1])
    if isinstance(said, str):
        pytest.skip(said)
    assert said == {"batches": 8 * scaled(20, 2), "wrong": 0}


@pytest.mark.gpu
def test_a_loader_survives_many_epochs_in_bounded_memory() -> None:
    flow = canary_flow()
    batches = torch_batches(flow)
    for _ in range(8):
        next(batches)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(scaled(80, 8)):
        next(batches)
    torch.cuda.synchronize()
    batch_bytes = BATCH * SIDE * SIDE * 3 * 4
    assert torch.cuda.max_memory_allocated() - before <= 6 * batch_bytes
