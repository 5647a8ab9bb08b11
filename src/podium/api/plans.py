"""Reads what the pure decisions of `podium.planning` need to know, so that an apply can say what will follow.

Called by `applying`. The reconcilers decide with the same functions: the preview cannot disagree with them.
"""

import datetime

from podium.planning import preview
from podium.planning.world import read_world
from podium.resources.kinds import AnyResource
from podium.store import Read


def describe(tx: Read, before: AnyResource | None, after: AnyResource, runtime_wheel: str) -> list[str]:
    """Sentences about what follows from the change; only a Deployment has consequences."""
    if after.kind != "Deployment":
        return []
    world = read_world(tx, after, now=datetime.datetime.now(datetime.UTC), runtime_wheel=runtime_wheel)
    return preview.describe(before, after, world)
