"""What nobody needs any more, removed now and then: old records, blobs of deleted versions, unused environments and
checkouts, replicas of revisions that are gone. Started by the server; harmless to run in several.
"""

import datetime
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from podium.environments.uv import Environments
from podium.processes.removal import remove_tree
from podium.registry import garbage
from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.resources.errors import PodiumError
from podium.resources.rollout import FINAL_PHASES
from podium.store import Store
from podium.targets.port import Target

_log = logging.getLogger("podium.housekeeping")
_FIRST_SECONDS, _EVERY_SECONDS = 60.0, 3600.0
KEEP = datetime.timedelta(days=30)
"""How long changes, events and samples are kept. The audit is kept for ever."""
KEEP_CHECKOUTS = datetime.timedelta(days=7)
"""How long the files of a version that nothing runs stay checked out."""

KEEP_SCRATCH = datetime.timedelta(days=1)
"""How long folders of imports and inspections may lie; both take minutes."""
STRANGERS_GRACE = 30.0
"""Seconds for requests under way."""


class Housekeeping:
    """One thread; first a minute after the start. One task's failure does not keep the others from being done."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        checkout: Checkout,
        environments: Environments,
        target: Target,
        *,
        scratch: Sequence[Path] = (),
    ) -> None:
        self._store, self._blobs = store, blobs
        self._checkout, self._environments = checkout, environments
        self._target, self._scratch = target, scratch
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the thread has."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        wait = _FIRST_SECONDS
        while not self._stopping.wait(wait):
            self.tidy(datetime.datetime.now(datetime.UTC))
            wait = _EVERY_SECONDS

    def tidy(self, now: datetime.datetime) -> None:
        """One round."""
        tasks: tuple[Callable[[datetime.datetime], object], ...] = (
            self._prune,
            self._collect_blobs,
            self._collect_running,
            self._end_strangers,
            self._sweep_scratch,
        )
        for task in tasks:
            try:
                task(now)
            except PodiumError as error:
                _log.warning("housekeeping failed, it is tried again in an hour: %s", error)
            except Exception:
                _log.exception("housekeeping failed, it is tried again in an hour")

    def _prune(self, now: datetime.datetime) -> None:
        """Never the samples of a rollout that is still under way: they are its evidence."""
        with self._store.read() as tx:
            rollouts = tx.list("Rollout").items
        begun = [item.metadata.created_at for item in rollouts if item.status.phase not in FINAL_PHASES]
        self._store.prune(min([now - KEEP, *(at for at in begun if at is not None)]))

    def _collect_blobs(self, now: datetime.datetime) -> None:
        found = garbage.collect(self._blobs, self._referenced, now=now)
        if found.removed:
            _log.info(
                "removed %d blobs (%d bytes) that no version refers to",
                len(found.removed),
                found.removed_bytes,
            )

    def _referenced(self) -> set[str]:
        """Files, lock and manifest of every version."""
        with self._store.read() as tx:
            versions = tx.list("ModelVersion").items
        needed: set[str] = set()
        for version in versions:
            manifest = version.spec.manifest
            needed |= {file.sha256 for file in manifest.files}
            needed |= {manifest.lock.sha256, version.spec.digest.removeprefix("sha256:")}
        return needed

    def _collect_running(self, now: datetime.datetime) -> None:
        with self._store.read() as tx:
            revisions = tx.list("Revision").items
        # One that sleeps starts with the next request, and then nobody can make what it needs first.
        running = [
            item
            for item in revisions
            if item.status.replicas or item.status.wanted_replicas or item.status.sleeping
        ]
        self._environments.collect({item.status.environment for item in running if item.status.environment})
        digests = {item.spec.manifest_digest.removeprefix("sha256:") for item in running}
        before = (now - KEEP_CHECKOUTS).timestamp()
        for entry in self._checkout.entries():
            if entry.digest.removeprefix("sha256:") not in digests and entry.used_at < before:
                self._checkout.discard(entry.digest)
        self._checkout.sweep()

    def _end_strangers(self, now: datetime.datetime) -> None:
        """Replicas whose revision is gone, as after a restore of an older database. Looked at before the database is:
        a revision is there before its first replica."""
        found = self._target.observe_all()
        with self._store.read() as tx:
            known = {revision.uid for revision in tx.list("Revision").items}
        for replica in found:
            if replica.revision_uid in known:
                continue
            if replica.phase == "Exited":
                self._target.forget(replica.name, revision_uid=replica.revision_uid)
                continue
            _log.warning("replica %s is of no revision that is known: it is stopped", replica.name)
            self._target.stop(replica.name, STRANGERS_GRACE, revision_uid=replica.revision_uid)

    def _sweep_scratch(self, now: datetime.datetime) -> None:
        """What an import or an inspection left that was killed."""
        before = (now - KEEP_SCRATCH).timestamp()
        for folder in self._scratch:
            for entry in folder.iterdir() if folder.is_dir() else ():
                if entry.lstat().st_mtime < before:
                    remove_tree(entry)
