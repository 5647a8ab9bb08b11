"""Carries out what `planning.deployments` decides: revisions cut, rollouts opened, replicas wanted, the old pruned; and
what the autoscaler decides, in the same pass. Wakes the Routes whose status it may change."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace

from podium.control.loop import now
from podium.control.scaling import Autoscaler
from podium.planning import deployments as planning
from podium.planning.autoscaling import LoadSeen
from podium.planning.deployments import Outcome, World
from podium.planning.world import read_world
from podium.resources.deployment import DeploymentStatus
from podium.resources.kinds import DRAIN, AnyResource, Deployment, Revision, Rollout
from podium.resources.revision import RevisionStatus
from podium.resources.rollout import RolloutStatus
from podium.resources.shape import Metadata, OwnerReference, Resource, Spec, Status
from podium.store import Actor, Apply, Lease, Read, Store
from podium.targets.port import ProcessorClock


@dataclass(frozen=True)
class _Passed:
    """A pass that changed nothing: what it saw, and when a timer of its own would change something."""

    newest: tuple[tuple[int, int], int | None]
    deployment: Deployment
    world: World
    next_at: datetime.datetime | None


class DeploymentReconciler:
    """One pass: read the wish and the world, decide, write all of the outcome in one transaction."""

    kind = "Deployment"

    def __init__(
        self, store: Store, *, runtime_wheel: str, clocks: Mapping[str, ProcessorClock] | None = None
    ) -> None:
        """clocks: by the name of the target, of those that tell processor times. Where nothing tells them, what would
        follow them stays at its number, and says why."""
        self._store = store
        self._wheel = runtime_wheel
        self._scaler = Autoscaler(store, clocks or {})
        self._passed: dict[str, _Passed] = {}
        self._actor = Actor("deployment-reconciler", "system")

    def reconcile(self, lease: Lease) -> None:
        """Reads and writes inside the one transaction, but for what the gateways counted: nothing here talks to the
        world outside the database."""
        seen = self._scaler.look(lease, now())
        if seen is not None and self._only_looked(lease, seen):
            return
        self._passed.pop(lease.uid, None)
        with self._store.apply(lease, self._actor) as tx:
            deployment = tx.by_uid(lease.uid)
            if deployment is None:
                tx.finish(None)
                return
            world = read_world(tx, deployment, now=now(), runtime_wheel=self._wheel)
            wish, look_at, scaled = self._scaled(deployment, world, seen)
            outcome = planning.decide(wish, world)
            if scaled:
                outcome = replace(outcome, events=(*outcome.events, ("Normal", "Scaled", scaled)))
            self._write(tx, deployment, world, outcome)
            newest = _newest(tx, lease.uid, deployment)
            tx.finish(min((at for at in (outcome.next_at, look_at) if at is not None), default=None))
        nothing = Outcome(status=deployment.status, next_at=outcome.next_at)
        settled = world.version is not None and wish.status == deployment.status and outcome == nothing
        if seen is not None and settled:
            # A pass over all of it changed nothing: until something is new, only the load can change anything.
            self._passed[lease.uid] = _Passed(newest, deployment, world, outcome.next_at)

    def _only_looked(self, lease: Lease, seen: LoadSeen) -> bool:
        """The autoscaler's look every few seconds, where nothing else is new and it changes nothing: without a write,
        and without reading all revisions and rollouts again."""
        passed, at = self._passed.get(lease.uid), now()
        if passed is None or (passed.next_at is not None and passed.next_at <= at):
            return False
        with self._store.read() as tx:
            newest = _newest(tx, lease.uid, passed.deployment)
        if newest != passed.newest:
            return False
        decision = self._scaler.decide(passed.deployment, replace(passed.world, now=at), seen, quietly=True)
        if decision is None:
            return False
        times = [time for time in (decision.look_at, passed.next_at) if time is not None]
        self._store.release(lease, min(times), attempts=0)
        return True

    def _scaled(
        self, deployment: Deployment, world: World, seen: LoadSeen | None
    ) -> tuple[Deployment, datetime.datetime | None, str]:
        """The Deployment with the autoscaler's number, when to look again, and the words of an event."""
        if deployment.spec.scaling is None:
            status = deployment.status.model_copy(update={"scaling": None})
            return deployment.model_copy(update={"status": status}), None, ""
        if seen is None:
            # Scaling came between the look and this; or it is being deleted.
            deleting = deployment.metadata.deletion_requested_at is not None
            return deployment, None if deleting else world.now, ""
        decision = self._scaler.decide(deployment, world, seen)
        if decision is None:
            return deployment, None, ""
        status = deployment.status.model_copy(update={"scaling": decision.status})
        return deployment.model_copy(update={"status": status}), decision.look_at, decision.scaled

    def _write(self, tx: Apply, deployment: Deployment, world: World, outcome: Outcome) -> None:
        uid = deployment.uid
        if outcome.superseded is not None and world.rollout is not None:
            self._supersede(tx, world.rollout, outcome)
        if outcome.new_revision is not None:
            name, spec = outcome.new_revision
            status = RevisionStatus(wanted_replicas=outcome.wanted.get(name, 0))
            tx.create(_owned(deployment, "Revision", name, spec, status))
        for name in {**outcome.wanted, **outcome.sleeping, **outcome.warm, **outcome.baseline}:
            revision = world.revisions.get(name)
            if revision is not None and revision.metadata.uid is not None:
                tx.set_status(revision.metadata.uid, _wished(revision, outcome))
                tx.wake(revision.metadata.uid)
        if outcome.new_rollout is not None:
            name, wish = outcome.new_rollout
            tx.create(_owned(deployment, "Rollout", name, wish, RolloutStatus()))
        for kind, name in outcome.pruned:
            found = tx.find(kind, deployment.metadata.workspace, name)
            if found is not None and found.metadata.uid is not None:
                tx.request_deletion(found.metadata.uid)
        tx.set_status(uid, outcome.status)
        for type_, reason, message in outcome.events:
            tx.event(deployment, type_, reason, message)
        if outcome.finished:
            tx.remove_finalizer(uid, DRAIN)
        if outcome.finished or _tells_routes(deployment.status) != _tells_routes(outcome.status):
            for route in tx.naming("Route", deployment.metadata.workspace, deployment.metadata.name):
                tx.wake(route)

    @staticmethod
    def _supersede(tx: Apply, rollout: Rollout, outcome: Outcome) -> None:
        words = f"superseded by revision {outcome.status.latest_revision}"
        update = {
            "phase": "Superseded",
            "weight": 0,
            "preview": False,
            "shadow": False,
            "finished_at": now(),
            "message": words,
        }
        update["weight_version"] = tx.version
        tx.set_status(rollout.uid, rollout.status.model_copy(update=update))
        tx.wake(rollout.uid)
        tx.event(rollout, "Normal", "Superseded", words)
        tx.audit("rollout.superseded", rollout, words)


