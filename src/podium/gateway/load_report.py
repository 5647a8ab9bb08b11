"""What every cluster has had to do, for the report: Envoy's counters, of those that changed since the last one; and
what came to every Route.

Called by `reporting` with each heartbeat's report. Calls `admin`: one small question about all clusters and Routes
(40 ms with a thousand clusters), and a second one with the histograms of those that had requests; and `route_load`. The
server makes rates of it.

Which counter means what: docs/canary-statistics.md and `podium.analysis.counters`. Retries are within a request's time
and count once.
"""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from podium.gateway.admin import Admin
from podium.gateway.render.buckets import EDGES_MS
from podium.gateway.route_load import PATTERN, Key, RouteCounted, route_documents, routes_of

_EVERY_SECONDS = 2.0
_SHARE = 20
"""A question that takes long is asked more rarely: at most a twentieth of the time goes into it."""
_NAMED_IN_QUERY = 100
_CLUSTER = r"[a-z][-a-z0-9]*_[a-z][-a-z0-9]*-[0-9]+_[a-z]+"
_PARTS = re.compile(rf"cluster\.(?P<cluster>{_CLUSTER})\.(?P<stat>(?:retry\.)?upstream_[a-z0-9_]+)")
_ACTIVE, _PENDING, _ANSWERED = "upstream_rq_active", "upstream_rq_pending_active", "upstream_rq_completed"
_HANDED_ON = "retry.upstream_rq_2xx"
"""Answers of a small model in a cascade, in whose place a larger one answered: work done, and in no final count."""
_ERRORS, _REFUSED, _TIME = "upstream_rq_5xx", "upstream_rq_429", "upstream_rq_time"
_FIRST = (_ACTIVE, _PENDING, _ANSWERED, _HANDED_ON)
_SECOND = (*_FIRST, _ERRORS, _REFUSED, _TIME)


@dataclass(frozen=True)
class _Counted:
    """One cluster's counters. `bins`: (lower bound in ms, width, count), as Envoy keeps them."""

    answered: int = 0
    active: int = 0
    errors: int = 0
    refused: int = 0
    bins: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True)
class _Scrape:
    """All clusters at one moment of one start of Envoy. `told`: those that stand in the document made of it; `lively`:
    those of them that had changed."""

    epoch: str
    at: float
    counted: Mapping[str, _Counted]
    told: frozenset[str] = frozenset()
    lively: frozenset[str] = frozenset()
    routes: Mapping[Key, RouteCounted] = field(default_factory=dict)
    routes_told: frozenset[Key] = frozenset()


class LoadCounters:
    """The counters of one Envoy after another. `read`, send, and say what was `delivered`."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._base: _Scrape | None = None
        """What the server knows."""
        self._read: tuple[dict[str, Any], _Scrape] | None = None
        self._due = 0.0

    async def read(self, epoch: str) -> dict[str, Any] | None:
        """A LoadReport's document, or None as long as the one before is young. Raises Unavailable."""
        began = time.monotonic()
        if began < self._due:
            return None
        base = self._base if self._base is not None and self._base.epoch == epoch else None
        known = base.counted if base is not None else {}
        present, changed, routes = await self._changed(
            known, base.lively if base is not None else frozenset()
        )
        fresh = await self._details(changed)
        counted = {name: fresh.get(name) or known.get(name, _Counted()) for name in present}
        at = time.monotonic()
        if base is None:
            # The first look at this Envoy: what it counted before happened at an unknown time.
            scrape = _Scrape(epoch, at, counted, routes=routes)
            document: dict[str, Any] = {"epoch": epoch, "clusters": [], "routes": []}
        else:
            lively = frozenset(name for name in changed if counted[name] != known.get(name, _Counted()))
            ways, told = route_documents(base.routes, base.routes_told, routes, at - base.at)
            scrape = _Scrape(epoch, at, counted, frozenset(changed), lively, routes, told)
            document = {"epoch": epoch, "clusters": _clusters(base, scrape), "routes": ways}
        self._read = document, scrape
        # Half a heartbeat early is in time.
        self._due = began + max(_EVERY_SECONDS - 0.5, _SHARE * (at - began))
        return document

    def delivered(self, document: dict[str, Any] | None) -> None:
        """The server has it: the next one begins there. What was not delivered is in the next one."""
        if document is not None and self._read is not None and self._read[0] is document:
            self._base = self._read[1]

    async def _changed(
        self, known: Mapping[str, _Counted], lively: frozenset[str]
    ) -> tuple[set[str], set[str], dict[Key, RouteCounted]]:
        """All clusters that ever had a request; those of them with requests under way, with other counters than
        the server knows, or that changed just before (Envoy merges its histograms up to a second later); and the
        Routes."""
        # One question for both: Envoy goes through all of its statistics for each.
        stats = await self._admin.statistics(f"{_pattern(_CLUSTER, _FIRST)}|{PATTERN}", detailed=True)
        found = _values(stats)
        changed = set()
        for name, values in found.items():
            active = values.get(_ACTIVE, 0) + values.get(_PENDING, 0)
            before = known.get(name)
            if before is None or active or (_answered(values), active) != (before.answered, before.active):
                changed.add(name)
        return set(found), changed | (lively & set(found)), routes_of(stats)

    async def _details(self, names: Iterable[str]) -> dict[str, _Counted]:
        wanted = set(names)
        if not wanted:
            return {}
        few = len(wanted) <= _NAMED_IN_QUERY
        which = "|".join(re.escape(name) for name in sorted(wanted)) if few else _CLUSTER
        stats = await self._admin.statistics(_pattern(which, _SECOND), detailed=True)
        values, bins = _values(stats), _bins(stats)
        return {
            name: _Counted(
                answered=_answered(some),
                active=some.get(_ACTIVE, 0) + some.get(_PENDING, 0),
                errors=some.get(_ERRORS, 0),
                refused=some.get(_REFUSED, 0),
                bins=bins.get(name, ()),
            )
            for name, some in values.items()
            if name in wanted
        }


