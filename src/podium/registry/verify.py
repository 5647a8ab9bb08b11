"""Are the stored bytes of a version still what was pushed?

Called by the API (`podium model verify`). Reads every blob of the version as a whole.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from podium.registry.blobs import BlobStore
from podium.resources.errors import NotFound, Unavailable
from podium.resources.manifest import Manifest

LOCK, MANIFEST = "requirements.lock", "manifest.json"
"""How the lock's and the manifest's blobs are called in findings."""


@dataclass(frozen=True)
class Finding:
    """One file that is not as it was pushed."""

    path: str
    sha256: str
    problem: Literal["missing", "size", "digest", "unreadable"]
    message: str


def verify_version(
    manifest: Manifest, blobs: BlobStore, progress: Callable[[str], None] | None = None
) -> list[Finding]:
    """Findings, in the manifest's order, then the lock and the stored manifest; empty means intact.

    `progress` is told each path before it is read. A storage that does not answer is a finding as well
    (`unreadable`), not an exception: what could be read is reported all the same. Each blob is read once, however
    many files share it."""
    findings: list[Finding] = []
    seen: dict[str, tuple[Literal["missing", "digest", "unreadable"], str] | None] = {}
    sized = [(file.path, file.sha256, file.size) for file in manifest.files]
    own = manifest.canonical_bytes()
    for path, sha256, size in [
        *sized,
        (LOCK, manifest.lock.sha256, None),
        (MANIFEST, _digest(own), len(own)),
    ]:
        if progress is not None:
            progress(path)
        try:
            stored = blobs.find(sha256)
        except Unavailable as error:
            findings.append(Finding(path, sha256, "unreadable", error.message))
            continue
        if stored is None and path == MANIFEST:
            continue  # a copy: the version's record holds the manifest itself
        if stored is not None and size is not None and stored.size != size:
            words = f"{stored.size} bytes are stored, {size} were pushed"
            findings.append(Finding(path, sha256, "size", words))
            continue
        if sha256 not in seen:
            seen[sha256] = _check(blobs, sha256)
        problem = seen[sha256]
        if problem is not None:
            findings.append(Finding(path, sha256, *problem))
    return findings


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check(blobs: BlobStore, sha256: str) -> tuple[Literal["missing", "digest", "unreadable"], str] | None:
    try:
        if blobs.verify(sha256):
            return None
    except NotFound:
        return "missing", "its bytes are not in the blob store"
    except Unavailable as error:
        return "unreadable", error.message
    return "digest", "its stored bytes do not have the hash of what was pushed"
