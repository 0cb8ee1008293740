"""A look at a program by the library: whether the numbers of all steps are within their limits."""

from __future__ import annotations

import numpy as np

from gpuseq.plan.program import STEP_DTYPE, STEPS

from .library import chosen

__all__ = ["are_within_limits"]


# `Limit` of kernels/host/limits.h. 0: whatever the numbers.
_LIMITS = {
    "Posterize": 1,
    "PermuteChannels": 2,
    "GaussianBlur": 3,
    "Affine": 4,
    "AugMix": 5,
    "Erase": 6,
    "EraseNoise": 9,
    "ResizedCrop": 7,
    "CropByKey": 7,
    "Hue": 8,
    "AffineAbout": 10,
    "RotateAbout": 11,
}
_LIMIT_OF_CODE = np.array([_LIMITS.get(step.name, 0) for step in STEPS], np.int8)
_LIMITS_AT = _LIMIT_OF_CODE.ctypes.data


def are_within_limits(program: np.ndarray, image_size: tuple[int, int]) -> bool:
    """Tell whether `gpuseq.ops.checks.check_program` lets all steps of a program through, of which none is a crop.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    image_size : (int, int)
        Rows and columns of the images.

    Returns
    -------
    bool
        False also where the environment asks for NumPy.
    """
    instruction_set = chosen()
    if instruction_set is None or program.dtype != STEP_DTYPE or not program.flags.c_contiguous:
        return False
    are_within = instruction_set.functions.gpuseq_are_within_limits
    return bool(are_within(program.ctypes.data, program.size, *image_size, _LIMITS_AT, len(STEPS)))
