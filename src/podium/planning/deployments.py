"""What a Deployment does next: a pure function of the wish and the world.

Called by `control.deployments`, which carries the outcome out in one transaction, and by `planning.preview`.
"""

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from podium.planning.autoscaling import replicas_in_rollout, wanted_replicas
from podium.resources.deployment import DeploymentPhase, DeploymentSpec, DeploymentStatus, RolloutSettings
from podium.resources.kinds import Deployment, ModelVersion, Revision, Rollout
from podium.resources.manifest import canonical_json
from podium.resources.revision import RevisionSpec
from podium.resources.rollout import FINAL_PHASES, RolloutSpec, has_baseline
from podium.resources.strategies import RecreateStrategy

ROLLBACK_ANNOTATION = "podium/rollback-to"
"""`REVISION@GENERATION`, written by a rollback: that generation's wish is to have that revision back."""
_LEAST_KEEP = 1.0
"""Seconds that a revision outlives its last traffic, so that requests under way end in peace."""


@dataclass(frozen=True)
class World:
    """What the reconciler saw. `version` is None where the model, version or alias does not resolve."""

    now: datetime.datetime
    version: ModelVersion | None
    unresolved: str
    revisions: Mapping[str, Revision]
    rollout: Rollout | None
    """The one that `status.rollout` names."""
    runtime_wheel: str
    rollouts: Sequence[Rollout] = ()
    """All rollouts of the Deployment, for pruning."""


@dataclass(frozen=True)
class Outcome:
    """What to write. Everything is done in one transaction, or nothing."""

    status: DeploymentStatus
    new_revision: tuple[str, RevisionSpec] | None = None
    new_rollout: tuple[str, RolloutSpec] | None = None
    superseded: str | None = None
    """Name of the rollout to end now; its candidate's traffic goes back to the stable revision."""
    wanted: Mapping[str, int] = field(default_factory=dict)
    """Revision name -> replicas, for those that differ from what they want now."""
    sleeping: Mapping[str, bool] = field(default_factory=dict)
    """The same for whether a request may wake it."""
    warm: Mapping[str, int] = field(default_factory=dict)
    """The same for replicas that are ready, but in no route."""
    baseline: Mapping[str, int] = field(default_factory=dict)
    """The same for fresh replicas that a candidate is compared with."""
    pruned: tuple[tuple[Literal["Revision", "Rollout"], str], ...] = ()
    finished: bool = False
    """Deletion: nothing is left, the finalizer may go."""
    events: tuple[tuple[Literal["Normal", "Warning"], str, str], ...] = ()
    next_at: datetime.datetime | None = None


def content_hash(spec: DeploymentSpec | RevisionSpec, manifest_digest: str, runtime_wheel: str) -> str:
    """sha256 over what decides how a replica behaves. Neither replica count nor rollout settings are in it.

    Two of them may be compared only when this same code made both: a field that a later Podium adds is in it too.
    """
    wish = spec.model_dump(
        mode="json", by_alias=True, include={"target", "resources", "runtime", "sandbox", "idempotent"}
    )
    return hashlib.sha256(canonical_json([wish, manifest_digest, runtime_wheel])).hexdigest()


def revision_spec(
    deployment: Deployment, version: ModelVersion, number: int, runtime_wheel: str
) -> RevisionSpec:
    """The revision that the present wish asks for."""
    spec = deployment.spec
    return RevisionSpec(
        deployment=deployment.metadata.name,
        deployment_uid=deployment.uid,
        number=number,
        model=version.spec.model,
        version=version.spec.version,
        manifest_digest=version.spec.digest,
        runtime_wheel=runtime_wheel,
        target=spec.target,
        resources=spec.resources,
        runtime=spec.runtime,
        sandbox=spec.sandbox,
        idempotent=spec.idempotent,
        content_hash=content_hash(spec, version.spec.digest, runtime_wheel),
    )


