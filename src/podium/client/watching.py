"""A watch that goes on after a break: the part without a network. Used by both clients."""

from collections.abc import Iterator, Sequence

import orjson

from podium.resources.errors import Unavailable
from podium.resources.kinds import kind_of
from podium.resources.requests import WatchEvent

SILENCE = 35.0
"""Seconds; the server sends a bookmark every 10."""
PATIENCE = 60.0
"""Seconds that a watch keeps trying to come back before it gives up."""
_LARGEST = 64 * 2**20


class WatchSession:
    """Takes the stream apart and remembers how far it got. `position` is where the next connection goes on."""

    def __init__(
        self, kinds: Sequence[str] | None, workspace: str | None, after: int | None, *, bookmarks: bool
    ) -> None:
        self._kinds = ",".join(kind_of(kind).name for kind in kinds) if kinds else None
        self._workspace = workspace
        self._bookmarks = bookmarks
        self.position = after
        self._rest = b""
        self._failures = 0
        self._silent_since: float | None = None

    @property
    def query(self) -> dict[str, str]:
        """Of the next connection."""
        given = {"kinds": self._kinds, "workspace": self._workspace, "after": self.position}
        return {name: str(value) for name, value in given.items() if value is not None}

    def feed(self, piece: bytes) -> Iterator[WatchEvent]:
        """The events that are complete now."""
        self._failures, self._silent_since = 0, None
        self._rest += piece
        if len(self._rest) > _LARGEST:
            raise Unavailable("an event of the watch does not end")
        *events, self._rest = self._rest.split(b"\n\n")
        for text in events:
            fields = dict(line.split(b": ", 1) for line in text.split(b"\n") if b": " in line)
            if b"data" not in fields:
                continue
            event = WatchEvent.model_validate(orjson.loads(fields[b"data"]))
            if event.type != "BOOKMARK" or self._bookmarks:
                yield event
            # After the caller took it: who breaks off in the middle gets it again. The id is a position that loses
            # nothing: within a commit it is the version before.
            self.position = int(fields[b"id"])

    def pause(self, now: float) -> float | None:
        """Seconds until the next try, or None when there were enough. `now` on a monotonic clock."""
        self._rest = b""
        self._failures += 1
        self._silent_since = now if self._silent_since is None else self._silent_since
        if now - self._silent_since > PATIENCE:
            return None
        return float(min(2.0, 0.05 * 2 ** min(self._failures, 8)))
