"""Objects of any kind: create, read, replace, status, deletion."""

import datetime

import pytest

from podium.resources.errors import AlreadyExists, Conflict, InvalidInput, NotFound, Refused
from podium.store import Store
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
    version,
)


def test_created_object_is_what_is_read(store: Store) -> None:
    before = now()
    (created,) = create(store, deployment(labels={"team": "risk"}))
    meta = created.metadata
    assert (meta.generation, meta.resource_version, meta.finalizers) == (1, 1, ["podium/drain"])
    assert meta.created_at is not None
    assert before <= meta.created_at <= now()
    assert meta.created_at.utcoffset() == datetime.timedelta(0)
    with store.read() as snapshot:
        assert snapshot.get("Deployment", "default", "churn") == created
        assert snapshot.get("d", "default", "churn") == created
        assert snapshot.by_uid(uid_of(created)) == created
        assert snapshot.version == 1
        assert snapshot.find("Deployment", "other", "churn") is None
        assert snapshot.by_uid("none") is None


def test_every_kind_comes_back_as_it_was(store: Store) -> None:
    (owner,) = create(store, deployment())
    made = [*create(store, model(), version("1"), rollout("churn-1", owner)), owner]
    with store.read() as snapshot:
        for resource in made:
            assert snapshot.get(resource.kind, "default", resource.metadata.name) == resource


def test_a_name_is_taken_once_per_kind_and_workspace(store: Store) -> None:
    create(store, deployment(), model("churn"), deployment(workspace="other"))
    with pytest.raises(AlreadyExists, match="Deployment churn exists in workspace default"):
        create(store, deployment())
    with store.read() as snapshot:
        assert snapshot.version == 1
        assert len(snapshot.list("Deployment").items) == 2


def test_what_is_missing_is_named(store: Store) -> None:
    with store.read() as snapshot:
        with pytest.raises(NotFound, match=r"Deployment 'nope' not found in workspace 'default'"):
            snapshot.get("Deployment", "default", "nope")
        with pytest.raises(InvalidInput, match="known: Workspace, Model"):
            snapshot.get("Pod", "default", "nope")
    with store.write(ALICE) as transaction:
        for change in (
            lambda: transaction.replace("u", spec=deployment().spec, expected_version=None),
            lambda: transaction.set_status("u", deployment().status),
            lambda: transaction.request_deletion("u"),
            lambda: transaction.remove_finalizer("u", "podium/drain"),
        ):
            with pytest.raises(NotFound):
                change()


@pytest.mark.parametrize("name", ["a\x00b", "a\ud800b", "\x00", "x" * 10_000, "' OR 1=1 --", "%"])
def test_a_hostile_name_is_a_name_that_nothing_has(store: Store, name: str) -> None:
    create(store, deployment())
    with store.read() as snapshot:
        assert snapshot.find("Deployment", "default", name) is None
        assert snapshot.find("Deployment", name, "churn") is None
        assert snapshot.by_uid(name) is None
        assert snapshot.list("Deployment", workspace=name).items == []
        assert list(snapshot.events(name=name)) == []
        assert list(snapshot.audit(name=name)) == []


def test_replace_counts_generations_of_the_spec_only(store: Store) -> None:
    (created,) = create(store, deployment(labels={"a": "b"}))
    uid = uid_of(created)
    with store.write(ALICE) as transaction:
        relabelled = transaction.replace(uid, spec=created.spec, labels={"c": "d"}, expected_version=1)
    assert (relabelled.metadata.generation, relabelled.metadata.resource_version) == (1, 2)
    with store.write(ALICE) as transaction:
        scaled = transaction.replace(uid, spec=replicas(created, 3), expected_version=2)
    assert (scaled.metadata.generation, scaled.metadata.resource_version) == (2, 3)
    assert scaled.metadata.labels == {"c": "d"}
    with store.read() as snapshot:
        assert snapshot.get("Deployment", "default", "churn") == scaled


def test_replace_with_the_same_writes_nothing(store: Store) -> None:
    (created,) = create(store, deployment(labels={"a": "b"}))
    with store.write(ALICE) as transaction:
        same = transaction.replace(uid_of(created), spec=created.spec, labels={"a": "b"}, expected_version=1)
        transaction.set_status(uid_of(created), created.status)
    assert same == created
    with store.read() as snapshot:
        assert (snapshot.version, len(snapshot.audit()), len(snapshot.changes(0))) == (1, 1, 1)


def test_replace_of_an_older_version_is_a_conflict(store: Store) -> None:
    (created,) = create(store, deployment())
    uid = uid_of(created)
    with store.write(ALICE) as transaction:
        transaction.replace(uid, spec=replicas(created, 2), expected_version=1)
    with pytest.raises(Conflict) as caught, store.write(ALICE) as transaction:
        transaction.replace(uid, spec=replicas(created, 3), expected_version=1)
    assert caught.value.details == {"resourceVersion": 2}
    with pytest.raises(Conflict), store.write(ALICE) as transaction:
        transaction.request_deletion(uid, expected_version=1)
    assert store.current_version() == 2


