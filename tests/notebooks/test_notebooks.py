"""The notebooks: each `.ipynb` is its `.py`, carries no outputs, and runs from top to bottom on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("migrating", "modern", "quickstart", "segmentation", "the_gpu", "training")
PICTURES = {"migrating": 4, "modern": 2, "quickstart": 2, "segmentation": 3, "the_gpu": 0, "training": 0}
NEEDS = {"migrating": ("keras", "scipy", "torch"), "modern": ("torch",), "training": ("keras", "torch")}

jupytext = pytest.importorskip("jupytext", reason="the notebooks extra brings it")


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def stored(name: str) -> Any:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())


def test_every_notebook_is_here_and_documented() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == list(NAMES)
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == list(NAMES)
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert [name for name in NAMES if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_two_files_agree(name: str) -> None:
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    assert cells(stored(name)) == cells(script), "run: jupytext --sync notebooks/*.py"
    assert len(cells(script)) > 5


@pytest.mark.parametrize("name", NAMES)
def test_its_page_has_its_text_its_code_and_its_pictures(name: str) -> None:
    page = (ROOT / "docs" / "notebooks" / f"{name}.md").read_text()
    rest = page
    for kind, text in cells(jupytext.read(NOTEBOOKS / f"{name}.py")):
        part = f"```python\n{text}\n```" if kind == "code" else text
        assert part in rest, "run: python docs/_ext/notebooks.py"
        rest = rest.partition(part)[2]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert len(pictures) >= PICTURES[name]
    assert [path for path in pictures if not (ROOT / "docs" / "notebooks" / path).is_file()] == []
    assert str(ROOT) not in page


@pytest.mark.parametrize("name", NAMES)
def test_no_outputs_are_stored(name: str) -> None:
    for cell in stored(name)["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, tmp_path: Path) -> None:
    for module in ("nbconvert", "ipykernel", *NEEDS.get(name, ())):
        # Found, not imported: the kernel is a process of its own.
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: the notebooks and test extras bring it")
    out = tmp_path / f"{name}.ipynb"
    script = NOTEBOOKS / f"{name}.py"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("GPUSEQ_", "PYTHON", "JUPYTER"))}
    done = subprocess.run(
        [sys.executable, "-m", "jupytext", "--to", "ipynb", "--execute", "--output", str(out), str(script)],
        cwd=tmp_path,
        env=clean
        | {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GPUSEQ_DEVICE": "cpu",
            "KERAS_BACKEND": "torch",
            "OMP_NUM_THREADS": "1",
            "IPYTHONDIR": str(tmp_path / "ipython"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = [output for cell in json.loads(out.read_text())["cells"] for output in cell.get("outputs", ())]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
    assert outputs
