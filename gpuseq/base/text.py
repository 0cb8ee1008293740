"""Sizes and arrays as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["array_text", "bytes_text", "printable"]


def bytes_text(count: int) -> str:
    """Return a number of bytes with three or four digits and its unit, in powers of 1,000.

    Parameters
    ----------
    count : int
        Bytes.

    Examples
    --------
    >>> bytes_text(999), bytes_text(150_528), bytes_text(12_345_678)
    ('999 B', '150.5 kB', '12.3 MB')
    """
    return f"{count} B" if count < 1000 else f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def array_text(shape: Sequence[int], dtype: Any, nbytes: int) -> str:
    """Return shape, dtype and size of an array that may not exist yet.

    Parameters
    ----------
    shape : sequence of int
        Its shape.
    dtype : dtype or str
        Its dtype.
    nbytes : int
        Its size.

    Examples
    --------
    >>> array_text((32, 224, 224, 3), "uint8", 4_816_896)
    '(32, 224, 224, 3) uint8, 4.8 MB'
    """
    return f"({', '.join(map(str, shape))}) {dtype}, {bytes_text(nbytes)}"


def printable(text: str) -> str:
    r"""Return a text that any stream of UTF-8 takes: bytes of a file's name that are no UTF-8 are written out.

    Parameters
    ----------
    text : str
        Perhaps with such bytes, as Python has them in paths (surrogates).

    Examples
    --------
    >>> printable("caf\udce9.png")
    'caf\\udce9.png'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
