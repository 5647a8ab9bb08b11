"""One serialised transaction: everything that changes the store. Made by `Store.write` and `Store.apply`.

Each method leaves the object, its selectors, its work row, the change that watches will see and the audit row
consistent; all of them commit together or not at all. Calls the module of each noun.
"""

import datetime
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from podium.resources.errors import AlreadyExists, Conflict, NotFound, Refused
from podium.resources.kinds import KINDS, AnyResource
from podium.resources.model import ModelStatus
from podium.resources.shape import Spec, Status
from podium.store import aliases, audit, events, gateways, load, places, resources, tokens, work
from podium.store.aliases import AliasRow
from podium.store.audit import GATEWAY, TOKEN, Actor, AuditRow, Subject
from podium.store.changes import ChangeType, PendingChanges
from podium.store.events import EventType
from podium.store.places import PlaceRow
from podium.store.read import Read
from podium.store.tokens import TokenRow
from podium.store.work import Lease


class Write(Read):
    """A transaction that will commit as `version`. It reads its own writes. Not for several threads.

    `dirty`: something was written; else the transaction is rolled back. `versioned`: it is something that a watch or
    the audit trail shows; else `version` stays free for the next one. `woke`: some row became due.
    """

    def __init__(self, connection: Connection, version: int, now: datetime.datetime, actor: Actor) -> None:
        super().__init__(connection, version, now)
        self.actor = actor
        self.dirty = False
        self.versioned = False
        self.woke = False
        self._pending = PendingChanges()
        # Nobody else changes an object while this transaction runs: what was read once is not read again.
        self._known: dict[str, AnyResource] = {}

    def find(self, kind: str, workspace: str, name: str) -> AnyResource | None:
        """The object, or None."""
        found = super().find(kind, workspace, name)
        if found is not None:
            self._known[found.metadata.uid or ""] = found
        return found

    def by_uid(self, uid: str) -> AnyResource | None:
        """The object with this uid, of any kind, or None."""
        found = self._known.get(uid) or super().by_uid(uid)
        if found is not None:
            self._known[uid] = found
        return found

    def create(self, resource: AnyResource) -> AnyResource:
        """A new object with its own uid; due for its reconciler. From `resource`: name, workspace, labels,
        annotations, owner, spec, status. Raises AlreadyExists."""
        kind, meta = KINDS[resource.kind], resource.metadata
        taken = resources.find(self._connection, kind, meta.workspace, meta.name)
        if taken is not None:
            going = taken.metadata.deletion_requested_at is not None
            raise AlreadyExists(
                f"{kind.name} {meta.name} exists in workspace {meta.workspace}{' and is being deleted' * going}",
                next_step="wait until it is gone" if going else None,
                details={"resourceVersion": taken.metadata.resource_version},
            )
        made = {
            "uid": str(uuid.uuid4()), "generation": 1, "resource_version": self.version,
            "created_at": self.now, "updated_at": self.now, "deletion_requested_at": None,
            "finalizers": list(kind.finalizers),
        }  # fmt: skip
        created = resource.model_copy(update={"metadata": meta.model_copy(update=made)})
        resources.add(self._connection, created)
        if kind.reconciled:
            work.add(self._connection, created, self.now)
            self.woke = True
        self._changed("ADDED", created)
        self.audit("create", created, f"created {kind.name} {created.key}", {"spec": _dump(created.spec)})
        return created

    def replace(
        self,
        uid: str,
        *,
        spec: Spec,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        expected_version: int | None,
    ) -> AnyResource:
        """A new spec; labels and annotations too unless None. Wakes the object; nothing is written if nothing differs.

        expected_version: the resourceVersion that the caller has seen; None to write over whatever is there.
        Raises Conflict (details: resourceVersion), NotFound, Refused when the object is being deleted.
        """
        current = self._current(uid)
        meta = current.metadata
        if expected_version is not None and expected_version != meta.resource_version:
            raise Conflict(
                f"{current.kind} {current.key} is at version {meta.resource_version}, not {expected_version}",
                next_step="read it again and apply the change to what is there now",
                details={"resourceVersion": meta.resource_version},
            )
        kept = meta.model_copy(
            update={
                "labels": meta.labels if labels is None else dict(labels),
                "annotations": meta.annotations if annotations is None else dict(annotations),
            }
        )
        if spec == current.spec and kept == meta:
            return current
        if meta.deletion_requested_at is not None:
            raise Refused(f"{current.kind} {current.key} is being deleted", next_step="wait until it is gone")
        if spec != current.spec:
            kept = kept.model_copy(update={"generation": (meta.generation or 0) + 1})
        after = self._save(current, current.model_copy(update={"metadata": kept, "spec": spec}))
        self.wake(uid)
        differences = audit.differences(_asked_for(current), _asked_for(after))
        self.audit(
            "update",
            after,
            f"changed {', '.join(item['path'] for item in differences)}"[:400],
            {"changes": differences},
        )
        return after

    def set_status(self, uid: str, status: Status) -> AnyResource:
        """What was observed. Nothing is written if it is what is there; no audit row. Raises NotFound."""
        current = self._current(uid)
        if status == current.status or _dump(status) == _dump(current.status):
            return current
        return self._save(current, current.model_copy(update={"status": status}))

    def request_deletion(self, uid: str, *, expected_version: int | None = None) -> AnyResource | None:
        """Removes the object at once if it has no finalizers (None is returned); else marks and wakes it.
        Raises Conflict, NotFound. A second request changes nothing."""
        current = self._current(uid)
        meta = current.metadata
        if expected_version is not None and expected_version != meta.resource_version:
            raise Conflict(
                f"{current.kind} {current.key} is at version {meta.resource_version}, not {expected_version}",
                next_step="read it again, and delete it if you still want to",
                details={"resourceVersion": meta.resource_version},
            )
        if meta.deletion_requested_at is not None:
            return current
        self.audit("delete", current, f"asked to delete {current.kind} {current.key}")
        if not meta.finalizers:
            self._remove(current)
            return None
        marked = meta.model_copy(update={"deletion_requested_at": self.now})
        after = self._save(current, current.model_copy(update={"metadata": marked}))
        self.wake(uid)
        return after

    def remove_finalizer(self, uid: str, finalizer: str) -> AnyResource | None:
        """Says that its part of the clearing up is done. With the last one gone, an object whose deletion was
        requested is removed (None is returned). One that is not there changes nothing. Raises NotFound."""
        current = self._current(uid)
        meta = current.metadata
        if finalizer not in meta.finalizers:
            return current
        left = [name for name in meta.finalizers if name != finalizer]
        after = current.model_copy(update={"metadata": meta.model_copy(update={"finalizers": left})})
        if meta.deletion_requested_at is not None and not left:
            self._remove(current)
            return None
        return self._save(current, after)

    def wake(self, uid: str, at: datetime.datetime | None = None) -> None:
        """Due at `at` (None: now), or earlier if it was anyway. An object that nobody reconciles is left alone."""
        self.dirty = True
        self.woke = work.wake(self._connection, [uid], at or self.now) > 0 or self.woke

    def event(self, resource: AnyResource, type: EventType, reason: str, message: str) -> None:  # noqa: A002
        """Something to tell people about an object. The same thing again counts the last row up."""
        self.dirty = True
        events.record(self._connection, resource, (type, reason, message), self.now)

    def audit(
        self,
        verb: str,
        subject: AnyResource | Subject | None,
        summary: str,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Records an act of `actor`. create, replace, deletion, aliases and tokens do it by themselves."""
        self.dirty = self.versioned = True
        about = (
            Subject() if subject is None else subject if isinstance(subject, Subject) else _subject(subject)
        )
        audit.append(
            self._connection,
            AuditRow(
                seq=0, at=self.now, actor=self.actor.name, actor_kind=self.actor.kind,
                request_id=self.actor.request_id, verb=verb, kind=about.kind, workspace=about.workspace,
                name=about.name, uid=about.uid, version=self.version, summary=summary, detail=detail,
            ),
        )  # fmt: skip

    def claim_place(self, target: str, *, place: str, description: str, take_over: bool) -> None:
        """See `Store.claim_place`."""
        wanted = PlaceRow(target, place, description, self.now)
        before = places.claim(self._connection, wanted, take_over=take_over)
        if before is None or before.place != place:
            detail = {"before": before.description if before else None}
            self.audit("place.claim", None, f"replicas of target {target} run in {description}", detail)

    def forget_gateway(self, name: str) -> None:
        """See `Store.forget_gateway`."""
        if not gateways.forget(self._connection, name):
            raise NotFound(f"there is no gateway {name[:120]!r}", next_step="podium gateway list --all")
        load.forget(self._connection, name)
        self.audit("forget", Subject(GATEWAY, name=name), f"forgot gateway {name}")

    def gateway_left(self, name: str) -> None:
        """See `Store.gateway_left`."""
        if gateways.forget(self._connection, name):
            self.audit("leave", Subject(GATEWAY, name=name), f"gateway {name} has ended")

    def set_alias(self, workspace: str, model: str, alias: str, version: str | None) -> AnyResource:
        """Points an alias of a model at a version (its number), or takes it away (None). The Model is returned; nothing
        is written if it points there already. Whoever deploys by this alias is the caller's to wake.
        Raises NotFound for the model, the version, or an alias to take away that is not there."""
        current = self.get("Model", workspace, model)
        if version is not None:
            self.get("ModelVersion", workspace, f"{model}.{version}")
        status = current.status
        assert isinstance(status, ModelStatus)  # noqa: S101 - the kind's own type
        previous = status.aliases.get(alias)
        if previous == version:
            if version is None:
                raise NotFound(
                    f"model {model} has no alias {alias[:60]!r}", next_step=f"podium model show {model}"
                )
            return current
        moved = {name: number for name, number in status.aliases.items() if name != alias}
        if version is not None:
            moved[alias] = version
        after = self.set_status(current.metadata.uid or "", status.model_copy(update={"aliases": moved}))
        aliases.append(
            self._connection,
            AliasRow(
                id=0, at=self.now, workspace=workspace, model=model, alias=alias, version=version,
                previous=previous, actor=self.actor.name, commit_version=self.version,
            ),
        )  # fmt: skip
        words = f"{model}@{alias}: {previous or 'nothing'} -> {version or 'nothing'}"
        self.audit("alias", after, words, {"alias": alias, "from": previous, "to": version})
        return after

    def add_token(self, row: TokenRow) -> None:
        """Remembers that a token was given out. Raises AlreadyExists."""
        if tokens.find(self._connection, row.id) is not None:
            raise AlreadyExists(f"there is a token {row.id[:60]!r} already")
        tokens.add(self._connection, row)
        about: dict[str, Any] = {
            "role": row.role,
            "workspaces": row.workspaces,
            "expiresAt": _iso(row.expires_at),
        }
        if row.deployments is not None:
            about |= {"deployments": row.deployments, "verbs": row.verbs}
        if row.claims:
            about["claims"] = row.claims
        self.audit("create", Subject(TOKEN, name=row.name, uid=row.id), f"made token {row.name}", about)

    def revoke_token(self, token_id: str) -> TokenRow:
        """Puts the token on the list of revoked ones; once more changes nothing. Raises NotFound."""
        row = self.token(token_id)
        if row.revoked_at is not None:
            return row
        tokens.revoke(self._connection, token_id, self.now)
        self.audit("revoke", Subject(TOKEN, name=row.name, uid=row.id), f"revoked token {row.name}")
        return self.token(token_id)

    def rotate_token(self, row: TokenRow, retires_at: datetime.datetime) -> None:
        """Remembers a token that takes the place of `row.rotated_from`, which counts as revoked from `retires_at` on.
        Raises NotFound, Refused for one whose place is taken already or that is good for nothing any more."""
        old = self.token(row.rotated_from or "")
        over = old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= self.now)
        if old.rotated_to is not None or over:
            why = "is revoked or has expired" if over else f"was rotated: {old.rotated_to} took its place"
            raise Refused(f"the token {old.id} {why}", next_step="podium token list; podium token create")
        self.add_token(row)
        tokens.retire(self._connection, old.id, row.id, retires_at)
        about = {"by": row.id, "retiresAt": _iso(retires_at)}
        self.audit("rotate", Subject(TOKEN, name=old.name, uid=old.id), f"rotated token {old.name}", about)

    def flush(self) -> None:
        """Writes what is kept to the end: the changes. `Store` calls it before the commit."""
        self._pending.write(self._connection, self.version, self.now)

    def _current(self, uid: str) -> AnyResource:
        current = self.by_uid(uid)
        if current is None:
            raise NotFound(f"there is no object with the uid {uid[:60]!r}")
        return current

    def _save(self, before: AnyResource, after: AnyResource) -> AnyResource:
        stamped = {"resource_version": self.version, "updated_at": self.now}
        after = after.model_copy(update={"metadata": after.metadata.model_copy(update=stamped)})
        resources.change(self._connection, before, after)
        self._known[after.metadata.uid or ""] = after
        self._changed("MODIFIED", after)
        return after

    def _remove(self, resource: AnyResource) -> None:
        """The row goes, and then what was made for it: it is asked to go too."""
        uid = resource.metadata.uid or ""
        resources.remove(self._connection, uid)
        self._known.pop(uid, None)
        stamped = resource.metadata.model_copy(
            update={"resource_version": self.version, "updated_at": self.now}
        )
        self._changed("DELETED", resource.model_copy(update={"metadata": stamped}))
        self.audit("remove", resource, f"{resource.kind} {resource.key} is gone")
        for owned in resources.owned_by(self._connection, uid):
            self.request_deletion(owned)

    def _changed(self, change: ChangeType, resource: AnyResource) -> None:
        self.dirty = self.versioned = True
        self._pending.note(change, resource)


class Apply(Write):
    """A `Write` under a lease. It must `finish`, and commits only if nobody has taken the row over."""

    def __init__(
        self, connection: Connection, version: int, now: datetime.datetime, actor: Actor, lease: Lease
    ) -> None:
        super().__init__(connection, version, now, actor)
        self.lease = lease
        self.dirty = True
        self._finished = False
        self._next_at: datetime.datetime | None = None
        work.check(connection, lease)

    def finish(self, next_at: datetime.datetime | None) -> None:
        """The pass is over: the lease ends with the commit, `attempts` starts again at 0. Due again at `next_at`
        (None: no timer), or earlier if somebody woke the row since the claim."""
        self._finished = True
        self._next_at = next_at

    def flush(self) -> None:
        """Ends the lease. Raises RuntimeError without `finish`: an object would never be looked at again."""
        if not self._finished:
            raise RuntimeError("apply ended without finish(next_at)")
        super().flush()
        work.finish(self._connection, self.lease, self._next_at)


def _subject(resource: AnyResource) -> Subject:
    meta = resource.metadata
    return Subject(resource.kind, meta.workspace, meta.name, meta.uid)


def _dump(part: Spec | Status) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True)


def _asked_for(resource: AnyResource) -> dict[str, Any]:
    meta = resource.metadata
    return {
        "metadata": {"labels": meta.labels, "annotations": meta.annotations},
        "spec": _dump(resource.spec),
    }


def _iso(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
