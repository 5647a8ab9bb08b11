"""The table `work`: which objects are due, and who works on each: leases with fencing tokens, and durable timers.

Called by `write` and `store`. A row is due when its `next_at` has come and nobody holds it, or when a lease on it ran
out. Taking a lease clears `next_at`; so what stands there when the lease ends was put there by a wake meanwhile, and
the earlier of it and the worker's own wish is kept: a wake between claim and apply can't be lost.

Times come from the callers. Servers that share a database need clocks that differ by less than a lease; should they
not, two may work on a row, and the fencing token still lets only the later one write.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from podium.resources.errors import LeaseLost
from podium.resources.kinds import AnyResource
from podium.store.tables import work as table


@dataclass(frozen=True)
class Lease:
    """The right to work on one row until `until`. `token` grows with every claim of the row.

    `attempts` counts failed passes in a row, those included that ended with the death of their worker.
    """

    uid: str
    kind: str
    workspace: str
    name: str
    token: int
    worker: str
    attempts: int
    until: datetime.datetime


def add(connection: Connection, resource: AnyResource, at: datetime.datetime) -> None:
    """A row for a new object, due from `at`."""
    meta = resource.metadata
    connection.execute(
        insert(table).values(
            uid=meta.uid,
            kind=resource.kind,
            workspace=meta.workspace,
            name=meta.name,
            next_at=at,
            token=0,
            attempts=0,
        )
    )


def wake(connection: Connection, uids: Sequence[str], at: datetime.datetime) -> int:
    """Due at `at`, or earlier if it was anyway; how many of the rows exist."""
    if not uids:
        return 0
    statement = update(table).where(table.c.uid.in_(uids)).values(next_at=_earlier(at))
    return connection.execute(statement).rowcount


def claim(
    connection: Connection, worker: str, *, kinds: Sequence[str], limit: int, until: datetime.datetime,
    now: datetime.datetime,
) -> list[Lease]:  # fmt: skip
    """Leases on up to `limit` due rows, the longest due first. Rows that another claim looks at are passed over."""
    due = or_(and_(table.c.lease_until.is_(None), table.c.next_at <= now), table.c.lease_until <= now)
    query = (
        select(table)
        .where(table.c.kind.in_(kinds), due)
        .order_by(func.coalesce(table.c.lease_until, table.c.next_at), table.c.uid)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(query).all()
    if not rows:
        return []
    leases = [
        Lease(
            row.uid, row.kind, row.workspace, row.name, row.token + 1, worker,
            row.attempts + (row.lease_until is not None), until,
        )
        for row in rows
    ]  # fmt: skip
    statement = (
        update(table)
        .where(table.c.uid == bindparam("row_uid"))
        .values(
            token=bindparam("new_token"), attempts=bindparam("new_attempts"),
            worker=worker, lease_until=until, next_at=None,
        )
    )  # fmt: skip
    connection.execute(
        statement,
        [
            {"row_uid": lease.uid, "new_token": lease.token, "new_attempts": lease.attempts}
            for lease in leases
        ],
    )
    return leases


def check(connection: Connection, lease: Lease) -> None:
    """Raises LeaseLost unless the lease still holds; it then holds to the end of the transaction."""
    held = connection.execute(select(table.c.uid).where(_holds(lease)).with_for_update()).first()
    if held is None:
        raise _lost(lease)


def renew(connection: Connection, lease: Lease, until: datetime.datetime) -> None:
    """The lease lasts until `until`. Raises LeaseLost."""
    _must_hold(connection, update(table).values(lease_until=until), lease)


def release(
    connection: Connection, lease: Lease, next_at: datetime.datetime | None, attempts: int | None
) -> None:
    """Ends the lease; due again at `next_at` or at an earlier wake. `attempts`: the new count, None leaves it.
    Raises LeaseLost."""
    values: dict[str, Any] = {"worker": None, "lease_until": None}
    if next_at is not None:
        values["next_at"] = _earlier(next_at)
    if attempts is not None:
        values["attempts"] = attempts
    _must_hold(connection, update(table).values(values), lease)


def finish(connection: Connection, lease: Lease, next_at: datetime.datetime | None) -> None:
    """Ends a lease that `check` has seen in this transaction, after a pass that went well. The row may be gone."""
    values: dict[str, Any] = {"worker": None, "lease_until": None, "attempts": 0}
    if next_at is not None:
        values["next_at"] = _earlier(next_at)
    connection.execute(update(table).where(table.c.uid == lease.uid).values(values))


def next_due(connection: Connection, kinds: Sequence[str]) -> datetime.datetime | None:
    """When the first row of these kinds becomes due: a timer's time, or the end of a lease; None without any."""
    due = func.coalesce(table.c.lease_until, table.c.next_at)
    found: datetime.datetime | None = connection.execute(
        select(func.min(due)).where(table.c.kind.in_(kinds))
    ).scalar_one()
    return found


def _earlier(at: datetime.datetime) -> ColumnElement[Any]:
    later = or_(table.c.next_at.is_(None), table.c.next_at > at)
    return case((later, bindparam(None, at, type_=table.c.next_at.type)), else_=table.c.next_at)


def _holds(lease: Lease) -> ColumnElement[bool]:
    return and_(table.c.uid == lease.uid, table.c.token == lease.token, table.c.worker == lease.worker)


def _must_hold(connection: Connection, statement: Update, lease: Lease) -> None:
    if connection.execute(statement.where(_holds(lease))).rowcount != 1:
        raise _lost(lease)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"{lease.kind} {lease.workspace}/{lease.name}: the lease (token {lease.token}) is over")
