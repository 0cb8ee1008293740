"""The plan of a batch: a value that holds everything random about it. What follows from a plan is deterministic."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from .columns import as_lines, dicts_to_params, params_to_dicts
from .draw import freeze
from .program import as_text, describe, dicts_to_program, program_to_dicts

__all__ = ["BatchPlan"]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Which samples a batch holds and the numbers drawn for each.

    Make one with an iterator's `plan_batch` and turn it into a batch with `replay`: on the same iterator, or on one
    over the masks or second views of the same samples, which then cannot drift apart.

    Attributes
    ----------
    indices : numpy.ndarray
        Shape ``(N,)``, int64, on the host: rows of the data set. Read-only, as every array of a plan that was drawn.
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`, on the host.
    file_numbers : numpy.ndarray or None
        Shape ``(N,)``, int64: the numbers in the names of saved files, with ``save_to_dir``.
    weights : numpy.ndarray or None
        Shape ``(N,)``, float32: 0 for samples that only fill up a shard, with ``remainder="exact"``.
    epoch, batch_index : int
        Where the batch stands; `epoch` is -1 while Keras' counting is in force, which knows none.
    image_size : (int, int)
        Rows and columns for which fractional shifts were turned into pixels.
    program : numpy.ndarray or None
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, on the host: the steps of the generator's
        ``augmentations``, with the parameters drawn for each sample. None without them.

    Notes
    -----
    Plans are equal where they make the same batch: saved files, epoch and batch number are left out. A field that
    holds an array has one row per sample, and `take` and ``==`` treat it as such, whatever it is.
    """

    indices: np.ndarray
    params: np.ndarray
    file_numbers: np.ndarray | None = field(default=None, compare=False)
    weights: np.ndarray | None = None
    epoch: int = field(default=-1, compare=False)
    batch_index: int = field(default=0, compare=False)
    image_size: tuple[int, int] = (0, 0)
    program: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchPlan):
            return NotImplemented
        return all(_same(getattr(self, item.name), getattr(other, item.name)) for item in fields(self) if item.compare)

    # Arrays compare by content, and a hash of their content would cost more than any use of it.
    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        samples = ("sample", *self.indices.tolist())
        lines = [f"{sample:>6} {line}" for sample, line in zip(samples, as_lines(self.params), strict=True)]
        if self.program is not None:
            lines[0] += "  augmentations"
            lines[1:] = [
                f"{line}  {as_text(steps) or '-'}" for line, steps in zip(lines[1:], self.program, strict=True)
            ]
        return "\n".join(lines)

    def describe(self, position: int) -> list[tuple[Any, ...]]:
        """Return what the augmentations do to one sample, as ``[("Rotate", 9.0), ("Color", 1.27)]``.

        Parameters
        ----------
        position : int
            In the batch.

        Raises
        ------
        IndexError
            If the batch has no such position.
        """
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position} is outside the batch of {len(self)} samples")
        return [] if self.program is None else describe(self.program[position])

    def to_json(self) -> str:
        """Return the plan as JSON text: numbers and names alone, for `from_json`."""
        import json

        parts: dict[str, Any] = {
            "indices": self.indices.tolist(),
            "params": self.to_dicts(),
            "program": None if self.program is None else program_to_dicts(self.program),
            # A batch in which nothing was drawn has empty rows: the shape has to be said.
            "num_steps": None if self.program is None else self.program.shape[1],
            "epoch": self.epoch,
            "batch_index": self.batch_index,
            "image_size": list(self.image_size),
        }
        for name in ("file_numbers", "weights"):
            values = getattr(self, name)
            parts[name] = None if values is None else values.tolist()
        return json.dumps(parts)

    @classmethod
    def from_json(cls, text: str) -> BatchPlan:
        """Return the plan that `to_json` wrote; its batch is the same, bit for bit.

        Parameters
        ----------
        text : str
            JSON, as it was written or edited since.

        Raises
        ------
        ValueError
            If it is no plan, or names a parameter or a step that there is not.
        """
        import json

        try:
            parts = json.loads(text)
            program, weights, numbers = parts["program"], parts["weights"], parts["file_numbers"]
            # Dtypes are set and not guessed: an empty list would be float64.
            plan = cls(
                indices=np.array(parts["indices"], np.int64),
                params=dicts_to_params(parts["params"]),
                file_numbers=None if numbers is None else np.array(numbers, np.int64),
                weights=None if weights is None else np.array(weights, np.float32),
                epoch=parts["epoch"],
                batch_index=parts["batch_index"],
                image_size=tuple(parts["image_size"]),
                program=None if program is None else dicts_to_program(program, parts["num_steps"]),
            )
            freeze(*plan._arrays().values())
            return plan
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no plan that to_json() wrote: {type(error).__name__}: {error}") from None

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
        # Whatever holds an array has a row for each sample: a field that is added is cut with the others.
        kept = {name: value[keep] for name, value in self._arrays().items()}
        freeze(*kept.values())
        return replace(self, **kept)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


def _same(first: Any, second: Any) -> bool:
    if not isinstance(first, np.ndarray) or not isinstance(second, np.ndarray):
        return type(first) is type(second) and bool(first == second)
    if first.dtype.names is None:
        return np.array_equal(first, second)
    # Bytes compare NaN ("not applied") as equal to itself.
    return first.dtype == second.dtype and first.tobytes() == second.tobytes()
