"""The table `changes`: what each commit did, for whoever watches.

Called by `read`, `write` and `store`. Complete and in order: versions are given out under the clock's row lock, which
is held until the commit, so when a version can be read every lower one can be read too.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, select, update

from podium.resources.errors import Expired
from podium.resources.kinds import AnyResource
from podium.store.tables import changes as table
from podium.store.tables import clock

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True)
class Change:
    """One object as a commit left it (DELETED: as it last was). Several may have the same version: one commit."""

    version: int
    type: ChangeType
    kind: str
    workspace: str
    name: str
    uid: str
    object: dict[str, Any]


class PendingChanges:
    """What a transaction has done so far, one entry per object however often it was touched."""

    def __init__(self) -> None:
        self._changes: dict[str, tuple[ChangeType, AnyResource]] = {}

    def note(self, change: ChangeType, resource: AnyResource) -> None:
        """Folds into what is there: added then modified is added; added then deleted never was."""
        uid = resource.metadata.uid or ""
        earlier = self._changes.pop(uid, None)
        if earlier is not None and earlier[0] == "ADDED":
            if change == "DELETED":
                return
            change = "ADDED"
        self._changes[uid] = (change, resource)

    def write(self, connection: Connection, version: int, at: datetime.datetime) -> None:
        """All of them, at the end of the transaction."""
        rows = [
            {
                "version": version,
                "ordinal": ordinal,
                "at": at,
                "type": change,
                "kind": resource.kind,
                "workspace": resource.metadata.workspace,
                "name": resource.metadata.name,
                "uid": uid,
                "object": resource.document(),
            }
            for ordinal, (uid, (change, resource)) in enumerate(self._changes.items())
        ]
        if rows:
            connection.execute(insert(table), rows)


def read(
    connection: Connection,
    after: int,
    *,
    version: int,
    kinds: Sequence[str] | None,
    workspace: str | None,
    limit: int | None,
) -> list[Change]:
    """Changes above `after` in order, about `limit` of them: a version's changes are never split over two answers.

    Raises Expired when some above `after` were pruned, or when `after` lies ahead of the store (it was restored from
    an older copy): the caller lists again.
    """
    floor = connection.execute(select(clock.c.changes_floor)).scalar_one()
    if not floor <= after <= version:
        known = f"changes {floor} to {version} are kept"
        raise Expired(
            f"position {after} is not in the history: {known}", next_step="list again, and watch from there"
        )
    conditions = [table.c.version > after]
    if kinds is not None:
        conditions.append(table.c.kind.in_(kinds))
    if workspace is not None:
        conditions.append(table.c.workspace == workspace)
    query = select(table).where(*conditions).order_by(table.c.version, table.c.ordinal)
    rows = connection.execute(query if limit is None else query.limit(limit + 1)).all()
    if limit is not None and len(rows) > limit:
        cut = rows[limit].version
        whole = [row for row in rows if row.version < cut]
        rows = whole or connection.execute(query.where(table.c.version == cut)).all()
    return [
        Change(row.version, row.type, row.kind, row.workspace, row.name, row.uid, row.object) for row in rows
    ]


def prune(connection: Connection, before: datetime.datetime, limit: int) -> int:
    """Forgets up to about `limit` versions older than `before`; how many changes went."""
    floor, value = connection.execute(select(clock.c.changes_floor, clock.c.value)).one()
    oldest = connection.execute(select(func.min(table.c.version))).scalar_one()
    if oldest is None:
        return 0
    kept = select(func.min(table.c.version)).where(table.c.at >= before)
    first_kept = connection.execute(kept).scalar_one()
    newest_gone = min((value if first_kept is None else first_kept - 1), oldest + limit - 1)
    if newest_gone <= floor:
        return 0
    connection.execute(update(clock).values(changes_floor=newest_gone))
    return connection.execute(delete(table).where(table.c.version <= newest_gone)).rowcount
