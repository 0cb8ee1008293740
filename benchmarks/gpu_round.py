"""Everything that needs a GPU, in one command of less than nine minutes: tests, races, figures.

Each step runs in a process of its own and leaves its result in the JSON file at once. A second call does what is left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuseq.compat import gpu_problem

from .environment import ROOT, describe
from .results import RESULTS, SCHEMA, read, write

__all__ = ["STEPS", "Step", "main", "plan"]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes
    ----------
    name : str
        In the JSON file and in ``--only``.
    limit_s : float
        It is stopped then; whole suites that it had finished stay.
    command : tuple of str
        Arguments of Python.
    is_suite : bool
        Whether it writes into the file by itself.
    """

    name: str
    limit_s: float
    command: tuple[str, ...]
    is_suite: bool = False


def _suite(name: str, limit_s: float, seconds: float, rounds: int) -> Step:
    amount = ("--seconds", str(seconds), "--rounds", str(rounds))
    command = ("-m", "benchmarks", "run", "--device", "cuda", "--resume", "--suite", name, *amount)
    return Step(name, limit_s, command, is_suite=True)


# What matters most comes first: a short visit to a GPU should still say whether the kernels are right.
STEPS = (
    Step("tests", 150, ("-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "--no-header", "-rN")),
    Step("races", 60, ("-m", "benchmarks.stress")),
    _suite("kernel", 60, 1, 1),
    _suite("host", 30, 1, 1),
    _suite("arrays", 170, 1.0, 5),
    _suite("feed", 60, 1, 5),
    _suite("folder", 120, 1, 5),
)


def plan(done: Sequence[str], only: Sequence[str] = ()) -> list[Step]:
    """Return the steps that are left.

    Parameters
    ----------
    done : sequence of str
        Names of steps whose results are there.
    only : sequence of str
        If not empty, just these.
    """
    return [step for step in STEPS if step.name not in done and (not only or step.name in only)]


def main(arguments: list[str] | None = None, problem: Callable[[], str | None] = gpu_problem) -> int:
    """Run what is left of the round; return 0 if everything that ran was right.

    Returns
    -------
    int
        1 if a step failed, 2 without a GPU, 3 if time ran out before the last step.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_round", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json", metavar="OUT", help="default: %(default)s")
    parser.add_argument("--budget", type=float, default=520, help="seconds in all (default 520)")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS], default=[], metavar="STEP")
    parser.add_argument("--fresh", action="store_true", help="begin again: forget what OUT has")
    options = parser.parse_args(arguments)
    reason = problem()
    if reason is not None:
        print(f"The GPU round needs a GPU, and there is none here: {reason}", file=sys.stderr)
        print("Nothing was run and nothing was written. The CPU round is: python -m benchmarks run", file=sys.stderr)
        return 2
    out = options.json.resolve()
    if options.fresh:
        out.unlink(missing_ok=True)
    result = read(out) if out.exists() else {"schema": SCHEMA, "device": "cuda", "smoke": False, "suites": {}}
    result.setdefault("checks", {})
    write(out, result)
    deadline = time.monotonic() + options.budget
    failed = []
    for step in plan([*result["suites"], *result["checks"]], options.only):
        left = deadline - time.monotonic()
        if left < 20:
            print(f"Out of time before {step.name!r}: call again for the rest.", file=sys.stderr)
            return 3
        print(f"== {step.name}", file=sys.stderr, flush=True)
        if not _run(step, min(left, step.limit_s), out):
            failed.append(step.name)
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(f"All done: {out}. Now: python -m benchmarks table", file=sys.stderr)
    return 0


def _run(step: Step, limit_s: float, out: Path) -> bool:
    command = [sys.executable, *step.command, *(("--json", str(out)) if step.is_suite else ())]
    environ = {**os.environ, "GPUSEQ_REQUIRE_GPU": "1", "GPUSEQ_DEVICE": "cuda", "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdout=None if step.is_suite else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        text, status = process.communicate(timeout=limit_s)[0] or "", process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        text, status = process.communicate()[0] or "", 124
        print(f"{step.name}: stopped after {limit_s:.0f} s", file=sys.stderr)
    if not step.is_suite:
        print(text, file=sys.stderr, flush=True)
        if status != 124:  # one that was stopped is tried again next time
            result = read(out)
            result["checks"][step.name] = _check(step, status, text, time.monotonic() - started)
            write(out, result)
    return status == 0


def _check(step: Step, status: int, text: str, seconds: float) -> dict[str, Any]:
    last = (text.strip().splitlines() or [""])[-1]
    try:
        said: Any = json.loads(last)
    except ValueError:
        said = last.strip("= ")
    return {"ok": status == 0, "said": said, "took_s": round(seconds, 1), "environment": describe()}


if __name__ == "__main__":
    sys.exit(main())
