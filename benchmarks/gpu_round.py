"""All that needs a GPU, in one command of less than nine minutes: tests, races, figures.

Each step runs in a process of its own, has a time limit, and leaves its result in the JSON file at once. A second call
does what is left. Nothing needs to be installed beyond CuPy and pytest; what else is missing is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuseq.base.devices import gpu_problem

from . import REHEARSES, work
from .environment import ROOT, describe
from .gpu_tests import COUNTS, merged
from .results import RESULTS, SCHEMA, is_complete, read, write

__all__ = ["STEPS", "Step", "main", "plan"]

GRACE_S = 15.0
"""A suite stops by itself when its time is over; it is killed that much later."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes
    ----------
    name : str
        In the JSON file and in ``--only``.
    limit_s : float
        What it may take.
    command : tuple of str
        Arguments of Python.
    is_suite : bool
        Whether it writes into the file by itself, and stops by itself.
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
_KERNELS = ("tests/ops/cuda/test_gpu_catalogue.py", "tests/iterators/test_gpu_walks.py")
STEPS = (
    Step("tests", 190, ("-m", "benchmarks.gpu_tests")),
    Step("races", 45, ("-m", "benchmarks.stress")),
    _suite("kernel", 45, 1, 1),
    _suite("host", 20, 1, 1),
    _suite("arrays", 120, 1.0, 5),
    _suite("feed", 45, 1, 5),
    _suite("folder", 70, 1, 5),
)
ON_DEMAND = (Step("memcheck", 500, ("-m", "benchmarks.gpu_tests", "--memcheck", "--processes", "4", *_KERNELS)),)
"""Only where they are named."""


def plan(done: Sequence[str], only: Sequence[str] = ()) -> list[Step]:
    """Return the steps that are left.

    Parameters
    ----------
    done : sequence of str
        Names of steps whose results are there.
    only : sequence of str
        If not empty, just these.
    """
    steps = STEPS + tuple(step for step in ON_DEMAND if step.name in only)
    return [step for step in steps if step.name not in done and (not only or step.name in only)]


