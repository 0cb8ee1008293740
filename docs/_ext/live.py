"""What the pages take from the code while they are built: layers, tolerances, versions, help texts and pictures.

Nothing of this is typed into a page, so nothing of it can be out of date. Each is a directive::

    ```{live} layers
    ```
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import re
import sys
import textwrap
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from pictures import PICTURES
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


def raw(text: str) -> list[nodes.Node]:
    return [nodes.raw("", text, format="html")]


def listing(text: str, language: str = "text") -> list[nodes.Node]:
    return [nodes.literal_block(text, text, language=language)]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[nodes.Node]:
    """Return a table; text between backticks is set as code."""

    def cells(row: tuple[str, ...]) -> nodes.row:
        made = nodes.row()
        for text in row:
            paragraph = nodes.paragraph()
            for index, part in enumerate(text.split("`")):
                if part:
                    paragraph += nodes.literal(part, part) if index % 2 else nodes.Text(part)
            entry = nodes.entry()
            entry += paragraph
            made += entry
        return made

    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    top, body = nodes.thead(), nodes.tbody()
    top += cells(head)
    body += [cells(row) for row in rows]
    group += [top, body]
    made = nodes.table()
    made += group
    return [made]


def layers() -> list[nodes.Node]:
    """The layers of the package, from the contract that import-linter holds it to, top first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(item for item in contracts if item["id"] == "layers")
    lines = []
    for layer in contract["layers"]:
        cells = ""
        for name in re.split(r"[|:]", layer):
            module = name.strip().strip("()")
            exists = (ROOT / "gpuseq" / f"{module}.py").is_file()
            cells += "" if not exists else f"<code>{html.escape(module)}</code>"
        lines.append(f"<div>{cells}</div>" if cells else "")
    return raw(f'<div class="layers-stack">{"".join(lines)}</div>')


def tolerances() -> list[nodes.Node]:
    """The bounds that the tests hold, from the tests."""
    sys.path.insert(0, str(ROOT))
    from tests import tolerance

    lines = (ROOT / "tests" / "tolerance.py").read_text().splitlines()
    rows = []
    for name in ("EXACT", "PIXELS", "NORMALISED"):
        at = next(index for index, line in enumerate(lines) if line.startswith(f"{name} ="))
        value = getattr(tolerance, name)
        rows.append((lines[at + 1].strip('"'), f"{value:g}" if value else "none: bit for bit"))
    return table(("What", "Largest difference, of 255"), rows)


def versions() -> list[nodes.Node]:
    """The oracles that the tests ask for, and the versions that this page was built beside."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    wanted = {re.split(r"[=<>\[]", line)[0]: line for line in extra}
    wanted["pillow"] = next(line for line in (*extra, "pillow>=10.4") if line.startswith("pillow"))
    rows = []
    for name, shown, what in (
        ("keras", "Keras", "names, arguments, defaults, order of draws, labels, pixels"),
        ("pillow", "Pillow", "decoding, resizing, brightness"),
        ("scipy", "SciPy", "the affine map and the splines"),
        ("numpy", "NumPy", "the streams of random numbers"),
    ):
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "not installed"
        rows.append((shown, f"`{wanted.get(name, 'numpy>=1.26')}`", here, what))
    return table(("Oracle", "Asked for by the tests", "Beside this build", "Of what"), rows)


def help_text(command: str) -> Callable[[], list[nodes.Node]]:
    """The help of a command, as the terminal shows it."""

    def make() -> list[nodes.Node]:
        from gpuseq.cli import build_parser

        parser = build_parser()
        (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        chosen = parser if command == "gpuseq" else subparsers.choices[command]
        chosen.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100)
        return listing(chosen.format_help())

    return make


def picture(name: str) -> Callable[[], list[nodes.Node]]:
    """A picture drawn now, as a data URI."""

    def make() -> list[nodes.Node]:
        image, caption = PICTURES[name]()
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        text = html.escape(caption)
        return raw(
            f'<figure class="live"><img alt="{text}" width="{image.width}" height="{image.height}" '
            f'src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )

    return make


def kernels() -> list[nodes.Node]:
    """The kernels' files and what their heads say, and the parameters of each kernel, from the launcher's table."""
    from gpuseq.kernels import SIGNATURES

    made: list[nodes.Node] = []
    for path in sorted((ROOT / "kernels").glob("*.cu*")):
        head = []
        for line in path.read_text().splitlines():
            if not line.startswith("//"):
                break
            head.append(line.removeprefix("//").strip())
        text = " ".join(head).partition("  ")[0]
        made += [nodes.rubric(path.name, path.name), nodes.paragraph(text, text)]
        for name, (file, parameters) in SIGNATURES.items():
            if file == path.name:
                call = f"{name}({', '.join(f'{kind} {word}' for word, kind in parameters)})"
                made += listing("\n".join(textwrap.wrap(call, 92, subsequent_indent="    ")))
    return made


COMMANDS = ("gpuseq", "demo", "doctor", "preview", "check", "fit", "bench")
MAKERS: dict[str, Callable[[], list[nodes.Node]]] = {
    "kernels": kernels,
    "layers": layers,
    "tolerances": tolerances,
    "versions": versions,
    **{f"help-{command}": help_text(command) for command in COMMANDS},
    **{f"picture-{name}": picture(name) for name in PICTURES},
}


class Live(SphinxDirective):
    """Put what a maker of `MAKERS` returns into the page."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        for depends in (ROOT / "pyproject.toml", ROOT / "tests" / "tolerance.py", Path(__file__)):
            self.env.note_dependency(str(depends))
        try:
            return MAKERS[self.arguments[0]]()
        except KeyError:
            raise self.error(f"live knows {', '.join(MAKERS)}; got {self.arguments[0]!r}") from None


def put_the_kernels_own_page_first(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let kernels/README.md, where there is one, stand before the list of files and in the place of the rest."""
    readme = ROOT / "kernels" / "README.md"
    if docname == "kernels" and readme.is_file():
        files = source[0].index("## The files")
        source[0] = f"{readme.read_text()}\n\n{source[0][files:]}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("live", Live)
    app.connect("source-read", put_the_kernels_own_page_first)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
