"""The library of the compiled CPU engine as the tests need it: made of the text as it stands, whatever is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gpuseq.ops.compiled import library
from tests.standin.host_runner import CACHE_FOLDER

__all__ = ["HOST", "build", "builder", "compile_once", "require"]

HOST = Path(__file__).resolve().parents[1] / "kernels" / "host"
"""Where its text is."""

ONCE = Path(__file__).with_name("compile_once.py")


@cache
def builder() -> Any:
    """Return ``kernels/host/build.py`` as a module."""
    spec = importlib.util.spec_from_file_location("gpuseq_build", HOST / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_once() -> None:
    """Let whatever builds the engine from now on, in this process and its children, compile each text once."""
    try:
        command = builder().compiler()
    except FileNotFoundError:
        return
    if not any(word.endswith(ONCE.name) for word in command):
        os.environ["CXX"] = shlex.join([sys.executable, str(ONCE), str(CACHE_FOLDER), *command])


def build(flags: tuple[str, ...] = ()) -> Path | None:
    """Compile the library, or find the one that an earlier run made of the same text; None without a compiler."""
    builds = builder()
    try:
        command = builds.compiler()
    except FileNotFoundError:
        return None
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    version = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=True, env=environment
    ).stdout
    texts = [path.read_text() for path in sorted([*HOST.iterdir(), *HOST.parent.glob("*.cuh")]) if path.is_file()]
    recipe = "\0".join([*texts, version, *flags])
    target = CACHE_FOLDER / f"cpu-{hashlib.sha256(recipe.encode()).hexdigest()[:20]}.so"
    return target if target.exists() else builds.build(target, flags)


def require() -> None:
    """Skip the test where there is no library, or fail it where ``GPUSEQ_REQUIRE_COMPILER`` promised one."""
    found = library.instruction_sets()
    if isinstance(found, str):
        if os.environ.get("GPUSEQ_REQUIRE_COMPILER", "") not in ("", "0"):
            pytest.fail(f"GPUSEQ_REQUIRE_COMPILER is set, but {found}", pytrace=False)
        pytest.skip(f"no compiled CPU engine: {found}")
