"""What was aimed at, and whether a round got there. The aims stand here; the figures come from the round."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .contenders.policies import POLICIES
from .measure import Row
from .suites.policies import case_name

__all__ = ["Outcome", "find", "outcomes", "peers_ahead"]

BASE = "Keras ImageDataGenerator"
HEADLINE = "224x224, batch 32, float32"
SAME_RESIZE = "torchvision v2"
"""The cheapest whose resize looks at every pixel, as Pillow's does; OpenCV's looks at four."""
LARGE = "224x224, batch 256, float32"
MODERN = "RandAugment(2, 9)"


@dataclass(frozen=True)
class Outcome:
    """One target.

    Attributes
    ----------
    what, aim : str
        In words.
    measured : str
        The figure, or why there is none.
    met : bool or None
        None where it was not measured.
    """

    what: str
    aim: str
    measured: str
    met: bool | None


def find(rows: Iterable[Row], suite: str, case: str, contender: str) -> Row | None:
    """Return a measured row, or None."""
    for row in rows:
        if (row["suite"], row["case"], row["contender"]) == (suite, case, contender) and "median" in row:
            return row
    return None


def outcomes(rows: list[Row], device: str) -> list[Outcome]:
    """Return the targets of a round on `device`."""
    return _on_cpu(rows) if device == "cpu" else _on_gpu(rows)


def _on_cpu(rows: list[Row]) -> list[Outcome]:
    case, ours = "augmented", "gpuseq, compiled"
    found = [_cheaper(rows, "arrays, 224x224", ours, 15, "processor time per image, arrays, 224x224", BASE)]
    for size in (32, 224, 512):
        name = f"arrays, {size}x{size}"
        found.append(_cheaper(rows, name, ours, 2.5, f"processor time per image, {name}"))
    decoding, with_simplejpeg = "decode and resize, 224x224", f"{ours}, simplejpeg"
    return [
        *found,
        _cheaper(rows, decoding, with_simplejpeg, 1.2, f"processor time per image, {decoding}"),
        _cheaper(rows, decoding, with_simplejpeg, 1.2, f"the same, against {SAME_RESIZE}", SAME_RESIZE),
        _slowest_variant(rows),
        *(
            _cheaper(rows, policy, "gpuseq", 2.5, f"processor time per image, {policy}", suite="modern")
            for policy in POLICIES
        ),
        *(
            _fastest(rows, "policies", case_name(policy), "gpuseq, CPU", 2.5, f"{policy}, batch of 32, all cores")
            for policy in POLICIES
        ),
        *(
            _fastest(rows, "arrays", f"{size}x{size}, batch 32, float32", "gpuseq, CPU", 2.5, f"arrays, {size}x{size}")
            for size in (32, 224, 512)
        ),
        _ratio(rows, "arrays", HEADLINE, "gpuseq, CPU", BASE, 15, "arrays, 224x224, batch of 32"),
        _fastest(rows, "folder", case, "gpuseq, CPU, epoch 1", 1.3, "JPEG folder, epoch 1"),
        _ratio(rows, "folder", case, "gpuseq, CPU, epoch 1", BASE, 7, "JPEG folder, epoch 1"),
        _fastest(rows, "folder", "decode and resize only", "gpuseq, CPU", 1.2, "JPEG folder, decode and resize only"),
        _ratio(
            rows, "folder", case, "gpuseq, CPU, epoch 2 on, no cache", BASE, 2.5, "JPEG folder, later epochs, no cache"
        ),
        _ratio(
            rows,
            "folder",
            case,
            "gpuseq, CPU, epoch 2 on, host cache",
            BASE,
            2.5,
            "JPEG folder, later epochs, host cache",
        ),
        _at_most(
            rows,
            "host",
            "batch of 256",
            "plan, table and labels",
            60,
            "us",
            "host time per batch of 256: plan, draw, table, labels",
        ),
        _at_most(
            rows, "host", "batch of 256", "plan and launch", 100, "us", "host time per batch of 256: plan, draw, launch"
        ),
        _at_most(
            rows,
            "host",
            "batch of 256",
            "list and cut RandAugment(2, 9)",
            256,
            "us",
            "host time per batch of 256: steps of RandAugment listed and cut",
        ),
        _fed(rows, 0.25),
        _at_most(rows, "imports", "fresh process", "import gpuseq", 0.2, "s", "import gpuseq"),
    ]


def _cheaper(
    rows: list[Row], case: str, ours: str, aim: float, what: str, against: str | None = None, *, suite: str = "cost"
) -> Outcome:
    """Compare processor time with one other, or with the cheapest of those who are neither gpuseq nor Keras."""
    names = {None: "the cheapest peer", BASE: "Keras' generator"}
    wanted = f"at least {aim:g} times less than {names.get(against, against)}"
    mine = find(rows, suite, case, ours)
    others = [
        row
        for row in rows
        if (row["suite"], row["case"]) == (suite, case)
        and "median" in row
        and (row["contender"] == against if against else not row["contender"].startswith(("gpuseq", BASE)))
    ]
    if mine is None or not others:
        return Outcome(what, wanted, "not measured", None)
    least = min(others, key=lambda row: float(row["median"]))
    ratio = least["median"] / mine["median"]
    return Outcome(what, wanted, f"{ratio:.2f} times ({least['contender']})", ratio >= aim)


def _slowest_variant(rows: list[Row]) -> Outcome:
    """Compare the compiled engine with NumPy's in the case where it gains least."""
    what, aim = "compiled engine, each dtype, order, fill mode and colour", 4.0
    ratios = {}
    for row in rows:
        other = find(rows, "engines", row["case"], "gpuseq, NumPy") if row["suite"] == "engines" else None
        if other is not None and row["contender"] == "gpuseq, compiled" and "median" in row:
            ratios[row["case"]] = row["median"] / other["median"]
    wanted = f"at least {aim:g} times NumPy"
    if not ratios:
        return Outcome(what, wanted, "not measured", None)
    least = min(ratios, key=lambda case: ratios[case])
    return Outcome(what, wanted, f"{ratios[least]:.2f} times ({least}) or more", ratios[least] >= aim)


