"""One process per contender, slices in turn, medians and quartiles."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .environment import ROOT

__all__ = ["Row", "Runner", "Settings", "Worker", "race", "row", "spread", "time_each"]

Row = dict[str, Any]
"""suite, case, contender, unit, values, median, q1, q3; `absent` says why there are none; `at` holds plain numbers."""


@dataclass(frozen=True)
class Settings:
    """How long, how large, on what.

    Attributes
    ----------
    seconds : float
        Measured time per contender and case.
    rounds : int
        Slices that it is cut into.
    device : {"cpu", "cuda"}
        Where gpuseq makes its batches.
    peers : tuple of str or None
        Which contenders beside gpuseq; None for all.
    smoke : bool
        Tiny sizes, for trying the suite out. Its figures mean nothing.
    deadline : float or None
        On `time.monotonic`'s clock: what has not begun then is reported as out of time.
    """

    seconds: float = 6.0
    rounds: int = 7
    device: str = "cpu"
    peers: tuple[str, ...] | None = None
    smoke: bool = False
    deadline: float | None = None
    say: Callable[[str], None] = field(default=lambda text: print(text, file=sys.stderr, flush=True), compare=False)

    @property
    def is_late(self) -> bool:
        """Whether there is no time to begin anything."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def wants(self, name: str) -> bool:
        """Return whether a contender takes part: gpuseq always does."""
        return self.peers is None or name == "gpuseq" or name in self.peers

    def within(self, most: float) -> float:
        """Return how many seconds to wait for an answer: `most`, and no longer than there is time."""
        return most if self.deadline is None else max(LEAST_ANSWER_S, min(most, self.deadline - time.monotonic()))

    def for_half_the_time(self) -> Settings:
        """Return the settings of a part that may take half of the time that is left."""
        return replace(self, deadline=self.deadline and (self.deadline + time.monotonic()) / 2)


NO_STANDIN = {"GPUSEQ_GPU_STANDIN": ""}
"""In a rehearsal only gpuseq has a stand-in for a GPU: the others do on the CPU what they can."""

OUT_OF_TIME = "out of time: not measured"
OPENING_S, ANSWER_S, LEAST_ANSWER_S = 90.0, 30.0, 2.0
"""How long a contender may take to open, to answer beyond what it was asked to measure, and where time runs out."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles."""
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def row(
    suite: str,
    case: str,
    contender: str,
    unit: str,
    values: Sequence[float] = (),
    *,
    absent: str | None = None,
    note: str | None = None,
    at: Mapping[str, Any] | None = None,
) -> Row:
    """Return one line of a result file."""
    made: Row = {"suite": suite, "case": case, "contender": contender, "unit": unit}
    if absent is None:
        made |= {"values": [float(f"{value:.6g}") for value in values], **spread(values)}
    else:
        made["absent"] = absent
    if note:
        made["note"] = note
    if at:
        made["at"] = dict(at)
    return made


def time_each(
    work: Callable[[], Any], count: int, *, warm_up: int = 3, after: Callable[[], Any] | None = None
) -> list[float]:
    """Return the seconds of each of `count` calls; `after` is called between them, unmeasured."""
    seconds = []
    for number in range(warm_up + count):
        started = time.perf_counter()
        work()
        elapsed = time.perf_counter() - started
        if number >= warm_up:
            seconds.append(elapsed)
        if after is not None:
            after()
    return seconds


class WorkerError(RuntimeError):
    """A contender that failed: the message says how."""


class Worker:
    """A contender in its own process, which does nothing but answer one question at a time.

    Parameters
    ----------
    contender : str
        Name in `benchmarks.contenders.CONTENDERS`.
    environ : mapping
        Added to the environment.
    """

    def __init__(self, contender: str, environ: Mapping[str, str]) -> None:
        # A session of its own: its helpers' processor time can be told from that of all other processes.
        # Not a pipe: it is read when the process has ended, and a full pipe would stop it.
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", contender],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **environ, **({} if contender == "gpuseq" else NO_STANDIN)},
            start_new_session=True,
        )

    def ask(self, **question: Any) -> dict[str, Any]:
        """Send a question and return the answer.

        Raises
        ------
        WorkerError
            If the contender failed or its process ended.
        """
        limit = question.get("seconds", 0.0) * 10 + (ANSWER_S if question["do"] != "open" else OPENING_S)
        self.tell(**question)
        return self.hear(limit)

    def tell(self, **question: Any) -> None:
        """Send a question; its answer is for `hear`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `hear` finds out
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()

    def hear(self, limit: float = OPENING_S) -> dict[str, Any]:
        """Wait some seconds for an answer and return it; raise as `ask`."""
        assert self._process.stdout is not None
        # One question, one line: nothing of an answer can lie in the buffer already.
        if not select.select([self._process.stdout], [], [], limit)[0]:
            self.kill()
            raise WorkerError(f"no answer within {limit:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            self._process.kill()
            self._process.communicate()
            self._errors.seek(0)
            errors = self._errors.read().strip().splitlines()
            raise WorkerError(errors[-1] if errors else f"its process ended with status {self._process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise WorkerError(answer["failed"])
        return answer

    def settle(self, limit: float = 2.0) -> None:
        """Wait until the process and its helpers rest: what they make ahead must not cost the next contender."""
        deadline = time.monotonic() + limit
        before = self._ticks()
        while time.monotonic() < deadline:
            time.sleep(0.05)
            now = self._ticks()
            if now - before <= 1:
                return
            before = now

    def _ticks(self) -> int:
        total = 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self._process.pid:  # its session
                total += int(fields[11]) + int(fields[12])
        return total

    def kill(self) -> None:
        """End the process and its helpers at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self, *, at_once: bool = False) -> None:
        """End the process; `at_once` where there is no time to ask it for that."""
        if at_once:
            self.kill()
        try:
            if self._process.poll() is None:
                self.ask(do="close")
        except WorkerError:
            pass
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.communicate()
        self._errors.close()


