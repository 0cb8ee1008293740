"""The built pages in Chromium, at 390, 1280 and 1920 pixels: nothing cut off, no console error, a search that finds.

Skipped where PySide6-WebEngine is not installed, which brings a Chromium from PyPI and is large, so that no extra has
it: ``pip install PySide6-WebEngine`` and ``python -m pytest tests/docs/test_browser.py``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSER = Path(__file__).with_name("browser.py")

pytest.importorskip("sphinx", reason="the docs extra brings it")
if importlib.util.find_spec("PySide6") is None or importlib.util.find_spec("PySide6.QtWebEngineWidgets") is None:
    pytest.skip("no browser: PySide6-WebEngine brings one", allow_module_level=True)


def seen(pages: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(BROWSER), str(pages)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("html")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", "docs", str(out)], cwd=ROOT, check=True)
    return out


@pytest.fixture(scope="module")
def found(pages: Path) -> dict[str, Any]:
    return seen(pages)


def test_nothing_is_cut_off(found: dict[str, Any]) -> None:
    assert found["pages"] > 20
    assert found["wrong"] == {}


def test_the_console_has_no_errors(found: dict[str, Any]) -> None:
    assert [text for text in found["console"] if "[PST]" not in text] == []


def test_the_search_finds(found: dict[str, Any]) -> None:
    assert found["search"]["segmentation"][0].startswith("segmentation.html")
    assert any(target.startswith("segmentation.html") for target in found["search"]["mixup"])
    assert any(
        target.startswith("api/frameworks.html#gpuseq.keras.SaveState") for target in found["search"]["SaveState"]
    )


def test_what_is_wrong_is_seen(pages: Path, tmp_path: Path) -> None:
    """A table that is too wide, a line of code that is hidden, a picture that is not there, an error on the console."""
    text = (pages / "start.html").read_text()
    wrong = (
        "<div style='width: 3000px'>wide</div><img src='absent.png' width='9' height='9'>"
        f"<div style='overflow: auto'><span style='white-space: nowrap'>{'long ' * 400}</span></div>"
        "<script>console.error('oh dear')</script>"
    )
    article = '<article class="bd-article">'
    assert article in text
    for name in ("_static", "search.html", "searchindex.js"):
        (tmp_path / name).symlink_to(pages / name)
    (tmp_path / "start.html").write_text(text.replace(article, article + wrong, 1))
    found = seen(tmp_path)
    lines = " ".join(found["wrong"]["start.html at 1280"])
    for said in (
        "wider than its column: div wide",
        "cut off: div long",
        "no picture: absent.png",
    ):
        assert said in lines
    assert any("oh dear" in text for text in found["console"])
