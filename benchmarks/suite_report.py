"""A pytest plugin that writes down how the tests do while they run: what is killed half-way has left its findings.

``python -m pytest -p benchmarks.suite_report`` writes the JSON file that ``GPUSEQ_SUITE_REPORT`` names.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Report", "pytest_configure"]

MESSAGE_LINES = 12


class Report:
    """Counts, failures in full, skips by reason, and the test that runs now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0.0
        self._started = time.monotonic()
        self._calls: list[tuple[float, str]] = []
        self.collected = self.passed = 0
        self.finished: list[str] = []
        self.failures: list[dict[str, str]] = []
        self.skips: Counter[str] = Counter()
        self.running: str | None = None
        self.done = False

    def write(self, *, at_once: bool = False) -> None:
        """Write the file, at most once a second unless it is urgent."""
        if not at_once and time.monotonic() - self._written < 1:
            return
        self._written = time.monotonic()
        content = {
            "done": self.done,
            "collected": self.collected,
            "passed": self.passed,
            "failed": len(self.failures),
            "skipped": sum(self.skips.values()),
            "seconds": round(time.monotonic() - self._started, 1),
            "running": self.running,
            "failures": self.failures,
            "finished": self.finished,
            "skips": dict(self.skips.most_common()),
            "slowest": [[round(seconds, 2), name] for seconds, name in sorted(self._calls, reverse=True)[:15]],
        }
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(self._path)

    def _fail(self, name: str, text: str) -> None:
        self.failures.append({"test": name, "message": "\n".join(text.splitlines()[-MESSAGE_LINES:])})
        self.write(at_once=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Keep the part of one of several processes: every so manieth test, so that all begin with the same files."""
        number, _, processes = os.environ.get("GPUSEQ_SUITE_PART", "0/1").partition("/")
        before = set()
        if path := os.environ.get("GPUSEQ_SUITE_FINISHED"):
            before = set(json.loads(Path(path).read_text(encoding="utf-8")))
        left = [item for item in items if item.nodeid not in before]
        kept = left[int(number) :: int(processes)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept

    def pytest_collection_finish(self, session: Any) -> None:
        self.collected = len(session.items)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._fail(f"{report.nodeid} (not collected)", str(report.longrepr))
        elif report.skipped:
            self.skips[_reason(report)] += 1

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running = nodeid
        self.write()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if (report.when == "call" or not report.passed) and report.nodeid not in self.finished[-1:]:
            self.finished.append(report.nodeid)
        if report.failed:
            self._fail(report.nodeid + ("" if report.when == "call" else f" ({report.when})"), str(report.longrepr))
        elif report.skipped:
            self.skips[_reason(report)] += 1
        elif report.when == "call":
            self.passed += 1
        if report.when == "call":
            self._calls.append((report.duration, report.nodeid))
        self.write()

    def pytest_sessionfinish(self) -> None:
        self.running, self.done = None, True
        self.write(at_once=True)


def _reason(report: Any) -> str:
    """Return why a test or a module was left out, with its file where it is a module."""
    text = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")
    return text if "::" in report.nodeid else f"{report.nodeid}: {text}"


def pytest_configure(config: Any) -> None:
    """Take part where a file is named."""
    if path := os.environ.get("GPUSEQ_SUITE_REPORT"):
        config.pluginmanager.register(Report(Path(path)))
