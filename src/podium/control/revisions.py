"""Prepares a Revision's files and environment, and keeps its replicas as `planning.revisions` decides.

Called by the loop. Acts on the target outside any transaction; the status says what was seen and done.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from podium.control.gateways import lowest_observed
from podium.control.loop import now
from podium.planning import revisions as planning
from podium.planning.revisions import RevisionOutcome, RevisionWorld, Seen
from podium.resources.errors import IntegrityError, InvalidInput, PodiumError, Unavailable
from podium.resources.kinds import DRAIN, Revision
from podium.resources.manifest import Manifest
from podium.resources.revision import ReplicaState, RevisionStatus
from podium.store import Actor, Apply, Lease, Store
from podium.targets.port import ReplicaObservation, ReplicaWish, Target

_BUILD_LOOK = datetime.timedelta(milliseconds=300)
_WAIT_LOOK = datetime.timedelta(seconds=1)
_REFUSED = "refused: "
"""Before the reason of a start that no waiting will mend."""
_FAILED_RETRY = datetime.timedelta(seconds=60)


class Prepared(Protocol):
    """`python` is None while the environment is made; `error` holds the installer's own words when it can't be."""

    @property
    def model_path(self) -> Path: ...
    @property
    def manifest_path(self) -> Path: ...
    @property
    def python(self) -> Path | None: ...
    @property
    def environment(self) -> str: ...
    @property
    def progress(self) -> str: ...
    @property
    def error(self) -> str: ...


class Preparation(Protocol):
    """What a replica needs before it can start; made by the app from the registry and the environments."""

    def prepare(self, revision: Revision, manifest: Manifest) -> Prepared:
        """Files checked out and environment looked at. Never waits for a build. Raises IntegrityError."""

    def distrust(self, manifest: Manifest) -> None:
        """A replica found that the files differ from the manifest: check them out anew, from the store."""


class RevisionReconciler:
    """One pass: prepare, observe, decide, act, write."""

    kind = "Revision"

    def __init__(self, store: Store, *, targets: dict[str, Target], preparation: Preparation) -> None:
        self._store = store
        self._targets = targets
        self._preparation = preparation
        self._actor = Actor("revision-reconciler", "system")

    def reconcile(self, lease: Lease) -> None:
        """Load in a short read, act on the target, apply under the lease's token."""
        with self._store.read() as tx:
            revision = tx.by_uid(lease.uid)
            version = revision and tx.find(
                "ModelVersion", revision.metadata.workspace, f"{revision.spec.model}.{revision.spec.version}"
            )
        if revision is None:
            self._store.release(lease, None)
            return
        target = self._targets[revision.spec.target]
        observed = target.observe(lease.uid)
        world = RevisionWorld(
            now=now(),
            replicas=[_seen(observation) for observation in observed],
            observed_version=lowest_observed(
                self._store, now(), workspace=revision.metadata.workspace, deployment=revision.spec.deployment
            ),
        )
        outcome = planning.decide(revision, world)
        prepared, problem = None, ""
        manifest = version.spec.manifest if version else None
        self._distrust_damaged(revision, manifest, observed)
        if outcome.start:
            # Only who has something to start needs files and environment: an outage there stops no care of what runs.
            prepared, problem = self._prepare(revision, manifest, observed)
            if not observed and prepared is None:
                self._fail(lease, problem)
                return
            if not observed and prepared is not None and prepared.error:
                self._fail(lease, prepared.error, environment=prepared.environment)
                return
            if not observed and prepared is not None and prepared.python is None:
                self._preparing(lease, prepared)
                return
        started, problem = self._act(revision, target, prepared, outcome, problem)
        if started < len(outcome.start):
            # Numbers are used up by replicas that were started, not by wishes.
            starts = outcome.status.starts - (len(outcome.start) - started)
            status = outcome.status.model_copy(update={"starts": starts})
            outcome = dataclasses.replace(outcome, status=status, next_at=now() + _WAIT_LOOK)
        self._apply(lease, revision, prepared, outcome, problem)

    def _distrust_damaged(
        self, revision: Revision, manifest: Manifest | None, observed: Sequence[ReplicaObservation]
    ) -> None:
        """Before the end that tells of it is forgotten; the next start may have to wait."""
        ended = [seen.exit_code for seen in observed if seen.phase == "Exited"]
        if manifest and any(planning.found_damage(code, revision.spec.runtime) for code in ended):
            self._preparation.distrust(manifest)

    def _prepare(
        self, revision: Revision, manifest: Manifest | None, observed: Sequence[ReplicaObservation]
    ) -> tuple[Prepared | None, str]:
        """What a replica needs, or None and the reason in words. Raises Unavailable where it can pass by itself and
        nothing runs that would need care meanwhile."""
        if manifest is None:
            return None, f"{revision.spec.model} version {revision.spec.version} is gone"
        try:
            return self._preparation.prepare(revision, manifest), ""
        except (IntegrityError, InvalidInput) as error:
            return None, str(error)
        except Unavailable as error:
            if not observed:
                raise
            return None, str(error)

    def _act(
        self,
        revision: Revision,
        target: Target,
        prepared: Prepared | None,
        outcome: RevisionOutcome,
        problem: str,
    ) -> tuple[int, str]:
        """Stop and start. How many were started, and what kept the others from it."""
        for name in outcome.stop:
            target.stop(name, revision.spec.runtime.drain_seconds, revision_uid=revision.uid)
        for count, name in enumerate(outcome.start):
            if prepared is None or prepared.python is None:
                return count, problem or (
                    prepared.error or prepared.progress if prepared else "nothing is prepared"
                )
            wish = ReplicaWish(
                name=name,
                workspace=revision.metadata.workspace,
                revision=revision.metadata.name,
                revision_uid=revision.uid,
                deployment=revision.spec.deployment,
                spec=revision.spec,
                python=prepared.python,
                model_path=prepared.model_path,
                manifest_path=prepared.manifest_path,
                dormant=outcome.dormant,
            )
            try:
                target.start(wish)
            except PodiumError as error:
                return count, str(error) if error.retryable else f"{_REFUSED}{error}"
        return len(outcome.start), ""

    def _apply(
        self,
        lease: Lease,
        revision: Revision,
        prepared: Prepared | None,
        outcome: RevisionOutcome,
        failed: str,
    ) -> None:
        target = self._targets[revision.spec.target]
        environment = prepared.environment if prepared else revision.status.environment
        settled = outcome.status.model_copy(update={"environment": environment, "progress": ""})
        deleting = outcome.drained and revision.metadata.deletion_requested_at is not None
        refused = failed.startswith(_REFUSED)
        if failed and not refused:
            settled = settled.model_copy(update={"message": failed})
        if settled == revision.status and not (
            failed.startswith(_REFUSED) or outcome.events or outcome.forget or deleting
        ):
            # Nothing is new: no commit, and so no new version for every watcher to hear of.
            self._store.release(lease, outcome.next_at, attempts=0)
            return
        with self._store.apply(lease, self._actor) as tx:
            current = tx.by_uid(lease.uid)
            if current is None:
                tx.finish(None)
                return
            status = outcome.status.model_copy(
                update={
                    "wanted_replicas": current.status.wanted_replicas,
                    "sleeping": current.status.sleeping,
                    "warm_replicas": current.status.warm_replicas,
                    "baseline_replicas": current.status.baseline_replicas,
                    "environment": prepared.environment if prepared else current.status.environment,
                    "progress": "",
                    "replicas": [_dated(state, tx.version) for state in outcome.status.replicas],
                }
            )
            if refused:
                status = status.model_copy(
                    update={"phase": "Failed", "message": failed.removeprefix(_REFUSED)}
                )
            elif failed:
                status = status.model_copy(update={"message": failed})
            changed = self._write(tx, current, status)
            for type_, reason, message in outcome.events:
                tx.event(current, type_, reason, message)
            if outcome.drained and current.metadata.deletion_requested_at is not None:
                tx.remove_finalizer(lease.uid, DRAIN)
            if changed:
                _wake_owners(tx, current)
            tx.finish(now() + datetime.timedelta(seconds=5) if refused else outcome.next_at)
        # After the commit: an exit that is recorded may be forgotten; one that is not is seen again.
        for name in outcome.forget:
            target.forget(name, revision_uid=revision.uid)

    @staticmethod
    def _write(tx: Apply, current: Revision, status: RevisionStatus) -> bool:
        """True if something changed that the Deployment or its rollout goes by."""
        if status == current.status:
            return False
        tx.set_status(current.uid, status)
        return True

    def _fail(self, lease: Lease, message: str, *, environment: str | None = None) -> None:
        with self._store.apply(lease, self._actor) as tx:
            current = tx.by_uid(lease.uid)
            if current is None:
                tx.finish(None)
                return
            update = {"phase": "Failed", "message": message, "progress": "", "environment": environment}
            if self._write(tx, current, current.status.model_copy(update=update)):
                tx.event(current, "Warning", "Failed", message)
                _wake_owners(tx, current)
            tx.finish(now() + _FAILED_RETRY)

    def _preparing(self, lease: Lease, prepared: Prepared) -> None:
        with self._store.apply(lease, self._actor) as tx:
            current = tx.by_uid(lease.uid)
            if current is None:
                tx.finish(None)
                return
            update = {
                "phase": "Preparing", "progress": prepared.progress, "environment": prepared.environment,
                "message": "preparing the environment",
            }  # fmt: skip
            if self._write(tx, current, current.status.model_copy(update=update)):
                _wake_owners(tx, current)
            tx.finish(now() + _BUILD_LOOK)


def _dated(state: ReplicaState, version: int) -> ReplicaState:
    """What is new in this commit has its version."""
    fields = ("listed_version", "draining_version")
    new = {name: version for name in fields if getattr(state, name) == 0}
    return state.model_copy(update=new) if new else state


def _seen(observation: ReplicaObservation) -> Seen:
    return Seen(
        name=observation.name,
        phase=observation.phase,
        address=observation.address,
        pid=observation.pid,
        started_at=observation.started_at,
        exit_code=observation.exit_code,
        log_tail=observation.log_tail,
        sandbox=observation.sandbox,
        woken=observation.woken,
    )


def _wake_owners(tx: Apply, revision: Revision) -> None:
    """The Deployment, and its rollout under way, go by this revision's state."""
    owner = revision.metadata.owner
    if owner is None:
        return
    tx.wake(owner.uid)
    deployment = tx.by_uid(owner.uid)
    if deployment is not None and deployment.status.rollout:
        rollout = tx.find("Rollout", revision.metadata.workspace, deployment.status.rollout)
        if rollout is not None:
            tx.wake(rollout.uid)
