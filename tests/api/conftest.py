"""Folders of small pictures, written once a session and never changed by a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.photos import write_photo, write_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three classes with every kind of file: see `tests.photos.write_tree`. Read only, by agreement."""
    return write_tree(tmp_path_factory.mktemp("photos") / "tree")


@pytest.fixture(scope="session")
def plain_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two classes, five JPEG files of 24x20 each. Read only, by agreement."""
    root = tmp_path_factory.mktemp("photos") / "plain"
    for label in ("left", "right"):
        for number in range(5):
            write_photo(root / label / f"{number}", "jpeg", seed=10 * number + len(label))
    return root
