"""The comparisons of shadows: of two writers one finds out, and they go with the revision."""

import datetime
from typing import Any

from podium.resources.kinds import Deployment
from podium.store import ComparisonRow, Store
from tests.integration.store.objects import ALICE, create, deployment, now


def row(uid: str, edition: int, *items: dict[str, Any]) -> ComparisonRow:
    return ComparisonRow(uid, "default", "s-00001", edition, now(), list(items), {"marks": None})


def some(store: Store, name: str) -> Deployment:
    """Any object will do for the table."""
    [made] = create(store, deployment(name))
    return made


def test_of_two_writers_one_finds_out(store: Store) -> None:
    uid = some(store, "churn").uid
    assert store.comparison(uid) is None
    assert store.save_comparison(row(uid, 1, {"a": "one \\u0000 \U0001f600"}))
    assert not store.save_comparison(row(uid, 1, {"a": 2}))
    assert store.save_comparison(row(uid, 2, {"a": 3}))
    assert not store.save_comparison(row(uid, 2, {"a": 4}))
    assert not store.save_comparison(row("no-such-uid", 1))
    assert not store.save_comparison(row("no-such-uid", 2))
    kept = store.comparison(uid)
    assert kept is not None
    assert (kept.edition, kept.items, kept.state) == (2, [{"a": 3}], {"marks": None})
    assert now() - kept.updated_at < datetime.timedelta(minutes=5)
    assert store.comparisons("default") == store.comparisons() == [{"a": 3}]
    assert store.comparisons("other") == []


def test_they_go_with_the_shadow(store: Store) -> None:
    made = some(store, "churn")
    assert store.save_comparison(row(made.uid, 1, {"a": 1}))
    with store.write(ALICE) as tx:
        tx.request_deletion(made.uid)
        for finalizer in made.metadata.finalizers:
            tx.remove_finalizer(made.uid, finalizer)
    assert store.comparison(made.uid) is None
    assert store.comparisons() == []
