"""What a replica needs before it can start: its files checked out, its environment made. Adapter for the reconcilers.

Also used by `publishing`, which needs the same environment to look at a model that is being pushed.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from podium.environments.uv import Environments
from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.resources.errors import PodiumError
from podium.resources.kinds import Revision
from podium.resources.manifest import Manifest

_MAX_LOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Prepared:
    """`python` is None while the environment is made; `error` holds the installer's own words when it can't be."""

    model_path: Path
    manifest_path: Path
    python: Path | None
    environment: str
    progress: str
    error: str


class Preparing:
    """Files and environments of versions on this machine."""

    def __init__(self, blobs: BlobStore, checkout: Checkout, environments: Environments) -> None:
        self._blobs, self._checkout, self._environments = blobs, checkout, environments
        self._done: dict[str, tuple[Path, Path]] = {}
        self._lock = threading.Lock()

    def prepare(self, revision: Revision, manifest: Manifest) -> Prepared:
        """Check the files out (hashed while they are copied) and look at the environment; never waits for a build.

        Raises IntegrityError for damaged or missing bytes, Unavailable where the store or the disk does not answer.
        """
        return self.of(manifest, revision.spec.runtime_wheel)

    def of(self, manifest: Manifest, runtime_wheel: str) -> Prepared:
        """The same for a manifest and the sha256 of a runtime wheel."""
        model_path, manifest_path = self._checked_out(manifest)
        lock = self._blobs.read(manifest.lock.sha256, _MAX_LOCK_BYTES).decode()
        name = self._environments.digest(manifest.lock.sha256, manifest.python, runtime_wheel)
        try:
            state = self._environments.ensure(lock, manifest.python, runtime_wheel)
        except PodiumError as error:
            return Prepared(model_path, manifest_path, None, name, "", str(error))
        return Prepared(
            model_path=model_path,
            manifest_path=manifest_path,
            python=state.python if state.phase == "ready" else None,
            environment=name,
            progress=state.progress,
            error=state.error if state.phase == "failed" else "",
        )

    def distrust(self, manifest: Manifest) -> None:
        """A replica found damaged files: the next look copies them from the store again, hashing every byte."""
        digest = manifest.digest()
        with self._lock:
            self._done.pop(digest, None)
        self._checkout.discard(digest)

    def _checked_out(self, manifest: Manifest) -> tuple[Path, Path]:
        """Checked once per server; a replica hashes everything again before it loads."""
        digest = manifest.digest()
        with self._lock:
            found = self._done.get(digest)
        if found is not None and found[1].exists():
            return found
        made = self._checkout.ensure(manifest)
        with self._lock:
            self._done[digest] = made
        return made
