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
from dataclasses import replace

from podium.planning.gateways import lost_ones, not_loaded
from podium.planning.judging import judge_copies, judge_step, judge_test
from podium.planning.looks import look_at
from podium.planning.moves import (
    LOOK,
    SOON,
    RolloutOutcome,
    RolloutWorld,
    count,
    is_dead,
    machine_restarted,
    promote,
    roll_back,
    shift,
    wait_for_candidate,
    why_dead,
)
from podium.planning.routing import baseline_of
from podium.resources.kinds import Rollout
from podium.resources.rollout import FINAL_PHASES, RolloutStatus, has_baseline
from podium.resources.strategies import (
    AbTestStrategy,
    BlueGreenStrategy,
    CanaryStrategy,
    ShadowStrategy,
    SteppedStrategy,
)


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
        return roll_back(rollout, world, f"gateway {refused.name} refused the configuration: {refused.error}")
    if rollout.spec.requested == "abort":
        return roll_back(rollout, world, f"aborted by {rollout.spec.requested_by or 'a user'}")
    if world.replicas == 0:
        message = "waiting: spec.replicas is 0, so there is nothing to move and nothing to judge"
        return RolloutOutcome(status=status.model_copy(update={"message": message}))
    if is_dead(world.candidate) and not is_dead(world.stable) and not machine_restarted(world):
        return roll_back(rollout, world, why_dead(world.candidate), liveness=True)
    if status.phase == "Promoting":
        return _promoting(rollout, world)
    if status.phase == "Observing":
        return _observing(rollout, world)
    if rollout.spec.requested == "promote" and is_dead(world.candidate):
        return wait_for_candidate(rollout, world)
    if rollout.spec.requested == "promote":
        return promote(
            rollout,
            world,
            f"promoted by {rollout.spec.requested_by or 'a user'} without waiting for evidence",
        )
    return _progressing(rollout, world)


