"""A folder of 300 JPEG files, 500x375, to augmented batches of 224x224: epoch 1, later epochs, decoding alone."""

from __future__ import annotations

from benchmarks.measure import Row, Runner, Settings, race

from .field import in_files

__all__ = ["run"]


def run(settings: Settings) -> list[Row]:
    """Race whole epochs; the files have been read before and lie in the system's file cache."""
    case = {"size": 24, "samples": 20, "batch": 8} if settings.smoke else {"size": 224, "samples": 300, "batch": 32}
    on = case | {"files": True, "device": settings.device}
    rows = race("folder", "augmented", in_files(on, settings), settings, at=case)
    plain = on | {"augment": False}
    decoding = [
        Runner(
            item.contender,
            item.label.replace(", epoch 2 on, no cache", ""),
            plain | {"device": item.case["device"], "decoder": item.case.get("decoder", "auto")},
            item.environ,
            item.images,
        )
        for item in in_files(on, settings)
        if "cache" not in item.case and not item.reopen
    ]
    return rows + race("folder", "decode and resize only", decoding, settings, at=case)
