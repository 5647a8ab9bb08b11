"""What `podium model push` finds out about files, without a server."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from podium.registry.blobs import BlobStore
from podium.registry.intake import Draft, PushHints, draft
from podium.resources.manifest import FileEntry


def pushed(root: Path, files: Mapping[str, bytes], **hints: object) -> Draft:
    """Store the files below `root`, and look at them as the server does."""
    blobs = BlobStore(str(root))
    entries = []
    for path, content in files.items():
        sha256 = hashlib.sha256(content).hexdigest()
        blobs.put([content], sha256)
        entries.append(FileEntry(path=path, size=len(content), sha256=sha256))
    return draft(entries, PushHints("3.11", **hints), blobs)  # type: ignore[arg-type]
