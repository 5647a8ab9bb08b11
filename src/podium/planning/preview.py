"""What an apply would lead to, in sentences, from the same pure decisions that the reconcilers act on.

Called by the API for `?dryRun` and by `podium diff` through it.
"""

from podium.planning.autoscaling import replicas_in_rollout, wanted_replicas
from podium.planning.deployments import Outcome, World, decide
from podium.planning.passages import passage
from podium.resources.kinds import Deployment
from podium.resources.quantities import format_duration
from podium.resources.rollout import FINAL_PHASES


def describe(old: Deployment | None, new: Deployment, world: World) -> list[str]:
    """Sentences, in the order in which things would happen. `new` has the status of `old`, if there is one."""
    if old is None and replicas_in_rollout(new) == 0:
        return ["It has no replicas: the gateway answers 503 until spec.replicas is raised."]
    if world.version is None:
        return [world.unresolved]
    outcome = decide(new, world)
    sentences = []
    if outcome.new_revision is not None:
        name, spec = outcome.new_revision
        sentences.append(f"Revision {name} is cut for {spec.model} version {spec.version}.")
    if outcome.superseded is not None:
        sentences.append(
            f"Rollout {outcome.superseded} is superseded: its candidate's traffic goes back first."
        )
    if outcome.new_rollout is not None:
        _, rollout = outcome.new_rollout
        if rollout.stable_revision is None:
            sentences.append("It is the first: it takes all traffic as soon as it is ready.")
        else:
            sentences += passage(rollout.settings, rollout.stable_revision, rollout.candidate_revision)
    else:
        sentences += _no_new_rollout(new, world, outcome)
    if outcome.status.rejected is not None:
        sentences.append(
            f"{outcome.status.rejected.revision} was taken back before; say `podium rollout retry`."
        )
    sentences += _replicas(old, new)
    return sentences or ["Nothing moves: the serving part is what is served already."]


def _replicas(old: Deployment | None, new: Deployment) -> list[str]:
    """What becomes of their number."""
    scaling = new.spec.scaling
    if scaling is not None:
        if old is not None and old.spec.scaling == scaling:
            return []
        target = scaling.target
        aim = (
            f"p95 {format_duration(target.value)}"
            if target.name == "p95"
            else f"{target.value:g} {target.name} each"
        )
        asleep = ", none without requests" if scaling.min == 0 else ""
        return [
            f"Replicas follow the load: {wanted_replicas(new)} now, {scaling.min} to {scaling.max} ({aim}){asleep}."
        ]
    before = None if old is None else wanted_replicas(old)
    return [] if before in (None, new.spec.replicas) else [f"Replicas: {before} -> {new.spec.replicas}."]


def _no_new_rollout(new: Deployment, world: World, outcome: Outcome) -> list[str]:
    """Why none is opened, where that is not plain from the rest."""
    under_way, latest = world.rollout, outcome.status.latest_revision
    if under_way is not None and under_way.status.phase not in FINAL_PHASES and outcome.superseded is None:
        name = under_way.metadata.name
        if under_way.spec.candidate_revision == latest:
            return [f"Rollout {name} goes on with the settings that it was opened with."]
        return [f"Rollout {name} has moved the traffic already and ends first; then {latest} has its turn."]
    if replicas_in_rollout(new) == 0 and latest != outcome.status.stable_revision:
        return [f"Nothing moves without replicas: {latest} has its turn when spec.replicas is raised."]
    return []
