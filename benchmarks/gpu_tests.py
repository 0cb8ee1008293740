"""The tests marked ``gpu``, in several processes at once: most of their time goes into compiling kernels, on one core.

Each process writes a report while it runs (`benchmarks.suite_report`); the last line of the output is all of them as
one JSON object. What an earlier call has run is not run again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpuseq.base.threads import cpu_count

from . import REHEARSES
from .environment import ROOT

__all__ = ["COUNTS", "LEFT_OUT", "main", "merged", "test_files"]

# Warnings are errors where the versions are known, in CI; here they may be any. And what cannot be imported here is one
# failure, and the rest runs.
PYTEST = (
    *("-m", "pytest", "-m", "gpu", "-q", "--no-header", "-rN", "--tb=short", "-p", "no:cacheprovider"),
    *("-p", "benchmarks.suite_report", "-W", "default", "--disable-warnings", "--continue-on-collection-errors"),
    *("-o", "junit_family=xunit1", "-o", "faulthandler_timeout=60"),
)
COUNTS = ("collected", "passed", "failed", "skipped")
NO_TESTS = 5
LEFT_OUT = 77
"""Status of a step that cannot be done here; the last line says why."""

_MARKED = re.compile(
    r"^\s*(@pytest\.mark\.gpu\b|pytestmark\s*=.*\bmark\.gpu\b|.*\bmarks=.*\bmark\.gpu\b)", re.MULTILINE
)


def test_files() -> tuple[str, ...]:
    """Return the files that hold such tests, the kernels' own first: what others import may be missing here."""
    found = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if _MARKED.search(path.read_text("utf-8"))]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    rank = {"ops": 0, "feed": 1, "decode": 2}
    return tuple(sorted(names, key=lambda name: (rank.get(name.split("/")[1], 3), name)))


def merged(reports: Path) -> dict[str, Any]:
    """Return the reports of all processes and calls as one; of those that were killed, what they had written.

    Parameters
    ----------
    reports : Path
        The folder, with one folder for each call.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(reports.rglob("report-*.json"))]
    skips: dict[str, int] = {}
    for report in found:
        for reason, count in report["skips"].items():
            # A module that is left out is left out by each of them.
            skips[reason] = max(skips.get(reason, 0), count) if ".py" in reason else skips.get(reason, 0) + count
    failures = {failure["test"]: failure for report in found for failure in report["failures"]}
    last = max((path.parent for path in reports.rglob("report-*.json")), default=reports)
    return {
        **{name: sum(report[name] for report in found) for name in COUNTS},
        # Of earlier calls only what they came to: the rest is collected again.
        "collected": sum(
            json.loads(path.read_text(encoding="utf-8"))["collected"] for path in last.glob("report-*.json")
        )
        + sum(
            len(json.loads(path.read_text(encoding="utf-8"))["finished"])
            for path in reports.rglob("report-*.json")
            if path.parent != last
        ),
        "failed": len(failures),
        "skipped": sum(skips.values()),
        "failures": list(failures.values()),
        "skips": skips,
        "running": [report["running"] for report in found if report["running"]],
        "slowest": sorted((entry for report in found for entry in report["slowest"]), reverse=True)[:15],
    }


def main(arguments: list[str] | None = None) -> int:
    """Run them; return 1 if any failed, `LEFT_OUT` where they cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_tests", description=__doc__)
    parser.add_argument("--reports", type=Path, required=True, metavar="FOLDER", help="for reports, JUnit's and output")
    parser.add_argument("--processes", type=int, default=max(1, min(14, cpu_count() - 2)), help="default %(default)s")
    parser.add_argument(
        "--memcheck", action="store_true", help="under compute-sanitizer, each array in memory of its own; slow"
    )
    parser.add_argument("tests", nargs="*", help="files or folders; by default the files that hold such tests")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("pytest") is None:
        print(json.dumps("not run: pytest is not installed, and was not brought (python -m benchmarks.bring)"))
        return LEFT_OUT
    prefix, more = [sys.executable], []
    if options.memcheck:
        sanitizer = shutil.which("compute-sanitizer")
        if sanitizer is None or REHEARSES:
            print(json.dumps("not run: there is no compute-sanitizer on PATH" if not REHEARSES else "not rehearsed"))
            return LEFT_OUT
        prefix = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", "--print-limit", "20", *prefix]
        more = ["-p", "benchmarks.no_pool"]
    earlier = [json.loads(path.read_text("utf-8")) for path in options.reports.resolve().rglob("report-*.json")]
    reports: Path = options.reports.resolve() / f"call-{sum(1 for _ in options.reports.resolve().glob('call-*')):02d}"
    reports.mkdir(parents=True)
    finished = reports / "finished-before.json"
    finished.write_text(json.dumps([name for report in earlier for name in report["finished"]]), encoding="utf-8")
    running = []
    for number in range(options.processes):
        report = {
            "GPUSEQ_SUITE_REPORT": str(reports / f"report-{number}.json"),
            "GPUSEQ_SUITE_PART": f"{number}/{options.processes}",
            "GPUSEQ_SUITE_FINISHED": str(finished),
        }
        tests = options.tests or test_files()
        command = [*prefix, *PYTEST, *more, f"--junit-xml={reports / f'junit-{number}.xml'}", *tests]
        output = (reports / f"output-{number}.txt").open("w", encoding="utf-8")
        with output:
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | report, stdout=output, stderr=output)
        running.append((number, process))
    bad = False
    for number, process in running:
        if process.wait() not in (0, NO_TESTS):
            bad = True
            text = (reports / f"output-{number}.txt").read_text(encoding="utf-8", errors="replace")
            print(f"== process {number}, status {process.returncode}:\n{text[-6000:]}")
    found = merged(options.reports.resolve())
    print(json.dumps({name: value for name, value in found.items() if name not in ("failures", "slowest")}))
    return int(bad or bool(found["failures"]))


if __name__ == "__main__":
    sys.exit(main())
