"""Many writers at once: nobody's change is lost, nobody wins twice."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from podium.resources.errors import AlreadyExists, Conflict
from podium.store import Store
from tests.integration.store.objects import ALICE, create, deployment, replicas, uid_of

WRITERS = 50
ROUNDS = 4


def test_of_fifty_writers_exactly_one_wins_each_version(store: Store, other_server: Store) -> None:
    (created,) = create(store, deployment())
    uid, start = uid_of(created), threading.Barrier(WRITERS)

    def write(writer: int, version: int) -> int | None:
        start.wait()
        server = (store, other_server)[writer % 2]
        try:
            with server.write(ALICE) as transaction:
                spec = replicas(created, writer + 1)
                return transaction.replace(uid, spec=spec, expected_version=version).metadata.resource_version
        except Conflict as conflict:
            assert conflict.details["resourceVersion"] == version + 1
            return None

    with ThreadPoolExecutor(WRITERS) as pool:
        for version in range(1, ROUNDS + 1):
            # Each wants another number of replicas; none of them what is there.
            results = list(
                pool.map(write, range(version * 100, version * 100 + WRITERS), [version] * WRITERS)
            )
            assert Counter(results) == {None: WRITERS - 1, version + 1: 1}
    with store.read() as snapshot:
        assert snapshot.version == ROUNDS + 1
        assert [change.version for change in snapshot.changes(0)] == [1, 2, 3, 4, 5]
        assert len(snapshot.audit(kind="Deployment")) == ROUNDS + 1
        assert snapshot.get("Deployment", "default", "churn").metadata.generation == ROUNDS + 1


def test_of_many_creators_exactly_one_wins_a_name(store: Store, other_server: Store) -> None:
    start = threading.Barrier(20)

    def make(creator: int) -> str:
        start.wait()
        try:
            return uid_of(create((store, other_server)[creator % 2], deployment())[0])
        except AlreadyExists:
            return ""

    with ThreadPoolExecutor(20) as pool:
        assert Counter(map(bool, pool.map(make, range(20)))) == {False: 19, True: 1}


def test_unconditional_changes_are_all_kept(store: Store, other_server: Store) -> None:
    """Read and write in one transaction need no version: transactions run one after the other."""
    (created,) = create(store, deployment())
    uid = uid_of(created)

    def add_one(turn: int) -> None:
        for _ in range(10):
            with (store, other_server)[turn % 2].write(ALICE) as transaction:
                current = transaction.by_uid(uid)
                assert current is not None
                transaction.replace(
                    uid, spec=replicas(current, current.spec.replicas + 1), expected_version=None
                )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(8)))
    with store.read() as snapshot:
        found = snapshot.get("Deployment", "default", "churn")
    assert found.spec.replicas == 81
    assert (found.metadata.resource_version, found.metadata.generation) == (81, 81)