def _on_gpu(rows: list[Row]) -> list[Outcome]:
    ours = "gpuseq, GPU"
    found = [_share(rows)]
    row = find(rows, "arrays", LARGE, ours)
    aim = "at least 2.0 M img/s"
    if row is None:
        found.append(Outcome("arrays, 224x224, batch of 256, through the iterator", aim, "not measured", None))
    else:
        text = f"{row['median'] / 1e6:.2f} M img/s"
        found.append(Outcome("arrays, 224x224, batch of 256, through the iterator", aim, text, row["median"] >= 2e6))
    rivals = ("Kornia", "Kornia, compiled", "torchvision v2, DataLoader", "Keras layers, PyTorch", "Keras layers, JAX")
    there = [name for name in rivals if find(rows, "arrays", LARGE, name)]
    best = max(there, key=lambda name: _median(rows, "arrays", LARGE, name), default=rivals[0])
    ways = {row["contender"] for row in rows if row["suite"] == "folder" and row["contender"].startswith(ours)}
    first_epochs = [way for way in sorted(ways) if way.endswith(", epoch 1")]
    first_epoch = max(
        first_epochs, key=lambda way: _median(rows, "folder", "augmented", way), default=f"{ours}, epoch 1"
    )
    found += [
        _ratio(rows, "arrays", LARGE, ours, best, 10, f"arrays, 224x224, batch of 256, against {best}"),
        _ratio(
            rows, "arrays", LARGE, ours, "DALI pipeline", 2, "arrays, 224x224, batch of 256, against DALI's pipeline"
        ),
        _ratio(rows, "arrays", LARGE, ours, BASE, 1000, "arrays, 224x224, batch of 256, against Keras' generator"),
        _ratio(
            rows,
            "folder",
            "augmented",
            first_epoch,
            "DALI pipeline",
            1,
            "JPEG folder, epoch 1, against DALI's pipeline",
        ),
        _ratio(rows, "folder", "augmented", first_epoch, BASE, 20, "JPEG folder, epoch 1, against Keras' generator"),
        _ratio(
            rows,
            "folder",
            "augmented",
            f"{ours}, epoch 2 on, device cache",
            first_epoch,
            20,
            "JPEG folder, device cache, against epoch 1",
        ),
        _at_most(
            rows, "host", "batch of 256", "plan and launch", 100, "us", "host time per batch of 256: plan, draw, launch"
        ),
        _at_most(
            rows,
            "kernel",
            "batch 256, 224x224x3 uint8",
            MODERN,
            250,
            "us",
            f"{MODERN}, batch of 256, 224x224, time on the device",
        ),
        _fastest(
            rows,
            "modern",
            f"{MODERN}, batch of 256, 224x224",
            f"{ours}, iterator",
            10,
            f"{MODERN}, batch of 256, 224x224, through the iterator",
        ),
    ]
    return [*found, _fed(rows, 0.02)]


