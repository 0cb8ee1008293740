"""The plan of a batch: a value that holds everything random about it. What follows from a plan is deterministic."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gpuseq.base.types import PARAM_FIELDS

from .draw import params_to_dicts

__all__ = ["BatchPlan"]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Which samples a batch holds and the numbers drawn for each.

    Make one with an iterator's `plan_batch` and turn it into a batch with `replay`: on the same iterator, or on one
    over the masks or second views of the same samples, which then cannot drift apart.

    Attributes
    ----------
    indices : numpy.ndarray
        Shape ``(N,)``, int64, on the host: rows of the data set. Read-only.
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.base.types.PARAMS_DTYPE`, on the host. Read-only.
    file_numbers : numpy.ndarray or None
        Shape ``(N,)``, int64: the numbers in the names of saved files, with ``save_to_dir``.
    weights : numpy.ndarray or None
        Shape ``(N,)``, float32: 0 for samples that only fill up a shard, with ``remainder="exact"``.
    epoch, batch_index : int
        Where in the walk the batch stands; `epoch` is -1 while Keras' counting is in force, which knows none.
    image_size : (int, int)
        Rows and columns for which fractional shifts were turned into pixels.
    """

    indices: np.ndarray
    params: np.ndarray
    file_numbers: np.ndarray | None = None
    weights: np.ndarray | None = None
    epoch: int = -1
    batch_index: int = 0
    image_size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for array in (self.indices, self.params, self.file_numbers, self.weights):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.indices)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchPlan):
            return NotImplemented
        # Bytes compare NaN ("not applied") as equal to itself.
        return (
            np.array_equal(self.indices, other.indices)
            and self.params.tobytes() == other.params.tobytes()
            and _same(self.weights, other.weights)
            and self.image_size == other.image_size
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        names = [name.replace("flip_horizontal", "flip_h").replace("flip_vertical", "flip_v") for name in PARAM_FIELDS]
        names = [name.replace("channel_shift_intensity", "chan_shift") for name in names]
        lines = ["sample " + " ".join(f"{name:>10}" for name in names)]
        for index, row in zip(self.indices.tolist(), self.to_dicts(), strict=True):
            cells = ("-" if value is None else f"{float(value):.4g}" for value in row.values())
            lines.append(f"{index:>6} " + " ".join(f"{cell:>10}" for cell in cells))
        return "\n".join(lines)

    def to_dicts(self) -> list[dict[str, float | None]]:
        """Return one dictionary per sample, as Keras' ``get_random_transform`` gives it."""
        return params_to_dicts(self.params)

    def take(self, keep: np.ndarray) -> BatchPlan:
        """Return the plan of a part of the batch.

        Parameters
        ----------
        keep : numpy.ndarray
            Positions in the batch, shape ``(K,)``, int64.
        """
        return replace(
            self,
            indices=self.indices[keep],
            params=self.params[keep],
            file_numbers=None if self.file_numbers is None else self.file_numbers[keep],
            weights=None if self.weights is None else self.weights[keep],
        )


def _same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)