def test_status_moves_the_version_but_not_the_generation(store: Store) -> None:
    (created,) = create(store, deployment())
    ready = created.status.model_copy(update={"phase": "Ready"})
    with store.write(LOOP) as transaction:
        after = transaction.set_status(uid_of(created), ready)
        assert transaction.get("Deployment", "default", "churn").status == ready, "reads its own writes"
    assert (after.metadata.generation, after.metadata.resource_version, after.status) == (1, 2, ready)
    with store.read() as snapshot:
        assert snapshot.get("Deployment", "default", "churn") == after
        assert len(snapshot.audit()) == 1, "a status is not audited"


def test_deletion_waits_for_the_finalizers(store: Store) -> None:
    (created,) = create(store, deployment())
    uid = uid_of(created)
    (lease,) = store.claim("w", kinds=WORKED_ON, limit=9, lease_seconds=60, now=now())
    store.release(lease, None)
    with store.write(ALICE) as transaction:
        going = transaction.request_deletion(uid)
    assert going is not None
    assert going.metadata.deletion_requested_at is not None
    with store.write(ALICE) as transaction:
        assert transaction.request_deletion(uid) == going, "once more changes nothing"
    assert store.current_version() == 2
    with pytest.raises(Refused, match="is being deleted"), store.write(ALICE) as transaction:
        transaction.replace(uid, spec=replicas(created, 2), expected_version=None)
    with pytest.raises(AlreadyExists, match="is being deleted"):
        create(store, deployment())
    assert [it.uid for it in store.claim("w", kinds=WORKED_ON, limit=9, lease_seconds=60, now=now())] == [uid]
    with store.write(LOOP) as transaction:
        assert transaction.remove_finalizer(uid, "unknown") == going
        assert transaction.remove_finalizer(uid, "podium/drain") is None
    with store.read() as snapshot:
        assert snapshot.find("Deployment", "default", "churn") is None
        assert [change.type for change in snapshot.changes(0)] == ["ADDED", "MODIFIED", "DELETED"]
        assert [row.verb for row in snapshot.audit()] == ["remove", "delete", "create"]
    assert store.next_due(WORKED_ON) is None, "its work row is gone"
    (again,) = create(store, deployment())
    assert uid_of(again) != uid


def test_a_finalizer_taken_away_before_deletion_leaves_the_object(store: Store) -> None:
    (created,) = create(store, deployment())
    with store.write(LOOP) as transaction:
        after = transaction.remove_finalizer(uid_of(created), "podium/drain")
    assert after is not None
    assert after.metadata.finalizers == []
    with store.write(ALICE) as transaction:
        assert transaction.request_deletion(uid_of(created)) is None


def test_what_was_made_for_an_object_goes_with_it(store: Store) -> None:
    (owner,) = create(store, deployment())
    (mine,) = create(store, rollout("churn-1", owner))
    with store.read() as snapshot:
        assert snapshot.list("Rollout", owner_uid=uid_of(owner)).items == [mine]
        assert snapshot.list("Rollout", owner_uid="other").items == []
    with store.write(LOOP) as transaction:
        transaction.request_deletion(uid_of(owner))
        transaction.remove_finalizer(uid_of(owner), "podium/drain")
    with store.read() as snapshot:
        assert snapshot.find("Rollout", "default", "churn-1") is None
        last = [change for change in snapshot.changes(0) if change.version == snapshot.version]
        assert {(change.kind, change.type) for change in last} == {
            ("Deployment", "DELETED"),
            ("Rollout", "DELETED"),
        }


def test_a_failing_transaction_leaves_nothing(store: Store) -> None:
    (created,) = create(store, deployment())
    with pytest.raises(ZeroDivisionError), store.write(ALICE) as transaction:
        transaction.create(deployment("second"))
        transaction.replace(uid_of(created), spec=replicas(created, 7), expected_version=1)
        transaction.event(created, "Warning", "Test", "about to fail")
        raise ZeroDivisionError
    with store.read() as snapshot:
        assert snapshot.version == 1
        assert snapshot.list("Deployment").items == [created]
        assert len(snapshot.changes(0)) == 1
        assert len(snapshot.audit()) == 1
        assert list(snapshot.events()) == []
    assert len(store.claim("w", kinds=WORKED_ON, limit=9, lease_seconds=1, now=now() + HOUR)) == 1


def test_a_snapshot_does_not_move(store: Store) -> None:
    create(store, deployment())
    with store.read() as snapshot:
        create(store, deployment("second"))
        assert snapshot.version == 1
        assert len(snapshot.list("Deployment").items) == 1
        assert len(snapshot.changes(0)) == 1
    assert store.current_version() == 2


def test_a_write_inside_a_write_is_refused_at_once(store: Store) -> None:
    with pytest.raises(RuntimeError, match="inside another"), store.write(ALICE), store.write(ALICE):
        pass
    assert len(create(store, deployment())) == 1, "the store goes on"
