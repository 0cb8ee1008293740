"""What one call of `~gpuseq.ops.dispatch.augment` is asked to do, apart from the drawn parameters: frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpuseq.base.types import Conventions, DataFormat, FillMode, Preprocessing

__all__ = ["AugmentOptions", "RangesFirst", "Statistics"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the images of a batch are normalised by: one mean and one standard deviation per channel.

    Attributes
    ----------
    mean, std : array or None
        Shape ``(C,)``, float32 or float64; `std` without Keras' 1e-6, which the ops add.
    """

    mean: np.ndarray | None = None
    std: np.ndarray | None = None


@dataclass(frozen=True)
class AugmentOptions:
    """What one fused augment launch does to every sample, apart from the drawn parameters.

    The order is Keras': affine, channel shift, flips, brightness, `preprocessing` mode, rescale,
    samplewise centre and std, featurewise centre and std.

    Attributes
    ----------
    source_format, data_format : {"channels_last", "channels_first"}
        Axis order of the images handed in, and of the batch handed out.
    dtype : str
        Name of the output dtype. ``float64`` computes in double, everything else in float32.
    order : int
        Spline order of the affine map, 0 to 5. What is above 1 is warped by `~gpuseq.ops.dispatch.augment` in a pass of
        its own: the fused passes of the engines know 0 and 1.
    conventions : {"keras", "corrected"}
        Which axis Keras' ``tx`` moves and where non-square images turn.
    has_affine, has_flip, has_channel_shift, has_brightness : bool
        False promises that no row asks for it, so a kernel may leave the code out.
    round_affine : bool
        Round (half up) and saturate to uint8 after the affine map: Keras with ``dtype="uint8"`` arrays.
    preprocessing : {None, "tf", "caffe", "torch"}
        Keras' ``imagenet_utils`` modes, fused.
    rescale : float
        Multiplier, 1.0 for none.
    """

    source_format: DataFormat = "channels_last"
    data_format: DataFormat = "channels_last"
    dtype: str = "float32"
    fill_mode: FillMode = "nearest"
    cval: float = 0.0
    order: int = 1
    conventions: Conventions = "keras"
    has_affine: bool = True
    has_flip: bool = True
    has_channel_shift: bool = True
    has_brightness: bool = True
    round_affine: bool = False
    preprocessing: Preprocessing | None = None
    rescale: float = 1.0
    samplewise_center: bool = False
    samplewise_std: bool = False
    featurewise_center: bool = False
    featurewise_std: bool = False

    # Kept, because every batch looks things up by its options, twice.
    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(self.__getstate__().values()))

    def __getstate__(self) -> dict[str, Any]:
        # Without the hash: that of a text is another one in another process.
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @cached_property
    def compute_dtype(self) -> np.dtype[np.floating]:
        """The dtype the arithmetic runs in: float64 for float64 output, else float32."""
        # float16, bfloat16 and uint8 batches are float32 ones, rounded at the end. Keras fails in float16.
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)

    def asking(self, steps: Iterable[str]) -> AugmentOptions:
        """Return these options with further steps: rows may ask for them.

        Parameters
        ----------
        steps : iterable of str
            Those of `~gpuseq.plan.columns.Column`.
        """
        asked: dict[str, Any] = {f"has_{step}": True for step in steps}
        return replace(self, **asked) if asked else self

    def unnormalised(self) -> AugmentOptions:
        """Return these options without anything from the preprocessing mode on: map, flips and colours alone."""
        return replace(
            self,
            preprocessing=None,
            rescale=1.0,
            samplewise_center=False,
            samplewise_std=False,
            featurewise_center=False,
            featurewise_std=False,
        )

    def geometry(self) -> AugmentOptions:
        """Return what masks share with the images of these options: axis orders, border and conventions, and no colour.

        What has to be moved is left to the parameters.
        """
        return AugmentOptions(
            source_format=self.source_format,
            data_format=self.data_format,
            fill_mode=self.fill_mode,
            cval=self.cval,
            conventions=self.conventions,
            # A label is taken from one pixel and not blended of several.
            order=0,
            has_channel_shift=False,
            has_brightness=False,
        )


@dataclass(frozen=True, eq=False)
class RangesFirst:
    """What Keras' ranges do to the images of a batch before their programs: levels in, levels out.

    Attributes
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`, on the host.
    options : AugmentOptions
        From uint8 to uint8, in the axis order of the images: rounded after the map, cut off after colours, and nothing
        from the preprocessing mode on.
    """

    params: np.ndarray
    options: AugmentOptions
