"""How many replicas a Deployment is to have now: a pure function of its scaling, what is remembered and what was seen.

Called by `control.scaling`; `wanted_replicas` by everything that asks how many a Deployment wants. Calls nothing.

For concurrency and requests/s the ways are those of Knative's KPA (knative.dev/docs/serving/autoscaling/kpa-specific):
an average over a stable window, a short panic window that only ever adds, and a delay before anything goes. For p95 the
proportion is that of Kubernetes' HPA, ceil(current x measured / target)
(kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale); but latency does not fall in proportion to
replicas, so none is added where nothing waits, and shrinking goes one by one. For processor time it is the sum over all
replicas divided by the target, as with requests/s; but replicas that are busy all the time cannot show how many more
are needed: that counts as a surge, in which their number grows by a whole step each time that the last one is there,
but to no more than there are requests under way.

What is measured of a queue depends on how many replicas there are: with one less, requests wait longer and more of them
are under way at once. Whoever shrinks by what is seen before it shrank grows again at once, and so on for ever. So for
concurrency and p95 the load per replica at which it had to grow is remembered for an hour, and shrinking stops short of
it: at most once an hour is it tried again.
"""

import datetime
import math
from dataclasses import dataclass, replace

from podium.planning.load import WindowLoad
from podium.resources.kinds import Deployment
from podium.resources.scaling import MOST_PROCESSOR_PERCENT, Peak, Scaling, ScalingStatus

_GAP = datetime.timedelta(seconds=45)
"""Who has not looked for longer has not seen what happened meanwhile."""
_LEAST_STEP = 4
"""Replicas that may always be added in one step; else as many as there are. (Kubernetes' HPA has the same two.)"""
_WAITING = 0.5
"""Requests under way per replica from which on some wait for others: at half a request a replica is busy half the time
or less, and its latency is mostly the model's own."""
_MARGIN = 0.9
"""How much of a load per replica that was too much is aimed at when shrinking."""
_FULL = MOST_PROCESSOR_PERCENT / 100
"""Share of its processors from which on a replica counts as busy all the time."""
_CAPACITY_KEPT = datetime.timedelta(hours=1)
_MOST_PEAKS = 20
_BUSY_LOOK, _QUIET_LOOK = datetime.timedelta(seconds=2), datetime.timedelta(seconds=5)
_IDLE_LOOK = datetime.timedelta(seconds=30)
"""Where nothing runs that could go. The first request wakes the Deployment: a report with its counters does."""


@dataclass(frozen=True)
class LoadSeen:
    """What all gateways counted, over the two windows."""

    stable: WindowLoad
    panic: WindowLoad
    silent: str = ""
    """Whose requests are not in the sums, in words: gateways that are known, but did not tell their counters lately."""


@dataclass(frozen=True)
class ReplicasSeen:
    """The Deployment's replicas now. `running`: processes of all its revisions; the rest is of the stable one."""

    ready: int
    running: int
    revision: str | None = None
    woken: bool = False
    """A request woke the sleeping replica."""
    moving: bool = False
    """A rollout is under way, or about to begin."""


@dataclass(frozen=True)
class ScalingDecision:
    """`scaled`: the words of an event, empty where the number stays."""

    status: ScalingStatus
    look_at: datetime.datetime
    scaled: str = ""


@dataclass(frozen=True)
class _Wish:
    """What the load alone asks for, and why."""

    replicas: int
    reason: str
    measured: float | None = None


def wanted_replicas(deployment: Deployment) -> int:
    """How many replicas each revision that serves is to have: the autoscaler's number, or `spec.replicas`."""
    scaling = deployment.spec.scaling
    if scaling is None:
        return deployment.spec.replicas
    known = deployment.status.scaling
    return scaling.within(deployment.spec.replicas if known is None else known.desired)


def replicas_in_rollout(deployment: Deployment) -> int:
    """The same while a rollout is under way: what is judged is awake. 0 only where a person wrote `replicas: 0`."""
    wanted = wanted_replicas(deployment)
    return wanted if deployment.spec.scaling is None else max(1, wanted)


def begin(scaling: Scaling, replicas: int, now: datetime.datetime) -> ScalingStatus:
    """What is known of a Deployment whose load was never looked at."""
    desired = scaling.within(replicas)
    return ScalingStatus(desired=desired, reason=f"starts with {desired}", last_active_at=now, day=now.date())


