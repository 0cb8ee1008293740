"""Which engine a command runs on and why, waiting for it, and keeping the log quiet meanwhile."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from gpuseq.base.devices import gpu_problem, resolve_device

__all__ = ["engine_and_reason", "quiet"]


def engine_and_reason(device: str = "auto") -> tuple[str, str]:
    """Return what `device` resolves to here, and why.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        As in `ImageDataGenerator`.

    Returns
    -------
    (str, str)
        ``"cpu"`` or ``"cuda:N"``, and one sentence.

    Raises
    ------
    ValueError
        If `device` is none of these.
    DeviceError
        If a GPU is asked for that is not there.
    """
    resolved = resolve_device(device)
    if device != "auto":
        return resolved, f"asked for with device={device!r}"
    if asked := os.environ.get("GPUSEQ_DEVICE"):
        return resolved, f"GPUSEQ_DEVICE={asked}"
    return resolved, gpu_problem() or "CuPy sees a CUDA device"


@contextmanager
def quiet(level: int = logging.WARNING) -> Iterator[None]:
    """Keep gpuseq's log at a level for a while: the commands say in their own words what was found.

    Parameters
    ----------
    level : int
        ERROR where a command itself names the files that were passed over.
    """
    logger = logging.getLogger("gpuseq")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
