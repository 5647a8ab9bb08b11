"""The autoscaler: what the gateways counted, and what was remembered, become the number of replicas of one Deployment.

Called by `control.deployments` in each of its passes. Calls the store for the counters, `processor_times` where their
number follows that, `planning.load` for the sums and `planning.autoscaling` for the decision.

What it remembers lies in DeploymentStatus.scaling. It looks every few seconds, and a commit for every look would wake
every watcher: so the newest look is kept here, and written when a decision changes, or now and then. Another server, or
this one after a restart, goes on from what is written; the gap in between then only delays that anything shrinks.
"""

import datetime
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from podium.control.gateways import KNOWN_FOR
from podium.control.processor_times import ProcessorTimes
from podium.planning.autoscaling import LoadSeen, ReplicasSeen, ScalingDecision, begin, decide
from podium.planning.deployments import World
from podium.planning.load import busy_shares, window_load
from podium.resources.deployment import DeploymentStatus
from podium.resources.kinds import Deployment, Revision
from podium.resources.revision import ReplicaState
from podium.resources.rollout import FINAL_PHASES
from podium.resources.scaling import Scaling, ScalingStatus
from podium.store import Lease, LoadRow, ProcessorTimeRow, Store
from podium.targets.port import ProcessorClock

SILENT_SECONDS = 15.0
"""A gateway that has not told its counters for so long is silent: they come every two seconds."""
_BUSY_WRITE, _QUIET_WRITE = datetime.timedelta(seconds=30), datetime.timedelta(minutes=5)
_LOOKS_PER_SECOND, _LONGEST = 100.0, 40.0
"""So many looks a second at most, so that looking never keeps rollouts waiting: with more than 200 Deployments under
load it looks at each less often than it would (those that sleep hardly count). Not so rarely that it would be a gap."""
_RUNNING = ("Starting", "Ready", "Warm", "Draining")


@dataclass
class _Kept:
    """`written`: what the database had when `newest` was made of it. `every`: seconds between looks, as the decision
    wants them."""

    written: ScalingStatus | None
    newest: ScalingStatus
    every: float


class Autoscaler:
    """Looks and decides for one Deployment after another. Thread-safe; one Deployment is one thread's at a time (its
    lease). `clocks`: by the name of the target, of those that tell processor times."""

    def __init__(self, store: Store, clocks: Mapping[str, ProcessorClock]) -> None:
        self._store = store
        self._processors = ProcessorTimes(store, clocks)
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def look(self, lease: Lease, now: datetime.datetime) -> LoadSeen | None:
        """What the gateways counted for the Deployment; None if it does not scale. Outside any transaction."""
        with self._store.read() as tx:
            found = tx.by_uid(lease.uid)
        if found is None or found.spec.scaling is None or found.metadata.deletion_requested_at is not None:
            self.forget(lease.uid)
            return None
        scaling: Scaling = found.spec.scaling
        at = now.timestamp()
        counted, reports = self._store.load(
            since=at - scaling.stable_window - 2 * SILENT_SECONDS,
            workspace=lease.workspace,
            deployment=lease.name,
        )
        rows = [row for row in counted if not _is_rehearsal(row, found.status)]
        fresh = {gateway: told for gateway, told in reports.items() if told >= at - SILENT_SECONDS}
        known = [row.name for row in self._store.gateways(since=now - KNOWN_FOR)]
        stable = window_load(rows, scaling.stable_window, fresh)
        panic = window_load(rows, scaling.panic_window, fresh)
        silent = _silent(known, fresh.keys())
        if scaling.target.cpu is not None:
            seen = self._processors.look(found, at, since=at - scaling.stable_window - 2 * SILENT_SECONDS)
            times = _without_rehearsal(seen.rows, counted, found.status)
            stable, panic = (
                replace(one, busy=busy_shares(times, one.seconds, at)) for one in (stable, panic)
            )
            silent = silent or _unknown(seen.unknown)
        return LoadSeen(stable=stable, panic=panic, silent=silent)

    def decide(
        self, deployment: Deployment, world: World, seen: LoadSeen, *, quietly: bool = False
    ) -> ScalingDecision | None:
        """What follows; None if the Deployment has meanwhile lost its scaling. The status in it is the one to be
        written, which is the one that is there where nothing is worth a commit. quietly: None where something is, and
        then nothing is remembered of this look."""
        scaling, written = deployment.spec.scaling, deployment.status.scaling
        if scaling is None:
            return None
        with self._lock:
            kept = self._kept.get(deployment.uid)
        newest = written
        if kept is not None and kept.written == written:
            newest = kept.newest
        before = newest or begin(scaling, deployment.spec.replicas, world.now)
        decision = decide(scaling, before, seen, _replicas(deployment, world), world.now)
        worth = written is None or _worth_writing(written, decision, world.now)
        answer = decision if worth else replace(decision, status=written or decision.status)
        if worth and quietly:
            return None
        with self._lock:
            every = max(0.1, (decision.look_at - world.now).total_seconds())
            self._kept[deployment.uid] = _Kept(answer.status, decision.status, every)
            crowd = sum(1 / kept.every for kept in self._kept.values()) / _LOOKS_PER_SECOND
        pause = min(_LONGEST, every * crowd) if crowd > 1 else 0.0
        earliest = world.now + datetime.timedelta(seconds=pause)
        return replace(answer, look_at=max(answer.look_at, earliest))

    def forget(self, uid: str) -> None:
        """It does not scale any more."""
        with self._lock:
            self._kept.pop(uid, None)


