"""Tables and plots from result files, written between markers. Nothing in them is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .environment import ROOT
from .measure import Row
from .plots import bars, lines
from .targets import BASE, HEADLINE, outcomes, peers_ahead

__all__ = ["figures", "plots", "replace_between", "tables", "write_tables"]

HERE = Path(__file__).resolve().parent
BUSY = 0.2
"""Share of the cores that others may take before a round is marked."""

SUITE_TITLES = {
    "arrays": "Arrays in memory",
    "engines": "The compiled engine against NumPy",
    "cost": "Processor time per image, one thread",
    "modern": "The modern augmentations: processor time per image, one thread",
    "policies": "The modern augmentations: all cores",
    "folder": "A folder of JPEG files",
    "host": "Host time per batch",
    "feed": "Feeding a training loop",
    "imports": "Import and construction",
    "memory": "Memory over time",
    "growth": "How cost grows",
    "kernel": "Kernels",
}
TITLES_ON_GPU = {"modern": "The modern augmentations of a batch that is on the GPU"}
"""Where a suite measures something else there."""

SCANS = {"files": "Files (empty ones, in memory)", "classes": "Classes (of empty files, in memory)"}


def write_tables(results: list[dict[str, Any]], *, check: bool = False) -> list[str]:
    """Write the tables, the README's figures and the plots; return the files that changed (or would).

    Raises
    ------
    ValueError
        If one of the results is a rehearsal's.
    """
    if any(result.get("rehearsal") for result in results):
        raise ValueError("a rehearsal on a stand-in for a GPU is no result: its figures are not published")
    wanted = plots(results)
    own = HERE / "README.md"
    wanted[own] = replace_between(own.read_text(encoding="utf-8"), "tables", tables(results))
    front = ROOT / "README.md"
    wanted[front] = replace_between(front.read_text(encoding="utf-8"), "figures", figures(results))
    changed = []
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            changed.append(str(path.relative_to(ROOT)))
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    return changed


def replace_between(text: str, name: str, inside: str) -> str:
    """Return `text` with `inside` between ``<!-- name:start -->`` and ``<!-- name:end -->``.

    Raises
    ------
    ValueError
        If the markers are not there exactly once.
    """
    pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"expected exactly one pair of <!-- {name}:start --> and <!-- {name}:end -->")
    return pattern.sub(lambda match: f"{match[1]}{inside}{match[2]}", text)


def _rows(result: dict[str, Any]) -> list[Row]:
    return [row for suite in result["suites"].values() for row in suite["rows"]]


def _parts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what has an environment: checks and suites."""
    return [*result.get("checks", {}).values(), *result["suites"].values()]


def _others_busy(result: dict[str, Any]) -> float:
    return max(part["environment"].get("others_busy") or 0.0 for part in _parts(result))


def _title(result: dict[str, Any]) -> str:
    kind = "GPU round" if result["device"] == "cuda" else "CPU round"
    return f"{kind} (a trial with tiny sizes: its figures mean nothing)" if result["smoke"] else kind


def tables(results: list[dict[str, Any]]) -> str:
    """Return everything between the markers of ``benchmarks/README.md``."""
    parts = ["\n"]
    if not any(result["device"] == "cuda" for result in results):
        parts.append("**The GPU round has not run yet.** Everything below was measured on CPU cores.\n\n")
    for result in results:
        parts.append(f"## {_title(result)}\n\n{_machine(result)}\n\n")
        for name, check in result.get("checks", {}).items():
            verdict = {True: "passed", False: "**FAILED**", None: "left out"}[check["ok"]]
            parts.append(f"- {name}: {verdict} in {check['took_s']:.0f} s: {_said(check['said'])}\n")
        parts.append("\n" if result.get("checks") else "")
        parts.append("### Targets\n\n" + _targets(result) + "\n")
        ahead = peers_ahead(_rows(result))
        parts.append("### Where another library is faster\n\n")
        if ahead:
            parts.append(
                "Each against the fastest of gpuseq's own in that case, without a cache of decoded images.\n\n"
            )
            parts.append("| case | who | times gpuseq |\n|---|---|--:|\n")
            parts += [f"| {case} | {who} | {times:.2f} |\n" for case, who, times in ahead]
        else:
            parts.append("Nobody was, in this round.\n")
        for name, content in result["suites"].items():
            title = (TITLES_ON_GPU if result["device"] == "cuda" else {}).get(name, SUITE_TITLES[name])
            parts.append(f"\n### {title}\n\n" + _suite(name, content["rows"], result["device"]))
        parts.append("\n")
    return "".join(parts)


