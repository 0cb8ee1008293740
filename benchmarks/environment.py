"""What a figure depends on: machine, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpuseq import __version__
from gpuseq.base.devices import gpu_problem
from gpuseq.base.threads import cpu_count

__all__ = ["ROOT", "describe"]

ROOT = Path(__file__).resolve().parent.parent

DISTRIBUTIONS = (
    "numpy",
    "pillow",
    "simplejpeg",
    "scipy",
    "keras",
    "torch",
    "jax",
    "torchvision",
    "kornia",
    "albumentations",
    "opencv-python-headless",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvimgcodec-cu12",
    "cupy-cuda13x",
    "cupy-cuda12x",
)


def describe() -> dict[str, Any]:
    """Return date, machine, versions and commit as plain values. No names of hosts, users or folders."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": os.getloadavg()[0],
        "others_busy": _others_busy(),
        "system": platform.system(),
        "python": platform.python_version(),
        # A machine that got a copy of the files alone, perhaps over an older checkout, is told the commit.
        "commit": os.environ.get("GPUSEQ_COMMIT") or _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted": "GPUSEQ_COMMIT" not in os.environ
        and bool(_git("status", "--porcelain", "--untracked-files=no", "--", "gpuseq", "kernels")),
        "gpu": _gpu(),
        "versions": {"gpuseq": __version__, **_versions()},
    }


def _others_busy(seconds: float = 0.5) -> float | None:
    """Return the share of the cores' time that others take while this process rests, 0 to 1."""

    def ticks() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    try:
        idle, total = ticks()
        time.sleep(seconds)
        idle_after, total_after = ticks()
    except (OSError, IndexError, ValueError):
        return None
    return round(1 - (idle_after - idle) / max(1, total_after - total), 3)


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    keys: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        keys.setdefault(key.strip(), value.strip())
    model = keys.get("model name", platform.machine())
    if "model" in keys:
        model += f" (family {keys.get('cpu family', '?')}, model {keys['model']}, {keys.get('cpu MHz', '?')} MHz)"
    return model


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _gpu() -> dict[str, Any] | None:
    if gpu_problem() is not None:
        return None
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    found: dict[str, Any] = {
        "name": properties["name"].decode(),
        "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
        "multiprocessors": properties["multiProcessorCount"],
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit", "--format=csv,noheader"]
        run = subprocess.run(query, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            found["driver, clock, power limit"] = run.stdout.splitlines()[0]
    return found