def main(arguments: list[str] | None = None, problem: Callable[[], str | None] = gpu_problem) -> int:
    """Run what is left of the round; return 0 if everything that ran was right.

    Returns
    -------
    int
        1 if a step failed, 2 without a GPU, 3 if time ran out before the last step.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_round", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help=f"default: {RESULTS.name}/gpu.json")
    parser.add_argument("--budget", type=float, default=530, help="seconds in all (default 530)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[step.name for step in (*STEPS, *ON_DEMAND)],
        default=[],
        metavar="STEP",
        help=f"of {', '.join(step.name for step in (*STEPS, *ON_DEMAND))}: these, whether or not they have run",
    )
    parser.add_argument("--fresh", action="store_true", help="begin again: forget what OUT has")
    parser.add_argument(
        "--all", action="store_true", help="begin again and run every step, three times as long where it needs it"
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="without a GPU: every step once, tiny, on the tests' stand-ins for one"
    )
    parser.add_argument("--peers", nargs="*", metavar="PEER", help="as in `python -m benchmarks run`")
    options = parser.parse_args(arguments)
    reason = None if options.rehearse else problem()
    if reason is not None:
        print(f"The GPU round needs a GPU, and there is none here: {reason}", file=sys.stderr)
        print("Nothing was run and nothing was written. The CPU round is: python -m benchmarks run", file=sys.stderr)
        print("To try the round itself: python -m benchmarks.gpu_round --rehearse", file=sys.stderr)
        return 2
    out = (options.json or (Path(tempfile.gettempdir()) if options.rehearse else RESULTS) / "gpu.json").resolve()
    if options.rehearse and out.parent == RESULTS.resolve():
        parser.error("a rehearsal writes no results: give it another folder with --json")
    out.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh or options.all or options.rehearse:
        out.unlink(missing_ok=True)
    empty = {"schema": SCHEMA, "device": "cuda", "smoke": options.rehearse, "suites": {}}
    result = read(out) if out.exists() else empty | ({"rehearsal": True} if options.rehearse else {})
    result.setdefault("checks", {})
    write(out, result)
    stretch = 10 if options.rehearse else 3 if options.all else 1
    deadline = time.monotonic() + options.budget * stretch
    failed, late = [], []
    done = [] if options.only else [name for name in result["suites"] if is_complete(result, name)]
    for step in plan(done if options.only else [*done, *result["checks"]], options.only):
        left = deadline - time.monotonic()
        if left < 20:
            print(f"Out of time before {step.name!r}: call again for the rest.", file=sys.stderr)
            return 3
        print(f"== {step.name}", file=sys.stderr, flush=True)
        command = tuple(word for word in step.command if not options.only or word != "--resume")
        step = replace(step, limit_s=min(left, step.limit_s * stretch), command=command)
        if not _run(step, out, rehearse=options.rehearse, peers=options.peers):
            failed.append(step.name)
        elif step.is_suite and not is_complete(read(out), step.name):
            late.append(step.name)
    _print_failures(out)
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
        return 1
    if late:
        print(f"Out of time within: {', '.join(late)}. Call again for them.", file=sys.stderr)
        return 3
    print(f"All done: {out}. Now: python -m benchmarks table", file=sys.stderr)
    return 0


def _run(step: Step, out: Path, *, rehearse: bool = False, peers: Sequence[str] | None = None) -> bool:
    reports = out.with_name(f"{out.stem}-{step.name}")
    command = [sys.executable, *step.command]
    if step.is_suite:
        command += ["--json", str(out), "--budget", str(step.limit_s), *(["--smoke"] if rehearse else [])]
        command += ["--seconds", "0.02", "--rounds", "1"] if rehearse else []
        command += [] if peers is None else ["--peers", *peers]
    elif "benchmarks.gpu_tests" in step.command:
        command += ["--reports", str(reports)]
    elif rehearse:
        command += ["--smoke", "--iterations", "2", "--epochs", "2"]
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environ(rehearse),
        stdout=None if step.is_suite else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        text = process.communicate(timeout=step.limit_s + (GRACE_S if step.is_suite else 0))[0] or ""
        status = process.returncode
    except subprocess.TimeoutExpired:
        status = 124
        os.killpg(process.pid, signal.SIGKILL)
        text = process.communicate()[0] or ""
        print(f"{step.name}: stopped after {time.monotonic() - started:.0f} s", file=sys.stderr)
    if not step.is_suite:
        print(text[-20_000:], file=sys.stderr, flush=True)
        check = _check(status, text, time.monotonic() - started, reports)
        result = read(out)
        # One that was stopped is tried again next time, but what it had found is kept.
        result["checks" if status != 124 else "stopped"] = {
            **result.get("checks" if status != 124 else "stopped", {}),
            step.name: check,
        }
        write(out, result)
    return status == 0


def _environ(rehearse: bool) -> dict[str, str]:
    environ = {**os.environ, "GPUSEQ_REQUIRE_GPU": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # Started as a module from anywhere, installed or not.
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    if rehearse:
        environ["GPUSEQ_GPU_STANDIN"] = "1"
    kept = work.kept()
    if not os.access(Path.home(), os.W_OK):  # compilers keep their results at home, and fail where they cannot
        for name in ("CUPY_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "KERAS_HOME", "XDG_CACHE_HOME"):
            environ.setdefault(name, str(kept / name.lower()))
        environ.setdefault("CUDA_CACHE_PATH", str(kept / "cuda_cache"))
    return environ


def _check(status: int, text: str, seconds: float, reports: Path) -> dict[str, Any]:
    last = (text.strip().splitlines() or [""])[-1]
    found: dict[str, Any] = {}
    if any(reports.glob("report-*.json")):
        found = merged(reports)
        said: Any = {name: found[name] for name in COUNTS}
    else:
        try:
            said = json.loads(last)
        except ValueError:
            said = last.strip("= ")
    more = {name: found[name] for name in ("failures", "skips", "running") if found.get(name)}
    took = round(seconds, 1)
    return {"ok": status == 0, "status": status, "said": said, "took_s": took, **more, "environment": describe()}


def _print_failures(out: Path) -> None:
    result = read(out)
    for kind in ("checks", "stopped"):
        for name, check in result.get(kind, {}).items():
            for failure in check.get("failures", []):
                print(f"-- {failure['test']}\n{failure['message']}", file=sys.stderr)
            if kind == "stopped":
                print(f"-- {name} was stopped; it was at: {check.get('running')}", file=sys.stderr)


if __name__ == "__main__":
    assert not REHEARSES, "the round itself needs no stand-in: --rehearse gives its steps one"
    sys.exit(main())
