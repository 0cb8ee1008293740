"""What only the built documentation has: the tree of pages, whole files as pages, and the reference from docstrings.

The pages themselves are plain Markdown, and read the same in a browser of the repository.
"""

from __future__ import annotations

import re
from typing import Any

import made
from sphinx.application import Sphinx

TREE = {
    "index": (
        "start",
        "migrating",
        "api/index",
        "modern",
        "segmentation",
        "files",
        "feeding",
        "explain",
        "command",
        "clusters",
        "notebooks",
        "troubleshooting",
        "parity",
        "architecture",
        "benchmarks",
    ),
    "notebooks": tuple(
        f"notebooks/{name}" for name in ("quickstart", "migrating", "modern", "segmentation", "training", "the_gpu")
    ),
    "api/index": ("generator", "augmentations", "iterators", "functions", "frameworks", "errors", "layers"),
}
WHOLE_FILES = {"benchmarks": "../benchmarks/README.md"}


def complete(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add to a page what Sphinx alone understands."""
    if docname in WHOLE_FILES:
        source[0] = f"```{{include}} {WHOLE_FILES[docname]}\n:relative-images:\n```\n"
    if docname in TREE:
        pages = "\n".join(TREE[docname])
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"

    def reference(match: Any) -> str:
        name, *arguments = match.group(2).split()
        if name != "api":
            return str(match.group(0))
        return f"```{{eval-rst}}\n{made.API[arguments[0]].strip()}\n```\n"

    source[0] = made.BLOCK.sub(reference, source[0])
    # Files of the repository that are no pages: a browser of the repository follows the link, the built page names it.
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./(C\w+\.md)\)", r"\1 (`\2`)", source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what completes the pages."""
    app.connect("source-read", complete)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
