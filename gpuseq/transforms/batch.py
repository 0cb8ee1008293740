"""What a generator does to images whose parameters are drawn: one frozen value, callable on batches and on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuseq.base.devices import array_module, is_cupy, on_device
from gpuseq.base.types import Array, DataFormat
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions, RangesFirst, Statistics
from gpuseq.plan.columns import COLUMNS, are_neutral, dicts_to_params, is_at_rest, params_at_rest, params_to_dicts
from gpuseq.plan.program import only_geometry, without_erasing
from gpuseq.plan.ranges import TransformRanges

from .functions import transform_image
from .normalisation import Normalisation
from .settings import Settings
from .statistics import rescaled

if TYPE_CHECKING:
    from gpuseq.ops.looks import Looks
    from gpuseq.plan.policies.recipe import Recipe

__all__ = ["BatchTransform", "checked_image"]

GEOMETRY_STEPS = tuple(dict.fromkeys(column.step for column in COLUMNS.groups["geometry"]))
"""Steps that follow the plan of a batch, whatever the generator asks for."""

NO_STATISTICS = Statistics()
"""Of a batch that is not normalised by any."""


@dataclass(frozen=True, eq=False)
class BatchTransform:
    """What a generator does to a batch once the parameters are drawn: deterministic, and never changed.

    A generator makes a new one when one of its attributes changes. Call it with images and parameters.

    Attributes
    ----------
    options : AugmentOptions
        What is done to every sample. Both axis orders and the dtype are the generator's; a call may replace them.
    normalisation : Normalisation
        The user's own function and arrays.
    has_augmentations : bool
        Whether programs are done whole. A generator without augmentations, whose images may be masks, does the geometry
        of a program alone.
    one_image : callable or None
        What is done to one image and its parameters, a dictionary, in the place of everything else: a subclass' own
        ``apply_transform`` and ``standardize``.
    """

    options: AugmentOptions
    normalisation: Normalisation = field(default_factory=Normalisation)
    has_augmentations: bool = False
    one_image: Callable[[Array, dict[str, Any]], Array] | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        ranges: TransformRanges,
        one_image: Callable[[Array, dict[str, Any]], Array] | None = None,
        *,
        draws_its_own: bool = False,
        has_augmentations: bool = False,
    ) -> BatchTransform:
        """Read a generator's settings.

        Parameters
        ----------
        settings : Settings
            Of the generator, as they are now.
        ranges : TransformRanges
            Its ranges: what cannot be drawn is left out of the pass over the batch.
        one_image : callable or None
            See the attribute.
        draws_its_own : bool
            Whether a subclass draws the parameters, so that the ranges say nothing of them.
        has_augmentations : bool
            See the attribute.
        """
        # A name is one of Keras' modes and done in the kernel; a callable is the normalisation's.
        mode = settings.preprocessing_function
        normalisation = Normalisation.of(settings)
        # Python's own bools and floats, as attributes may be NumPy's, and options are hashed at each call. A `rescale`
        # of 0 is none, as in Keras.
        options = AugmentOptions(
            source_format=settings.data_format,
            data_format=settings.data_format,
            dtype=settings.dtype,
            fill_mode=settings.fill_mode,
            cval=float(settings.cval),
            order=settings.interpolation_order,
            conventions=settings.conventions,
            has_affine=ranges.has_affine,
            has_flip=ranges.horizontal_flip or ranges.vertical_flip,
            has_channel_shift=bool(ranges.channel_shift) or draws_its_own,
            has_brightness=ranges.brightness is not None or draws_its_own,
            preprocessing=mode if isinstance(mode, str) else None,  # type: ignore[arg-type]
            rescale=float(settings.rescale) if settings.rescale else 1.0,
            samplewise_center=bool(settings.samplewise_center),
            samplewise_std=bool(settings.samplewise_std_normalization),
            featurewise_center=normalisation.mean is not None,
            featurewise_std=normalisation.std is not None,
        )
        return cls(options, normalisation, has_augmentations, one_image)

    def __call__(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        program: np.ndarray | None = None,
        source_format: DataFormat | None = None,
        data_format: DataFormat | None = None,
        dtype: str | None = None,
        round_affine: bool = False,
        looks: Looks | None = None,
    ) -> Array:
        """Transform and normalise a batch by given parameters; everything random is in them.

        Parameters
        ----------
        images : array
            Shape ``(M, H, W, C)`` or ``(M, C, H, W)``; uint8, uint16, float32 or float64. Not written to.
        params : numpy.ndarray
            Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`, on the host.
        rows : numpy.ndarray or None
            Shape ``(N,)``, int64: the row of `images` for each sample. None: in order.
        program : numpy.ndarray or None
            Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, on the host: done to uint8, after what `params`
            ask for and before everything else but erasing, which comes last. None: nothing.
        source_format, data_format : {"channels_last", "channels_first"} or None
            Axis order of `images` and of the result. None: the generator's.
        dtype : str or None
            Of the result. None: the generator's.
        round_affine : bool
            See `~gpuseq.ops.options.AugmentOptions`.
        looks : Looks or None
            See `~gpuseq.ops.dispatch.run_program`.

        Returns
        -------
        array
            Shape ``(N, ...)``, where `images` lives.

        Raises
        ------
        ValueError
            If `mean` or `std` does not go with images of this shape, or the preprocessing function returns another one.
        IndexError
            If there is no such row.
        """
        options = self._following(params)
        own = (options.source_format, options.data_format, options.dtype, options.round_affine)
        asked = (source_format or own[0], data_format or own[1], dtype or own[2], round_affine)
        if asked != own:
            options = _laid_out(options, *asked)
        if self.normalisation.unfitted:
            self.normalisation.warn_unfitted()
        # Steps that do nothing are as good as none: the fused pass is one launch, and takes any dtype.
        if program is None or (self.has_augmentations and not _has_steps(program)):
            return self._finished(images, params, rows, options)
        if not self.has_augmentations:
            batch = self._finished(images, params, rows, options)
            return ops.run_geometry(batch, only_geometry(program), options.data_format)
        return self._with_program(images, params, rows, program, options, looks)

    def _finished(self, images: Array, params: np.ndarray, rows: np.ndarray | None, options: AugmentOptions) -> Array:
        """Do all but a program, in one pass over the batch where nothing of the user's own comes between."""
        statistics = self._statistics(images, options)
        if statistics is not None and self.is_fused:
            return ops.augment(images, params, options, indices=rows, statistics=statistics)
        with on_device(images):  # the ops see to that themselves
            # One number per channel is what the fused pass can subtract; anything else is Keras' broadcast, image by
            # image.
            if statistics is None or self.one_image is not None:
                return self._image_by_image(images, params, rows, options)
            return self._in_steps(images, params, rows, options, statistics)

    def _statistics(self, images: Array, options: AugmentOptions) -> Statistics | None:
        """Return mean and std of each channel; None where the user's own are not one number per channel."""
        if not (options.featurewise_center or options.featurewise_std):
            return NO_STATISTICS
        return self.normalisation.per_channel(images, options)

    @property
    def is_fused(self) -> bool:
        """Whether one pass over a batch does everything, so that no function of a user's sees the axis order."""
        return self.normalisation.is_fused and self.one_image is None

    def _with_program(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None,
        program: np.ndarray,
        options: AugmentOptions,
        looks: Looks | None,
    ) -> Array:
        """Do the ranges' geometry and colours as uint8, then the program, then what follows, and erase at the end."""
        # The steps are Pillow's and defined on levels, so the ranges' result is rounded to them in between.
        ranges = self._ranges_first(images, params, options.source_format)
        statistics = self._statistics(images, options)
        before: dict[str, Any] = {"indices": rows, "ranges": ranges, "looks": looks}
        if statistics is not None and self.is_fused:
            return ops.run_program(images, program, options, statistics=statistics, **before)
        # With a function or a whitening matrix in between, the erasing waits: it is in units of the finished batch.
        levels_options = replace(options.unnormalised(), dtype="uint8")
        levels = ops.run_program(images, without_erasing(program), levels_options, **before)
        following = replace(options, source_format=options.data_format, round_affine=False)
        batch = self._finished(levels, params_at_rest(len(program)), None, following)
        ops.erase(batch, program, options.data_format)
        return batch

    def _ranges_first(self, images: Array, params: np.ndarray, source_format: DataFormat) -> RangesFirst | None:
        """Return what the ranges do as uint8, rounded half up after the map, truncated after colours; None for nothing.

        Raises
        ------
        TypeError
            If `images` are not uint8.
        """
        if images.dtype != np.uint8:
            raise TypeError(f"augmentations work on uint8 images, levels 0 to 255; got {images.dtype}")
        if are_neutral(params):
            return None
        # The options keep flips on for what a plan may bring; here a batch without any spares the whole pass.
        has_flip = not is_at_rest(params, "flip").all()
        options = _on_levels(self._following(params), source_format, has_flip)
        if not (options.has_affine or has_flip or options.has_channel_shift or options.has_brightness):
            return None
        return RangesFirst(params, options)

    def augmented(
        self,
        images: Array,
        rows: np.ndarray,
        params: np.ndarray,
        program: np.ndarray | None,
        *,
        dtype: str,
        rescale: float | None,
    ) -> Array:
        """Return a batch transformed, rescaled and not normalised: what `fit` looks at.

        Parameters
        ----------
        images, params, rows, program
            As in a call; nothing is erased.
        dtype : str
            Of the result: float32 or float64.
        rescale : float or None
            Multiplied with: before the transforms, as Keras does in `fit`, or after the program, which takes levels.
        """
        options = replace(self._following(params).unnormalised(), dtype=dtype)
        if program is None:
            return ops.augment(rescaled(images[rows], dtype, rescale), params, options)
        # Keras rescales before it transforms; levels cannot be rescaled before their program, so the factor comes after
        # it.
        ranges = self._ranges_first(images, params, options.source_format)
        following = replace(options, rescale=float(rescale or 1.0))
        return ops.run_program(images, without_erasing(program), following, indices=rows, ranges=ranges)

    def describe(
        self,
        source_dtype: np.dtype[Any],
        device: str,
        recipe: Recipe | None,
        program: np.ndarray | None,
        *,
        known: np.ndarray | None = None,
    ) -> list[tuple[str, str]]:
        """Say what is done to a batch, by which engine, and what of it is slow, as steps of ``explain``.

        Parameters
        ----------
        source_dtype : numpy.dtype
            Of the images that come in.
        device : str
            ``"cpu"`` or ``"cuda:N"``: where it is done.
        recipe : Recipe or None
            The augmentations that `program` was drawn from.
        program : numpy.ndarray or None
            Of a batch.
        known : numpy.ndarray or None
            Shape ``(N,)``, bool: of which samples looks at the source image are kept. None: of none.
        """
        options, function = self.options, self.normalisation.function
        path = []
        if recipe is not None and program is not None:
            rounds = options.has_affine or options.has_channel_shift or options.has_brightness
            on_the_host = "; step after step on the host" if device == "cpu" else ""
            rounded = "; after the ranges are rounded to uint8" if rounds else ""
            path.append(("augmentations", f"{recipe!r} on uint8{on_the_host}{rounded}"))
        path.append(("engine", ops.describe(device, options, source_dtype, program, known=known)))
        slow = []
        if self.one_image is not None:
            slow.append("a subclass with its own apply_transform or standardize: Keras' loop, image by image")
        if options.order > 1:
            splines = "SciPy" if device == "cpu" else "cupyx"
            slow.append(f"interpolation_order={options.order}: splines through {splines}, plane by plane")
        if function is not None and not getattr(function, "batched", False):
            slow.append("preprocessing_function: a Python call per image (mark it with function.batched = True)")
        if self.normalisation.whitening is not None:
            slow.append("zca_whitening: one matrix product with a row per image")
        return [*path, *(("slow path", reason) for reason in slow)]

    def _following(self, params: np.ndarray) -> AugmentOptions:
        """Return the options for parameters that may have been drawn elsewhere: a plan given to `replay`.

        Geometry follows the plan. Colour changes only where this generator asks for it, so that the plan of an image
        does its mask no harm.
        """
        # What leaves no step out has nothing to look for; one look does for the plans of augmentations, beside which
        # nothing is drawn.
        if not self._steps_left_out or are_neutral(params):
            return self.options
        further = [step for step in self._steps_left_out if not is_at_rest(params, step).all()]
        return self.options.asking(further) if further else self.options

    @cached_property
    def _steps_left_out(self) -> tuple[str, ...]:
        """The steps of the geometry that the options leave out."""
        return tuple(step for step in GEOMETRY_STEPS if not getattr(self.options, f"has_{step}"))

    def _in_steps(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None,
        options: AugmentOptions,
        statistics: Statistics,
    ) -> Array:
        """Take the passes that a function or a whitening matrix needs, in the compute dtype until the last."""
        compute, whitening = options.compute_dtype.name, self.normalisation.whitening
        if self.normalisation.function is None:
            wide = replace(options, dtype=compute)
            # In the compute dtype, because the whitening product would sum rounded halves or bytes.
            batch = ops.augment(images, params, wide, indices=rows, statistics=statistics)
        else:
            bare = replace(options.unnormalised(), dtype=compute)
            batch = self.normalisation.preprocessed(ops.augment(images, params, bare, indices=rows))
            dtype = options.dtype if whitening is None else compute
            after = replace(options, source_format=options.data_format, dtype=dtype)
            batch = ops.standardize(batch, after, statistics)
        return batch if whitening is None else ops.whiten(batch, whitening).astype(options.dtype, copy=False)

    def _image_by_image(
        self, images: Array, params: np.ndarray, rows: np.ndarray | None, options: AugmentOptions
    ) -> Array:
        """Keras' own loop: for subclasses, and for a mean or std that is not one number per channel."""
        xp = array_module(images)
        batch = images if rows is None else images[rows]
        own = self.options.data_format  # which the images of users' methods have, and a mean per pixel
        batch = reordered(batch, options.source_format, own)
        # Each image is a new array: users' methods may write to it, as they may in Keras.
        one_image = self.one_image or self._one_image
        done = [
            one_image(image.astype(options.compute_dtype), parameters)
            for image, parameters in zip(batch, params_to_dicts(params), strict=True)
        ]
        return reordered(xp.stack(done), own, options.data_format).astype(options.dtype, copy=False)

    def _one_image(self, image: Array, parameters: dict[str, Any]) -> Array:
        return self.standardize(self.apply_transform(image, parameters))

    def standardize(self, x: Array) -> Array:
        """Normalise one image or a batch; see `Normalisation.standardize`."""
        return self.normalisation.standardize(x, self.options)

    def apply_transform(self, x: Array, parameters: Mapping[str, Any]) -> Array:
        """Transform one image by given parameters.

        Parameters
        ----------
        x : array
            Shape ``(H, W, C)`` or ``(C, H, W)``, on the host or a device. Not written to.
        parameters : mapping
            As Keras' ``get_random_transform`` gives it; what is missing is not applied.

        Returns
        -------
        array
            Shape of `x`, where `x` lives.

        Raises
        ------
        ValueError
            If `x` is no single image.
        """
        params = dicts_to_params([parameters], ignore_unknown=True)
        x = checked_image(x)
        axes = (0, 1, 2) if self.options.data_format == "channels_last" else (1, 2, 0)
        with on_device(x):
            return transform_image(x.transpose(axes), params, self._any_parameters).transpose(np.argsort(axes))

    @cached_property
    def _any_parameters(self) -> AugmentOptions:
        """The options for one image, whose parameters the caller may have made up."""
        return self.options.unnormalised().asking(column.step for column in COLUMNS)


def _has_steps(program: np.ndarray) -> bool:
    """Tell whether any step of a program does anything."""
    # Most often one of the first sample does, which is known in a tenth of the time.
    return any(program["op"][:1].ravel().tolist()) or bool(np.count_nonzero(program["op"]))


@lru_cache(maxsize=256)
def _laid_out(
    options: AugmentOptions, source_format: DataFormat, data_format: DataFormat, dtype: str, round_affine: bool
) -> AugmentOptions:
    """Return the options of one call: the same for every batch of an iterator."""
    # Kept: `replace` takes 11 us and the cache half a microsecond, at each batch.
    return replace(
        options, source_format=source_format, data_format=data_format, dtype=dtype, round_affine=round_affine
    )


@lru_cache(maxsize=256)
def _on_levels(options: AugmentOptions, source_format: DataFormat, has_flip: bool) -> AugmentOptions:
    """Return what these options ask for up to the colours, from uint8 to uint8; kept as `_laid_out` is."""
    return replace(
        options.unnormalised(),
        source_format=source_format,
        data_format=source_format,
        dtype="uint8",
        round_affine=True,
        has_flip=has_flip,
    )


def reordered(batch: Array, order: DataFormat, wanted: DataFormat) -> Array:
    """Return a batch as a view with its axes in the wanted order."""
    if order == wanted:
        return batch
    return batch.transpose((0, 3, 1, 2) if wanted == "channels_first" else (0, 2, 3, 1))


def checked_image(x: Any) -> Array:
    """Return one image as an array.

    Raises
    ------
    ValueError
        If its rank is not 3.
    """
    array: Array = x if is_cupy(x) else np.asarray(x)
    if array.ndim != 3:
        raise ValueError(f"one image has rank 3, and this has shape {array.shape}. For whole batches: flow(x)")
    return array