def decide(
    scaling: Scaling,
    status: ScalingStatus,
    load: LoadSeen,
    replicas: ReplicasSeen,
    now: datetime.datetime,
) -> ScalingDecision:
    """The next number of replicas, within `min` and `max`.

    Nothing shrinks while a gateway is silent, in panic, or before this status has seen a whole stable window without a
    gap; that also holds after a restart of the server.
    """
    before, current = status.desired, scaling.within(status.desired)
    status = _watch(scaling, status, current, now)
    status = _count_hours(status, replicas.running, now)
    if load.panic.requests > 0 or load.panic.concurrency > 0 or replicas.woken or load.silent:
        status = status.model_copy(update={"last_active_at": now})
    status = _learn(scaling, status, load, (current, replicas), now)
    wish = _wish(scaling, status, load.stable, (current, replicas), now)
    status, wish = _panic(scaling, status, load.panic, (wish, current, replicas), now)
    wanted, reason, limited = _limited(scaling, status, wish, (current, replicas, load.silent), now)
    status = _remember(scaling, status, wanted, now)
    held = min(current, max(peak.wanted for peak in status.peaks))
    if held > wanted:
        reason = f"{reason}; kept for {_seconds(scaling.scale_down_delay)} after the last wish for more"
    wanted = _step_down(scaling, status, max(wanted, held), current, now)
    wanted, reason = _zero(scaling, status, load, replicas, (wanted, reason), now)
    wanted, limited = _ceiling(scaling, status, (wanted, limited))
    wanted = scaling.within(max(wanted, 1) if replicas.moving else wanted)
    status = status.model_copy(update={"measured": wish.measured})
    return _decision(status, load, before, scaling.min, (wanted, reason, limited), now)


def _decision(
    status: ScalingStatus,
    load: LoadSeen,
    before: int,
    least: int,
    outcome: tuple[int, str, str],
    now: datetime.datetime,
) -> ScalingDecision:
    wanted, reason, limited = outcome
    update: dict[str, object] = {
        "desired": wanted,
        "reason": reason,
        "limited": limited,
        "seen_at": now,
    }
    scaled = ""
    if wanted != before:
        update |= {"last_scaled_at": now, "kept_since": False}
        scaled = f"{before} -> {wanted}: {reason}{f' ({limited})' if limited else ''}"
    busy = load.stable.requests > 0 or load.stable.concurrency > 0 or status.panic_since is not None
    look = _QUIET_LOOK if wanted > least else _IDLE_LOOK
    if busy or wanted != before:
        look = _BUSY_LOOK
    return ScalingDecision(status.model_copy(update=update), now + look, scaled)


# --- what the load asks for ------------------------------------------------------------------------------------


def _wish(
    scaling: Scaling,
    status: ScalingStatus,
    load: WindowLoad,
    seen: tuple[int, ReplicasSeen],
    now: datetime.datetime,
) -> _Wish:
    current, replicas = seen
    if scaling.target.p95 is not None:
        settled = _settled(status, seen, scaling.stable_window, now)
        return _by_latency(scaling, status, load, (current, replicas), settled=settled)
    measured, words = _measured(scaling, load)
    needed = measured / scaling.target.value
    reason = f"{words}, {_aim(scaling)} per replica"
    up, down = math.ceil(needed), _fewest(scaling, needed, current)
    if needed > current * (1 + scaling.tolerance):
        return _Wish(up, reason, measured)
    if down < current and status.capacity is not None:
        enough = math.ceil(load.arrivals_per_second / (_MARGIN * status.capacity))
        if enough > down:
            down = min(current, enough)
            reason = f"{reason}; {_number(status.capacity)} requests/s were too much for a replica"
    return _Wish(min(current, down), reason, measured)


def _fewest(scaling: Scaling, needed: float, current: int) -> int:
    """How many would be enough, so that a little more than the present load would not bring more at once.

    Requests/s are what they are, and so is the work that they make. Requests under way grow as replicas go: as in a
    queue with one server, u = r / (1 - r) of them for a replica that is busy for the share r of the time (M/M/1; u in
    targets, so that 1 is a replica that has as many as it shall have). With m of n replicas left r becomes r x n / m,
    and u may become 1 / (1 + tolerance).
    """
    if scaling.target.concurrency is None or current == 0:
        return math.ceil(needed * (1 + scaling.tolerance))
    each = needed / current
    busy = each / (1 + each)
    return math.ceil(current * busy * (2 + scaling.tolerance) - 1e-9)


