"""What an editor shows of an argument says what it is: descriptions that stand once, copied to where they are needed.

``python docs/_ext/hover.py`` writes the copies into the docstrings, where an editor finds them that runs no code; a
test says when one is out of date. A description is changed where it stands first, the right-hand side of `COPIES`.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COPIES", "copied", "main"]

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 120

FLOWS = "gpuseq/iterators/flow.py"
FLOW = f"{FLOWS}:flow"
FOLDER = f"{FLOWS}:flow_from_directory"
FRAME = f"{FLOWS}:flow_from_dataframe"
ARRAYS = "gpuseq/iterators/arrays.py:NumpyArrayIterator"
TO_DEVICE = "gpuseq/feed/lookahead.py:to_device"

WALK = "batch_size shuffle seed"
SHARDS = "rng shard remainder"
SAVED = "save_to_dir save_prefix save_format"
DECODED = "target_size color_mode interpolation"
MASKS = "mask_suffix ignore_value"
READ = """on_error prefetch cache memory_limit decoder exif_orientation max_pixels num_threads hw_decoder_load
    deterministic verbose"""

COPIES: dict[str, dict[str, str]] = {
    FLOW: {ARRAYS: f"x y sample_weight {SAVED} ignore_class_split subset", FOLDER: "ignore_value"},
    FOLDER: {FLOW: f"{WALK} {SHARDS}", ARRAYS: SAVED},
    FRAME: {FLOW: f"{WALK} {SHARDS}", ARRAYS: f"{SAVED} subset", FOLDER: f"{DECODED} {READ} extensions {MASKS}"},
    "gpuseq/iterators/fit.py:fit_directory": {FLOW: "batch_size", FOLDER: DECODED},
    ARRAYS: {FLOW: f"{WALK} {SHARDS} masks", FOLDER: "ignore_value"},
    "gpuseq/iterators/files.py:BatchFromFilesMixin.set_processing_attrs": {ARRAYS: SAVED},
    "gpuseq/iterators/folders.py:DirectoryIterator": {
        FLOW: f"{WALK} rng",
        ARRAYS: SAVED,
        FOLDER: f"{DECODED} classes class_mode follow_links subset keep_aspect_ratio verbose mask_directory {MASKS}",
    },
    "gpuseq/iterators/frames.py:DataFrameIterator": {
        FLOW: f"{WALK} rng",
        ARRAYS: f"{SAVED} subset",
        FOLDER: f"{DECODED} keep_aspect_ratio verbose {MASKS}",
        FRAME: "x_col y_col weight_col classes class_mode validate_filenames mask_col mask_directory",
    },
    "gpuseq/iterators/iterator.py:Iterator": {FLOW: "seed"},
    "gpuseq/feed/lookahead.py:DeviceSequence": {TO_DEVICE: "sequence prefetch workers device"},
    "gpuseq/keras/__init__.py:KerasDataset": {
        "gpuseq/keras/__init__.py:to_keras": "source class_weight prefetch workers"
    },
    "gpuseq/torch.py:TorchLoader": {"gpuseq/torch.py:loader": "iterator data_format"},
    "gpuseq/jax.py:JaxLoader": {"gpuseq/jax.py:loader": "iterator sharding"},
    "gpuseq/tensorflow.py:TensorflowLoader": {"gpuseq/tensorflow.py:loader": "iterator"},
}
"""Docstring -> docstring that its descriptions are copied from -> names of arguments."""


@dataclass(frozen=True)
class Entry:
    """An entry of a Parameters section: the names that share a description."""

    names: tuple[str, ...]
    type: str
    text: str

    def lines(self, indent: int, names: tuple[str, ...]) -> Iterator[str]:
        """Yield it as it stands in a docstring, for some of its names."""
        yield " " * indent + ", ".join(names) + (f" : {self.type}" if self.type else "")
        margin = " " * (indent + 4)
        yield from textwrap.wrap(
            self.text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
        )


@dataclass(frozen=True)
class Section:
    """A Parameters section: its first and its last line in the file, from 0, the latter not included; its entries."""

    start: int
    stop: int
    indent: int
    entries: tuple[Entry, ...]


def section_of(text: str, name: str) -> Section:
    """Read the Parameters section of a class or function of a file.

    Raises
    ------
    ValueError
        If there is none.
    """
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        found = [item for item in ast.iter_child_nodes(node) if getattr(item, "name", None) == part]
        if not found:
            raise ValueError(f"there is no {part!r} of {name}")
        node = found[-1]
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    first = node.body[0]
    lines = text.splitlines()
    stop = first.end_lineno or 0
    for start in range(first.lineno - 1, stop):
        if lines[start].strip() == "Parameters" and set(lines[start + 1].strip()) == {"-"}:
            break
    else:
        raise ValueError(f"{name} has no Parameters section")
    indent = len(lines[start]) - len(lines[start].lstrip())
    start += 2
    for number in range(start, stop):
        if not lines[number].strip() or '"""' in lines[number]:
            stop = number
            break
    joined = "\n".join(lines[start:stop]).replace("\\\n", "").splitlines()
    entries: list[Entry] = []
    for line in joined:
        if line[indent] != " ":
            head, _, kind = line.strip().partition(" : ")
            entries.append(Entry(tuple(head.split(", ")), kind, ""))
        else:
            last = entries.pop()
            entries.append(Entry(last.names, last.type, f"{last.text} {line.strip()}".strip()))
    return Section(start, stop, indent, tuple(entries))


def copied(path: str) -> str:
    """Return the text of a file, relative to the repository, with all of its copies as they should be.

    Raises
    ------
    ValueError
        If an argument is not described where `COPIES` says, or shares an entry with one that is not copied.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    for target, sources in COPIES.items():
        file, name = target.split(":")
        if file != path:
            continue
        wanted = {argument: source for source, names in sources.items() for argument in names.split()}
        section = section_of(text, name)
        missing = wanted.keys() - {argument for entry in section.entries for argument in entry.names}
        if missing:
            raise ValueError(f"{target} does not list {', '.join(sorted(missing))}")
        made: list[str] = []
        for entry, lines in zip(section.entries, _as_they_were(text, section), strict=True):
            if not wanted.keys() & set(entry.names):
                made += lines
                continue
            if not wanted.keys() >= set(entry.names):
                raise ValueError(f"{target}: {', '.join(entry.names)} share an entry, and not all of them are copied")
            for argument in entry.names:
                original = _described(wanted[argument], argument)
                sharing = tuple(item for item in original.names if wanted.get(item) == wanted[argument])
                if argument == sharing[0]:
                    made += original.lines(section.indent, sharing)
        all_lines = text.splitlines()
        text = "\n".join([*all_lines[: section.start], *made, *all_lines[section.stop :], ""])
    return text


def _as_they_were(text: str, section: Section) -> list[list[str]]:
    """Return the lines of each entry."""
    lines = text.splitlines()[section.start : section.stop]
    heads = [number for number, line in enumerate(lines) if re.match(rf" {{{section.indent}}}\S", line)]
    return [lines[head:following] for head, following in zip(heads, [*heads[1:], len(lines)], strict=True)]


def _described(source: str, argument: str) -> Entry:
    file, name = source.split(":")
    for entry in section_of((ROOT / file).read_text(encoding="utf-8"), name).entries:
        if argument in entry.names:
            return entry
    raise ValueError(f"{source} does not describe {argument}")


def main() -> None:
    """Write all files anew."""
    for path in sorted({target.split(":")[0] for target in COPIES}):
        text = copied(path)
        if text != (ROOT / path).read_text(encoding="utf-8"):
            (ROOT / path).write_text(text, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
