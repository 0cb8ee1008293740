"""`fit`: from arrays, batches, a folder or a file to a generator's mean, standard deviation and whitening matrix."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from gpuseq.base.arguments import checked_arguments, warn
from gpuseq.base.atomic import replacing
from gpuseq.base.devices import is_cupy, on_device
from gpuseq.base.errors import EmptyBatchError
from gpuseq.base.types import Array, DataFormat, FillMode
from gpuseq.iterators.arrays import as_array
from gpuseq.iterators.files import DirectoryIterator
from gpuseq.iterators.iterator import Iterator
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.order import KerasStream
from gpuseq.plan.program import without_erasing
from gpuseq.sources.options import READ_ARGUMENTS
from gpuseq.transforms.batch import ImageTransforms
from gpuseq.transforms.statistics import ChannelMoments, whitening_matrix

__all__ = ["FittedTransforms"]

CHUNK_VALUES = 1 << 24
"""Values looked at together: 64 MiB of float32."""

DIRECTORY_OPTIONS = ("classes", "follow_links", "keep_aspect_ratio", "verbose", *READ_ARGUMENTS)
"""What `fit_directory` hands on to the iterator."""

_FIT_FIRST = "fit the generator first, with fit(x) or fit_directory(folder)"
_STATISTICS = {"mean": "featurewise_center", "std": "featurewise_std_normalization"}


class FittedTransforms(ImageTransforms):
    """What a generator learns of its data: mean, standard deviation and whitening matrix, from `fit` or from a file."""

    @checked_arguments()
    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Find the mean, standard deviation and whitening matrix of sample data.

        Sets `mean` and `std`, each shape ``(1, 1, C)`` or ``(C, 1, 1)``, and `zca_whitening_matrix`, as asked for at
        construction. Sums are taken in float64.

        Parameters
        ----------
        x : array
            Rank 4, in the generator's axis order; on the host or a device. Not written to.
        augment : bool
            Fit on randomly transformed images, with the generator's augmentations but for erasing.
        rounds : int
            How many transformed copies of `x` to fit on.
        seed : int or None
            For the transforms.

        Raises
        ------
        ValueError
            If `x` has another rank.
        TypeError
            If `x` is no array; the message names the method for what it is.
        MemoryError
            If whitening would need more memory than there is; the message says how much.

        References
        ----------
        ``ImageDataGenerator.fit`` of Keras 3.15.
        """
        _refuse_iterators(x)
        if not isinstance(augment, (bool, int, np.bool_)):
            raise TypeError(f"fit() takes images and no labels: augment must be True or False; got {augment!r:.60}")
        x = as_array(x, "fit_directory(path)", "fit_batches(batches)")
        if x.ndim != 4:
            raise ValueError(
                f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}. Images are "
                "(n, rows, columns, channels): x[..., None] for grey ones, x[None] for a single one"
            )
        num_channels = x.shape[self.channel_axis]
        if num_channels not in (1, 3, 4):
            warn(
                "Expected input to be images (as Numpy array) following the data format convention "
                f'"{self.data_format}" (channels on axis {self.channel_axis}), i.e. expected either 1, 3 or 4 '
                f"channels on axis {self.channel_axis}. However, it was passed an array with shape {x.shape} "
                f"({num_channels} channels)."
            )
        if isinstance(rounds, bool) or not isinstance(rounds, (int, np.integer)) or rounds < 1:
            raise ValueError(f"rounds must be a positive integer; got {rounds!r}")
        with on_device(x):
            self._fit_chunks(_chunks(self, x, augment, rounds, seed))

    @checked_arguments()
    def fit_batches(self, batches: Iterable[Any]) -> None:
        """Find mean and standard deviation of data that come in batches, in one pass and in bounded memory.

        Parameters
        ----------
        batches : iterable of array
            Each of rank 4, in the generator's axis order, before rescaling; walked once.

        Raises
        ------
        ValueError
            With ``zca_whitening``, which needs all images at once, or if there is no batch.
        TypeError
            If `batches` is an iterator of this package, whose images are transformed and without end.
        """
        if self.zca_whitening:
            raise ValueError("zca_whitening needs all images at once: use fit(x) on an array that fits in memory")
        _refuse_iterators(batches)
        dtype = _fit_dtype(self)
        factor = dtype.type(self.rescale or 1.0)

        def rescaled(batch: Array) -> Array:
            with on_device(batch):
                return batch.astype(dtype) * factor

        self._fit_chunks(map(rescaled, batches))

    @checked_arguments(*DIRECTORY_OPTIONS)
    def fit_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        batch_size: int = 32,
        interpolation: str = "nearest",
        *,
        progress: bool = True,
        **options: Any,
    ) -> None:
        """Find mean and standard deviation of the images in a folder, larger than memory or not.

        Parameters
        ----------
        directory : str or os.PathLike
            A folder with one subfolder per class.
        target_size, color_mode, batch_size, interpolation
            See `flow_from_directory`.
        progress : bool
            Show a progress bar on the terminal.
        **options
            Those of `flow_from_directory` that say which files there are and how they are read.

        Raises
        ------
        ValueError
            With ``zca_whitening``, or if there are no images.
        """
        from tqdm import tqdm

        iterator = DirectoryIterator(
            directory,
            None,
            target_size=target_size,
            color_mode=color_mode,
            batch_size=batch_size,
            interpolation=interpolation,
            data_format=self.data_format,
            class_mode=None,
            shuffle=False,
            **{"verbose": False, **options},
        )
        with tqdm(total=iterator.n, unit="img", desc="fit", disable=not progress, leave=False) as bar:

            def batches() -> Iterable[Any]:
                for index in range(len(iterator)):
                    try:
                        batch = iterator[index]
                    except EmptyBatchError:  # its files were bad, and on_error passes over them
                        continue
                    yield batch
                    bar.update(len(batch))

            try:
                self.fit_batches(batches())
            finally:
                iterator.close()

    def save_statistics(self, path: str | os.PathLike[str], **facts: Any) -> None:
        """Write mean and standard deviation to a JSON file, for `load_statistics`; ``gpuseq fit`` writes the same.

        Parameters
        ----------
        path : str or os.PathLike
            The file; written whole or not at all.
        **facts : JSON values
            Written beside them, for people: what they were computed over.

        Raises
        ------
        ValueError
            If nothing was fitted, or it is more than one number per channel: keep those, and a whitening matrix, with
            ``numpy.save``.
        """
        found: dict[str, Any] = {}
        for name in _STATISTICS:
            values = getattr(self, name)
            if values is None:
                continue
            values = np.asarray(values.get() if is_cupy(values) else values)
            if self.zca_whitening_matrix is not None or values.size != max(values.shape, default=1):
                raise ValueError(
                    "save_statistics() keeps one mean and std per channel: keep a whitening matrix, or statistics per "
                    "pixel, with numpy.save(path, generator.zca_whitening_matrix)"
                )
            found[name] = values.reshape(-1).tolist()
        if not found:
            raise ValueError(f"there is nothing to save: {_FIT_FIRST}")
        found |= {"rescale": float(self.rescale or 1.0), **facts}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    def load_statistics(self, path: str | os.PathLike[str]) -> None:
        """Read the mean and standard deviation that `save_statistics` or ``gpuseq fit`` wrote, in the place of `fit`.

        Sets `mean` and `std` as asked for at construction. Values that were computed under another ``rescale`` are
        brought to this generator's.

        Parameters
        ----------
        path : str or os.PathLike
            The file.

        Raises
        ------
        ValueError
            If the generator asks for neither, or the file does not hold what it asks for.
        FileNotFoundError
            If there is no such file.
        """
        asked = [name for name, option in _STATISTICS.items() if getattr(self, option)]
        if not asked:
            raise ValueError(
                "this generator uses neither: make it with featurewise_center=True, "
                "featurewise_std_normalization=True, or both"
            )
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            values = {name: np.array(found[name], np.float64) for name in asked}
            factor = float(self.rescale or 1.0) / float(found.get("rescale", 1.0))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} does not hold the {' and '.join(asked)} that this generator asks for "
                f"({type(error).__name__}: {error}). Such files are written by save_statistics() and `gpuseq fit`"
            ) from None
        for name, per_channel in values.items():
            setattr(self, name, self._per_channel(per_channel * factor))

    def _per_channel(self, values: np.ndarray) -> np.ndarray:
        """Return one number per channel in the shape and dtype that `fit` gives them."""
        shape = [1, 1, 1]
        shape[self.channel_axis - 1] = values.size
        return values.astype(_fit_dtype(self)).reshape(shape)

    def _fit_chunks(self, chunks: Iterable[Array]) -> None:
        """Set what is to be fitted, from rescaled chunks that are walked once and kept only for whitening."""
        if not (self.featurewise_center or self.featurewise_std_normalization or self.zca_whitening):
            return
        moments: ChannelMoments | None = None
        kept: list[np.ndarray] = []
        for chunk in chunks:
            part = ChannelMoments.of(chunk, self.channel_axis)
            moments = part if moments is None else moments.merge(part)
            if self.zca_whitening:
                kept.append(chunk.get() if is_cupy(chunk) else chunk)
        if moments is None:
            raise ValueError("fit() found no images")
        if self.featurewise_center:
            self.mean = self._per_channel(moments.mean)
        if self.featurewise_std_normalization:
            self.std = self._per_channel(moments.std)
        if self.zca_whitening:
            flat = np.concatenate([(chunk - self.mean).reshape(len(chunk), -1) for chunk in kept])
            self.zca_whitening_matrix = whitening_matrix(flat, self.zca_epsilon)


