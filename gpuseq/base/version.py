"""The version, and where the package lies: for what it reads beside its modules."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKAGE", "__version__"]

__version__ = "0.1.0"

PACKAGE = Path(__file__).resolve().parents[1]
"""The package's own folder."""
