"""How files are read ahead, kept and forgiven: a frozen value, checked once when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from gpuseq.base.arguments import check_choice, check_count
from gpuseq.base.errors import ImageFileError
from gpuseq.base.types import Cache, DecoderChoice, literals

__all__ = ["READ_ARGUMENTS", "OnError", "ReadOptions"]

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

    def __post_init__(self) -> None:
        """Check each value."""
        if not callable(self.on_error):
            check_choice("on_error", self.on_error, ("raise", "skip", "substitute"))
        check_count("prefetch", self.prefetch, least=0, unit="batches", or_none=False)
        check_count("memory_limit", self.memory_limit, unit="bytes")
        check_count("max_pixels", self.max_pixels)
        check_count("num_threads", self.num_threads)
        check_choice("cache", self.cache, (None, *literals(Cache)))
        check_choice("decoder", self.decoder, literals(DecoderChoice))


READ_ARGUMENTS = tuple(field.name for field in fields(ReadOptions))
"""Their names."""
