"""What the pages take from the code: help texts, layers, tolerances, versions, kernels, files, names and pictures.

It stands in the pages, between two comments, so that a page reads the same in a browser of the repository as in the
built documentation. ``python docs/_ext/made.py`` writes it anew; a test fails where a page is out of date.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

BLOCK = re.compile(r"(<!-- made: ([^\n]+?) -->\n)(.*?)(<!-- /made -->)", re.DOTALL)


def listing(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def table(*rows: tuple[str, ...]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join("---" for _ in rows[0]), *lines[1:]])


def help_text(command: str) -> str:
    """The help of a command, as a terminal of 100 columns shows it."""
    from gpuseq.cli.main import build_parser

    parser = build_parser()
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    chosen = parser if command == "gpuseq" else subparsers.choices[command]
    chosen.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100)
    vars(chosen)["color"] = False  # of Python 3.14, where FORCE_COLOR is set
    return listing(chosen.format_help())


def layers() -> str:
    """The rooms of the package, from the contract that import-linter holds it to, top first, and what each says."""
    rows = [("Row", "Room", "What lives there")]
    rows += [(str(row), f"`{name}`", first_sentences(path_of(name))) for row, name in rooms()]
    return table(*rows)


def modules() -> str:
    """The files of the rooms that are folders, from the top down, and what the head of each says."""
    made = [("File", "What it is for")]
    for _, name in rooms():
        if (folder := path_of(name)).name == "__init__.py":
            paths = (path for path in sorted(folder.parent.rglob("*.py")) if path.name != "__init__.py")
            made += [(f"`{path.relative_to(ROOT / 'gpuseq').as_posix()}`", first_sentences(path)) for path in paths]
    return table(*made)


def rooms() -> Iterator[tuple[int, str]]:
    """The row and the name of each room, top first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    contract = next(item for item in contracts if item["id"] == "rooms")
    for row, layer in enumerate(contract["layers"], 1):
        yield from ((row, name) for name in re.split(r" [|:] ", layer))


def first_sentences(path: Path) -> str:
    """The first paragraph of a file of Python."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return re.sub(r"\s+", " ", text.partition("\n\n")[0]).replace("``", "`")


def tolerances() -> str:
    """The bounds that the tests hold, from the tests: each name is followed by a sentence that says what it bounds."""
    rows = [("What", "Largest difference, of 255")]
    body = ast.parse((ROOT / "tests" / "tolerance.py").read_text()).body
    for bound, sentence in itertools.pairwise(body):
        if isinstance(bound, ast.Assign) and isinstance(sentence, ast.Expr) and isinstance(bound.value, ast.Constant):
            value, text = ast.literal_eval(bound.value), ast.literal_eval(sentence.value)
            rows.append((text, f"{value:g}" if value else "none: bit for bit"))
    return table(*rows)


def versions() -> str:
    """The oracles, and the versions that the tests ask for."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["test"]
    wanted = {re.split(r"[=<>\[]", line)[0]: line for line in extra}
    oracles = (
        ("keras", "Keras", "names, arguments, defaults, order of draws, labels, pixels"),
        ("pillow", "Pillow", "decoding, resizing, brightness"),
        ("scipy", "SciPy", "the affine map and the splines"),
        ("numpy", "NumPy", "the streams of random numbers"),
    )
    asked = {"numpy": "numpy>=1.26", "pillow": "pillow>=10.4"} | wanted
    return table(
        ("Oracle", "The tests ask for", "Of what"), *((shown, f"`{asked[n]}`", what) for n, shown, what in oracles)
    )


def kernels() -> str:
    """The kernels' files and what their heads say, and the parameters of each kernel, from the launcher's table."""
    from gpuseq.ops.cuda.compile import SIGNATURES

    made = []
    for path in sorted((ROOT / "kernels").glob("*.cu*")):
        head = itertools.takewhile(lambda line: line.startswith("//"), path.read_text().splitlines())
        text = " ".join(line.removeprefix("//").strip() for line in head).partition("  ")[0]
        made.append(f"**{path.name}**: {text}")
        for name, (file, parameters) in SIGNATURES.items():
            if file == path.name:
                call = f"{name}({', '.join(f'{kind} {word}' for word, kind in parameters)})"
                made.append(listing("\n".join(textwrap.wrap(call, 92, subsequent_indent="    "))))
    return "\n\n".join(made)


def file(path: str, language: str, start: str = "", end: str = "") -> str:
    """A file of the repository, or what stands in it from the line that starts with `start` to the one before `end`."""
    text = (ROOT / path).read_text()
    if start:
        body = text[text.index(f"\n{start.replace('_', ' ', 1)}") :]
        text = body[: body.index(f"\n{end.replace('_', ' ', 1)}")]
    return listing(text, language)


def picture(name: str) -> str:
    """A picture of `pictures`, which lies beside the pages as a file."""
    from pictures import PICTURES

    _, caption = PICTURES[name]()
    return f"![{caption}](pictures/{name}.jpg)\n\n*{caption}*"


