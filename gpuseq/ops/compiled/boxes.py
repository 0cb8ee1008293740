"""Rectangles drawn by the library: those of `gpuseq.plan.boxes`, which asks here first once this is imported."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import numpy as np

from gpuseq.plan.boxes import Boxes, use_compiled
from gpuseq.plan.program import STEP_DTYPE

from .library import BoxesTable, chosen
from .philox import as_counters, fits_a_key

__all__ = ["draw_boxes"]


def draw_boxes(boxes: Boxes, program: np.ndarray, sample_ids: np.ndarray, *, seed: int, epoch: int, place: int) -> bool:
    """Compiled twin of what augmentations draw by `gpuseq.plan.boxes`; False where it is left to NumPy.

    Parameters
    ----------
    boxes, program, sample_ids, seed, epoch, place
        As of `gpuseq.plan.boxes.drawn_by_library`.
    """
    instruction_set = chosen()
    # What is no key is NumPy's to refuse.
    if instruction_set is None or not fits_a_key(seed, epoch):
        return False
    ids = as_counters(sample_ids)
    table, _ = _table(boxes)
    # False also where a side lies at a half but for its last digits: which way that is rounded hangs on NumPy's exp.
    return bool(
        instruction_set.functions.gpuseq_draw_boxes(
            *(table, ids.ctypes.data, len(ids), seed, epoch, 1 + place),
            *(program.ctypes.data, program.strides[0] // STEP_DTYPE.itemsize),
        )
    )


# The same for every batch: a table is kept, and what it points at with it.
@lru_cache(maxsize=64)
def _table(boxes: Boxes) -> tuple[int, Any]:
    """Return where the library reads what is drawn, and what must live as long."""
    held = boxes.step.copy(), boxes.otherwise.copy()
    pair = ctypes.c_double * 2
    log_ratio = math.log(boxes.ratio[0]), math.log(boxes.ratio[1])
    table = BoxesTable(
        *(step.ctypes.data for step in held),
        *(*boxes.image_size, *boxes.largest),
        *(pair(low, high - low) for low, high in (boxes.scale, log_ratio)),
        *(1.0, 0) if boxes.p is None else (boxes.p, 2),
        *(boxes.tall, boxes.has_key),
    )
    return ctypes.addressof(table), (table, held)


use_compiled(draw_boxes)