def rollback_target(deployment: Deployment) -> str | None:
    """The revision that a person asked to have back by the wish as it is now; later wishes end that."""
    value = deployment.metadata.annotations.get(ROLLBACK_ANNOTATION, "")
    name, _, generation = value.partition("@")
    return name if generation == str(deployment.metadata.generation) else None


def matching_revision(deployment: Deployment, version: ModelVersion, world: World) -> Revision | None:
    """An earlier revision with the same content. Those that matter now match whatever runtime wheel they were made
    with: an upgrade of Podium alone rolls nothing out, ends no rollout and tries nothing again. One that is being
    deleted matches nothing: it would never be ready."""
    rejected, current = deployment.status.rejected, world.rollout
    kept = (
        rollback_target(deployment),
        deployment.status.stable_revision,
        rejected.revision if rejected is not None else None,
        current.spec.candidate_revision if current is not None else None,
    )
    lasting = {
        name: revision
        for name, revision in world.revisions.items()
        if revision.metadata.deletion_requested_at is None
    }
    for name in kept:
        known = lasting.get(name or "")
        if known is not None and _is_wish(deployment, version, known, known.spec.runtime_wheel):
            return known
    found = [one for one in lasting.values() if _is_wish(deployment, version, one, world.runtime_wheel)]
    return max(found, key=lambda revision: revision.spec.number, default=None)


def _is_wish(deployment: Deployment, version: ModelVersion, revision: Revision, runtime_wheel: str) -> bool:
    """The revision serves what the wish says. Its stored hash is not asked: an earlier Podium that knew fewer fields
    made another one of the same content."""
    wish = content_hash(deployment.spec, version.spec.digest, runtime_wheel)
    return wish == content_hash(revision.spec, revision.spec.manifest_digest, revision.spec.runtime_wheel)


def decide(deployment: Deployment, world: World) -> Outcome:
    """The next idempotent step."""
    if deployment.metadata.deletion_requested_at is not None:
        return _decide_deletion(deployment, world)
    status = deployment.status.model_copy(update={"observed_generation": deployment.metadata.generation or 0})
    if world.version is None:
        phase = _serving_phase(deployment, status, world) if status.stable_revision else "Failed"
        status = status.model_copy(update={"phase": phase, "message": world.unresolved})
        return _with_replicas(deployment, world, Outcome(status=status))
    revision = matching_revision(deployment, world.version, world)
    new_revision = None
    if revision is None:
        number = status.revision_count + 1
        name = f"{deployment.metadata.name}-{number:05d}"
        new_revision = (name, revision_spec(deployment, world.version, number, world.runtime_wheel))
        status = status.model_copy(update={"revision_count": number, "latest_revision": name})
    else:
        name = revision.metadata.name
        status = status.model_copy(update={"latest_revision": name})
    outcome = _decide_rollout(deployment, world, status, name)
    events = outcome.events
    if new_revision is not None:
        words = f"revision {name} for {world.version.spec.model} version {world.version.spec.version}"
        events = (("Normal", "RevisionCreated", words), *events)
    outcome = replace(outcome, new_revision=new_revision, events=events)
    return _with_replicas(deployment, world, outcome)


def _decide_rollout(deployment: Deployment, world: World, status: DeploymentStatus, latest: str) -> Outcome:
    generation = deployment.metadata.generation or 0
    current = world.rollout
    if current is not None and current.status.phase not in FINAL_PHASES:
        if current.spec.candidate_revision == latest:
            return Outcome(status=status)
        if current.status.phase in ("Promoting", "RollingBack", "Observing"):
            # Traffic has moved already; the flip under way ends in a moment, then this is decided anew.
            return Outcome(status=status, next_at=world.now + datetime.timedelta(seconds=0.5))
        status = status.model_copy(update={"rollout": None, "retiring": _retire(status, current, world.now)})
        return _open(deployment, world, status, latest, superseded=current.metadata.name)
    if status.rollout is not None and current is None:
        status = status.model_copy(update={"rollout": None})
    rejected = status.rejected
    if rejected is not None:
        # Only another revision, or a person's `retry`, ends it: a replica count or a timeout makes no version better.
        rejected = (
            None if rejected.revision != latest else rejected.model_copy(update={"generation": generation})
        )
        status = status.model_copy(update={"rejected": rejected})
    if latest == status.stable_revision or rejected is not None:
        return Outcome(status=status)
    return _open(deployment, world, status, latest, superseded=None)


