"""Threads that work ahead, and what else happens to a process: a fork, a spawn, a pickle, Ctrl-C, the end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for number in range(31):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(path)
    return tmp_path / "pictures"


FLOW = """
import faulthandler, os, pickle, signal, sys, threading, time, warnings
faulthandler.dump_traceback_later(580, exit=True)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores Ctrl-C
import numpy as np
import gpuseq
def flow(folder, module=gpuseq, **options):
    own = module.ImageDataGenerator(rotation_range=20, conventions="corrected", device="cpu")
    return own.flow_from_directory(folder, (16, 16), batch_size=4, seed=3, class_mode="sparse", verbose=False,
                                   **{"prefetch": 3, **options})
"""

DATA_LOADER = (
    FLOW
    + """
import torch
from gpuseq.torch import loader
def main(folder, context, cache):
    warnings.simplefilter("ignore")
    expected = loader(flow(folder, prefetch=0))
    batches = loader(flow(folder, cache=None if cache == "none" else cache))
    for epoch in range(2) if context == "fork" else [1]:  # processes that are not forked import everything anew
        walk = iter(batches)
        next(walk), next(walk)  # now threads decode ahead
        workers = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context=context)
        for made in (expected, batches):
            made.sampler.set_epoch(epoch)
        for (x, y), (wanted_x, wanted_y) in zip(workers, expected, strict=True):
            assert torch.equal(x, wanted_x) and torch.equal(y, wanted_y)
    print("equal")
if __name__ == "__main__":
    main(*sys.argv[1:])
"""
)


@pytest.mark.parametrize(("context", "cache"), [("fork", "none"), ("fork", "host"), ("spawn", "none")])
def test_worker_processes_begin_beside_threads_that_decode_ahead(
    folder: Path, context: str, cache: str, run_script: Run
) -> None:
    """A forked child has the executor and the futures, and none of the threads: it must not wait for them."""
    assert "equal" in run_script(DATA_LOADER, str(folder), context, cache).stdout


FORK = (
    FLOW
    + """
class Slow(gpuseq.Sequence):
    def __len__(self): return 12
    def __getitem__(self, index):
        time.sleep(0.02)
        return np.full(2, index)
warnings.simplefilter("ignore")
passes = iter(gpuseq.to_device(Slow(), 2, 3, device="cpu"))
files = flow(sys.argv[1], cache="host")
twin = flow(sys.argv[1], prefetch=0)
for _ in range(3):
    next(passes), next(files), next(twin)
child = os.fork()
if child == 0:
    signal.alarm(500)
assert [int(batch[0]) for batch in passes] == list(range(3, 12))
for _ in range(9):
    assert np.array_equal(next(files)[0], next(twin)[0])
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print("both")
"""
)


def test_parent_and_child_both_go_on(folder: Path, run_script: Run) -> None:
    assert "both" in run_script(FORK, str(folder)).stdout


HELD = (
    FLOW
    + """
from gpuseq.keras.fit_progress import FitProgress
warnings.simplefilter("ignore")
class Numbers(gpuseq.Sequence):
    def __len__(self): return 3
    def __getitem__(self, index): return np.full(2, index)
files, fit, batches = flow(sys.argv[1]), FitProgress(), gpuseq.to_device(Numbers(), device="cpu")
next(files), batches[0]
held, done = threading.Event(), threading.Event()
def hold():
    with files.lock, fit._lock, batches._lock:
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(500)
    assert len(next(files)[1]) == 4
    assert fit.take(2) == (0, 0)
    assert batches[1].tolist() == [1, 1]
    os._exit(7)
status = os.waitpid(child, 0)[1]
done.set()
thread.join()
assert os.waitstatus_to_exitcode(status) == 7, status
print("free")
"""
)


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_holds(folder: Path, run_script: Run) -> None:
    assert "free" in run_script(HELD, str(folder)).stdout


SWEEP = (
    FLOW
    + """
import collections, functools, json, types
from gpuseq.feed.loader import Loader
from gpuseq.keras.fit_progress import FitProgress

LOCKS = (type(threading.Lock()), type(threading.RLock()))
CLOSED = (types.ModuleType, type, types.FrameType, types.CodeType, types.BuiltinFunctionType, str, bytes, np.dtype)

