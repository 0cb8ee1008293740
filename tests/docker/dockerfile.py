"""Just enough of a Dockerfile's grammar to run its commands without Docker."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Stage", "read_stages"]


@dataclass
class Stage:
    """One ``FROM`` and what follows it: (instruction, argument) pairs, those of its base first."""

    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> list[str]:
        """Return the words of the last instruction of a kind, in exec or shell form; empty without one."""
        found = [argument for name, argument in self.lines if name == instruction]
        if not found:
            return []
        return json.loads(found[-1]) if found[-1].startswith("[") else shlex.split(found[-1])

    @property
    def command(self) -> list[str]:
        """What the container runs."""
        return self.last("ENTRYPOINT") + self.last("CMD")

    @property
    def health(self) -> list[str]:
        """What the health check runs."""
        (argument,) = (argument for name, argument in self.lines if name == "HEALTHCHECK")
        return json.loads(argument.partition("CMD ")[2])

    @property
    def copies(self) -> list[tuple[str, str]]:
        """(source, destination) of each file or folder that is copied from the context."""
        pairs = []
        for name, argument in self.lines:
            if name == "COPY":
                *sources, destination = [word for word in argument.split() if not word.startswith("--")]
                pairs += [(source, destination) for source in sources]
        return pairs

    @property
    def pip_installs(self) -> list[list[str]]:
        """The words after ``pip install`` of each ``RUN python -m pip install``."""
        found = []
        for name, argument in self.lines:
            for command in argument.split("&&") if name == "RUN" else ():
                words = shlex.split(re.sub(r"^(--\S+\s+)+", "", command.strip()))  # mounts come first
                if words[:4] == ["python", "-m", "pip", "install"]:
                    found.append(words[4:])
        return found


def read_stages(path: Path) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name; a stage on top of another has that one's lines first."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n", " ", text)
    stages: dict[str, Stage] = {}
    current = Stage("")
    for line in filter(str.strip, text.splitlines()):
        instruction, _, argument = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            current = stages[name] = Stage(base, list(stages[base].lines) if base in stages else [])
        else:
            current.lines.append((instruction, argument.strip()))
    return stages
