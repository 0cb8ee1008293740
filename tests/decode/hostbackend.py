"""A decoder's CPU side in the place of a GPU: everything has happened when a call returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpuseq.base.types import Array
from gpuseq.decode.gpu_backend import GpuBackend, decoder_of
from gpuseq.decode.options import DecodeOptions
from gpuseq.decode.routes import Encoded


class HostBackend(GpuBackend):
    """All of `GpuBackend` on the host."""

    def __init__(self, options: DecodeOptions, num_threads: int) -> None:
        self.device = "cpu"
        self._images = decoder_of(options)(None, 0, num_threads, 0.0)

    def here(self) -> AbstractContextManager[None]:
        return nullcontext()

    def decode(self, encoded: Sequence[Encoded]) -> list[Any]:
        return self._images.decode(encoded)

    def array(self, image: Any) -> Array:
        return np.asarray(image.cpu())

    def synchronize(self) -> None:
        """Nothing is under way."""

    def read_out(self, work: Callable[[], Array]) -> tuple[Array, Any]:
        return work(), None
