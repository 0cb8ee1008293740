"""What a command goes on past: macOS' notes among the pictures always, files that cannot be decoded when asked."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpuseq.base.errors import ImageFileError
from gpuseq.base.text import printable
from gpuseq.decode.host import check_files

from .folder import Folder, pick

__all__ = ["PassedOver", "is_note", "without"]

NUM_NAMED = 20


def is_note(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is named as what macOS notes about another one on a foreign disk: ``._cat.jpg``."""
    return os.path.basename(os.fspath(path)).startswith("._")


class PassedOver:
    """Collects what is passed over, with reasons; as `on_error` of an iterator it decides what is.

    Parameters
    ----------
    on_error : {"raise", "skip"}
        For files that are none of macOS' notes.
    """

    def __init__(self, on_error: str) -> None:
        self.on_error = on_error
        self.reasons: dict[str, str] = {}

    def __call__(self, path: str, error: ImageFileError) -> None:
        """Note a file, or raise its error."""
        # macOS' notes are no pictures, so what a user says about bad pictures does not concern them.
        if self.on_error == "raise" and not is_note(path):
            raise error
        self.reasons[path] = error.reason

    def look(self, files: Sequence[Path]) -> dict[str, str]:
        """Return which of some files have to be passed over, found beforehand, and note them."""
        # Only what may be passed over is decoded beforehand. With "raise" the first bad picture ends the command by
        # itself.
        suspects = [str(file) for file in files if self.on_error == "skip" or is_note(file)]
        found = {path: reason for path, reason in check_files(suspects) if reason is not None}
        self.reasons |= found
        return found

    def pick(self, files: Sequence[Path], count: int) -> tuple[Path, ...]:
        """Return at most `count` files, spread as `~gpuseq.cli.folder.pick` does, none of which must be passed over.

        Raises
        ------
        FileNotFoundError
            If no file is left.
        """
        left = list(files)
        while left:
            chosen = pick(left, count)
            bad = self.look(chosen)
            if not bad:
                return chosen
            left = [file for file in left if str(file) not in bad]
        raise FileNotFoundError(f"none of the {len(files)} files can be decoded")

    def report(self, num_files: int) -> None:
        """Name on standard error what was passed over."""
        if not self.reasons:
            return
        print(f"gpuseq: {len(self.reasons)} of {num_files} files were passed over:", file=sys.stderr)
        for path, reason in sorted(self.reasons.items())[:NUM_NAMED]:
            print(f"  {printable(path)}: {reason}", file=sys.stderr)
        if len(self.reasons) > NUM_NAMED:
            print(f"  and {len(self.reasons) - NUM_NAMED} more: gpuseq check names them all", file=sys.stderr)


@contextmanager
def without(folder: Folder, left_out: Mapping[str, str]) -> Iterator[Folder]:
    """Give a folder of links to the files that are left, for takers that know no bad files; the same one if all are.

    Parameters
    ----------
    folder : Folder
        A user's.
    left_out : mapping
        Paths of files to leave out.

    Raises
    ------
    FileNotFoundError
        If no file is left.
    """
    kept = [file for file in folder.files if str(file) not in left_out]
    if not kept:
        raise FileNotFoundError(f"none of the {len(folder.files)} files in {str(folder.path)!r} can be decoded")
    if len(kept) == len(folder.files):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gpuseq-") as temporary:
        root = Path(temporary) / folder.path.name
        links = []
        for file in kept:
            link = root / file.relative_to(folder.path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
            links.append(link)
        yield Folder(root, tuple(links), folder.is_flat)
