"""The notebooks as pages, with what they print and draw: ``python docs/_ext/notebooks.py`` executes them on the CPU.

The pages are kept in the repository, pictures and all, so that building the documentation executes nothing. A test says
where a page's code or text is no longer its notebook's.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
NOTEBOOKS = ROOT / "notebooks"
PAGES = DOCS / "notebooks"
NAMES = ("quickstart", "migrating", "modern", "segmentation", "training", "the_gpu")
TIMES = re.compile(r"\d (us|ms)\b")
NUM_LINES = 30
"""Of an output; what is more is left out."""


def cells_of(name: str) -> list[tuple[str, str]]:
    """Return the cells of a notebook as it is written: "markdown" or "code", and the text."""
    import jupytext

    return [(cell.cell_type, cell.source) for cell in jupytext.read(NOTEBOOKS / f"{name}.py").cells]


def block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def shortened(text: str) -> str:
    """Return what a cell printed, without this machine's paths, colours, and cut to a readable length."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(f"{ROOT}/", "").rstrip()
    text = re.sub(r"/tmp/[\w./-]*", "/tmp/...", text)
    lines = [line if len(line) <= 160 else f"{line[:157]}..." for line in text.splitlines()]
    return "\n".join(lines if len(lines) <= NUM_LINES else [*lines[:NUM_LINES], "..."])


def picture(data: str, path: Path) -> None:
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=85)


def page(name: str, executed: Any) -> str:
    """Return an executed notebook as Markdown, and write its pictures beside those of the other pages."""
    parts, num_pictures = [], 0
    for cell in executed.cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(block("python", cell.source))
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                num_pictures += 1
                file = DOCS / "pictures" / "notebooks" / f"{name}-{num_pictures}.jpg"
                picture(data["image/png"], file)
                parts.append(f"![What the cell draws]({os.path.relpath(file, PAGES)})")
            elif TIMES.search(output.get("text", "")):
                continue  # those of the reader's machine are what counts, and no others
            elif text := shortened(output.get("text", "") or data.get("text/plain", "")):
                parts.append(block("text", text))
    link = f"*Executed on the CPU. The notebook itself: `notebooks/{name}.ipynb`.*"
    parts.insert(1, link)
    return "\n\n".join(parts) + "\n"


def main(names: list[str]) -> None:
    """Execute notebooks and write their pages."""
    import jupytext
    from nbclient import NotebookClient

    os.environ |= {"GPUSEQ_DEVICE": "cpu", "KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)}
    PAGES.mkdir(exist_ok=True)
    for name in names or NAMES:
        notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": "/tmp"}}).execute()
        (PAGES / f"{name}.md").write_text(page(name, notebook), encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
