"""The rounds: each draws what it does from the generator that it is given, does it, and raises `TroubleError`."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import resource
import signal
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

import gpuseq
from gpuseq.base.errors import EmptyBatchError
from gpuseq.files.reading import ATTEMPTS

from .bench import NUM_FILES, PATIENCE, SIDE, Bench, path_of, write_photo
from .ledger import TroubleError, check_each

__all__ = ["ROUNDS"]


def threads(bench: Bench) -> None:
    """Several threads share one iterator: each sample comes once an epoch, in whichever thread."""
    iterator, samples = bench.iterator()
    epochs = bench.rng.randrange(1, 4)
    turns = iter(range(epochs * len(iterator)))
    found: list[Any] = []
    failed: list[BaseException] = []

    def draw() -> None:
        try:
            found.extend(next(iterator) for _ in turns)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=draw) for _ in range(bench.rng.randrange(2, 7))]
    bench.counts["threads"] += len(workers)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
        if worker.is_alive():
            raise TroubleError(f"a thread has hung for {PATIENCE:.0f} s")
    if failed:
        raise failed[0]
    check_each((number for batch in found for number in bench.take(batch)), samples, epochs, "threads")
    iterator.close()


def states(bench: Bench) -> None:
    """Calls in any order; what goes on from a state, a pickle or a plan makes the same batches to the bit."""
    iterator, samples = bench.iterator()
    twin = pickle.loads(pickle.dumps(iterator))
    for _ in range(bench.rng.randrange(5, 40)):
        call = bench.rng.choice(["next", "next", "item", "epoch", "end", "reset", "state", "pickle", "replay"])
        index, epoch = bench.rng.randrange(len(iterator)), bench.rng.randrange(4)
        if call == "state":
            twin.load_state_dict(json.loads(json.dumps(iterator.state_dict())))
        elif call == "pickle":
            twin.close()
            twin = pickle.loads(pickle.dumps(iterator))
        elif call == "replay":
            plan = iterator.plan_batch(index)
            twin.plan_batch(index)
            _check_same(bench, iterator.replay(plan), twin.replay(plan), call)
        elif call in ("end", "reset"):
            for one in (iterator, twin):
                one.on_epoch_end() if call == "end" else one.reset()
        elif call == "epoch":
            iterator.set_epoch(epoch)
            twin.set_epoch(epoch)
        else:
            one, other = (next(each) if call == "next" else each[index] for each in (iterator, twin))
            _check_same(bench, one, other, call)
    check_each(bench.epoch(iterator, 3), samples, 1, "an epoch after many calls")
    iterator.close()
    twin.close()


def _check_same(bench: Bench, one: Any, other: Any, what: str) -> None:
    bench.take(one)
    if not all(np.array_equal(left, right) for left, right in zip(one, other, strict=True)):
        raise TroubleError(f"{what}: two iterators that stand at the same place make other batches")


def forks(bench: Bench) -> None:
    """Processes fork while threads draw; parent and child both go on, each with whole epochs."""
    iterator, samples = bench.iterator()
    is_over = threading.Event()
    failed: list[BaseException] = []

    def draw() -> None:
        try:
            while not is_over.is_set():
                next(iterator)
        except BaseException as error:
            failed.append(error)

    def child() -> None:
        check_each(bench.epoch(iterator, 2), samples, 1, "an epoch in a forked process")
        next(iterator)
        iterator.close()

    workers = [threading.Thread(target=draw) for _ in range(bench.rng.randrange(1, 4))]
    bench.counts["threads"] += len(workers)
    for worker in workers:
        worker.start()
    try:
        for _ in range(bench.rng.randrange(1, 4)):
            time.sleep(bench.rng.uniform(0.0, 0.02))
            bench.forked(child)
    finally:
        is_over.set()
        for worker in workers:
            worker.join(PATIENCE)
    if failed or any(worker.is_alive() for worker in workers):
        raise TroubleError("a thread of the parent hangs") if not failed else failed[0]
    check_each(bench.epoch(iterator, 1), samples, 1, "an epoch of a process that has forked")
    iterator.close()


def kills(bench: Bench) -> None:
    """A process is killed at any moment, again and again, and resumes: its batches are those of an undisturbed one."""
    options = {**bench.walk_options(), "prefetch": bench.rng.randrange(4), "cache": bench.rng.choice([None, "host"])}
    flipping = gpuseq.ImageDataGenerator(rotation_range=30, horizontal_flip=True, device="cpu")
    epochs = bench.rng.randrange(1, 4)
    log = bench.folder / "log"

    def flow() -> Any:
        return flipping.flow_from_directory(
            str(bench.photos), (SIDE, SIDE), class_mode="sparse", verbose=False, **options
        )

    def line(iterator: Any) -> dict[str, Any]:
        images, labels = next(iterator)
        return {
            "numbers": np.rint(images[:, 0, 0, 0]).astype(int).tolist(),
            "crc": zlib.crc32(images),
            "y": labels.tolist(),
        }

    undisturbed = flow()
    total = epochs * len(undisturbed)
    wanted = [line(undisturbed) for _ in range(total)]
    undisturbed.close()
    seconds = bench.rng.uniform(0.0, 0.01)  # that a step of the training takes

    def train() -> None:
        iterator, done = flow(), _lines(log)
        if done:
            iterator.load_state_dict(done[-1]["state"])
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for _ in range(total - len(done)):
            made = line(iterator)
            time.sleep(seconds)
            os.write(descriptor, json.dumps({**made, "state": iterator.state_dict()}).encode() + b"\n")

    deadline = time.monotonic() + PATIENCE
    while len(_lines(log)) < total:
        child = os.fork()
        if child == 0:
            signal.alarm(0)
            try:
                train()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        bench.counts["forks"] += 1
        time.sleep(bench.rng.uniform(0.005, 0.3))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        bench.counts["kills"] += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
            raise TroubleError("a process that resumed has failed")
        if time.monotonic() > deadline:
            raise TroubleError(f"{len(_lines(log))} of {total} batches in {PATIENCE:.0f} s of being killed")
    found = [{name: value for name, value in made.items() if name != "state"} for made in _lines(log)]
    if found != wanted:
        first = next(i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1])
        raise TroubleError(
            f"batch {first} after {len(found)} of a killed walk: {found[first]} instead of {wanted[first]}"
        )
    check_each((number for made in found for number in made["numbers"]), range(NUM_FILES), epochs, "a killed walk")
    bench.counts["batches"] += len(found)
    bench.counts["samples"] += sum(len(made["numbers"]) for made in found)


def _lines(log: Path) -> list[Any]:
    """Return what is there of a log; a last line that the kill has cut off is not."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def full_disks(bench: Bench) -> None:
    """A file that cannot be written whole: an error, no half a file, the older one stays; from its state it goes on."""
    noise = np.random.default_rng(bench.rng.randrange(2**31)).integers(0, 256, (12, 24, 24, 3), np.uint8)
    options = {**bench.walk_options(), "batch_size": bench.rng.randrange(1, 6)}
    limit = bench.rng.randrange(1200)  # a picture of this noise is larger

    def child() -> None:
        generator = gpuseq.ImageDataGenerator(featurewise_center=True, rotation_range=9, device="cpu")
        generator.fit(noise)
        kept = bench.folder / "statistics.json"
        generator.save_statistics(kept)
        before = kept.read_bytes()
        saved = bench.folder / "saved"
        saved.mkdir()
        plain = generator.flow(noise, **options)
        saving = generator.flow(noise, **options, save_to_dir=str(saved), save_format="png")
        for _ in range(bench.rng.randrange(len(saving))):
            _same_images(next(saving), next(plain))
        state, num_saved = saving.state_dict(), len(list(saved.iterdir()))
        with _no_more_than(limit):
            _expect_full(bench, lambda: next(saving))
            if limit < len(before):
                _expect_full(bench, lambda: generator.save_statistics(kept, note="x" * 1200))
        names = sorted(path.name for path in bench.folder.iterdir())
        if kept.read_bytes() != before or names != ["saved", "statistics.json"]:
            raise TroubleError("a full disk has changed a file, or left one")
        for path in saved.iterdir():
            with Image.open(path) as picture:
                picture.load()
        if len(list(saved.iterdir())) != num_saved:
            raise TroubleError("a full disk has left a picture")
        saving.load_state_dict(state)
        for _ in range(2 * len(saving)):
            _same_images(next(saving), next(plain))
            bench.counts["batches"] += 2

    bench.forked(child)