def _open(
    deployment: Deployment, world: World, status: DeploymentStatus, latest: str, *, superseded: str | None
) -> Outcome:
    if latest == status.stable_revision:
        return Outcome(status=status, superseded=superseded)
    if replicas_in_rollout(deployment) == 0 and status.stable_revision is not None:
        return Outcome(status=status.model_copy(update={"rollout": None}), superseded=superseded)
    if replicas_in_rollout(deployment) == 0:
        # Nothing is served, so there is nothing to move: the revision waits to be scaled up.
        words = f"{latest} is the stable revision; spec.replicas is 0"
        idle = status.model_copy(update={"stable_revision": latest, "rollout": None})
        return Outcome(status=idle, superseded=superseded, events=(("Normal", "Idle", words),))
    number = status.rollout_count + 1
    name = f"{deployment.metadata.name}-{number}"
    cause: Literal["apply", "alias", "rollback", "first"] = (
        "alias" if deployment.spec.model.alias else "apply"
    )
    proven = any(
        item.status.phase == "Promoted" and item.spec.candidate_revision == latest for item in world.rollouts
    )
    if proven and rollback_target(deployment) == latest:
        # All traffic at once, unjudged: only for what has passed its gates before.
        cause = "rollback"
    if status.stable_revision is None:
        cause = "first"
    spec = RolloutSpec(
        deployment=deployment.metadata.name,
        deployment_uid=deployment.uid,
        generation=deployment.metadata.generation or 0,
        stable_revision=status.stable_revision,
        candidate_revision=latest,
        settings=deployment.spec.rollout,
        cause=cause,
    )
    retiring = {revision: until for revision, until in status.retiring.items() if revision != latest}
    status = status.model_copy(update={"rollout": name, "rollout_count": number, "retiring": retiring})
    words = f"{name}: {status.stable_revision or 'nothing'} -> {latest}"
    return Outcome(
        status=status,
        new_rollout=(name, spec),
        superseded=superseded,
        events=(("Normal", "RolloutStarted", words),),
    )


def keep_old_seconds(settings: RolloutSettings) -> float:
    """How long the losing revision stays warm after a rollout, at least one second."""
    strategy = settings.strategy
    keep = 0.0 if isinstance(strategy, RecreateStrategy) else strategy.keep_old
    return max(_LEAST_KEEP, keep)


def _retire(
    status: DeploymentStatus, rollout: Rollout, now: datetime.datetime
) -> dict[str, datetime.datetime]:
    until = now + datetime.timedelta(seconds=_LEAST_KEEP)
    return {**status.retiring, rollout.spec.candidate_revision: until}


