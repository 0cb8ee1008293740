"""The soak: its rounds run, and what they look for is found."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.soak import rounds
from benchmarks.soak.__main__ import main
from benchmarks.soak.bench import Bench, write_photos
from benchmarks.soak.ledger import Belongings, TroubleError, check_each, grown, numbers_of
from gpuseq.ops.compiled.library import describe

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors in /proc"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    write_photos(tmp_path / "photos")
    (tmp_path / "own").mkdir()
    return Bench(random.Random(4), tmp_path / "own", tmp_path / "photos", Counter())


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("threads", "threads"),
        ("states", "batches"),
        ("kills", "forks"),
        ("full_disks", "full disks"),
        ("changing_files", "changed files"),
    ],
)
def test_a_round_passes_and_is_counted(name: str, counted: str, bench: Bench) -> None:
    rounds.ROUNDS[name](bench)
    assert bench.counts[counted] > 0


def test_a_command_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0", "--seed", "5", "--only", "states"]) == 0
    said = capsys.readouterr().out
    assert '"rounds": 1, "rounds of states": 1' in said
    assert f'"engine": "{describe()}' in said


def test_trouble_is_printed_with_what_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[float] = []

    def fails_in_the_third(bench: Bench) -> None:
        drawn.append(bench.rng.random())
        if len(drawn) >= 3:
            raise TroubleError("two files in one picture")

    monkeypatch.setitem(rounds.ROUNDS, "states", fails_in_the_third)
    assert main(["--seconds", "60", "--seed", "7", "--only", "states"]) == 1
    said = capsys.readouterr()
    assert "TROUBLE in round 2 (states): python -m benchmarks.soak --seed 7 --round 2 --only states" in said.out
    assert "two files in one picture" in said.err
    assert main(["--seed", "7", "--round", "2", "--only", "states"]) == 1
    assert drawn[3] == drawn[2] != drawn[1]


def test_what_a_forked_process_raises_is_raised(bench: Bench) -> None:
    def fails() -> None:
        raise KeyError("lost")

    with pytest.raises(TroubleError, match="KeyError: 'lost'"):
        bench.forked(fails)
    with pytest.raises(TroubleError, match="a forked process died"):
        bench.forked(lambda: os.kill(os.getpid(), 9))


@pytest.mark.parametrize("found", [[1, 1, 2], [1, 2, 2, 2, 1], [1, 1, 2, 2, 3]])
def test_lost_and_doubled_samples_are_found(found: list[int]) -> None:
    check_each([1, 2, 2, 1], [1, 2], 2, "an epoch")
    with pytest.raises(TroubleError, match="an epoch: of samples due 2 times"):
        check_each(found, [1, 2], 2, "an epoch")


def test_mixed_pictures_are_found() -> None:
    images = np.full((2, 4, 4, 3), 7.0)
    images[1] = 9.0
    assert numbers_of(images) == [7, 9]
    images[1, 3:] = 8.0
    with pytest.raises(TroubleError, match="two colours"):
        numbers_of(images)
    with pytest.raises(TroubleError, match="no sample has these levels"):
        numbers_of(np.full((1, 4, 4, 3), 7.5))


def test_growth_is_found() -> None:
    assert grown([100 << 20] * 100) is None
    assert grown([1 << 20] * 10 + [100 << 20] * 90) is None, "the first tenth is the allocator's"
    assert grown([2**20 * (100 + number) for number in range(40)]) is None, "too few to tell"
    said = grown([2**20 * (100 + number) for number in range(100)])
    assert said == "resident memory went from 114 MiB to 194 MiB in 100 rounds"


# More than there are: of those that earlier tests have left, any may end meanwhile.


def _leave_threads(folder: Path) -> Any:
    over = threading.Event()
    for _ in range(threading.active_count() + 1):
        threading.Thread(target=over.wait, daemon=True).start()
    return over.set


def _leave_a_file(folder: Path) -> Any:
    (folder / "left").touch()
    return (folder / "left").unlink


def _leave_descriptors(folder: Path) -> Any:
    left = contextlib.ExitStack()
    for _ in range(len(os.listdir("/proc/self/fd")) + 1):
        left.callback(os.close, os.open(folder, os.O_RDONLY))
    return left.close


@pytest.mark.parametrize("leave", [_leave_threads, _leave_a_file, _leave_descriptors])
def test_what_is_left_behind_is_found(leave: Any, tmp_path: Path) -> None:
    belongings = Belongings(tmp_path)
    belongings.check()
    take_away = leave(tmp_path)
    with pytest.raises(TroubleError, match="left behind: "):
        belongings.check(patience=0.0)
    take_away()
    belongings.check()
