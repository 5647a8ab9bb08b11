"""What a Revision does next with its replicas: a pure function of the wish and what the target shows.

Called by `control.revisions`, which prepares files and environment, carries the outcome out and writes the status.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from podium.resources.deployment import RuntimeSettings
from podium.resources.kinds import Revision
from podium.resources.revision import ReplicaState, RevisionPhase, RevisionStatus

CRASH_LOOP_FAILURES = 3
"""Replicas in a row that ended before they had been ready for `_STABLE_SECONDS`: from here on it is a crash loop."""
DAMAGED_FILES = 3
"""Exit code of Podium's own model server when the bytes on disk are not those of the manifest."""
DAMAGED_BEFORE_COMMAND = 113
"""The same of what checks them before another server starts."""
_FAILED_LOAD = 4
_STABLE_SECONDS = 60.0
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class Seen:
    """One replica as its target shows it now."""

    name: str
    phase: Literal["Starting", "Ready", "Draining", "Exited"]
    address: str
    pid: int | None
    started_at: datetime.datetime | None
    exit_code: int | None
    log_tail: Sequence[str]
    sandbox: str


@dataclass(frozen=True)
class RevisionWorld:
    """`observed_version`: the lowest resourceVersion that every known gateway has loaded; None without gateways."""

    now: datetime.datetime
    replicas: Sequence[Seen]
    observed_version: int | None


@dataclass(frozen=True)
class RevisionOutcome:
    """What to do (idempotent, in this order: stop, forget, start), and the status that says so."""

    status: RevisionStatus
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    drained: bool = False
    """No replica is left; with a deletion asked for, the finalizer may go."""
    next_at: datetime.datetime | None = None
    events: tuple[tuple[Literal["Normal", "Warning"], str, str], ...] = field(default=())


def retry_seconds(failures: int) -> float:
    """Wait before the next replica after `failures` short lives in a row: 1 s, doubling, at most a minute."""
    return min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** max(0, min(failures - 1, 20)))


def decide(revision: Revision, world: RevisionWorld) -> RevisionOutcome:
    """The next idempotent step. New `draining_version`s are 0 until whoever commits fills in the commit's version."""
    status = revision.status
    wanted = 0 if revision.metadata.deletion_requested_at is not None else status.wanted_replicas
    known = {state.name: state for state in status.replicas}
    ended = [seen for seen in world.replicas if seen.phase == "Exited"]
    running = [seen for seen in world.replicas if seen.phase != "Exited"]
    status, events = _count_ends(revision, status, ended, known, world.now)
    draining = [seen for seen in running if _drains(seen, known)]
    serving = [seen for seen in running if not _drains(seen, known)]
    # Those that are ready and oldest stay; whoever is still starting goes first.
    serving.sort(key=lambda seen: (seen.phase != "Ready", seen.started_at or world.now))
    surplus = serving[wanted:]
    states = [_state(seen, known, None) for seen in serving[:wanted]]
    states += [_state(seen, known, 0) for seen in surplus]
    states += [
        _state(seen, known, known[seen.name].draining_version if seen.name in known else 0)
        for seen in draining
    ]
    stop = tuple(state.name for state in states if _may_stop(state, world))
    missing = wanted - min(wanted, len(serving))
    held_back = missing > 0 and status.retry_at is not None and status.retry_at > world.now
    # A replica may run that no status tells of: its starter died before it could write.
    starts = max([status.starts, *(_number(seen.name) for seen in world.replicas)])
    names = [] if held_back else [f"{revision.metadata.name}-{starts + n + 1}" for n in range(missing)]
    ready = sum(1 for seen in serving[:wanted] if seen.phase == "Ready")
    phase, message = _phase(status, wanted, ready)
    status = status.model_copy(
        update={
            "replicas": states,
            "ready_replicas": ready,
            "phase": phase,
            "message": message,
            "starts": starts + len(names),
            "retry_at": status.retry_at if wanted else None,
            "restarts": status.restarts if wanted else 0,
            "failures": 0 if _all_stable(serving, wanted, world.now) else status.failures,
        }
    )
    return RevisionOutcome(
        status=status,
        start=tuple(names),
        stop=stop,
        forget=tuple(seen.name for seen in ended),
        drained=not running,
        next_at=_next_at(status, world, waiting=bool(surplus or draining), starting=bool(names)),
        events=tuple(events),
    )


def _number(name: str) -> int:
    last = name.rpartition("-")[2]
    return int(last) if last.isdigit() else 0


def _drains(seen: Seen, known: dict[str, ReplicaState]) -> bool:
    return seen.phase == "Draining" or (seen.name in known and known[seen.name].phase == "Draining")


