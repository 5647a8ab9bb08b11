"""Random histories against a store made of dictionaries: objects, versions, changes, audit, leases and timers."""

import contextlib
import datetime
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from podium.resources.errors import AlreadyExists, Conflict, LeaseLost, Refused
from podium.resources.kinds import AnyResource
from podium.store import Lease, Store
from tests.integration.store.objects import ALICE, LOOP, deployment, replicas, uid_of

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)
LEASE_MINUTES = 5
NAMES = st.sampled_from(["a", "b", "c"])
TEAMS = st.sampled_from(["risk", "fraud", None])
PHASES = st.sampled_from(["Pending", "Ready", "Failed"])
DELAYS = st.one_of(st.none(), st.integers(0, 12))


@dataclass
class Clock:
    at: datetime.datetime = START

    def __call__(self) -> datetime.datetime:
        return self.at


@dataclass
class Expected:
    """What the store should hold of one object."""

    uid: str
    replicas: int
    team: str | None
    version: int
    generation: int = 1
    phase: str = "Pending"
    deleting: bool = False
    finalizers: int = 1
    next_at: datetime.datetime | None = None
    lease: Lease | None = None
    token: int = 0

    def wake(self, at: datetime.datetime) -> None:
        self.next_at = at if self.next_at is None else min(self.next_at, at)

    def due(self) -> datetime.datetime | None:
        return self.next_at if self.lease is None else self.lease.until


@dataclass
class World:
    objects: dict[str, Expected] = field(default_factory=dict)
    version: int = 0
    audited: int = 0


