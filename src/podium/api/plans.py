"""Reads what the pure decisions of `podium.planning` need to know, so that an apply can say what will follow.

Called by `applying`. The reconcilers decide with the same functions: the preview cannot disagree with them.
"""

import datetime

from podium.planning import preview, route_preview
from podium.planning.cascades import find_troubles
from podium.planning.world import read_world
from podium.resources.kinds import AnyResource
from podium.store import Read


def describe(tx: Read, before: AnyResource | None, after: AnyResource, runtime_wheel: str) -> list[str]:
    """Sentences about what follows from the change, of a Deployment and of a Route."""
    if after.kind == "Route":
        sentences = route_preview.describe(before, after)
        meta = after.metadata
        if before is None and tx.find("Deployment", meta.workspace, meta.name) is not None:
            sentences.append(f"It takes over the path of Deployment {meta.name}.")
        return sentences + [words for of_rule in find_troubles(tx, after).values() for words in of_rule]
    if after.kind != "Deployment":
        return []
    world = read_world(tx, after, now=datetime.datetime.now(datetime.UTC), runtime_wheel=runtime_wheel)
    return preview.describe(before, after, world)
