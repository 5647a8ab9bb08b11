"""What people do to rollouts: pause, resume, promote, abort, retry, and rolling back to an earlier revision.

Called by `routes/deployments` inside one write transaction. It writes wishes (specs and the audit row); the
reconcilers carry them out.
"""

from typing import Any

from podium.planning.deployments import ROLLBACK_ANNOTATION
from podium.resources.errors import Refused
from podium.resources.kinds import AnyResource, Deployment, Revision, Rollout
from podium.resources.requests import ActionResult
from podium.resources.rollout import FINAL_PHASES
from podium.store import Write

_MOVED = {
    "Promoting": "all traffic is on its way to the candidate",
    "Observing": "the candidate has all traffic",
}


def act(tx: Write, deployment: Deployment, action: str) -> ActionResult:
    """pause, resume, promote, abort or retry. Raises Refused, in words, where there is nothing to act on."""
    _check_alive(deployment)
    if action == "retry":
        return _retry(tx, deployment)
    rollout = under_way(tx, deployment)
    if rollout is None:
        raise Refused(
            f"no rollout of Deployment {deployment.metadata.name} is under way; its phase is {deployment.status.phase}",
            next_step=f"podium rollout history {deployment.metadata.name}",
        )
    return _request(tx, rollout, action)


def under_way(tx: Write, deployment: Deployment) -> Rollout | None:
    """The rollout that moves traffic at present."""
    if deployment.status.rollout is None:
        return None
    rollout = tx.find("Rollout", deployment.metadata.workspace, deployment.status.rollout)
    return None if rollout is None or rollout.status.phase in FINAL_PHASES else rollout


def _check_alive(deployment: Deployment) -> None:
    if deployment.metadata.deletion_requested_at is not None:
        raise Refused(f"Deployment {deployment.metadata.name} is being deleted")


def _request(tx: Write, rollout: Rollout, action: str) -> ActionResult:
    name, phase, spec = rollout.metadata.name, rollout.status.phase, rollout.spec
    if phase == "RollingBack" or spec.requested == "abort":
        if action == "abort":
            return ActionResult(message=f"{name} is being rolled back already", object=rollout.document())
        raise Refused(
            f"{name} is being rolled back: {rollout.status.message}", next_step="wait until it has ended"
        )
    if action in ("pause", "resume") and (phase in _MOVED or spec.requested == "promote"):
        why = _MOVED.get(phase, "it is being promoted")
        raise Refused(f"{name} can no longer be paused: {why}", next_step="abort takes all of it back")
    wishes: dict[str, dict[str, Any]] = {
        "pause": {"paused": True},
        "resume": {"paused": False},
        "promote": {"requested": "promote", "paused": False},
        "abort": {"requested": "abort", "paused": False},
    }
    words = {
        "pause": f"{name} stays at {rollout.status.weight} %",
        "resume": f"{name} goes on from {rollout.status.weight} %",
        "promote": f"{spec.candidate_revision} gets all traffic",
        "abort": f"all traffic goes back to {spec.stable_revision or 'nothing: there is no stable revision'}",
    }[action]
    wish = spec.model_copy(update=wishes[action])
    if wish == spec:
        return ActionResult(message=f"nothing to do: {words}", object=rollout.document())
    wish = wish.model_copy(update={"requested_by": tx.actor.name})
    written = tx.replace(rollout.uid, spec=wish, expected_version=None)
    tx.audit(f"rollout.{action}", written, words)
    tx.event(written, "Normal", action.capitalize(), f"{words} (asked for by {tx.actor.name})")
    return ActionResult(message=words, object=written.document())


def _retry(tx: Write, deployment: Deployment) -> ActionResult:
    rejected = deployment.status.rejected
    if rejected is None:
        raise Refused(
            f"no revision of Deployment {deployment.metadata.name} was taken back: there is nothing to retry",
            next_step=f"podium rollout status {deployment.metadata.name}",
        )
    written = tx.set_status(deployment.uid, deployment.status.model_copy(update={"rejected": None}))
    tx.wake(deployment.uid)
    words = f"{rejected.revision} is tried again"
    tx.audit("rollout.retry", written, words)
    tx.event(written, "Normal", "Retry", f"{words} (asked for by {tx.actor.name})")
    return ActionResult(message=words, object=written.document())


def roll_back(tx: Write, deployment: Deployment, name: str | None) -> ActionResult:
    """Gives the traffic to an earlier revision.

    While a rollout is under way, None or its stable revision means: abort it. Else None is the revision that was
    stable before the present one. Raises Refused naming the revisions that there are.
    """
    _check_alive(deployment)
    rollout = under_way(tx, deployment)
    if (
        rollout is not None
        and rollout.spec.cause == "rollback"
        and name in (None, rollout.spec.candidate_revision)
    ):
        words = f"{rollout.metadata.name} is going back to {rollout.spec.candidate_revision} already"
        return ActionResult(message=words, object=rollout.document())
    if rollout is not None and name in (None, rollout.spec.stable_revision):
        return _request(tx, rollout, "abort")
    revisions = {item.metadata.name: item for item in tx.list("Revision", owner_uid=deployment.uid).items}
    if name is None:
        name = _before(tx, deployment)
    revision = revisions.get(name) if name else None
    if revision is None or revision.metadata.deletion_requested_at is not None:
        why = f"has no revision {name}" if name else "has no earlier revision that was stable"
        known = ", ".join(sorted(revisions)) or "none"
        raise Refused(f"Deployment {deployment.metadata.name} {why}; revisions: {known}")
    return _serve_again(tx, deployment, revision)


def _before(tx: Write, deployment: Deployment) -> str | None:
    """What the newest promotion of the present stable revision took over from."""
    promotions = [
        item
        for item in tx.list("Rollout", owner_uid=deployment.uid).items
        if item.status.phase == "Promoted"
        and item.spec.candidate_revision == deployment.status.stable_revision
        and item.spec.stable_revision is not None
        # A rollback took over from what was to be got rid of: what stood before it is an older promotion's.
        and item.spec.cause != "rollback"
    ]
    newest = max(promotions, key=lambda item: item.metadata.created_at or tx.now, default=None)
    return None if newest is None else newest.spec.stable_revision


def _serve_again(tx: Write, deployment: Deployment, revision: Revision) -> ActionResult:
    name, wish = revision.metadata.name, revision.spec
    if tx.find("ModelVersion", deployment.metadata.workspace, f"{wish.model}.{wish.version}") is None:
        raise Refused(f"{name} cannot serve again: {wish.model} version {wish.version} was deleted")
    spec = deployment.spec.model_copy(
        update={
            "model": deployment.spec.model.model_copy(
                update={"name": wish.model, "version": wish.version, "alias": None}
            ),
            "target": wish.target,
            "resources": wish.resources,
            "runtime": wish.runtime,
            "sandbox": wish.sandbox,
            "idempotent": wish.idempotent,
        }
    )
    generation = (deployment.metadata.generation or 0) + (spec != deployment.spec)
    annotations = {**deployment.metadata.annotations, ROLLBACK_ANNOTATION: f"{name}@{generation}"}
    written: AnyResource = tx.replace(
        deployment.uid, spec=spec, annotations=annotations, expected_version=None
    )
    words = f"back to {name} ({wish.model} version {wish.version})"
    if written.metadata.resource_version == deployment.metadata.resource_version:
        return ActionResult(message=f"nothing to do: the wish is {name} already", object=written.document())
    tx.audit("rollback", written, words)
    tx.event(written, "Normal", "Rollback", f"{words} (asked for by {tx.actor.name})")
    return ActionResult(message=words, object=written.document())