def _pending(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    status, candidate = rollout.status, world.candidate
    started = status.started_at or world.now
    if rollout.spec.requested == "abort":
        return roll_back(rollout, world, f"aborted by {rollout.spec.requested_by or 'a user'}")
    if candidate is None:
        return roll_back(rollout, world, f"revision {rollout.spec.candidate_revision} is gone")
    if candidate.status.phase in ("Failed", "CrashLoop"):
        return roll_back(rollout, world, why_dead(candidate), liveness=True)
    if world.replicas == 0:
        message = "waiting: spec.replicas is 0"
        return RolloutOutcome(status=status.model_copy(update={"message": message, "started_at": world.now}))
    if candidate.status.ready_replicas >= max(1, world.replicas):
        if rollout.spec.paused and rollout.spec.requested != "promote":
            message = f"paused; {candidate.metadata.name} is ready"
            return RolloutOutcome(
                status=status.model_copy(update={"message": message}), next_at=world.now + 10 * LOOK
            )
        if rollout.spec.requested == "promote" or not _lacks_baseline(rollout, world):
            return _start(rollout, world)
        name, words = "its baseline", f"{rollout.spec.stable_revision} starts fresh replicas"
    else:
        name = candidate.metadata.name
        words = candidate.status.message or candidate.status.progress or f"{candidate.status.phase.lower()}"
    timeout = rollout.spec.settings.ready_timeout
    if (world.now - started).total_seconds() > timeout:
        return roll_back(rollout, world, f"{name} was not ready within {timeout:g} s", liveness=True)
    message = f"waiting for {name} to be ready: {words}"
    # The revision's reconciler wakes this one when something changes; the timer is for the timeout.
    next_at = min(world.now + 5 * LOOK, started + datetime.timedelta(seconds=timeout + 0.1))
    return RolloutOutcome(status=status.model_copy(update={"message": message}), next_at=next_at)


def _lacks_baseline(rollout: Rollout, world: RolloutWorld) -> bool:
    """The candidate would be compared with fewer fresh replicas than it has itself."""
    if not has_baseline(rollout.spec) or world.stable is None or is_dead(world.stable):
        # Where nobody of the stable revision answers, fresh ones hardly will, and the candidate can.
        return False
    return len(baseline_of(world.stable)) < max(1, world.replicas)


def _start(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    strategy = rollout.spec.settings.strategy
    name = rollout.spec.candidate_revision
    if rollout.spec.stable_revision is None:
        return promote(rollout, world, f"{name} is the first revision: there is nothing to compare it with")
    if rollout.spec.cause == "rollback":
        return promote(rollout, world, f"rollback to {name}: all traffic at once")
    if isinstance(strategy, ShadowStrategy):
        words = f"{name} is ready and gets copies of {strategy.percent:g} % of the requests; nobody gets its answers"
        outcome = shift(rollout, world, to=(-1, 0, "Progressing"), reason=words, decision="start")
        return replace(outcome, status=outcome.status.model_copy(update={"shadow": True}))
    if isinstance(strategy, (CanaryStrategy, AbTestStrategy)):
        weight = strategy.weight if isinstance(strategy, AbTestStrategy) else strategy.steps[0].weight
        to = (0, weight, "Progressing")
        return shift(rollout, world, to=to, reason=f"{name} is ready", decision="start")
    if isinstance(strategy, BlueGreenStrategy):
        words = f"{name} is ready and can be previewed with the header {strategy.preview_header}: true"
        outcome = shift(rollout, world, to=(0, 0, "Progressing"), reason=words, decision="start")
        return replace(outcome, status=outcome.status.model_copy(update={"preview": True}))
    return promote(rollout, world, f"{name} is ready (strategy recreate)")


def _progressing(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    status = rollout.status
    waiting = _not_loaded(status, world)
    if waiting and not status.loaded:
        return RolloutOutcome(status=status.model_copy(update={"message": waiting}), next_at=world.now + SOON)
    if not status.loaded:
        status = status.model_copy(update={"loaded": True, "step_started_at": world.now, "message": "loaded"})
        rollout = rollout.model_copy(update={"status": status})
    if status.phase == "Paused" and not rollout.spec.paused:
        # A pause is no time of the step's: its clock starts again, what was counted stays counted.
        status = status.model_copy(update={"step_started_at": world.now})
        rollout = rollout.model_copy(update={"status": status})
    strategy = rollout.spec.settings.strategy
    if isinstance(strategy, BlueGreenStrategy):
        return _previewing(rollout, strategy, world)
    if isinstance(strategy, ShadowStrategy) and status.shadow:
        return judge_copies(rollout, strategy, world)
    if isinstance(strategy, SteppedStrategy):
        return judge_step(rollout, strategy, world)
    if isinstance(strategy, AbTestStrategy):
        return judge_test(rollout, strategy, world)
    return promote(rollout, world, "strategy recreate moves in one step")


def _previewing(rollout: Rollout, strategy: BlueGreenStrategy, world: RolloutWorld) -> RolloutOutcome:
    since = (world.now - (rollout.status.step_started_at or world.now)).total_seconds()
    if rollout.spec.paused or not strategy.auto_promote:
        wait = "paused" if rollout.spec.paused else "waiting for `podium rollout promote` or `abort`"
        status = rollout.status.model_copy(
            update={"phase": "Paused" if rollout.spec.paused else "Held", "message": wait}
        )
        return RolloutOutcome(status=status, next_at=world.now + 10 * LOOK)
    if since >= strategy.preview_for and is_dead(world.candidate):
        return wait_for_candidate(rollout, world)
    if since >= strategy.preview_for:
        return promote(rollout, world, f"previewed for {strategy.preview_for:g} s")
    at = (rollout.status.step_started_at or world.now) + datetime.timedelta(seconds=strategy.preview_for)
    status = rollout.status.model_copy(update={"phase": "Progressing", "message": "preview"})
    return RolloutOutcome(status=status, next_at=at)


def _promoting(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    waiting = _not_loaded(rollout.status, world)
    if waiting:
        return RolloutOutcome(
            status=rollout.status.model_copy(update={"message": waiting}), next_at=world.now + SOON
        )
    if is_dead(world.candidate) and rollout.spec.stable_revision is not None:
        return wait_for_candidate(rollout, world)
    strategy = rollout.spec.settings.strategy
    observe = strategy.observe if isinstance(strategy, BlueGreenStrategy) else 0.0
    if observe and rollout.spec.stable_revision is not None and rollout.spec.cause != "rollback":
        update = {
            "phase": "Observing",
            "loaded": True,
            "step_started_at": world.now,
            "message": f"observing for {observe:g} s",
        }
        return RolloutOutcome(status=rollout.status.model_copy(update=update), next_at=world.now + LOOK)
    return _promoted(rollout, world)


def _observing(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    """After a blue-green flip there is nothing to compare with: liveness (looked at before) and plain thresholds."""
    strategy = rollout.spec.settings.strategy
    observe = strategy.observe if isinstance(strategy, BlueGreenStrategy) else 0.0
    status = count(rollout.status, world.trial)
    rollout = rollout.model_copy(update={"status": status})
    look = look_at(rollout, world.trial, last=True, complete=False, capped=False)
    if look.decision == "rollback" and not is_dead(world.stable):
        return roll_back(rollout, world, look.reason, evidence=look.evidence)
    since = (world.now - (status.step_started_at or world.now)).total_seconds()
    if since >= observe or rollout.spec.requested == "promote" or world.newer_wish:
        return _promoted(rollout, world)
    return RolloutOutcome(status=status, next_at=world.now + LOOK)


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
            status=status.model_copy(update={"message": f"{reason}; {waiting}"}), next_at=world.now + SOON
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


def _not_loaded(status: RolloutStatus, world: RolloutWorld, *, wait_for_silent: bool = True) -> str:
    return not_loaded(world.gateways, world.now, status.weight_version, wait_for_silent=wait_for_silent)
