"""Leases, fencing tokens and timers: who works on what, and when."""

import datetime
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from podium.resources.errors import LeaseLost
from podium.store import Lease, Store
from tests.integration.store.objects import (
    ALICE,
    HOUR,
    LOOP,
    WORKED_ON,
    create,
    deployment,
    model,
    now,
    replicas,
    rollout,
    uid_of,
)

SECOND = datetime.timedelta(seconds=1)


def claim(
    store: Store, at: datetime.datetime | None = None, *, worker: str = "w", limit: int = 100
) -> list[Lease]:
    return store.claim(worker, kinds=WORKED_ON, limit=limit, lease_seconds=60, now=at or now())


def test_a_new_object_is_due_once(store: Store) -> None:
    (created, _) = create(store, deployment(), model())
    (lease,) = claim(store)
    assert (lease.uid, lease.kind, lease.workspace, lease.name) == (
        uid_of(created), "Deployment", "default", "churn",
    )  # fmt: skip
    assert (lease.token, lease.worker, lease.attempts) == (1, "w", 0)
    assert claim(store) == []
    assert store.next_due(WORKED_ON) == lease.until
    assert store.next_due(["Rollout"]) is None


def test_only_the_kinds_asked_for(store: Store) -> None:
    (owner,) = create(store, deployment())
    create(store, rollout("churn-1", owner))
    leases = store.claim("w", kinds=["Rollout"], limit=9, lease_seconds=60, now=now())
    assert [lease.kind for lease in leases] == ["Rollout"]


def test_the_longest_due_first_and_no_more_than_asked_for(store: Store) -> None:
    for name in ("a", "b", "c"):
        create(store, deployment(name))
    assert [lease.name for lease in claim(store, limit=2)] == ["a", "b"]
    assert [lease.name for lease in claim(store, limit=2)] == ["c"]


def test_apply_ends_the_lease_and_sets_the_timer(store: Store) -> None:
    create(store, deployment())
    (lease,) = claim(store)
    at = now() + HOUR
    with store.apply(lease, LOOP) as passing:
        passing.finish(at)
    assert store.next_due(WORKED_ON) == at
    assert claim(store) == []
    assert claim(store, at - SECOND) == []
    (again,) = claim(store, at)
    assert again.token == 2
    with store.apply(again, LOOP) as passing:
        passing.finish(None)
    assert store.next_due(WORKED_ON) is None
    assert claim(store, at + 1000 * HOUR) == [], "no timer, no wake: nothing to do"


def test_a_pass_that_changes_nothing_uses_up_no_version(store: Store) -> None:
    create(store, deployment())
    (lease,) = claim(store)
    with store.apply(lease, LOOP) as passing:
        passing.finish(None)
    assert store.current_version() == 1
    (other,) = create(store, deployment("other"))
    assert other.metadata.resource_version == 2


def test_a_timer_survives_a_restart(store: Store, database_url: str) -> None:
    create(store, deployment())
    (lease,) = claim(store)
    store.release(lease, now() + 24 * HOUR)
    store.close()
    reopened = Store.open(database_url)
    try:
        assert claim(reopened) == []
        assert [it.token for it in claim(reopened, now() + 25 * HOUR)] == [2]
    finally:
        reopened.close()


def test_a_wake_between_claim_and_apply_is_not_lost(store: Store, other_server: Store) -> None:
    (created,) = create(store, deployment())
    uid = uid_of(created)
    wakes = {
        "wake": lambda: store.wake(uid),
        "another server's wake": lambda: other_server.wake(uid),
        "replace": lambda: _scale(store, uid),
        "in a transaction": lambda: _wake(store, uid),
    }
    for what, wake in wakes.items():
        (lease,) = claim(store)
        wake()
        assert claim(store) == [], "it is being worked on"
        with store.apply(lease, LOOP) as passing:
            passing.finish(now() + HOUR)
        assert len(claim(store)) == 1, what
        store.release(claim(store, now() + 2 * HOUR)[0], None)
        store.wake(uid)


def _scale(store: Store, uid: str) -> None:
    with store.write(ALICE) as transaction:
        current = transaction.by_uid(uid)
        assert current is not None
        transaction.replace(uid, spec=replicas(current, current.spec.replicas + 1), expected_version=None)


def _wake(store: Store, uid: str) -> None:
    with store.write(ALICE) as transaction:
        transaction.wake(uid)


