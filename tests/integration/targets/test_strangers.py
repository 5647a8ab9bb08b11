"""Replicas whose revision is in no database, as after a restore of an older one: ended by housekeeping."""

import sys
from pathlib import Path

import pytest

from podium.app.housekeeping import Housekeeping
from podium.environments.uv import Environments
from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.resources.revision import RevisionStatus
from podium.resources.shape import Metadata, Resource
from podium.store import Actor, Store
from podium.store.store import utc_now

from .conftest import Yard, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]


def test_a_replica_of_no_known_revision_is_ended_and_the_others_stay(yard: Yard, tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'p.db'}")
    store.migrate()
    target = yard.target()
    with store.write(Actor("tester", "user")) as tx:
        known = tx.create(
            Resource(
                kind="Revision",
                metadata=Metadata(name="churn-00001"),
                spec=yard.wish().spec,
                status=RevisionStatus(),
            )
        )
    target.start(yard.wish("churn-00001-1", uid=known.uid))
    target.start(yard.wish("gone-00001-1", uid="gone"))
    yard.reaches(target, "Ready", known.uid)
    yard.reaches(target, "Ready", "gone")

    blobs = BlobStore(str(tmp_path / "blobs"))
    wheel = tmp_path / "podium_runtime-0-py3-none-any.whl"
    wheel.touch()
    environments = Environments(tmp_path / "environments", wheel=wheel, max_bytes=10**9)
    housekeeping = Housekeeping(store, blobs, Checkout(tmp_path / "checkouts", blobs), environments, target)

    def round_ends_it() -> bool:
        housekeeping.tidy(utc_now())
        return not target.observe("gone")

    until(round_ends_it)
    assert [one.phase for one in target.observe(known.uid)] == ["Ready"]
    store.close()
