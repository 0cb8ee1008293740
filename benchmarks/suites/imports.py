"""Time to import and to construct, each in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.environment import ROOT
from benchmarks.measure import Row, Settings, row

__all__ = ["run"]

HEAVY = ("cupy", "keras", "torch", "jax", "tensorflow", "nvidia", "pandas", "scipy", "ray")

_TIMED = """
import json, sys, time
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
print(json.dumps([seconds, sorted({{name.partition(".")[0] for name in sys.modules}} & set({heavy!r}))]))
"""

WORKS = {
    "import numpy": "import numpy",
    "import gpuseq": "import gpuseq",
    "import gpuseq, construct generator and iterator": (
        "import numpy, gpuseq\n"
        "x = numpy.zeros((64, 8, 8, 3), numpy.uint8)\n"
        "gpuseq.ImageDataGenerator(rotation_range=20, device='cpu').flow(x, seed=1)"
    ),
    "import Keras' ImageDataGenerator": "from keras.src.legacy.preprocessing.image import ImageDataGenerator",
}


def run(settings: Settings) -> list[Row]:
    """Take turns, so that a slow moment hits all of them."""
    count = 2 if settings.smoke else 15
    values: dict[str, list[float]] = {name: [] for name in WORKS}
    absent: dict[str, str] = {}
    heavy: dict[str, list[str]] = {}
    for number in range(count + 1):
        for name, work in WORKS.items():
            if name in absent or ("Keras" in name and not settings.wants("keras")):
                absent.setdefault(name, "not asked for")
                continue
            run = subprocess.run(
                [sys.executable, "-c", _TIMED.format(work=work, heavy=HEAVY)],
                cwd=ROOT,
                env={"KERAS_BACKEND": "torch", **os.environ},
                capture_output=True,
                text=True,
                check=False,
            )
            if run.returncode:
                absent[name] = (run.stderr.strip().splitlines() or ["failed"])[-1]
                continue
            seconds, heavy[name] = json.loads(run.stdout.splitlines()[-1])
            if number:  # the first fills the system's file cache
                values[name].append(seconds)
    rows = []
    for name, seconds_each in values.items():
        if name in absent:
            rows.append(row("imports", "fresh process", name, "s", absent=absent[name]))
            continue
        note = f"loads {', '.join(heavy[name])}" if heavy[name] else None
        rows.append(row("imports", "fresh process", name, "s", seconds_each, note=note))
        settings.say(f"  imports | {name}: {rows[-1]['median']:.3f} s")
    return rows
