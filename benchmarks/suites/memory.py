"""Resident memory over many batches: does it grow?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpuseq
from benchmarks.environment import ROOT
from benchmarks.measure import Row, Settings, row
from benchmarks.work import AUGMENTATION, folder, pictures

__all__ = ["run"]


def run(settings: Settings) -> list[Row]:
    """Take batches of an array and of a folder for a while, in a fresh process; report the memory after each tenth."""
    command = [sys.executable, "-m", __name__, settings.device, str(int(settings.smoke))]
    walked = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    rows = []
    for name, (size, count, values) in json.loads(walked.stdout.splitlines()[-1]).items():
        growth = float(np.polyfit(np.arange(len(values)), values, 1)[0]) * (len(values) - 1)
        note = f"{growth:+.1f} MB by a straight line over {count} batches of 10"
        at = {"batches": count, "growth_mb": growth}
        rows.append(row("memory", f"resident, {size}x{size}", name, "MB", values, note=note, at=at))
        settings.say(f"  memory | {name}: {rows[-1]['median']:.0f} MB, {note}")
    return rows


def walk(device: str, smoke: bool) -> dict[str, Any]:
    """Return for each run the images' size, the number of batches and the resident memory along it, MB."""
    generator = gpuseq.ImageDataGenerator(**AUGMENTATION, device=device)
    size, samples, batches = (24, 20, 20) if smoke else (64, 300, 2000)
    root = folder(samples)
    common: dict[str, Any] = {
        "target_size": (size, size),
        "batch_size": 10,
        "interpolation": "bilinear",
        "verbose": False,
    }
    walks = {
        "array": (generator.flow(pictures(samples, size), batch_size=10, seed=1), batches),
        "folder": (generator.flow_from_directory(root, seed=1, **common), batches // 5),
        "folder, host cache": (generator.flow_from_directory(root, seed=1, cache="host", **common), batches),
    }
    found: dict[str, Any] = {}
    for name, (iterator, count) in walks.items():
        for _ in range(len(iterator)):  # caches and pools fill in the first epoch
            next(iterator)
        values = [_resident()]
        for _ in range(10):
            for _ in range(max(1, count // 10)):
                next(iterator)
            values.append(_resident())
        iterator.close()
        found[name] = (size, count, values)
    return found


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    print(json.dumps(walk(sys.argv[1], sys.argv[2] == "1")))