def _refuse_iterators(images: object) -> None:
    if isinstance(images, Iterator):
        raise TypeError(
            f"a {type(images).__name__} has no end and hands out what it has transformed already, and statistics are "
            "those of plain images: use fit_directory(folder), or fit(x)"
        )


def _fit_dtype(generator: ImageTransforms) -> np.dtype[Any]:
    return np.dtype(np.float64 if generator.dtype == "float64" else np.float32)


def _chunks(generator: ImageTransforms, x: Array, augment: bool, rounds: int, seed: int | None) -> Iterable[Array]:
    """Yield what `fit` looks at, in pieces: rescaled images, transformed where asked, drawn for as Keras draws."""
    dtype = _fit_dtype(generator)
    options = AugmentOptions(
        source_format=cast(DataFormat, generator.data_format),
        data_format=cast(DataFormat, generator.data_format),
        dtype=dtype.name,
        fill_mode=cast(FillMode, generator.fill_mode),
        cval=float(generator.cval),
        order=generator.interpolation_order,
        conventions=cast(Any, generator.conventions),
    )
    if augment and generator.recipe is not None and x.dtype != np.uint8:
        raise TypeError(f"fit(augment=True) with augmentations takes uint8 images, levels 0 to 255; got {x.dtype}")
    keys = KerasStream(seed)
    keys.reseed(0)
    stream: Any = np.random if seed is None else np.random.RandomState(seed)
    total = len(x) * rounds if augment else len(x)
    params = generator.draw_batch(stream, total, x.shape[1:]) if augment else None
    program = None
    if augment and generator.recipe is not None:
        key, number = keys.key
        size = x.shape[generator.row_axis], x.shape[generator.col_axis]
        program = without_erasing(generator.recipe.draw(np.arange(total), size, seed=key, epoch=number))
    step = max(1, CHUNK_VALUES // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, total, step):
        stop = min(start + step, total)
        if program is not None and params is not None:
            rows = np.arange(start, stop) % len(x)
            levels, levels_rows = generator.warp_to_levels(x, params[start:stop], rows, generator.data_format)
            rescaled = replace(options, rescale=float(generator.rescale or 1.0))
            yield ops.run_program(levels, program[start:stop], rescaled, indices=levels_rows)
            continue
        chunk = x[np.arange(start, stop) % len(x)].astype(dtype)
        if generator.rescale:
            chunk *= generator.rescale
        if params is not None:
            chunk = ops.augment(chunk, params[start:stop], options)
        yield chunk
