"""A folder of 300 JPEG files, 500x375, to augmented batches of 224x224: epoch 1, later epochs, decoding alone."""

from __future__ import annotations

from benchmarks.measure import Row, Runner, Settings, Worker, race

from .field import in_files

__all__ = ["run"]


def run(settings: Settings) -> list[Row]:
    """Race whole epochs; the files have been read before and lie in the system's file cache."""
    case = {"size": 24, "samples": 20, "batch": 8} if settings.smoke else {"size": 224, "samples": 300, "batch": 32}
    on = case | {"files": True, "device": settings.device}
    plain = on | {"augment": False}
    decoding = [
        Runner(
            item.contender,
            _bare(item.label),
            plain | {"device": item.case["device"], "decoder": item.case.get("decoder", "auto")},
            item.environ,
            item.images,
        )
        for item in in_files(on, settings)
        if "cache" not in item.case and not item.reopen
    ]
    # A process takes seconds to begin where there is a GPU, which is lent for minutes: there the second race has those
    # of the first.
    kept: dict[str, Worker] | None = {} if settings.device == "cuda" else None
    try:
        rows = race("folder", "augmented", in_files(on, settings), settings, at=case, kept=kept)
        if kept is not None:
            wanted = {runner.label for runner in decoding}
            for label in [label for label in kept if _bare(label) not in wanted]:
                kept.pop(label).close()
            kept = {_bare(label): worker for label, worker in kept.items()}
        return rows + race("folder", "decode and resize only", decoding, settings, at=case, kept=kept)
    finally:
        for worker in (kept or {}).values():
            worker.close(at_once=settings.is_late)


def _bare(label: str) -> str:
    """Return a contender's name where there is nothing to cache."""
    return label.replace(", epoch 2 on, no cache", "")
