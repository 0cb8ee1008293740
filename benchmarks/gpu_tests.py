"""The tests marked ``gpu``, in several processes at once: most of their time goes into compiling kernels, on one core.

Each process writes a report while it runs (`benchmarks.suite_report`); the last line of the output is all of them as
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpuseq.base.machine import cpu_count

from . import REHEARSES
from .environment import ROOT

__all__ = ["folders", "main", "merged"]

# Warnings are errors where the versions are known, in CI; here they may be any.
PYTEST = (
    *("-m", "pytest", "-m", "gpu", "-q", "--no-header", "-rN", "--tb=short", "-p", "no:cacheprovider"),
    *("-p", "benchmarks.suite_report", "-W", "default", "--disable-warnings"),
    *("-o", "junit_family=xunit1", "-o", "faulthandler_timeout=60"),
)
COUNTS = ("collected", "passed", "failed", "skipped")
NO_TESTS = 5


def folders() -> tuple[str, ...]:
    """Return the folders of tests: the kernels' own first, the walks beside Keras last."""
    first = [folder for folder in ("tests/ops/cuda", "tests/feed") if (ROOT / folder).is_dir()]
    rest = sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("*") if any(path.rglob("test_*.py")))
    return *first, *(folder for folder in rest if folder not in first)


def merged(reports: Path) -> dict[str, Any]:
    """Return the reports of all processes in a folder as one; of those that were killed, what they had written.

    Parameters
    ----------
    reports : Path
        The folder.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(reports.glob("report-*.json"))]
    skips: dict[str, int] = {}
    for report in found:
        for reason, count in report["skips"].items():
            # A module that is left out is left out by each of them.
            skips[reason] = max(skips.get(reason, 0), count) if ".py" in reason else skips.get(reason, 0) + count
    return {
        **{name: sum(report[name] for report in found) for name in COUNTS},
        "skipped": sum(skips.values()),
        "failures": [failure for report in found for failure in report["failures"]],
        "skips": skips,
        "running": [report["running"] for report in found if report["running"]],
        "slowest": sorted((entry for report in found for entry in report["slowest"]), reverse=True)[:15],
    }


def main(arguments: list[str] | None = None) -> int:
    """Run them; return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_tests", description=__doc__)
    parser.add_argument("--reports", type=Path, required=True, metavar="FOLDER", help="for reports, JUnit's and output")
    parser.add_argument("--processes", type=int, default=max(1, min(8, cpu_count() // 2)), help="default %(default)s")
    parser.add_argument(
        "--memcheck", action="store_true", help="under compute-sanitizer, each array in memory of its own; slow"
    )
    parser.add_argument("tests", nargs="*", default=folders(), help="files or folders; all of them by default")
    options = parser.parse_args(arguments)
    prefix, more = [sys.executable], []
    if options.memcheck:
        sanitizer = shutil.which("compute-sanitizer")
        if sanitizer is None or REHEARSES:
            print(json.dumps("not run: there is no compute-sanitizer on PATH" if not REHEARSES else "not rehearsed"))
            return 0
        prefix = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", "--print-limit", "20", *prefix]
        more = ["-p", "benchmarks.no_pool"]
    reports: Path = options.reports.resolve()
    reports.mkdir(parents=True, exist_ok=True)
    for stale in [*reports.glob("report-*.json"), *reports.glob("junit-*.xml"), *reports.glob("output-*.txt")]:
        stale.unlink()
    running = []
    for number in range(options.processes):
        report = {
            "GPUSEQ_SUITE_REPORT": str(reports / f"report-{number}.json"),
            "GPUSEQ_SUITE_PART": f"{number}/{options.processes}",
        }
        command = [*prefix, *PYTEST, *more, f"--junit-xml={reports / f'junit-{number}.xml'}", *options.tests]
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
    print(json.dumps({name: value for name, value in merged(reports).items() if name not in ("failures", "slowest")}))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
