"""Text on a terminal: tables, ages, sizes, and the removal of what a stranger's text could do to a terminal.

Plain aligned columns where nobody looks (no colour, nothing cut off), Rich's tables on a terminal.
"""

import datetime
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_STYLES = {
    "green": ("Ready", "Promoted", "Normal", "ok", "created", "running", "intact", "Warm"),
    "yellow": (
        "Pending", "Progressing", "Preparing", "Starting", "Promoting", "Observing", "Draining", "Deleting",
        "Paused", "Held", "Dormant", "Superseded", "Warning", "warn", "updated", "deleting",
    ),
    "red": ("Degraded", "Failed", "CrashLoop", "RollingBack", "RolledBack", "fail", "damaged", "not running"),
}  # fmt: skip
_STYLE_OF = {word: style for style, words in _STYLES.items() for word in words}


def clean(text: object) -> str:
    """On one line, without control characters: a log line or a message must not move the cursor or set colours."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(text).splitlines()) if text else str(text))


def clean_line(text: str) -> str:
    """As `clean`, for a line that is one already; tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def wants_colour(stream: TextIO) -> bool:
    """On a terminal, unless NO_COLOR is set (https://no-color.org) or the terminal is dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console(stream: TextIO | None = None) -> "Console":
    """Rich's view of stdout, or of another stream."""
    from rich.console import Console

    stream = stream or sys.stdout
    plain = not wants_colour(stream)
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=not stream.isatty(),
                   **({"color_system": None} if plain else {}))  # type: ignore[arg-type]  # fmt: skip


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns; empty columns are left out, so that a table is as wide as what it says."""
    cells = [["" if cell is None else clean(cell) for cell in row] for row in rows]
    used = [index for index in range(len(headers)) if not cells or any(row[index] for row in cells)]
    headers = [headers[index] for index in used]
    cells = [[row[index] for index in used] for row in cells]
    if wants_colour(sys.stdout):
        _print_rich(headers, cells)
    else:
        print("\n".join(plain_table(headers, cells)))


def plain_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns two blanks apart, without blanks at the end."""
    rows = [list(headers), *[list(row) for row in cells]]
    widths = [max(len(row[index]) for row in rows) for index in range(len(headers))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _print_rich(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        table.add_column(header, overflow="fold", no_wrap=index == 0)
    for row in cells:
        table.add_row(*[Text(cell, style=style_of(cell)) for cell in row])
    console().print(table)


def style_of(word: str) -> str:
    """The colour of a phase, empty for all other words."""
    return _STYLE_OF.get(word, "")


def coloured(word: str, style: str | None = None) -> str:
    """The word for stdout, with the colour of its phase (or the given one) where colours are wanted."""
    style = style if style is not None else style_of(word)
    code = {"green": 32, "yellow": 33, "red": 31, "bold": 1, "dim": 2}.get(style)
    return f"\x1b[{code}m{word}\x1b[0m" if code and wants_colour(sys.stdout) else word


def age(moment: object, now: datetime.datetime | None = None) -> str:
    """How long ago: `12s`, `5m`, `3h`, `4d`; empty for what is no time."""
    when = as_time(moment)
    if when is None:
        return ""
    seconds = int(((now or datetime.datetime.now(datetime.UTC)) - when).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def as_time(moment: object) -> datetime.datetime | None:
    """A time of the API (ISO 8601, or a datetime) in UTC; None for anything else."""
    if isinstance(moment, str):
        try:
            moment = datetime.datetime.fromisoformat(moment)
        except ValueError:
            return None
    if not isinstance(moment, datetime.datetime):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def clock(moment: object) -> str:
    """Local time to the second, with the date where it is not today."""
    when = as_time(moment)
    if when is None:
        return ""
    local = when.astimezone()
    today = datetime.datetime.now(datetime.UTC).astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%Y-%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """A length of time for people: `0.8 s`, `42 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes for people: `812 B`, `4.1 KiB`, `2.0 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def dig(document: Any, path: str) -> Any:
    """`status.phase` of a document; None where something on the way is missing."""
    for part in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return document
