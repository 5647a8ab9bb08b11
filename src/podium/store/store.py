"""The store: resources, work, changes, events, audit and samples in one database, behind one object.

Called by `api`, `control`, `registry`'s wiring and `app`; calls `database`, `read`, `write`, `schema` and the module
of each noun. Blocking, and safe for threads.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from podium.planning.gateways import GatewayInstance
from podium.store import (
    changes,
    comparisons,
    events,
    gateways,
    load,
    places,
    processor_times,
    samples,
    schema,
    work,
)
from podium.store.audit import Actor
from podium.store.comparisons import ComparisonRow
from podium.store.database import Database
from podium.store.engine import open_engine
from podium.store.gateways import GatewayRow
from podium.store.load import LoadRow, RouteLoadRow
from podium.store.pages import checked_limit
from podium.store.places import PlaceRow
from podium.store.processor_times import ProcessorTimeRow
from podium.store.read import Snapshot
from podium.store.samples import SampleRow
from podium.store.signals import Signals
from podium.store.tables import clock
from podium.store.work import Lease
from podium.store.write import Apply, Write

_PRUNED_AT_ONCE = 2_000
_VALUE = select(clock.c.value)
_TICK = update(clock).values(value=clock.c.value + 1).returning(clock.c.value)
_UNTICK = update(clock).values(value=clock.c.value - 1)


@dataclass(frozen=True)
class Pruned:
    """How many rows went."""

    changes: int
    events: int
    samples: int


def utc_now() -> datetime.datetime:
    """The machine's time."""
    return datetime.datetime.now(datetime.UTC)