def draw_pictures() -> None:
    from pictures import PICTURES

    (DOCS / "pictures").mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        draw()[0].convert("RGB").save(DOCS / "pictures" / f"{name}.jpg", quality=88, subsampling=0)


# The reference: each block is reStructuredText for the built pages, and a table of the same names for other readers.

API: dict[str, str] = {
    "errors": """
.. currentmodule:: gpuseq

.. autoexception:: GpuseqError
.. autoexception:: MissingDependencyError
.. autoexception:: DeviceError
.. autoexception:: ImageFileError
.. autoexception:: StorageError
""",
    "keras": """
.. automodule:: gpuseq.keras
   :members: to_keras, KerasDataset, SaveState, SetEpoch, Sequence
""",
    "torch": ".. automodule:: gpuseq.torch\n   :members:\n",
    "jax": ".. automodule:: gpuseq.jax\n   :members:\n",
    "tensorflow": ".. automodule:: gpuseq.tensorflow\n   :members:\n",
    "ray": ".. automodule:: gpuseq.ray\n   :members:\n",
    "loader": ".. automodule:: gpuseq.feed.loader\n   :members:\n",
    "sampler": ".. autoclass:: gpuseq.feed.loader.Sampler\n   :members:\n",
    "files": """
.. currentmodule:: gpuseq

.. autofunction:: load_img
.. autofunction:: img_to_array
.. autofunction:: array_to_img
.. autofunction:: save_img
.. autofunction:: list_pictures
.. autofunction:: validate_filename
""",
    "transforms": """
.. currentmodule:: gpuseq

.. autofunction:: apply_affine_transform
.. autofunction:: apply_brightness_shift
.. autofunction:: apply_channel_shift
.. autofunction:: flip_axis
.. autofunction:: transform_matrix_offset_center
""",
    "random": """
.. currentmodule:: gpuseq

.. autofunction:: random_brightness
.. autofunction:: random_channel_shift
.. autofunction:: random_rotation
.. autofunction:: random_shear
.. autofunction:: random_shift
.. autofunction:: random_zoom
""",
    "generator": """
.. currentmodule:: gpuseq

.. autoclass:: ImageDataGenerator
   :members:
   :inherited-members:
""",
    "iterators": """
.. currentmodule:: gpuseq

.. autoclass:: Iterator
   :members:
   :special-members: __len__, __getitem__, __iter__, __next__

.. autoclass:: NumpyArrayIterator
   :members:

.. autoclass:: DirectoryIterator
   :members:

.. autoclass:: DataFrameIterator
   :members:

.. autoclass:: BatchFromFilesMixin
   :members:

.. autoclass:: Sequence
   :members:
   :special-members: __len__, __getitem__, __iter__

.. autofunction:: to_device

.. autoclass:: BatchPlan
   :members:
""",
    "compose": """
.. currentmodule:: gpuseq

.. autoclass:: Compose
   :members: plan, apply, output_size
   :special-members: __call__
""",
    "augmentations": """
.. currentmodule:: gpuseq

.. autoclass:: RandAugment
.. autoclass:: TrivialAugmentWide
.. autoclass:: AutoAugment
.. autoclass:: TimmRandAugment
.. autoclass:: AugMix
.. autoclass:: ColorJitter
.. autoclass:: RandomPhotometricDistort
.. autoclass:: RandomGrayscale
.. autoclass:: RandomPosterize
.. autoclass:: RandomSolarize
.. autoclass:: RandomInvert
.. autoclass:: RandomEqualize
.. autoclass:: RandomAutocontrast
.. autoclass:: RandomAdjustSharpness
.. autoclass:: RandomGamma
.. autoclass:: GaussianBlur
.. autoclass:: RandomAffine
.. autoclass:: RandomRotation
.. autoclass:: RandomPerspective
.. autoclass:: RandomHorizontalFlip
.. autoclass:: RandomVerticalFlip
.. autoclass:: RandomResizedCrop
.. autoclass:: RandomErasing
.. autoclass:: RandomApply
.. autoclass:: RandomChoice
.. autoclass:: RandomOrder
""",
    "program": ".. automodule:: gpuseq.plan.program\n   :members:\n",
    "ops": ".. automodule:: gpuseq.ops.dispatch\n   :members:\n",
    "options": """
.. automodule:: gpuseq.transforms.batch
   :members:

.. automodule:: gpuseq.ops.options
   :members:

.. automodule:: gpuseq.decode.options
   :members:

.. automodule:: gpuseq.plan.ranges
   :members:
""",
    "arrays": ".. automodule:: gpuseq.base.types\n   :members:\n   :exclude-members: SameArray\n",
    "explain": ".. automodule:: gpuseq.iterators.explain\n   :members:\n",
}


