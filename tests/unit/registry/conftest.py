"""Fixtures: a blob store in a folder, and files pushed into it as the command line pushes them."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from podium.registry.blobs import BlobStore
from podium.registry.intake import Draft, PushHints, draft
from podium.resources.manifest import FileEntry, Manifest
from podium.resources.requests import PushRequest

Push = Callable[[Mapping[str, bytes]], list[FileEntry]]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture
def push(blobs: BlobStore) -> Push:
    """Store files given as path -> bytes, and return their entries."""

    def store(files: Mapping[str, bytes]) -> list[FileEntry]:
        entries = []
        for path, content in files.items():
            sha256 = hashlib.sha256(content).hexdigest()
            blobs.put([content], sha256)
            entries.append(FileEntry(path=path, size=len(content), sha256=sha256))
        return entries

    return store


@pytest.fixture
def read(blobs: BlobStore, push: Push) -> Callable[..., Draft]:
    """Push files and look at them: read({"model.pkl": b"..."}, requirements=[...], flavor=...)."""

    def look(files: Mapping[str, bytes], **hints: object) -> Draft:
        return draft(push(files), PushHints("3.11", **hints), blobs)  # type: ignore[arg-type]

    return look


@pytest.fixture
def manifest(blobs: BlobStore, push: Push) -> Callable[..., Manifest]:
    """The manifest of files given as path -> bytes, with a stored lock."""

    def make(files: Mapping[str, bytes], **parts: object) -> Manifest:
        lock = push({"requirements.lock": b"scikit-learn==1.9.1\n"})[0]
        request = PushRequest(files=push(files))
        document = {
            "flavor": {"name": "python"},
            "files": [file.model_dump() for file in sorted(request.files, key=lambda file: file.path)],
            "python": "3.11",
            "lock": {"sha256": lock.sha256},
            **parts,
        }
        return Manifest.model_validate(document)

    return make
