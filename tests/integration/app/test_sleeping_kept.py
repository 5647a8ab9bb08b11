"""What a revision that sleeps will need with the next request is not taken away from under it."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

from podium.app.housekeeping import Housekeeping
from podium.environments.uv import Environments
from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest
from podium.resources.revision import RevisionStatus
from podium.resources.shape import Metadata, Resource
from podium.store import Actor, Store
from podium.targets.process import ProcessTarget
from tests.integration.app.test_housekeeping import NOW, put
from tests.unit.planning.worlds import revision

LATER = NOW + datetime.timedelta(days=8)
LISTENS = [{"name": "churn-00001-1", "phase": "Dormant", "address": "unix:/s"}]


@pytest.mark.parametrize(
    ("status", "kept"),
    [({"replicas": LISTENS}, True), ({"sleeping": True}, True), ({}, False)],
    ids=["a replica listens", "one will be made again", "nobody wants it"],
)
def test_files_and_environment_of_a_sleeping_revision_stay(
    tmp_path: Path, status: dict[str, Any], kept: bool
) -> None:
    blobs = BlobStore(str(tmp_path / "blobs"))
    manifest = Manifest(
        flavor=Flavor(name="sklearn", entry="m.pkl"),
        files=[FileEntry(path="m.pkl", size=5, sha256=put(blobs, b"model"))],
        python="3.11",
        lock=LockReference(sha256=put(blobs, b"lock")),
    )
    checkout = Checkout(tmp_path / "checkouts", blobs)
    checkout.ensure(manifest)
    wheel = tmp_path / "podium_runtime-0-py3-none-any.whl"
    wheel.write_bytes(b"")
    environments = Environments(tmp_path / "environments", wheel=wheel, max_bytes=1)
    digest = _environment(tmp_path / "environments", environments)
    store = Store.open(f"sqlite:///{tmp_path / 'p.db'}")
    store.migrate()
    spec = revision(1).spec.model_copy(update={"manifest_digest": manifest.digest()})
    with store.write(Actor("tester", "user")) as tx:
        made = tx.create(
            Resource(
                kind="Revision", metadata=Metadata(name="churn-00001"), spec=spec, status=RevisionStatus()
            )
        )
        tx.set_status(made.uid, RevisionStatus.model_validate({"environment": digest, **status}))
    target = ProcessTarget(tmp_path / "replicas", tmp_path / "sockets")
    Housekeeping(store, blobs, checkout, environments, target).tidy(LATER)
    assert [bool(checkout.entries()), (tmp_path / "environments" / digest).exists()] == [kept, kept]
    store.close()


def _environment(root: Path, environments: Environments) -> str:
    """One that was made long ago, over the limit for all."""
    digest = environments.digest("a" * 64, "3.11", "b" * 64)
    folder = root / digest
    folder.mkdir(parents=True)
    marker = folder / ".complete"
    marker.write_text(json.dumps({"bytes": 10**6}))
    old = (NOW - datetime.timedelta(days=1)).timestamp()
    os.utime(marker, (old, old))
    return digest