def _same_images(one: np.ndarray, other: np.ndarray) -> None:
    if not np.array_equal(one, other):
        raise TroubleError("a walk that a full disk has stopped does not go on as another one")


def _expect_full(bench: Bench, function: Callable[[], Any]) -> None:
    try:
        function()
    except OSError:
        bench.counts["full disks"] += 1
    else:
        raise TroubleError("nothing was said of a disk that takes no more")


@contextmanager
def _no_more_than(limit: int) -> Iterator[None]:
    """Let no file of this process grow above so many bytes: the system's own way to refuse a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def changing_files(bench: Bench) -> None:
    """Files are replaced, or damaged and mended, while they are read: no picture is half of one and half of another."""
    number = 24
    folder = bench.folder / "changing"
    for index in range(number):
        write_photo(folder, index, 0)
    damages = bench.rng.random() < 0.5
    iterator = bench.files(folder, on_error="skip" if damages else "raise")
    draw = random.Random(bench.rng.random())
    versions = [0] * number
    damaged: set[int] = set()
    is_over = threading.Event()

    def change() -> None:
        while not is_over.is_set():
            index = draw.randrange(number)
            if damages and index not in damaged and draw.random() < 0.5:
                os.truncate(path_of(folder, index), draw.randrange(40))
                damaged.add(index)
            else:
                versions[index] = (versions[index] + 1) % 256
                write_photo(folder, index, versions[index])
                damaged.discard(index)
            bench.counts["changed files"] += 1
            time.sleep(draw.uniform(0.0, 0.004))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        enough = bench.counts["changed files"] + bench.rng.randrange(20, 80)
        for epoch in itertools.count():
            if bench.counts["changed files"] >= enough:
                break
            iterator.set_epoch(epoch)
            found: list[int] = []
            for index in range(len(iterator)):
                try:
                    found += bench.take(iterator[index])
                except EmptyBatchError:
                    assert damages
            if damages:
                found += set(range(number)) - set(found)  # those that were passed over, once
            check_each(found, range(number), 1, "an epoch over changing files")
    finally:
        is_over.set()
        writer.join()
    for index in damaged:
        write_photo(folder, index, versions[index])
    iterator.close()  # and with it what was decoded ahead
    iterator.set_epoch(9)
    batches = [iterator[index] for index in range(len(iterator))]
    check_each((one for batch in batches for one in bench.take(batch)), range(number), 1, "an epoch over mended files")
    for images, _ in batches:
        for image in images:
            if round(float(image[0, 0, 2])) != versions[round(float(image[0, 0, 0]))]:
                raise TroubleError("an older version of a file came after it had changed")
    iterator.close()


class _StopError(KeyboardInterrupt):
    """What the handler of a signal raises, as that of Ctrl-C does."""


def _stop(*_: Any) -> None:
    raise _StopError


def interrupts(bench: Bench) -> None:
    """A signal's handler raises in the middle of anything; afterwards whole epochs come."""

    iterator, samples = bench.iterator()
    before = signal.signal(signal.SIGVTALRM, _stop)
    try:
        for _ in range(bench.rng.randrange(1, 8)):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, bench.rng.uniform(0.0005, 0.02))
                for _ in range(400):
                    next(iterator)
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            except _StopError:
                bench.counts["interrupts"] += 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    for epoch in (5, 2):
        check_each(bench.epoch(iterator, epoch), samples, 1, "an epoch after interrupts")
    iterator.close()


