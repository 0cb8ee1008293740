"""Which Keras there is, for which backend batches are made, and the class that its data sets derive from."""

from __future__ import annotations

import sys
from typing import Any

from gpuseq.base.errors import MissingDependencyError, require

__all__ = ["PY_DATASET", "TELLS_EPOCHS", "backend", "join_tf_keras", "keras"]


def _import_keras() -> Any:
    try:
        return require("keras", extra="keras", purpose="gpuseq.keras")
    except MissingDependencyError:
        raise
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"Keras is installed, but {error.name!r}, which its backend needs, is not. Say which backend is there "
            'before anything imports keras: os.environ["KERAS_BACKEND"] = "torch" (or "jax"); or install it'
        ) from error


keras = _import_keras()

# Keras 2 and tf_keras have the older class alone.
PY_DATASET: Any = getattr(keras.utils, "PyDataset", None) or keras.utils.Sequence
TELLS_EPOCHS = hasattr(PY_DATASET, "on_epoch_begin")
"""Whether this Keras says when an epoch begins, as Keras 3 does."""


def backend() -> str:
    """Return for which backend of Keras 3 batches are made: "torch", "jax", or "numpy" for all others."""
    # tf_keras and Keras 2 have no backends, and take arrays of NumPy.
    name = keras.config.backend() if TELLS_EPOCHS else "numpy"
    return name if name in ("torch", "jax") else "numpy"


def join_tf_keras(kind: type) -> None:
    """Make a class one of tf_keras' data sets, too, if that is loaded by now: it may be imported first or last.

    Parameters
    ----------
    kind : type
        A class of `gpuseq.keras`, or a user's subclass of one.
    """
    base = getattr(getattr(sys.modules.get("tf_keras"), "utils", None), "Sequence", None)
    if base is not None and not issubclass(kind, base):
        for owner in kind.__mro__:
            # Where PyDataset itself is a base, so that each subclass gets the new one by inheritance. `fit` of tf_keras
            # asks `isinstance`, and an object's class cannot be known before both libraries are.
            if PY_DATASET in owner.__bases__:
                owner.__bases__ = (*owner.__bases__, base)