def test_a_wake_before_release_is_not_lost(store: Store) -> None:
    (created,) = create(store, deployment())
    (lease,) = claim(store)
    store.wake(uid_of(created))
    store.release(lease, now() + HOUR, attempts=3)
    (again,) = claim(store)
    assert again.attempts == 3


def test_of_a_timer_and_a_wake_the_earlier_counts(store: Store) -> None:
    (created,) = create(store, deployment())
    uid, start = uid_of(created), now()
    (lease,) = claim(store)
    store.wake(uid, at=start + 3 * HOUR)
    with store.apply(lease, LOOP) as passing:
        passing.finish(start + 2 * HOUR)
    assert store.next_due(WORKED_ON) == start + 2 * HOUR
    store.wake(uid, at=start + 5 * HOUR)
    assert store.next_due(WORKED_ON) == start + 2 * HOUR
    store.wake(uid, at=start + HOUR)
    assert store.next_due(WORKED_ON) == start + HOUR


def test_a_stale_workers_apply_is_refused(store: Store) -> None:
    (created,) = create(store, deployment())
    (stale,) = claim(store, worker="slow")
    (fresh,) = claim(store, now() + 2 * HOUR, worker="quick")
    assert (fresh.token, fresh.uid) == (stale.token + 1, stale.uid)
    entered = False
    with pytest.raises(LeaseLost, match="Deployment default/churn"), store.apply(stale, LOOP) as passing:
        entered = True
        passing.finish(None)
    assert not entered
    with pytest.raises(LeaseLost):
        store.release(stale, None)
    with pytest.raises(LeaseLost):
        store.renew(stale, 60, now())
    assert store.current_version() == 1
    ready = created.status.model_copy(update={"phase": "Ready"})
    with store.apply(fresh, LOOP) as passing:
        passing.set_status(fresh.uid, ready)
        passing.finish(None)
    assert store.current_version() == 2


def test_the_same_workers_older_lease_is_stale_too(store: Store) -> None:
    create(store, deployment())
    (first,) = claim(store)
    (second,) = claim(store, now() + HOUR)
    with pytest.raises(LeaseLost):
        store.release(first, None)
    store.release(second, None)
    with pytest.raises(LeaseLost):
        store.release(second, None)


def test_an_expired_lease_that_nobody_took_still_holds(store: Store) -> None:
    create(store, deployment())
    (lease,) = store.claim("w", kinds=WORKED_ON, limit=1, lease_seconds=0, now=now())
    with store.apply(lease, LOOP) as passing:
        passing.finish(None)


def test_a_lease_on_an_object_that_is_gone_is_lost(store: Store) -> None:
    (created,) = create(store, deployment())
    (lease,) = claim(store)
    with store.write(ALICE) as transaction:
        transaction.request_deletion(uid_of(created))
        transaction.remove_finalizer(uid_of(created), "podium/drain")
    with pytest.raises(LeaseLost), store.apply(lease, LOOP):
        pass


def test_an_object_may_remove_itself_in_its_own_pass(store: Store) -> None:
    (created,) = create(store, deployment())
    with store.write(ALICE) as transaction:
        transaction.request_deletion(uid_of(created))
    (lease,) = claim(store)
    with store.apply(lease, LOOP) as passing:
        assert passing.remove_finalizer(lease.uid, "podium/drain") is None
        passing.finish(None)
    assert store.next_due(WORKED_ON) is None


def test_a_failing_pass_writes_nothing_and_keeps_the_lease(store: Store) -> None:
    (created,) = create(store, deployment())
    (lease,) = claim(store)
    ready = created.status.model_copy(update={"phase": "Ready"})
    with pytest.raises(ZeroDivisionError), store.apply(lease, LOOP) as passing:
        passing.set_status(lease.uid, ready)
        passing.finish(None)
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="finish"), store.apply(lease, LOOP) as passing:
        passing.set_status(lease.uid, ready)
    assert store.current_version() == 1
    assert claim(store) == []
    store.release(lease, None, attempts=1)


def test_attempts_count_failures_and_deaths_and_end_with_success(store: Store) -> None:
    create(store, deployment())
    at = now()
    (lease,) = claim(store, at)
    store.release(lease, at, attempts=lease.attempts + 1)
    (lease,) = claim(store, at)
    assert lease.attempts == 1
    (lease,) = claim(store, at + HOUR)
    assert lease.attempts == 2, "its worker died"
    with store.apply(lease, LOOP) as passing:
        passing.finish(at)
    (lease,) = claim(store, at + HOUR)
    assert lease.attempts == 0