def store_faults(bench: Bench) -> None:
    """A store fails, or does not answer in time, now and then: its files come all the same, each once."""
    store = _store()
    draw, lock = random.Random(bench.rng.random()), threading.Lock()
    left = bench.rng.randrange(1, ATTEMPTS)  # all of them may meet one file, which is asked for once more

    def fault() -> None:
        nonlocal left
        with lock:
            is_due = left > 0 and draw.random() < 0.2
            left -= is_due
        if is_due:
            bench.counts["store faults"] += 1
            if draw.random() < 0.5:
                raise ConnectionError("reset by peer")
            time.sleep(2.5)

    prefix = f"/{bench.folder.name}"
    for index in range(24):
        store.pipe(f"{prefix}/{'abc'[index % 3]}/{index:03}.png", path_of(bench.photos, index).read_bytes())
    type(store).fault = staticmethod(fault)
    before = os.environ.get("GPUSEQ_READ_TIMEOUT")
    os.environ["GPUSEQ_READ_TIMEOUT"] = "2"
    try:
        iterator = bench.files(f"soak://{prefix[1:]}")
        for epoch in range(2):
            check_each(bench.epoch(iterator, epoch), range(24), 1, "an epoch over a store with faults")
        iterator.close()
    finally:
        os.environ.pop("GPUSEQ_READ_TIMEOUT")
        if before is not None:
            os.environ["GPUSEQ_READ_TIMEOUT"] = before
        type(store).fault = None
        store.store.clear()
        store.pseudo_dirs[:] = [""]


