"""The way of one batch through the package, as the architecture page draws it, does not get longer unseen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import compiled_library

ROOT = Path(__file__).resolve().parents[2]

MOST = {"numpy": (16, 41), "compiled": (19, 55)}
"""Engine -> files that a batch of four files touches today, and calls between them, with a few for what is kept."""

ROOMS = ("base", "files", "plan", "ops", "decode", "transforms", "sources", "iterators", "generator")
"""From the bottom up, where the rooms of one row do not call each other."""

HANDED_DOWN = {("iterators", "generator")}
"""An iterator calls the generator that it was handed, which it knows by a protocol."""

SCRIPT = """
import json, sys
sys.path.insert(0, "docs/_ext")
import hops
calls, files = hops.trace_batch(sys.argv[1])
print(json.dumps([[[*call.rooms, call.callee, call.function] for call in calls], files]))
"""


@pytest.mark.parametrize("engine", MOST)
def test_a_batch_touches_few_files_and_calls_downward(engine: str) -> None:
    if engine == "compiled":
        compiled_library.require()
    command = [sys.executable, "-c", SCRIPT, engine]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    calls, files = json.loads(done.stdout)
    assert len(files) <= MOST[engine][0], sorted(files)
    assert len(calls) <= MOST[engine][1]
    if engine == "numpy":
        page = (ROOT / "docs" / "architecture.md").read_text()
        way = page[page.index("The files of the way") : page.index("What does not differ")]
        assert set(re.findall(r"`([\w/]+\.py)`", way)) == set(files), "the page names the files that a batch touches"
    upward = [
        call
        for call in calls
        if ROOMS.index(call[1]) > ROOMS.index(call[0]) and (call[0], call[1]) not in HANDED_DOWN and "<" not in call[3]
    ]
    assert upward == [], "only functions that were handed down are called upward"


def test_the_picture_is_there() -> None:
    picture = (ROOT / "docs" / "pictures" / "hops.svg").read_text()
    assert picture.startswith("<svg")
    assert "make_images" not in picture  # within a room
    assert "FileSource.fetch" in picture
