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

from sqlalchemy import Connection, Integer, and_, bindparam, case, func, insert, or_, select, update

from podium.resources.errors import LeaseLost
from podium.resources.kinds import AnyResource
from podium.store.columns import UtcTime
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


# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to run it.
_TIME = UtcTime()
_NOW = bindparam("now", type_=_TIME)
_AT = bindparam("at", type_=_TIME)
_DUE_AT = func.coalesce(table.c.lease_until, table.c.next_at)
_EARLIER = case(
    (table.c.next_at.is_(None), _AT),
    (table.c.next_at > _AT, _AT),
    else_=table.c.next_at,
)
_WAKE = update(table).where(table.c.uid.in_(bindparam("uids", expanding=True))).values(next_at=_EARLIER)
_DUE = (
    select(table)
    .where(
        table.c.kind.in_(bindparam("kinds", expanding=True)),
        or_(and_(table.c.lease_until.is_(None), table.c.next_at <= _NOW), table.c.lease_until <= _NOW),
    )
    .order_by(_DUE_AT, table.c.uid)
    .limit(bindparam("count", type_=Integer))
    .with_for_update(skip_locked=True)
)
_TAKE = (
    update(table)
    .where(table.c.uid == bindparam("row_uid"))
    .values(
        token=bindparam("new_token"), attempts=bindparam("new_attempts"), worker=bindparam("new_worker"),
        lease_until=bindparam("until"), next_at=None,
    )
)  # fmt: skip
_HOLDS = and_(
    table.c.uid == bindparam("row_uid"),
    table.c.token == bindparam("row_token"),
    table.c.worker == bindparam("row_worker"),
)
_HELD = select(table.c.uid).where(_HOLDS).with_for_update()
_RENEW = update(table).where(_HOLDS).values(lease_until=bindparam("until"))
_RELEASE = (
    update(table).where(_HOLDS).values(worker=None, lease_until=None, attempts=bindparam("new_attempts"))
)
_RELEASE_UNTIL = _RELEASE.values(next_at=_EARLIER)


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
    return connection.execute(_WAKE, {"uids": list(uids), "at": at}).rowcount


def claim(
    connection: Connection, worker: str, *, kinds: Sequence[str], limit: int, until: datetime.datetime,
    now: datetime.datetime,
) -> list[Lease]:  # fmt: skip
    """Leases on up to `limit` due rows, the longest due first. Rows that another claim looks at are passed over."""
    rows = connection.execute(_DUE, {"kinds": list(kinds), "now": now, "count": limit}).all()
    if not rows:
        return []
    leases = [
        Lease(
            row.uid, row.kind, row.workspace, row.name, row.token + 1, worker,
            row.attempts + (row.lease_until is not None), until,
        )
        for row in rows
    ]  # fmt: skip
    taken = [
        {
            "row_uid": it.uid,
            "new_token": it.token,
            "new_attempts": it.attempts,
            "new_worker": worker,
            "until": until,
        }
        for it in leases
    ]
    connection.execute(_TAKE, taken)
    return leases


def check(connection: Connection, lease: Lease) -> None:
    """Raises LeaseLost unless the lease still holds; it then holds to the end of the transaction."""
    if connection.execute(_HELD, _claimed(lease)).first() is None:
        raise _lost(lease)


def renew(connection: Connection, lease: Lease, until: datetime.datetime) -> None:
    """The lease lasts until `until`. Raises LeaseLost."""
    if connection.execute(_RENEW, {**_claimed(lease), "until": until}).rowcount != 1:
        raise _lost(lease)


def release(
    connection: Connection, lease: Lease, next_at: datetime.datetime | None, attempts: int | None
) -> None:
    """Ends the lease; due again at `next_at` or at an earlier wake. `attempts`: the new count, None leaves it.
    Raises LeaseLost."""
    if not _end(connection, lease, next_at, lease.attempts if attempts is None else attempts):
        raise _lost(lease)


def finish(connection: Connection, lease: Lease, next_at: datetime.datetime | None) -> None:
    """Ends a lease that `check` has seen in this transaction, after a pass that went well. The row may be gone."""
    _end(connection, lease, next_at, 0)


def next_due(connection: Connection, kinds: Sequence[str]) -> datetime.datetime | None:
    """When the first row of these kinds becomes due: a timer's time, or the end of a lease; None without any."""
    query = select(func.min(_DUE_AT)).where(table.c.kind.in_(kinds))
    found: datetime.datetime | None = connection.execute(query).scalar_one()
    return found


def _end(connection: Connection, lease: Lease, next_at: datetime.datetime | None, attempts: int) -> bool:
    values = {**_claimed(lease), "new_attempts": attempts}
    if next_at is None:
        return connection.execute(_RELEASE, values).rowcount == 1
    return connection.execute(_RELEASE_UNTIL, {**values, "at": next_at}).rowcount == 1


def _claimed(lease: Lease) -> dict[str, Any]:
    return {"row_uid": lease.uid, "row_token": lease.token, "row_worker": lease.worker}


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"{lease.kind} {lease.workspace}/{lease.name}: the lease (token {lease.token}) is over")
