"""What a watch reads: complete, in order, and honest about what was forgotten."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from podium.resources.errors import Expired, InvalidInput
from podium.store import Change, Store
from tests.integration.store.objects import (
    ALICE,
    HOUR,
    create,
    deployment,
    model,
    now,
    replicas,
    uid_of,
    until,
)


def changes(store: Store, after: int = 0, **query: object) -> list[Change]:
    with store.read() as snapshot:
        return snapshot.changes(after, **query)  # type: ignore[arg-type]


def test_a_change_carries_the_object_as_it_was_left(store: Store) -> None:
    (created,) = create(store, deployment(labels={"a": "b"}))
    with store.write(ALICE) as transaction:
        after = transaction.replace(uid_of(created), spec=replicas(created, 2), expected_version=1)
    first, second = changes(store)
    assert (first.type, first.version, first.object) == ("ADDED", 1, created.document())
    assert (second.type, second.version, second.object) == ("MODIFIED", 2, after.document())
    assert (second.kind, second.workspace, second.name, second.uid) == (
        "Deployment", "default", "churn", uid_of(created),
    )  # fmt: skip
    assert changes(store, 1) == [second]
    assert changes(store, 2) == []


def test_one_transaction_is_one_change_per_object(store: Store) -> None:
    (old,) = create(store, deployment("old"))
    with store.write(ALICE) as transaction:
        fresh = transaction.create(deployment("fresh"))
        transaction.replace(uid_of(fresh), spec=replicas(fresh, 2), expected_version=None)
        passing = transaction.create(model("passing"))
        transaction.request_deletion(uid_of(passing))
        transaction.replace(uid_of(old), spec=replicas(old, 2), expected_version=None)
        transaction.request_deletion(uid_of(old))
        transaction.remove_finalizer(uid_of(old), "podium/drain")
    found = changes(store, 1)
    assert {(change.name, change.type) for change in found} == {("fresh", "ADDED"), ("old", "DELETED")}
    assert {change.version for change in found} == {2}
    (added,) = (change for change in found if change.type == "ADDED")
    assert added.object["spec"]["replicas"] == 2
    (deleted,) = (change for change in found if change.type == "DELETED")
    assert deleted.object["metadata"]["resourceVersion"] == 2


def test_filters(store: Store) -> None:
    create(store, deployment(), deployment("other", workspace="other"), model())
    assert [change.kind for change in changes(store, kinds=["models"])] == ["Model"]
    assert [change.name for change in changes(store, workspace="other")] == ["other"]
    assert changes(store, kinds=["Model"], workspace="other") == []
    with pytest.raises(InvalidInput, match="unknown kind"):
        changes(store, kinds=["Pod"])


def test_a_commit_is_never_split_over_two_answers(store: Store) -> None:
    create(store, *(deployment(f"a{number}") for number in range(3)))
    create(store, *(deployment(f"b{number}") for number in range(5)))
    create(store, deployment("c"))
    sizes, after = [], 0
    while found := changes(store, after, limit=4):
        sizes.append(len(found))
        after = found[-1].version
    assert sizes == [3, 5, 1]


def test_pruned_history_is_expired(store: Store) -> None:
    create(store, deployment("a"))
    create(store, deployment("b"))
    assert store.prune(now() - HOUR).changes == 0
    assert len(changes(store)) == 2
    middle = now()
    until(lambda: now() > middle)
    create(store, deployment("c"))
    assert store.prune(middle).changes == 2
    assert [change.name for change in changes(store, 2)] == ["c"]
    for position in (0, 1):
        with pytest.raises(Expired, match="changes 2 to 3 are kept"):
            changes(store, position)
    assert store.prune(now() + HOUR).changes == 1
    assert changes(store, 3) == []
    with pytest.raises(Expired):
        changes(store, 2)
    create(store, deployment("d"))
    assert [change.name for change in changes(store, 3)] == ["d"]
    with store.read() as snapshot:
        assert len(snapshot.list("Deployment").items) == 4
        assert len(snapshot.audit()) == 4, "the audit trail is kept"


def test_a_position_ahead_of_the_store_is_expired(store: Store) -> None:
    """The database was restored from an older copy: a watch would wait for ever, and then miss changes."""
    create(store, deployment())
    for position in (2, 2**70, -1):
        with pytest.raises(Expired):
            changes(store, position)


def test_a_commit_wakes_who_waits(store: Store) -> None:
    assert store.wait_for_version(0, 0.0) == 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait_for_version, 0, 30.0)
        create(store, deployment())
        assert waiting.result(10) == 1
    assert store.wait_for_version(0, 30.0) == 1, "what is there already is no wait"
    started = time.monotonic()
    assert store.wait_for_version(1, 0.2) == 1
    assert 0.2 <= time.monotonic() - started < 5


def test_another_servers_commit_wakes_who_waits(postgres_url: str) -> None:
    here, there = Store.open(postgres_url), Store.open(postgres_url)
    try:
        here.migrate()
        with ThreadPoolExecutor(2) as pool:
            here.claim("w", kinds=["Deployment"], limit=1, lease_seconds=1, now=now())
            version, work = pool.submit(here.wait_for_version, 0, 30.0), pool.submit(here.wait_for_work, 30.0)
            started = time.monotonic()
            create(there, deployment())
            assert version.result(20) == 1
            work.result(20)
            assert time.monotonic() - started < 10
    finally:
        here.close()
        there.close()


def test_a_version_is_read_only_when_every_lower_one_can_be(postgres_url: str) -> None:
    """A commit that takes long holds back the later ones: a watch that went on from the later version would miss it."""
    here, there = Store.open(postgres_url), Store.open(postgres_url)
    begun, may_commit = threading.Event(), threading.Event()

    def slow() -> None:
        with here.write(ALICE) as transaction:
            transaction.create(deployment("slow"))
            begun.set()
            assert may_commit.wait(30)

    try:
        here.migrate()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(slow)
            assert begun.wait(30)
            second = pool.submit(create, there, deployment("quick"))
            until(lambda: _waits_for_a_lock(there))
            assert changes(there) == []
            assert there.current_version() == 0
            may_commit.set()
            first.result(30)
            second.result(30)
        assert [(change.version, change.name) for change in changes(there)] == [(1, "slow"), (2, "quick")]
    finally:
        may_commit.set()
        here.close()
        there.close()


def _waits_for_a_lock(store: Store) -> bool:
    with store.read() as snapshot:
        waiting = snapshot._connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(waiting.scalar_one()) > 0


WRITERS, COMMITS, WATCHERS = 6, 25, 3


def test_watches_miss_nothing_and_double_nothing(store: Store, other_server: Store) -> None:
    """Writers on two servers commit as fast as they can; each watch sees every version, once, in order."""
    servers, total = (store, other_server), WRITERS * COMMITS

    def write(writer: int) -> None:
        for number in range(COMMITS):
            create(servers[writer % 2], deployment(f"d{writer}-{number}"), model(f"m{writer}-{number}"))

    def watch(watcher: int) -> list[tuple[int, str]]:
        server, after, seen = servers[watcher % 2], 0, []
        deadline = time.monotonic() + 60
        while after < total and time.monotonic() < deadline:
            with server.read() as snapshot:
                found = snapshot.changes(after, limit=7)
                after = found[-1].version if found else after
            seen += [(change.version, change.name) for change in found]
            if not found:
                server.wait_for_version(after, 0.05)
        return seen

    with ThreadPoolExecutor(WRITERS + WATCHERS) as pool:
        watching = [pool.submit(watch, watcher) for watcher in range(WATCHERS)]
        list(pool.map(write, range(WRITERS)))
        for watched in watching:
            seen = watched.result(90)
            assert [version for version, _ in seen] == [
                version for version in range(1, total + 1) for _ in range(2)
            ]
            assert len({name for _, name in seen}) == 2 * total