def _machine(result: dict[str, Any]) -> str:
    """Say on what and when; suites measured at different times each have their line."""
    lines_: list[str] = []
    parts = _parts(result)
    newest: dict[str, Any] = parts[-1]["environment"]
    gpu = newest["gpu"]
    lines_.append(f"- {newest['cpu']}, {newest['cores']} cores, {newest['memory_gib']} GiB; {newest['system']}")
    if gpu:
        lines_.append("- " + ", ".join(f"{key} {value}" for key, value in gpu.items()))
    lines_.append(
        "- Python "
        + ", ".join([newest["python"], *(f"{name} {version}" for name, version in newest["versions"].items())])
    )
    busy = _others_busy(result)
    if busy > BUSY:
        lines_.append(
            f"- **The machine was busy with other work**, up to {100 * busy:.0f} % of its cores when a suite began: "
            "the figures are lower and less certain than those of a machine at rest"
        )
    groups: dict[tuple[str, str], list[str]] = {}
    for name, content in result["suites"].items():
        where = content["environment"]
        commit = f"{where['commit']}{' with uncommitted changes' if where['uncommitted'] else ''}"
        others = where.get("others_busy")
        rest = f"load {where['load_average']:.1f}" if others is None else f"others {100 * others:.0f} %"
        groups.setdefault((commit, where["date"][:10]), []).append(
            f"{name} {where['date'][11:]} ({rest}, took {content['took_s']:.0f} s)"
        )
    for (commit, day), names in groups.items():
        lines_.append(f"- commit {commit}, {day}: " + ", ".join(names))
    return "\n".join(lines_)


def _said(said: Any) -> str:
    return said if isinstance(said, str) else ", ".join(f"{key} {value}" for key, value in said.items())


def _targets(result: dict[str, Any]) -> str:
    rows = ["| what | target | measured | |\n|---|---|--:|---|\n"]
    for item in outcomes(_rows(result), result["device"]):
        verdict = {True: "met", False: "**missed**", None: ""}[item.met]
        rows.append(f"| {item.what} | {item.aim} | {item.measured} | {verdict} |\n")
    return "".join(rows)


def _suite(name: str, rows: list[Row], device: str) -> str:
    if name == "growth":
        return _growth(rows, device)
    parts = []
    cases: dict[str, list[Row]] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    for case, together in cases.items():
        absent = {row["absent"] for row in together if "absent" in row}
        if len(absent) == 1 and all("absent" in row for row in together):
            parts.append(f"{case}: not measured: {absent.pop()}.\n\n")
            continue
        parts.append(f"**{case}**\n\n" + _case(together) + "\n")
    return "".join(parts).rstrip("\n") + "\n"


def _case(rows: list[Row]) -> str:
    """Return one table: fastest first where more is better, absent ones last."""
    unit = rows[0]["unit"]
    base = next((row["median"] for row in rows if row["contender"] == BASE and "median" in row), None)
    compared = base is not None and unit == "img/s"
    head = f"| | {unit} | quartiles |" + (" times Keras' generator |" if compared else "") + " |\n"
    rule = "|---|--:|--:|" + ("--:|" if compared else "") + "---|\n"
    there = [row for row in rows if "median" in row]
    if unit == "img/s":
        there.sort(key=lambda row: -row["median"])
    lines_ = [head, rule]
    for row in there:
        own = row["contender"].startswith("gpuseq")
        name = f"**{row['contender']}**" if own else row["contender"]
        cells = f"| {name} | {_figure(row['median'])} | {_figure(row['q1'])} to {_figure(row['q3'])} |"
        if compared and base:
            cells += f" {row['median'] / base:.2f} |"
        share = row.get("at", {}).get("share_of_copy")
        note = row.get("note", "") if share is None else f"{100 * share:.0f} % of the copy's bandwidth"
        lines_.append(f"{cells} {note} |\n")
    empty = " |" if compared else ""
    lines_ += [
        f"| {row['contender']} | {_missing(row)} | |{empty} {row['absent']} |\n" for row in rows if "absent" in row
    ]
    return "".join(lines_)


def _missing(row: Row) -> str:
    return "failed" if row["absent"].startswith("failed") else "absent"