def _state(seen: Seen, known: dict[str, ReplicaState], draining_version: int | None) -> ReplicaState:
    return ReplicaState(
        name=seen.name,
        phase="Draining" if draining_version is not None else seen.phase,
        address=seen.address,
        pid=seen.pid,
        started_at=seen.started_at,
        exit_code=seen.exit_code,
        draining_version=draining_version,
        sandbox=seen.sandbox,
    )


def _may_stop(state: ReplicaState, world: RevisionWorld) -> bool:
    """Only when every gateway has loaded routes without it: a request under way ends in peace."""
    if state.phase != "Draining" or not state.draining_version:
        return False
    return world.observed_version is None or world.observed_version >= state.draining_version


def _count_ends(
    revision: Revision,
    status: RevisionStatus,
    ended: Sequence[Seen],
    known: dict[str, ReplicaState],
    now: datetime.datetime,
) -> tuple[RevisionStatus, list[tuple[Literal["Normal", "Warning"], str, str]]]:
    events: list[tuple[Literal["Normal", "Warning"], str, str]] = []
    for seen in ended:
        state = known.get(seen.name)
        if state is None or state.draining_version is not None:
            # Never known, or taken out of the routes and asked to end: no end of its own.
            continue
        lived = (now - seen.started_at).total_seconds() if seen.started_at else 0.0
        short = state.phase != "Ready" or lived < _STABLE_SECONDS
        failures = status.failures + 1 if short else 0
        words = how_it_ended(seen, revision.spec.runtime)
        # A replica that had been ready is replaced at once; one that never was waits.
        wait = 0.0 if state.phase == "Ready" and failures < CRASH_LOOP_FAILURES else retry_seconds(failures)
        status = status.model_copy(
            update={
                "restarts": status.restarts + 1,
                "failures": failures,
                "last_exit": words,
                "retry_at": now + datetime.timedelta(seconds=wait),
            }
        )
        events.append(("Warning", "ReplicaEnded", f"{seen.name}: {words}"))
        if failures == CRASH_LOOP_FAILURES:
            events.append(
                (
                    "Warning",
                    "CrashLoop",
                    f"{revision.metadata.name}: {failures} replicas in a row ended: {words}",
                )
            )
    return status, events


def found_damage(exit_code: int | None, runtime: RuntimeSettings) -> bool:
    """The replica ended because the bytes on disk are not those of the manifest. A server of the user's choice may end
    with any code; the program that starts it has one of its own for this."""
    return exit_code == (DAMAGED_FILES if runtime.command is None else DAMAGED_BEFORE_COMMAND)


def how_it_ended(seen: Seen, runtime: RuntimeSettings) -> str:
    """One readable text: exit code or signal, then the last lines of the log."""
    code = seen.exit_code
    if code is None:
        how = "ended, its exit code is not known"
    elif code < 0:
        how = f"killed by signal {-code}"
    else:
        meaning = ""
        if found_damage(code, runtime):
            meaning = " (stored bytes differ from the manifest)"
        elif code == _FAILED_LOAD and runtime.command is None:
            meaning = " (the model failed to load or warm up)"
        how = f"exited with code {code}{meaning}"
    tail = "\n".join(seen.log_tail)[-2000:]
    return f"{how}; last lines:\n{tail}" if tail else how


def _phase(status: RevisionStatus, wanted: int, ready: int) -> tuple[RevisionPhase, str]:
    if wanted == 0:
        return "Idle", ""
    if ready >= wanted:
        return "Ready", ""
    if status.failures >= CRASH_LOOP_FAILURES:
        return "CrashLoop", f"{status.failures} replicas in a row ended: {status.last_exit}"
    if ready:
        return "Degraded", f"{ready} of {wanted} replicas are ready"
    return "Starting", status.last_exit and f"restarting after: {status.last_exit}"


def _all_stable(serving: Sequence[Seen], wanted: int, now: datetime.datetime) -> bool:
    stable = [
        seen for seen in serving
        if seen.phase == "Ready" and seen.started_at and (now - seen.started_at).total_seconds() >= _STABLE_SECONDS
    ]  # fmt: skip
    return len(stable) >= wanted


def _next_at(
    status: RevisionStatus, world: RevisionWorld, *, waiting: bool, starting: bool
) -> datetime.datetime | None:
    """Exits wake the revision by themselves; these timers are for what nothing announces."""
    if starting or any(state.phase == "Starting" for state in status.replicas):
        return world.now + datetime.timedelta(seconds=0.1)
    if waiting:
        return world.now + datetime.timedelta(seconds=0.2)
    if status.phase == "Idle" and not status.replicas:
        return None
    if status.retry_at is not None and status.retry_at > world.now and status.phase != "Ready":
        return status.retry_at
    return world.now + datetime.timedelta(seconds=5)
