"""The documentation against the code: messages, examples, public names and files that are really there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import gpuseq

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@cache
def messages() -> list[str]:
    """Return every text in the package, an f-string as its parts with an ellipsis for each value."""
    found = []
    for path in (ROOT / "gpuseq").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
    return found


def headings() -> list[str]:
    return re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


def test_troubleshooting_has_messages() -> None:
    assert len(headings()) > 20
    assert len(set(headings())) == len(headings())


@pytest.mark.parametrize("heading", headings())
def test_every_message_is_in_the_code(heading: str) -> None:
    """Each piece of a heading between ellipses stands, in order, in one text of the code."""
    pieces = [piece.strip() for piece in heading.split("…")]
    pattern = re.compile(".*?".join(re.escape(piece) for piece in pieces), re.DOTALL)
    assert sum(map(len, pieces)) > 12, "too little to look for"
    assert [text for text in messages() if pattern.search(text)], f"no text in gpuseq/*.py matches {pieces}"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_first_steps_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    namespace: dict[str, object] = {}
    code = blocks("start.md")
    assert len(code) == 3
    for block in code:
        exec(block, namespace)
    assert capsys.readouterr().out.startswith("(32, 64, 64, 3) float32")
    assert isinstance(namespace["batch_masks"], np.ndarray)


@pytest.mark.parametrize("page", [str(page.relative_to(DOCS)) for page in PAGES])
def test_python_in_a_page_is_python(page: str) -> None:
    for block in blocks(page):
        ast.parse(block)


def test_every_public_name_has_its_entry() -> None:
    text = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    named = set(re.findall(r"auto(?:class|function|exception):: (\w+)", text))
    assert set(gpuseq.__all__) - named == set()


def test_files_that_pages_name_are_there() -> None:
    missing = []
    for page in PAGES:
        for path in re.findall(r"`((?:docker|notebooks|tests|kernels|benchmarks)/[\w./-]+)`", page.read_text()):
            if not (ROOT / path).exists():
                missing.append(f"{page.name}: {path}")
    assert missing == []


def test_nothing_is_drawn_that_is_not_there() -> None:
    """Every directive of the pages' own names a maker that exists."""
    known = (DOCS / "_ext" / "live.py").read_text() + (DOCS / "_ext" / "pictures.py").read_text()
    used = {name for page in PAGES for name in re.findall(r"^```\{live\} ([\w-]+)$", page.read_text(), re.MULTILINE)}
    assert len(used) > 10
    for name in used:
        assert f'"{name.removeprefix("picture-").removeprefix("help-")}"' in known, name


def test_modules_of_the_architecture_page_exist() -> None:
    text = (DOCS / "architecture.md").read_text()
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in (ROOT / "gpuseq").glob("*.py")}
    assert len(named) > 20
    assert named - there == set()
