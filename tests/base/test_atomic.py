"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuseq.base import atomic
from gpuseq.base.atomic import replacing
from tests.interrupts import descriptors_of, interrupted_everywhere

resource = pytest.importorskip("resource")


@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_rights_are_those_of_any_new_file(mask: int, rights: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "new.json") as path:
            path.write_text("1")
    finally:
        os.umask(before)
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == rights


def test_the_umask_is_not_set_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the process': files that other threads make meanwhile would lose rights, and two writers might leave it."""
    asked: list[int] = []
    monkeypatch.setattr(os, "umask", lambda mask: asked.append(mask) or 0)
    with replacing(tmp_path / "new"):
        pass
    assert asked == []


def test_a_name_that_somebody_has_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([b"\x01", b"\x01", b"\x02"])
    monkeypatch.setattr("gpuseq.base.atomic.os.urandom", lambda size: next(numbers))
    (tmp_path / ".a-01.txt").write_text("theirs")
    with replacing(tmp_path / "a.txt") as path:
        assert path.name == ".a-02.txt"
        path.write_text("ours")
    assert (tmp_path / ".a-01.txt").read_text() == "theirs"
    assert (tmp_path / "a.txt").read_text() == "ours"


def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("older")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"), replacing(tmp_path / "kept") as path:
            path.write_text("x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept", "older")]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_an_interrupt_anywhere_leaves_the_older_or_the_newer_file_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "kept"

    def write() -> None:
        with replacing(kept) as path:
            path.write_text("newer")

    kept.write_text("older")
    texts = []
    for _ in interrupted_everywhere(write, atomic.__file__):
        assert os.listdir(tmp_path) == ["kept"]
        assert descriptors_of(tmp_path) == []
        texts.append(kept.read_text())
        kept.write_text("older")
    assert sorted(texts, reverse=True) == texts, "older ones before the renaming, newer ones after it"
    assert set(texts) == {"older", "newer"}
