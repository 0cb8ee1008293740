"""Line plots as SVG, in plain text: a difference between two rounds shows in a diff."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["bars", "lines"]

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 44, 52
COLOURS = ("#0b63ce", "#d1495b", "#2b8a3e", "#b7791f", "#6b4fbb", "#0e7c86")
STYLE = "text{font:13px system-ui,sans-serif;fill:#24292f}.faint{stroke:#d0d7de}.title{font-weight:600;font-size:15px}"


def lines(title: str, x_name: str, y_name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a plot with both axes logarithmic, one line per series, as the text of an SVG file.

    Parameters
    ----------
    title, x_name, y_name : str
        What stands at the top and on the axes.
    series : mapping
        Name -> points ``(x, y)``, all positive.
    """
    points = [point for line in series.values() for point in line]
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])

    def x_at(x: float) -> float:
        return LEFT + (math.log(x) - math.log(x_low)) / (math.log(x_high) - math.log(x_low)) * (WIDTH - LEFT - RIGHT)

    def y_at(y: float) -> float:
        return (
            HEIGHT
            - BOTTOM
            - (math.log(y) - math.log(y_low)) / (math.log(y_high) - math.log(y_low)) * (HEIGHT - TOP - BOTTOM)
        )

    parts = _frame(title, HEIGHT)
    for y in _ticks(y_low, y_high):
        parts.append(f'<path class="faint" d="M{LEFT} {y_at(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y_at(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for x in sorted({x for x, _ in points}):
        parts.append(f'<path class="faint" d="M{x_at(x):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x_at(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_short(x)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_name)}</text>')
    across = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(18 {across}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = "M" + "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in sorted(line))
        parts.append(f'<path fill="none" stroke="{colour}" stroke-width="2" d="{path}"/>')
        parts += [f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3.5" fill="{colour}"/>' for x, y in line]
        left = LEFT + 8 + number * (WIDTH - LEFT - RIGHT) / max(2, len(series))
        parts.append(f'<path stroke="{colour}" stroke-width="3" d="M{left:.0f} {TOP - 8}h18"/>')
        parts.append(f'<text x="{left + 24:.0f}" y="{TOP - 4}">{escape(name)}</text>')
    return _closed(parts)


def bars(title: str, unit: str, values: Mapping[str, tuple[float, float, float]]) -> str:
    """Return horizontal bars with their quartiles, from zero, as the text of an SVG file.

    Parameters
    ----------
    title, unit : str
        What stands at the top and after each value.
    values : mapping
        Name -> (median, first quartile, third quartile).
    """
    step, name_width = 30, 290
    height = TOP + step * len(values) + 12
    most = max(high for _, _, high in values.values())
    scale = (WIDTH - name_width - 110) / most
    parts = _frame(title, height)
    for number, (name, (median, low, high)) in enumerate(values.items()):
        y = TOP + step * number
        colour = COLOURS[0] if name.startswith("gpuseq") else "#8c959f"
        parts.append(f'<text x="{name_width - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{name_width}" y="{y}" width="{median * scale:.1f}" height="20" fill="{colour}"/>')
        whisker = f"M{name_width + low * scale:.1f} {y + 10}H{name_width + high * scale:.1f}"
        parts.append(f'<path stroke="#24292f" stroke-width="1.5" d="{whisker}"/>')
        parts.append(
            f'<text x="{name_width + high * scale + 8:.1f}" y="{y + 15}">{_short(median)} {escape(unit)}</text>'
        )
    return _closed(parts)


def _frame(title: str, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="16" y="20">{escape(title)}</text>',
    ]


def _closed(parts: list[str]) -> str:
    return "\n".join([*parts, "</svg>", ""])


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low / 2, high * 2)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
    return (low, high) if low < high else (low, 10 * high)


def _ticks(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [value for value in found if low <= value <= high * 1.0001]


def _short(value: float) -> str:
    for limit, letter in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e6 if letter == 'M' else 1e3):.3g}{letter}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