def _answered(values: Mapping[str, int]) -> int:
    return values.get(_ANSWERED, 0) + values.get(_HANDED_ON, 0)


def _pattern(clusters: str, stats: Iterable[str]) -> str:
    names = "|".join(re.escape(name) for name in stats)
    return rf"^cluster\.({clusters})\.({names})$"


def _values(stats: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for stat in stats:
        parts = _PARTS.fullmatch(stat.get("name", ""))
        if parts is not None:
            found.setdefault(parts["cluster"], {})[parts["stat"]] = int(stat["value"])
    return found


def _bins(stats: Iterable[Mapping[str, Any]]) -> dict[str, tuple[tuple[float, float, int], ...]]:
    found = {}
    for stat in stats:
        for histogram in stat.get("histograms", {}).get("details", ()):
            parts = _PARTS.fullmatch(histogram["name"])
            if parts is not None and parts["stat"] == _TIME:
                found[parts["cluster"]] = tuple(
                    (float(one["lower_bound"]), float(one["width"]), int(one["count"]))
                    for one in histogram["totals"]
                )
    return found


def _clusters(base: _Scrape, scrape: _Scrape) -> list[dict[str, Any]]:
    """Each with its counters now; before them, if it was quiet, those that it had then: the server keeps none of a
    cluster that was quiet for long."""
    clusters = []
    for name in sorted(scrape.told):
        if name not in base.told:
            clusters.append(_document(name, base.counted.get(name, _Counted()), scrape.at - base.at))
        clusters.append(_document(name, scrape.counted[name], 0.0))
    return clusters


def _document(name: str, counted: _Counted, age: float) -> dict[str, Any]:
    workspace, revision, role = name.split("_")
    return {
        "workspace": workspace,
        "deployment": revision.rpartition("-")[0],
        "revision": revision,
        "role": role,
        "age": round(age, 3),
        "requests": counted.answered,
        "errors": counted.errors,
        "refused": counted.refused,
        "active": counted.active,
        "timeMs": round(sum(_milliseconds(lower, width) * count for lower, width, count in counted.bins), 3),
        "buckets": _buckets(counted.bins),
    }


def _milliseconds(lower: float, width: float) -> float:
    """The middle of a bin. Envoy cuts times down to whole milliseconds, so that 0 stands for half of one."""
    return lower + max(width, 1.0) / 2


def _buckets(bins: Iterable[tuple[float, float, int]]) -> list[list[float]]:
    """Cumulative over the edges that the rest of Podium knows, where a bucket with requests lies beside the edge. What
    is beyond the last edge is at the last edge."""
    counts = [0] * len(EDGES_MS)
    for lower, width, count in bins:
        middle = _milliseconds(lower, width)
        place = next((n for n, edge in enumerate(EDGES_MS) if middle <= edge), len(EDGES_MS) - 1)
        counts[place] += count
    total, cumulative = 0, []
    for (edge, count), (_, following) in pairwise([*zip(EDGES_MS, counts, strict=True), (0.0, 0)]):
        total += count
        if count or following:
            cumulative.append([float(edge), total])
    return cumulative
