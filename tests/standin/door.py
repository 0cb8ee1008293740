"""The one door of the stand-ins: each place of gpuseq that they replace stands in `PLACES`, and nowhere else.

A name that moves within gpuseq is changed here. What replaces it is the affair of who asks: `cupy` (kernels on a
stand-in for CuPy), `host_runner` (kernels on NumPy arrays, no CuPy at all) and `ptx.runner` (kernels interpreted).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpuseq.base import devices
from gpuseq.decode import gpu_backend
from gpuseq.ops.cuda import augment, compile, memory, program, resize

if TYPE_CHECKING:
    import pytest

__all__ = ["PLACES", "replace", "replace_modules"]

PLACES: dict[str, tuple[ModuleType, str]] = {
    # What is asked whether there is a GPU.
    "gpu_problem": (devices, "gpu_problem"),
    # What loads a kernel by its name and macros.
    "load": (compile, "load"),
    # What images of files are decoded by on a device.
    "decoder_of": (gpu_backend, "decoder_of"),
    # Arrays on a device: made, uploaded, told by their address.
    "address": (memory, "address"),
    "contiguous": (memory, "contiguous"),
    "empty": (memory, "empty"),
    "block": (memory, "block"),
    "part": (memory, "part"),
    "send": (memory, "send"),
    "place_key": (memory, "place_key"),
    "to_device": (memory, "to_device"),
    "upload": (memory, "upload"),
    # What is kept from one call to the next, and must not outlive a stand-in.
    "rings": (memory, "_rings"),
    "constants": (augment, "_constants_of"),
    "resize_tables": (resize, "_kept"),
    "quantiles": (program, "_quantiles_at"),
}
"""Name -> module of gpuseq, and the attribute that is replaced."""


def replace(patch: pytest.MonkeyPatch, **replacements: Any) -> None:
    """Put something in the place of parts of gpuseq, for as long as `patch` lasts.

    Parameters
    ----------
    patch : pytest.MonkeyPatch
        Takes it all away again.
    **replacements
        By the names of `PLACES`.
    """
    for name, value in replacements.items():
        module, attribute = PLACES[name]
        patch.setattr(module, attribute, value)


def replace_modules(patch: pytest.MonkeyPatch, modules: Mapping[str, ModuleType]) -> None:
    """Let ``import`` find other modules by these names, for as long as `patch` lasts."""
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