def _measured(scaling: Scaling, load: WindowLoad) -> tuple[float, str]:
    if scaling.target.concurrency is not None:
        return load.concurrency, f"{_number(load.concurrency)} requests under way"
    if scaling.target.cpu is not None:
        return load.busy * 100, f"{_number(load.busy * 100)} % of a replica's processor time"
    return load.arrivals_per_second, f"{_number(load.arrivals_per_second)} requests/s"


def _aim(scaling: Scaling) -> str:
    return f"{scaling.target.value:g}{' %' if scaling.target.cpu is not None else ''}"


def _by_latency(
    scaling: Scaling,
    status: ScalingStatus,
    load: WindowLoad,
    seen: tuple[int, ReplicasSeen],
    *,
    settled: bool,
) -> _Wish:
    """settled: the whole window was measured with this many replicas, so that no step answers an old latency twice."""
    current, replicas = seen
    p95, target = load.quantile(0.95), scaling.target.value
    if p95 is None:
        nothing = load.concurrency == 0
        words = "no requests" if nothing else "requests are under way, but none was answered yet"
        return _Wish(max(0, current - 1) if nothing else current, words)
    ratio, fewer = p95 / target, current - 1
    words = f"p95 {_seconds(p95)}, {_seconds(target)} wanted"
    if ratio > 1 + scaling.tolerance:
        if not _queue_stands(load, replicas):
            return _Wish(current, f"{words}, but nothing waits: it is the model's own time", p95)
        return _Wish(math.ceil(max(1, current) * ratio) if settled else current, words, p95)
    if fewer < 1:
        return _Wish(min(current, 1), words, p95)
    if ratio * current / fewer > 1 - scaling.tolerance:
        return _Wish(current, words, p95)
    known = status.capacity
    if known is not None and load.arrivals_per_second / fewer > _MARGIN * known:
        words = f"{words}; {_number(known)} requests/s were too much for a replica"
        return _Wish(current, words, p95)
    return _Wish(fewer, words, p95)


def _settled(
    status: ScalingStatus, seen: tuple[int, ReplicasSeen], seconds: float, now: datetime.datetime
) -> bool:
    """All replicas that are wanted are ready, and have been wanted for so long."""
    current, replicas = seen
    since = status.last_scaled_at
    return replicas.ready >= current and (since is None or (now - since).total_seconds() >= seconds)


def _queue_stands(load: WindowLoad, replicas: ReplicasSeen) -> bool:
    return load.concurrency > _WAITING * max(1, replicas.ready)


def _learn(
    scaling: Scaling,
    status: ScalingStatus,
    load: LoadSeen,
    seen: tuple[int, ReplicasSeen],
    now: datetime.datetime,
) -> ScalingStatus:
    """Remembers the load per replica that was too much for a number of replicas that had been enough before: what was
    never enough may have had to work off a backlog. Of a load that rises, the newer figure, to which what is under way
    belongs."""
    if scaling.target.name in ("requestsPerSecond", "cpu"):
        return status
    current, replicas = seen
    known = status.capacity_at is not None and now - status.capacity_at <= _CAPACITY_KEPT
    if not known or status.capacity_revision != replicas.revision:
        status = status.model_copy(update={"capacity": None, "capacity_at": None, "capacity_revision": None})
    if current == 0 or replicas.ready < current or not _whole(scaling, status, now):
        return status
    if not _too_much(scaling, load.stable, seen, 1.0):
        return status.model_copy(update={"kept_since": True})
    still = _too_much(scaling, load.panic, seen, 1.0)
    if not (status.kept_since and still and _too_much(scaling, load.stable, seen, 1 + scaling.tolerance)):
        return status
    rate = max(load.stable.arrivals_per_second, load.panic.arrivals_per_second) / replicas.ready
    least = rate if status.capacity is None else min(rate, status.capacity)
    return status.model_copy(
        update={"capacity": least, "capacity_at": now, "capacity_revision": replicas.revision}
    )


