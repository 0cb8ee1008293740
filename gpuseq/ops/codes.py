"""What compiled engines share with their launchers: the numbers of names, and what of a sample they need first."""

from __future__ import annotations

from typing import Any

import numpy as np

from .options import AugmentOptions

__all__ = ["FILL_MODES", "OUT_KINDS", "PREPROCESSING", "needs_range"]

# The numbers of OUT_..., FILL_... and PREPROCESS in kernels/common.cuh.
OUT_KINDS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3, "uint8": 4}
FILL_MODES = {"nearest": 0, "constant": 1, "reflect": 2, "wrap": 3}
PREPROCESSING = {None: 0, "tf": 1, "caffe": 2, "torch": 3}


def needs_range(options: AugmentOptions, source_dtype: np.dtype[Any]) -> bool:
    """Tell whether a sample's least and greatest value after the affine map decide about its colours.

    The channel shift clips to them, and brightness stretches an image that leaves 0 to 255. 8-bit images stay within
    unless the border is filled with something else; in double the weights' rounding can lift 255 by a bit, which Keras
    takes for a stretched image, and so do we.

    Parameters
    ----------
    options : AugmentOptions
        What is done to every sample.
    source_dtype : numpy.dtype
        Of the images.
    """
    if options.has_channel_shift or not options.has_brightness:
        return options.has_channel_shift
    # Any float may leave 0 to 255, and uint16 does.
    if source_dtype != np.uint8:
        return True
    if not options.has_affine:
        return False
    is_filled_outside = options.fill_mode == "constant" and not 0 <= options.cval <= 255
    return is_filled_outside or (options.compute_dtype == np.float64 and not options.round_affine)
