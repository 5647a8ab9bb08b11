"""The table `audit`: who changed what. A row is written in the transaction of the change that it records.

Called by `read` and `write`. There is no way to change or remove a row: triggers refuse it.
"""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert, select

from podium.store.pages import below
from podium.store.tables import audit as table

TOKEN = "Token"  # noqa: S105 - the kind that rows about tokens name
GATEWAY = "Gateway"
ActorKind = Literal["user", "system"]


@dataclass(frozen=True)
class Actor:
    """On whose behalf a transaction runs. `request_id` ties it to the request's log lines."""

    name: str
    kind: ActorKind
    request_id: str | None = None


@dataclass(frozen=True)
class Subject:
    """What an audit row is about."""

    kind: str | None = None
    workspace: str | None = None
    name: str | None = None
    uid: str | None = None


@dataclass(frozen=True)
class AuditRow:
    """One recorded act. `version` is that of the commit it belongs to."""

    seq: int
    at: datetime.datetime
    actor: str
    actor_kind: ActorKind
    request_id: str | None
    verb: str
    kind: str | None
    workspace: str | None
    name: str | None
    uid: str | None
    version: int
    summary: str
    detail: dict[str, Any] | None


def append(connection: Connection, row: AuditRow) -> None:
    """Adds the row; its `seq` is the table's to give."""
    values = {name: value for name, value in vars(row).items() if name != "seq"}
    connection.execute(insert(table).values(values))


def newest(
    connection: Connection,
    *,
    workspace: str | None,
    kind: str | None,
    name: str | None,
    limit: int | None,
    before: int | None,
) -> list[AuditRow]:
    """Rows with `seq` below `before`, newest first."""
    query = select(table).where(table.c.seq < below(before))
    for column, value in ((table.c.workspace, workspace), (table.c.kind, kind), (table.c.name, name)):
        if value is not None:
            query = query.where(column == value)
    rows = connection.execute(query.order_by(table.c.seq.desc()).limit(limit))
    return [AuditRow(**row._mapping) for row in rows]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changed as `{path, from, to}` per leaf; lists are compared whole."""
    return list(_differences(before, after, ""))


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str
) -> Iterator[dict[str, Any]]:
    for key in [*before, *(key for key in after if key not in before)]:
        old, new, path = before.get(key), after.get(key), f"{prefix}.{key}" if prefix else key
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, path)
        elif old != new:
            yield {"path": path, "from": old, "to": new}
