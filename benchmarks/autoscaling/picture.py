"""A run as a picture: the load, and the replicas that it got. SVG by hand, as `podium profile` draws its own.

Called by `__main__`.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from benchmarks.autoscaling.shapes import Rates
from benchmarks.autoscaling.simulation import LOOK, Outcome

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP = 1080, 190, 70, 70, 70
_PLOT = _WIDTH - _LEFT - _RIGHT
_HEIGHT = 120
_INK, _PALE, _LOAD, _WANTED, _ORACLE = "#1b2733", "#e3e8ee", "#9fb3c8", "#1f6fb2", "#d9822b"
Panel = tuple[str, str, Rates, Outcome, Outcome]
"""Title, figures in words, rates, what the autoscaler did, what the oracle did."""


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The whole document, one panel below the other."""
    height = _TOP + _ROW * len(panels) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="28" font-size="17" font-weight="bold" fill="{_INK}">{escape(title)}</text>',
    ]
    for place, (colour, name) in enumerate(
        (
            (_LOAD, "requests/s (left axis)"),
            (_WANTED, "replicas wanted (right axis)"),
            (_ORACLE, "the oracle's"),
        )
    ):
        x = _LEFT + 230 * place
        parts.append(f'<rect x="{x}" y="40" width="14" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="49" fill="{_INK}">{name}</text>')
    for row, panel in enumerate(panels):
        parts += _panel(panel, _TOP + row * _ROW)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: float) -> list[str]:
    name, words, rates, scaled, best = panel
    base = top + 30 + _HEIGHT
    most_rate, most = float(rates.max()), max(*scaled.wanted, *best.wanted)
    seconds = len(rates)
    load = _points(rates.reshape(-1, 10).mean(axis=1) if seconds % 10 == 0 else rates, most_rate, base)
    area = f"{_LEFT},{base} {load} {_LEFT + _PLOT},{base}"
    return [
        f'<text x="{_LEFT}" y="{top + 18}" font-weight="bold" fill="{_INK}">{escape(name)}</text>',
        f'<text x="{_LEFT + 90}" y="{top + 18}" fill="#5a6875">{escape(words)}</text>',
        f'<line x1="{_LEFT}" y1="{base}" x2="{_LEFT + _PLOT}" y2="{base}" stroke="{_PALE}"/>',
        f'<polygon points="{area}" fill="{_LOAD}" fill-opacity="0.45"/>',
        _line(best.wanted, most, base, _ORACLE, 1.0),
        _line(scaled.wanted, most, base, _WANTED, 1.8),
        f'<text x="{_LEFT - 6}" y="{base - _HEIGHT + 8}" text-anchor="end" fill="{_INK}">{most_rate:.0f}/s</text>',
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end" fill="{_INK}">0</text>',
        f'<text x="{_LEFT + _PLOT + 6}" y="{base - _HEIGHT + 8}" fill="{_INK}">{most}</text>',
        f'<text x="{_LEFT + _PLOT}" y="{base + 14}" text-anchor="end" fill="#5a6875">{seconds // 60} min</text>',
    ]


def _points(values: np.ndarray, most: float, base: float) -> str:
    step = _PLOT / max(1, len(values) - 1)
    return " ".join(
        f"{_LEFT + place * step:.1f},{base - value / most * _HEIGHT:.1f}"
        for place, value in enumerate(values)
    )


def _line(counts: Sequence[int], most: int, base: float, colour: str, width: float) -> str:
    """Steps; only where the number changes, so that the file stays small."""
    step = _PLOT / (len(counts) * LOOK)
    points, before = [], counts[0]
    for place, count in enumerate(counts):
        if count != before or place in (0, len(counts) - 1):
            x = _LEFT + place * LOOK * step
            points += [
                f"{x:.1f},{base - before / most * _HEIGHT:.1f}",
                f"{x:.1f},{base - count / most * _HEIGHT:.1f}",
            ]
        before = count
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
