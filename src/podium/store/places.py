"""The table `places`: which installation runs a target's replicas. Called by `store`. Not versioned.

Replicas of the process target live on one machine, under one home folder. A second server that shares the database
from elsewhere would see none of them, and start them all a second time.
"""

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from podium.resources.errors import Refused
from podium.store.tables import places as table


@dataclass(frozen=True)
class PlaceRow:
    """`place`: an id that no other installation has. `description`: host and folder, for people."""

    target: str
    place: str
    description: str
    since: datetime.datetime


def find(connection: Connection, target: str) -> PlaceRow | None:
    """Where the target's replicas run, if anybody has claimed them."""
    row = connection.execute(select(table).where(table.c.target == target)).one_or_none()
    return None if row is None else PlaceRow(**row._mapping)


def claim(connection: Connection, wanted: PlaceRow, *, take_over: bool) -> PlaceRow | None:
    """The target's replicas run at that place from now on. Within a serialised transaction. Returns the place before;
    Raises Refused where another place has them, unless `take_over`."""
    held = find(connection, wanted.target)
    if held is not None and held.place == wanted.place:
        return held
    if held is not None and not take_over:
        raise Refused(
            f"this database's replicas run in {held.description}, since {held.since:%Y-%m-%d %H:%M} UTC; "
            f"{wanted.description} would start all of them a second time",
            next_step="start Podium there, give this one a database of its own (PODIUM_DATABASE_URL), or, if that "
            "installation is gone for good, run `podium up --take-over` here",
        )
    connection.execute(delete(table).where(table.c.target == wanted.target))
    connection.execute(insert(table).values(**vars(wanted)))
    return held
