"""What Envoy said about a configuration that it refused. Called by `loader`; reads Envoy's log.

For files, Envoy's admin interface counts refusals but keeps no words: they are in the log only.
"""

import re
from pathlib import Path

_REFUSAL = re.compile(
    r"Filesystem config update (?:rejected|failure): (?P<words>.*?)(?=^\[\d{4}-\d\d-\d\d |\Z)",
    re.DOTALL | re.MULTILINE,
)
_NOISE = re.compile(r"\s*goo\.gle/debug\w*\s*")
_MOST = 4000


class EnvoyLog:
    """A log that another process appends to and that may be emptied meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> int:
        """The present end; what comes later is new."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def refusal_since(self, mark: int) -> str | None:
        """Envoy's words about the first update that it refused after `mark`, or None."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(mark if size >= mark else 0)
                text = file.read(1_000_000).decode(errors="replace")
        except FileNotFoundError:
            return None
        found = _REFUSAL.search(text)
        if found is None:
            return None
        return _NOISE.sub(" ", found["words"]).strip()[:_MOST]