def test_renewing_keeps_a_row(store: Store) -> None:
    create(store, deployment())
    at = now()
    (lease,) = claim(store, at)
    renewed = store.renew(lease, 7200, at)
    assert renewed.until == at + 2 * HOUR
    assert claim(store, at + HOUR) == []
    assert len(claim(store, at + 3 * HOUR)) == 1


def test_two_workers_never_hold_the_same_row(store: Store, other_server: Store) -> None:
    rows, workers = 120, 8
    create(store, *(deployment(f"d{number}") for number in range(rows)))
    start = threading.Barrier(workers)

    def work(worker: int) -> list[tuple[str, int]]:
        start.wait()
        server, mine = (store, other_server)[worker % 2], []
        while leases := claim(server, worker=f"w{worker}", limit=3):
            mine += [(lease.uid, lease.token) for lease in leases]
        return mine

    with ThreadPoolExecutor(workers) as pool:
        taken = Counter(lease for mine in pool.map(work, range(workers)) for lease in mine)
    assert set(taken.values()) == {1}
    assert {token for _, token in taken} == {1}
    assert len(taken) == rows


def test_no_step_is_taken_twice(store: Store, other_server: Store) -> None:
    """Each pass adds one replica and leaves the row due: what was counted is what was written."""
    create(store, *(deployment(f"d{number}") for number in range(5)))
    passes, workers = 12, 6

    def work(worker: int) -> int:
        server, done = (store, other_server)[worker % 2], 0
        deadline = time.monotonic() + 60
        while done < passes and time.monotonic() < deadline:
            for lease in claim(server, worker=f"w{worker}", limit=2):
                with server.apply(lease, LOOP) as passing:
                    current = passing.by_uid(lease.uid)
                    assert current is not None
                    passing.replace(
                        lease.uid, spec=replicas(current, current.spec.replicas + 1), expected_version=None
                    )
                    passing.finish(None)
                done += 1
        return done

    with ThreadPoolExecutor(workers) as pool:
        done = sum(pool.map(work, range(workers)))
    assert done >= passes * workers
    with store.read() as snapshot:
        assert sum(item.spec.replicas - 1 for item in snapshot.list("Deployment").items) == done


def test_a_claim_passes_over_rows_that_another_transaction_looks_at(postgres_url: str) -> None:
    """A server that hangs inside its claim holds up nobody else's."""
    here, there = Store.open(postgres_url), Store.open(postgres_url)
    try:
        here.migrate()
        create(here, deployment("a"), deployment("b"))
        with here.read() as snapshot:
            a = uid_of(snapshot.get("Deployment", "default", "a"))
        with here._database.writing() as connection:
            connection.exec_driver_sql(f"SELECT uid FROM work WHERE uid = '{a}' FOR UPDATE")
            with ThreadPoolExecutor(1) as pool:
                found = pool.submit(claim, there).result(20)
        assert [lease.name for lease in found] == ["b"]
    finally:
        here.close()
        there.close()


def test_waiting_for_work_ends_with_a_wake(store: Store) -> None:
    (created,) = create(store, deployment())
    store.release(claim(store)[0], None)
    for wake in (
        lambda: store.wake(uid_of(created)),
        lambda: _scale(store, uid_of(created)),
        lambda: _wake(store, uid_of(created)),
        lambda: create(store, rollout("churn-1", created)),
    ):
        assert claim(store) == []
        with ThreadPoolExecutor(1) as pool:

            def worker() -> list[Lease]:
                if leases := claim(store):
                    return leases  # it was woken before this thread came to look
                store.wait_for_work(30.0)
                return claim(store)

            waiting = pool.submit(worker)
            wake()
            leases = waiting.result(20)
        assert len(leases) == 1
        for lease in leases:
            store.release(lease, None)


def test_a_wake_between_claim_and_wait_is_not_slept_through(store: Store) -> None:
    (created,) = create(store, deployment())
    store.release(claim(store)[0], None)
    assert claim(store) == []
    store.wake(uid_of(created))
    started = time.monotonic()
    store.wait_for_work(30.0)
    assert time.monotonic() - started < 20


def test_waiting_for_work_ends_by_itself(store: Store) -> None:
    claim(store)
    started = time.monotonic()
    store.wait_for_work(0.2)
    assert 0.2 <= time.monotonic() - started < 5