def _store() -> Any:
    """Return a store in memory whose files may be asked for in vain; fsspec knows it as ``soak://``."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    if "soak" not in fsspec.registry:

        class Store(MemoryFileSystem):  # type: ignore[misc]
            protocol = "soak"
            store: ClassVar[dict[str, Any]] = {}
            pseudo_dirs: ClassVar[list[str]] = [""]
            fault: Any = None

            @classmethod
            def _strip_protocol(cls, path: str) -> str:
                return "/" + path.removeprefix("soak://").strip("/")

            def cat_file(self, path: str, *args: Any, **options: Any) -> Any:
                fault = type(self).fault
                if fault is not None:
                    fault()
                return super().cat_file(path, *args, **options)

        fsspec.register_implementation("soak", Store)
    return fsspec.filesystem("soak")


def killed_workers(bench: Bench) -> None:
    """A worker process of PyTorch's DataLoader is killed: an error, and the epoch begun again is whole."""

    def child() -> None:
        import torch

        from gpuseq.torch import loader

        batches = loader(bench.files(bench.photos), data_format="channels_last")
        for epoch in range(2):
            batches.set_epoch(epoch)
            walk: Any = iter(torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2))
            bench.counts["forks"] += 2
            worker = bench.rng.choice(walk._workers)
            try:
                # With what torch's processes share in hand: what a worker has locked when it dies no one gets back, and
                # the loader waits for ever (seen once in some 500 kills, by the counts of three soaks).
                with walk._workers_done_event._cond, walk._worker_result_queue._wlock:
                    os.kill(worker.pid, signal.SIGKILL)
                    bench.counts["kills"] += 1
                    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # torch wants to see it itself
                for _ in walk:  # or its batches were all made before
                    pass
            except (RuntimeError, OSError, EOFError):
                bench.counts["loaders that said so"] += 1
            # Torch's handler raises wherever the main thread stands when a worker is found dead.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            walk = None
            batches.set_epoch(epoch)
            found = [one for images, labels in batches for one in bench.take((images.numpy(), labels.numpy()))]
            check_each(found, range(NUM_FILES), 1, "an epoch after a killed worker")

    bench.forked(child)


def _present() -> Iterator[tuple[str, Callable[[Bench], None]]]:
    for function in (threads, states, forks, kills, full_disks, changing_files, interrupts):
        yield function.__name__, function
    if find_spec("fsspec"):
        yield store_faults.__name__, store_faults
    if find_spec("torch"):
        yield killed_workers.__name__, killed_workers


ROUNDS = dict(_present())
"""Name -> round; those whose packages are here."""