def _tells_routes(status: DeploymentStatus) -> tuple[bool, str, str | None]:
    """What the status of a Route depends on: that the Deployment is there, whether it is served, and the version that
    is, whose signature a cascade is held against."""
    return status.observed_generation > 0, status.phase, status.served_version


def _newest(tx: Read, uid: str, deployment: Deployment) -> tuple[tuple[int, int], int | None]:
    """What changes with the Deployment, with what it owns, and with its model's versions and aliases."""
    model = tx.find("Model", deployment.metadata.workspace, deployment.spec.model.name)
    return tx.newest_change(uid), model.metadata.resource_version if model is not None else None


def _wished(revision: Revision, outcome: Outcome) -> RevisionStatus:
    """Its status with what it is to run."""
    name, status = revision.metadata.name, revision.status
    wish: RevisionStatus = status.model_copy(
        update={
            "wanted_replicas": outcome.wanted.get(name, status.wanted_replicas),
            "sleeping": outcome.sleeping.get(name, status.sleeping),
            "warm_replicas": outcome.warm.get(name, status.warm_replicas),
            "baseline_replicas": outcome.baseline.get(name, status.baseline_replicas),
        }
    )
    return wish


def _owned(deployment: Deployment, kind: str, name: str, spec: Spec, status: Status) -> AnyResource:
    owner = OwnerReference(kind="Deployment", name=deployment.metadata.name, uid=deployment.uid)
    metadata = Metadata(
        name=name, workspace=deployment.metadata.workspace, labels=deployment.metadata.labels, owner=owner
    )
    return Resource(kind=kind, metadata=metadata, spec=spec, status=status)
