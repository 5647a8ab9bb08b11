"""What housekeeping removes, and what it must not."""

import datetime
import hashlib
from pathlib import Path

from podium.app.housekeeping import Housekeeping
from podium.environments.uv import Environments
from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest
from podium.resources.model import ModelVersionSpec, ModelVersionStatus
from podium.resources.shape import Metadata, Resource
from podium.store import Actor, Store
from podium.targets.process import ProcessTarget

NOW = datetime.datetime.now(datetime.UTC)


def put(blobs: BlobStore, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    blobs.put([content], digest)
    return digest


def test_blobs_and_checkouts_that_nothing_needs_go_and_the_others_stay(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'p.db'}")
    store.migrate()
    blobs = BlobStore(str(tmp_path / "blobs"))
    model, lock, stray = put(blobs, b"model"), put(blobs, b"lock"), put(blobs, b"stray")
    manifest = Manifest(
        flavor=Flavor(name="sklearn", entry="m.pkl"),
        files=[FileEntry(path="m.pkl", size=5, sha256=model)],
        python="3.11",
        lock=LockReference(sha256=lock),
    )
    own = put(blobs, manifest.canonical_bytes())
    spec = ModelVersionSpec(
        model="m", version="1", digest=manifest.digest(), push_digest=manifest.digest(), manifest=manifest
    )
    with store.write(Actor("tester", "user")) as tx:
        tx.create(
            Resource(
                kind="ModelVersion", metadata=Metadata(name="m.1"), spec=spec, status=ModelVersionStatus()
            )
        )
    checkout = Checkout(tmp_path / "checkouts", blobs)
    checkout.ensure(manifest)
    wheel = tmp_path / "podium_runtime-0-py3-none-any.whl"
    wheel.write_bytes(b"")
    environments = Environments(tmp_path / "environments", wheel=wheel, max_bytes=10**9)
    target = ProcessTarget(tmp_path / "replicas", tmp_path / "sockets")
    scratch = tmp_path / "work"
    (scratch / "import-killed" / "model").mkdir(parents=True)
    (scratch / "import-killed" / "model" / "weights").write_bytes(b"x")
    housekeeping = Housekeeping(store, blobs, checkout, environments, target, scratch=[scratch])

    housekeeping.tidy(NOW)
    assert blobs.exists(stray), "young blobs may belong to a push under way"
    assert len(checkout.entries()) == 1
    assert list(scratch.iterdir()), "an import may be under way"

    housekeeping.tidy(NOW + datetime.timedelta(days=8))
    assert not blobs.exists(stray)
    assert all(blobs.exists(digest) for digest in (model, lock, own))
    assert checkout.entries() == []
    assert list(scratch.iterdir()) == []
    store.close()
