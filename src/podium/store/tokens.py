"""The table `tokens`: which tokens were given out and which of them were revoked. The tokens themselves are not kept.

Called by `read` and `write`.
"""

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection, and_, insert, or_, select, update

from podium.store.tables import tokens as table


@dataclass(frozen=True)
class TokenRow:
    """What is known of a token: `id` is its `jti`. None in `expires_at`: never; in `revoked_at`: it was not.

    `deployments` and `verbs`: its scope, None where it has none. `retires_at`: from then on it counts as revoked,
    because `rotated_to` took its place; `rotated_from`: whose place it took.
    """

    id: str
    name: str
    role: str
    workspaces: list[str]
    created_at: datetime.datetime
    created_by: str
    expires_at: datetime.datetime | None = None
    revoked_at: datetime.datetime | None = None
    deployments: list[str] | None = None
    verbs: list[str] | None = None
    retires_at: datetime.datetime | None = None
    rotated_from: str | None = None
    rotated_to: str | None = None
    claims: dict[str, str] | None = None
    """What its maker put into it; None: nothing."""

    def is_retired(self, now: datetime.datetime) -> bool:
        """Whether it counts as revoked because another took its place."""
        return self.retires_at is not None and self.retires_at <= now


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


def retire(connection: Connection, token_id: str, successor: str, at: datetime.datetime) -> None:
    """From `at` on it counts as revoked."""
    connection.execute(
        update(table).where(table.c.id == token_id).values(retires_at=at, rotated_to=successor)
    )


def retiring(connection: Connection, now: datetime.datetime) -> list[tuple[str, datetime.datetime]]:
    """The ids that a gateway must refuse from a time on that is to come, if they are not revoked before; sorted."""
    waiting = and_(table.c.retires_at > now, table.c.revoked_at.is_(None))
    query = select(table.c.id, table.c.retires_at).where(waiting).order_by(table.c.id)
    return [(row.id, row.retires_at) for row in connection.execute(query)]


def revoked(connection: Connection, now: datetime.datetime) -> list[str]:
    """The ids that a gateway must refuse: revoked or retired, and not expired by themselves yet; sorted."""
    alive = or_(table.c.expires_at.is_(None), table.c.expires_at > now)
    over = or_(table.c.revoked_at.is_not(None), table.c.retires_at <= now)
    query = select(table.c.id).where(over, alive).order_by(table.c.id)
    return list(connection.execute(query).scalars())