def _fed(rows: list[Row], most: float) -> Outcome:
    """Compare a step of training on gpuseq's batches with one on a batch that is there already."""
    what, aim = "training step against a constant batch", f"at most {100 * most:g} % longer"
    fed = [row for row in rows if row["suite"] == "feed" and "median" in row]
    steps = {row["contender"]: row["median"] for row in fed}
    if not {"gpuseq", "a constant batch"} <= set(steps):
        return Outcome(what, aim, "not measured", None)
    extra = steps["gpuseq"] / steps["a constant batch"] - 1
    return Outcome(what, aim, f"{100 * extra:+.1f} %", extra <= most)


def _median(rows: list[Row], suite: str, case: str, contender: str) -> float:
    row = find(rows, suite, case, contender)
    return float(row["median"]) if row else 0.0


def _ratio(rows: list[Row], suite: str, case: str, ours: str, theirs: str, aim: float, what: str) -> Outcome:
    mine, other = find(rows, suite, case, ours), find(rows, suite, case, theirs)
    wanted = f"at least {aim:g} times {'Keras' + chr(39) + ' generator' if theirs == BASE else theirs}"
    if mine is None or other is None:
        return Outcome(what, wanted, "not measured", None)
    ratio = mine["median"] / other["median"]
    return Outcome(what, wanted, f"{ratio:.2f} times", ratio >= aim)


def _fastest(rows: list[Row], suite: str, case: str, ours: str, aim: float, what: str) -> Outcome:
    """Compare with the fastest of those who are neither gpuseq nor Keras' generator."""
    wanted, mine = f"at least {aim:g} times the fastest peer", find(rows, suite, case, ours)
    others = [
        row
        for row in rows
        if (row["suite"], row["case"]) == (suite, case)
        and "median" in row
        and not row["contender"].startswith(("gpuseq", BASE))
    ]
    if mine is None or not others:
        return Outcome(what, wanted, "not measured", None)
    best = max(others, key=lambda row: float(row["median"]))
    ratio = mine["median"] / best["median"]
    return Outcome(what, wanted, f"{ratio:.2f} times ({best['contender']})", ratio >= aim)


def _at_most(rows: list[Row], suite: str, case: str, contender: str, aim: float, unit: str, what: str) -> Outcome:
    row = find(rows, suite, case, contender)
    if row is None:
        return Outcome(what, f"at most {aim:g} {unit}", "not measured", None)
    return Outcome(what, f"at most {aim:g} {unit}", f"{row['median']:.3g} {unit}", row["median"] <= aim)


def _share(rows: list[Row]) -> Outcome:
    what, aim = "fused kernel, batch of 256, float32, channels_first", "at least 50 % of the copy's bandwidth"
    for row in rows:
        if (row["suite"], row["contender"]) == ("kernel", "the same, channels_first") and "median" in row:
            share = row["at"]["share_of_copy"]
            return Outcome(what, aim, f"{100 * share:.0f} %", share >= 0.5)
    return Outcome(what, aim, "not measured", None)


def _is_like_for_like(name: str) -> bool:
    """Ours, decoding what the others decode: a cache of decoded images is a regime of its own."""
    return name.startswith("gpuseq") and (" cache" not in name or name.endswith("no cache"))


def peers_ahead(rows: list[Row]) -> list[tuple[str, str, float]]:
    """Return (case, peer, how many times the best of gpuseq's own without a cache) for every peer that is ahead."""
    cases: dict[tuple[str, str, Any], list[Row]] = {}
    for row in rows:
        if "median" in row and row["unit"] == "img/s":
            cases.setdefault((row["suite"], row["case"], row.get("at", {}).get("x")), []).append(row)
    ahead = []
    for (suite, case, x), together in cases.items():
        mine = [row["median"] for row in together if _is_like_for_like(row["contender"])]
        where = f"{suite}: {case}" + ("" if x is None else f" {x}")
        theirs = [row for row in together if mine and not row["contender"].startswith("gpuseq")]
        ahead += [(where, row["contender"], row["median"] / max(mine)) for row in theirs if row["median"] > max(mine)]
    return ahead
