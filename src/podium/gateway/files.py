"""The files that Envoy watches: whole or not at all, and never left with something that Envoy did not take.

Called by `loader` (writes, confirms, restores) and `agent` (at start). A new content appears by rename. Until it is
seen loaded, the content before it stays in the `acknowledged` folder: whoever starts Envoy after a death in between
goes back to what was known to work.
"""

import os
import re
from pathlib import Path

from podium.gateway.render.document import Document
from podium.gateway.settings import KINDS, Layout
from podium.resources.durable import flush_folder, replace_file

_VERSION = re.compile(rb'\{"versionInfo":"([0-9a-f]+)"')


class WatchedFiles:
    """The documents of one gateway on disk. One writer only: the agent holds the home's lock."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._versions: dict[str, str | None] = {kind: _version_of(layout.document(kind)) for kind in KINDS}

    def version(self, kind: str) -> str | None:
        """Version of the file in place; None without one, or if it is not one of ours."""
        return self._versions[kind]

    def read(self, kind: str) -> bytes | None:
        """The file in place."""
        try:
            return self._layout.document(kind).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, kind: str, document: Document) -> bool:
        """Put a content in place; False, and nothing is touched, if it is there already.

        Raises OSError (full disk, lost folder): then the old content is still in place.
        """
        if self._versions[kind] == document.version:
            return False
        path, kept = self._layout.document(kind), self._kept(kind)
        if self._versions[kind] is not None and not kept.exists():
            os.link(path, kept)
        replace_file(path, document.content)
        self._versions[kind] = document.version
        return True

    def confirm(self, kind: str) -> None:
        """The content in place was seen loaded: the one before it is not needed any more."""
        self._kept(kind).unlink(missing_ok=True)

    def unconfirmed(self, kind: str) -> bool:
        """Is the content in place one that was never seen loaded, with an older one to go back to?"""
        return self._kept(kind).exists()

    def restore(self, kind: str) -> bool:
        """Go back to the last content that was seen loaded; False if the one in place is it."""
        path = self._layout.document(kind)
        try:
            self._kept(kind).replace(path)
        except FileNotFoundError:
            return False
        flush_folder(path.parent)
        self._versions[kind] = _version_of(path)
        return True

    def _kept(self, kind: str) -> Path:
        return self._layout.acknowledged / f"{kind}.json"


def _version_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            found = _VERSION.match(file.read(200))
    except FileNotFoundError:
        return None
    return found.group(1).decode() if found else None
