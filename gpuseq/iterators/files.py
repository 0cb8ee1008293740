"""`BatchFromFilesMixin`: from the paths of image files to batches, wherever the paths come from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from gpuseq.base.arguments import check_choice, checked_data_format
from gpuseq.base.types import (
    COLOR_CHANNELS,
    ColorMode,
    DataFormat,
    Interpolation,
    Labels,
    Size,
    Subset,
    Weights,
    literals,
)
from gpuseq.decode.host import check_decoder
from gpuseq.decode.images import checked_size
from gpuseq.decode.options import DecodeOptions
from gpuseq.plan.sharding import checked_options
from gpuseq.sources.files import FileSource
from gpuseq.sources.masks import masks_of_files
from gpuseq.sources.options import READ_ARGUMENTS, ReadOptions
from gpuseq.transforms.protocol import ImageGenerator

from .batch import drawing_of_files, labels_of_files, make_batch_of_files
from .checks import check_generator, check_save_to_dir, checked_split
from .iterator import Iterator

__all__ = ["BatchFromFilesMixin"]

logger = logging.getLogger("gpuseq")


class BatchFromFilesMixin(Iterator[Labels, Weights]):
    """What `DirectoryIterator` and `DataFrameIterator` share: from file paths to batches. Not made directly."""

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
    dtype: str
    image_data_generator: ImageGenerator | None
    _source: FileSource  # narrower than the base's: there is one, and it is of files
    filenames: list[str]
    samples: int
    directory: str
    # Keras takes further inputs with arrays alone.
    _further_inputs = ()

    # What is done at each batch: see there.
    _drawing = drawing_of_files
    _make = make_batch_of_files
    _labels_of = labels_of_files

    def set_processing_attrs(
        self,
        image_data_generator: Any,
        target_size: Size,
        color_mode: ColorMode,
        data_format: DataFormat | None,
        save_to_dir: str | None,
        save_prefix: str,
        save_format: str,
        subset: Subset | None,
        interpolation: Interpolation,
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
            Write each image of each batch to this existing folder, as ``prefix_index_number.format``.
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
        check_choice("color_mode", color_mode, literals(ColorMode))
        check_choice("interpolation", interpolation, literals(Interpolation))
        self.image_data_generator = image_data_generator
        # The generator's, which works where it was made to; what is only decoded stays on the host.
        self.device = "cpu" if image_data_generator is None else image_data_generator.device
        self.keep_aspect_ratio = keep_aspect_ratio
        self.color_mode = color_mode
        self.data_format = checked_data_format(data_format)
        self._is_told_format = data_format is not None
        channels = COLOR_CHANNELS[color_mode]
        last = self.data_format == "channels_last"
        # In the batches' order, as Keras has it; the source's own is channels last.
        self.image_shape = (*self.target_size, channels) if last else (channels, *self.target_size)
        self.save_to_dir = check_save_to_dir(save_to_dir, save_format)
        self.save_prefix = save_prefix
        self.save_format = save_format
        self.interpolation = interpolation
        self.split = checked_split(subset, image_data_generator)
        self.subset = subset

    def _check_class_mode(self, class_mode: str | None) -> None:
        check_choice("class_mode", class_mode, tuple(sorted(self.allowed_class_modes, key=str)))
        self.class_mode = class_mode

    def _reader(self, arguments: dict[str, Any]) -> Callable[[Sequence[str]], FileSource]:
        """Take what concerns reading out of the arguments, check it, and return what makes the source of the files."""
        read = ReadOptions(**{name: arguments.pop(name) for name in READ_ARGUMENTS if name in arguments})
        if read.cache == "device" and self.device == "cpu":
            raise ValueError('cache="device" needs a GPU, and this iterator runs on the CPU: use cache="host"')
        if read.extensions is not None:
            self.white_list_formats = tuple(read.extensions)
        # Before folders are listed, which may take long.
        check_decoder(read.decoder)
        options = DecodeOptions(
            color_mode=self.color_mode,
            target_size=self.target_size,
            interpolation=self.interpolation,
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

    def _planning(self, rng: str | None, **arguments: Any) -> dict[str, Any]:
        """Check how batches are planned, before it is known which files there are; return what `Iterator` takes."""
        default = "keras" if self.image_data_generator is None else self.image_data_generator.rng
        arguments["rng"] = default if rng is None else rng
        checked_options(**arguments)
        return arguments

    def _open(
        self,
        source: FileSource,
        planning: dict[str, Any],
        mask_paths: Sequence[str] | None = None,
        ignore_value: int | None = None,
    ) -> None:
        """Begin to hand out the files of a source, beside their masks where there are any."""
        self._source = source
        # Then nothing may be left of a batch, and `next` has to go on past it.
        self._may_pass_over = source.on_error != "raise"
        self._masks = None
        self._reported: set[str] = set()
        if self.image_data_generator is not None and (recipe := self.image_data_generator._recipe) is not None:
            source.crops = recipe.begins_with_crop
        if mask_paths is not None:
            self._masks = masks_of_files(mask_paths, source.options, source, self.device, ignore_value)
        # Here and not first: the planner needs the number of files, and a refusal above has no thread to stop.
        super().__init__(self.samples, **planning)
        check_generator(self.image_data_generator, planning["rng"], self.target_size, source)

    @property
    def bad_files(self) -> dict[str, str]:
        """Path and reason of each file, of an image or a mask, that failed so far and was skipped or substituted."""
        masks = () if self._masks is None else self._masks.sources
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

    def _report_bad_files(self) -> None:
        new = {path: reason for path, reason in self.bad_files.items() if path not in self._reported}
        if new:
            # Each file once, however many epochs meet it.
            self._reported.update(new)
            listed = "".join(f"\n  {path!r}: {reason}" for path, reason in new.items())
            logger.warning("%d bad image file(s) were passed over:%s", len(new), listed)

    classes: Any
    class_indices: dict[str, int]
    _filepaths: list[str]

    def _say(self, message: str, verbose: bool) -> None:
        logger.info(message)
        # Printed and not only logged: Keras prints this line.
        if verbose:
            print(message)
