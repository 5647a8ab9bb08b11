"""A profile as a picture: SVG by hand, so that no plotting library has to be installed for six small panels.

Called by `commands.profiling`. Columns: throughput, latency, memory; rows: rows per request, connections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from podium.resources.profile import Profile, ProfilePoint

_WIDTH, _HEIGHT = 1080, 640
_PANEL_WIDTH, _PANEL_HEIGHT = 260, 180
_LEFT, _TOP, _GAP_X, _GAP_Y = 80, 96, 90, 92
_INK, _PALE, _FIRST, _SECOND, _LIMIT = "#1b2733", "#e3e8ee", "#1f6fb2", "#d9822b", "#b3261e"
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
Figure = Callable[[ProfilePoint], float]


@dataclass(frozen=True)
class _Series:
    name: str
    colour: str
    values: Sequence[float]


def svg(profile: Profile, title: str) -> str:
    """The whole document."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT - 50, 34, title, size=18, weight="bold"),
        _text(_LEFT - 50, 56, _subtitle(profile), colour="#5a6875"),
    ]
    limit = profile.p99_ms
    for row, (points, axis, rows_count) in enumerate(
        ((profile.batches, "rows in each request, one connection", True),
         (profile.load, "connections, one row in each request", False))
    ):  # fmt: skip
        places = [point.rows if rows_count else point.connections for point in points]
        per_second = [point.per_second * (point.rows if rows_count else 1) for point in points]
        unit = "rows/s" if rows_count else "requests/s"
        latency = [
            _Series("p50", _FIRST, [point.p50_ms for point in points]),
            _Series("p99", _SECOND, [point.p99_ms for point in points]),
        ]
        memory = [_Series("held", _FIRST, [point.memory / 2**20 for point in points])]
        parts += _panel(0, row, f"Throughput ({unit})", axis, places, [_Series("", _FIRST, per_second)])
        parts += _panel(1, row, "Latency (ms)", axis, places, latency, limit)
        parts += _panel(2, row, "Memory (MiB)", axis, places, memory, profile.proposal.memory / 2**20)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _subtitle(profile: Profile) -> str:
    proposal = profile.proposal
    carried = (
        f"one replica carried {proposal.sustained:,.0f} requests/s" if proposal.sustained else "no rate held"
    )
    return (
        f"{profile.measured_at:%Y-%m-%d %H:%M} UTC, {profile.cpus} of {profile.cores} processors, "
        f"inputs {profile.inputs}. Proposed: batches of {proposal.max_batch}, "
        f"{proposal.memory / 2**20:,.0f} MiB; {carried}"
    )


def _panel(
    column: int, row: int, title: str, axis: str, places: Sequence[int], series: Sequence[_Series],
    limit: float | None = None,
) -> list[str]:  # fmt: skip
    x0 = _LEFT + column * (_PANEL_WIDTH + _GAP_X)
    y0 = _TOP + 24 + row * (_PANEL_HEIGHT + _GAP_Y)
    bottom = y0 + _PANEL_HEIGHT
    top, step = _scale(max([*(value for one in series for value in one.values), limit or 0.0, 1e-9]))
    count = max(1, len(places) - 1)
    across = [x0 + _PANEL_WIDTH * (index / count if len(places) > 1 else 0.5) for index in range(len(places))]

    def down(value: float) -> float:
        return bottom - _PANEL_HEIGHT * value / top

    parts = [_text(x0, y0 - 12, title, weight="bold")]
    for index in range(round(top / step) + 1):
        y = down(index * step)
        parts.append(f'<line x1="{x0}" y1="{y:.1f}" x2="{x0 + _PANEL_WIDTH}" y2="{y:.1f}" stroke="{_PALE}"/>')
        parts.append(_text(x0 - 8, y + 4, f"{index * step:,g}", anchor="end", colour="#5a6875"))
    for x, place in zip(across, places, strict=True):
        parts.append(_text(x, bottom + 18, str(place), anchor="middle", colour="#5a6875"))
    parts.append(_text(x0 + _PANEL_WIDTH / 2, bottom + 36, axis, anchor="middle", colour="#5a6875"))
    if limit is not None:
        y = down(limit)
        parts.append(
            f'<line x1="{x0}" y1="{y:.1f}" x2="{x0 + _PANEL_WIDTH}" y2="{y:.1f}" stroke="{_LIMIT}" '
            'stroke-dasharray="5 4"/>'
        )
        words = "wished p99" if "Latency" in title else "proposed limit"
        parts.append(_text(x0 + _PANEL_WIDTH, y + 14, words, anchor="end", colour=_LIMIT, size=11))
    for number, one in enumerate(series):
        line = " ".join(f"{x:.1f},{down(value):.1f}" for x, value in zip(across, one.values, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{one.colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{down(value):.1f}" r="3.2" fill="{one.colour}"/>'
            for x, value in zip(across, one.values, strict=True)
        ]
        if one.name:
            at = x0 + _PANEL_WIDTH - 34 * (len(series) - number) + 34
            parts.append(_text(at, y0 - 12, one.name, anchor="end", colour=one.colour, weight="bold"))
    return parts


def _scale(highest: float) -> tuple[float, float]:
    """The axis' end and the distance of its lines: three to five of them, at round numbers."""
    power = 1e-6
    while True:
        for factor in _STEPS:
            step = factor * power
            if highest <= 5 * step:
                lines = int(highest / step)
                return (lines + (highest > lines * step)) * step, step
        power *= 10


def _text(
    x: float, y: float, words: str, *, size: int = 12, weight: str = "normal", anchor: str = "start",
    colour: str = _INK,
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(words)}</text>'
    )
