"""Windows added up into what the tests need: one pair of arms per share, and the incidents.

Called by `verdict`. Calls `evidence` and `windows` (for the length of an incident).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from podium.analysis.evidence import ArmCounts, Window, add_counts
from podium.analysis.windows import INCIDENT_SECONDS

# An incident in which this share of the candidate's requests, and at least so many, failed for want of a
# connection means that nothing answers any more.
_DEAD_SHARE = 0.5
_DEAD_REQUESTS = 5


@dataclass(frozen=True)
class Arms:
    """Both arms' requests under one share, incidents left out.

    rho: the candidate's share. stable, candidate: all of them. exact_stable, exact_candidate: only those that
    were certainly drawn under this share. since: when the first one was counted (seconds since the epoch).
    """

    rho: float
    stable: ArmCounts
    candidate: ArmCounts
    exact_stable: ArmCounts
    exact_candidate: ArmCounts
    since: float


@dataclass(frozen=True)
class Incident:
    """Failed connections that belong together, on whatever gateways they were seen.

    rho: the largest share in force meanwhile.
    """

    rho: float
    stable: ArmCounts
    candidate: ArmCounts

    @property
    def killed_candidate(self) -> bool:
        """Whether the candidate's requests mostly failed for want of a connection: it is dead, not just hurt."""
        failed = self.candidate.bad - self.candidate.saved
        refused = min(failed, self.candidate.connect_failures)
        return refused >= _DEAD_REQUESTS and refused >= _DEAD_SHARE * self.candidate.total


@dataclass(frozen=True)
class Tally:
    """All windows, added up: `arms` in the order in which their shares first came, and the incidents."""

    arms: tuple[Arms, ...]
    incidents: tuple[Incident, ...]

    def at(self, weight: float) -> Arms | None:
        """The arms under the candidate weight `weight` (percent); None when nothing was counted there."""
        return next((arms for arms in self.arms if round(arms.rho * 10_000) == round(weight * 100)), None)

    @property
    def compared(self) -> tuple[Arms, ...]:
        """The arms under shares at which there is something to compare."""
        return tuple(arms for arms in self.arms if 0 < arms.rho < 1)


def _incidents(windows: Iterable[Window]) -> tuple[Incident, ...]:
    """One incident per replica's death: what several gateways saw within its length is one."""
    groups: list[tuple[float, list[Window]]] = []
    for window in sorted(windows, key=lambda item: item.incident or 0.0):
        started = window.incident or 0.0
        if groups and started < groups[-1][0] + INCIDENT_SECONDS:
            groups[-1][1].append(window)
        else:
            groups.append((started, [window]))
    return tuple(
        Incident(
            rho=max(window.rho for window in group),
            stable=add_counts(window.stable for window in group),
            candidate=add_counts(window.candidate for window in group),
        )
        for _, group in groups
    )


def add_up(windows: Iterable[Window]) -> Tally:
    """Add windows up. Any order, merged or not (`compact`): the sums are the same."""
    by_share: dict[float, list[Window]] = {}
    hurt: list[Window] = []
    for window in windows:
        if window.incident is None:
            by_share.setdefault(window.rho, []).append(window)
        else:
            hurt.append(window)
    arms = []
    for rho, group in by_share.items():
        exact = [window for window in group if window.exact]
        arms.append(
            Arms(
                rho=rho,
                stable=add_counts(window.stable for window in group),
                candidate=add_counts(window.candidate for window in group),
                exact_stable=add_counts(window.stable for window in exact),
                exact_candidate=add_counts(window.candidate for window in exact),
                since=min(window.start for window in group),
            )
        )
    arms.sort(key=lambda item: (item.since, item.rho))
    return Tally(tuple(arms), _incidents(hurt))
