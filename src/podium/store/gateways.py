"""The table `gateways`: what each gateway agent last reported. Called by `store`. Not versioned, not audited."""

import datetime
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, select

from podium.store.engine import insert
from podium.store.tables import gateways as table


@dataclass(frozen=True)
class GatewayRow:
    """One gateway. `observed_version`: the resourceVersion of the configuration that its Envoy shows as loaded.
    `rejected`: what Envoy refused, with its words. `detail`: whatever else it reports."""

    name: str
    seen_at: datetime.datetime
    observed_version: int
    rejected: list[dict[str, Any]]
    detail: dict[str, Any]


def report(connection: Connection, engine: Engine, row: GatewayRow) -> None:
    """The newest report takes the place of the one before."""
    values = dict(vars(row))
    rest = {name: value for name, value in values.items() if name != "name"}
    connection.execute(
        insert(engine, table).values(values).on_conflict_do_update(index_elements=[table.c.name], set_=rest)
    )


def seen(connection: Connection, since: datetime.datetime) -> list[GatewayRow]:
    """The gateways that reported at or after `since`, by name."""
    rows = connection.execute(select(table).where(table.c.seen_at >= since).order_by(table.c.name))
    return [GatewayRow(**row._mapping) for row in rows]


def forget(connection: Connection, name: str) -> bool:
    """Its row goes; whether there was one."""
    return connection.execute(delete(table).where(table.c.name == name)).rowcount > 0
