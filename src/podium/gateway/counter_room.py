"""Whether Envoy's sets of counters are nearly full, in words for the report: what comes when one is full is not counted
at all, and nothing else would say so.

Called by `reporting` with the load. Calls `admin`: a question that lists every counter of the sets, so it is rare.
"""

import re
import time
from collections import Counter
from collections.abc import Mapping

from podium.gateway.admin import Admin
from podium.gateway.render import limits
from podium.gateway.render.counting import BY_CALLER, BY_ROUTE, MOST

NEARLY = 0.8
"""The share of a set from which on it is told."""
_EVERY_SECONDS = 60.0
_SETS: Mapping[str, tuple[int, str]] = {
    BY_CALLER: (MOST[BY_CALLER], "callers are counted as `other`"),
    BY_ROUTE: (MOST[BY_ROUTE], "what comes to names not seen before is not counted"),
    limits.TURNED_AWAY: (limits.MOST_COUNTERS, "what the limits of further Routes refuse is not counted"),
}
"""Set -> the counters that it can hold, and what it is like when it has them."""


class CounterRoom:
    """Of one Envoy after another. `most`: other sizes than the listener's."""

    def __init__(self, admin: Admin, most: Mapping[str, int] | None = None) -> None:
        self._admin = admin
        self._sets = {name: ((most or {}).get(name, size), words) for name, (size, words) in _SETS.items()}
        self._due = 0.0
        self._problem = ""

    async def problem(self) -> str:
        """What is nearly full or full, or nothing; as it was up to a minute ago. Raises Unavailable."""
        if time.monotonic() < self._due:
            return self._problem
        names = "|".join(re.escape(name) for name in self._sets)
        found = re.compile(rf"({names})\.requests\.")
        held: Counter[str] = Counter()
        for stat in await self._admin.statistics(f"^({names})\\.requests\\.", detailed=True):
            at = found.match(str(stat.get("name", "")))
            if at is not None:
                held[at[1]] += 1
        full = [
            f"{held[name]:,} of {most:,} counters of {name} are in use: when all are, {words}"
            for name, (most, words) in self._sets.items()
            if held[name] >= NEARLY * most
        ]
        next_step = "; they begin anew when Envoy is started again" if full else ""
        self._problem = "; ".join(full) + next_step
        self._due = time.monotonic() + _EVERY_SECONDS
        return self._problem
