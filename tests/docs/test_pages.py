"""The documentation against the code: messages, examples, public names and files that are really there."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpuseq

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

sys.path.insert(0, str(DOCS / "_ext"))

import made  # noqa: E402
import pictures  # noqa: E402


@cache
def messages() -> list[str]:
    """Return every text in the package, an f-string as its parts with an ellipsis for each value."""
    found = []
    for path in (ROOT / "gpuseq").rglob("*.py"):
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


def stand_in(text: str, pieces: list[str]) -> bool:
    """Return whether the pieces stand in the text, one behind the other."""
    end = 0
    for piece in pieces:
        start = text.find(piece, end)
        if start < 0:
            return False
        end = start + len(piece)
    return True


@pytest.mark.parametrize("heading", headings())
def test_every_message_is_in_the_code(heading: str) -> None:
    """Each piece of a heading between ellipses stands, in order, in one text of the code."""
    pieces = [piece.strip() for piece in heading.split("…")]
    assert sum(map(len, pieces)) > 12, "too little to look for"
    assert [text for text in messages() if stand_in(text, pieces)], f"no text in gpuseq/*.py matches {pieces}"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_first_steps_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    code = blocks("start.md")
    assert len(code) == 4
    for block in code:
        exec(block, namespace)
    assert capsys.readouterr().out.startswith("(32, 64, 64, 3) float32")
    assert isinstance(namespace["batch_masks"], np.ndarray)


@pytest.mark.parametrize("page", [str(page.relative_to(DOCS)) for page in PAGES])
def test_python_in_a_page_is_python(page: str) -> None:
    for block in blocks(page):
        ast.parse(block)


def test_every_public_name_has_its_entry() -> None:
    text = "\n".join(made.API.values())
    named = set(re.findall(r"auto(?:class|function|exception):: (\w+)", text))
    assert set(gpuseq.__all__) - named == set()
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    used = re.findall(r"^<!-- made: api (\w+) -->$", pages, re.MULTILINE)
    assert sorted(used) == sorted(made.API)


def test_files_that_pages_name_are_there() -> None:
    missing = []
    for page in PAGES:
        for path in re.findall(r"`((?:docker|notebooks|tests|kernels|benchmarks)/[\w./-]+)`", page.read_text()):
            if not (ROOT / path).exists():
                missing.append(f"{page.name}: {path}")
    assert missing == []


def test_the_architecture_names_all_modules_and_no_others() -> None:
    """By their path below the package; those of a room that is one file stand in the table of rooms."""
    page = (DOCS / "architecture.md").read_text()
    named = {*re.findall(r"`((?:\w+/)*\w+)\.py`", page), *re.findall(r"^\| \d+ \| `(\w+)` \|", page, re.MULTILINE)}
    package = ROOT / "gpuseq"
    there = {path.relative_to(package).with_suffix("").as_posix() for path in package.rglob("*.py")}
    files = {name for name in there if not name.endswith("__init__")}
    assert files - named == set()
    assert {name for name in named - files if not (package / name).is_dir()} == set()


@pytest.mark.parametrize("page", [str(page.relative_to(DOCS)) for page in PAGES])
def test_what_is_made_of_the_code_is_current(page: str) -> None:
    """But for the width of lines, which argparse sets a little differently in each version of Python."""
    text = (DOCS / page).read_text()
    assert made.render(text).split() == text.split(), "run: python docs/_ext/made.py"


def test_much_is_made_of_the_code() -> None:
    used = {name for page in PAGES for name in re.findall(r"^<!-- made: (.+) -->$", page.read_text(), re.MULTILINE)}
    assert {name.split()[0] for name in used} == set(made.MAKERS)
    assert len(used) > 30


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
def test_pictures_show_what_the_code_draws(name: str) -> None:
    """To what JPEG keeps, and another Pillow's text."""
    drawn = np.asarray(pictures.PICTURES[name]()[0].convert("RGB"), float)
    kept = np.asarray(Image.open(DOCS / "pictures" / f"{name}.jpg"), float)
    assert kept.shape == drawn.shape, "run: python docs/_ext/made.py"
    assert np.abs(kept - drawn).mean() < 4, "run: python docs/_ext/made.py"


@pytest.mark.parametrize("page", [str(page.relative_to(DOCS)) for page in PAGES])
def test_a_page_is_plain_markdown(page: str) -> None:
    """Nothing that a browser of the repository would show as code, or as punctuation."""
    text = (DOCS / page).read_text()
    assert re.findall(r"^```\{.*", text, re.MULTILINE) == []
    prose = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    assert re.findall(r"^: .*", prose, re.MULTILINE) == []
    assert len(prose.split()) > 4, "an empty page"


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["../README.md", *(str(page.relative_to(DOCS)) for page in PAGES)])
def test_links_lead_somewhere(page: str) -> None:
    here = (DOCS / page).resolve()
    text = re.sub(r"```.*?```", "", here.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (here.parent / path).resolve() if path else here
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


def test_every_page_is_linked_from_the_first_one() -> None:
    seen: set[Path] = set()
    todo = [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", page.read_text()):
            there = (page.parent / target).resolve()
            if there.is_relative_to(DOCS):
                todo.append(there)
    assert set(PAGES) - seen == set()


def test_the_architecture_page_lists_every_room() -> None:
    text = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"^\| \d+ \| `(\w+)` \| \S", text, re.MULTILINE))
    package = ROOT / "gpuseq"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert named == rooms - {"__init__"}
