"""A batch of local files in one call of the compiled engine, with the headers of those that are JPEG.

`gpuseq.files.reading` and `gpuseq.decode.headers` decide what is right: whatever is not ordinary is left to them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpuseq.files import reading
from gpuseq.files.reading import is_url
from gpuseq.ops.compiled.library import FileRecord
from gpuseq.ops.dispatch import host_engine
from gpuseq.ops.numpy.blocks import KEPT_BYTES, kept_block

from .headers import Header

__all__ = ["FileReader", "ReadFiles", "header_of"]

RECORD = np.dtype(FileRecord)

SECONDS = 0.1
"""After which a call begins no further file, and Python looks for Ctrl-C before the next one."""

# As in `kernels/host/files.h`, which says more of them.
_NO_ROOM, _READ, _LEFT = 1, 2, 3

_ALIGNMENT = 64

_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


class ReadFiles(NamedTuple):
    """What was read of a batch of files.

    Attributes
    ----------
    data : list
        Item i is the whole content of file i, a view of a buffer for many files: shape ``(num_bytes,)``, uint8. The
        buffer is filled again once nothing is a part of it any more. None where the file is left to Python.
    records : numpy.ndarray
        Shape ``(N,)``, structured as `~gpuseq.ops.compiled.library.FileRecord`: the header of each JPEG file, with a
        width of 0 where there is none that could be read.
    """

    data: list[np.ndarray | None]
    records: np.ndarray


class FileReader:
    """Reads batches of local files into buffers that it uses again.

    Parameters
    ----------
    num_threads : int
        In all, the caller's included. Those of each call end with it; fewer where files come fast.
    """

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._room_bytes = KEPT_BYTES.start
        # As many as batches are read and decoded at a time.
        self._kept: deque[np.ndarray] = deque(maxlen=3)

    def read(self, paths: Sequence[str]) -> ReadFiles:
        """Read what is ordinary: regular local files of an ordinary size, without an error.

        Parameters
        ----------
        paths : sequence of str
            Local paths or fsspec URLs.

        Returns
        -------
        ReadFiles
            Without the compiled engine all of the files are left to Python.

        Raises
        ------
        ValueError, MissingDependencyError
            As `~gpuseq.ops.dispatch.host_engine`.
        MemoryError
            If there is no memory for the files.
        """
        instruction_set = host_engine()
        records = np.zeros(len(paths), RECORD)
        data: list[np.ndarray | None] = [None] * len(paths)
        if instruction_set is None or not paths:
            return ReadFiles(data, records)
        names = _names(paths, records)
        states = records["state"]
        buffers: list[np.ndarray] = []
        taken, total = 0, 0
        while (states < _READ).any():
            too_large = states == _NO_ROOM
            if too_large.any() or not buffers:
                # Where each file begins is rounded up, and there is a byte behind it.
                total += taken
                needed = int((records["num_bytes"][too_large] + (_ALIGNMENT + 1)).sum())
                buffers.append(self._buffer(max(needed, self._room_bytes)))
                taken = 0
            room = buffers[-1]
            taken = instruction_set.functions.gpuseq_read_files(
                *(names, records.ctypes.data, len(records), room.ctypes.data, len(room), taken),
                *(len(buffers) - 1, reading.LARGE, int(SECONDS * 1e9), self.num_threads),
            )
        # The next batch gets one buffer for all of it.
        self._room_bytes = max(self._room_bytes, _rounded(total + taken))
        starts, ends = records["start"].tolist(), (records["start"] + records["num_bytes"]).tolist()
        numbers = records["buffer"].tolist()
        for index in np.flatnonzero(states == _READ).tolist():
            data[index] = buffers[numbers[index]][starts[index] : ends[index]]
        return ReadFiles(data, records)

    def _buffer(self, num_bytes: int) -> np.ndarray:
        rounded = _rounded(num_bytes)
        return kept_block(rounded, _new, self._kept) if rounded in KEPT_BYTES else _new(num_bytes)


def _new(num_bytes: int) -> np.ndarray:
    return np.empty(num_bytes, np.uint8)


def _rounded(num_bytes: int) -> int:
    """Return the next power of two, so that batches of about one size share their buffers."""
    return 1 << (num_bytes - 1).bit_length()


def _names(paths: Sequence[str], records: np.ndarray) -> bytes:
    """Return the names as the system takes them, each with a zero behind it; note which of them it is not to have."""
    joined = "\0".join(paths)
    # Two looks for all of them, at what is hardly ever there. The last zero is that of the bytes object.
    if "::" not in joined and "://" not in joined and joined.count("\0") == len(paths) - 1:
        try:
            return os.fsencode(joined)
        except UnicodeEncodeError:
            pass
    names = [_name(path) for path in paths]
    records["state"] = [0 if name else _LEFT for name in names]
    return b"\0".join(names)


def _name(path: str) -> bytes:
    """Return a name as the system takes it, nothing for a URL and what cannot be a name."""
    if is_url(path) or "\0" in path:
        return b""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return b""


def header_of(record: np.void) -> Header | None:
    """Return what `~gpuseq.decode.headers.read_header` would of a file; None too where that is no JPEG file.

    Parameters
    ----------
    record : numpy.void
        One of `ReadFiles.records`.
    """
    if not record["width"]:
        return None
    return Header(
        "JPEG",
        int(record["width"]),
        int(record["height"]),
        _MODES.get(int(record["components"]), ""),
        int(record["bits"]),
        plain=bool(record["is_plain"]),
        is_stored_as_rgb=bool(record["is_stored_as_rgb"]),
    )
