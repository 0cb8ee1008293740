"""A C++ compiler that compiles each text once: ``CXX="python compile_once.py FOLDER g++"``.

The wheel, the editable installation and the images of the Dockerfile are built by the tests as a user builds them, each
with the CPU engine in it, whose six objects take 20 seconds. What the compiler is given after preprocessing, and its
options, decide whether an object of an earlier call is handed out. Standard library only: it runs in any environment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["main"]


def main(folder: str, command: list[str]) -> int:
    """Compile, or copy what an earlier call has made; what is no compilation of one text is passed on as it is."""
    if "-c" not in command or "-o" not in command:
        return subprocess.run(command, check=False).returncode
    out = command.index("-o")
    target, options = Path(command[out + 1]), command[:out] + command[out + 2 :]
    texts = [word for word in options if word.endswith(".cpp")]
    preprocess = ["-E" if word == "-c" else word for word in options]
    text = subprocess.run([*preprocess, "-P"], capture_output=True, check=False)  # -P: without the paths
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False)
    if text.returncode or version.returncode or len(texts) != 1:
        return subprocess.run(command, check=False).returncode
    recipe = [text.stdout, version.stdout, *(os.fsencode(word) for word in options if word not in texts)]
    kept = Path(folder) / f"object-{hashlib.sha256(bytes(1).join(recipe)).hexdigest()[:20]}.o"
    if not kept.exists():
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
        kept.parent.mkdir(parents=True, exist_ok=True)
        own = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.copy(target, own)
        own.replace(kept)
        return 0
    shutil.copy(kept, target)
    os.utime(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
