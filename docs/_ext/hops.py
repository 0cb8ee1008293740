"""The way of one batch of files through the package, traced: ``python docs/_ext/hops.py`` draws it for the pages.

A call counts where the code of one file of the package calls that of another; what is called from outside in between,
by a thread pool say, counts as called by the file before it. Four images, one thread, the engine on NumPy.
"""

from __future__ import annotations

import html
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "hops.svg"
SUPPORT = "base"
"""The room of what every file may use: drawn for no room, counted for all."""


@dataclass(frozen=True)
class Call:
    """One call between two files; files by their path below the package."""

    caller: str
    callee: str
    function: str

    @property
    def rooms(self) -> tuple[str, str]:
        """The caller's and the callee's."""
        first, second = (path.partition("/")[0].removesuffix(".py") for path in (self.caller, self.callee))
        return first, second


def trace_batch(engine: str = "numpy") -> tuple[list[Call], list[str]]:
    """Return the calls between files while one batch of four files is made, in order, and the files that were in it.

    Parameters
    ----------
    engine : {"numpy", "compiled"}
        What computes on the host.
    """
    os.environ |= {"GPUSEQ_CPU_ENGINE": engine, "GPUSEQ_NUM_THREADS": "1"}
    import gpuseq
    from gpuseq.base.version import PACKAGE

    generator = gpuseq.ImageDataGenerator(rotation_range=20, horizontal_flip=True, rescale=1 / 255, device="cpu")
    options: dict[str, Any] = {"batch_size": 4, "seed": 1, "prefetch": 0, "num_threads": 1, "verbose": False}
    options["decoder"] = "pillow"  # which "auto" is where nothing else is installed
    batches = generator.flow_from_directory(PACKAGE / "photos", target_size=(64, 64), **options)
    next(batches)  # what is imported and made once is no part of a batch
    inside, calls, files = f"{PACKAGE}{os.sep}", [], []

    def own(frame: FrameType | None) -> FrameType | None:
        while frame is not None and not frame.f_code.co_filename.startswith(inside):
            frame = frame.f_back
        return frame

    def note(frame: FrameType, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(inside):
            return
        callee = path.removeprefix(inside)
        if callee not in files:
            files.append(callee)
        before = own(frame.f_back)
        caller = "" if before is None else before.f_code.co_filename.removeprefix(inside)
        if caller and caller != callee:
            calls.append(Call(caller, callee, getattr(frame.f_code, "co_qualname", frame.f_code.co_name)))

    sys.setprofile(note)
    try:
        next(batches)
    finally:
        sys.setprofile(None)
    return calls, files


def draw(calls: list[Call], num_files: int) -> str:
    """Return the calls between rooms as SVG: a column a room, a row a call, from the top down in time."""
    between: list[Call] = []
    for call in calls:
        first, second = call.rooms
        if SUPPORT not in (first, second) and first != second and call not in between:
            between.append(call)
    rooms = list(dict.fromkeys(room for call in between for room in call.rooms))
    column, row, top = 150, 26, 70
    width, height = column * len(rooms) + 40, top + row * len(between) + 30
    x_of = {room: 40 + column * number + column // 2 for number, room in enumerate(rooms)}
    title = f"One batch of four files on the CPU: {num_files} files, {len(calls)} calls, drawn where rooms change"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="22" font-size="14">{title}</text>',
    ]
    for room, x in x_of.items():
        parts.append(f'<line x1="{x}" y1="{top - 12}" x2="{x}" y2="{height - 14}" stroke="#c8d0da"/>')
        parts.append(f'<text x="{x}" y="{top - 20}" text-anchor="middle" font-weight="bold">{room}</text>')
    for number, call in enumerate(between):
        first, second = (x_of[room] for room in call.rooms)
        y = top + row * number + 8
        head = -7 if second > first else 7
        parts.append(f'<line x1="{first}" y1="{y}" x2="{second}" y2="{y}" stroke="#31688e" stroke-width="1.4"/>')
        parts.append(f'<path d="M{second} {y} l{head} -4 v8 z" fill="#31688e"/>')
        name = html.escape(call.function.replace(".<locals>", "").replace("<lambda>", "a function handed down"))
        side = "start" if second > first else "end"
        parts.append(f'<text x="{second - head}" y="{y + 4}" font-size="12" text-anchor="{side}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Draw the picture."""
    calls, files = trace_batch()
    PICTURE.write_text(draw(calls, len(files)), encoding="utf-8")
    print(f"{len(files)} files, {len(calls)} calls between them: {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
