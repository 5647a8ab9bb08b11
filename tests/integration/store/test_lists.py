"""Lists: selectors and pages."""

import base64

import pytest

from podium.resources.errors import InvalidInput
from podium.store import Store
from tests.integration.store.objects import ALICE, LOOP, create, deployment, replicas, rollout, uid_of

LABELS = {
    "a": {"team": "risk", "tier": "gold"},
    "b": {"team": "risk"},
    "c": {"team": "fraud", "tier": "silver"},
    "d": {},
}


@pytest.fixture
def labelled(store: Store) -> Store:
    create(
        store, *(deployment(name, model=f"model-{name}", labels=labels) for name, labels in LABELS.items())
    )
    return store


def names(store: Store, **query: str) -> str:
    with store.read() as snapshot:
        return "".join(item.metadata.name for item in snapshot.list("Deployment", **query).items)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", "abcd"),
        ("team=risk", "ab"),
        ("team == risk", "ab"),
        ("team!=risk", "cd"),
        ("team", "abc"),
        ("!team", "d"),
        ("! tier", "bd"),
        ("team in (risk, fraud),tier", "ac"),
        ("team notin (risk)", "cd"),
        ("team=risk,tier=gold", "a"),
        ("team=risk,tier!=gold", "b"),
        ("team=risk,team=fraud", ""),
        ("team=", ""),
        ("tier in (gold,silver),team!=fraud", "a"),
        ("nobody=has", ""),
    ],
)
def test_label_selectors(labelled: Store, selector: str, expected: str) -> None:
    assert names(labelled, labels=selector) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("spec.model.name=model-b", "b"),
        ("spec.model.name!=model-b", "acd"),
        ("spec.model.alias=champion,status.phase=Pending", "abcd"),
        ("status.phase!=Pending", ""),
        ("spec.model.version=", "abcd"),
        ("spec.model.version!=", ""),
        ("spec.model.version=3", ""),
        ("metadata.name in (a,d)", "ad"),
        ("metadata.name!=a,metadata.workspace=default", "bcd"),
        ("!spec.model.version,metadata.name", "abcd"),
    ],
)
def test_field_selectors(labelled: Store, selector: str, expected: str) -> None:
    assert names(labelled, fields=selector) == expected


def test_selectors_follow_every_change(labelled: Store) -> None:
    with labelled.read() as snapshot:
        a = snapshot.get("Deployment", "default", "a")
    with labelled.write(ALICE) as transaction:
        transaction.replace(uid_of(a), spec=replicas(a, 4), labels={"team": "fraud"}, expected_version=None)
        transaction.set_status(uid_of(a), a.status.model_copy(update={"phase": "Ready"}))
    assert names(labelled, labels="team=risk") == "b"
    assert names(labelled, labels="team=fraud") == "ac"
    assert names(labelled, labels="tier=gold") == ""
    assert names(labelled, fields="status.phase=Ready") == "a"
    assert names(labelled, labels="team=fraud", fields="status.phase=Pending") == "c"
    with labelled.write(LOOP) as transaction:
        transaction.request_deletion(uid_of(a))
        transaction.remove_finalizer(uid_of(a), "podium/drain")
    assert names(labelled, labels="team=fraud") == "c"


def test_selectors_of_one_kind_leave_the_others_alone(labelled: Store) -> None:
    with labelled.read() as snapshot:
        owner = snapshot.get("Deployment", "default", "a")
    create(labelled, rollout("a-1", owner))
    with labelled.read() as snapshot:
        found = snapshot.list(
            "Rollout", fields=f"spec.deploymentUid={uid_of(owner)},status.phase=Pending"
        ).items
        assert [item.metadata.name for item in found] == ["a-1"]
        assert snapshot.list("Rollout", fields="spec.deployment=b").items == []


@pytest.mark.parametrize(
    ("parameter", "query"),
    [
        ("labelSelector", {"labels": "team="[:-1] + "=a=b"}),
        ("labelSelector", {"labels": "team in risk"}),
        ("labelSelector", {"labels": "team in (risk"}),
        ("labelSelector", {"labels": ",team"}),
        ("labelSelector", {"labels": "team,"}),
        ("labelSelector", {"labels": "="}),
        ("labelSelector", {"labels": "a b"}),
        ("labelSelector", {"labels": "a" * 5000}),
        ("labelSelector", {"labels": ",".join(["a"] * 40)}),
        ("fieldSelector", {"fields": "spec.replicas=3"}),
        ("fieldSelector", {"fields": "spec.model.name==="}),
        ("continue", {"after": "nonsense!"}),
        ("continue", {"after": base64.urlsafe_b64encode(b'["x"]').decode()}),
        ("continue", {"after": base64.urlsafe_b64encode(b'[true,"a","b"]').decode()}),
        ("continue", {"after": "é"}),
        ("limit", {"limit": 0}),
    ],
)
def test_bad_questions_name_the_parameter(labelled: Store, parameter: str, query: dict[str, str]) -> None:
    with labelled.read() as snapshot, pytest.raises(InvalidInput) as caught:
        snapshot.list("Deployment", **query)  # type: ignore[arg-type]
    assert [issue.field for issue in caught.value.issues] == [parameter]


def test_an_unknown_field_lists_the_known(labelled: Store) -> None:
    with (
        labelled.read() as snapshot,
        pytest.raises(InvalidInput, match=r"known: .*spec.model.name.*status.phase"),
    ):
        snapshot.list("Deployment", fields="spec.replicas=3")


def test_pages_hold_everything_once(store: Store) -> None:
    expected = [(workspace, f"d{number:02}") for workspace in ("a", "b-c", "bc") for number in range(7)]
    create(store, *(deployment(name, workspace=workspace) for workspace, name in reversed(expected)))
    seen, after = [], None
    with store.read() as snapshot:
        version = snapshot.version
    while True:
        with store.read() as snapshot:
            page = snapshot.list("Deployment", limit=4, after=after)
        assert page.version == version, "a watch starts where the first page was read"
        assert len(page.items) == 4 or page.next is None
        seen += [(item.metadata.workspace, item.metadata.name) for item in page.items]
        # What comes in behind the cursor, or changes, doubles or hides nothing.
        create(store, deployment(f"aa{len(seen)}", workspace="a"))
        if page.next is None:
            break
        after = page.next
    assert seen == expected
    with store.read() as snapshot:
        assert snapshot.list("Deployment", limit=21 + 6, workspace=None).next is None, (
            "exactly full: no empty page"
        )


def test_a_page_keeps_to_its_question(store: Store) -> None:
    create(store, *(deployment(f"d{number}", labels={"odd": str(number % 2)}) for number in range(9)))
    with store.read() as snapshot:
        first = snapshot.list("Deployment", labels="odd=1", limit=2)
        second = snapshot.list("Deployment", labels="odd=1", limit=2, after=first.next)
    assert [item.metadata.name for item in (*first.items, *second.items)] == ["d1", "d3", "d5", "d7"]
    assert second.next is None


def test_order_is_by_bytes_on_both_databases(store: Store) -> None:
    given = ["a", "a-b", "a.1", "ab", "a0", "b", "Z"]
    plain = deployment()
    create(
        store,
        *(
            plain.model_copy(update={"metadata": plain.metadata.model_copy(update={"name": it})})
            for it in given
        ),
    )
    with store.read() as snapshot:
        assert [item.metadata.name for item in snapshot.list("Deployment").items] == sorted(given)
