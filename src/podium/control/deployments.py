"""Carries out what `planning.deployments` decides: revisions cut, rollouts opened, replicas wanted, the old pruned."""

from podium.control.loop import now
from podium.planning import deployments as planning
from podium.planning.deployments import Outcome, World
from podium.planning.world import read_world
from podium.resources.kinds import DRAIN, AnyResource, Deployment, Rollout
from podium.resources.revision import RevisionStatus
from podium.resources.rollout import RolloutStatus
from podium.resources.shape import Metadata, OwnerReference, Resource, Spec, Status
from podium.store import Actor, Apply, Lease, Store


class DeploymentReconciler:
    """One pass: read the wish and the world, decide, write all of the outcome in one transaction."""

    kind = "Deployment"

    def __init__(self, store: Store, *, runtime_wheel: str) -> None:
        self._store = store
        self._wheel = runtime_wheel
        self._actor = Actor("deployment-reconciler", "system")

    def reconcile(self, lease: Lease) -> None:
        """Reads and writes inside the one transaction: nothing here talks to the world outside the database."""
        with self._store.apply(lease, self._actor) as tx:
            deployment = tx.by_uid(lease.uid)
            if deployment is None:
                tx.finish(None)
                return
            world = read_world(tx, deployment, now=now(), runtime_wheel=self._wheel)
            outcome = planning.decide(deployment, world)
            self._write(tx, deployment, world, outcome)
            tx.finish(outcome.next_at)

    def _write(self, tx: Apply, deployment: Deployment, world: World, outcome: Outcome) -> None:
        uid = deployment.uid
        if outcome.superseded is not None and world.rollout is not None:
            self._supersede(tx, world.rollout, outcome)
        if outcome.new_revision is not None:
            name, spec = outcome.new_revision
            status = RevisionStatus(wanted_replicas=outcome.wanted.get(name, 0))
            tx.create(_owned(deployment, "Revision", name, spec, status))
        for name, replicas in outcome.wanted.items():
            revision = world.revisions.get(name)
            if revision is not None and revision.metadata.uid is not None:
                tx.set_status(
                    revision.metadata.uid, revision.status.model_copy(update={"wanted_replicas": replicas})
                )
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

    @staticmethod
    def _supersede(tx: Apply, rollout: Rollout, outcome: Outcome) -> None:
        words = f"superseded by revision {outcome.status.latest_revision}"
        update = {
            "phase": "Superseded",
            "weight": 0,
            "preview": False,
            "finished_at": now(),
            "message": words,
        }
        update["weight_version"] = tx.version
        tx.set_status(rollout.uid, rollout.status.model_copy(update=update))
        tx.wake(rollout.uid)
        tx.event(rollout, "Normal", "Superseded", words)
        tx.audit("rollout.superseded", rollout, words)


def _owned(deployment: Deployment, kind: str, name: str, spec: Spec, status: Status) -> AnyResource:
    owner = OwnerReference(kind="Deployment", name=deployment.metadata.name, uid=deployment.uid)
    metadata = Metadata(
        name=name, workspace=deployment.metadata.workspace, labels=deployment.metadata.labels, owner=owner
    )
    return Resource(kind=kind, metadata=metadata, spec=spec, status=status)
