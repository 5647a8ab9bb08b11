"""The table `gateways`: what each gateway agent last reported. Called by `store`. Not versioned, not audited."""

import datetime
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, select

from podium.planning.gateways import SILENT_LIMIT, GatewayInstance, may_report
from podium.resources.errors import Refused
from podium.store.engine import insert
from podium.store.tables import gateways as table

INSTANCE, FORMER = "instance", "formerStarts"
"""Members of a row's `detail`: the GatewayInstance that reports, and the starts whose place it took, newest last."""
_REMEMBERED = 8


@dataclass(frozen=True)
class GatewayRow:
    """One gateway. `observed_version`: the resourceVersion of the configuration that its Envoy shows as loaded.
    `rejected`: what Envoy refused, with its words. `detail`: whatever else it reports, and under INSTANCE who it is."""

    name: str
    seen_at: datetime.datetime
    observed_version: int
    rejected: list[dict[str, Any]]
    detail: dict[str, Any]


def report(
    connection: Connection, engine: Engine, row: GatewayRow, instance: GatewayInstance | None = None
) -> None:
    """The newest report takes the place of the one before. Raises Refused where that one is of another agent, which
    is alive: `planning.gateways.may_report`."""
    detail = dict(row.detail)
    if instance is not None:
        before = connection.execute(select(table).where(table.c.name == row.name).with_for_update()).first()
        former = _former(GatewayRow(**before._mapping), row, instance) if before else []
        detail |= {INSTANCE: vars(instance), **({FORMER: former} if former else {})}
    values = {**vars(row), "detail": detail}
    rest = {name: value for name, value in values.items() if name != "name"}
    connection.execute(
        insert(engine, table).values(values).on_conflict_do_update(index_elements=[table.c.name], set_=rest)
    )


def _former(before: GatewayRow, row: GatewayRow, instance: GatewayInstance) -> list[str]:
    """The starts in whose place this instance is, with the one that reported before. Raises Refused."""
    if INSTANCE not in before.detail:
        return []
    known = GatewayInstance(**before.detail[INSTANCE])
    former = [str(start) for start in before.detail.get(FORMER, ())]
    if not may_report(instance, known, former, row.seen_at - before.seen_at):
        twice = instance.home == known.home
        raise Refused(
            f"gateway {row.name} reports already, from {known.host} (pid {known.pid})"
            + (", which was started later in a copy of this folder" if twice else ""),
            next_step="give one of them another name; the name is free when that one has been silent for "
            f"{SILENT_LIMIT.total_seconds():g} s" + (", and each needs a folder of its own" if twice else ""),
        )
    return former if instance.start == known.start else [*former, known.start][-_REMEMBERED:]


def seen(connection: Connection, since: datetime.datetime) -> list[GatewayRow]:
    """The gateways that reported at or after `since`, by name."""
    rows = connection.execute(select(table).where(table.c.seen_at >= since).order_by(table.c.name))
    return [GatewayRow(**row._mapping) for row in rows]


def forget(connection: Connection, name: str) -> bool:
    """Its row goes; whether there was one."""
    return connection.execute(delete(table).where(table.c.name == name)).rowcount > 0