def _whole(scaling: Scaling, status: ScalingStatus, now: datetime.datetime) -> bool:
    """A whole stable window was watched without a gap."""
    since = status.watched_since
    return since is not None and (now - since).total_seconds() >= scaling.stable_window


def _too_much(scaling: Scaling, load: WindowLoad, seen: tuple[int, ReplicasSeen], times: float) -> bool:
    """The target is missed by this factor, and more replicas would help."""
    current, replicas = seen
    aim = scaling.target.value * times
    if scaling.target.p95 is None:
        return load.concurrency > current * aim
    p95 = load.quantile(0.95)
    return p95 is not None and p95 > aim and _queue_stands(load, replicas)


def _panic(
    scaling: Scaling,
    status: ScalingStatus,
    load: WindowLoad,
    wish: tuple[_Wish, int, ReplicasSeen],
    now: datetime.datetime,
) -> tuple[ScalingStatus, _Wish]:
    """A surge that the stable window does not show yet. While it lasts the number never falls."""
    stable, current, replicas = wish
    ready = max(1, replicas.ready)
    if scaling.target.p95 is not None:
        p95 = load.quantile(0.95)
        times = p95 / scaling.target.value if p95 is not None and _queue_stands(load, replicas) else 0.0
        # As with the stable window: no step twice for one latency.
        fresh = _settled(status, (current, replicas), scaling.panic_window, now)
        needed = times * max(1, current) if fresh else 0.0
        words = f"p95 {_seconds(p95 or 0.0)} in {_seconds(scaling.panic_window)}"
    else:
        measured, words = _measured(scaling, load)
        needed = measured / scaling.target.value
        times = needed / ready
        words = f"{words} in {_seconds(scaling.panic_window)}, {_aim(scaling)} per replica"
        if scaling.target.cpu is not None and load.busy >= _FULL * ready:
            times = max(times, scaling.panic_threshold)
            if _settled(status, (current, replicas), scaling.panic_window, now):
                needed = max(needed, _guess(scaling, load, current))
                words = f"{words}, and more than all of it cannot be seen"
    if times >= scaling.panic_threshold:
        since = status.panic_since or now
        status = status.model_copy(update={"panic_since": since, "panic_seen_at": now})
    elif status.panic_since is not None and (
        status.panic_seen_at is None
        or now - status.panic_seen_at >= datetime.timedelta(seconds=scaling.stable_window)
    ):
        status = status.model_copy(update={"panic_since": None, "panic_seen_at": None})
    if status.panic_since is None:
        return status, stable
    surge = math.ceil(needed) if needed > current * (1 + scaling.tolerance) else current
    if surge >= stable.replicas:
        return status, replace(stable, replicas=max(current, surge), reason=f"surge: {words}")
    return status, replace(stable, replicas=max(current, stable.replicas))


def _guess(scaling: Scaling, load: WindowLoad, current: int) -> float:
    """Where all are busy all the time: a step as long as it may be, but not more than have something to do."""
    step = max(scaling.panic_threshold * current, current + _LEAST_STEP)
    return min(step, load.concurrency)


# --- what is made of it ----------------------------------------------------------------------------------------


def _limited(
    scaling: Scaling,
    status: ScalingStatus,
    wish: _Wish,
    seen: tuple[int, ReplicasSeen, str],
    now: datetime.datetime,
) -> tuple[int, str, str]:
    """Steps that are not too long, within the bounds, and none down on too little knowledge. Number, reason, limit."""
    current, replicas, silent = seen
    wanted, limited = wish.replicas, ""
    wanted = min(wanted, _step_up(scaling, status, current, replicas.ready, now))
    if wanted > scaling.max:
        wanted, limited = scaling.max, f"max is {scaling.max}, the load asks for {wish.replicas}"
    if wanted < current and silent:
        return current, f"{silent}: nothing shrinks on half the knowledge", limited
    if wanted < current and not _whole(scaling, status, now):
        return current, "nothing shrinks before a whole window was seen", limited
    return wanted, wish.reason, limited


