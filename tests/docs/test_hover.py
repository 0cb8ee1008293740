"""An argument's description stands once, and is copied to wherever an editor looks for it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import hover  # noqa: E402

FILES = sorted({target.split(":")[0] for target in hover.COPIES})
PUBLIC = [
    *FILES,
    "gpuseq/compose.py",
    "gpuseq/decode/images.py",
    "gpuseq/feed/loader.py",
    "gpuseq/keras/__init__.py",
    "gpuseq/keras/callbacks.py",
    "gpuseq/ray.py",
    "gpuseq/transforms/functions.py",
]


@pytest.mark.parametrize("path", FILES)
def test_the_copies_are_current(path: str) -> None:
    assert hover.copied(path) == (hover.ROOT / path).read_text(), "run: python docs/_ext/hover.py"


@pytest.mark.parametrize("path", PUBLIC)
def test_no_argument_sends_its_reader_elsewhere(path: str) -> None:
    text = (hover.ROOT / path).read_text()
    assert not re.findall(r"^ +See `[^`]+`\.$", text, re.MULTILINE)


ORIGINAL = '''
def first(a, b, c):
    """Do it.

    Parameters
    ----------
    a : int
        How many, and a long description that does not fit into one line of a method, whose lines are shorter by four.
    b, c
        Two of a kind.
    """
'''
COPY = '''
class Second:
    def do(self, a, c, d):
        """Do it.

        Parameters
        ----------
        a, \\
c
            See `first`.
        d : float
            Its own,
            in two lines.

        Returns
        -------
        int
            1
        """
'''


@pytest.fixture
def two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "first.py").write_text(ORIGINAL)
    (tmp_path / "second.py").write_text(COPY)
    monkeypatch.setattr(hover, "ROOT", tmp_path)
    monkeypatch.setattr(hover, "COPIES", {"second.py:Second.do": {"first.py:first": "a c"}})
    return tmp_path


def test_a_copy_has_the_type_the_text_and_its_own_margin(two_files: Path) -> None:
    wanted = COPY.replace(
        """        a, \\
c
            See `first`.
""",
        """        a : int
            How many, and a long description that does not fit into one line of a method, whose lines are shorter by
            four.
        c
            Two of a kind.
""",
    )
    assert hover.copied("second.py") == wanted
    (two_files / "second.py").write_text(wanted)
    assert hover.copied("second.py") == wanted


def test_what_cannot_be_copied_is_named(two_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names, words in (("a c e", "does not list e"), ("a", "a, c share an entry"), ("a c d", "does not describe d")):
        monkeypatch.setattr(hover, "COPIES", {"second.py:Second.do": {"first.py:first": names}})
        with pytest.raises(ValueError, match=words):
            hover.copied("second.py")
