"""What a look at the evidence leads to, for each strategy that is judged while it is under way: pure.

Called by `rollouts`; calls `looks` for the look and `moves` for what follows.
"""

import datetime
from dataclasses import replace

from podium.planning.looks import Look, Trial, look_at, look_at_copies
from podium.planning.moves import (
    RolloutOutcome,
    RolloutWorld,
    count,
    is_dead,
    machine_restarted,
    promote,
    roll_back,
    shift,
    stay,
)
from podium.resources.kinds import Rollout
from podium.resources.quantities import format_duration
from podium.resources.strategies import AbTestStrategy, CanaryStep, ShadowStrategy, SteppedStrategy


def judge_step(rollout: Rollout, strategy: SteppedStrategy, world: RolloutWorld) -> RolloutOutcome:
    """A share of traffic in its turn: the next one, all of it after the last, or back."""
    status = rollout.status
    step = strategy.steps[status.step]
    since = _since(rollout, world)
    seen = world.trial.requests_at(status.weight)
    complete = seen >= step.requests if step.requests is not None else since >= (step.duration or 0.0)
    capped = since >= step_cap(step)
    last = status.step == len(strategy.steps) - 1
    look = look_at(rollout, _fair(world), last=last, complete=complete, capped=capped)
    rollout = rollout.model_copy(update={"status": count(status, world.trial)})
    look = _at_the_cap(rollout, look, capped=capped, seen=seen)
    next_one = None if last else (status.step + 1, strategy.steps[status.step + 1].weight, "Progressing")
    return _follow(rollout, world, look, to=next_one, capped=capped)


def judge_copies(rollout: Rollout, strategy: ShadowStrategy, world: RolloutWorld) -> RolloutOutcome:
    """The candidate answers copies: on to the first share of traffic, to a person, or back."""
    seen = world.trial.totals().copies
    capped = _since(rollout, world) >= strategy.max_duration
    look = look_at_copies(rollout, strategy, _fair(world), complete=seen >= strategy.requests, capped=capped)
    rollout = rollout.model_copy(update={"status": count(rollout.status, world.trial)})
    look = _at_the_cap(rollout, look, capped=capped, seen=seen)
    if look.decision == "advance" and strategy.then == "hold" and not is_dead(world.candidate):
        words = f"{look.reason}; waiting for `podium rollout promote` or `abort`"
        look, capped = replace(look, decision="hold", reason=words), True
    return _follow(rollout, world, look, to=(0, strategy.steps[0].weight, "Progressing"), capped=capped)


def judge_test(rollout: Rollout, strategy: AbTestStrategy, world: RolloutWorld) -> RolloutOutcome:
    """The split is held to its end; only what is worse ends it before."""
    end = _end_of(strategy, world.trial, _since(rollout, world))
    ended = end is not None
    look = look_at(rollout, _fair(world), last=True, complete=ended, capped=ended)
    rollout = rollout.model_copy(update={"status": count(rollout.status, world.trial)})
    if end is None or look.decision == "rollback" or rollout.spec.paused:
        if look.decision == "advance":
            look = replace(look, decision="continue")
        return _follow(rollout, world, look, to=None, capped=False)
    if strategy.on_end == "rollback":
        look = replace(look, decision="rollback", reason=f"{end}, and onEnd is rollback: {look.reason}")
    elif strategy.on_end == "hold":
        words = f"{end}; waiting for `podium rollout promote` or `abort`: {look.reason}"
        look = replace(look, decision="hold", reason=words)
    else:
        look = _at_the_cap(rollout, look, capped=True, seen=world.trial.requests_at(rollout.status.weight))
        look = replace(look, reason=f"{end}: {look.reason}")
    return _follow(rollout, world, look, to=None, capped=True)


def _end_of(strategy: AbTestStrategy, trial: Trial, since: float) -> str | None:
    """Why the test has ended; None while it goes on."""
    if strategy.requests is not None and trial.fewest_at(strategy.weight) >= strategy.requests:
        return f"the test has ended with {strategy.requests:,} requests of each arm"
    if strategy.duration is not None and since >= strategy.duration:
        return f"the test has ended after {format_duration(strategy.duration)}"
    return None


def _since(rollout: Rollout, world: RolloutWorld) -> float:
    """Seconds since the present weight was seen loaded everywhere."""
    return (world.now - (rollout.status.step_started_at or world.now)) / datetime.timedelta(seconds=1)


def _fair(world: RolloutWorld) -> Trial:
    """Both are down, or the whole machine was: that says nothing about the candidate."""
    if is_dead(world.stable) or machine_restarted(world):
        return replace(world.trial, candidate_ready=max(1, world.trial.candidate_ready))
    return world.trial


def _at_the_cap(rollout: Rollout, look: Look, *, capped: bool, seen: int) -> Look:
    """What the spec wants of an inconclusive look when there is no more time."""
    if look.decision != "hold" or not capped or rollout.spec.paused:
        return look
    wish = rollout.spec.settings.analysis.on_inconclusive
    if wish == "rollback":
        return replace(look, decision="rollback", reason=f"inconclusive: {look.reason}")
    if wish == "promote" and look.inconclusive and seen > 0:
        words = f"inconclusive, passed as the spec says: {look.reason}"
        return replace(look, decision="advance", reason=words)
    return look


def _follow(
    rollout: Rollout, world: RolloutWorld, look: Look, *, to: tuple[int, int, str] | None, capped: bool
) -> RolloutOutcome:
    """What a look comes to. `to`: where an advance leads; None: to all traffic. Traffic only moves to a revision that
    can answer: the other one keeps it until then."""
    status = rollout.status
    if look.decision == "rollback" and (not is_dead(world.stable) or is_dead(world.candidate)):
        return roll_back(rollout, world, look.reason, evidence=look.evidence)
    if look.decision == "rollback" or (look.decision == "advance" and is_dead(world.candidate)):
        spec = rollout.spec
        name = spec.stable_revision if look.decision == "rollback" else spec.candidate_revision
        words = f"waiting for {name} to answer again; then {look.decision}: {look.reason}"
        look = replace(look, decision="hold", reason=words)
    if rollout.spec.paused:
        where = "while copies are made" if status.shadow else f"at {status.weight} %"
        return stay(rollout, world, look, phase="Paused", message=f"paused {where}")
    if look.decision == "advance":
        if to is None:
            return promote(rollout, world, look.reason, evidence=look.evidence)
        return shift(rollout, world, to=to, reason=look.reason, evidence=look.evidence)
    held = look.decision == "hold" and capped
    return stay(rollout, world, look, phase="Held" if held else "Progressing", message=look.reason)


def step_cap(step: CanaryStep) -> float:
    """Seconds after which a step without enough evidence is inconclusive."""
    if step.max_duration is not None:
        return max(step.max_duration, step.duration or 0.0)
    return max(10 * step.duration, 60.0) if step.duration is not None else 3600.0
