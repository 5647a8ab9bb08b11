"""The tables `load`, `route_load` and `load_reports`: what the gateways counted for every cluster and for every Route
lately, and when each last told.

Called by `store`. Not versioned, not audited, kept for a quarter of an hour. Rows are cumulative counters, so what is
pruned takes no sums along (`podium.planning.load` makes the differences).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, select
from sqlalchemy import insert as plain_insert

from podium.store.engine import insert
from podium.store.tables import load as table
from podium.store.tables import load_reports as reports
from podium.store.tables import route_load as routes_table

KEPT_SECONDS = 900.0
_LEAST_PRUNED = 200


@dataclass(frozen=True)
class LoadRow:
    """Counters of one revision in one role, as one gateway read them. `at`: seconds since 1970 by the server's clock;
    `epoch` names a start of that Envoy; `buckets`: (upper edge in ms, requests up to it)."""

    at: float
    gateway: str
    epoch: str
    workspace: str
    deployment: str
    revision: str
    role: str
    requests: int
    errors: int
    refused: int
    active: int
    time_ms: float
    buckets: Sequence[Sequence[float]]


@dataclass(frozen=True)
class RouteLoadRow:
    """Counters of one Route, as one gateway read them; `limited`: what its limits turned away."""

    at: float
    gateway: str
    epoch: str
    workspace: str
    route: str
    requests: int
    errors: int
    refused: int
    limited: int


_COLUMNS = [column for column in table.c if column.name != "id"]
_ROUTE_COLUMNS = [column for column in routes_table.c if column.name != "id"]


def record(
    connection: Connection,
    engine: Engine,
    gateway: str,
    at: float,
    rows: Sequence[LoadRow],
    routes: Sequence[RouteLoadRow],
) -> None:
    """One gateway's report. What is too old goes along the way, a little more than what came."""
    mark = insert(engine, reports).values(gateway=gateway, at=at)
    connection.execute(mark.on_conflict_do_update(index_elements=[reports.c.gateway], set_={"at": at}))
    _keep(connection, table, at, [dict(vars(row)) for row in rows])
    _keep(connection, routes_table, at, [dict(vars(row)) for row in routes])


def _keep(connection: Connection, where: Table, at: float, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(plain_insert(where), rows)
    prune(connection, where, at, len(rows))


def prune(connection: Connection, where: Table, at: float, came: int) -> None:
    """What is too old goes along the way, a little more than what came."""
    old = (
        select(where.c.id)
        .where(where.c.at < at - KEPT_SECONDS)
        .order_by(where.c.at)
        .limit(2 * came + _LEAST_PRUNED)
    )
    connection.execute(delete(where).where(where.c.id.in_(old)))


def read(
    connection: Connection, since: float, workspace: str | None, deployment: str | None
) -> list[LoadRow]:
    """Rows from `since` on, oldest first."""
    query = select(*_COLUMNS).where(table.c.at >= since)
    if workspace is not None:
        query = query.where(table.c.workspace == workspace)
    if deployment is not None:
        query = query.where(table.c.deployment == deployment)
    return [LoadRow(*row) for row in connection.execute(query.order_by(table.c.at, table.c.id))]


def read_routes(connection: Connection, since: float, workspace: str | None) -> list[RouteLoadRow]:
    """Rows of Routes from `since` on, oldest first."""
    query = select(*_ROUTE_COLUMNS).where(routes_table.c.at >= since)
    if workspace is not None:
        query = query.where(routes_table.c.workspace == workspace)
    ordered = query.order_by(routes_table.c.at, routes_table.c.id)
    return [RouteLoadRow(*row) for row in connection.execute(ordered)]


def reported(connection: Connection, since: float) -> Mapping[str, float]:
    """Gateway -> when it last told its counters, of those that did from `since` on."""
    return {row.gateway: row.at for row in connection.execute(select(reports).where(reports.c.at >= since))}


def forget(connection: Connection, gateway: str) -> None:
    """A gateway that is gone for good."""
    for counted in (table, routes_table):
        connection.execute(delete(counted).where(counted.c.gateway == gateway))
    connection.execute(delete(reports).where(reports.c.gateway == gateway))