def _watch(scaling: Scaling, status: ScalingStatus, current: int, now: datetime.datetime) -> ScalingStatus:
    """Starts over after a gap, with the present number as a wish of this moment."""
    if status.watched_since is not None and status.seen_at is not None and now - status.seen_at <= _GAP:
        return status
    status = status.model_copy(update={"watched_since": now})
    return _remember(scaling, status, current, now)


def _remember(scaling: Scaling, status: ScalingStatus, wanted: int, now: datetime.datetime) -> ScalingStatus:
    """The wish joins the highest ones of `scale_down_delay`; those that it exceeds say nothing any more."""
    oldest = now - datetime.timedelta(seconds=scaling.scale_down_delay)
    peaks = [peak for peak in status.peaks if peak.at >= oldest and peak.wanted > wanted]
    peaks.append(Peak(at=now, wanted=wanted))
    while len(peaks) > _MOST_PEAKS:
        # The two that are nearest in height become one: as high as the one, as young as the other.
        place = min(range(len(peaks) - 2), key=lambda n: peaks[n].wanted - peaks[n + 1].wanted)
        peaks[place : place + 2] = [Peak(at=peaks[place + 1].at, wanted=peaks[place].wanted)]
    return status.model_copy(update={"peaks": peaks})


def _step_up(
    scaling: Scaling, status: ScalingStatus, current: int, ready: int, now: datetime.datetime
) -> int:
    """How many there may be next: twice as many as there are, every panic window; and never more than two such steps
    beyond those that are ready, so that replicas which do not start do not multiply."""
    since = status.last_scaled_at
    if since is not None and (now - since).total_seconds() < scaling.panic_window:
        return max(current, ready + _LEAST_STEP)
    step = max(2 * current, current + _LEAST_STEP)
    return max(current, min(step, 4 * ready + 2 * _LEAST_STEP))


def _step_down(
    scaling: Scaling, status: ScalingStatus, wanted: int, current: int, now: datetime.datetime
) -> int:
    """At most half of the replicas go at once (Knative's max-scale-down-rate), and a panic window lies between two
    such steps, in which it would show that too many went."""
    if wanted >= current:
        return wanted
    since = status.last_scaled_at
    if since is not None and (now - since).total_seconds() < scaling.panic_window:
        return current
    return max(wanted, current // 2)


def _zero(
    scaling: Scaling,
    status: ScalingStatus,
    load: LoadSeen,
    replicas: ReplicasSeen,
    wanted: tuple[int, str],
    now: datetime.datetime,
) -> tuple[int, str]:
    """The last replica goes by a rule of its own, and the first one comes at once."""
    number, reason = wanted
    if scaling.min > 0 or number > 1:
        return number, reason
    if replicas.woken:
        return 1, "woken by a request"
    busy = load.panic.requests > 0 or load.panic.concurrency > 0
    if status.desired == 0:
        return (1, reason) if busy else (0, status.reason)
    after = datetime.timedelta(seconds=scaling.scale_to_zero_after)
    idle_since = status.last_active_at or now
    # What nobody watched may have been busy: then the time counts from when somebody did.
    begun = max(idle_since, status.watched_since or now)
    if not busy and not load.silent and now - begun >= after:
        return 0, f"no request for {_seconds(scaling.scale_to_zero_after)}"
    return 1, reason


def _ceiling(scaling: Scaling, status: ScalingStatus, wanted: tuple[int, str]) -> tuple[int, str]:
    """A day's replica-hours that are used up outrank all but `min`."""
    number, limited = wanted
    most = scaling.max_replica_hours_per_day
    if most is None or status.replica_hours < most:
        return number, limited
    held = min(number, max(1, scaling.min))
    if held == number:
        return number, limited
    return held, (
        f"{_number(status.replica_hours)} of {_number(most)} replica-hours of the day (UTC) are used up: held at {held}"
    )


def _count_hours(status: ScalingStatus, running: int, now: datetime.datetime) -> ScalingStatus:
    """Replicas x time since the last look, also while no server ran: they did."""
    today = now.date()
    since, hours = status.seen_at or now, status.replica_hours
    if status.day != today:
        hours = 0.0
        since = max(since, datetime.datetime.combine(today, datetime.time(), tzinfo=datetime.UTC))
    hours += running * max(0.0, (now - since).total_seconds()) / 3600
    return status.model_copy(update={"day": today, "replica_hours": hours})


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
