"""The moves that a rollout can make, and what each one writes: pure.

Called by `rollouts`, whose states choose among them, and by `judging`, for what a look at the evidence leads to.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from podium.planning.gateways import GatewayView
from podium.planning.looks import Look, Trial
from podium.resources.kinds import Revision, Rollout
from podium.resources.rollout import Decision, RolloutStatus

LOOK = datetime.timedelta(seconds=1)
SOON = datetime.timedelta(milliseconds=200)
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


def wait_for_candidate(rollout: Rollout, world: RolloutWorld) -> RolloutOutcome:
    """No traffic moves to who cannot answer; that it stays down is found by liveness."""
    message = f"waiting for {rollout.spec.candidate_revision} to answer again"
    return RolloutOutcome(
        status=rollout.status.model_copy(update={"message": message}), next_at=world.now + LOOK
    )


def promote(
    rollout: Rollout, world: RolloutWorld, reason: str, *, evidence: dict[str, Any] | None = None
) -> RolloutOutcome:
    """All traffic to the candidate; the rollout ends when that is seen loaded."""
    return shift(
        rollout, world, to=(rollout.status.step, 100, "Promoting"), reason=reason, decision="promote", evidence=evidence
    )  # fmt: skip


def roll_back(
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
    outcome = shift(rollout, world, to=to, reason=reason, decision="rollback", evidence=evidence)
    return replace(
        outcome, status=outcome.status.model_copy(update={"preview": False}), next_at=world.now + SOON / 4
    )


def shift(
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
        "shadow": False,
    }  # fmt: skip
    if decision in ("rollback", "promote"):
        update["verdict_at"] = world.now
    name = {"rollback": "RollingBack", "promote": "Promoting"}.get(decision, "WeightChanged")
    kind: Literal["Normal", "Warning"] = "Warning" if decision == "rollback" else "Normal"
    words = f"{weight} % to {rollout.spec.candidate_revision}: {reason}"
    return RolloutOutcome(
        status=status.model_copy(update=update), events=((kind, name, words),), next_at=world.now + SOON / 4
    )


def stay(rollout: Rollout, world: RolloutWorld, look: Look, *, phase: str, message: str) -> RolloutOutcome:
    """No move: the look is kept, in the phase and with the words given."""
    status = _decided(
        rollout.status, world.now, look.decision, look.reason, look.evidence if phase == "Held" else None
    )
    events: tuple[tuple[Literal["Normal", "Warning"], str, str], ...] = ()
    if phase != rollout.status.phase:
        events = (("Warning" if phase == "Held" else "Normal", phase, message),)
    return RolloutOutcome(
        status=status.model_copy(update={"phase": phase, "message": message}),
        events=events,
        next_at=world.now + LOOK,
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


def count(status: RolloutStatus, trial: Trial) -> RolloutStatus:
    """With everything that was counted so far."""
    totals = trial.totals()
    return status.model_copy(
        update={
            "candidate_requests": totals.candidate_requests,
            "candidate_bad": totals.candidate_bad,
            "stable_requests": totals.stable_requests,
            "stable_bad": totals.stable_bad,
            "copies": totals.copies,
            "copies_bad": totals.copies_bad,
        }
    )


def is_dead(revision: Revision | None) -> bool:
    """Nobody of it answers."""
    return revision is None or revision.status.ready_replicas == 0


def machine_restarted(world: RolloutWorld) -> bool:
    """The stable revision was down as well and has just come back: after a reboot the candidate gets as long."""
    if world.stable is None or world.candidate is None or not world.stable.status.restarts:
        return False
    starts = [state.started_at for state in world.stable.status.replicas if state.started_at is not None]
    limit = datetime.timedelta(seconds=world.candidate.spec.runtime.startup_timeout)
    waits = world.candidate.status.phase not in ("CrashLoop", "Failed")
    # The oldest of its replicas: one of several that was started again says nothing about the machine.
    return waits and bool(starts) and world.now - min(starts) < limit


def why_dead(revision: Revision | None) -> str:
    """In words for a decision."""
    if revision is None:
        return "liveness: the candidate revision is gone"
    words = revision.status.message or revision.status.last_exit or "no replica is ready"
    return f"liveness: {revision.metadata.name} has no ready replica: {words}"


def later(now: datetime.datetime, seconds: float) -> datetime.datetime:
    """`now` plus `seconds`."""
    return now + datetime.timedelta(seconds=seconds)
