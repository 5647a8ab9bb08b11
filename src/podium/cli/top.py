"""`podium top`: what the API says of the traffic, as rows; once as a plain table, or again and again on a terminal.

Pure but for `follow`. Called by `commands.top`; calls `top_rows` for what stands in the tables.
"""

import datetime
import fnmatch
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podium.cli.display import age, as_time, clean, coloured, console, plain_table, style_of
from podium.cli.top_rows import Row, Table, deployment_table, quota_words, route_table
from podium.resources.errors import Unavailable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from podium.resources.load import DeploymentLoad, RouteLoad, Traffic

SORTS = ("name", "rate", "errors", "refused", "p50", "p95", "p99", "concurrency", "replicas")
_SILENT_SECONDS = 5.0
_Name = tuple[str, str]
"""Workspace and name."""


@dataclass(frozen=True)
class View:
    """What is shown at one moment."""

    title: str
    deployments: Table
    routes: Table
    gateways: str
    warnings: Sequence[str] = field(default_factory=list)
    quotas: Sequence[tuple[str, bool]] = field(default_factory=list)
    """In words, and whether it is over."""

    @property
    def rows(self) -> Sequence[Row]:
        """Those of the Deployments."""
        return self.deployments.rows


def view(
    traffic: "Traffic", gateways: Sequence[Mapping[str, Any]], *, sort: str = "name", match: str | None = None
) -> View:
    """Deployments with the revisions that share their traffic, and Routes. `sort`: one of SORTS, the highest first but
    for `name`; `match`: a name, or else a part of one, or a pattern with *; Routes are shown with their Deployments,
    and with their rules where their own names are asked for."""
    own = [(item.workspace, item.deployment) for item in traffic.items]
    wanted = _wanted([*own, *((route.workspace, route.route) for route in traffic.routes)], match)
    items = [item for item in traffic.items if wanted((item.workspace, item.deployment))]
    routes = [route for route in traffic.routes if any(wanted(name) for name in _names(route))]
    opened = {name for one in routes if match and wanted(name := (one.workspace, one.route))}
    if sort != "name":
        items.sort(key=lambda item: _sort_key(item, sort), reverse=True)
        routes.sort(key=lambda route: _route_key(route, sort), reverse=True)
    places = {item.workspace for item in traffic.items} | {route.workspace for route in traffic.routes}
    several = len(places) > 1
    total = sum(item.requests_per_second for item in items)
    count = f"{len(items)} deployment{'s' * (len(items) != 1)}"
    title = f"{count}, {total:,.1f} requests/s over the last {traffic.window:g} s"
    return View(
        title,
        deployment_table(items, with_workspace=several),
        route_table(routes, with_workspace=several, with_rules=opened),
        *_gateway_words(gateways, traffic.at),
        [quota_words(quota) for quota in traffic.quotas],
    )


def _names(route: "RouteLoad") -> list[tuple[str, str]]:
    """Its own, and those of the Deployments that it leads to."""
    variants = [one.deployment for rule in route.rules for one in (*rule.variants, *rule.shadows)]
    return [(route.workspace, name) for name in (route.route, *variants)]


def _wanted(names: Sequence[_Name], match: str | None) -> Callable[[_Name], bool]:
    """Whether a name is asked for, of these that there are: r1 is r1, and r10 only where there is no r1."""

    def fits(name: _Name, pattern: str) -> bool:
        return any(fnmatch.fnmatchcase(one, pattern) for one in (name[1], "/".join(name)))

    if not match:
        return lambda _: True
    whole = "*" in match or any(match in (name[1], "/".join(name)) for name in names)
    return lambda name: fits(name, match if whole else f"*{match}*")


def _sort_key(item: "DeploymentLoad", sort: str) -> float:
    values = {
        "rate": item.requests_per_second, "errors": item.error_share, "refused": item.refused_share,
        "p50": item.p50, "p95": item.p95, "p99": item.p99, "concurrency": item.concurrency,
        "replicas": float(item.ready_replicas),
    }  # fmt: skip
    found = values[sort]
    return -1.0 if found is None else found


def _route_key(route: "RouteLoad", sort: str) -> float:
    """A Route has no latency and no replicas of its own: by those, they stay in the order of their names."""
    values = {
        "rate": route.requests_per_second, "errors": route.error_share, "refused": route.refused_share,
    }  # fmt: skip
    found = values.get(sort, 0.0)
    return -1.0 if found is None else found


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
    return [
        shown.title, shown.gateways, *(coloured(words, "yellow") if over else words for words, over in shown.quotas),
        *(coloured(word, "yellow") for word in shown.warnings), "",
        *(_plain(shown.deployments) if shown.rows else ["no deployments"]),
        *(["", *_plain(shown.routes)] if shown.routes.rows else ()),
    ]  # fmt: skip


def _plain(table: Table) -> list[str]:
    text = plain_table([column.header for column in table.columns], [row.cells for row in table.rows])
    marks = ["", *("  (stale)" if row.stale else "" for row in table.rows)]
    return [f"{line}{mark}" for line, mark in zip(text, marks, strict=True)]


def rendered(shown: View, problem: str = "") -> "RenderableType":
    """For a terminal: coloured, and as wide and as high as it is now."""
    from rich.console import Group
    from rich.text import Text

    quotas = [Text(words, style="yellow" if over else "dim") for words, over in shown.quotas]
    head = [Text(shown.title, style="bold"), Text(shown.gateways, style="dim"), *quotas]
    words = [Text(word, style="yellow") for word in (*shown.warnings, problem) if word]
    tables: list[RenderableType] = [_Fitting(shown.deployments) if shown.rows else Text("no deployments")]
    if shown.routes.rows:
        tables += [Text(""), _Fitting(shown.routes)]
    return Group(*head, *words, Text(""), *tables)


class _Fitting:
    """A table with as many of its columns as there is room for."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = self._table.within(options.max_width)
        table = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), expand=False)
        for index, column in enumerate(shown.columns):
            table.add_column(
                column.header, justify="right" if column.number else "left", no_wrap=True, overflow="ellipsis",
                min_width=shown.widest(index),
            )  # fmt: skip
        for row in shown.rows:
            style = "dim" if row.stale or row.indented else ""
            cells = [Text(cell, style=style) for cell in row.cells]
            for column, cell in zip(shown.columns, cells, strict=True):
                if column.header == "PHASE":
                    cell.stylize(style_of(cell.plain))
                elif column.header == "ERRORS" and cell.plain not in ("", "-", "0 %"):
                    cell.stylize("red")
                elif column.header == "SEEN" and row.stale:
                    cell.stylize("yellow")
            table.add_row(*cells)
        yield table


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
