"""The stand-ins for a GPU in place for the whole of a process; without pytest, which a machine with a GPU may lack."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

__all__ = ["ENABLED", "VARIABLE", "install", "interprets"]

VARIABLE = "GPUSEQ_GPU_STANDIN"
ENABLED = os.environ.get(VARIABLE, "") not in ("", "0")


def interprets() -> bool:
    """Return whether kernels run as interpreted PTX, that is with ``ptx`` in `VARIABLE`; by g++'s code else."""
    return os.environ.get(VARIABLE, "") == "ptx"


class _ForGood:
    """As much of ``pytest.MonkeyPatch`` as the stand-ins ask for; nothing is put back."""

    def setattr(self, target: Any, name: str, value: Any, raising: bool = True) -> None:
        if raising and not hasattr(target, name):
            raise AttributeError(f"{target!r} has no attribute {name!r}")
        setattr(target, name, value)

    def setitem(self, mapping: Any, name: Any, value: Any) -> None:
        mapping[name] = value


class _WhenImported:
    """A finder of modules that calls a function as soon as torch was imported: that takes two seconds, and few do."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find torch where it lies; for all other modules the next finder is asked."""
        spec = PathFinder.find_spec(name, path, target) if name == "torch" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_go_on(module: Any) -> None:
            execute(module)
            self.then()

        spec.loader.exec_module = execute_and_go_on  # type: ignore[method-assign]
        return spec


def install(*, with_torch: bool = True) -> None:
    """Put the stand-ins in place for the rest of this process."""
    from gpuseq.base import devices as compat
    from tests.standin import cupy as standin
    from tests.standin import door
    from tests.standin import torch as standin_torch

    patch: Any = _ForGood()
    problem = compat.gpu_problem
    interpreter = None
    if interprets():
        from tests.standin.ptx.runner import PtxRun

        interpreter = PtxRun()
    standin.install(patch, interpreter)
    door.replace(patch, gpu_problem=problem)  # the real one, which asks the stand-in
    if not with_torch:
        return
    if "torch" in sys.modules:
        standin_torch.install(patch)
    else:
        sys.meta_path.insert(0, _WhenImported(lambda: standin_torch.install(patch)))
