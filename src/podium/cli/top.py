"""`podium top`: what the API says of the traffic, as rows; once as a plain table, or again and again on a terminal.

Pure but for `follow`. Called by `commands.top`.
"""

import datetime
import fnmatch
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podium.cli.display import age, as_time, clean, coloured, console, style_of
from podium.resources.errors import Unavailable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from podium.resources.load import DeploymentLoad, RevisionLoad, Traffic

SORTS = ("name", "rate", "errors", "refused", "p50", "p95", "p99", "concurrency", "replicas")
HEADERS = (
    "DEPLOYMENT", "PHASE", "WEIGHT", "REQ/S", "ERRORS", "REFUSED", "P50", "P95", "P99", "UNDER WAY", "REPLICAS", "SEEN",
)  # fmt: skip
STALE_SECONDS = 10.0
"""After the newest report of a gateway; they come every second or two."""
_SILENT_SECONDS = 5.0
_NUMBERS = range(2, 11)


@dataclass(frozen=True)
class Row:
    """One line; `indented` for a revision of the line above. `stale`: its counters are old."""

    cells: Sequence[str]
    indented: bool = False
    stale: bool = False


@dataclass(frozen=True)
class View:
    """What is shown at one moment."""

    title: str
    rows: Sequence[Row]
    gateways: str
    warnings: Sequence[str] = field(default_factory=list)


def view(
    traffic: "Traffic", gateways: Sequence[Mapping[str, Any]], *, sort: str = "name", match: str | None = None
) -> View:
    """Deployments with the revisions that share their traffic. `sort`: one of SORTS, the highest first but for `name`;
    `match`: a part of the name, or a pattern with *."""
    items = [item for item in traffic.items if _matches(item, match)]
    if sort != "name":
        items.sort(key=lambda item: _sort_key(item, sort), reverse=True)
    several = len({item.workspace for item in traffic.items}) > 1
    rows: list[Row] = []
    for item in items:
        name = f"{item.workspace}/{item.deployment}" if several else item.deployment
        rows.append(_row(name, item, item.phase, weight=""))
        shared = [
            revision for revision in item.revisions if revision.role != "retiring" or revision.wanted_replicas
        ]
        if len(shared) > 1:
            rows += [
                _row(
                    f"  {revision.revision}", revision, f"{revision.role}, v{revision.version}",
                    weight=f"{revision.weight:g} %", indented=True,
                )
                for revision in shared
            ]  # fmt: skip
    total = sum(item.requests_per_second for item in items)
    count = f"{len(items)} deployment{'s' * (len(items) != 1)}"
    title = f"{count}, {total:,.1f} requests/s over the last {traffic.window:g} s"
    return View(title, rows, *_gateway_words(gateways, traffic.at))


def _matches(item: "DeploymentLoad", match: str | None) -> bool:
    if not match:
        return True
    names = (item.deployment, f"{item.workspace}/{item.deployment}")
    pattern = match if "*" in match else f"*{match}*"
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _sort_key(item: "DeploymentLoad", sort: str) -> float:
    values = {
        "rate": item.requests_per_second, "errors": item.error_share, "refused": item.refused_share,
        "p50": item.p50, "p95": item.p95, "p99": item.p99, "concurrency": item.concurrency,
        "replicas": float(item.ready_replicas),
    }  # fmt: skip
    found = values[sort]
    return -1.0 if found is None else found


def _sleeps(item: "DeploymentLoad | RevisionLoad") -> bool:
    """A Deployment sleeps when the revision that serves does."""
    of_revision = getattr(item, "sleeping", None)
    if of_revision is not None:
        return bool(of_revision)
    return any(part.sleeping for part in getattr(item, "revisions", ()) if part.role == "stable")


def _row(
    name: str, item: "DeploymentLoad | RevisionLoad", phase: str, *, weight: str, indented: bool = False
) -> Row:
    replicas = "asleep" if _sleeps(item) else f"{item.ready_replicas}/{item.wanted_replicas}"
    seen = "never" if item.report_age is None else f"{item.report_age:.0f}s"
    cells = (
        clean(name), clean(phase), weight, f"{item.requests_per_second:,.1f}", _share(item.error_share),
        _share(item.refused_share), _seconds(item.p50), _seconds(item.p95), _seconds(item.p99),
        f"{item.concurrency:,.1f}", replicas, seen,
    )  # fmt: skip
    return Row(cells, indented, item.report_age is None or item.report_age > STALE_SECONDS)


def _share(value: float | None) -> str:
    if value is None:
        return "-"
    return "0 %" if value == 0 else f"{value * 100:.2g} %" if value < 0.1 else f"{value * 100:.0f} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.3g} s"


def _gateway_words(gateways: Sequence[Mapping[str, Any]], now: datetime.datetime) -> tuple[str, list[str]]:
    """All of them on a line, and a warning for each that is silent: its part is missing in the figures. `now` is the
    server's, as the gateways' times are."""
    parts, warnings = [], []
    for one in gateways:
        seen = as_time(one.get("seenAt"))
        name = clean(one.get("name", ""))
        if seen is not None and (now - seen).total_seconds() <= _SILENT_SECONDS:
            parts.append(name)
        else:
            since = age(seen, now)
            parts.append(f"{name} (silent for {since})")
            warnings.append(
                f"gateway {name} has been silent for {since}: what it passes on is not in these figures"
            )
    return f"gateways: {', '.join(parts) or 'none reports'}", warnings


def lines(shown: View) -> list[str]:
    """As plain text, in columns."""
    from podium.cli.display import plain_table

    table = plain_table(HEADERS, [row.cells for row in shown.rows]) if shown.rows else ["no deployments"]
    marks = ["", *("  (stale)" if row.stale else "" for row in shown.rows)]
    body = [f"{line}{mark}" for line, mark in zip(table, marks if shown.rows else [""], strict=True)]
    return [shown.title, shown.gateways, *(coloured(word, "yellow") for word in shown.warnings), "", *body]


def rendered(shown: View, problem: str = "") -> "RenderableType":
    """For a terminal: coloured, and as wide and as high as it is now."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), expand=False)
    for index, header in enumerate(HEADERS):
        table.add_column(
            header, justify="right" if index in _NUMBERS else "left", no_wrap=True, overflow="ellipsis",
            min_width=12 if index == 0 else None,
        )  # fmt: skip
    for row in shown.rows:
        style = "dim" if row.stale or row.indented else ""
        cells = [Text(cell, style=style) for cell in row.cells]
        cells[1].stylize(style_of(row.cells[1]))
        if row.cells[4] not in ("-", "0 %"):
            cells[4].stylize("red")
        if row.stale:
            cells[-1].stylize("yellow")
        table.add_row(*cells)
    head = [Text(shown.title, style="bold"), Text(shown.gateways, style="dim")]
    words = [Text(word, style="yellow") for word in (*shown.warnings, problem) if word]
    return Group(*head, *words, Text(""), table if shown.rows else Text("no deployments"))


def follow(look: Callable[[], View], every: float) -> None:
    """Shows what `look` finds, again and again, until Ctrl-C. A server that is away for a while is waited for; what was
    seen last stays, with a word about it."""
    from rich.live import Live

    shown, problem = look(), ""
    with Live(rendered(shown), console=console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(rendered(shown, problem), refresh=True)
            time.sleep(every)
            try:
                shown, problem = look(), ""
            except Unavailable as error:
                problem = f"the server does not answer, these figures are old: {clean(error.message)}"