def _is_rehearsal(row: LoadRow, status: DeploymentStatus) -> bool:
    """Copies that a rollout's candidate gets are requests that the stable revision has too: both are given replicas for
    the same load, which is there once."""
    moving = status.rollout is not None and status.latest_revision != status.stable_revision
    return moving and row.role == "shadow" and row.revision == status.latest_revision


def _without_rehearsal(
    times: Sequence[ProcessorTimeRow], counted: Sequence[LoadRow], status: DeploymentStatus
) -> list[ProcessorTimeRow]:
    """The same of processor time, which has no role: of a candidate that gets nothing but copies, none counts."""
    answers = {row.revision for row in counted if not _is_rehearsal(row, status)}
    copied = {row.revision for row in counted if _is_rehearsal(row, status)} - answers
    return [row for row in times if row.revision not in copied]


def _unknown(replicas: Sequence[str]) -> str:
    if not replicas:
        return ""
    more = f" and {len(replicas) - 1} more" if len(replicas) > 1 else ""
    return f"the processor time of replica {replicas[0]}{more} is not known"


def _silent(known: Sequence[str], fresh: Container[str]) -> str:
    if not known:
        return "no gateway reports"
    silent = [name for name in known if name not in fresh]
    if not silent:
        return ""
    return f"gateway {', '.join(silent)} {'is' if len(silent) == 1 else 'are'} silent"


def _worth_writing(written: ScalingStatus, decision: ScalingDecision, now: datetime.datetime) -> bool:
    """Every decision at once; figures and memory now and then."""
    new = decision.status
    decided = ("desired", "limited", "panic_since", "capacity", "day")
    if decision.scaled or any(getattr(written, name) != getattr(new, name) for name in decided):
        return True
    busy = new.last_active_at is not None and now - new.last_active_at < _BUSY_WRITE
    return written.seen_at is None or now - written.seen_at >= (_BUSY_WRITE if busy else _QUIET_WRITE)


def _replicas(deployment: Deployment, world: World) -> ReplicasSeen:
    status, rollout = deployment.status, world.rollout
    under_way = rollout is not None and rollout.status.phase not in FINAL_PHASES
    stable = world.revisions.get(status.stable_revision or "")
    serving = stable
    if stable is None and rollout is not None:
        serving = world.revisions.get(rollout.spec.candidate_revision)
    return ReplicasSeen(
        ready=serving.status.ready_replicas if serving is not None else 0,
        running=sum(_running(revision) for revision in world.revisions.values()),
        revision=status.stable_revision,
        woken=stable is not None and stable.status.woken,
        moving=under_way or (status.stable_revision is None and world.version is not None),
    )


def _running(revision: Revision) -> int:
    states: list[ReplicaState] = revision.status.replicas
    return sum(state.phase in _RUNNING for state in states)
