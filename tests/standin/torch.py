"""A torch that takes its CPU for a GPU, for the rehearsal: devices are renamed on the way in, and said on the way out.

Streams are names only: torch works at once. What is rehearsed is what we ask of torch, and the memory that we share.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

__all__ = ["install"]

_addresses = itertools.count(0x9000, 0x10)
"""Not those of the stand-in for CuPy."""


def install(patch: pytest.MonkeyPatch) -> None:
    """Rename the CPU for as long as `patch` lasts; nothing happens where torch is not installed."""
    try:
        import torch
    except ImportError:
        return

    named = (str, torch.device)

    def host(value: Any) -> Any:
        return torch.device("cpu") if re.fullmatch(r"cuda(:\d+)?", str(value)) else value

    def renamed(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if "device" in options:
                options["device"] = host(options["device"])
            return function(*(host(item) if isinstance(item, named) else item for item in arguments), **options)

        return call

    def aligned(*arguments: Any, **options: Any) -> Any:
        """``torch.empty``: blocks begin at multiples of 512 bytes, as those of torch's caching allocator."""
        if options.get("dtype") is not torch.uint8 or len(arguments) != 1 or not isinstance(arguments[0], int):
            return empty(*arguments, **options)
        block = empty(arguments[0] + 512, **options)
        start = -block.data_ptr() % 512
        return block[start : start + arguments[0]]

    def record_stream(tensor: Any, stream: Any) -> None:
        assert isinstance(stream, Stream)

    empty = renamed(torch.empty)
    patch.setattr(torch, "empty", aligned)
    for name in ("zeros", "ones", "full", "rand", "randn", "arange", "tensor", "as_tensor"):
        patch.setattr(torch, name, renamed(getattr(torch, name)))
    patch.setattr(torch.Tensor, "to", renamed(torch.Tensor.to))
    patch.setattr(torch.Tensor, "cuda", lambda tensor, *_: tensor)
    patch.setattr(torch.Tensor, "record_stream", record_stream)
    patch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))

    class Stream:
        """``torch.cuda.Stream``."""

        def __init__(self, device: Any = None, priority: int = 0, cuda_stream: int | None = None) -> None:
            self.cuda_stream = next(_addresses) if cuda_stream is None else cuda_stream

        def wait_stream(self, stream: Any) -> None: ...

        def synchronize(self) -> None: ...

    class Current(threading.local):
        def __init__(self) -> None:
            self.stack = [Stream(cuda_stream=0)]

    current = Current()

    @contextlib.contextmanager
    def stream(stream: Any) -> Iterator[None]:
        current.stack.append(stream)
        try:
            yield
        finally:
            current.stack.pop()

    @contextlib.contextmanager
    def device(device: Any) -> Iterator[None]:
        yield

    members = {
        "is_available": lambda: True,
        "Stream": Stream,
        "stream": stream,
        "device": device,
        "current_stream": lambda device=None: current.stack[-1],
        "current_device": lambda: 0,
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda device=None: None,
        "_sleep": lambda cycles: None,
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
    }
    for name, member in members.items():
        assert hasattr(torch.cuda, name), f"torch.cuda has no {name}"
        patch.setattr(torch.cuda, name, member)
