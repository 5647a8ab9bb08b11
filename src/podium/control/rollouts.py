"""Carries out what `planning.rollouts` decides: weights written, verdicts recorded, the Deployment told of the end.

Called by the loop, woken by gateway reports. Reads the samples that gateways sent; writes one transaction per pass.
"""

import time
from dataclasses import replace

from podium.control.comparisons import comparison_of
from podium.control.evidence import EvidenceReader
from podium.control.gateways import known_gateways
from podium.control.loop import now
from podium.planning import rollouts as planning
from podium.planning.autoscaling import replicas_in_rollout
from podium.planning.deployments import keep_old_seconds
from podium.planning.looks import Trial
from podium.planning.moves import RolloutOutcome, RolloutWorld, later
from podium.resources.deployment import DeploymentStatus, RejectedRevision
from podium.resources.kinds import Deployment, Revision, Rollout
from podium.resources.rollout import RolloutStatus
from podium.store import Actor, Apply, Lease, Store

_LONGEST_PAUSE = 30.0


class RolloutReconciler:
    """One pass: read evidence, decide, write."""

    kind = "Rollout"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._evidence = EvidenceReader(store)
        self._actor = Actor("rollout-reconciler", "system")
        self._written: dict[str, float] = {}

    def reconcile(self, lease: Lease) -> None:
        """Decides from what one consistent snapshot shows, and writes only if the lease still holds."""
        candidate = stable = None
        with self._store.read() as tx:
            rollout = tx.by_uid(lease.uid)
            deployment = tx.by_uid(rollout.spec.deployment_uid) if rollout is not None else None
            if rollout is not None:
                wish, place = rollout.spec, rollout.metadata.workspace
                candidate = tx.find("Revision", place, wish.candidate_revision)
                stable = tx.find("Revision", place, wish.stable_revision) if wish.stable_revision else None
        if rollout is None or deployment is None or deployment.status.rollout != rollout.metadata.name:
            self._forget(lease.uid)
            self._store.release(lease, None)
            return
        workspace, spec = rollout.metadata.workspace, rollout.spec
        world = RolloutWorld(
            now=now(),
            candidate=candidate,
            stable=stable,
            replicas=replicas_in_rollout(deployment),
            gateways=known_gateways(self._store, now(), workspace=workspace, deployment=spec.deployment),
            trial=self._trial(rollout, candidate, replicas_in_rollout(deployment)),
            newer_wish=deployment.status.latest_revision != spec.candidate_revision,
        )
        outcome = planning.decide(rollout, world)
        if outcome.ended is None and not outcome.events and not self._worth_writing(rollout, outcome.status):
            self._store.release(lease, outcome.next_at, attempts=0)
            return
        self._apply(lease, rollout, outcome)

    def _trial(self, rollout: Rollout, candidate: Revision | None, wanted: int) -> Trial:
        trial = self._evidence.trial(rollout, candidate, wanted)
        champion = rollout.spec.stable_revision
        if not rollout.status.shadow or candidate is None or champion is None:
            return trial
        return replace(trial, comparison=comparison_of(self._store, champion, candidate.uid))

    def _forget(self, uid: str) -> None:
        self._evidence.forget(uid)
        self._written.pop(uid, None)

    def _worth_writing(self, rollout: Rollout, status: RolloutStatus) -> bool:
        """Every act is written at once; mere counts now and then, the less often the longer the rollout lasts: what a
        look saw can be had again from the samples."""
        before = rollout.status
        if status == before:
            return False
        if _acts(status) != _acts(before):
            return True
        started = status.started_at or now()
        pause = min(_LONGEST_PAUSE, (now() - started).total_seconds() / 20)
        return time.monotonic() - self._written.get(rollout.uid, 0.0) >= pause

    def _apply(self, lease: Lease, seen: Rollout, outcome: RolloutOutcome) -> None:
        with self._store.apply(lease, self._actor) as tx:
            current = tx.by_uid(lease.uid)
            deployment = tx.by_uid(seen.spec.deployment_uid)
            if current is None or deployment is None or deployment.status.rollout != current.metadata.name:
                tx.finish(None)
                return
            if current.spec != seen.spec:
                # Someone paused, promoted or aborted meanwhile: decide again, with that known.
                tx.finish(now())
                return
            status = outcome.status
            if (status.weight, status.phase) != (seen.status.weight, seen.status.phase) and not status.loaded:
                status = status.model_copy(update={"weight_version": tx.version})
            if status != current.status:
                tx.set_status(lease.uid, status)
                self._written[lease.uid] = time.monotonic()
            if status.silent_gateways != current.status.silent_gateways:
                # Its message names them, too.
                tx.wake(deployment.uid)
            for type_, reason, message in outcome.events:
                tx.event(current, type_, reason, message)
                tx.audit(f"rollout.{reason}", current, message)
            if outcome.ended is not None:
                self._end(tx, deployment, current, outcome)
                self._forget(lease.uid)
            tx.finish(outcome.next_at)

    @staticmethod
    def _end(tx: Apply, deployment: Deployment, rollout: Rollout, outcome: RolloutOutcome) -> None:
        """In the transaction that ends the rollout, the Deployment learns who is stable now."""
        spec, uid = rollout.spec, deployment.uid
        status: DeploymentStatus = deployment.status.model_copy(update={"rollout": None})
        promoted = outcome.ended == "promoted"
        loser = spec.stable_revision if promoted else spec.candidate_revision
        if loser is not None:
            # A revision that was taken back is of no further use; the old one after a promotion is kept warm.
            keep = keep_old_seconds(spec.settings) if promoted else 1.0
            status = status.model_copy(update={"retiring": {**status.retiring, loser: later(now(), keep)}})
        if promoted:
            status = status.model_copy(update={"stable_revision": spec.candidate_revision, "rejected": None})
        else:
            rejected = RejectedRevision(
                revision=spec.candidate_revision,
                generation=deployment.metadata.generation or spec.generation,
                rollout=rollout.metadata.name,
                reason=outcome.reason,
            )
            status = status.model_copy(update={"rejected": rejected})
        tx.set_status(uid, status)
        tx.wake(uid)


def _acts(status: RolloutStatus) -> tuple[object, ...]:
    """What of a status is more than a count or a sentence."""
    decisions = [(entry.decision, entry.step) for entry in status.decisions]
    return (
        status.phase,
        status.step,
        status.weight,
        status.loaded,
        status.preview,
        status.shadow,
        status.silent_gateways,
        status.started_at,
        decisions,
    )
