"""The rows of `podium top`: what stands in which column for a Deployment, a revision and a Route. Pure.

Called by `top`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podium.cli.display import clean, size

if TYPE_CHECKING:
    from podium.resources.load import DeploymentLoad, QuotaLoad, RevisionLoad, RouteLoad, RuleLoad

STALE_SECONDS = 10.0
"""After the newest report of a gateway; they come every second or two."""


_SHORTEST = 12
"""Characters that words are cut to at most."""


@dataclass(frozen=True)
class Row:
    """One line; `indented` for a part of the line above. `stale`: its counters are old."""

    cells: Sequence[str]
    indented: bool = False
    stale: bool = False


@dataclass(frozen=True)
class Column:
    """`spared`: how soon it goes where the terminal is too narrow, the highest first; 0: never."""

    header: str
    spared: int = 0
    number: bool = True


@dataclass(frozen=True)
class Table:
    """Columns, and a cell for each of them in every row."""

    columns: Sequence[Column]
    rows: Sequence[Row]

    def within(self, width: int) -> "Table":
        """Without the columns that can be spared, one after the other, until it is no wider than this many characters;
        where that is not enough, with the longest words cut. Figures are never cut."""
        kept = list(range(len(self.columns)))
        while self._width(kept) > width:
            spared = max(kept, key=lambda place: self.columns[place].spared)
            if self.columns[spared].spared == 0:
                break
            kept.remove(spared)
        room = {place: self.widest(place) for place in kept}
        words = [place for place in kept if not self.columns[place].number]
        while sum(room.values()) + 2 * (len(kept) - 1) > width:
            longest = max(words, key=lambda place: room[place])
            if room[longest] <= _SHORTEST:
                break
            room[longest] -= 1
        rows = [
            Row([_cut(row.cells[place], room[place]) for place in kept], row.indented, row.stale)
            for row in self.rows
        ]
        return Table([self.columns[place] for place in kept], rows)

    def _width(self, kept: Sequence[int]) -> int:
        return sum(self.widest(place) for place in kept) + 2 * (len(kept) - 1)

    def widest(self, place: int) -> int:
        """Characters of a column's widest cell."""
        return max([len(self.columns[place].header), *(len(row.cells[place]) for row in self.rows)])


def _replicas(item: "DeploymentLoad | RevisionLoad") -> str:
    """A Deployment sleeps when the revision that serves does."""
    of_revision = getattr(item, "sleeping", None)
    parts = getattr(item, "revisions", ())
    asleep = (
        any(one.sleeping for one in parts if one.role == "stable") if of_revision is None else of_revision
    )
    return "asleep" if asleep else f"{item.ready_replicas}/{item.wanted_replicas}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


_Figure = Callable[[Any], str]
_FIGURES: Sequence[tuple[Column, _Figure]] = (
    (Column("REQ/S"), lambda item: f"{item.requests_per_second:,.1f}"),
    (Column("ERRORS"), lambda item: share(item.error_share)),
    (Column("REFUSED", 6), lambda item: share(item.refused_share)),
    (Column("P50", 8), lambda item: seconds(item.p50)),
    (Column("P95"), lambda item: seconds(item.p95)),
    (Column("P99", 7), lambda item: seconds(item.p99)),
    (Column("UNDER WAY", 5), lambda item: f"{item.concurrency:,.1f}"),
    (Column("REPLICAS"), _replicas),
    (Column("SEEN", 9), lambda item: "never" if item.report_age is None else f"{item.report_age:.0f}s"),
)
_COPIES = Column("COPIES/S", 3), lambda item: _of_deployment(item, "copies_per_second", "{:,.1f}")
_CPU = Column("CPU", 4), lambda item: _of_deployment(item, "cpu", "{:.0f} %")


