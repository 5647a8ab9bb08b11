"""The table `samples`: what the gateways counted during a rollout. Called by `store`. Not versioned, not audited."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, select

from podium.resources.errors import NotFound
from podium.store.engine import insert
from podium.store.pages import above
from podium.store.tables import resources
from podium.store.tables import samples as table


@dataclass(frozen=True)
class SampleRow:
    """One scrape of one gateway. `at`: seconds since 1970. `epoch` names a start of that Envoy: counters are
    cumulative within one. `weight_bp`: the candidate's weight in basis points then. `stable`, `candidate`: counters
    by name. `id` is the table's to give (0 before)."""

    rollout_uid: str
    at: float
    gateway: str
    epoch: str
    weight_bp: int
    stable: dict[str, Any]
    candidate: dict[str, Any]
    id: int = 0


def append(connection: Connection, engine: Engine, rollout_uid: str, rows: Sequence[SampleRow]) -> int:
    """Adds the rows; one that is there already (same gateway, epoch and time) is left alone. How many were added.
    Raises NotFound when the rollout is gone."""
    known = connection.execute(select(resources.c.uid).where(resources.c.uid == rollout_uid)).first()
    if known is None:
        raise NotFound(f"there is no rollout with the uid {rollout_uid[:60]!r}")
    if not rows:
        return 0
    values = [
        {name: value for name, value in vars(row).items() if name != "id"} | {"rollout_uid": rollout_uid}
        for row in rows
    ]
    statement = insert(engine, table).on_conflict_do_nothing().returning(table.c.id)
    return len(connection.execute(statement, values).all())


def read(connection: Connection, rollout_uid: str, after_id: int, limit: int | None) -> list[SampleRow]:
    """A rollout's samples with an id above `after_id`, in the order of their arrival."""
    query = select(table).where(table.c.rollout_uid == rollout_uid, table.c.id > above(after_id))
    if limit is not None:
        query = query.limit(limit)
    return [SampleRow(**row._mapping) for row in connection.execute(query.order_by(table.c.id))]


def prune(connection: Connection, before: datetime.datetime, limit: int) -> int:
    """Forgets up to `limit` samples from before that time; how many went."""
    oldest = select(table.c.id).where(table.c.at < before.timestamp()).order_by(table.c.at).limit(limit)
    return connection.execute(delete(table).where(table.c.id.in_(oldest))).rowcount
