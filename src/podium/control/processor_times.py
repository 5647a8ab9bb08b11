"""How much processor time the ready replicas of a Deployment have used, read from their target and kept in the store.

Called by `scaling` at each look at a Deployment whose number of replicas follows it. A look reads a little of /proc for
each replica and never waits for one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podium.resources.kinds import Deployment, Revision
from podium.store import ProcessorTimeRow, Store
from podium.targets.port import ProcessorClock


@dataclass(frozen=True)
class ProcessorsSeen:
    """Cumulative readings, the newest ones of this moment. `unknown`: replicas that are ready, but could not be
    read."""

    rows: Sequence[ProcessorTimeRow]
    unknown: Sequence[str]


class ProcessorTimes:
    """`clocks`: by the name of the target. Thread-safe."""

    def __init__(self, store: Store, clocks: Mapping[str, ProcessorClock]) -> None:
        self._store, self._clocks = store, clocks

    def look(self, deployment: Deployment, at: float, *, since: float) -> ProcessorsSeen:
        """Reads them now, keeps that, and gives all that is known from `since` on (both in seconds since 1970).

        Only of replicas that are ready: what they use before that is loading and warm-up, and no answer to requests.
        """
        workspace, name = deployment.metadata.workspace, deployment.metadata.name
        with self._store.read() as tx:
            running = tx.list(
                "Revision", workspace=workspace, owner_uid=deployment.uid, fields="status.phase!=Idle"
            ).items
        fresh: list[ProcessorTimeRow] = []
        unknown: list[str] = []
        for revision in running:
            ready = [state.name for state in revision.status.replicas if state.phase == "Ready"]
            times, processors = self._times(revision) if ready else ({}, 1)
            for replica in ready:
                if replica in times:
                    row = (at, workspace, name, revision.metadata.name, replica, times[replica], processors)
                    fresh.append(ProcessorTimeRow(*row))
                else:
                    unknown.append(replica)
        if fresh:
            self._store.record_processor_times(at, fresh)
        rows = self._store.processor_times(since=since, workspace=workspace, deployment=name)
        return ProcessorsSeen(rows, unknown)

    def _times(self, revision: Revision) -> tuple[Mapping[str, float], float]:
        """Of its replicas; and how many processors each of them is meant to have."""
        clock = self._clocks.get(revision.spec.target)
        if clock is None:
            return {}, 1
        return clock.processor_times(revision.uid), min(revision.spec.resources.cpus, clock.processors)
