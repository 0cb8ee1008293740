"""Result files: what was measured, on what, when."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from . import REHEARSES
from .environment import describe
from .measure import OUT_OF_TIME, Row, Settings
from .suites import SUITES, suite
from .work import device_work

__all__ = ["RESULTS", "is_complete", "read", "run_suites", "write"]

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = 1


def read(path: Path) -> dict[str, Any]:
    """Return a result file's content.

    Raises
    ------
    ValueError
        If it is not one that this version wrote.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a result file of schema {SCHEMA}")
    return result


def is_complete(result: dict[str, Any], name: str) -> bool:
    """Return whether a suite has run, to its end."""
    rows = result["suites"].get(name, {}).get("rows")
    return rows is not None and not any(row.get("absent") == OUT_OF_TIME for row in rows)


def run_suites(names: tuple[str, ...], settings: Settings, out: Path | None, *, resume: bool = False) -> dict[str, Any]:
    """Run suites and write the file after each one.

    Parameters
    ----------
    names : tuple of str
        In this order; empty for all.
    settings : Settings
        How.
    out : Path or None
        The file; suites that it has from earlier runs stay in it.
    resume : bool
        Leave out the suites that `out` has.

    Returns
    -------
    dict
        The file's content.
    """
    result: dict[str, Any] = {"schema": SCHEMA, "device": settings.device, "smoke": settings.smoke, "suites": {}}
    if REHEARSES:
        result["rehearsal"] = True
    if out is not None and out.exists():
        result = read(out)
        if (result["device"], result["smoke"]) != (settings.device, settings.smoke):
            raise ValueError(f"{out} holds another kind of run (device={result['device']!r}, smoke={result['smoke']})")
        if bool(result.get("rehearsal")) != REHEARSES:
            raise ValueError(
                f"{out} holds {'a rehearsal' if result.get('rehearsal') else 'real figures'}: take another"
            )
    for name in names or SUITES:
        if resume and is_complete(result, name):
            settings.say(f"{name}: already in {out}")
            continue
        settings.say(f"{name}:")
        environment, started, before = describe(), time.monotonic(), device_work()
        rows: list[Row] = suite(name)(settings)
        result["suites"][name] = {
            "environment": environment,
            "settings": {"seconds": settings.seconds, "rounds": settings.rounds},
            "took_s": round(time.monotonic() - started, 1),
            "rows": rows,
        }
        if before is not None and (after := device_work()) is not None:
            result["suites"][name]["device_work"] = [now - then for now, then in zip(after, before, strict=True)]
        if out is not None:
            write(out, result)
    return result


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(_text(result), encoding="utf-8")
    temporary.replace(path)


def _text(result: dict[str, Any]) -> str:
    """One row to a line: a diff shows what moved."""
    head = {key: value for key, value in result.items() if key != "suites"}
    parts = []
    for name, content in result["suites"].items():
        rest = {key: value for key, value in content.items() if key != "rows"}
        rows = ",\n".join("   " + json.dumps(item) for item in content["rows"])
        parts.append(f" {json.dumps(name)}: {{\n  {json.dumps(rest)[1:-1]},\n" + f'  "rows": [\n{rows}\n  ]\n }}')
    return f'{{\n{json.dumps(head)[1:-1]},\n"suites": {{\n' + ",\n".join(parts) + "\n}\n}\n"
