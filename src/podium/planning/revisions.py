"""What a Revision does next with its replicas: a pure function of the wish and what the target shows.

Called by `control.revisions`, which prepares files and environment, carries the outcome out and writes the status.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from podium.resources.deployment import RuntimeSettings
from podium.resources.kinds import Revision
from podium.resources.revision import ReplicaPhase, ReplicaState, RevisionPhase, RevisionStatus

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
_LOOK, _LOOK_ASLEEP = datetime.timedelta(seconds=5), datetime.timedelta(seconds=30)
_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Seen:
    """One replica as its target shows it now."""

    name: str
    phase: Literal["Dormant", "Starting", "Ready", "Draining", "Exited"]
    address: str
    pid: int | None
    started_at: datetime.datetime | None
    exit_code: int | None
    log_tail: Sequence[str]
    sandbox: str
    woken: bool = False
    """It was dormant, and a request started it."""


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
    dormant: bool = False
    """What is in `start` is to sleep until a request comes."""
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
    """The next idempotent step. New `draining_version`s and `listed_version`s are 0 until whoever commits fills in the
    commit's version."""
    status, wish = revision.status, _wish(revision)
    known = {state.name: state for state in status.replicas}
    ended = [seen for seen in world.replicas if seen.phase == "Exited"]
    running = [seen for seen in world.replicas if seen.phase != "Exited"]
    status, events = _count_ends(revision, status, ended, known, world.now)
    draining = [seen for seen in running if _drains(seen, known)]
    serving = [seen for seen in running if not _drains(seen, known)]
    places = _asleep(serving, known, world) if wish.sleeping else _awake(serving, known, wish)
    states = _states(places, known, wish)
    states += [
        _state(seen, "Draining", draining=known[seen.name].draining_version if seen.name in known else 0)
        for seen in draining
    ]
    stop = tuple(seen.name for seen in (*places.surplus, *draining) if _may_stop(seen, known, world))
    held_back = status.retry_at is not None and status.retry_at > world.now
    # A replica may run that no status tells of: its starter died before it could write.
    starts = max([status.starts, *(_number(seen.name) for seen in world.replicas)])
    missing = 0 if held_back else places.missing
    names = [f"{revision.metadata.name}-{starts + n + 1}" for n in range(missing)]
    ready = sum(1 for seen in places.routed if seen.phase == "Ready")
    phase, message = _phase(status, wish, places, ready)
    status = status.model_copy(
        update={
            "replicas": states,
            "ready_replicas": ready,
            "woken": wish.sleeping and (status.woken or places.woken or _woke_and_ended(ended, known)),
            "phase": phase,
            "message": message,
            "starts": starts + len(names),
            "retry_at": status.retry_at if wish.total else None,
            "restarts": status.restarts if wish.total else 0,
            "failures": 0 if _all_stable(serving, wish.total, world.now) else status.failures,
        }
    )
    return RevisionOutcome(
        status=status,
        start=tuple(names),
        dormant=wish.sleeping,
        stop=stop,
        forget=tuple(seen.name for seen in ended),
        drained=not running,
        next_at=_next_at(status, world, waiting=places.changing or bool(draining), starting=bool(names)),
        events=tuple(events),
    )


# --- who is what ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wish:
    """`routed` replicas that take requests, `warm` ones beside them and those of a `baseline`; or one that sleeps
    until a request comes."""

    routed: int
    warm: int
    sleeping: bool
    baseline: int = 0

    @property
    def total(self) -> int:
        """Processes."""
        return 1 if self.sleeping else self.routed + self.warm + self.baseline


@dataclass(frozen=True)
class _Places:
    """What each replica that does not drain is from now on."""

    routed: Sequence[Seen] = ()
    """They take requests as soon as they are ready."""
    warm: Sequence[Seen] = ()
    baseline: Sequence[Seen] = ()
    """They take requests, but are no part of the others."""
    dormant: Sequence[Seen] = ()
    surplus: Sequence[Seen] = ()
    """These drain."""
    missing: int = 0
    woken: bool = False
    """A request started one that slept."""
    changing: bool = False
    """Something is under way that nothing announces."""