def _growth(rows: list[Row], device: str) -> str:
    parts = []
    for of in dict.fromkeys(row["at"]["of"] for row in rows if "at" in row and row["at"]["of"] not in SCANS):
        series = _series(rows, of)
        names = list(series)
        xs = sorted({x for line in series.values() for x, _ in line})
        parts.append(f"**img/s against {of}**\n\n![img/s against {of}](plots/{_plot_name(of, device)})\n\n")
        parts.append(f"| {of} | " + " | ".join(names) + " |\n|--:|" + "--:|" * len(names) + "\n")
        for x in xs:
            cells = [next((_figure(y) for at, y in series[name] if at == x), "absent") for name in names]
            parts.append(f"| {x:g} | " + " | ".join(cells) + " |\n")
        parts.append("\n")
    for of, title in SCANS.items():
        scans = [row for row in rows if "median" in row and row.get("at", {}).get("of") == of]
        if not scans:
            continue
        measured = list(dict.fromkeys(row["contender"] for row in scans))
        parts.append(f"**{title}**\n\n![seconds against {of}](plots/{_plot_name(of, device)})\n\n")
        parts.append("| | " + " | ".join(measured) + " |\n|---|" + "--:|" * len(measured) + "\n")
        for case in dict.fromkeys(row["case"] for row in scans):
            by_name = {row["contender"]: row for row in scans if row["case"] == case}
            cells = [f"{_figure(by_name[name]['median'])} {by_name[name]['unit']}" for name in measured]
            parts.append(f"| {case} | " + " | ".join(cells) + " |\n")
        parts.append("\n")
    missing = [row for row in rows if "absent" in row]
    parts += [f"\n{row['case']}, {row['contender']}: absent: {row['absent']}\n" for row in missing]
    return "".join(parts).rstrip("\n") + "\n"


def _series(rows: list[Row], of: str) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if "median" in row and row.get("at", {}).get("of") == of:
            series.setdefault(row["contender"], []).append((row["at"]["x"], row["median"]))
    return series


def _plot_name(of: str, device: str) -> str:
    return f"{device}-{re.sub('[^a-z]+', '-', of)}.svg"


def plots(results: list[dict[str, Any]]) -> dict[Path, str]:
    """Return the text of each plot by its path."""
    drawn: dict[Path, str] = {}
    folder = HERE / "plots"
    for result in results:
        device = result["device"]
        rows = [row for row in _rows(result) if "median" in row]
        for of in dict.fromkeys(row.get("at", {}).get("of") for row in rows):
            if of is None:
                continue
            series = _series(rows, of)
            unit = "img/s"
            if of in SCANS:
                series = {name: line for name, line in series.items() if name == "scan and construct"}
                unit = "seconds"
            drawn[folder / _plot_name(of, device)] = lines(f"{unit} against {of}, {_title(result)}", of, unit, series)
        for suite, case in (("arrays", HEADLINE), ("folder", "augmented")):
            chosen = [row for row in rows if (row["suite"], row["case"]) == (suite, case)]
            if chosen:
                chosen.sort(key=lambda row: -row["median"])
                values = {row["contender"]: (row["median"], row["q1"], row["q3"]) for row in chosen}
                cores = result["suites"][suite]["environment"]["cores"]
                title = {"arrays": f"Arrays: {case}", "folder": "300 JPEG files, 500x375 to 224x224, augmented"}[suite]
                drawn[folder / f"{device}-{suite}.svg"] = bars(f"{title}; {cores} cores", "img/s", values)
    return drawn


def figures(results: list[dict[str, Any]]) -> str:
    """Return everything between the markers of the project's README."""
    parts = ["\n"]
    for result in results:
        environment = _parts(result)[-1]["environment"]
        where = environment["gpu"]["name"] if environment["gpu"] and result["device"] == "cuda" else environment["cpu"]
        parts.append(f"**{_title(result)}**: {where}, {environment['cores']} cores, {environment['date'][:10]}.\n\n")
        busy = _others_busy(result)
        if busy > BUSY:
            parts.append("The machine was busy with other work; the tables say how busy.\n\n")
        parts.append(f"{_targets(result)}\n")
        for suite, alt in (("arrays", HEADLINE), ("folder", "augmented")):
            if any(row["suite"] == suite and row["case"] == alt and "median" in row for row in _rows(result)):
                parts.append(f"![{suite}: {alt}](benchmarks/plots/{result['device']}-{suite}.svg)\n\n")
        ahead = [item for item in peers_ahead(_rows(result)) if item[0].startswith(("arrays", "folder"))]
        if ahead:
            num_cases = len({case for case, _, _ in ahead})
            parts.append(f"gpuseq is not the fastest in {num_cases} of the measured cases:\n\n")
            parts.append("| faster there | how many times as fast as gpuseq |\n|---|---|\n")
            for peer in dict.fromkeys(who for _, who, _ in ahead):
                cases = "; ".join(f"{times:.1f} ({case})" for case, who, times in ahead if who == peer)
                parts.append(f"| {peer} | {cases} |\n")
            parts.append("\n")
    if not any(result["device"] == "cuda" for result in results):
        parts.append("The GPU round has not run yet.\n\n")
    parts.append("All tables, methods and how to repeat it: [benchmarks/README.md](benchmarks/README.md).\n")
    return "".join(parts)


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
