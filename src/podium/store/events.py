"""The table `events`: what happened to an object, for people. Called by `read`, `write` and `store`."""

import datetime
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, delete, insert, select, update

from podium.resources.kinds import AnyResource
from podium.store.columns import clean
from podium.store.pages import below
from podium.store.tables import events as table

EventType = Literal["Normal", "Warning"]
MAX_MESSAGE = 4096


@dataclass(frozen=True)
class EventRow:
    """`count` times the same thing in a row, from `first_at` to `at`."""

    id: int
    first_at: datetime.datetime
    at: datetime.datetime
    count: int
    workspace: str
    kind: str
    name: str
    uid: str
    type: EventType
    reason: str
    message: str


def record(
    connection: Connection, resource: AnyResource, happened: tuple[EventType, str, str], at: datetime.datetime
) -> None:
    """Adds (type, reason, message), or counts the object's newest event up if it says the same: no storm of rows."""
    type_, reason, message = happened
    message = clean(message[:MAX_MESSAGE])
    uid = resource.metadata.uid
    last = connection.execute(
        select(table).where(table.c.uid == uid).order_by(table.c.id.desc()).limit(1)
    ).one_or_none()
    if last is not None and (last.type, last.reason, last.message) == (type_, reason, message):
        connection.execute(update(table).where(table.c.id == last.id).values(at=at, count=table.c.count + 1))
        return
    connection.execute(
        insert(table).values(
            first_at=at, at=at, count=1,
            workspace=resource.metadata.workspace, kind=resource.kind, name=resource.metadata.name, uid=uid,
            type=type_, reason=reason, message=message,
        )
    )  # fmt: skip


def newest(
    connection: Connection,
    *,
    workspace: str | None,
    kind: str | None,
    name: str | None,
    limit: int | None,
    before: int | None,
) -> list[EventRow]:
    """Events with an id below `before`, newest first."""
    query = select(table).where(table.c.id < below(before))
    for column, value in ((table.c.workspace, workspace), (table.c.kind, kind), (table.c.name, name)):
        if value is not None:
            query = query.where(column == value)
    rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [EventRow(**row._mapping) for row in rows]


def prune(connection: Connection, before: datetime.datetime, limit: int) -> int:
    """Forgets up to `limit` events last seen before that time; how many went."""
    oldest = select(table.c.id).where(table.c.at < before).order_by(table.c.at).limit(limit)
    return connection.execute(delete(table).where(table.c.id.in_(oldest))).rowcount