def _wish(revision: Revision) -> _Wish:
    status = revision.status
    if revision.metadata.deletion_requested_at is not None:
        return _Wish(0, 0, sleeping=False)
    wanted = status.wanted_replicas
    return _Wish(
        wanted,
        status.warm_replicas if wanted else 0,
        sleeping=status.sleeping and not wanted,
        baseline=status.baseline_replicas if wanted else 0,
    )


def _awake(serving: Sequence[Seen], known: dict[str, ReplicaState], wish: _Wish) -> _Places:
    """Those that are ready stay, first those in the routes, then the oldest; whoever is still starting goes first, but
    last of them who was woken by a request that waits. A dormant one stays until another is ready: until then, requests
    wait with it."""
    runs = [seen for seen in serving if seen.phase != "Dormant"]
    baseline = _baseline(runs, known, wish)
    runs = [seen for seen in runs if seen not in baseline]

    def last_to_go(seen: Seen) -> tuple[int, datetime.datetime]:
        is_routed = seen.name in known and known[seen.name].phase == "Ready"
        rank = (0 if is_routed else 1) if seen.phase == "Ready" else (2 if seen.woken else 3)
        return rank, seen.started_at or _NEVER

    runs.sort(key=last_to_go)
    routed, warm = runs[: wish.routed], runs[wish.routed : wish.routed + wish.warm]
    surplus = runs[wish.routed + wish.warm :]
    dormant = [seen for seen in serving if seen.phase == "Dormant"]
    if not wish.routed or any(seen.phase == "Ready" for seen in routed):
        dormant, surplus = [], surplus + dormant
    missing = wish.total - len(routed) - len(warm) - len(baseline)
    return _Places(routed, warm, baseline, dormant, surplus, missing, changing=bool(surplus))


def _baseline(runs: Sequence[Seen], known: dict[str, ReplicaState], wish: _Wish) -> list[Seen]:
    """Who belongs to it stays there. Of those that nobody has told of yet it gets the youngest, and only as many as the
    others can spare."""
    if not wish.baseline:
        return []
    apart = [seen for seen in runs if seen.name in known and known[seen.name].group == "baseline"]
    fresh = sorted(
        (seen for seen in runs if seen.name not in known), key=lambda seen: _number(seen.name), reverse=True
    )
    spare = max(0, len(runs) - len(apart) - wish.routed - wish.warm)
    return [*apart, *fresh[:spare]][: wish.baseline]


def _asleep(serving: Sequence[Seen], known: dict[str, ReplicaState], world: RevisionWorld) -> _Places:
    """One that listens, or one that a request woke since. The others go when every gateway has heard of the one that
    listens: with them out of the routes, requests go there."""

    def is_current(seen: Seen) -> bool:
        """Woken in this sleep, not in an earlier one that it has outlived as an ordinary replica."""
        state = known.get(seen.name)
        return seen.woken and (state is None or state.phase in ("Dormant", "Starting") or state.woken)

    woken = [seen for seen in serving if seen.phase != "Dormant" and is_current(seen)]
    woken.sort(key=lambda seen: (seen.phase != "Ready", seen.started_at or _NEVER))
    listening = [seen for seen in serving if seen.phase == "Dormant"]
    listening.sort(key=lambda seen: (seen.name not in known, seen.started_at or _NEVER))
    kept = (woken or listening)[:1]
    others = [seen for seen in serving if seen not in kept]
    may_go = any(seen.phase == "Ready" if woken else _is_listed(seen, known, world) for seen in kept)
    answering = [] if may_go else [seen for seen in others if _answers(seen, known)]
    return _Places(
        routed=[*(kept if woken else ()), *answering],
        dormant=() if woken else kept,
        surplus=[seen for seen in others if seen not in answering],
        missing=0 if kept else 1,
        woken=bool(woken),
        changing=bool(others),
    )


def _answers(seen: Seen, known: dict[str, ReplicaState]) -> bool:
    """Is it in the routes now?"""
    return seen.phase == "Ready" and seen.name in known and known[seen.name].phase == "Ready"


