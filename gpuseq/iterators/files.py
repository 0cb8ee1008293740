"""Batches of image files: what the two iterators over files share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np

from gpuseq.base.arguments import check_choice, checked_data_format
from gpuseq.base.devices import place
from gpuseq.base.errors import EmptyBatchError
from gpuseq.base.types import COLOR_CHANNELS, Array, ColorMode, Interpolation, literals
from gpuseq.decode.host import check_decoder
from gpuseq.decode.images import checked_size
from gpuseq.decode.options import DecodeOptions
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.sharding import checked_walk
from gpuseq.sources.files import FileSource
from gpuseq.sources.masks import find_masks, masks_of_files
from gpuseq.sources.options import READ_ARGUMENTS, ReadOptions

from .images import ImageIterator, check_save_to_dir, checked_split

__all__ = ["BatchFromFilesMixin"]

logger = logging.getLogger("gpuseq")


class BatchFromFilesMixin(ImageIterator):
    """What `DirectoryIterator` and `DataFrameIterator` share: from file paths to batches. Not made directly."""

    _hash_limit = 10_000_000
    allowed_class_modes: ClassVar[set[str | None]] = {
        "binary",
        "categorical",
        "input",
        "multi_output",
        "raw",
        "sparse",
        None,
    }
    class_mode: str | None
    filenames: list[str]
    samples: int
    directory: str

    def set_processing_attrs(
        self,
        image_data_generator: Any,
        target_size: tuple[int, int],
        color_mode: str,
        data_format: str | None,
        save_to_dir: str | None,
        save_prefix: str,
        save_format: str,
        subset: str | None,
        interpolation: str,
        keep_aspect_ratio: bool,
    ) -> None:
        """Check and set what turns files into batches.

        Parameters
        ----------
        image_data_generator : ImageDataGenerator or None
            What is done to the images; None only decodes.
        target_size : (int, int)
            Rows and columns.
        color_mode : {"rgb", "rgba", "grayscale"}
            3, 4 or 1 channels.
        data_format : {"channels_last", "channels_first"} or None
            Axis order of the batches.
        save_to_dir, save_prefix, save_format
            See `~gpuseq.NumpyArrayIterator`.
        subset : {"training", "validation"} or None
            Which part, with the generator's ``validation_split``.
        interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
            Pillow's filter for the resize.
        keep_aspect_ratio : bool
            Crop the centre to the target's aspect ratio before the resize.

        Raises
        ------
        ValueError
            If a value is not one of the accepted ones.
        """
        self.target_size = checked_size(target_size)
        check_choice("color_mode", color_mode, tuple(COLOR_CHANNELS))
        check_choice("interpolation", interpolation, literals(Interpolation))
        self.image_data_generator = image_data_generator
        self.device = "cpu" if image_data_generator is None else image_data_generator.device
        self.keep_aspect_ratio = keep_aspect_ratio
        self.color_mode = color_mode
        self.data_format = checked_data_format(data_format)
        channels = COLOR_CHANNELS[color_mode]
        last = self.data_format == "channels_last"
        self.image_shape = (*self.target_size, channels) if last else (channels, *self.target_size)
        self.save_to_dir = check_save_to_dir(save_to_dir, save_format)
        self.save_prefix = save_prefix
        self.save_format = save_format
        self.interpolation = interpolation
        self.split = checked_split(subset, image_data_generator)
        self.subset = subset
        self._image_size = self.target_size
        self._num_channels = channels

    def _check_class_mode(self, class_mode: str | None) -> None:
        check_choice("class_mode", class_mode, tuple(sorted(self.allowed_class_modes, key=str)))
        self.class_mode = class_mode

    def _reader(self, arguments: dict[str, Any]) -> Callable[[Sequence[str]], FileSource]:
        """Take what concerns reading out of the arguments, check it, and return what makes the source of the files."""
        read = ReadOptions(**{name: arguments.pop(name) for name in READ_ARGUMENTS if name in arguments})
        if read.cache == "device" and self.device == "cpu":
            raise ValueError('cache="device" needs a GPU, and this iterator runs on the CPU: use cache="host"')
        check_decoder(read.decoder)
        options = DecodeOptions(
            color_mode=cast(ColorMode, self.color_mode),
            target_size=self.target_size,
            interpolation=cast(Interpolation, self.interpolation),
            keep_aspect_ratio=self.keep_aspect_ratio,
            decoder=read.decoder,
            exif_orientation=read.exif_orientation,
            max_pixels=read.max_pixels,
            num_threads=read.num_threads,
            hw_decoder_load=read.hw_decoder_load,
            deterministic=read.deterministic,
        )
        return partial(
            FileSource,
            options=options,
            on_error=read.on_error,
            prefetch=read.prefetch,
            cache=read.cache,
            memory_limit=read.memory_limit,
            device=self.device,
        )

    def _walker(self, rng: str | None, **arguments: Any) -> dict[str, Any]:
        """Check how the files are to be walked, before it is known which there are; return what `Iterator` takes."""
        default = "keras" if self.image_data_generator is None else self.image_data_generator.rng
        arguments["rng"] = default if rng is None else rng
        checked_walk(**arguments)
        return arguments

    def _open(self, source: FileSource, walk: dict[str, Any], mask_directory: Any = None) -> None:
        """Start the walk over the files of a source."""
        self._source = source
        self._reported: set[str] = set()
        if mask_directory is not None:
            self.class_mode = None
            masks = find_masks(mask_directory, self.filenames, self.white_list_formats)
            self._paired = masks_of_files(masks, source.options, source, self.data_format, self.device)
        super().__init__(self.samples, **walk)
        self._check_generator()

    @property
    def _may_pass_over(self) -> bool:
        """Whether bad files may leave nothing of a batch, so that a pass can have fewer batches than ``len(self)``."""
        return cast(FileSource, self._source).on_error != "raise"

    @property
    def bad_files(self) -> dict[str, str]:
        """Path and reason of each file, of an image or a mask, that failed so far and was skipped or substituted."""
        masks = () if self._paired is None else self._paired.sources
        sources = [source for source in (self._source, *masks) if isinstance(source, FileSource)]
        return {path: reason for source in sources for path, reason in source.bad_files.items()}

    @property
    def filepaths(self) -> list[str]:
        """Paths of the image files, one per sample."""
        return self._filepaths

    @property
    def labels(self) -> Any:
        """Labels of the samples, as `class_mode` has them."""
        raise NotImplementedError(f"{type(self).__name__} must define labels")

    @property
    def sample_weight(self) -> np.ndarray | None:
        """Weights of the samples, shape ``(samples,)``, or None."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_weight")

    def __next__(self) -> Any:
        """Return the next batch of which anything is left once bad files are passed over."""
        for _ in range(len(self)):
            try:
                return super().__next__()
            except EmptyBatchError as error:
                problem = error
        raise problem

    def replay(self, plan: BatchPlan) -> Any:  # noqa: D102 - the documentation is the base's
        try:
            return super().replay(plan)
        finally:
            if plan.batch_index == len(self) - 1:
                self._report_bad_files()

    def _report_bad_files(self) -> None:
        new = {path: reason for path, reason in self.bad_files.items() if path not in self._reported}
        if new:
            self._reported.update(new)
            listed = "".join(f"\n  {path!r}: {reason}" for path, reason in new.items())
            logger.warning("%d bad image file(s) were passed over:%s", len(new), listed)

    def _make_images(self, images: Array, plan: BatchPlan, rows: np.ndarray | None) -> Array:
        # Keras makes float32 images of files whatever the batch's dtype, and casts at the end.
        dtype = "float32" if self.dtype == "float64" else self.dtype
        if self.image_data_generator is None:
            batch = images if rows is None else images[rows]
            batch = batch if self.data_format == "channels_last" else batch.transpose(0, 3, 1, 2)
        else:
            batch = self.image_data_generator.process(
                images,
                plan.params,
                rows,
                program=plan.program,
                source_format="channels_last",
                dtype=dtype,
                data_format=self.data_format,
            )
        return batch.astype(self.dtype, order="C", copy=False)

    def _with_labels(self, batch_x: Array, sample_indices: np.ndarray) -> Any:
        if self.class_mode is None:
            weight = self.sample_weight
            if self._paired is None or weight is None:
                return batch_x
            return batch_x, None, place(weight[sample_indices], self.device)
        batch_y = self._batch_labels(batch_x, sample_indices)
        if self.sample_weight is None:
            return batch_x, batch_y
        return batch_x, batch_y, place(self.sample_weight[sample_indices], self.device)

    def _batch_labels(self, batch_x: Array, sample_indices: np.ndarray) -> Any:
        if self.class_mode == "input":
            return batch_x.copy()
        if self.class_mode == "multi_output":
            return [place(output[sample_indices], self.device) for output in self.labels]
        if self.class_mode == "raw":
            return place(self.labels[sample_indices], self.device)
        dtype = "float32" if self.dtype == "bfloat16" else self.dtype
        if isinstance(self.classes, np.ndarray):
            classes: Any = self.classes[sample_indices]
        else:  # a list, as Keras keeps those of a data frame; a sample may have several
            classes = [self.classes[index] for index in sample_indices.tolist()]
        if self.class_mode in ("binary", "sparse"):
            return place(np.asarray(classes, dtype), self.device)
        one_hot = np.zeros((len(sample_indices), len(self.class_indices)), dtype)
        if isinstance(classes, list) and any(isinstance(item, (list, tuple)) for item in classes):
            for row, columns in enumerate(classes):
                one_hot[row, columns] = 1
        else:
            one_hot[np.arange(len(classes)), classes] = 1
        return place(one_hot, self.device)

    classes: Any
    class_indices: dict[str, int]
    _filepaths: list[str]

    def _say(self, message: str, verbose: bool) -> None:
        logger.info(message)
        if verbose:
            print(message)
