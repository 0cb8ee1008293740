"""All that needs a GPU, in one command of less than nine minutes: a minute of everything, the tests, races, figures.

A GPU is often lent for minutes. So each step runs in a process of its own, has a time limit, and leaves its result on
the disk at once; nothing is ever deleted; and everything lies in two files, ``gpu.json`` and ``gpu-round.tar.gz``. A
second call, on the same machine or with ``--resume`` on another one, does what is left.

CuPy is needed, and what gpuseq needs. pytest and hypothesis may be brought: see `benchmarks.bring`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuseq.base.devices import gpu_problem

from . import REHEARSES, work
from .bring import BROUGHT
from .environment import ROOT, describe
from .gpu_tests import COUNTS, LEFT_OUT, merged
from .results import RESULTS, SCHEMA, is_complete, read, write

__all__ = ["FIGURES", "REPORTS", "STEPS", "Step", "idle_rows", "main", "plan"]

FIGURES, REPORTS = "gpu.json", "gpu-round.tar.gz"
"""The two files."""

GRACE_S = 10.0
"""A suite stops by itself when its time is over; it is killed that much later."""

LEAST_S = 20.0
"""With less time left no step is begun."""


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


# What is worth most per second comes first: whether anything works at all, whether all of it is right, how fast it is.
_KERNELS = ("tests/ops/cuda/test_gpu_catalogue.py", "tests/iterators/test_gpu_walks.py")
STEPS = (
    Step("smoke", 50, ("-m", "benchmarks.gpu_smoke")),
    Step("tests", 125, ("-m", "benchmarks.gpu_tests")),
    Step("races", 35, ("-m", "benchmarks.stress")),
    _suite("kernel", 60, 1, 1),
    _suite("host", 20, 1, 1),
    _suite("modern", 40, 0.5, 5),
    _suite("arrays", 80, 1.0, 5),
    _suite("folder", 60, 1, 5),
    _suite("feed", 40, 1, 15),
)
ON_DEMAND = (Step("memcheck", 480, ("-m", "benchmarks.gpu_tests", "--memcheck", "--processes", "4", *_KERNELS)),)
"""Only where they are named."""

_REPORTING = ("benchmarks.gpu_tests", "benchmarks.gpu_smoke")


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
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"for {FIGURES} and {REPORTS} (default: {RESULTS.name})"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="what an earlier call left, perhaps elsewhere: go on from there"
    )
    parser.add_argument("--budget", type=float, default=525, help="seconds in all (default 525)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[step.name for step in (*STEPS, *ON_DEMAND)],
        default=[],
        metavar="STEP",
        help=f"of {', '.join(step.name for step in (*STEPS, *ON_DEMAND))}: these, whether or not they have run",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="without a GPU: every step once, tiny, on the tests' stand-ins for one"
    )
    parser.add_argument("--peers", nargs="*", metavar="PEER", help="as in `python -m benchmarks run`")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.budget
    reason = None if options.rehearse else problem()
    if reason is not None:
        print(f"The GPU round needs a GPU, and there is none here: {reason}", file=sys.stderr)
        print("Nothing was run and nothing was written. The CPU round is: python -m benchmarks run", file=sys.stderr)
        print("To try the round itself: python -m benchmarks.gpu_round --rehearse", file=sys.stderr)
        return 2
    if options.rehearse and options.out is not None and options.out.resolve() == RESULTS.resolve():
        parser.error("a rehearsal writes no results: give it another folder with --out")
    folder = options.out or (Path(tempfile.mkdtemp(prefix="gpuseq-rehearsal-")) if options.rehearse else RESULTS)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if options.resume is not None and options.resume.resolve() != folder:
        taken = [name for name in (FIGURES, REPORTS) if (folder / name).exists()]
        if taken:
            parser.error(f"{folder} has {' and '.join(taken)} of its own: nothing is overwritten. Give another --out")
        for name in (FIGURES, REPORTS):
            if (options.resume / name).exists():
                shutil.copyfile(options.resume / name, folder / name)
    out = folder / FIGURES
    empty = {"schema": SCHEMA, "device": "cuda", "smoke": options.rehearse, "suites": {}}
    result = read(out) if out.exists() else empty | ({"rehearsal": True} if options.rehearse else {})
    if bool(result.get("rehearsal")) != options.rehearse:
        parser.error(f"{out} holds {'a rehearsal' if result.get('rehearsal') else 'real figures'}: give another --out")
    result.setdefault("checks", {})
    write(out, result)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the step is ended, and what it found is packed
    with tempfile.TemporaryDirectory(prefix="gpuseq-round-") as kept:
        reports = Path(kept)
        if (folder / REPORTS).exists():
            with tarfile.open(folder / REPORTS) as packed:
                packed.extractall(reports, filter="data")
        try:
            return _run_steps(options, out, reports, deadline)
        finally:
            _pack(reports, folder / REPORTS)
            signal.signal(signal.SIGTERM, before)


def _run_steps(options: argparse.Namespace, out: Path, reports: Path, deadline: float) -> int:
    result = read(out)
    complete = [name for name in result["suites"] if is_complete(result, name)]
    checked = [name for name, check in result["checks"].items() if check["ok"] is not None]
    failed, late = [], []
    for step in plan([] if options.only else [*complete, *checked], options.only):
        left = deadline - time.monotonic()
        if left < LEAST_S:
            late.append(step.name)
            continue
        print(f"== {step.name}", file=sys.stderr, flush=True)
        command = tuple(word for word in step.command if not options.only or word != "--resume")
        limit_s = min(left - GRACE_S, left if options.rehearse else step.limit_s)
        step = replace(step, limit_s=limit_s, command=command)
        if not _run(step, out, reports, rehearse=options.rehearse, peers=options.peers):
            failed.append(step.name)
        elif step.is_suite and not is_complete(read(out), step.name):
            late.append(step.name)
        _pack(reports, out.with_name(REPORTS))
    _print_failures(out)
    if options.rehearse and (idle := idle_rows(read(out))):
        print(f"Said to be on a GPU, and did nothing there: {'; '.join(idle)}", file=sys.stderr)
        failed.append("idle")
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
        return 1
    if late:
        print(f"Out of time: {', '.join(late)}. Call again, with --resume {out.parent} elsewhere.", file=sys.stderr)
        return 3
    print(f"All done: {out}. Now: python -m benchmarks table", file=sys.stderr)
    return 0


def idle_rows(result: dict[str, Any]) -> list[str]:
    """Return what a rehearsal lists as done on a GPU though no kernel ran there, or no file was decoded there.

    Parameters
    ----------
    result : dict
        A result file's content.
    """
    idle = []
    for name, content in result["suites"].items():
        launches, _ = content.get("device_work") or (0, 0)
        raced = [row for row in content["rows"] if "device_work" in row.get("at", {})]
        if not raced and not launches:
            idle.append(name)
        for row in raced:
            launches, decodes = row["at"]["device_work"]
            label = f"{name} | {row['case']} | {row['contender']}"
            if "GPU" in row["contender"] and not launches:
                idle.append(f"{label}: no kernel")
            if "on the GPU" in row["contender"] and not decodes:
                idle.append(f"{label}: no decode")
    return idle


def _pack(reports: Path, target: Path) -> None:
    """Put all reports into one file, in the place of the one before in one step."""
    temporary = target.with_suffix(".new")
    with tarfile.open(temporary, "w:gz", compresslevel=3) as packed:
        for path in sorted(reports.rglob("*")):
            if path.is_file():
                packed.add(path, path.relative_to(reports).as_posix())
    temporary.replace(target)


def _run(step: Step, out: Path, reports: Path, *, rehearse: bool = False, peers: Sequence[str] | None = None) -> bool:
    command = [sys.executable, *step.command]
    if step.is_suite:
        command += ["--json", str(out), "--budget", str(step.limit_s), *(["--smoke"] if rehearse else [])]
        command += ["--seconds", "0.02", "--rounds", "1"] if rehearse else []
        command += [] if peers is None else ["--peers", *peers]
    elif any(module in step.command for module in _REPORTING):
        command += ["--reports", str(reports / step.name)]
        if rehearse and "benchmarks.gpu_smoke" in step.command:
            command += ["--seconds", str(step.limit_s)]
    elif rehearse:
        command += ["--smoke", "--iterations", "2", "--epochs", "2"]
    started = time.monotonic()
    # Into a file: what is killed has said it, and it is packed with the rest.
    log = reports / f"{step.name}-{sum(1 for _ in reports.glob(f'{step.name}-*.txt'))}.txt"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environ(rehearse),
            stdout=output,
            stderr=None if step.is_suite else output,
            text=True,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=step.limit_s + (GRACE_S / 2 if step.is_suite else 0))
        except subprocess.TimeoutExpired:
            status = 124
            print(f"{step.name}: stopped after {time.monotonic() - started:.0f} s", file=sys.stderr)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if not step.is_suite:
        text = log.read_text(encoding="utf-8", errors="replace")
        print(text[-20_000:], file=sys.stderr, flush=True)
        check = _check(status, text, time.monotonic() - started, reports / step.name)
        result = read(out)
        # One that was stopped is tried again next time, but what it had found is kept.
        kind = "checks" if status != 124 else "stopped"
        result[kind] = {**result.get(kind, {}), step.name: check}
        write(out, result)
    return status in (0, LEFT_OUT)


def _environ(rehearse: bool) -> dict[str, str]:
    environ = {**os.environ, "GPUSEQ_REQUIRE_GPU": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # Started as a module from anywhere, installed or not. What was brought comes last: what is installed goes before.
    parts = (str(ROOT), os.environ.get("PYTHONPATH", ""), str(BROUGHT) if BROUGHT.is_dir() else "")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, parts))
    if rehearse:
        environ["GPUSEQ_GPU_STANDIN"] = "1"
    environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take three quarters of the device
    kept = work.kept()
    if not os.access(Path.home(), os.W_OK):  # compilers keep their results at home, and fail where they cannot
        for name in ("CUPY_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "KERAS_HOME", "XDG_CACHE_HOME"):
            environ.setdefault(name, str(kept / name.lower()))
        environ.setdefault("CUDA_CACHE_PATH", str(kept / "cuda_cache"))
    return environ


def _check(status: int, text: str, seconds: float, reports: Path) -> dict[str, Any]:
    last = (text.strip().splitlines() or [""])[-1]
    found: dict[str, Any] = {}
    said: Any
    if any(reports.rglob("report-*.json")):
        found = merged(reports)
        said = {name: found[name] for name in COUNTS}
    else:
        try:
            said = json.loads(last)
        except ValueError:
            said = last.strip("= ")
    more = {name: found[name] for name in ("failures", "skips", "running") if found.get(name)}
    if status == 124 and (reports / "smoke.json").exists():
        said = json.loads((reports / "smoke.json").read_text(encoding="utf-8"))
    ok = None if status == LEFT_OUT else status == 0
    return {"ok": ok, "status": status, "said": said, "took_s": round(seconds, 1), **more, "environment": describe()}


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
