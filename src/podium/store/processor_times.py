"""The table `processor_times`: how much processor time replicas have used, where their number follows it.

Called by `store`. Not versioned, not audited, kept as long as the load of the gateways. Rows are cumulative
(`podium.planning.load` makes the differences).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy import insert as plain_insert

from podium.store.load import prune
from podium.store.tables import processor_times as table


@dataclass(frozen=True)
class ProcessorTimeRow:
    """One ready replica at one moment. `at`: seconds since 1970; `seconds`: of processor time since its start;
    `processors`: how many it is meant to have."""

    at: float
    workspace: str
    deployment: str
    revision: str
    replica: str
    seconds: float
    processors: float


_COLUMNS = [column for column in table.c if column.name != "id"]


def record(connection: Connection, at: float, rows: Sequence[ProcessorTimeRow]) -> None:
    """What was seen at one look."""
    connection.execute(plain_insert(table), [dict(vars(row)) for row in rows])
    prune(connection, table, at, len(rows))


def read(
    connection: Connection, since: float, workspace: str | None, deployment: str | None
) -> list[ProcessorTimeRow]:
    """Rows from `since` on, oldest first."""
    query = select(*_COLUMNS).where(table.c.at >= since)
    if workspace is not None:
        query = query.where(table.c.workspace == workspace)
    if deployment is not None:
        query = query.where(table.c.deployment == deployment)
    return [ProcessorTimeRow(*row) for row in connection.execute(query.order_by(table.c.at, table.c.id))]
