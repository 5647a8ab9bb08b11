"""Which revisions get copies of which other's requests: what the comparisons of shadows go by. Pure.

Called by `control.comparisons`. Calls `routing` and `routes`, so that it cannot disagree with the gateways.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from podium.planning.routes import plan_published
from podium.planning.routing import RouteEntry
from podium.resources.kinds import Revision, Rollout, Route


@dataclass(frozen=True)
class Attached:
    """A shadow revision, and whose requests it gets copies of."""

    workspace: str
    shadow: str
    champions: Mapping[str, tuple[str, ...]]
    """By revision: why, as a person would say it."""


def of_route(route: Route, entries: Mapping[str, RouteEntry]) -> list[Attached]:
    """The shadows of a Route's rules. A champion is who answers by the rule's own targets: with a cascade or a fallback
    somebody else may answer in the end, who is not compared."""
    found = []
    for rule in plan_published(route, entries).rules:
        why = f"Route {route.metadata.name} rule {rule.name}"
        for shadow, _ in rule.shadows:
            champions = {arm.revision: (why,) for arm, _ in rule.slots if arm.revision != shadow.revision}
            if champions:
                found.append(Attached(route.metadata.workspace, shadow.revision, champions))
    return found


def of_rollout(rollout: Rollout, entry: RouteEntry) -> list[Attached]:
    """The candidate of a rollout, while the Deployment's own path makes copies for it."""
    if entry.shadow is None:
        return []
    shadow, why = entry.shadow[0].revision, f"Rollout {rollout.metadata.name}"
    champions = {arm.revision: (why,) for arm in entry.live if arm.revision != shadow}
    return [Attached(entry.workspace, shadow, champions)] if champions else []


def merged(found: Iterable[Attached]) -> list[Attached]:
    """One for each shadow revision, with all its champions."""
    shadows: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
    for one in found:
        champions = shadows.setdefault((one.workspace, one.shadow), {})
        for champion, why in one.champions.items():
            champions[champion] = tuple(dict.fromkeys((*champions.get(champion, ()), *why)))
    return [Attached(workspace, shadow, champions) for (workspace, shadow), champions in shadows.items()]


def cannot_record(champion: Revision, shadow: Revision) -> str:
    """Why two revisions cannot be compared; empty where they can."""
    others = [
        revision.metadata.name for revision in (champion, shadow) if revision.spec.runtime.command is not None
    ]
    if not others:
        return ""
    serve = "serves" if len(others) == 1 else "serve"
    return (
        f"{' and '.join(others)} {serve} by runtime.command: only Podium's own model server writes down what it "
        "answered, so nothing can be compared"
    )
