"""What an iterator is about to do: the plan of a batch as a table, the path it takes, and its pictures.

Everything here looks and leaves no trace: the iterator stands where it stood, and so does NumPy's global stream.
"""

from __future__ import annotations

import copy
import html
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from gpuseq.base.text import array_text, bytes_text, printable
from gpuseq.base.version import PACKAGE
from gpuseq.plan.boxes import without_crops
from gpuseq.plan.columns import cells
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.program import as_text
from gpuseq.sources.files import FileSource

from .notebook import SIDE, picture_strip, pictures_of

__all__ = ["Explanation", "explain", "generator_html", "iterator_html", "peek"]

MAX_THUMBNAILS = 8
MAX_HTML_ROWS = 12


@dataclass(frozen=True, eq=False)
class Explanation:
    """The plan of one batch and the path that it takes. Print it, or leave it as the last line of a notebook's cell.

    Attributes
    ----------
    heading : str
        Which batch of what.
    head : tuple of str
        Names of the table's columns; those that are the same for every sample because nothing is drawn are left out.
    rows : tuple of tuple of str
        One row per sample, in the order of the batch.
    path : tuple of (str, str)
        The steps in which the batch is made, in order: name of each, and what happens.
    plan : BatchPlan
        The plan itself; the iterator's `replay` makes the batch of it.
    """

    heading: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    path: tuple[tuple[str, str], ...]
    plan: BatchPlan

    def __str__(self) -> str:
        lines = [self.heading, "", *_aligned([self.head, *self.rows]), ""]
        width = max(len(name) for name, _ in self.path)
        return "\n".join([*lines, *(f"{name:<{width}}  {text}" for name, text in self.path)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        more = len(self.rows) - MAX_HTML_ROWS
        tail = f"<p>and {more} more; <code>print()</code> shows all</p>" if more > 0 else ""
        samples = f"{_table(self.head, self.rows[:MAX_HTML_ROWS])}{tail}"
        return f"<div><p><b>{html.escape(self.heading)}</b></p>{samples}{_steps(self.path)}</div>"


def explain(iterator: Any, index: int | None = None) -> Explanation:
    """Say what a batch is going to be and how it is going to be made, without making it.

    Parameters
    ----------
    iterator : Iterator
        An iterator over images. Left as it is.
    index : int or None
        Which batch of the current epoch. None: the one that ``next()`` would return.

    Returns
    -------
    Explanation
        The plan as a table, and the path.

    Raises
    ------
    IndexError
        If `index` is outside the epoch.
    """
    plan = peek(iterator, index)
    drawn = cells(plan.params)
    names, labels = _names(iterator, plan), _labels(iterator, plan)
    head = (
        "sample",
        *(("image",) if names else ()),
        *(("label",) if labels else ()),
        *drawn,
        *(("augmentations",) if plan.program is not None else ()),
    )
    rows = []
    for position, sample in enumerate(plan.indices.tolist()):
        row = [str(sample)]
        row += [names[position]] if names else []
        row += [labels[position]] if labels else []
        row += [column[position] for column in drawn.values()]
        row += [as_text(plan.program[position]) or "-"] if plan.program is not None else []
        rows.append(tuple(row))
    where = f"batch {plan.batch_index} of {len(iterator)}" + (f", epoch {plan.epoch}" if plan.epoch >= 0 else "")
    heading = f"{type(iterator).__name__}: {where}, {len(plan)} samples"
    return Explanation(heading, head, tuple(rows), tuple(_path(iterator, plan)), plan)


def peek(iterator: Any, index: int | None = None) -> BatchPlan:
    """Return the plan that `plan_batch` would return now, and leave everything as it is.

    Parameters
    ----------
    iterator : Iterator
        Left as it is, and with it NumPy's global stream.
    index : int or None
        As in `plan_batch`.

    Raises
    ------
    IndexError
        If `index` is outside the epoch.
    """
    plan: BatchPlan = _ghost(iterator).plan_batch(index) if iterator.seed is not None else _unseeded(iterator, index)
    return plan


def _unseeded(iterator: Any, index: int | None) -> Any:
    # Without a seed the numbers are the global stream's, which is put back as it was.
    stream = np.random.get_state()
    try:
        return _ghost(iterator).plan_batch(index)
    finally:
        np.random.set_state(stream)


def _ghost(iterator: Any) -> Any:
    """Return a copy that goes on by itself, shares the images, and neither decodes ahead nor writes files."""
    ghost = copy.copy(iterator)
    # On the instance: a look must not turn the decoding ahead to other batches.
    ghost._expect = lambda *arguments, **options: None
    return ghost


# The table


def _names(iterator: Any, plan: BatchPlan) -> list[str]:
    files = getattr(iterator, "filenames", None)
    return [_shortened(printable(os.fspath(files[index]))) for index in plan.indices] if files else []


def _labels(iterator: Any, plan: BatchPlan) -> list[str]:
    """Return each sample's label where it is one word or number."""
    classes = getattr(iterator, "classes", None)
    if classes is not None and getattr(iterator, "class_indices", None):
        # Names where there are names: `classes` holds numbers.
        by_number = {number: name for name, number in iterator.class_indices.items()}
        return [str(by_number.get(_plain(classes[index]), classes[index])) for index in plan.indices]
    y = getattr(iterator, "y", None)
    if y is not None and np.ndim(y) == 1:
        return [str(_plain(y[index])) for index in plan.indices]
    # One-hot rows: the place of the one.
    if y is not None and np.ndim(y) == 2:
        return [str(int(np.argmax(y[index]))) for index in plan.indices]
    return []


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else tuple(value) if isinstance(value, list) else value


def _shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    # Text to the left and numbers to the right, so that digits stand below each other.
    sides = ["<" if name in ("image", "label", "augmentations") else ">" for name in rows[0]]
    formats = [f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True)]
    return ["  ".join(form.format(cell) for form, cell in zip(formats, row, strict=True)).rstrip() for row in rows]


# The path


def _path(iterator: Any, plan: BatchPlan) -> list[tuple[str, str]]:
    """Return the steps in order: each part of the iterator says its own, and what comes out is counted here."""
    generator, source, drawing = iterator.image_data_generator, iterator._source, iterator._drawing()
    path: list[tuple[str, str]] = [*iterator._planner.describe(drawing), *source.describe(plan)]
    if iterator._masks is not None:
        path += iterator._masks.describe()
    if generator is None:
        path.append(("engine", "none: there is no generator, so images are laid out and cast"))
    else:
        # Files are cropped where they are decoded, so that the engine sees what is left.
        is_cropped = isinstance(source, FileSource) and source.crops
        program = without_crops(plan.program) if is_cropped else plan.program
        path += generator._batch_transform.describe(
            source.dtype, iterator.device, drawing.recipe, program, known=source.known(plan.indices)
        )
    height, width = plan.image_size
    # Of the source, whose images may have another dtype than the batch.
    num_values, itemsize = math.prod(source.image_shape), source.dtype.itemsize
    out_itemsize = {"bfloat16": 2}.get(iterator.dtype) or np.dtype(iterator.dtype).itemsize
    read, written = len(plan) * num_values * itemsize, len(plan) * num_values * out_itemsize
    channels = num_values // max(1, height * width)
    order = (height, width, channels) if iterator.batch_format == "channels_last" else (channels, height, width)
    path.append(("batch", f"{array_text((len(plan), *order), iterator.dtype, written)} on {iterator.device}"))
    table = bytes_text(plan.params.nbytes)
    path.append(("bytes", f"{bytes_text(read)} of pixels in, {bytes_text(written)} out, a table of {table}"))
    return path


# Pages and pictures, for notebooks


def iterator_html(iterator: Any) -> str:
    """Return an iterator as HTML: where it stands, and the pictures of the batch that comes next.

    Parameters
    ----------
    iterator : Iterator
        An iterator over images. Left as it is.
    """
    found = explain(iterator)
    # A part of the plan: a notebook shows an iterator at each look, and a whole batch may take seconds.
    samples = found.plan.take(np.arange(min(MAX_THUMBNAILS, len(found.plan))))
    more = len(found.plan) - len(samples)
    tail = f"<p>and {more} more</p>" if more > 0 else ""
    strip = f"{_thumbnails(iterator, samples)}{tail}"
    return f"<div><p><b>{html.escape(found.heading)}</b></p>{strip}{_steps(found.path)}</div>"


def _thumbnails(iterator: Any, plan: BatchPlan) -> str:
    # Nothing is written for a picture in a notebook.
    ghost = _ghost(iterator)
    ghost.save_to_dir = None
    stream = np.random.get_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture is no place for the warnings that the batch itself will give
            batch = ghost.replay(plan)
    except Exception as error:  # a representation must not fail: what is wrong is shown in its place
        return f"<p>{html.escape(f'{type(error).__name__}: {error}')}</p>"
    finally:
        np.random.set_state(stream)
    # Images come first in (x, y), and in the list that x is with further inputs.
    while isinstance(batch, (tuple, list)):
        batch = batch[0]
    titles = _names(iterator, plan) or [f"sample {index}" for index in plan.indices.tolist()]
    return picture_strip(pictures_of(batch, iterator.batch_format), titles)


def generator_html(generator: Any) -> str:
    """Return a generator as HTML: what was asked of it, and what it makes of one photograph.

    Parameters
    ----------
    generator : ImageDataGenerator
        Left as it is. Its `preprocessing_function` is not called where it is a function of the user's.
    """
    text = f"<p><code>{html.escape(repr(generator))}</code></p>"
    # A user's function may be slow or have effects, and a whitening matrix is of another size of image.
    if callable(generator.preprocessing_function) or generator.zca_whitening or generator._is_customised:
        return f"<div>{text}</div>"
    with Image.open(PACKAGE / "photos" / "space" / "astronaut.jpg") as file:
        photo = np.asarray(file.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    images = np.repeat(photo[None], 5, axis=0)
    if generator.data_format == "channels_first":
        images = images.transpose(0, 3, 1, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A copy, because a generator notes that it has warned of Keras' conventions: noted here, where warnings are
            # silenced, the user would never read it.
            batch = next(copy.copy(generator).flow(images, batch_size=len(images), shuffle=False, seed=0))
    except Exception as error:  # as above
        return f"<div>{text}<p>{html.escape(f'{type(error).__name__}: {error}')}</p></div>"
    titles = [f"draw {number}" for number in range(1, len(images) + 1)]
    return f"<div>{text}{picture_strip(pictures_of(batch, generator.data_format), titles)}</div>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        left = ' style="text-align:left"'
        return "<tr>" + "".join(f"<{tag}{left}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table><thead>{line(head, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def _steps(path: Sequence[tuple[str, str]]) -> str:
    return _table(("step", "what happens"), path)
