"""How files are found, read ahead and kept, what a bad one does, where masks are: frozen values, checked when made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from gpuseq.base.arguments import check_choice, check_count, did_you_mean
from gpuseq.base.errors import ImageFileError
from gpuseq.base.types import Cache, DecoderChoice, literals

__all__ = ["READ_ARGUMENTS", "MaskOptions", "OnError", "ReadOptions", "check_ignore_value"]

OnError: TypeAlias = Literal["raise", "skip", "substitute"] | Callable[[str, ImageFileError], Any]


@dataclass(frozen=True)
class ReadOptions:
    """What the iterators over files take beyond Keras' arguments; `flow_from_directory` documents each.

    Raises
    ------
    ValueError
        If a value is not one of the accepted ones.
    """

    on_error: OnError = "raise"
    prefetch: int = 2
    cache: Cache | None = None
    memory_limit: int | None = None
    decoder: DecoderChoice = "auto"
    exif_orientation: bool = False
    max_pixels: int | None = None
    num_threads: int | None = None
    hw_decoder_load: float = 0.65
    deterministic: bool = False
    extensions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check each value but the decoder: whether it can be had is for `gpuseq.decode.host.check_decoder` to say."""
        if not callable(self.on_error):
            check_choice("on_error", self.on_error, ("raise", "skip", "substitute"))
        # None is no value here: 0 says it.
        check_count("prefetch", self.prefetch, least=0, unit="batches", or_none=False)
        check_count("memory_limit", self.memory_limit, unit="bytes")
        check_count("max_pixels", self.max_pixels)
        check_count("num_threads", self.num_threads)
        check_choice("cache", self.cache, (None, *literals(Cache)))
        if self.extensions is not None:
            object.__setattr__(self, "extensions", _checked_extensions(self.extensions))


READ_ARGUMENTS = tuple(field.name for field in fields(ReadOptions))
"""Their names."""


@dataclass(frozen=True)
class MaskOptions:
    """Where the masks of image files are, and what fills them; `flow_from_dataframe` documents each.

    Raises
    ------
    TypeError, ValueError
        If a value is not one of the accepted ones.
    """

    mask_directory: str | os.PathLike[str] | None = None
    mask_suffix: str = ""
    mask_col: str | None = None
    ignore_value: int | None = None

    def __post_init__(self) -> None:
        """Check each value."""
        if not isinstance(self.mask_suffix, str):
            raise TypeError(f"mask_suffix must be text, such as '_mask'; got {self.mask_suffix!r}")
        check_ignore_value(self.ignore_value, has_masks=bool(self))
        if self.mask_suffix and not self:
            raise ValueError(f"mask_suffix={self.mask_suffix!r} {_NO_MASKS}")
        if self.mask_suffix and self.mask_col is not None:
            raise ValueError(f"mask_col={self.mask_col!r} names each mask whole: leave out mask_suffix")

    def __bool__(self) -> bool:
        """Return whether there are masks."""
        return self.mask_directory is not None or self.mask_col is not None


_NO_MASKS = "is about masks, and there are none: mask_directory (files) or masks (arrays) says where they are"


def check_ignore_value(value: object, *, has_masks: bool) -> None:
    """Raise a ValueError unless `value` is None, or a level from 0 to 255 and there are masks that may hold it."""
    check_count("ignore_value", value, least=0)
    if value is None:
        return
    if not has_masks:
        raise ValueError(f"ignore_value={value!r} {_NO_MASKS}")
    # Masks of files hold 8 bits; those of arrays follow, so that one number means the same for both.
    if isinstance(value, (int, np.integer)) and value > 255:
        raise ValueError(f"ignore_value must be a level from 0 to 255; got {value!r}")


def _checked_extensions(extensions: object) -> tuple[str, ...]:
    """Return extensions in lower case and with their dots, if Pillow reads all of them."""
    if isinstance(extensions, (str, bytes)) or not isinstance(extensions, Sequence) or not extensions:
        remedy = f": extensions=[{extensions!r}]" if isinstance(extensions, str) else ', such as ["jpg", "webp"]'
        raise TypeError(f"extensions must be a list of file extensions{remedy}; got {extensions!r}")
    # Only formats that Pillow opens: its list names those that it merely writes, too.
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    dotted = []
    for extension in extensions:
        dotted.append(f".{str(extension).lower().removeprefix('.')}")
        if dotted[-1] not in known:
            raise ValueError(
                f"extensions names {extension!r}, and Pillow reads no such files here"
                f"{did_you_mean(dotted[-1], known)}. A plugin may add them, as pillow-heif adds .heic"
            )
    return tuple(dotted)
