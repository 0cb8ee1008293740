"""Compile the CPU engine to one shared library: the same text once for each instruction set.

``python kernels/host/build.py`` puts it into the checkout, beside the modules that load it; a wheel's build does the
same by `hatch_build.py`. Python's standard library is enough, and a C++17 compiler: ``$CXX``, else g++, c++ or clang++.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["FLAGS", "LIBRARY", "TEXTS", "build", "compiler", "instruction_sets"]

FOLDER = Path(__file__).resolve().parent

LIBRARY = "gpuseq_cpu.so"
"""Name of the shared library; it has no Python in it, so no ABI tag."""

TEXTS = ("augment.cpp", "program.cpp", "resize.cpp")
"""Compiled once for each instruction set."""

FLAGS = (
    *("-std=c++17", "-O2", "-ftree-vectorize", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"),
    # Every operation rounds by itself, as NumPy's do; an FMA stands in the text where one is meant.
    "-ffp-contract=off",
    # Neither changes a value: no floating-point trap and no errno is looked at, so loops with a choice become vectors.
    *("-fno-trapping-math", "-fno-math-errno"),
    "-pthread",
    *("-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas"),
)

_GCC_FLAGS = ("-fvect-cost-model=dynamic",)

_AVX2 = ("-march=x86-64", "-mavx2", "-mfma", "-mf16c")


def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Return each instruction set's flags by name, for the machine that is compiled for."""
    if platform.machine() in ("x86_64", "AMD64"):
        # engine.cpp asks the CPU for exactly these before it lets one run.
        return {"baseline": ("-march=x86-64",), "avx2": _AVX2, "avx512": (*_AVX2, "-mavx512bw", "-mavx512vbmi")}
    return {"baseline": ()}


def has_own_text(text: str, name: str) -> bool:
    """Tell whether a text is compiled for an instruction set: for AVX-512 those alone that gain by it."""
    return name != "avx512" or text == "program.cpp"


def compiler() -> list[str]:
    """Return the command of the C++ compiler.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in [asked] if asked else [["g++"], ["c++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    looked_for = shlex.join(asked) if asked else "g++, c++, clang++"
    raise FileNotFoundError(f"no C++ compiler found ({looked_for}); install one (apt-get install g++), or set CXX")


def build(target: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile the library.

    Parameters
    ----------
    target : pathlib.Path
        The file to make; it is put in place at once, whole.
    flags : tuple of str
        Further compiler flags.

    Raises
    ------
    FileNotFoundError
        If there is no compiler.
    RuntimeError
        With the compiler's messages.
    """
    command = compiler()
    is_clang = "clang" in subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    common = [*command, *FLAGS, *(() if is_clang else _GCC_FLAGS), *flags]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made:

        def compile_one(text: str, name: str, own: tuple[str, ...]) -> str:
            out = str(Path(made) / f"{Path(text).stem}-{name}.o")
            _run([*common, *own, f"-DSET={name}", "-c", str(FOLDER / text), "-o", out])
            return out

        parts = [
            (text, name, own) for text in TEXTS for name, own in instruction_sets().items() if has_own_text(text, name)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda part: compile_one(*part), parts))
        whole = Path(made) / LIBRARY
        _run([*common, "-shared", str(FOLDER / "engine.cpp"), *objects, "-o", str(whole)])
        whole.replace(target)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr.strip()}")


if __name__ == "__main__":
    print(build(FOLDER.parents[1] / "gpuseq" / "ops" / "compiled" / LIBRARY))
    sys.exit(0)
