"""A type checker finds each deliberate mistake in `mistakes.py`, and none in `right.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MARK = re.compile(r"# mistake: ([\w-]+)$")
FOUND = re.compile(r"(\w+)\.py:(\d+): error: .*\[([\w-]+)\]$")


def findings() -> set[tuple[str, int, str]]:
    """File, line and code of all that mypy says of both files, as strict as with the package."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--no-color-output"]
    files = [str(HERE / name) for name in ("mistakes.py", "right.py")]
    run = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in run.stdout.splitlines() if ": note:" not in line]
    found = [FOUND.search(line) for line in lines]
    assert all(found), f"{run.stdout}\n{run.stderr}"
    return {(match[1], int(match[2]), match[3]) for match in found if match}


def marked() -> set[tuple[str, int, str]]:
    lines = (HERE / "mistakes.py").read_text().splitlines()
    return {("mistakes", number, match[1]) for number, line in enumerate(lines, 1) if (match := MARK.search(line))}


def test_each_mistake_is_found_and_nothing_else() -> None:
    wanted = marked()
    assert len(wanted) > 40
    assert findings() == wanted
