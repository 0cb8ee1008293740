"""Print what gpuseq and some of its extras depend on, for an image that installs it before the sources are there.

``python requirements.py test > requirements.txt``, beside ``pyproject.toml``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def requirements(path: Path, extras: list[str]) -> list[str]:
    """Return the requirements of the build, the package and the extras, and of extras that an extra names."""
    document = tomllib.loads(path.read_text())
    project = document["project"]
    found = [*document["build-system"]["requires"], *project["dependencies"]]
    todo = list(extras)
    while todo:
        for line in project["optional-dependencies"][todo.pop()]:
            own = re.fullmatch(rf"{project['name']}\[([\w,-]+)\]", line)
            if own:
                todo += own[1].split(",")
            else:
                found.append(line)
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1:])))