def _with_replicas(deployment: Deployment, world: World, outcome: Outcome) -> Outcome:
    """Who must run how many replicas, the phase that follows, and what is old enough to go."""
    status, now = outcome.status, world.now
    rollout_active = world.rollout is not None and world.rollout.status.phase not in FINAL_PHASES
    moving = (rollout_active and outcome.superseded is None) or outcome.new_rollout is not None
    replicas = replicas_in_rollout(deployment) if moving else wanted_replicas(deployment)
    keep = {
        status.stable_revision,
        outcome.new_rollout[1].candidate_revision if outcome.new_rollout else None,
    }
    if rollout_active and world.rollout is not None and outcome.superseded is None:
        keep |= {world.rollout.spec.candidate_revision, world.rollout.spec.stable_revision}
    retiring = {
        name: until for name, until in status.retiring.items() if until > now and name in world.revisions
    }
    wanted = {}
    for name, revision in world.revisions.items():
        want = replicas if name in keep or name in retiring else 0
        if revision.status.wanted_replicas != want:
            wanted[name] = want
    if outcome.new_revision is not None:
        wanted[outcome.new_revision[0]] = replicas if outcome.new_revision[0] in keep else 0
    outcome = _with_reserves(deployment, world, outcome, replicas)
    status = status.model_copy(update={"retiring": retiring})
    stable = world.revisions.get(status.stable_revision or "")
    message = status.message if world.version is None else _scaling_message(deployment, stable)
    if status.rejected is not None and world.version is not None:
        message = f"{status.rejected.revision} was taken back: {status.rejected.reason}"
    if rollout_active and world.rollout is not None and world.rollout.status.silent_gateways:
        message = f"{world.rollout.metadata.name} {world.rollout.status.message}"
    phase: DeploymentPhase = status.phase
    if world.version is not None or status.stable_revision is not None:
        phase = _serving_phase(deployment, status, world)
    if status.rollout is not None and outcome.superseded is None and (rollout_active or outcome.new_rollout):
        phase = "Progressing"
    status = status.model_copy(
        update={
            "phase": phase,
            "message": message,
            "ready_replicas": stable.status.ready_replicas if stable else 0,
            "served_version": stable.spec.version if stable else None,
        }
    )
    times = [outcome.next_at, *retiring.values()]
    return replace(
        outcome,
        status=status,
        wanted=wanted,
        pruned=_prune(deployment, world, status, keep | set(retiring)),
        next_at=min((at for at in times if at is not None), default=None),
    )


def _with_reserves(deployment: Deployment, world: World, outcome: Outcome, replicas: int) -> Outcome:
    """Which revision a request may wake, and how many replicas stand by: both of the stable one only. Whoever sleeps
    has none standing by: that would be a replica that is awake."""
    scaling = deployment.spec.scaling
    asleep = scaling is not None and scaling.min == 0 and replicas == 0
    warm = scaling.warm if scaling is not None and not asleep else 0
    names = {name: revision.status for name, revision in world.revisions.items()}
    stable = outcome.status.stable_revision
    sleeping = {name: asleep and name == stable for name in names}
    standing_by = {name: warm if name == stable else 0 for name in names}
    compared = _compared_with(world, outcome)
    baseline = {name: replicas if name == compared else 0 for name in names}
    return replace(
        outcome,
        baseline={name: count for name, count in baseline.items() if names[name].baseline_replicas != count},
        sleeping={name: now for name, now in sleeping.items() if names[name].sleeping != now},
        warm={name: count for name, count in standing_by.items() if names[name].warm_replicas != count},
    )


def _compared_with(world: World, outcome: Outcome) -> str | None:
    """The revision whose fresh replicas the candidate of the rollout under way is compared with, if there are any."""
    spec = outcome.new_rollout[1] if outcome.new_rollout is not None else None
    current = world.rollout
    if spec is None and current is not None and outcome.superseded is None:
        ends = current.status.phase in (*FINAL_PHASES, "Promoting", "RollingBack")
        spec = None if ends else current.spec
    return spec.stable_revision if spec is not None and has_baseline(spec) else None


def _scaling_message(deployment: Deployment, stable: Revision | None) -> str:
    """What a person should know of the autoscaler without asking for more."""
    known, wanted = deployment.status.scaling, wanted_replicas(deployment)
    if deployment.spec.scaling is None or known is None or stable is None:
        return ""
    if wanted == 0:
        return f"asleep: {known.reason}; a request wakes it" if known.reason else "asleep; a request wakes it"
    if known.limited:
        return known.limited
    ready = stable.status.ready_replicas
    return f"{ready} of {wanted} replicas are ready: {known.reason}" if ready < wanted else ""


