"""The compiled engine among threads and processes: the GIL, Ctrl-C, forks, and memory that does not grow."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gpuseq.ops.compiled import augment as ops_compiled
from gpuseq.ops.compiled import library
from gpuseq.ops.numpy import augment as ops_numpy
from gpuseq.ops.options import AugmentOptions
from tests import compiled_library
from tests.cases import draw_params, images

PLAIN = AugmentOptions(has_channel_shift=False, has_brightness=False)


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library.require()
    monkeypatch.setenv(library.ENGINE, "compiled")


def test_memory_is_flat_over_many_batches() -> None:
    batch, params = images((4, 24, 20, 3), "uint8"), draw_params(4, 24, 20, colour=True)
    options = AugmentOptions(samplewise_center=True)

    def run(count: int) -> int:
        for _ in range(count):
            ops_compiled.augment(batch, params, options)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(500)
    assert run(10_000) - before < 4096  # KiB


def test_callers_on_several_threads_do_not_mix() -> None:
    cases = [
        (images((3, 40 + 5 * n, 30, 3), "uint8", seed=n), draw_params(3, 40 + 5 * n, 30, seed=n)) for n in range(6)
    ]
    wanted = [ops_numpy.augment(batch, params, PLAIN) for batch, params in cases]
    failed: list[int] = []

    def work(number: int) -> None:
        batch, params = cases[number]
        for _ in range(60):
            if not np.array_equal(ops_compiled.augment(batch, params, PLAIN), wanted[number]):
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_other_threads_run_while_a_batch_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the library takes longer than the pauses of a thread that only counts: it wakes again and again.

    A busy machine may let it sleep through some calls, but not through each. With the GIL held it would wake once, at
    the end.
    """
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", "1")
    monkeypatch.setattr(ops_compiled, "CALL_PIXELS", 1 << 30)
    batch, params = images((24, 400, 400, 3), "uint8"), draw_params(24, 400, 400)
    counted, done = [0], threading.Event()

    def count() -> None:
        while not done.wait(0.001):
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    most = 0
    for _ in range(100):
        before = counted[0]
        ops_compiled.augment(batch, params, replace(PLAIN, dtype="float64"))
        most = max(most, counted[0] - before)
        if most >= 5:
            break
    done.set()
    thread.join()
    assert most >= 5


def test_a_forked_child_makes_the_same_batch(run_script: Callable[..., object]) -> None:
    run_script(
        """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
from gpuseq import ImageDataGenerator
from gpuseq.ops.compiled.library import describe
assert describe().startswith("compiled"), describe()
x = np.random.default_rng(0).integers(0, 256, (64, 90, 80, 3), dtype=np.uint8)
iterator = ImageDataGenerator(rotation_range=30, device="cpu").flow(x, batch_size=64, seed=1, shuffle=False)
plan = iterator.plan_batch()
wanted = iterator.replay(plan)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(iterator.replay(plan), wanted) else 1)
assert os.waitpid(child, 0)[1] == 0
""",
        GPUSEQ_NUM_THREADS="4",
    )


def test_ctrl_c_ends_a_batch_early(run_script: Callable[..., object]) -> None:
    run_script(
        """
import os, signal, threading, time
import numpy as np
from gpuseq.ops.compiled import augment as engine
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import identity_params
signal.signal(signal.SIGINT, signal.default_int_handler)
params = identity_params(1000)
params["zx"] = params["zy"] = 50.0  # far taps, one by one: slow on purpose
images, indices = np.zeros((1, 300, 300, 3), np.uint8), np.zeros(1000, np.int64)
out = np.empty((1000, 300, 300, 3), np.uint8)
options = AugmentOptions(dtype="uint8")
# The other thread presses Ctrl-C once the main one has a part, and is slow from then on.
main, has_begun, calls, parts = threading.current_thread(), threading.Event(), [], []
caller = engine._caller
def counting(instruction_set, job, held, num_units, units_per_call):
    parts.append(num_units / units_per_call)
    call = caller(instruction_set, job, held, num_units, units_per_call)
    def counted(part):
        calls.append(part)
        if threading.current_thread() is main:
            has_begun.set()
        elif has_begun.is_set():
            time.sleep(0.05)
        else:
            has_begun.wait()
            os.kill(os.getpid(), signal.SIGINT)
        call(part)
    return counted
engine._caller = counting
try:
    engine.augment(images, params, options, indices=indices, out=out)
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("the batch was finished all the same")
assert parts == [1000.0], "Ctrl-C waits for one call of the library: an image, and not half of the batch"
assert len(calls) < 900, calls
""",
        GPUSEQ_NUM_THREADS="2",
    )
