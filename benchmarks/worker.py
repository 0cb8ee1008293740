"""A contender's process: reads one JSON question per line, answers one JSON line. Started by `benchmarks.measure`."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from typing import Any

from .contenders import Absent, Case, Contender, load
from .sanity import check_batch, check_rotation
from .work import device_work

__all__ = ["main"]


def main() -> None:
    """Serve until told to close."""
    # Libraries print what they like; the answers go to the real standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    name = sys.argv[1]
    contender: Contender | None = None
    before: tuple[int, int] | None = None
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any]
        try:
            if question["do"] == "close":
                if contender is not None:
                    contender.close()
                answer = {}
            elif question["do"] == "open":
                if contender is not None:
                    contender.close()
                case, before = Case(**question["case"]), device_work()
                contender = load(name, for_policy=case.policy is not None)(case)
                contender.prepare()
                answer = {"note": open_checked(contender)}
            else:
                assert contender is not None
                answer = measure(contender, question["seconds"], question["images"], question["reopen"])
                if before is not None and (after := device_work()) is not None:
                    answer["device_work"] = [now - then for now, then in zip(after, before, strict=True)]
        except Absent as error:
            answer = {"absent": str(error)}
        except Exception as error:  # the contender's failure is its result
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if question["do"] == "close":
            break
    answers.close()
    os._exit(0)  # pools and loaders of five libraries need not agree on an order of shutting down


def open_checked(contender: Contender) -> str | None:
    """Compare the results with what they should be, then make a first batch: compiles, fills pools, starts helpers."""
    turned = contender.rotate(30.0)
    if turned is not None:
        check_rotation(turned)
    contender.start()
    began = time.monotonic()
    for number in range(2):
        if number and time.monotonic() - began > 10:  # so slow that nothing of it is start-up
            break
        batch = contender.next_batch()
        contender.synchronize()
    check_batch(contender.to_host(batch), contender.case)
    return contender.note


def measure(contender: Contender, seconds: float, images: int, reopen: bool) -> dict[str, Any]:
    """Time one slice: for some seconds, or for some images."""
    if reopen:
        contender.start()
    else:
        for _ in range(contender.ahead):  # made before the clock starts
            contender.next_batch()
        contender.synchronize()
    done = 0
    started = time.perf_counter()
    while done < images or (not images and (not done or time.perf_counter() - started < seconds)):
        done += len(contender.next_batch())
        if contender.waits_each_batch:
            contender.synchronize()
    contender.synchronize()
    elapsed = time.perf_counter() - started
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": done, "seconds": elapsed, "rss_mb": rss_mb}


if __name__ == "__main__":
    main()