def _serving_phase(deployment: Deployment, status: DeploymentStatus, world: World) -> DeploymentPhase:
    stable = world.revisions.get(status.stable_revision or "")
    if stable is None:
        return "Failed" if status.rejected is not None else "Pending"
    ready, wanted, scaling = (
        stable.status.ready_replicas,
        wanted_replicas(deployment),
        deployment.spec.scaling,
    )
    if ready >= wanted:
        return "Ready"
    if scaling is not None and ready >= max(1, scaling.min) and not stable.status.failures:
        # It grows, and whoever it had before serves on.
        return "Ready"
    return (
        "Degraded" if ready or stable.status.phase in ("CrashLoop", "Failed", "Degraded") else "Progressing"
    )


def _prune(
    deployment: Deployment, world: World, status: DeploymentStatus, keep: set[str | None]
) -> tuple[tuple[Literal["Revision", "Rollout"], str], ...]:
    limit = deployment.spec.revision_history
    proven = {item.spec.candidate_revision for item in world.rollouts if item.status.phase == "Promoted"}
    takeovers = [item for item in world.rollouts if item.spec.candidate_revision == status.stable_revision]
    earlier = {item.spec.stable_revision for item in takeovers if item.status.phase == "Promoted"}
    # What a rollback would go to is never history, nor is the promotion that tells so.
    keep = keep | (proven & earlier)
    promotions = [
        item for item in world.rollouts
        if item.status.phase == "Promoted" and item.spec.cause != "rollback" and item.spec.candidate_revision in keep
    ]  # fmt: skip
    promotions.sort(key=lambda rollout: rollout.metadata.created_at or world.now)
    telling = {item.spec.candidate_revision: item.metadata.name for item in promotions}
    idle = [
        revision
        for name, revision in world.revisions.items()
        if name not in keep and name != status.latest_revision and not revision.status.replicas
        and revision.metadata.deletion_requested_at is None
    ]  # fmt: skip
    idle.sort(key=lambda revision: revision.spec.number, reverse=True)
    ended = [
        rollout for rollout in world.rollouts
        if rollout.status.phase in FINAL_PHASES and rollout.metadata.name not in telling.values()
    ]  # fmt: skip
    ended.sort(key=lambda rollout: rollout.metadata.created_at or world.now, reverse=True)
    return tuple(
        [("Revision", revision.metadata.name) for revision in idle[limit:]]
        + [
            ("Rollout", rollout.metadata.name)
            for rollout in ended[limit:]
            if rollout.metadata.name != status.rollout
        ]
    )


def _decide_deletion(deployment: Deployment, world: World) -> Outcome:
    """First the routes go (the routing plan of a Deployment being deleted is empty), then replicas drain, each
    Revision by its own finalizer, and last the Deployment."""
    status = deployment.status.model_copy(update={"phase": "Deleting", "message": "draining"})
    pruned: list[tuple[Literal["Revision", "Rollout"], str]] = []
    pruned += [("Rollout", rollout.metadata.name) for rollout in world.rollouts]
    pruned += [
        ("Revision", name)
        for name, revision in world.revisions.items()
        if revision.metadata.deletion_requested_at is None
    ]
    wanted = {name: 0 for name, revision in world.revisions.items() if revision.status.wanted_replicas}
    sleeping = {name: False for name, revision in world.revisions.items() if revision.status.sleeping}
    warm = {name: 0 for name, revision in world.revisions.items() if revision.status.warm_replicas}
    finished = not world.revisions and not world.rollouts
    next_at = None if finished else world.now + datetime.timedelta(seconds=0.2)
    return Outcome(
        status=status, wanted=wanted, sleeping=sleeping, warm=warm, pruned=tuple(pruned), finished=finished,
        baseline={name: 0 for name, revision in world.revisions.items() if revision.status.baseline_replicas},
        next_at=next_at,
    )  # fmt: skip
