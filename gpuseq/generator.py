"""`ImageDataGenerator`: Keras' argument list and methods, over the rooms that do the work."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from gpuseq.base.arguments import check_choice, checked_arguments, checked_data_format, checked_dtype
from gpuseq.base.devices import resolve_device
from gpuseq.base.types import (
    Array,
    BatchDType,
    Conventions,
    DataFormat,
    Device,
    FactorRange,
    FillMode,
    Preprocessing,
    Rng,
    ShiftRange,
    ZoomRange,
    literals,
)
from gpuseq.iterators import fit as fits
from gpuseq.iterators import flow as flows
from gpuseq.iterators.arrays import NumpyArrayIterator
from gpuseq.iterators.folders import DirectoryIterator
from gpuseq.iterators.frames import DataFrameIterator
from gpuseq.plan.columns import params_to_dicts
from gpuseq.plan.draw import Drawing, draw_params, draw_with
from gpuseq.plan.ranges import TransformRanges
from gpuseq.transforms import settings
from gpuseq.transforms.batch import BatchTransform, checked_image

if TYPE_CHECKING:
    from gpuseq.ops.looks import Looks
    from gpuseq.plan.policies.recipe import Augmentations, Recipe

__all__ = ["ImageDataGenerator"]

logger = logging.getLogger("gpuseq")


class ImageDataGenerator:  # numpydoc ignore=PR02
    """Random transforms and normalisation of image batches, on the GPU where there is one.

    Every argument up to `dtype` is Keras', with Keras' default and meaning.

    Parameters
    ----------
    featurewise_center, featurewise_std_normalization : bool
        Subtract the data set's mean, divide by its standard deviation, per channel; `fit` finds them.
    samplewise_center, samplewise_std_normalization : bool
        The same with each image's own mean and deviation, over all its channels.
    zca_whitening : bool
        Apply the whitening matrix that `fit` finds.
    zca_epsilon : float
        Added to the singular values in `fit`.
    rotation_range : float
        Degrees; drawn from +-`rotation_range`.
    width_shift_range, height_shift_range : float, int or sequence
        A float below 1 is a fraction of the side, from 1 on pixels; an int n draws one of 0..n-1 pixels and a sign; a
        sequence draws one of its values and a sign.
    brightness_range : (float, float) or None
        Factors, through Pillow's 8-bit blend.
    shear_range : float
        Degrees.
    zoom_range : float or (float, float)
        ``1 - z .. 1 + z``, or the two ends; rows and columns are drawn apart.
    channel_shift_range : float
        Added to all channels, clipped to the image's own extremes.
    fill_mode : {"nearest", "constant", "reflect", "wrap"}
        What lies beyond the border; drawn in `~gpuseq.apply_affine_transform`.
    cval : float
        The value of "constant".
    horizontal_flip, vertical_flip : bool
        Flip half of the images.
    rescale : float or None
        Multiplier after the transforms.
    preprocessing_function : callable, str or None
        Called with each image after the transforms (with a whole batch if its attribute ``batched`` is true); it gets
        arrays that live where the batch does, and may return NumPy's. "tf", "caffe" and "torch" name Keras'
        ``imagenet_utils`` modes, which run inside the kernel.
    data_format : {"channels_last", "channels_first"} or None
        Axis order. None: "channels_last".
    validation_split : float
        Fraction for ``subset="validation"``.
    interpolation_order : int
        0 to 5; above 1 is the slow path through SciPy or cupyx.
    dtype : str or None
        Of the batches: float32 (default), float16, float64, uint8; bfloat16 on a device.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where batches are made. "auto" asks the environment's ``GPUSEQ_DEVICE``, then for a GPU.
    rng : {"keras", "keyed"}
        "keras" draws Keras' own numbers. With "keyed" the numbers of a sample depend on (seed, epoch, sample) only, so
        that workers, batch size, order and shards cannot change a picture.
    conventions : {"keras", "corrected"}
        "keras" lets the height shift move columns and turns non-square images about a wrong centre, as Keras 3 does
        (keras#17398). "corrected" does what the names say.
    augmentations : Augmentation, str, list of them, or None
        Drawn for each sample, after the ranges above and before everything from `preprocessing_function` on, on uint8
        and as Pillow does them: ``[gpuseq.RandAugment(), gpuseq.RandomErasing(0.25)]``, ``"rand-m9-mstd0.5-inc1"``.
        What the ranges above make is rounded to uint8 for them. Their numbers are drawn apart from all others, which
        stay the same. Erasing comes last, on the normalised batch.

    Raises
    ------
    ValueError
        If an argument is not one of the accepted values; the message gives both.
    DeviceError
        If a GPU is asked for and none can be used.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.ImageDataGenerator`` (Keras 3.15).

    Examples
    --------
    >>> import numpy as np
    >>> from gpuseq import ImageDataGenerator
    >>> images = np.zeros((8, 32, 32, 3), np.uint8)
    >>> generator = ImageDataGenerator(rotation_range=20, rescale=1 / 255, device="cpu")
    >>> batch = next(generator.flow(images, batch_size=4, seed=1))
    >>> batch.shape, batch.dtype
    ((4, 32, 32, 3), dtype('float32'))
    """

    _array_iterator: ClassVar[type[NumpyArrayIterator]] = NumpyArrayIterator
    _directory_iterator: ClassVar[type[DirectoryIterator]] = DirectoryIterator
    _frame_iterator: ClassVar[type[DataFrameIterator]] = DataFrameIterator

    @checked_arguments()
    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: ShiftRange = 0.0,
        height_shift_range: ShiftRange = 0.0,
        brightness_range: FactorRange | None = None,
        shear_range: float = 0.0,
        zoom_range: ZoomRange = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: FillMode = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Any], Any] | Preprocessing | None = None,
        data_format: DataFormat | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: BatchDType | None = None,
        *,
        device: Device = "auto",
        rng: Rng = "keras",
        conventions: Conventions = "keras",
        augmentations: Augmentations | None = None,
    ) -> None:
        # First: what dtypes there are depends on it.
        self.device = resolve_device(device)
        logger.info("device=%r: batches are made on %s", device, self.device)
        check_choice("rng", rng, literals(Rng))
        check_choice("conventions", conventions, literals(Conventions))
        check_choice("fill_mode", fill_mode, literals(FillMode))
        check_choice("interpolation_order", interpolation_order, tuple(range(6)))
        self.preprocessing_function = settings.checked_preprocessing(preprocessing_function)
        self.augmentations = augmentations
        self.rng = rng
        self.conventions = conventions
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = settings.checked_number("rotation_range", rotation_range)
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = settings.checked_number("shear_range", shear_range)
        self.zoom_range = settings.checked_zoom(zoom_range)
        self.channel_shift_range = settings.checked_number("channel_shift_range", channel_shift_range)
        self.fill_mode = fill_mode
        self.cval = settings.checked_number("cval", cval)
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = None if rescale is None else settings.checked_number("rescale", rescale)
        self.dtype = checked_dtype(dtype, self.device)
        settings.check_rescale(self.rescale, self.dtype)
        self.interpolation_order = int(interpolation_order)
        self.data_format: DataFormat = checked_data_format(data_format)
        self._is_told_format = data_format is not None
        last = self.data_format == "channels_last"
        self.channel_axis, self.row_axis, self.col_axis = (3, 1, 2) if last else (1, 2, 3)
        self._validation_split = settings.checked_split(validation_split)
        self.mean: Any = None
        self.std: Any = None
        self.zca_whitening_matrix: Any = None
        self.brightness_range = settings.checked_brightness(brightness_range)
        # The last attributes: options override each other once all of them are known.
        settings.settle(self)
        settings.check_flags(self)
        self._derived()  # bad shift ranges and augmentations fail here

    # What follows from the attributes.

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, and forget what was derived from the attributes: Keras reads them at every batch."""
        # Users and `fit` set attributes at any time, as with Keras.
        object.__setattr__(self, name, value)
        self.__dict__.pop("_kept", None)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, without what follows from them: for copies and pickles."""
        # What is derived is made again where it is asked for, and is built of classes that another version may not
        # have.
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def _derived(self) -> _Derived:
        """Return what follows from the attributes: the same values for as long as none of them changes.

        Setting an attribute drops the list that they are kept in. A thread that is deriving them at that moment puts
        them into the dropped list, so that what follows from older attributes is never taken for newer.
        """
        kept: list[_Derived] = self.__dict__.setdefault("_kept", [])
        if not kept or tuple(map(_content, kept[-1].watched)) != kept[-1].content:
            watched = _watched(self)
            content = tuple(map(_content, watched))
            ranges = settings.ranges_of(self)
            recipe = _recipe_of(self.augmentations)
            one_image = self._transform_and_standardize if self._is_customised else None
            transform = BatchTransform.of(
                self, ranges, one_image, draws_its_own=self._draws_its_own, has_augmentations=recipe is not None
            )
            kept[:] = [_Derived(watched, content, ranges, recipe, transform)]
        return kept[-1]

    @property
    def _transform_ranges(self) -> TransformRanges:
        """The ranges that parameters are drawn from."""
        return self._derived().ranges

    @property
    def _recipe(self) -> Recipe | None:
        """The augmentations that programs are drawn from, None without any."""
        return self._derived().recipe

    @property
    def _batch_transform(self) -> BatchTransform:
        """What is done to a batch whose parameters are drawn: a frozen value, another one once an attribute changes."""
        return self._derived().transform

    @property
    def _is_customised(self) -> bool:
        """Whether a subclass has its own way with single images, as Keras users write them."""
        # By the class and not by the instance, as Keras' users override methods.
        own, base = type(self), ImageDataGenerator
        return own.apply_transform is not base.apply_transform or own.standardize is not base.standardize

    @property
    def _draws_its_own(self) -> bool:
        """Whether a subclass has its own `get_random_transform`, which is then asked for each image, as in Keras."""
        return type(self).get_random_transform is not ImageDataGenerator.get_random_transform

    def _transform_and_standardize(self, image: Array, parameters: dict[str, Any]) -> Array:
        return self.standardize(self.apply_transform(image, parameters))

    @property
    def _told_format(self) -> DataFormat | None:
        """The axis order that was chosen; None where none was, and a framework may have its own."""
        return self.data_format if self._is_told_format or self.data_format != "channels_last" else None

    # Batches.

    flow = flows.flow
    flow_from_directory = flows.flow_from_directory
    flow_from_dataframe = flows.flow_from_dataframe

    def _drawing(self, image_shape: tuple[int, ...], file_number_limit: int = 0, crops_by_key: bool = False) -> Drawing:
        """Return what is drawn for images of one shape, in the generator's axis order, as the attributes stand now.

        Its `params` draws from a stream. A subclass' own `get_random_transform` draws from ``numpy.random``: it finds
        the stream there while it is asked.
        """
        derived = self._derived()
        own = None
        if self._draws_its_own:
            # The user's method asks NumPy's global stream, as it does under Keras; `draw_with` puts the right one
            # there.
            own = partial(draw_with, self.get_random_transform, image_shape=image_shape)
        image_size = image_shape[self.row_axis - 1], image_shape[self.col_axis - 1]
        return Drawing(derived.ranges, derived.recipe, image_size, file_number_limit, own, crops_by_key)

    def process(
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
        """Transform and normalise a batch by given parameters; see `~gpuseq.transforms.batch.BatchTransform`."""
        return self._batch_transform(
            images,
            params,
            rows,
            program=program,
            source_format=source_format,
            data_format=data_format,
            dtype=dtype,
            round_affine=round_affine,
            looks=looks,
        )

    def _check_conventions(self, image_size: tuple[int, int]) -> None:
        """Warn, once per generator, where Keras' conventions and the arguments' names part ways."""
        # Past `__setattr__`, which would forget everything that was derived.
        if not self.__dict__.get("_told_conventions"):
            told = settings.warn_of_conventions(self, self._transform_ranges, image_size)
            self.__dict__["_told_conventions"] = told

    # Single images.

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
        return params_to_dicts(draw_params(stream, self._transform_ranges, 1, height, width))[0]

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
        return self._batch_transform.apply_transform(x, transform_parameters)

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
        return self._batch_transform.standardize(x)

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """Transform one image at random: `get_random_transform`, then `apply_transform`.

        Parameters
        ----------
        x : array
            Shape ``(H, W, C)`` or ``(C, H, W)``, on the host or a device.
        seed : int or None
            As in `get_random_transform`.
        """
        x = checked_image(x)
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    # Statistics.

    fit = fits.fit
    fit_batches = fits.fit_batches
    fit_directory = fits.fit_directory
    save_statistics = fits.save_statistics
    load_statistics = fits.load_statistics

    # Texts.

    def __repr__(self) -> str:
        return settings.text_of(self, inspect.signature(ImageDataGenerator.__init__))

    def __str__(self) -> str:
        # Keras shows this line where the generator itself is handed to fit.
        return f"<{self!r}: for model.fit write model.fit(generator.flow_from_directory(...).to_keras())>"

    def _repr_html_(self) -> str:
        from gpuseq.iterators.explain import generator_html

        return generator_html(self)


def _recipe_of(augmentations: Augmentations | None) -> Recipe | None:
    """Read a generator's augmentations, and import what they are made of only where there are any."""
    if augmentations is None:
        return None
    from gpuseq.plan.policies.recipe import Recipe

    return Recipe.parse("augmentations", augmentations)


class _Derived(NamedTuple):
    """What follows from a generator's attributes, those that can change in place, and the values that they had."""

    watched: tuple[Any, ...]
    content: tuple[Any, ...]
    ranges: TransformRanges
    recipe: Recipe | None
    transform: BatchTransform


def _watched(generator: settings.Settings) -> tuple[Any, ...]:
    """Return what of the settings is looked at before every batch: lists and arrays, which can be changed in place.

    That an attribute is set anew is noticed elsewhere.
    """
    values = (
        generator.zoom_range,
        generator.width_shift_range,
        generator.height_shift_range,
        generator.brightness_range,
        generator.mean,
        generator.std,
        generator.augmentations,
    )
    return tuple([value for value in values if value is not None and type(value) not in (float, int, str)])


def _content(value: Any) -> Any:
    """Return the values of a list or of a small array, and of one with a number per pixel only what it is derived by.

    That is its shape: the numbers themselves are read from the array at each batch. An array on a GPU is told by its
    identity, because a look at its values would wait for the device.
    """
    if isinstance(value, (list, tuple)):
        nested = value and isinstance(value[0], (list, tuple, np.ndarray))
        return tuple([_content(item) for item in value]) if nested else tuple(value)
    if isinstance(value, np.ndarray):
        shape, size = value.shape, value.size
        return shape, value.dtype, value.tobytes() if size < 16 or size == max(shape) else None
    # An augmentation is a frozen value. Tuples, which these make up, ask whether it is the same object before they
    # compare values.
    return value
