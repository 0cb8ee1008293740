"""What only the built documentation has: the tree of pages, whole files as pages, and the reference from docstrings.

The pages themselves are plain Markdown, and read the same in a browser of the repository.
"""

from __future__ import annotations

from typing import Any

import made
from sphinx.application import Sphinx

TREE = {
    "index": ("guide", "design", "api/index", "development"),
    "guide": (
        "start",
        "migrating",
        "files",
        "feeding",
        "explain",
        "notebooks",
        "clusters",
        "command",
        "troubleshooting",
    ),
    "design": ("parity", "architecture", "kernels", "benchmarks"),
    "development": ("contributing", "changelog"),
    "api/index": ("generator", "iterators", "functions", "frameworks", "errors", "layers"),
}
WHOLE_FILES = {
    "benchmarks": "../benchmarks/README.md",
    "changelog": "../CHANGELOG.md",
    "contributing": "../CONTRIBUTING.md",
}


def complete(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add to a page what Sphinx alone understands."""
    if docname in WHOLE_FILES:
        source[0] = f"```{{include}} {WHOLE_FILES[docname]}\n:relative-images:\n```\n"
    if docname in TREE:
        pages = "\n".join(TREE[docname])
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    readme = made.ROOT / "kernels" / "README.md"
    if docname == "kernels" and readme.is_file():
        # The kernels' own page stands before the list of files, in the place of the short one.
        source[0] = f"{readme.read_text()}\n\n{source[0][source[0].index('## The files') :]}"

    def reference(match: Any) -> str:
        name, *arguments = match.group(2).split()
        if name != "api":
            return str(match.group(0))
        return f"```{{eval-rst}}\n{made.API[arguments[0]].strip()}\n```\n"

    source[0] = made.BLOCK.sub(reference, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what completes the pages."""
    app.connect("source-read", complete)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
