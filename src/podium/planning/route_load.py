"""What came to a Route in the last seconds, as `podium top` shows it. Pure.

Called by `api.routes.traffic` with rows of the store. Counters are cumulative since a start of Envoy, as in `load`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Protocol

from podium.planning.load import share_within
from podium.resources.kinds import Route
from podium.resources.load import RouteLoad, RuleLoad, VariantWeight
from podium.resources.route import Rule

_COUNTED = ("requests", "errors", "refused", "limited")


class RouteReading(Protocol):
    """Counters of one Route as one gateway read them; `RouteCount` says what they are."""

    @property
    def gateway(self) -> str: ...
    @property
    def epoch(self) -> str: ...
    @property
    def at(self) -> float:
        """Seconds since 1970, by the server's clock."""

    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def limited(self) -> int: ...


def route_traffic(
    route: Route,
    readings: Iterable[RouteReading],
    reports: Mapping[str, float],
    *,
    seconds: float,
    age: float | None,
) -> RouteLoad:
    """readings: all rows of the Route from before the window on; reports and age as for `deployment_traffic`."""
    counted = _counted(readings, reports, seconds)
    requests = counted["requests"]
    return RouteLoad(
        workspace=route.metadata.workspace,
        route=route.metadata.name,
        phase=route.status.phase,
        requests_per_second=requests / seconds,
        error_share=min(1.0, counted["errors"] / requests) if requests > 0 else None,
        refused_share=min(1.0, counted["refused"] / requests) if requests > 0 else None,
        limited_per_second=counted["limited"] / seconds,
        rules=[_rule(rule, number) for number, rule in enumerate(route.spec.rules)],
        report_age=age,
    )


def _counted(
    readings: Iterable[RouteReading], reports: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """Sums over the window, which ends for each gateway with its last report. Between two readings everything happened
    evenly."""
    series: dict[tuple[str, str], list[RouteReading]] = defaultdict(list)
    for reading in readings:
        if reading.gateway in reports:
            series[reading.gateway, reading.epoch].append(reading)
    sums = dict.fromkeys(_COUNTED, 0.0)
    for (gateway, _), some in series.items():
        end = reports[gateway]
        some.sort(key=lambda reading: reading.at)
        for before, after in pairwise(some):
            share = share_within(before, after, end - seconds, end)
            for name in sums:
                sums[name] += share * max(0, getattr(after, name) - getattr(before, name))
    return sums


def _rule(rule: Rule, number: int) -> RuleLoad:
    return RuleLoad(
        rule=rule.name or str(number),
        variants=[
            VariantWeight(deployment=variant.deployment, weight=share / 100)
            for variant, share in zip(rule.to, rule.shares, strict=True)
        ],
        shadows=[VariantWeight(deployment=one.deployment, weight=one.percent) for one in rule.shadow],
    )