class Machine(RuleBasedStateMachine):
    """One history. Each has a workspace of its own in the one database."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__()
        self.store, self.clock = store, clock
        self.workspace = f"w{uuid.uuid4().hex}"
        self.start = store.current_version()
        self.world = World(version=self.start)
        self.leases: list[Lease] = []

    def _wrote(self, audited: int = 0) -> int:
        self.world.version += 1
        self.world.audited += audited
        return self.world.version

    @rule(name=NAMES, team=TEAMS)
    def create(self, name: str, team: str | None) -> None:
        wish = deployment(name, workspace=self.workspace, labels={"team": team} if team else {})
        if name in self.world.objects:
            with pytest.raises(AlreadyExists), self.store.write(ALICE) as transaction:
                transaction.create(wish)
            return
        with self.store.write(ALICE) as transaction:
            uid = uid_of(transaction.create(wish))
        self.world.objects[name] = Expected(uid, 1, team, self._wrote(1), next_at=self.clock.at)

    @rule(name=NAMES, count=st.integers(0, 2), team=TEAMS, behind=st.sampled_from([None, 0, 0, 1]))
    def replace(self, name: str, count: int, team: str | None, behind: int | None) -> None:
        if (expected := self.world.objects.get(name)) is None:
            return
        with contextlib.ExitStack() as stack:
            differs = (count, team) != (expected.replicas, expected.team)
            if behind:
                stack.enter_context(pytest.raises(Conflict))
            elif differs and expected.deleting:
                stack.enter_context(pytest.raises(Refused))
            transaction = stack.enter_context(self.store.write(ALICE))
            current = transaction.get("Deployment", self.workspace, name)
            transaction.replace(
                expected.uid,
                spec=replicas(current, count),
                labels={"team": team} if team else {},
                expected_version=None if behind is None else expected.version - behind,
            )
        if differs and not behind and not expected.deleting:
            expected.version = self._wrote(1)
            expected.generation += count != expected.replicas
            expected.replicas, expected.team = count, team
            expected.wake(self.clock.at)

    @rule(name=NAMES, phase=PHASES)
    def set_status(self, name: str, phase: str) -> None:
        if (expected := self.world.objects.get(name)) is None:
            return
        with self.store.write(LOOP) as transaction:
            current = transaction.get("Deployment", self.workspace, name)
            transaction.set_status(expected.uid, current.status.model_copy(update={"phase": phase}))
        if phase != expected.phase:
            expected.phase, expected.version = phase, self._wrote()

    @rule(name=NAMES)
    def request_deletion(self, name: str) -> None:
        if (expected := self.world.objects.get(name)) is None:
            return
        with self.store.write(ALICE) as transaction:
            left = transaction.request_deletion(expected.uid)
        if expected.deleting:
            return
        if expected.finalizers:
            assert left is not None
            expected.deleting, expected.version = True, self._wrote(1)
            expected.wake(self.clock.at)
        else:
            assert left is None
            self._wrote(2)
            del self.world.objects[name]

    @rule(name=NAMES)
    def remove_finalizer(self, name: str) -> None:
        if (expected := self.world.objects.get(name)) is None:
            return
        with self.store.write(LOOP) as transaction:
            transaction.remove_finalizer(expected.uid, "podium/drain")
        if expected.deleting:
            self._wrote(1)
            del self.world.objects[name]
        elif expected.finalizers:
            expected.finalizers, expected.version = 0, self._wrote()

    @rule(name=NAMES, delay=st.integers(0, 12))
    def wake(self, name: str, delay: int) -> None:
        if (expected := self.world.objects.get(name)) is not None:
            at = self.clock.at + delay * MINUTE
            self.store.wake(expected.uid, at=at)
            expected.wake(at)

    @rule(minutes=st.integers(1, 7))
    def time_passes(self, minutes: int) -> None:
        self.clock.at += minutes * MINUTE

    @rule(limit=st.integers(1, 3), worker=st.sampled_from(["one", "two"]))
    def claim(self, limit: int, worker: str) -> None:
        now = self.clock.at
        leases = self.store.claim(
            worker, kinds=["Deployment"], limit=limit, lease_seconds=LEASE_MINUTES * 60, now=now
        )
        due = [it for it in self.world.objects.values() if (at := it.due()) is not None and at <= now]
        due = sorted(due, key=lambda it: (it.due(), it.uid))[:limit]
        assert [(it.uid, it.token) for it in leases] == [(it.uid, it.token + 1) for it in due]
        for expected, lease in zip(due, leases, strict=True):
            expected.token, expected.lease, expected.next_at = lease.token, lease, None
        self.leases += leases

    @rule(pick=st.integers(0, 99), delay=DELAYS, phase=st.one_of(st.none(), PHASES), fails=st.booleans())
    def apply(self, pick: int, delay: int | None, phase: str | None, fails: bool) -> None:
        if not self.leases:
            return
        lease = self.leases[pick % len(self.leases)]
        expected = next((it for it in self.world.objects.values() if it.lease == lease), None)
        next_at = None if delay is None else self.clock.at + delay * MINUTE
        with contextlib.ExitStack() as stack:
            if expected is None:
                stack.enter_context(pytest.raises(LeaseLost))
            elif fails:
                stack.enter_context(pytest.raises(ZeroDivisionError))
            passing = stack.enter_context(self.store.apply(lease, LOOP))
            current: Any = passing.by_uid(lease.uid)
            passing.set_status(
                lease.uid, current.status.model_copy(update={"phase": phase or current.status.phase})
            )
            passing.finish(next_at)
            if fails:
                raise ZeroDivisionError
        if expected is None or fails:
            return
        if phase not in (None, expected.phase):
            expected.phase, expected.version = phase or "", self._wrote()
        expected.lease = None
        if next_at is not None:
            expected.wake(next_at)

    @rule(pick=st.integers(0, 99), delay=DELAYS)
    def release(self, pick: int, delay: int | None) -> None:
        if not self.leases:
            return
        lease = self.leases[pick % len(self.leases)]
        expected = next((it for it in self.world.objects.values() if it.lease == lease), None)
        next_at = None if delay is None else self.clock.at + delay * MINUTE
        with contextlib.nullcontext() if expected else pytest.raises(LeaseLost):
            self.store.release(lease, next_at)
        if expected is not None:
            expected.lease = None
            if next_at is not None:
                expected.wake(next_at)

    @rule(name=NAMES)
    def a_transaction_that_fails(self, name: str) -> None:
        with pytest.raises(ZeroDivisionError), self.store.write(ALICE) as transaction:
            if (expected := self.world.objects.get(name)) is not None:
                current = transaction.get("Deployment", self.workspace, name)
                transaction.set_status(expected.uid, current.status.model_copy(update={"message": "half"}))
                transaction.event(current, "Warning", "Test", "half")
                if transaction.request_deletion(expected.uid) is not None:
                    transaction.remove_finalizer(expected.uid, "podium/drain")
            transaction.create(deployment("half", workspace=self.workspace))
            raise ZeroDivisionError

    @invariant()
    def is_as_expected(self) -> None:
        with self.store.read() as snapshot:
            assert snapshot.version == self.world.version
            found = snapshot.list("Deployment", workspace=self.workspace).items
            assert {item.metadata.name: seen(item) for item in found} == {
                name: wanted(expected) for name, expected in self.world.objects.items()
            }
            for team in ("risk", "fraud"):
                chosen = snapshot.list("Deployment", workspace=self.workspace, labels=f"team={team}").items
                assert chosen == [item for item in found if item.metadata.labels.get("team") == team]
            ready = snapshot.list("Deployment", workspace=self.workspace, fields="status.phase!=Ready").items
            assert ready == [item for item in found if item.status.phase != "Ready"]
            assert len(snapshot.audit(workspace=self.workspace, limit=1000)) == self.world.audited
            assert snapshot.events(workspace=self.workspace) == []
            replayed: dict[str, Any] = {}
            versions = []
            for change in snapshot.changes(self.start, workspace=self.workspace):
                versions.append(change.version)
                if change.type == "DELETED":
                    del replayed[change.name]
                else:
                    assert (change.type == "ADDED") == (change.name not in replayed)
                    replayed[change.name] = change.object
            assert versions == list(range(self.start + 1, self.world.version + 1))
            assert replayed == {item.metadata.name: item.document() for item in found}
        timers = [at for it in self.world.objects.values() if (at := it.due()) is not None]
        assert self.store.next_due(["Deployment"]) == min(timers, default=None)

    def teardown(self) -> None:
        """The next history finds no due rows of this one."""
        for expected in self.world.objects.values():
            with self.store.write(LOOP) as transaction:
                if transaction.request_deletion(expected.uid) is not None:
                    transaction.remove_finalizer(expected.uid, "podium/drain")


def seen(item: AnyResource) -> Expected:
    meta = item.metadata
    return Expected(
        uid=meta.uid or "",
        replicas=item.spec.replicas,
        team=meta.labels.get("team"),
        version=meta.resource_version or 0,
        generation=meta.generation or 0,
        phase=item.status.phase,
        deleting=meta.deletion_requested_at is not None,
        finalizers=len(meta.finalizers),
    )


def wanted(expected: Expected) -> Expected:
    return replace(expected, next_at=None, lease=None, token=0)


@pytest.mark.timeout(300)
def test_random_histories_match_the_model(database_url: str) -> None:
    clock = Clock()
    store = Store.open(database_url, now=clock)
    sizes = settings(
        max_examples=25 if database_url.startswith("sqlite") else 10,
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
    )
    try:
        store.migrate()
        run_state_machine_as_test(lambda: Machine(store, clock), settings=sizes)
    finally:
        store.close()