def deployment_table(items: "Sequence[DeploymentLoad]", *, with_workspace: bool) -> Table:
    """A line per Deployment, and one for each revision where several share its traffic. Copies and processor time only
    where somebody has them."""
    figures = list(_FIGURES)
    if any(item.cpu is not None for item in items):
        figures.append(_CPU)
    if any(item.copies_per_second > 0 for item in items):
        figures.append(_COPIES)
    rows: list[Row] = []
    for item in items:
        name = f"{item.workspace}/{item.deployment}" if with_workspace else item.deployment
        rows.append(_row((name, item.phase, ""), item, figures))
        shared = [one for one in item.revisions if one.role != "retiring" or one.wanted_replicas]
        if len(shared) > 1:
            for one in shared:
                head = (f"  {one.revision}", f"{one.role}, v{one.version}", f"{one.weight:g} %")
                rows.append(_row(head, one, figures, indented=True))
    head_columns = (Column("DEPLOYMENT", number=False), Column("PHASE", 1, number=False), Column("WEIGHT", 2))
    return Table([*head_columns, *(column for column, _ in figures)], rows)


def route_table(
    routes: "Sequence[RouteLoad]", *, with_workspace: bool, with_rules: Collection[tuple[str, str]]
) -> Table:
    """A line per Route; `with_rules`: those, as workspace and name, that have one for each of several rules beneath."""
    rows: list[Row] = []
    for route in routes:
        name = f"{route.workspace}/{route.route}" if with_workspace else route.route
        several = len(route.rules) > 1
        goes = f"{len(route.rules)} rules" if several else "".join(_goes_to(rule) for rule in route.rules)
        limited = "0" if route.limited_per_second == 0 else f"{route.limited_per_second:,.3g}/s"
        cells = (
            clean(name), clean(route.phase), goes, f"{route.requests_per_second:,.1f}", share(route.error_share),
            share(route.refused_share), limited,
        )  # fmt: skip
        rows.append(Row(cells, stale=_is_stale(route)))
        if several and (route.workspace, route.route) in with_rules:
            rows += [
                Row((clean(f"  {rule.rule}"), "", _goes_to(rule), "", "", "", ""), indented=True)
                for rule in route.rules
            ]
    columns = (
        Column("ROUTE", number=False), Column("PHASE", 2, number=False), Column("GOES TO", number=False),
        Column("REQ/S"), Column("ERRORS"), Column("REFUSED", 1), Column("LIMITED"),
    )  # fmt: skip
    return Table(columns, rows)


def quota_words(quota: "QuotaLoad") -> tuple[str, bool]:
    """`quota of team: 12 of 20 replicas, 24Gi of 64Gi memory, 40 of 1000 rules`; and whether it is over."""
    parts, over = [], False
    if quota.replica_limit is not None:
        parts.append(f"{quota.replicas} of {quota.replica_limit} replicas")
        over = quota.replicas > quota.replica_limit
    if quota.memory_limit is not None:
        parts.append(f"{size(quota.memory)} of {size(quota.memory_limit)} memory")
        over = over or quota.memory > quota.memory_limit
    if quota.rule_limit is not None:
        parts.append(f"{quota.rules} of {quota.rule_limit} rules")
        over = over or quota.rules > quota.rule_limit
    return f"quota of {clean(quota.workspace)}: {', '.join(parts)}{' (over)' if over else ''}", over


def share(value: float | None) -> str:
    """Percent, with two digits where it is little."""
    if value is None:
        return "-"
    return "0 %" if value == 0 else f"{value * 100:.2g} %" if value < 0.1 else f"{value * 100:.0f} %"


def seconds(value: float | None) -> str:
    """A latency."""
    if value is None:
        return "-"
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.3g} s"


def _row(
    head: tuple[str, str, str],
    item: "DeploymentLoad | RevisionLoad",
    figures: Sequence[tuple[Column, _Figure]],
    *,
    indented: bool = False,
) -> Row:
    name, phase, weight = head
    cells = (clean(name), clean(phase), weight, *(figure(item) for _, figure in figures))
    return Row(cells, indented, _is_stale(item))


def _is_stale(item: "DeploymentLoad | RevisionLoad | RouteLoad") -> bool:
    return item.report_age is None or item.report_age > STALE_SECONDS


def _of_deployment(item: "DeploymentLoad | RevisionLoad", name: str, form: str) -> str:
    """What is known of Deployments only."""
    value = getattr(item, name, None)
    return "" if value is None else form.format(value)


def _goes_to(rule: "RuleLoad") -> str:
    alone = len(rule.variants) == 1
    names = [one.deployment if alone else f"{one.deployment} {one.weight:g} %" for one in rule.variants]
    copies = [f"{one.weight:g} % copied to {one.deployment}" for one in rule.shadows]
    return clean("; ".join([", ".join(names), *copies]))