def reachable(*roots):
    # Every object on the way from the roots; not what a function sees of its module.
    import gc
    found, rest = {}, list(roots)
    while rest:
        thing = rest.pop()
        if id(thing) in found or isinstance(thing, CLOSED):
            continue
        found[id(thing)] = thing
        if isinstance(thing, types.FunctionType):
            rest += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
        elif isinstance(thing, np.random.RandomState):
            rest.append(thing._bit_generator)
        elif isinstance(thing, np.random.BitGenerator):
            rest.append(thing.lock)
        else:
            rest += gc.get_referents(thing)
    return list(found.values())

warnings.simplefilter("ignore")
class Numbers(gpuseq.Sequence):
    def __len__(self): return 3
    def __getitem__(self, index): return np.full(2, index)

folder = sys.argv[1]
own = gpuseq.ImageDataGenerator(rotation_range=20, conventions="corrected", device="cpu")
array = np.zeros((9, 8, 8, 3), np.uint8)
walks = [
    flow(folder), flow(folder, cache="host"),
    own.flow_from_directory(
        folder, (16, 16), batch_size=4, seed=3, class_mode=None, verbose=False, mask_directory=folder
    ),
    flow(folder, on_error="skip", shuffle=True), own.flow(array, np.arange(9), batch_size=2, seed=1),
    own.flow(array, batch_size=2), own.flow(array, masks=array[..., :1], batch_size=2, seed=1),
]
fit, batches, feed = FitProgress(), gpuseq.to_device(Numbers(), device="cpu"), Loader(flow(folder))
for walk in walks:
    next(walk), walk[1]
batches[0], next(iter(feed))
module_level = [
    value for name, module in list(sys.modules.items()) if name.startswith("gpuseq") and module is not None
    for value in vars(module).values() if not isinstance(value, CLOSED)
]
things = reachable(walks, fit, batches, feed, module_level, np.random.get_bit_generator())
locks = [thing for thing in things if isinstance(thing, LOCKS)]
kinds = collections.Counter(type(thing).__name__ for thing in things)
assert kinds["RandomState"] >= 6 and kinds["MT19937"] >= 7 and kinds["ThreadPoolExecutor"] >= 3, kinds
held, done = threading.Event(), threading.Event()
def hold():
    taken = [lock for lock in locks if lock.acquire(blocking=False)]  # but for those that a thread waits with
    print(len(taken), "held", flush=True)
    held.set()
    done.wait()
    for lock in taken:
        lock.release()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(500)
    faulthandler.register(signal.SIGALRM, chain=True)
    for walk in walks:
        next(walk), walk[1]
        walk.on_epoch_end()
        if walk.seed is not None:
            walk.load_state_dict(json.loads(json.dumps(walk.state_dict())))
        walk.set_epoch(2)
        next(walk)
        pickle.loads(pickle.dumps(walk))
        walk.close()
    assert fit.take(2) == (0, 0)
    assert batches[1].tolist() == [1, 1]
    assert len(list(feed)) == len(feed)
    os._exit(7)
status = os.waitpid(child, 0)[1]
done.set()
thread.join()
assert os.waitstatus_to_exitcode(status) == 7, status
print("free")
"""
)


def test_a_child_waits_for_no_lock_that_is_reachable_from_an_iterator(folder: Path, run_script: Run) -> None:
    """All of them are held at the fork, NumPy's generators' too: those of objects, and those of modules of ours."""
    printed = run_script(SWEEP, str(folder)).stdout
    assert "free" in printed
    counted = re.search(r"(\d+) held", printed)
    assert counted is not None
    assert int(counted[1]) >= 50, printed


PLUGINS = (
    FLOW
    + """
from PIL import Image
from gpuseq.decode.pillow import open_image
begun, done = threading.Event(), threading.Event()
init = Image.init
def slow():
    begun.set()
    time.sleep(0.5)
    init()
    done.set()
Image.init = slow
def decode():
    try:
        open_image(b"no picture at all", None, "name")
    except gpuseq.ImageFileError:
        pass
