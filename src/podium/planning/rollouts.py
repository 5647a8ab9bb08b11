"""What a Rollout does next: small states, one function each, pure.

Called by `control.rollouts` with the evidence that it read; the outcome carries the words and the evidence of every
decision, so that a person can read why and a program can replay it.

    Pending ──ready──> Progressing <──> Paused / Held
       │                   │  └──last step passed / promote──> Promoting ──loaded──> Promoted
       │                   │                                   Observing (blue-green)
       └──failed/abort──> RollingBack ──loaded──> RolledBack
    any unfinished ──new wish──> Superseded (written by the Deployment reconciler)
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from podium.planning.gateways import GatewayView, lost_ones, not_loaded
from podium.planning.looks import Look, Trial, look_at
from podium.resources.kinds import Revision, Rollout
from podium.resources.rollout import FINAL_PHASES, Decision, RolloutStatus
from podium.resources.strategies import BlueGreenStrategy, CanaryStep, CanaryStrategy

_LOOK = datetime.timedelta(seconds=1)
_SOON = datetime.timedelta(milliseconds=200)
_MAX_DECISIONS = 200


@dataclass(frozen=True)
class RolloutWorld:
    """What the reconciler saw."""

    now: datetime.datetime
    candidate: Revision | None
    stable: Revision | None
    replicas: int
    """Wanted of each revision."""
    gateways: Sequence[GatewayView]
    trial: Trial
    """The requests that both arms have seen, as windows."""
    newer_wish: bool = False
    """The Deployment wants another revision by now."""


@dataclass(frozen=True)
class RolloutOutcome:
    """The status to write and what else follows in the same transaction."""

    status: RolloutStatus
    ended: Literal["promoted", "rolledBack"] | None = None
    events: tuple[tuple[Literal["Normal", "Warning"], str, str], ...] = ()
    next_at: datetime.datetime | None = None
    reason: str = ""


def decide(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    """The next idempotent step. `weight_version` of a changed weight is set by whoever commits it."""
    outcome = _next(rollout, world)
    names = _waited_for(outcome.status, world)
    status = outcome.status.model_copy(update={"silent_gateways": names})
    events = outcome.events
    if set(names) - set(rollout.status.silent_gateways):
        events = (*events, ("Warning", "GatewaySilent", status.message))
    return replace(outcome, status=status, events=events)


def _waited_for(status: RolloutStatus, world: RolloutWorld) -> list[str]:
    """The silent gateways that keep the present weight from counting as loaded; none in a rollback."""
    waits = status.phase not in (*FINAL_PHASES, "Pending", "RollingBack") and not status.loaded
    lost = lost_ones(world.gateways, world.now, status.weight_version) if waits else []
    return [view.name for view in lost]


def _next(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    status = rollout.status
    if status.phase in FINAL_PHASES:
        return RolloutOutcome(status=status)
    if status.started_at is None:
        status = status.model_copy(update={"started_at": world.now})
        rollout = rollout.model_copy(update={"status": status})
    if status.phase == "Pending":
        return _pending(rollout, world)
    if status.phase == "RollingBack":
        return _rolling_back(rollout, world)
    refused = next(
        (view for view in world.gateways if view.error and view.error_version >= status.weight_version), None
    )
    if refused is not None:
        return _roll_back(
            rollout, world, f"gateway {refused.name} refused the configuration: {refused.error}"
        )
    if rollout.spec.requested == "abort":
        return _roll_back(rollout, world, f"aborted by {rollout.spec.requested_by or 'a user'}")
    if world.replicas == 0:
        message = "waiting: spec.replicas is 0, so there is nothing to move and nothing to judge"
        return RolloutOutcome(status=status.model_copy(update={"message": message}))
    if _is_dead(world.candidate) and not _is_dead(world.stable) and not _machine_restarted(world):
        return _roll_back(rollout, world, _why_dead(world.candidate), liveness=True)
    if status.phase == "Promoting":
        return _promoting(rollout, world)
    if status.phase == "Observing":
        return _observing(rollout, world)
    if rollout.spec.requested == "promote" and _is_dead(world.candidate):
        return _wait_for_candidate(rollout, world)
    if rollout.spec.requested == "promote":
        return _promote(
            rollout,
            world,
            f"promoted by {rollout.spec.requested_by or 'a user'} without waiting for evidence",
        )
    return _progressing(rollout, world)


def _pending(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    status, candidate = rollout.status, world.candidate
    started = status.started_at or world.now
    if rollout.spec.requested == "abort":
        return _roll_back(rollout, world, f"aborted by {rollout.spec.requested_by or 'a user'}")
    if candidate is None:
        return _roll_back(rollout, world, f"revision {rollout.spec.candidate_revision} is gone")
    if candidate.status.phase in ("Failed", "CrashLoop"):
        return _roll_back(rollout, world, _why_dead(candidate), liveness=True)
    if world.replicas == 0:
        message = "waiting: spec.replicas is 0"
        return RolloutOutcome(status=status.model_copy(update={"message": message, "started_at": world.now}))
    if candidate.status.ready_replicas >= max(1, world.replicas):
        if rollout.spec.paused and rollout.spec.requested != "promote":
            message = f"paused; {candidate.metadata.name} is ready"
            return RolloutOutcome(
                status=status.model_copy(update={"message": message}), next_at=world.now + 10 * _LOOK
            )
        return _start(rollout, world)
    timeout = rollout.spec.settings.ready_timeout
    if (world.now - started).total_seconds() > timeout:
        return _roll_back(
            rollout, world, f"{candidate.metadata.name} was not ready within {timeout:g} s", liveness=True
        )
    words = candidate.status.message or candidate.status.progress or f"{candidate.status.phase.lower()}"
    message = f"waiting for {candidate.metadata.name} to be ready: {words}"
    # The revision's reconciler wakes this one when something changes; the timer is for the timeout.
    next_at = min(world.now + 5 * _LOOK, started + datetime.timedelta(seconds=timeout + 0.1))
    return RolloutOutcome(status=status.model_copy(update={"message": message}), next_at=next_at)


def _start(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    strategy = rollout.spec.settings.strategy
    name = rollout.spec.candidate_revision
    if rollout.spec.stable_revision is None:
        return _promote(rollout, world, f"{name} is the first revision: there is nothing to compare it with")
    if rollout.spec.cause == "rollback":
        return _promote(rollout, world, f"rollback to {name}: all traffic at once")
    if isinstance(strategy, CanaryStrategy):
        to = (0, strategy.steps[0].weight, "Progressing")
        return _shift(rollout, world, to=to, reason=f"{name} is ready", decision="start")
    if isinstance(strategy, BlueGreenStrategy):
        words = f"{name} is ready and can be previewed with the header {strategy.preview_header}: true"
        outcome = _shift(rollout, world, to=(0, 0, "Progressing"), reason=words, decision="start")
        return replace(outcome, status=outcome.status.model_copy(update={"preview": True}))
    return _promote(rollout, world, f"{name} is ready (strategy recreate)")


def _progressing(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    status = rollout.status
    waiting = _not_loaded(status, world)
    if waiting and not status.loaded:
        return RolloutOutcome(
            status=status.model_copy(update={"message": waiting}), next_at=world.now + _SOON
        )
    if not status.loaded:
        status = status.model_copy(update={"loaded": True, "step_started_at": world.now, "message": "loaded"})
        rollout = rollout.model_copy(update={"status": status})
    if status.phase == "Paused" and not rollout.spec.paused:
        # A pause is no time of the step's: its clock starts again, what was counted stays counted.
        status = status.model_copy(update={"step_started_at": world.now})
        rollout = rollout.model_copy(update={"status": status})
    if isinstance(rollout.spec.settings.strategy, BlueGreenStrategy):
        return _previewing(rollout, rollout.spec.settings.strategy, world)
    if isinstance(rollout.spec.settings.strategy, CanaryStrategy):
        return _judge_step(rollout, rollout.spec.settings.strategy, world)
    return _promote(rollout, world, "strategy recreate moves in one step")


def _judge_step(rollout: Rollout, strategy: CanaryStrategy, world: RolloutWorld) -> RolloutOutcome:
    status = rollout.status
    step = strategy.steps[status.step]
    since = (world.now - (status.step_started_at or world.now)).total_seconds()
    seen = world.trial.requests_at(status.weight)
    complete = seen >= step.requests if step.requests is not None else since >= (step.duration or 0.0)
    capped = since >= step_cap(step)
    last = status.step == len(strategy.steps) - 1
    trial = world.trial
    if _is_dead(world.stable) or _machine_restarted(world):
        # Both are down, or the whole machine was: that says nothing about the candidate.
        trial = replace(trial, candidate_ready=max(1, trial.candidate_ready))
    look = look_at(rollout, trial, last=last, complete=complete, capped=capped)
    rollout = rollout.model_copy(update={"status": _count(status, world.trial)})
    if look.decision == "hold" and capped and not rollout.spec.paused:
        wish = rollout.spec.settings.analysis.on_inconclusive
        if wish == "rollback":
            look = replace(look, decision="rollback", reason=f"inconclusive: {look.reason}")
        elif wish == "promote" and look.inconclusive and seen > 0:
            words = f"inconclusive, passed as the spec says: {look.reason}"
            look = replace(look, decision="advance", reason=words)
    return _follow(rollout, strategy, world, look, capped=capped)


def _follow(
    rollout: Rollout, strategy: CanaryStrategy, world: RolloutWorld, look: Look, *, capped: bool
) -> RolloutOutcome:
    """What a look comes to. Traffic only moves to a revision that can answer: the other one keeps it until then."""
    status = rollout.status
    if look.decision == "rollback" and (not _is_dead(world.stable) or _is_dead(world.candidate)):
        return _roll_back(rollout, world, look.reason, evidence=look.evidence)
    if look.decision == "rollback" or (look.decision == "advance" and _is_dead(world.candidate)):
        spec = rollout.spec
        name = spec.stable_revision if look.decision == "rollback" else spec.candidate_revision
        words = f"waiting for {name} to answer again; then {look.decision}: {look.reason}"
        look = replace(look, decision="hold", reason=words)
    if rollout.spec.paused:
        return _stay(rollout, world, look, phase="Paused", message=f"paused at {status.weight} %")
    if look.decision == "advance":
        if status.step == len(strategy.steps) - 1:
            return _promote(rollout, world, look.reason, evidence=look.evidence)
        to = (status.step + 1, strategy.steps[status.step + 1].weight, "Progressing")
        return _shift(rollout, world, to=to, reason=look.reason, evidence=look.evidence)
    held = look.decision == "hold" and capped
    return _stay(rollout, world, look, phase="Held" if held else "Progressing", message=look.reason)


def step_cap(step: CanaryStep) -> float:
    """Seconds after which a step without enough evidence is inconclusive."""
    if step.max_duration is not None:
        return max(step.max_duration, step.duration or 0.0)
    return max(10 * step.duration, 60.0) if step.duration is not None else 3600.0


def _previewing(rollout: Rollout, strategy: BlueGreenStrategy, world: RolloutWorld) -> RolloutOutcome:
    since = (world.now - (rollout.status.step_started_at or world.now)).total_seconds()
    if rollout.spec.paused or not strategy.auto_promote:
        wait = "paused" if rollout.spec.paused else "waiting for `podium rollout promote` or `abort`"
        status = rollout.status.model_copy(
            update={"phase": "Paused" if rollout.spec.paused else "Held", "message": wait}
        )
        return RolloutOutcome(status=status, next_at=world.now + 10 * _LOOK)
    if since >= strategy.preview_for and _is_dead(world.candidate):
        return _wait_for_candidate(rollout, world)
    if since >= strategy.preview_for:
        return _promote(rollout, world, f"previewed for {strategy.preview_for:g} s")
    at = (rollout.status.step_started_at or world.now) + datetime.timedelta(seconds=strategy.preview_for)
    status = rollout.status.model_copy(update={"phase": "Progressing", "message": "preview"})
    return RolloutOutcome(status=status, next_at=at)


def _wait_for_candidate(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    """No traffic moves to who cannot answer; that it stays down is found by liveness."""
    message = f"waiting for {rollout.spec.candidate_revision} to answer again"
    return RolloutOutcome(
        status=rollout.status.model_copy(update={"message": message}), next_at=world.now + _LOOK
    )


def _promoting(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    waiting = _not_loaded(rollout.status, world)
    if waiting:
        return RolloutOutcome(
            status=rollout.status.model_copy(update={"message": waiting}), next_at=world.now + _SOON
        )
    if _is_dead(world.candidate) and rollout.spec.stable_revision is not None:
        return _wait_for_candidate(rollout, world)
    strategy = rollout.spec.settings.strategy
    observe = strategy.observe if isinstance(strategy, BlueGreenStrategy) else 0.0
    if observe and rollout.spec.stable_revision is not None and rollout.spec.cause != "rollback":
        update = {
            "phase": "Observing",
            "loaded": True,
            "step_started_at": world.now,
            "message": f"observing for {observe:g} s",
        }
        return RolloutOutcome(status=rollout.status.model_copy(update=update), next_at=world.now + _LOOK)
    return _promoted(rollout, world)


def _observing(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    """After a blue-green flip there is nothing to compare with: liveness (looked at before) and plain thresholds."""
    strategy = rollout.spec.settings.strategy
    observe = strategy.observe if isinstance(strategy, BlueGreenStrategy) else 0.0
    status = _count(rollout.status, world.trial)
    rollout = rollout.model_copy(update={"status": status})
    look = look_at(rollout, world.trial, last=True, complete=False, capped=False)
    if look.decision == "rollback" and not _is_dead(world.stable):
        return _roll_back(rollout, world, look.reason, evidence=look.evidence)
    since = (world.now - (status.step_started_at or world.now)).total_seconds()
    if since >= observe or rollout.spec.requested == "promote" or world.newer_wish:
        return _promoted(rollout, world)
    return RolloutOutcome(status=status, next_at=world.now + _LOOK)


def _promoted(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    name = rollout.spec.candidate_revision
    update = {
        "phase": "Promoted",
        "loaded": True,
        "preview": False,
        "finished_at": world.now,
        "message": f"{name} takes all traffic",
    }
    return RolloutOutcome(
        status=rollout.status.model_copy(update=update),
        ended="promoted",
        events=(("Normal", "Promoted", f"{name} takes all traffic"),),
    )


def _rolling_back(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    status = rollout.status
    reason = _last_reason(status)
    waiting = _not_loaded(status, world, wait_for_silent=False)
    if waiting:
        return RolloutOutcome(
            status=status.model_copy(update={"message": f"{reason}; {waiting}"}), next_at=world.now + _SOON
        )
    silent = [view.name for view in world.gateways if view.observed_version < status.weight_version]
    if silent:
        reason = f"{reason}; gateway {', '.join(silent)} is silent and may still send it traffic"
    update = {"phase": "RolledBack", "loaded": not silent, "finished_at": world.now, "message": reason}
    return RolloutOutcome(
        status=status.model_copy(update=update),
        ended="rolledBack",
        reason=reason,
        events=(("Warning", "RolledBack", reason),),
    )


def _last_reason(status: RolloutStatus) -> str:
    return next(
        (entry.reason for entry in reversed(status.decisions) if entry.decision == "rollback"), status.message
    )


def _promote(
    rollout: Rollout, world: RolloutWorld, reason: str, *, evidence: dict[str, Any] | None = None
) -> RolloutOutcome:
    """All traffic to the candidate; the rollout ends when that is seen loaded."""
    return _shift(
        rollout, world, to=(rollout.status.step, 100, "Promoting"), reason=reason, decision="promote", evidence=evidence
    )  # fmt: skip


def _roll_back(
    rollout: Rollout,
    world: RolloutWorld,
    reason: str,
    *,
    evidence: dict[str, Any] | None = None,
    liveness: bool = False,
) -> RolloutOutcome:
    """All traffic to the stable revision, which is still warm: one flip."""
    if liveness:
        evidence = {
            "liveness": reason,
            "candidate": world.candidate.status.model_dump(mode="json") if world.candidate else None,
        }
    to = (rollout.status.step, 0, "RollingBack")
    outcome = _shift(rollout, world, to=to, reason=reason, decision="rollback", evidence=evidence)
    return replace(
        outcome, status=outcome.status.model_copy(update={"preview": False}), next_at=world.now + _SOON / 4
    )


def _shift(
    rollout: Rollout,
    world: RolloutWorld,
    *,
    to: tuple[int, int, str],
    reason: str,
    decision: str = "advance",
    evidence: dict[str, Any] | None = None,
) -> RolloutOutcome:
    """A new weight. `to` is (step, percent, phase)."""
    step, weight, phase = to
    status = _decided(rollout.status, world.now, decision, reason, evidence)
    update: dict[str, Any] = {
        "phase": phase, "step": step, "weight": weight, "loaded": False, "step_started_at": None, "message": reason,
    }  # fmt: skip
    if decision in ("rollback", "promote"):
        update["verdict_at"] = world.now
    name = {"rollback": "RollingBack", "promote": "Promoting"}.get(decision, "WeightChanged")
    kind: Literal["Normal", "Warning"] = "Warning" if decision == "rollback" else "Normal"
    words = f"{weight} % to {rollout.spec.candidate_revision}: {reason}"
    return RolloutOutcome(
        status=status.model_copy(update=update), events=((kind, name, words),), next_at=world.now + _SOON / 4
    )


def _stay(rollout: Rollout, world: RolloutWorld, look: Look, *, phase: str, message: str) -> RolloutOutcome:
    status = _decided(
        rollout.status, world.now, look.decision, look.reason, look.evidence if phase == "Held" else None
    )
    events: tuple[tuple[Literal["Normal", "Warning"], str, str], ...] = ()
    if phase != rollout.status.phase:
        events = (("Warning" if phase == "Held" else "Normal", phase, message),)
    return RolloutOutcome(
        status=status.model_copy(update={"phase": phase, "message": message}),
        events=events,
        next_at=world.now + _LOOK,
    )


def _decided(
    status: RolloutStatus, now: datetime.datetime, decision: str, reason: str, evidence: dict[str, Any] | None
) -> RolloutStatus:
    """With the decision at the end; a look that says the same as the one before is folded into it."""
    entry = Decision(
        at=now, step=status.step, weight=status.weight, decision=decision, reason=reason, evidence=evidence
    )
    entries = list(status.decisions)
    last = entries[-1] if entries else None
    if (
        last is not None
        and decision in ("continue", "hold")
        and last.decision == decision
        and last.step == status.step
    ):
        entries[-1] = entry.model_copy(update={"repeated": last.repeated + 1})
    else:
        entries.append(entry)
    return status.model_copy(update={"decisions": entries[-_MAX_DECISIONS:]})


def _count(status: RolloutStatus, trial: Trial) -> RolloutStatus:
    totals = trial.totals()
    return status.model_copy(
        update={
            "candidate_requests": totals.candidate_requests,
            "candidate_bad": totals.candidate_bad,
            "stable_requests": totals.stable_requests,
            "stable_bad": totals.stable_bad,
        }
    )


def _not_loaded(status: RolloutStatus, world: RolloutWorld, *, wait_for_silent: bool = True) -> str:
    return not_loaded(world.gateways, world.now, status.weight_version, wait_for_silent=wait_for_silent)


def _is_dead(revision: Revision | None) -> bool:
    return revision is None or revision.status.ready_replicas == 0


def _machine_restarted(world: RolloutWorld) -> bool:
    """The stable revision was down as well and has just come back: after a reboot the candidate gets as long."""
    if world.stable is None or world.candidate is None or not world.stable.status.restarts:
        return False
    starts = [state.started_at for state in world.stable.status.replicas if state.started_at is not None]
    limit = datetime.timedelta(seconds=world.candidate.spec.runtime.startup_timeout)
    waits = world.candidate.status.phase not in ("CrashLoop", "Failed")
    # The oldest of its replicas: one of several that was started again says nothing about the machine.
    return waits and bool(starts) and world.now - min(starts) < limit


def _why_dead(revision: Revision | None) -> str:
    if revision is None:
        return "liveness: the candidate revision is gone"
    words = revision.status.message or revision.status.last_exit or "no replica is ready"
    return f"liveness: {revision.metadata.name} has no ready replica: {words}"


def later(now: datetime.datetime, seconds: float) -> datetime.datetime:
    """`now` plus `seconds`."""
    return now + datetime.timedelta(seconds=seconds)
