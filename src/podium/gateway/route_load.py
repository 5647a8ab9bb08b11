"""What came to every Route, for the report: Envoy's counters by Route and class of status, and of those that limits
turned away.

Called by `load_report`, which asks Envoy. What counts is in `render.counting` and `render.limits`.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from podium.gateway.render.counting import BY_ROUTE, REFUSED
from podium.gateway.render.limits import TURNED_AWAY

_SETS = "|".join(re.escape(name) for name in (BY_ROUTE, TURNED_AWAY))
PATTERN = rf"^({_SETS})\.requests\.route\.route:.*$"
"""Names of the statistics that `routes_of` reads."""
_NAME = r"[a-z][-a-z0-9]*"
_STAT = re.compile(
    rf"(?P<set>{_SETS})\.requests\.route\.route:(?P<workspace>{_NAME})/(?P<route>{_NAME})(#[^.]*)?"
    r"(\.code\.(?P<code>\d*))?"
)
"""What follows `#` says which rule it was; a request without an answer has an empty code."""
Key = tuple[str, str]
"""Workspace and Route."""


@dataclass(frozen=True)
class RouteCounted:
    """Requests of one Route since Envoy's start; `errors`: 5xx, `refused`: 429, `limited`: those of its limits."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    limited: int = 0


def routes_of(statistics: Iterable[Mapping[str, Any]]) -> dict[Key, RouteCounted]:
    """Of every Route that ever had a request; other statistics are passed over."""
    counted: dict[Key, RouteCounted] = {}
    for stat in statistics:
        found = _STAT.fullmatch(stat.get("name", ""))
        if found is None:
            continue
        key, value = (found["workspace"], found["route"]), int(stat["value"])
        before = counted.get(key, RouteCounted())
        if found["set"] == TURNED_AWAY:
            counted[key] = replace(before, limited=before.limited + value)
            continue
        # Counters from before the classes have the whole status.
        code = found["code"] or ""
        counted[key] = replace(
            before,
            requests=before.requests + value,
            errors=before.errors + value * code.startswith("5"),
            refused=before.refused + value * (code == REFUSED),
        )
    return counted


def route_documents(
    before: Mapping[Key, RouteCounted], told: Collection[Key], now: Mapping[Key, RouteCounted], age: float
) -> tuple[list[dict[str, Any]], frozenset[Key]]:
    """The Routes whose counters changed, and which these are. `before`: what the server knows, `age` seconds old;
    `told`: those of them that stood in the report; the others come with their counters from before, too."""
    changed = sorted(key for key in now if now[key] != before.get(key))
    documents = []
    for key in changed:
        if key not in told:
            documents.append(_document(key, before.get(key, RouteCounted()), age))
        documents.append(_document(key, now[key], 0.0))
    return documents, frozenset(changed)


def _document(key: Key, counted: RouteCounted, age: float) -> dict[str, Any]:
    return {"workspace": key[0], "route": key[1], "age": round(age, 3), **vars(counted)}