warnings.simplefilter("ignore")
thread = threading.Thread(target=decode)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(500)
    assert done.is_set()
    decode()
    os._exit(7)
status = os.waitpid(child, 0)[1]
thread.join()
assert os.waitstatus_to_exitcode(status) == 7, status
print("waited")
"""
)


def test_a_fork_waits_for_the_import_of_pillows_plugins(run_script: Run) -> None:
    """A bad file makes a thread import them all; a child of that moment would wait for the import lock for ever."""
    assert "waited" in run_script(PLUGINS).stdout


PICKLE = (
    FLOW
    + """
files = flow(sys.argv[1], cache="host")
for _ in range(3):
    next(files)
copy = pickle.loads(pickle.dumps(files))
for _ in range(9):
    (x, y), (wanted_x, wanted_y) = next(copy), next(files)
    assert np.array_equal(x, wanted_x) and np.array_equal(y, wanted_y)
print("equal")
"""
)


def test_a_pickle_of_an_iterator_that_decodes_ahead_goes_on_where_it_stood(folder: Path, run_script: Run) -> None:
    assert "equal" in run_script(PICKLE, str(folder)).stdout


LEAVE = (
    FLOW
    + """
from gpuseq.torch import loader
class Slow(gpuseq.Sequence):
    def __len__(self): return 10_000
    def __getitem__(self, index):
        time.sleep(0.05)
        return np.zeros(2)
walks = [iter(loader(flow(sys.argv[1]))), flow(sys.argv[1]), iter(gpuseq.to_device(Slow(), 4, 3, device="cpu"))]
for walk in walks:
    next(walk)
assert sum(thread.name.startswith("gpuseq") for thread in threading.enumerate()) >= 4
if sys.argv[2] == "exception":
    raise SystemExit(0)
print("left")
"""
)


@pytest.mark.parametrize("how", ["end", "exception"])
def test_a_process_ends_with_threads_at_work(folder: Path, how: str, run_script: Run) -> None:
    run_script(LEAVE, str(folder), how)  # which gives up on one that does not end


INTERRUPT = """
import os, sys
os.environ["KERAS_BACKEND"] = sys.argv[2]
""" + (
    FLOW
    + """
import gc
import keras
from gpuseq import keras as gk
class Slow(gpuseq.Sequence):
    def __len__(self): return 10_000
    def __getitem__(self, index):
        time.sleep(0.01)
        return np.zeros((4, 16, 16, 3), np.float32), np.zeros(4, np.float32)
class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            os.kill(os.getpid(), signal.SIGINT)
def own(): return [thread.name for thread in threading.enumerate() if thread.name.startswith("gpuseq-")]
def train(data):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    try:
        model.fit(data, epochs=1000, verbose=0, callbacks=[Kill()])
    except KeyboardInterrupt:
        return
    raise AssertionError("was not interrupted")
for make in (lambda: flow(sys.argv[1], gk), lambda: Slow().to_keras(prefetch=2, workers=3)):
    data = make()
    train(data)
    assert own()
    keeps = [data] if keras.config.backend() == "tensorflow" else []  # TensorFlow keeps what it was given
    del data
    # Without an end: where they do not end, the script is given up.
    while [name for name in own() if not name.startswith("gpuseq-worker")]:
        gc.collect()
        for kept in keeps:
            kept.close()
        time.sleep(0.05)
print("ended")
"""
)


@pytest.mark.keras
@pytest.mark.parametrize(
    "backend", ["torch", "jax", pytest.param("tensorflow", marks=pytest.mark.frameworks("tensorflow"))]
)
def test_ctrl_c_in_fit_ends_the_threads(folder: Path, backend: str, run_script: Run) -> None:
    assert "ended" in run_script(INTERRUPT, str(folder), backend).stdout


def test_ctrl_c_ends_a_loop_over_files(folder: Path, run_script: Run) -> None:
    source = (
        FLOW
        + """
from gpuseq.torch import loader
batches = loader(flow(sys.argv[1]))
try:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    while True:
        for batch in batches:
            pass
except KeyboardInterrupt:
    print("interrupted")
assert len(next(iter(batches))[1]) == 4
"""
    )
    assert "interrupted" in run_script(source, str(folder)).stdout