def path_of(module: str) -> Path:
    """The file of a module, by its name below the package; "" is the package itself."""
    path = ROOT.joinpath("gpuseq", *module.split(".")) if module else ROOT / "gpuseq"
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def definitions(module: str) -> dict[str, ast.stmt]:
    """The functions and classes of a module, from its text: nothing is imported, so no framework is needed."""
    tree = ast.parse(path_of(module).read_text())
    return {item.name: item for item in tree.body if isinstance(item, (ast.FunctionDef, ast.ClassDef))}


def find(name: str, module: str = "") -> tuple[ast.stmt, str]:
    """The definition of a name that a module defines or imports from another one, and where it stands."""
    if name in definitions(module):
        return definitions(module)[name], module
    for item in ast.walk(ast.parse(path_of(module).read_text())):  # also where only a type checker imports
        if isinstance(item, ast.ImportFrom) and item.module and name in [alias.name for alias in item.names]:
            room = module if path_of(module).name == "__init__.py" else module.rpartition(".")[0]
            there = f"{room}.{item.module}" if item.level else item.module.removeprefix("gpuseq.")
            return find(name, there.lstrip("."))
    raise KeyError(f"{module} has no {name}")


def summary(item: ast.stmt) -> str:
    assert isinstance(item, (ast.FunctionDef, ast.ClassDef))
    return re.sub(r"`+~?([^`]+)`+", r"`\1`", (ast.get_docstring(item) or "").partition("\n\n")[0].replace("\n", " "))


def methods(item: ast.stmt, module: str) -> dict[str, ast.FunctionDef]:
    """The documented methods of a class, those of its bases in the package included."""
    assert isinstance(item, ast.ClassDef)
    found = {
        member.name: member
        for member in item.body
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_") and ast.get_docstring(member)
    }
    found |= dict(borrowed(item, module))
    for base in item.bases:
        if isinstance(base, ast.Name):
            try:
                inherited = methods(*find(base.id, module))
            except (KeyError, FileNotFoundError):
                continue  # of the standard library
            found |= {name: member for name, member in inherited.items() if name not in found}
    return found


def borrowed(item: ast.ClassDef, module: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The methods of a class that are functions of another module: ``flow = flows.flow``."""
    modules = {
        alias.asname: f"{node.module}.{alias.name}".removeprefix("gpuseq.")
        for node in ast.parse(path_of(module).read_text()).body
        if isinstance(node, ast.ImportFrom) and not node.level
        for alias in node.names
        if alias.asname
    }
    for member in item.body:
        if isinstance(member, ast.Assign) and isinstance(member.value, ast.Attribute):
            owner, name = member.value.value, member.value.attr
            if isinstance(owner, ast.Name) and owner.id in modules:
                function = definitions(modules[owner.id])[name]
                assert isinstance(function, ast.FunctionDef)
                yield name, function


def api(name: str) -> str:
    """A table of the names of a block of the reference, with the first sentence of each."""
    rows: list[tuple[str, ...]] = [("Name", "What it is or does")]
    for kind, target, options in re.findall(r"\.\. auto(\w+):: ([\w.]+)\n((?:   :.*\n)*)", API[name]):
        if kind == "module":
            module = target.removeprefix("gpuseq.")
            there = definitions(module)
            listed = re.search(r":members: (.+)", options)
            names = listed.group(1).split(", ") if listed else [name for name in exported(module) if name in there]
            rows += [(f"`{module.rpartition('.')[2]}.{name}`", summary(find(name, module)[0])) for name in names]
            continue
        module, _, short = target.removeprefix("gpuseq.").rpartition(".")
        item, module = find(short, module)
        call = "()" if isinstance(item, ast.FunctionDef) else ""
        rows.append((f"`{short}{call}`", summary(item)))
        if isinstance(item, ast.ClassDef) and kind == "class":
            rows += [(f"`{short}.{method}`", summary(node)) for method, node in methods(item, module).items()]
    return table(*rows)


def exported(module: str) -> list[str]:
    tree = ast.parse(path_of(module).read_text())
    for item in tree.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name) and item.targets[0].id == "__all__":
            return list(ast.literal_eval(item.value))
    return []


MAKERS: dict[str, Callable[..., str]] = {
    "api": api,
    "file": file,
    "help": help_text,
    "kernels": kernels,
    "layers": layers,
    "modules": modules,
    "picture": picture,
    "tolerances": tolerances,
    "versions": versions,
}


def render(text: str) -> str:
    """Return a page with all that is made in it made anew."""

    def make(match: re.Match[str]) -> str:
        name, *arguments = match.group(2).split()
        return f"{match.group(1)}\n{MAKERS[name](*arguments)}\n\n{match.group(4)}"

    return BLOCK.sub(make, text)


def main() -> None:
    """Write what is made into every page."""
    sys.path.insert(0, str(Path(__file__).parent))
    draw_pictures()
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        made = render(text)
        if made != text:
            page.write_text(made)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
