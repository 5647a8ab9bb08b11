"""Blobs that no manifest refers to.

Called by the server's housekeeping. A push stores its blobs before its version exists, so that a young blob is never
garbage: `grace` is longer than any push takes, and a push that finds a blob stored already makes it young again
(`intake`).
"""

import datetime
from collections.abc import Callable, Set
from dataclasses import dataclass

from podium.registry.blobs import BlobStore
from podium.resources.errors import InvalidInput, Issue

DEFAULT_GRACE = datetime.timedelta(days=1)
MIN_GRACE = datetime.timedelta(hours=2)
"""Twice `intake.FRESH_SECONDS`: a blob that intake left as it is has at least an hour left."""


@dataclass(frozen=True)
class Collected:
    """What one collection did. `young`: unreferenced, but still within the grace period."""

    removed: tuple[str, ...]
    removed_bytes: int
    kept: int
    young: int
    unfinished: int
    """Uploads that somebody began and never finished, removed as well."""


def collect(
    blobs: BlobStore,
    referenced: Callable[[], Set[str]],
    *,
    now: datetime.datetime,
    grace: datetime.timedelta = DEFAULT_GRACE,
) -> Collected:
    """Remove the blobs that are not in `referenced()` (the sha256 of every file and lock of every manifest) and older
    than `grace`.

    `referenced` is asked after the blobs were listed: a version that was committed in between is seen. Every blob's age
    is looked at again right before it goes. Raises InvalidInput for a grace period that is too short, Unavailable.
    """
    if grace < MIN_GRACE:
        raise InvalidInput(Issue("grace", f"expected at least {MIN_GRACE}; a push may take that long"))
    before = now - grace
    stored = {sha256: found.modified_at for sha256, found in blobs.walk()}
    wanted = referenced()
    removed: list[str] = []
    removed_bytes = young = 0
    for sha256 in sorted(set(stored) - wanted):
        found = blobs.find(sha256) if stored[sha256] < before else None
        if found is None or found.modified_at >= before:
            young += 1
            continue
        if blobs.delete(sha256):
            removed.append(sha256)
            removed_bytes += found.size
    kept = len(set(stored) & wanted)
    return Collected(tuple(removed), removed_bytes, kept, young, blobs.sweep(before))
