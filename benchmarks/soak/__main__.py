"""``python -m benchmarks.soak --seconds 1800 --seed 1``: rounds until the time is over, a line of JSON at the end."""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.environment import describe
from gpuseq.ops.compiled.library import describe as describe_engine

from .bench import Bench, write_photos
from .ledger import Belongings, TroubleError, grown, resident_bytes
from .rounds import ROUNDS

__all__ = ["main"]

KINDS = f"of {', '.join(ROUNDS)}; all by default"

LONGEST = 900
"""Seconds after which a round hangs."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1 at the first trouble, whose seed and round are printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="begin no round after that (default 1800)")
    parser.add_argument("--seed", type=int, default=None, help="of all that is drawn (default: one from the clock)")
    parser.add_argument(
        "--only", nargs="+", choices=ROUNDS, default=list(ROUNDS), metavar="ROUND", help=f"of {', '.join(ROUNDS)}"
    )
    parser.add_argument("--round", type=int, metavar="K", help="only this one, as a failure has named it")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds of rest for each second of work (default 0)")
    options = parser.parse_args(arguments)
    seed = time.time_ns() % 2**31 if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    logger = logging.getLogger("gpuseq")
    level, handler = logger.level, signal.signal(signal.SIGALRM, _hangs)
    logger.setLevel(logging.CRITICAL)  # below it the log is full of what was done on purpose
    try:
        with tempfile.TemporaryDirectory(prefix="gpuseq-soak-") as name:
            return _soak(Path(name), seed, options)
    finally:
        logger.setLevel(level)
        signal.signal(signal.SIGALRM, handler)


def _hangs(*_: Any) -> None:
    faulthandler.dump_traceback(all_threads=True)
    raise TroubleError(f"the round has hung for {LONGEST} s")


def _soak(folder: Path, seed: int, options: argparse.Namespace) -> int:
    photos = folder / "photos"
    write_photos(photos)
    counts: Counter[str] = Counter()
    sizes: list[int] = []
    began = time.monotonic()
    belongings: Belongings | None = None
    number = options.round or 0
    while True:
        rng = random.Random(f"{seed}/{number}")
        name = rng.choice(sorted(options.only))
        own = folder / f"round-{number}"
        own.mkdir()
        worked = time.monotonic()
        signal.alarm(LONGEST)
        try:
            ROUNDS[name](Bench(rng, own, photos, counts))
            shutil.rmtree(own)
            if number >= len(ROUNDS) and belongings is None:
                belongings = Belongings(folder)  # each package is loaded by now
            elif belongings is not None:
                belongings.check()
        except BaseException:
            signal.alarm(0)
            traceback.print_exc()
            only = "" if list(options.only) == list(ROUNDS) else f" --only {' '.join(options.only)}"
            print(f"TROUBLE in round {number} ({name}): python -m benchmarks.soak --seed {seed} --round {number}{only}")
            return 1
        signal.alarm(0)
        counts["rounds"] += 1
        counts[f"rounds of {name}"] += 1
        sizes.append(resident_bytes())
        number += 1
        if options.round is not None or time.monotonic() - began > options.seconds:
            break
        time.sleep(options.rest * (time.monotonic() - worked))
    growth = grown(sizes)
    environment = describe()
    said = {
        **{name: environment[name] for name in ("date", "commit", "uncommitted", "python", "versions")},
        "engine": describe_engine(),
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        **dict(sorted(counts.items())),
        "resident_mib": [round(size / 2**20) for size in sizes[:: max(1, len(sizes) // 10)]],
        "trouble": growth,
    }
    print(json.dumps(said))
    return 0 if growth is None else 1


if __name__ == "__main__":
    sys.exit(main())