@dataclass
class Runner:
    """A contender's part in a race.

    Attributes
    ----------
    contender : str
        Name in `benchmarks.contenders.CONTENDERS`.
    label : str
        Name in the tables.
    case : dict
        See `benchmarks.contenders.Case`.
    environ : dict
        Added to its process' environment.
    images, reopen : int, bool
        Slices of that many images instead of a time; each from a new start.
    """

    contender: str
    label: str
    case: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)
    images: int = 0
    reopen: bool = False


def race(
    suite: str,
    case: str,
    runners: Sequence[Runner],
    settings: Settings,
    at: Mapping[str, Any] | None = None,
    *,
    kept: dict[str, Worker] | None = None,
) -> list[Row]:
    """Give each contender a slice in turn, round after round; check each one's results before it is timed.

    Parameters
    ----------
    suite, case : str
        Names in the tables.
    runners : sequence of Runner
        Who takes part.
    settings : Settings
        How long, and until when: nobody is waited for longer than that.
    at : mapping or None
        Plain numbers, for each row.
    kept : dict or None
        Processes of the race before, by the label of their runner. They are asked for this case instead of new ones,
        and those that have not failed are there again after it: the caller closes them.

    Returns
    -------
    list of Row
        Images per second, one value per slice. A contender that is not installed or fails is reported as that.
    """
    rows: list[Row | None] = [None] * len(runners)
    workers: list[Worker | None] = [None] * len(runners)
    values: list[list[float]] = [[] for _ in runners]
    notes: list[str | None] = [None] * len(runners)
    rss: list[float] = [0.0] * len(runners)
    spent: list[float] = [0.0] * len(runners)
    there: list[dict[str, Any]] = [{} for _ in runners]

    def drop(index: int, reason: str) -> None:
        settings.say(f"  {suite} | {case} | {runners[index].label}: {reason}")
        rows[index] = row(suite, case, runners[index].label, "img/s", absent=reason, at=at)
        leave(index)

    def leave(index: int, *, for_next: bool = False) -> None:
        worker, workers[index] = workers[index], None
        if worker is not None and kept is not None and for_next:
            kept[runners[index].label] = worker
        elif worker is not None:
            worker.close(at_once=settings.is_late)

    if settings.is_late:
        settings.say(f"  {suite} | {case}: {OUT_OF_TIME}")
        return [row(suite, case, runner.label, "img/s", absent=OUT_OF_TIME, at=at) for runner in runners]
    opening = settings.for_half_the_time()  # they open at once, and who hangs leaves the others the other half
    try:
        for index, runner in enumerate(runners):
            worker = None if kept is None else kept.pop(runner.label, None)
            workers[index] = worker = worker or Worker(runner.contender, runner.environ)
            worker.tell(do="open", case=runner.case)
        for index, worker in enumerate(workers):
            assert worker is not None
            try:
                opened = worker.hear(opening.within(OPENING_S))
                if "absent" in opened:
                    leave(index, for_next=True)
                    drop(index, opened["absent"])
                else:
                    notes[index] = opened.get("note")
                    worker.settle()
            except WorkerError as error:
                drop(index, f"failed: {error}")
        seconds = settings.seconds / settings.rounds
        for number in range(settings.rounds):
            if number and settings.is_late:
                settings.say(f"  {suite} | {case}: out of time after {number} of {settings.rounds} rounds")
                break
            for offset in range(len(runners)):
                if number and settings.is_late:
                    break
                index = (number + offset) % len(runners)
                worker_now = workers[index]
                if worker_now is None or (len(values[index]) >= 3 and spent[index] > 3 * settings.seconds):
                    continue  # gone, or so slow that three slices must do
                runner = runners[index]
                try:
                    worker_now.tell(do="slice", seconds=seconds, images=runner.images, reopen=runner.reopen)
                    answer = worker_now.hear(settings.within(10 * seconds + ANSWER_S))
                except WorkerError as error:
                    if values[index] and settings.is_late:  # what it has done before stands
                        leave(index)
                    else:
                        drop(index, f"failed: {error}")
                    continue
                values[index].append(answer["images"] / answer["seconds"])
                rss[index], spent[index] = answer["rss_mb"], spent[index] + answer["seconds"]
                there[index] = {key: answer[key] for key in ("device_work",) if key in answer}
                worker_now.settle()
    finally:
        for index in range(len(runners)):
            leave(index, for_next=True)
    done: list[Row] = []
    for index, runner in enumerate(runners):
        made = rows[index]
        if made is None:
            extra = {**(at or {}), "rss_mb": rss[index], **there[index]}
            made = row(suite, case, runner.label, "img/s", values[index], note=notes[index], at=extra)
            settings.say(f"  {suite} | {case} | {runner.label}: {made['median']:,.0f} img/s")
        done.append(made)
    return done
