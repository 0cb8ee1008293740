"""Whole-folder jobs over many machines with Ray Data: statistics, and decoding once into shards.

Feeding a training run needs none of this: each worker takes its part by ``shard="auto"``, under Ray Train too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpuseq.base.arguments import check_count
from gpuseq.base.atomic import replacing
from gpuseq.base.errors import ImageFileError, require
from gpuseq.base.types import COLOR_CHANNELS, ColorMode, Interpolation, Size
from gpuseq.decode.host import decode_into
from gpuseq.decode.images import checked_size
from gpuseq.decode.options import DecodeOptions
from gpuseq.files.folders import find_classes, scan_classes
from gpuseq.generator import ImageDataGenerator
from gpuseq.transforms.statistics import ChannelMoments, fit_dtype, per_channel

ray = require("ray", extra="ray", purpose="gpuseq.ray")
ray_data = require("ray.data", extra="ray", purpose="gpuseq.ray")

__all__ = ["fit_directory", "predecode", "read_shards"]

INDEX = "shards.json"


def fit_directory(
    generator: ImageDataGenerator,
    directory: str | os.PathLike[str],
    target_size: Size = (256, 256),
    color_mode: ColorMode = "rgb",
    batch_size: int = 32,
    interpolation: Interpolation = "nearest",
    *,
    classes: Sequence[str] | None = None,
    num_workers: int = 2,
) -> None:
    """Find mean and standard deviation of a folder on many workers, equal to the last bit to those of one process.

    Parameters
    ----------
    generator : ImageDataGenerator
        Its `mean` and `std` are set as its options ask.
    directory : str or os.PathLike
        A folder with one subfolder per class, which every worker sees under this name.
    target_size, color_mode, batch_size, interpolation
        As in `ImageDataGenerator.fit_directory`; with the same values the result is the same.
    classes : sequence of str or None
        Subfolders. None: all.
    num_workers : int
        Actors; each decodes with as many threads as Ray gives it CPUs, by default one.

    Raises
    ------
    ValueError
        With ``zca_whitening``, which needs all images at once, if there are no images, or no worker.
    ImageFileError
        If a file cannot be decoded.
    """
    check_count("num_workers", num_workers, or_none=False)
    check_count("batch_size", batch_size, or_none=False)
    if generator.zca_whitening:
        raise ValueError("zca_whitening needs all images at once: use fit(x) on an array that fits in memory")
    names, _, _ = _scan(directory, classes)
    options = _decode_options(target_size, color_mode, interpolation)
    dtype = fit_dtype(generator.dtype)
    # As `ImageDataGenerator.fit_directory` multiplies: in the dtype of the images.
    factor = dtype.type(generator.rescale or 1.0)
    found = sorted(
        _over_chunks(_Moments, names, batch_size, num_workers, (os.fspath(directory), options, dtype.name, factor)),
        key=lambda row: int(row["chunk"]),
    )
    # Merged in the order of one process: sums of floats depend on it.
    whole: ChannelMoments | None = None
    for row in found:
        part = ChannelMoments(int(row["count"]), np.asarray(row["mean"]), np.asarray(row["deviation"]))
        whole = part if whole is None else whole.merge(part)
    assert whole is not None
    if generator.featurewise_center:
        generator.mean = per_channel(whole.mean, generator.channel_axis, dtype)
    if generator.featurewise_std_normalization:
        generator.std = per_channel(whole.std, generator.channel_axis, dtype)


def predecode(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    target_size: Size = (256, 256),
    color_mode: ColorMode = "rgb",
    interpolation: Interpolation = "nearest",
    *,
    shard_size: int = 1024,
    num_workers: int = 2,
) -> int:
    """Decode and resize a folder once, into shards of uint8 images that `read_shards` reads.

    Parameters
    ----------
    directory : str or os.PathLike
        A folder with one subfolder per class, which every worker sees under this name.
    out : str or os.PathLike
        A folder that every worker may write to; made if it is not there. Shards are written whole or not at all, the
        index last.
    target_size, color_mode, interpolation
        As in `ImageDataGenerator.flow_from_directory`.
    shard_size : int
        Images per shard.
    num_workers : int
        Actors; see `fit_directory`.

    Returns
    -------
    int
        How many images there are.

    Raises
    ------
    ValueError
        If there are no images, or no worker.
    ImageFileError
        If a file cannot be decoded: see ``gpuseq check``.
    """
    check_count("num_workers", num_workers, or_none=False)
    check_count("shard_size", shard_size, or_none=False)
    names, labels, classes = _scan(directory)
    # Workers may run in another folder than this process.
    target = Path(out).absolute()
    target.mkdir(parents=True, exist_ok=True)
    options = _decode_options(target_size, color_mode, interpolation)
    found = _over_chunks(_Shards, names, shard_size, num_workers, (os.fspath(directory), options, os.fspath(target)))
    files = [str(row["file"]) for row in sorted(found, key=lambda row: int(row["chunk"]))]
    index = {"files": files, "labels": labels.tolist(), "classes": classes, "names": names}
    # Last, and in one step: a folder with an index is complete.
    with replacing(target / INDEX) as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")
    return len(names)


def read_shards(folder: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Read what `predecode` wrote, for ``generator.flow(images, labels)``.

    Parameters
    ----------
    folder : str or os.PathLike
        The `out` of `predecode`.

    Returns
    -------
    images : numpy.ndarray
        Shape ``(n, H, W, C)``, uint8, on the host, in the order of ``flow_from_directory(shuffle=False)``.
    labels : numpy.ndarray
        Shape ``(n,)``, int32: class indices.
    class_indices : dict of str to int
        Class name to index.

    Raises
    ------
    FileNotFoundError
        If there is no index: the job did not come to its end.
    """
    root = Path(folder)
    if not (root / INDEX).is_file():
        raise FileNotFoundError(f"no {INDEX} in {os.fspath(folder)!r}: predecode() writes it when all shards are there")
    index = json.loads((root / INDEX).read_text(encoding="utf-8"))
    # Without pickles: a shard may come from elsewhere, and loading one would run what it says.
    images = np.concatenate([np.load(root / name, allow_pickle=False) for name in index["files"]])
    classes = {name: number for number, name in enumerate(index["classes"])}
    return images, np.array(index["labels"], np.int32), classes


