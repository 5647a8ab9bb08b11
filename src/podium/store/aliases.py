"""The table `alias_history`: where each alias of a model has pointed. Called by `read` and `write`.

Where it points now is `status.aliases` of the Model, written in the same transaction: there is one truth.
"""

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from podium.store.tables import alias_history as table


@dataclass(frozen=True)
class AliasRow:
    """One move of an alias. `version` None: it was taken away. `commit_version`: the commit that did it."""

    id: int
    at: datetime.datetime
    workspace: str
    model: str
    alias: str
    version: str | None
    previous: str | None
    actor: str
    commit_version: int


def append(connection: Connection, row: AliasRow) -> None:
    """Adds the row; its `id` is the table's to give."""
    connection.execute(
        insert(table).values({name: value for name, value in vars(row).items() if name != "id"})
    )


def history(connection: Connection, workspace: str, model: str) -> list[AliasRow]:
    """All moves of this model's aliases, newest first."""
    query = (
        select(table)
        .where(table.c.workspace == workspace, table.c.model == model)
        .order_by(table.c.id.desc())
    )
    return [AliasRow(**row._mapping) for row in connection.execute(query)]