class Store:
    """Everything durable of a server. Every method may raise Unavailable, which a caller may retry."""

    def __init__(
        self, database: Database, *, now: Callable[[], datetime.datetime], version_locations: Sequence[Path]
    ) -> None:
        self._database = database
        self._now = now
        self._version_locations = tuple(version_locations)
        self._signals = Signals(self.current_version, shared=database.shared)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        pool_size: int = 10,
        now: Callable[[], datetime.datetime] = utc_now,
        version_locations: Sequence[Path] = (),
    ) -> "Store":
        """A store on `sqlite:////absolute/path.db` or `postgresql://user@host/database`; it does not migrate.

        pool_size: connections kept; as many again for a moment. now: the clock that stamps what is written, and says
        what "due now" is. version_locations: folders with migrations of plugins, run together with Podium's own
        (`schema` says how one is written). Raises InvalidInput naming `database`.
        """
        database = Database(open_engine(url, pool_size=pool_size))
        return cls(database, now=now, version_locations=version_locations)

    def migrate(self) -> None:
        """Brings the tables up to date, all or nothing; waits for another server that is doing it.
        Raises Refused when the database was made by a newer Podium."""
        schema.migrate(self._database, self._version_locations)

    def schema_version(self) -> str:
        """The revisions that the database is at, joined by commas; empty before the first `migrate`."""
        with self._database.reading() as connection:
            return schema.version(connection)

    def close(self) -> None:
        """Gives the connections back. Whoever waits is not woken."""
        self._database.close()

    @contextlib.contextmanager
    def write(self, actor: Actor) -> Iterator[Write]:
        """One serialised transaction, committed at the end of the block; waiters are woken after the commit.

        An exception in the block leaves nothing behind. No network call, and no second write, belongs in it: everybody
        else's writes wait meanwhile.
        """
        with self._database.writing(ordered=True) as connection:
            transaction = Write(connection, _tick(connection), self._now(), actor)
            yield transaction
            _end(connection, transaction)
        self._announce(transaction)

    @contextlib.contextmanager
    def apply(self, lease: Lease, actor: Actor) -> Iterator[Apply]:
        """A `write` under a lease. Raises LeaseLost, on entry, when another worker has taken the row over."""
        with self._database.writing(ordered=True) as connection:
            transaction = Apply(connection, _tick(connection), self._now(), actor, lease)
            yield transaction
            _end(connection, transaction)
        self._announce(transaction)

    @contextlib.contextmanager
    def read(self) -> Iterator[Snapshot]:
        """One consistent snapshot. Keep it short: on SQLite it holds the WAL back from being folded in."""
        with self._database.reading() as connection:
            yield Snapshot(connection, _value(connection), self._now())

    def current_version(self) -> int:
        """The version of the newest commit."""
        with self._database.reading() as connection:
            return _value(connection)

    def wait_for_version(self, after: int, timeout: float) -> int:
        """The current version, as soon as it is above `after`, at the latest after `timeout` seconds.

        A commit of this process is seen at once, another server's on PostgreSQL within 0.1 s.
        """
        return self._signals.wait_for_version(after, timeout)

    # Work

    def claim(
        self, worker: str, *, kinds: Sequence[str], limit: int, lease_seconds: float, now: datetime.datetime
    ) -> list[Lease]:
        """Leases on up to `limit` rows that are due at `now`, the longest due first. `worker`: a name that no other
        worker has, in any server. Each row goes to one worker only."""
        self._signals.claiming()
        until = now + datetime.timedelta(seconds=lease_seconds)
        with self._database.writing(durable=False) as connection:
            return work.claim(connection, worker, kinds=kinds, limit=limit, until=until, now=now)

    def renew(self, lease: Lease, lease_seconds: float, now: datetime.datetime) -> Lease:
        """The lease, good for `lease_seconds` from `now`. Raises LeaseLost."""
        until = now + datetime.timedelta(seconds=lease_seconds)
        with self._database.writing(durable=False) as connection:
            work.renew(connection, lease, until)
        return replace(lease, until=until)

    def release(self, lease: Lease, next_at: datetime.datetime | None, attempts: int | None = None) -> None:
        """Ends a lease with nothing to write, also after an error: due again at `next_at` (None: no timer), or earlier
        if somebody woke the row. `attempts`: the new count of failed passes, None leaves it. Raises LeaseLost."""
        with self._database.writing(durable=False) as connection:
            work.release(connection, lease, next_at, attempts)

    def wake(self, *uids: str, at: datetime.datetime | None = None) -> None:
        """`Write.wake` without a new version, for who has nothing else to write (a gateway's report came in)."""
        with self._database.writing() as connection:
            work.wake(connection, uids, at or self._now())
        self._signals.woke()

    def wait_for_work(self, timeout: float) -> None:
        """Returns as soon as something was woken since this THREAD last claimed, at the latest after `timeout` seconds.

        Another server's commits count, within 0.1 s. Timers don't: see `next_due`.
        """
        self._signals.wait_for_work(timeout)

    def next_due(self, kinds: Sequence[str]) -> datetime.datetime | None:
        """When the first row of these kinds is due next, which may be past; a lease counts as due at its end."""
        with self._database.reading() as connection:
            return work.next_due(connection, kinds)

    # Neither versioned nor audited

    def append_samples(self, rollout_uid: str, rows: Sequence[SampleRow]) -> int:
        """Keeps them; the same ones again add nothing. How many were new. Raises NotFound when the rollout is gone."""
        with self._database.writing() as connection:
            return samples.append(connection, self._database.engine, rollout_uid, rows)

    def samples(self, rollout_uid: str, after_id: int = 0, limit: int | None = None) -> list[SampleRow]:
        """A rollout's samples with an id above `after_id`, oldest first."""
        with self._database.reading() as connection:
            return samples.read(connection, rollout_uid, after_id, checked_limit(limit))

    def report_gateway(self, row: GatewayRow, instance: GatewayInstance | None = None) -> None:
        """The gateway's newest report, in the place of the one before. Raises Refused where another agent of that name
        is alive; None: nobody asks."""
        with self._database.writing() as connection:
            gateways.report(connection, self._database.engine, row, instance)

    def gateways(self, *, since: datetime.datetime) -> list[GatewayRow]:
        """The gateways that reported at or after `since`, by name."""
        with self._database.reading() as connection:
            return gateways.seen(connection, since)

    def forget_gateway(self, name: str, actor: Actor) -> None:
        """A gateway that is gone for good, audited. One that still reports is known again with its next report. Raises
        NotFound."""
        with self.write(actor) as tx:
            tx.forget_gateway(name)

    def gateway_left(self, name: str, actor: Actor) -> None:
        """A gateway that has ended as it was told to, audited: nothing waits for it. What it counted stays for its
        time, because those requests are somebody's load still."""
        with self.write(actor) as tx:
            tx.gateway_left(name)

    def record_load(
        self, gateway: str, at: float, rows: Sequence[LoadRow], routes: Sequence[RouteLoadRow] = ()
    ) -> None:
        """What the gateway counted, told at `at` (seconds since 1970). Rows older than a quarter of an hour go."""
        with self._database.writing(durable=False) as connection:
            load.record(connection, self._database.engine, gateway, at, rows, routes)

    def load(
        self, *, since: float, workspace: str | None = None, deployment: str | None = None
    ) -> tuple[list[LoadRow], Mapping[str, float]]:
        """Rows from `since` on, oldest first, and which gateways told their counters since then, and when last; both of
        one moment."""
        with self._database.reading() as connection:
            return load.read(connection, since, workspace, deployment), load.reported(connection, since)

    def route_load(self, *, since: float, workspace: str | None = None) -> list[RouteLoadRow]:
        """What was counted of Routes from `since` on, oldest first."""
        with self._database.reading() as connection:
            return load.read_routes(connection, since, workspace)

    def record_processor_times(self, at: float, rows: Sequence[ProcessorTimeRow]) -> None:
        """What ready replicas had used at `at` (seconds since 1970). Rows older than a quarter of an hour go."""
        with self._database.writing(durable=False) as connection:
            processor_times.record(connection, at, rows)

    def processor_times(
        self, *, since: float, workspace: str | None = None, deployment: str | None = None
    ) -> list[ProcessorTimeRow]:
        """Rows from `since` on, oldest first."""
        with self._database.reading() as connection:
            return processor_times.read(connection, since, workspace, deployment)

    def save_comparison(self, row: ComparisonRow) -> bool:
        """In the place of the edition before; False where another is there by now, or the shadow revision is gone."""
        with self._database.writing(durable=False) as connection:
            return comparisons.save(connection, self._database.engine, row)

    def comparison(self, shadow_uid: str) -> ComparisonRow | None:
        """What is known of a shadow revision beside its champions."""
        with self._database.reading() as connection:
            return comparisons.find(connection, shadow_uid)

    def comparisons(self, workspace: str | None = None) -> list[dict[str, Any]]:
        """All comparisons as JSON, by workspace and shadow."""
        with self._database.reading() as connection:
            return comparisons.items(connection, workspace)

    def claim_place(
        self, target: str, *, place: str, description: str, actor: Actor, take_over: bool = False
    ) -> None:
        """This installation runs the target's replicas. `place`: an id that no other installation has; `description`:
        what a person knows it by. Taking over is audited. Raises Refused if another one has them, unless `take_over`.
        """
        with self.write(actor) as tx:
            tx.claim_place(target, place=place, description=description, take_over=take_over)

    def place(self, target: str) -> PlaceRow | None:
        """Which installation runs the target's replicas, if any has claimed them."""
        with self._database.reading() as connection:
            return places.find(connection, target)

    def prune(self, before: datetime.datetime) -> Pruned:
        """Forgets changes, events and samples from before that time, in short transactions.

        A watch that stands before what is left gets Expired. Audit rows and the history of aliases stay.
        """
        return Pruned(
            changes=self._prune(changes.prune, before),
            events=self._prune(events.prune, before),
            samples=self._prune(samples.prune, before),
        )

    def _prune(
        self, some: Callable[[Connection, datetime.datetime, int], int], before: datetime.datetime
    ) -> int:
        gone = 0
        while True:
            with self._database.writing() as connection:
                count = some(connection, before, _PRUNED_AT_ONCE)
            gone += count
            if count == 0:
                return gone

    def _announce(self, transaction: Write) -> None:
        if transaction.dirty:
            self._signals.committed(
                transaction.version if transaction.versioned else 0, woke=transaction.woke
            )


def _value(connection: Connection) -> int:
    value: int = connection.execute(_VALUE).scalar_one()
    return value


def _tick(connection: Connection) -> int:
    """The first statement of every write: whoever has the clock's row is alone until the commit."""
    value: int = connection.execute(_TICK).scalar_one()
    return value


def _end(connection: Connection, transaction: Write) -> None:
    """Before the commit. A version is used up only by what a watch or the audit trail can see."""
    if not transaction.dirty:
        connection.get_transaction().rollback()  # type: ignore[union-attr]
        return
    transaction.flush()
    if not transaction.versioned:
        connection.execute(_UNTICK)