class _Chunk:
    """An actor that holds what it takes to decode the files of a chunk."""

    def __init__(self, directory: str, options: DecodeOptions) -> None:
        self.directory = directory
        self.options = options

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Do one chunk; a bad file is an answer and not an exception, which Ray would wrap and may try again."""
        # A batch of one row, which is a whole chunk: see `_over_chunks`.
        (chunk,), (names,) = batch["chunk"], batch["names"]
        path, reason = "", ""
        try:
            answer = self.work(int(chunk), self.decode(names))
        except ImageFileError as error:
            path, reason = error.path, error.reason
            answer = self.nothing()
        answer |= {"chunk": chunk, "bad_path": path, "bad_reason": reason}
        return {key: np.asarray(value)[None] for key, value in answer.items()}

    def work(self, chunk: int, images: np.ndarray) -> dict[str, Any]:
        raise NotImplementedError

    def nothing(self) -> dict[str, Any]:
        raise NotImplementedError

    def decode(self, names: np.ndarray) -> np.ndarray:
        paths = [os.path.join(self.directory, str(name)) for name in names]
        # One array per chunk, so the moments of a chunk are those that one process takes of the same batch.
        images = np.empty((len(paths), *self.image_shape), np.uint8)
        for error in decode_into(paths, self.options, images):
            if error is not None:
                raise error
        return images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        assert self.options.target_size is not None
        return (*self.options.target_size, COLOR_CHANNELS[self.options.color_mode])


class _Moments(_Chunk):
    """Chunks of names to their moments."""

    def __init__(self, directory: str, options: DecodeOptions, dtype: str, factor: np.floating[Any]) -> None:
        super().__init__(directory, options)
        self.dtype = dtype
        self.factor = factor

    def work(self, chunk: int, images: np.ndarray) -> dict[str, Any]:
        part = ChannelMoments.of(images.astype(self.dtype) * self.factor, 3)
        return {"count": part.count, "mean": part.mean, "deviation": part.deviation}

    def nothing(self) -> dict[str, Any]:
        # Of the right shape all the same: Ray wants one schema for the rows of all chunks.
        zeros = np.zeros(self.image_shape[2])
        return {"count": 0, "mean": zeros, "deviation": zeros}


class _Shards(_Chunk):
    """Chunks of names to files of images."""

    def __init__(self, directory: str, options: DecodeOptions, out: str) -> None:
        super().__init__(directory, options)
        self.out = Path(out)

    def work(self, chunk: int, images: np.ndarray) -> dict[str, Any]:
        name = f"images-{chunk:05d}.npy"
        with replacing(self.out / name) as temporary:
            np.save(temporary, images, allow_pickle=False)
        return {"file": name}

    def nothing(self) -> dict[str, Any]:
        return {"file": ""}


def _scan(
    directory: str | os.PathLike[str], classes: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray, list[str]]:
    root = os.fspath(directory)
    classes = list(classes) if classes else find_classes(root)
    formats = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
    names, labels = scan_classes(root, classes, formats, None, follow_links=False)
    return names, labels, classes


def _decode_options(target_size: Size, color_mode: ColorMode, interpolation: Interpolation) -> DecodeOptions:
    # One thread: Ray counts CPUs by actors.
    return DecodeOptions(color_mode, checked_size(target_size), interpolation, num_threads=1)


def _over_chunks(
    actor: type[_Chunk], names: list[str], chunk_size: int, num_workers: int, arguments: tuple[Any, ...]
) -> Iterator[dict[str, Any]]:
    """Map chunks of names on actors; a chunk is one row, so that Ray cannot cut it otherwise."""
    # The chunks are those of one process with this batch size, whatever the number of workers.
    rows = [
        {"chunk": number, "names": names[start : start + chunk_size]}
        for number, start in enumerate(range(0, len(names), chunk_size))
    ]
    # Known: a block for each chunk costs Ray 13.6 ms, where two blocks in all cost 3.0 ms a chunk.
    data = ray_data.from_items(rows, override_num_blocks=len(rows))
    mapped = data.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="numpy",
        compute=ray_data.ActorPoolStrategy(size=min(num_workers, len(rows))),
    )
    for row in mapped.iter_rows():
        if row["bad_path"]:
            raise ImageFileError(str(row["bad_path"]), str(row["bad_reason"]))
        yield row
