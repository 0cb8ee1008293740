"""The race of the modern augmentations runs, and shows each policy and who was there."""

from __future__ import annotations

import re

import pytest

from benchmarks import modern


def test_the_race_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modern, "SIZE", 24)
    monkeypatch.setattr(modern, "BATCH", 4)
    monkeypatch.setattr(modern.importlib.util, "find_spec", lambda name: None)
    modern.main(["--rounds", "2", "--seconds", "0"])
    shown = capsys.readouterr().out
    assert "gpuseq's engine: " in shown
    for policy in ("RandAugment(2, 9)", "rand-m9-mstd0.5-inc1", "TrivialAugmentWide()", "RandomErasing(1.0)"):
        assert re.search(rf"^{re.escape(policy)} +gpuseq +\d+ us$", shown, re.MULTILINE)


def test_turns_are_taken() -> None:
    """Each round begins with the next contender, and every one is called in every round."""
    calls: list[str] = []
    found = modern.race({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=3, seconds=0)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert sorted(found) == ["a", "b", "c"]
