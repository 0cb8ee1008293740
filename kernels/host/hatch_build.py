"""Hatchling's hook: where there is a compiler the compiled CPU engine goes into the wheel, else it is pure Python.

``GPUSEQ_BUILD_ENGINE=1`` insists on it, ``GPUSEQ_BUILD_ENGINE=0`` leaves it out.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from build import LIBRARY, build

WHERE = f"gpuseq/ops/compiled/{LIBRARY}"


class CompiledEngine(BuildHookInterface):
    """Compiles the library before a wheel is put together, into the checkout for an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell the wheel about the file and its platform."""
        asked = os.environ.get("GPUSEQ_BUILD_ENGINE", "")
        if self.target_name != "wheel" or asked == "0":
            return
        is_editable = version == "editable"
        self._folder = None if is_editable else tempfile.TemporaryDirectory()
        folder = Path(self.root) if self._folder is None else Path(self._folder.name)
        try:
            target = build(folder / WHERE)
        except (OSError, RuntimeError) as error:
            if asked == "1":
                raise
            self.app.display_warning(f"gpuseq is installed without its compiled CPU engine, and NumPy works: {error}")
            return
        if not is_editable:
            build_data["force_include"][str(target)] = WHERE
        # Neither Python's version nor its ABI matters to the library, only the platform.
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take the temporary folder away."""
        if getattr(self, "_folder", None) is not None:
            self._folder.cleanup()


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
