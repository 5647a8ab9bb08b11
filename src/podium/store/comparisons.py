"""The table `comparisons`: a shadow revision beside its champions. Called by `store`. Not versioned, not audited."""

import datetime
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from podium.store.engine import insert
from podium.store.tables import comparisons as table
from podium.store.tables import resources


@dataclass(frozen=True)
class ComparisonRow:
    """`items`: one `Comparison` per champion, as JSON. `state`: what `control.comparisons` goes on from. `edition` is 1
    in the first row of a shadow, and one more in each that takes its place."""

    shadow_uid: str
    workspace: str
    shadow: str
    edition: int
    updated_at: datetime.datetime
    items: list[dict[str, Any]]
    state: dict[str, Any]


def save(connection: Connection, engine: Engine, row: ComparisonRow) -> bool:
    """Writes the row in the place of the one with the edition before. False where another one is there, or the shadow
    is gone."""
    if row.edition > 1:
        here = (table.c.shadow_uid == row.shadow_uid) & (table.c.edition == row.edition - 1)
        return connection.execute(update(table).where(here).values(**vars(row))).rowcount == 1
    known = select(resources.c.uid).where(resources.c.uid == row.shadow_uid)
    if connection.execute(known).first() is None:
        return False
    statement = insert(engine, table).values(**vars(row)).on_conflict_do_nothing()
    return connection.execute(statement.returning(table.c.shadow_uid)).first() is not None


def find(connection: Connection, shadow_uid: str) -> ComparisonRow | None:
    """That of one shadow revision."""
    row = connection.execute(select(table).where(table.c.shadow_uid == shadow_uid)).one_or_none()
    return None if row is None else ComparisonRow(**row._mapping)


def items(connection: Connection, workspace: str | None) -> list[dict[str, Any]]:
    """The comparisons of a workspace, or of all, by workspace and shadow."""
    query = select(table.c["items"]).order_by(table.c.workspace, table.c.shadow)
    if workspace is not None:
        query = query.where(table.c.workspace == workspace)
    return [item for found in connection.execute(query).scalars() for item in found]
