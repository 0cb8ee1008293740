"""Normalisation, from a user's own function on: what `fit` found, what a user set, and Keras' ``standardize``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gpuseq.base.arguments import warn
from gpuseq.base.devices import array_module, on_device
from gpuseq.base.forks import LINEAR_ALGEBRA, forks_wait
from gpuseq.base.types import Array, DataFormat
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions, Statistics

from .settings import Settings
from .statistics import per_channel_of

__all__ = ["Normalisation"]

_UNFITTED = (
    "This ImageDataGenerator specifies `{}`, but it hasn't been fit on any training data. Fit it first by calling "
    "`.fit(numpy_data)`."
)


@dataclass(frozen=True, eq=False)
class Normalisation:
    """What is done to transformed images and is no plain option: a function of the user's, and arrays.

    Attributes
    ----------
    function : callable or None
        The user's ``preprocessing_function``, between the transforms and the normalisation.
    mean, std, whitening : array, number or None
        What is subtracted, divided by and multiplied with; as the user sees them, one number per channel or not. None
        where the generator has no use for it.
    unfitted : tuple of str
        Options of the generator that do nothing because `fit` was not called; each batch warns of them.
    data_format : {"channels_last", "channels_first"}
        The generator's axis order, which a mean per pixel has.
    """

    function: Callable[[Any], Any] | None = None
    mean: Any = None
    std: Any = None
    whitening: Any = None
    unfitted: tuple[str, ...] = ()
    data_format: DataFormat = "channels_last"
    _per_channel: dict[tuple[int, str], Statistics | None] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Normalisation:
        """Read a generator's settings, as they are now."""
        function = settings.preprocessing_function
        fitted = {
            "featurewise_center": settings.mean,
            "featurewise_std_normalization": settings.std,
            "zca_whitening": settings.zca_whitening_matrix,
        }
        # What is set but not asked for stays out: a user may keep `mean` while `featurewise_center` is off.
        asked = [name for name in fitted if getattr(settings, name)]
        mean, std, whitening = (value if name in asked else None for name, value in fitted.items())
        unfitted = tuple(name for name in asked if fitted[name] is None)
        return cls(function if callable(function) else None, mean, std, whitening, unfitted, settings.data_format)

    @cached_property
    def is_fused(self) -> bool:
        """Whether the pass over a batch does all of it."""
        return self.function is None and self.whitening is None

    def warn_unfitted(self) -> None:
        """Warn, as Keras does at each batch, of options that do nothing yet."""
        for name in self.unfitted:
            warn(_UNFITTED.format(name))

    def per_channel(self, images: Array, options: AugmentOptions) -> Statistics | None:
        """Return mean and std of each channel; None where the user's own are not one number per channel.

        Kept, because the engine for CUDA keeps what it has uploaded for as long as the value lives.

        Raises
        ------
        ValueError
            If they do not go with the images at all.
        """
        num_channels = images.shape[3 if options.source_format == "channels_last" else 1]
        key = (num_channels, options.data_format)
        if key not in self._per_channel:
            try:
                mean, std = (per_channel_of(values, *key) for values in (self.mean, self.std))
                self._per_channel[key] = Statistics(mean, std)
            # None is kept as well: whether a mean is one number per channel is asked at every batch.
            except ValueError:
                self._per_channel[key] = None
        if self._per_channel[key] is None:
            self._check_shapes(images.shape[1:], options)
        return self._per_channel[key]

    def _check_shapes(self, shape: tuple[int, ...], options: AugmentOptions) -> None:
        """Refuse a mean or std that does not go with images of this shape: of another number of channels, mostly."""
        # A mean per pixel has the generator's order, and so its shape is compared in that.
        if options.source_format != self.data_format:
            last = options.source_format == "channels_last"
            shape = (shape[2], *shape[:2]) if last else (*shape[1:], shape[0])
        for name, values in (("mean", self.mean), ("std", self.std)):
            theirs = () if values is None else np.shape(values)
            if any(size not in (1, ours) for size, ours in zip(theirs[::-1], shape[::-1], strict=False)):
                raise ValueError(
                    f"generator.{name} has shape {theirs} and the images have {shape}: was it fitted on images with "
                    "other channels?"
                )

    def preprocessed(self, batch: Array) -> Array:
        """Return a batch after the user's function, which sees it whole if it says so.

        Parameters
        ----------
        batch : array
            Shape ``(N, ...)``, floating. Written to.

        Raises
        ------
        ValueError
            If the function returns images of another shape.
        """
        function, xp = self.function, array_module(batch)
        if function is None:
            return batch
        # By default a function gets one image, as in Keras; the attribute is the user's word that it takes a batch.
        if getattr(function, "batched", False):
            result = xp.asarray(_returned(function(batch), batch.shape))
            return result if result.shape == batch.shape else xp.array(xp.broadcast_to(result, batch.shape))
        # Into the batch at once: it is this call's own, and a second one would double the memory.
        # What a function brings to the host, for a library that works there, goes back where the batch is.
        for row in range(len(batch)):
            batch[row] = xp.asarray(_returned(function(batch[row]), batch.shape[1:]))
        return batch

    def standardize(self, x: Array, options: AugmentOptions) -> Array:
        """Normalise an image or a batch, in place where its dtype allows, as Keras does.

        Parameters
        ----------
        x : array
            Floating; one image or a batch, on the host or a device. Written to.
        options : AugmentOptions
            The generator's.

        Returns
        -------
        array
            Shape of `x`. Samplewise steps treat all of `x` as one sample.

        Raises
        ------
        TypeError
            If there is something to do in place, and `x` holds integers.
        """
        with on_device(x):
            return self._standardized(x, options)

    def _standardized(self, x: Array, options: AugmentOptions) -> Array:
        xp = array_module(x)
        if options.preprocessing is not None:
            x = _mode_applied(x, options)
        elif self.function is not None:
            # Keras' order: the function before the rescale, and the samplewise steps before the featurewise ones.
            x = self.function(x)
        steps = (options.samplewise_center, options.samplewise_std, options.featurewise_center, options.featurewise_std)
        is_asked = options.rescale != 1.0 or any(steps) or self.whitening is not None or bool(self.unfitted)
        if is_asked and x.dtype.kind != "f":
            raise TypeError(f"standardize() works in place, on floats; got {x.dtype}: pass x.astype('float32')")
        if options.rescale != 1.0:
            x *= options.rescale
        if options.samplewise_center:
            x -= xp.mean(x, keepdims=True)
        if options.samplewise_std:
            # Keras' 1e-6, in both divisions: an image of one value is divided by that and not by 0.
            x /= xp.std(x, keepdims=True) + 1e-6
        # Here, as in Keras, where the warning takes the place of the step.
        self.warn_unfitted()
        if options.featurewise_center:
            x -= xp.asarray(self.mean)
        if options.featurewise_std:
            x /= xp.asarray(self.std) + 1e-6
        if self.whitening is not None:
            flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
            with forks_wait(LINEAR_ALGEBRA):
                x = (flat @ xp.asarray(self.whitening)).reshape(x.shape)
        return x


def _mode_applied(x: Array, options: AugmentOptions) -> Array:
    """Return an image or a batch after one of Keras' named modes, and nothing else."""
    xp = array_module(x)
    axis = x.ndim - 1 if options.data_format == "channels_last" else x.ndim - 3
    # By the op, as batches: the modes' constants stand in one place.
    planes = xp.moveaxis(x, axis, -1)
    mode = AugmentOptions(preprocessing=options.preprocessing, dtype=x.dtype.name)
    done = ops.standardize(planes.reshape(-1, *planes.shape[-3:]), mode)
    return xp.moveaxis(done.reshape(planes.shape), -1, axis)


def _returned(result: Any, shape: tuple[int, ...]) -> Any:
    """Return what a `preprocessing_function` made of images of a shape, if it fits there, broadcast or not."""
    # What is broadcast into the image by NumPy's assignment is accepted, as in Keras' loop.
    theirs = np.shape(result)
    fits = len(theirs) <= len(shape) and all(a in (1, b) for a, b in zip(theirs[::-1], shape[::-1], strict=False))
    if result is None or not fits:
        what = "None" if result is None else f"shape {theirs}"
        raise ValueError(f"preprocessing_function must return images of the shape it gets, {shape}; it returned {what}")
    return result
