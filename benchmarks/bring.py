"""Fetches what a machine without a network may lack, into a folder that `benchmarks.gpu_round` finds: before the visit.

``python -m benchmarks.bring`` asks pip for wheels of Linux on x86-64 and one version of Python, and unpacks them. What
is installed on the machine goes before what was brought. Each call begins anew: pip puts a package's folders in the
place of others of that name, and the packages of NVIDIA share one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys

from .environment import ROOT

__all__ = ["BROUGHT", "PACKAGES", "command", "main"]

BROUGHT = ROOT / "benchmarks" / "brought"
"""Where to; not in version control. It goes along with the checkout."""

PACKAGES = ("pillow", "tqdm", "pytest", "hypothesis")
"""What gpuseq needs beside NumPy, and what its tests need."""


def command(python: str, packages: list[str]) -> list[str]:
    """Return the command that fetches the packages.

    Parameters
    ----------
    python : str
        Version of Python there: "3.12".
    packages : list of str
        Names; what they need comes with them, but NumPy.
    """
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(BROUGHT)),
        *("--python-version", python, "--only-binary", ":all:"),
        *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
        *packages,
    ]


def main(arguments: list[str] | None = None) -> int:
    """Fetch them, in the place of what was brought before; return pip's status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bring", description=__doc__)
    parser.add_argument("--python", default="3.12", help="version of Python there (default %(default)s)")
    parser.add_argument("packages", nargs="*", help=f"by default: {' '.join(PACKAGES)}")
    options = parser.parse_args(arguments)
    shutil.rmtree(BROUGHT, ignore_errors=True)
    status = subprocess.run(command(options.python, options.packages or list(PACKAGES)), check=False).returncode
    if status == 0:
        size = sum(path.stat().st_size for path in BROUGHT.rglob("*") if path.is_file())
        print(f"{BROUGHT.relative_to(ROOT)}: {size / 1e6:.1f} MB. Let it go along with the checkout.")
    return status


if __name__ == "__main__":
    sys.exit(main())
