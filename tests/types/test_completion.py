"""What completion on a generator or an iterator offers: Keras' names, and those of ours that users call."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import gpuseq

os.environ.setdefault("KERAS_BACKEND", "torch")
keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image")

SETTINGS = {"augmentations", "conventions", "device", "rng"}
STATISTICS = {"fit_batches", "fit_directory", "load_statistics", "save_statistics"}
WALK = {"close", "epoch", "explain", "load_state_dict", "next", "plan_batch", "replay", "set_epoch", "state_dict"}
KERAS_3 = {"max_queue_size", "on_epoch_begin", "use_multiprocessing", "workers"}
"""What Keras' iterators have of ``PyDataset``."""


def public(value: Any) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


def both(make: Any) -> tuple[set[str], set[str]]:
    ours = make(gpuseq.ImageDataGenerator(device="cpu"))
    theirs = make(keras_image.ImageDataGenerator())
    return public(ours), public(theirs)


def test_a_generator_offers_keras_names_and_ours() -> None:
    ours, theirs = both(lambda generator: generator)
    assert theirs <= ours
    assert ours - theirs == SETTINGS | STATISTICS | {"process"}


def test_an_iterator_offers_keras_names_and_ours() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    ours, theirs = both(lambda generator: generator.flow(images, batch_size=2))
    assert theirs - ours <= KERAS_3
    assert ours - theirs <= WALK | KERAS_3 | {"batch_format", "device", "to_keras"}


def test_an_iterator_over_files_offers_keras_names_and_ours(tmp_path: Any) -> None:
    gpuseq.save_img(tmp_path / "a.png", np.zeros((4, 4, 3)))
    frame = pytest.importorskip("pandas").DataFrame({"filename": ["a.png"], "class": ["a"]})
    ours, theirs = both(lambda generator: generator.flow_from_dataframe(frame, str(tmp_path)))
    assert theirs - ours <= KERAS_3
    assert ours - theirs <= WALK | KERAS_3 | {"bad_files", "batch_format", "device", "to_keras"}
