"""Images through a generator's settings: whole batches by a plan's parameters, and single images as in Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from gpuseq.base.arguments import warn
from gpuseq.base.devices import array_module, is_cupy, on_device
from gpuseq.base.types import Array, FillMode
from gpuseq.ops import dispatch as ops
from gpuseq.ops.affine import is_identity
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import dicts_to_params, identity_params, is_at_rest, params_to_dicts
from gpuseq.plan.draw import draw_params
from gpuseq.plan.program import IDENTITY, only_geometry, without_erasing

from .functions import transform_image
from .settings import GeneratorSettings

__all__ = ["ImageTransforms"]

_UNFITTED = (
    "This ImageDataGenerator specifies `{}`, but it hasn't been fit on any training data. Fit it first by calling "
    "`.fit(numpy_data)`."
)


class ImageTransforms(GeneratorSettings):
    """What a generator does to images once the parameters are drawn; deterministic."""

    def process(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        program: np.ndarray | None = None,
        source_format: str | None = None,
        data_format: str | None = None,
        dtype: str | None = None,
        round_affine: bool = False,
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
            ask for and before everything else but erasing, which comes last. A generator without augmentations, whose
            images may be masks, does the geometry alone, with nearest pixels. None: nothing.
        source_format, data_format : {"channels_last", "channels_first"} or None
            Axis order of `images` and of the result. None: the generator's.
        dtype : str or None
            Of the result. None: the generator's.
        round_affine : bool
            See `~gpuseq.ops.options.AugmentOptions`.

        Returns
        -------
        array
            Shape ``(N, ...)``, where `images` lives.
        """
        with on_device(images):
            formats = source_format or self.data_format, data_format or self.data_format
            if program is None or self.recipe is None or not (program["op"] != IDENTITY).any():
                batch = self._process(images, params, rows, *formats, dtype or self.dtype, round_affine)
                if program is None or self.recipe is not None:
                    return batch
                return ops.run_geometry(batch, only_geometry(program), formats[1])
            return self._process_program(images, params, rows, program, *formats, dtype or self.dtype)

    def _process_program(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None,
        program: np.ndarray,
        source_format: str,
        data_format: str,
        dtype: str,
    ) -> Array:
        """Do Keras' geometry and colours, rounded to uint8, then the program, then what Keras does from there on."""
        images, rows = self.warp_to_levels(images, params, rows, source_format)
        at_rest = identity_params(len(program))
        options = self._options(source_format, data_format, dtype, False, (False, False, False, False))
        self._warn_unfitted()
        statistics = self._statistics(images.shape[3 if source_format == "channels_last" else 1], data_format)
        is_fused = not self.zca_whitening and not callable(self.preprocessing_function)
        if statistics is not None and is_fused and not self.is_customised:
            return ops.run_program(images, program, options, indices=rows, statistics=statistics)
        levels = ops.run_program(images, without_erasing(program), _bare(options, "uint8"), indices=rows)
        batch = self._process(levels, at_rest, None, data_format, data_format, dtype, False)
        ops.erase(batch, program, data_format)
        return batch

    def warp_to_levels(
        self, images: Array, params: np.ndarray, rows: np.ndarray | None, source_format: str
    ) -> tuple[Array, np.ndarray | None]:
        """Do Keras' geometry and colours as uint8: rounded half up after the map, truncated after colours.

        Parameters
        ----------
        images : array
            Shape ``(M, H, W, C)`` or ``(M, C, H, W)``, uint8. Not written to.
        params : numpy.ndarray
            Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.
        rows : numpy.ndarray or None
            Shape ``(N,)``, int64: the row of `images` for each sample.
        source_format : {"channels_last", "channels_first"}
            Axis order of `images` and of the result.

        Returns
        -------
        array, numpy.ndarray or None
            Images and the row of each sample; those that came in where there is nothing to do.

        Raises
        ------
        TypeError
            If `images` are not uint8.
        """
        if images.dtype != np.uint8:
            raise TypeError(f"augmentations work on uint8 images, levels 0 to 255; got {images.dtype}")
        has_affine, _, has_shift, has_brightness = self._asked(params)
        has_flip = not is_at_rest(params, "flip").all()
        if not (has_affine or has_flip or has_shift or has_brightness):
            return images, rows
        asked = has_affine, has_flip, has_shift, has_brightness
        options = _bare(self._options(source_format, source_format, "uint8", True, asked), "uint8")
        return ops.augment(images, params, options, indices=rows), None

    def _process(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None,
        source_format: str,
        data_format: str,
        dtype: str,
        round_affine: bool,
    ) -> Array:
        options = self._options(source_format, data_format, dtype, round_affine, self._asked(params))
        self._warn_unfitted()
        statistics = self._statistics(images.shape[3 if source_format == "channels_last" else 1], data_format)
        if statistics is None:
            self._check_statistics(images.shape[1:], source_format)
        if statistics is None or self.is_customised:
            return self._process_each(images, params, rows, options)
        whitens = bool(self.zca_whitening) and statistics.whitening is not None
        if not whitens and not callable(self.preprocessing_function):
            return ops.augment(images, params, options, indices=rows, statistics=statistics)
        compute = options.compute_dtype.name
        if callable(self.preprocessing_function):
            bare = _bare(options, compute)
            batch = self._preprocessed(ops.augment(images, params, bare, indices=rows))
            after = replace(options, source_format=options.data_format, dtype=compute if whitens else dtype)
            batch = ops.standardize(batch, after, statistics)
        else:
            wide = replace(options, dtype=compute)
            batch = ops.augment(images, params, wide, indices=rows, statistics=statistics)
        if whitens:
            batch = ops.whiten(batch, self.zca_whitening_matrix).astype(dtype, copy=False)
        return batch

    def _check_statistics(self, shape: tuple[int, ...], source_format: str) -> None:
        """Refuse a mean or std that does not go with images of this shape: of another number of channels, mostly."""
        if source_format != self.data_format:
            shape = (shape[2], *shape[:2]) if source_format == "channels_last" else (*shape[1:], shape[0])
        for name in ("mean", "std"):
            values = np.shape(getattr(self, name)) if getattr(self, name) is not None else ()
            if any(theirs not in (1, ours) for theirs, ours in zip(values[::-1], shape[::-1], strict=False)):
                raise ValueError(
                    f"generator.{name} has shape {values} and the images have {shape}: was it fitted on images with "
                    "other channels?"
                )

    def _asked(self, params: np.ndarray) -> tuple[bool, bool, bool, bool]:
        """Tell whether an affine map, flips, channel shifts and brightness are to be done; the rest costs nothing.

        Geometry follows the plan, whoever drew it; colour changes only where this generator asks for them, so that the
        plan of an image does its mask no harm.
        """
        ranges = self.transform_ranges
        return (
            ranges.has_affine or not is_identity(params).all(),
            bool(ranges.horizontal_flip or ranges.vertical_flip) or not is_at_rest(params, "flip").all(),
            bool(ranges.channel_shift),
            ranges.brightness is not None,
        )

    def _preprocessed(self, batch: Array) -> Array:
        function = cast(Callable[[Any], Any], self.preprocessing_function)
        xp = array_module(batch)
        if getattr(function, "batched", False):
            result = xp.asarray(_returned(function(batch), batch.shape))
            return result if result.shape == batch.shape else xp.array(xp.broadcast_to(result, batch.shape))
        for row in range(len(batch)):
            batch[row] = _returned(function(batch[row]), batch.shape[1:])
        return batch

    @property
    def is_customised(self) -> bool:
        """Whether a subclass has its own way with single images, as Keras users write them."""
        own, base = type(self), ImageTransforms
        return own.apply_transform is not base.apply_transform or own.standardize is not base.standardize

    @property
    def draws_its_own(self) -> bool:
        """Whether a subclass has its own `get_random_transform`, which is then asked for each image, as in Keras."""
        return type(self).get_random_transform is not ImageTransforms.get_random_transform

    def draw_batch(self, stream: Any, num_samples: int, image_shape: tuple[int, ...]) -> np.ndarray:
        """Draw the parameters of a batch in Keras' random mode.

        Parameters
        ----------
        stream : numpy.random.RandomState or module
            A private stream, or ``numpy.random`` for the global one. A subclass' own `get_random_transform` draws from
            ``numpy.random``: it finds the private stream there while it is asked.
        num_samples : int
            Number of rows.
        image_shape : tuple of int
            Of one image, in the generator's axis order.

        Returns
        -------
        numpy.ndarray
            Shape ``(num_samples,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.

        Raises
        ------
        ValueError
            If an own `get_random_transform` returns parameters that are unknown.
        """
        if not self.draws_its_own:
            height, width = image_shape[self.row_axis - 1], image_shape[self.col_axis - 1]
            return draw_params(stream, self.transform_ranges, num_samples, height, width)
        if stream is np.random:
            return dicts_to_params([self.get_random_transform(image_shape) for _ in range(num_samples)])
        outside = np.random.get_state()
        np.random.set_state(stream.get_state())
        try:
            return dicts_to_params([self.get_random_transform(image_shape) for _ in range(num_samples)])
        finally:
            stream.set_state(np.random.get_state())
            np.random.set_state(outside)

    def _process_each(
        self, images: Array, params: np.ndarray, rows: np.ndarray | None, options: AugmentOptions
    ) -> Array:
        """Keras' own loop, image by image: for subclasses, and for a mean or std that is not one number per channel."""
        xp = array_module(images)
        batch = images if rows is None else images[rows]
        if options.source_format != self.data_format:
            batch = xp.moveaxis(batch, 3, 1) if self.data_format == "channels_first" else xp.moveaxis(batch, 1, 3)
        done = []
        for image, parameters in zip(batch, params_to_dicts(params), strict=True):
            image = self.apply_transform(image.astype(options.compute_dtype), parameters)
            done.append(self.standardize(image))
        return xp.stack(done).astype(options.dtype, copy=False)

    # Single images.

    def standardize(self, x: Array) -> Array:
        """Normalise an image or a batch, in place where its dtype allows, as Keras does.

        Parameters
        ----------
        x : array
            Floating; one image or a batch, on the host or a device. Written to.

        Returns
        -------
        array
            Shape of `x`. Samplewise steps treat all of `x` as one sample.

        References
        ----------
        ``ImageDataGenerator.standardize`` of Keras 3.15.
        """
        with on_device(x):
            return self._standardized(x)

    def _standardized(self, x: Array) -> Array:
        xp = array_module(x)
        if isinstance(self.preprocessing_function, str):
            axis = x.ndim - 4 + self.channel_axis
            options = AugmentOptions(preprocessing=cast(Any, self.preprocessing_function), dtype=x.dtype.name)
            planes = xp.moveaxis(x, axis, -1)
            x = xp.moveaxis(
                ops.standardize(planes.reshape(-1, *planes.shape[-3:]), options).reshape(planes.shape), -1, axis
            )
        elif self.preprocessing_function:
            x = self.preprocessing_function(x)
        asked = (self.rescale, self.samplewise_center, self.samplewise_std_normalization, self.featurewise_center)
        if any((*asked, self.featurewise_std_normalization, self.zca_whitening)) and x.dtype.kind != "f":
            raise TypeError(f"standardize() works in place, on floats; got {x.dtype}: pass x.astype('float32')")
        if self.rescale:
            x *= self.rescale
        if self.samplewise_center:
            x -= xp.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x /= xp.std(x, keepdims=True) + 1e-6
        self._warn_unfitted()
        if self.featurewise_center and self.mean is not None:
            x -= xp.asarray(self.mean)
        if self.featurewise_std_normalization and self.std is not None:
            x /= xp.asarray(self.std) + 1e-6
        if self.zca_whitening and self.zca_whitening_matrix is not None:
            flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
            x = (flat @ xp.asarray(self.zca_whitening_matrix)).reshape(x.shape)
        return x

    def _warn_unfitted(self) -> None:
        wanted = {
            "featurewise_center": self.mean,
            "featurewise_std_normalization": self.std,
            "zca_whitening": self.zca_whitening_matrix,
        }
        for name, value in wanted.items():
            if getattr(self, name) and value is None:
                warn(_UNFITTED.format(name))

    def get_random_transform(self, img_shape: tuple[int, ...], seed: int | None = None) -> dict[str, float | None]:
        """Draw the parameters of one image.

        Parameters
        ----------
        img_shape : tuple of int
            Of the image, in the generator's axis order.
        seed : int or None
            Draw from ``RandomState(seed)``. None draws from NumPy's global stream.

        Returns
        -------
        dict
            theta, shear in degrees, tx, ty in pixels, zx, zy, flip_horizontal, flip_vertical, and
            channel_shift_intensity, brightness or None.

        References
        ----------
        ``ImageDataGenerator.get_random_transform`` of Keras 3.15.
        """
        stream: Any = np.random if seed is None else np.random.RandomState(seed)
        height, width = img_shape[self.row_axis - 1], img_shape[self.col_axis - 1]
        return params_to_dicts(draw_params(stream, self.transform_ranges, 1, height, width))[0]

    def apply_transform(self, x: Array, transform_parameters: dict[str, Any]) -> Array:
        """Transform one image by given parameters.

        Parameters
        ----------
        x : array
            Shape ``(H, W, C)`` or ``(C, H, W)``, on the host or a device. Not written to.
        transform_parameters : dict
            As `get_random_transform` gives it; what is missing is not applied.

        Returns
        -------
        array
            Shape of `x`, where `x` lives.

        References
        ----------
        ``ImageDataGenerator.apply_transform`` of Keras 3.15.
        """
        params = dicts_to_params([transform_parameters], ignore_unknown=True)
        options = AugmentOptions(
            fill_mode=cast(FillMode, self.fill_mode),
            cval=float(self.cval),
            conventions=cast(Any, self.conventions),
            order=self.interpolation_order,
        )
        x = _image(x)
        axes = (self.row_axis - 1, self.col_axis - 1, self.channel_axis - 1)
        with on_device(x):
            moved = transform_image(x.transpose(axes), params, options)
            return moved.transpose(np.argsort(axes))

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """Transform one image at random: `get_random_transform`, then `apply_transform`.

        Parameters
        ----------
        x : array
            Shape ``(H, W, C)`` or ``(C, H, W)``, on the host or a device.
        seed : int or None
            As in `get_random_transform`.
        """
        x = _image(x)
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))


def _bare(options: AugmentOptions, dtype: str) -> AugmentOptions:
    """Return options that end before the normalisation, and before a fused preprocessing mode."""
    return replace(
        options,
        dtype=dtype,
        preprocessing=None,
        rescale=1.0,
        samplewise_center=False,
        samplewise_std=False,
        featurewise_center=False,
        featurewise_std=False,
    )


def _image(x: Any) -> Array:
    """Return one image as an array."""
    array: Array = x if is_cupy(x) else np.asarray(x)
    if array.ndim != 3:
        raise ValueError(f"one image has rank 3, and this has shape {array.shape}. For whole batches: flow(x)")
    return array


def _returned(result: Any, shape: tuple[int, ...]) -> Any:
    """Return what a `preprocessing_function` made of images of a shape, if it fits there, broadcast or not."""
    theirs = np.shape(result)
    fits = len(theirs) <= len(shape) and all(a in (1, b) for a, b in zip(theirs[::-1], shape[::-1], strict=False))
    if result is None or not fits:
        what = "None" if result is None else f"shape {theirs}"
        raise ValueError(f"preprocessing_function must return images of the shape it gets, {shape}; it returned {what}")
    return result
