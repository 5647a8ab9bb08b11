"""The table `tokens`: which tokens were given out and which of them were revoked. The tokens themselves are not kept.

Called by `read` and `write`.
"""

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection, insert, or_, select, update

from podium.store.tables import tokens as table


@dataclass(frozen=True)
class TokenRow:
    """What is known of a token: `id` is its `jti`. None in `expires_at`: never; in `revoked_at`: it was not."""

    id: str
    name: str
    role: str
    workspaces: list[str]
    created_at: datetime.datetime
    created_by: str
    expires_at: datetime.datetime | None = None
    revoked_at: datetime.datetime | None = None


def add(connection: Connection, row: TokenRow) -> None:
    """Adds the row."""
    connection.execute(insert(table).values(dict(vars(row))))


def find(connection: Connection, token_id: str) -> TokenRow | None:
    """The token with this id, or None."""
    row = connection.execute(select(table).where(table.c.id == token_id)).one_or_none()
    return None if row is None else TokenRow(**row._mapping)


def everything(connection: Connection) -> list[TokenRow]:
    """All tokens, newest first."""
    rows = connection.execute(select(table).order_by(table.c.created_at.desc(), table.c.id))
    return [TokenRow(**row._mapping) for row in rows]


def revoke(connection: Connection, token_id: str, at: datetime.datetime) -> None:
    """From now on it is on the list of `revoked`."""
    connection.execute(update(table).where(table.c.id == token_id).values(revoked_at=at))


def revoked(connection: Connection, now: datetime.datetime) -> list[str]:
    """The ids that a gateway must refuse: revoked, and not expired by themselves yet; sorted."""
    alive = or_(table.c.expires_at.is_(None), table.c.expires_at > now)
    query = select(table.c.id).where(table.c.revoked_at.is_not(None), alive).order_by(table.c.id)
    return list(connection.execute(query).scalars())