def _is_listed(seen: Seen, known: dict[str, ReplicaState], world: RevisionWorld) -> bool:
    """Has every gateway loaded a state that names it?"""
    version = known[seen.name].listed_version if seen.name in known else None
    return bool(version) and (world.observed_version is None or world.observed_version >= (version or 0))


def _woke_and_ended(ended: Sequence[Seen], known: dict[str, ReplicaState]) -> bool:
    return any(seen.woken and seen.name in known and known[seen.name].phase == "Dormant" for seen in ended)


def _states(places: _Places, known: dict[str, ReplicaState], wish: _Wish) -> list[ReplicaState]:
    states = []
    for seen in places.routed:
        waited_for = seen.woken and (seen.phase == "Starting" or (wish.sleeping and places.woken))
        states.append(_state(seen, "Ready" if seen.phase == "Ready" else "Starting", woken=waited_for))
    states += [_state(seen, "Warm" if seen.phase == "Ready" else "Starting") for seen in places.warm]
    for seen in places.baseline:
        apart = _state(seen, "Ready" if seen.phase == "Ready" else "Starting")
        states.append(apart.model_copy(update={"group": "baseline"}))
    for seen in places.dormant:
        state = known.get(seen.name)
        listed = state.listed_version if state is not None else None
        states.append(_state(seen, "Dormant", listed=listed or 0))
    return states + [_state(seen, "Draining", draining=0) for seen in places.surplus]


def _number(name: str) -> int:
    last = name.rpartition("-")[2]
    return int(last) if last.isdigit() else 0


def _drains(seen: Seen, known: dict[str, ReplicaState]) -> bool:
    return seen.phase == "Draining" or (seen.name in known and known[seen.name].phase == "Draining")


def _state(
    seen: Seen,
    phase: ReplicaPhase,
    *,
    woken: bool = False,
    listed: int | None = None,
    draining: int | None = None,
) -> ReplicaState:
    return ReplicaState(
        name=seen.name,
        phase=phase,
        address=seen.address,
        pid=seen.pid,
        started_at=seen.started_at,
        exit_code=seen.exit_code,
        woken=woken,
        listed_version=listed,
        draining_version=draining,
        sandbox=seen.sandbox,
    )


def _may_stop(seen: Seen, known: dict[str, ReplicaState], world: RevisionWorld) -> bool:
    """Only when every gateway has loaded routes without it: a request under way ends in peace. One that was woken while
    it was taken out answers first who waits for it."""
    version = known[seen.name].draining_version if seen.name in known else None
    if not version or (seen.woken and seen.phase == "Starting"):
        return False
    return world.observed_version is None or world.observed_version >= version


# --- ends -------------------------------------------------------------------------------------------------------


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
        # One that slept had nothing to do but to listen; if a request had woken it, it did not get ready.
        was_well = state.phase in ("Ready", "Warm") or (state.phase == "Dormant" and not seen.woken)
        short = not was_well or lived < _STABLE_SECONDS
        failures = status.failures + 1 if short else 0
        words = how_it_ended(seen, revision.spec.runtime)
        # A replica that had been ready is replaced at once; one that never was waits.
        wait = 0.0 if was_well and failures < CRASH_LOOP_FAILURES else retry_seconds(failures)
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


def _phase(status: RevisionStatus, wish: _Wish, places: _Places, ready: int) -> tuple[RevisionPhase, str]:
    restarting = status.last_exit and f"restarting after: {status.last_exit}"
    if not wish.total:
        return "Idle", ""
    if ready and ready >= wish.routed:
        return "Ready", ""
    if places.dormant and wish.sleeping:
        failed = f"; the last one ended: {status.last_exit}" if status.failures else ""
        return "Idle", f"sleeping: the next request starts a replica{failed}"
    if status.failures >= CRASH_LOOP_FAILURES:
        return "CrashLoop", f"{status.failures} replicas in a row ended: {status.last_exit}"
    if ready:
        return "Degraded", f"{ready} of {wish.routed} replicas are ready"
    if places.woken:
        return "Starting", "a request waits for it"
    return "Starting", restarting


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
    # Of many that sleep hardly anything is expected; wakes and ends are announced.
    return world.now + (_LOOK_ASLEEP if status.phase == "Idle" else _LOOK)
