"""How cost grows: batch size, image size, threads, classes, files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT
from benchmarks.measure import Row, Runner, Settings, race, row
from gpuseq.base.threads import cpu_count

from .field import OURS, ours_and_keras

__all__ = ["run"]

PREFIX = "gpuseq-scan-"


def run(settings: Settings) -> list[Row]:
    """One axis at a time from 224x224, batch 32, all cores; then scans of folders of empty files."""
    smoke = settings.smoke
    rows: list[Row] = []
    base: dict[str, Any] = {"size": 16 if smoke else 224, "batch": 4 if smoke else 32, "samples": 16 if smoke else 256}
    for batch in (1, 4) if smoke else (1, 4, 16, 64, 256):
        rows += _race("batch size", base | {"batch": batch}, batch, settings)
    for size in (8, 16) if smoke else (32, 64, 128, 256, 512):
        rows += _race(
            "image size", base | {"size": size, "samples": base["samples"] if size < 300 else 96}, size, settings
        )
    threads = sorted({1, 2, cpu_count(), 2 * cpu_count()})
    for files in (False, True):
        name = "threads, folder" if files else "threads, array"
        for count in threads[:1] if smoke else threads:
            case = base | {
                "files": files,
                "device": "cpu",
                "samples": (20 if smoke else 300) if files else base["samples"],
            }
            runner = Runner("gpuseq", f"{OURS}, CPU", case, {"GPUSEQ_NUM_THREADS": str(count)})
            rows += race("growth", name, [runner], settings, at={"x": count, "of": name})
    for files in (100, 200) if smoke else (10_000, 100_000, 1_000_000):
        rows += _scan("files", files, 10, settings)
    for classes in (2, 20) if smoke else (2, 20, 200, 2000):
        rows += _scan("classes", 100 if smoke else 20_000, classes, settings)
    return rows


def _race(of: str, case: dict[str, Any], x: int, settings: Settings) -> list[Row]:
    return race(
        "growth", of, ours_and_keras(case | {"device": settings.device}, settings), settings, at={"x": x, "of": of}
    )


_SCAN = """
import os, sys, time
import numpy
import gpuseq
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before = resident()
started = time.perf_counter()
iterator = gpuseq.ImageDataGenerator(device="cpu").flow_from_directory(
    sys.argv[1], batch_size=32, seed=1, prefetch=0, verbose=False
)
seconds = time.perf_counter() - started
started = time.perf_counter()
plan = iterator.plan_batch()
first = time.perf_counter() - started
images = numpy.zeros((32, 1, 1, 3), numpy.float32)
plans, labels = [], []
for _ in range(50):
    started = time.perf_counter()
    plan = iterator.plan_batch()
    plans.append(time.perf_counter() - started)
    started = time.perf_counter()
    iterator._labels_of(images[: len(plan)], plan.indices)
    labels.append(time.perf_counter() - started)
print(iterator.samples, seconds, resident() - before, first, *(1e6 * sorted(times)[25] for times in (plans, labels)))
"""


def _scan(of: str, files: int, classes: int, settings: Settings) -> list[Row]:
    """Make empty files in memory (/dev/shm where it is there), scan them in fresh processes, take them away."""
    shared = Path("/dev/shm")
    parent = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    where = f"{files:,} files in {classes:,} classes"
    root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        for number in range(classes):
            (root / f"class{number:05d}").mkdir()
        for number in range(files):
            os.close(
                os.open(root / f"class{number % classes:05d}" / f"image_{number:08d}.jpg", os.O_CREAT | os.O_WRONLY)
            )
        measured = []
        for _ in range(1 if settings.smoke else 3):
            command = [sys.executable, "-W", "ignore", "-c", _SCAN, str(root)]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found, *values = run.stdout.split()
            assert int(found) == files, f"{found} of {files} files were found"
            measured.append([float(value) for value in values])
    except OSError as error:
        return [row("growth", where, OURS, "s", absent=f"the files could not be made: {error}")]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    at = {"x": files if of == "files" else classes, "of": of}
    columns = list(zip(*measured, strict=True))
    rows = [
        row("growth", where, "scan and construct", "s", columns[0], at=at),
        row("growth", where, "memory it keeps", "MB", columns[1], at=at),
        row("growth", where, "first plan, with the epoch's order", "s", columns[2], at=at),
        row("growth", where, "a later plan, batch of 32", "us", columns[3], at=at),
        row("growth", where, "one-hot labels, batch of 32", "us", columns[4], at=at),
    ]
    settings.say(f"  growth | {where}: {rows[0]['median']:.2f} s, {rows[1]['median']:.0f} MB")
    return rows
