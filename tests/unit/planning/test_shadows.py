"""Who is a shadow of whom, by Routes and by rollouts."""

from dataclasses import replace
from typing import Any

import pytest

from podium.planning import shadows
from podium.planning.routing import WHOLE, Arm, RouteEntry
from podium.planning.shadows import Attached
from podium.resources.kinds import Route
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import Metadata, Resource


def arm(name: str, number: int = 1, weight: int = WHOLE, **more: Any) -> Arm:
    return Arm(
        "default", f"{name}-{number:05}", str(number), "live", weight, ("unix:/r",), deployment=name, **more
    )


def entry(name: str, *live: Arm) -> RouteEntry:
    return RouteEntry(
        workspace="default", deployment=name, uid=name, live=live, preview=None, preview_header=None, direct=None,
        timeout=30.0, idempotent=True, max_body=1, unavailable="" if live else "none",
    )  # fmt: skip


def route(*rules: dict[str, Any]) -> Route:
    spec = RouteSpec.model_validate({"rules": list(rules)})
    return Resource(kind="Route", metadata=Metadata(name="public"), spec=spec, status=RouteStatus())


ENTRIES = {name: entry(name, arm(name)) for name in ("a", "b", "s")}


def test_a_rule_with_a_shadow() -> None:
    found = shadows.of_route(route({"to": "a", "shadow": [{"deployment": "s"}]}), ENTRIES)
    assert found == [Attached("default", "s-00001", {"a-00001": ("Route public rule 0",)})]


def test_every_arm_of_every_target_is_a_champion() -> None:
    entries = ENTRIES | {"a": entry("a", arm("a", 1, 9000), arm("a", 2, 1000))}
    split = [{"deployment": "a", "weight": 50}, {"deployment": "b", "weight": 50}]
    [found] = shadows.of_route(route({"name": "r", "to": split, "shadow": [{"deployment": "s"}]}), entries)
    assert set(found.champions) == {"a-00001", "a-00002", "b-00001"}


@pytest.mark.parametrize(
    ("rule", "absent"),
    [
        ({"to": "a"}, None),
        ({"to": "a", "shadow": [{"deployment": "s"}]}, "s"),
        ({"to": "a", "shadow": [{"deployment": "s"}]}, "a"),
    ],
)
def test_without_copies_nothing_is_compared(rule: dict[str, Any], absent: str | None) -> None:
    entries = {name: entry(name) if name == absent else one for name, one in ENTRIES.items()}
    assert shadows.of_route(route(rule), entries) == []


def test_several_reasons_for_one_shadow_are_one_comparison() -> None:
    one = route(
        {"match": {"headers": {"x": "1"}}, "to": "a", "shadow": [{"deployment": "s"}]},
        {"to": "b", "shadow": [{"deployment": "s"}]},
    )
    [found] = shadows.merged([*shadows.of_route(one, ENTRIES), *shadows.of_route(one, ENTRIES)])
    assert found.champions == {"a-00001": ("Route public rule 0",), "b-00001": ("Route public rule 1",)}


def test_a_rollouts_candidate_while_it_gets_copies() -> None:
    copied = replace(entry("a", arm("a")), shadow=(replace(arm("a", 2), role="shadow"), WHOLE))
    rollout: Any = Resource(
        kind="Rollout", metadata=Metadata(name="a-r1"), spec=RouteSpec.model_construct(), status=RouteStatus()
    )
    assert shadows.of_rollout(rollout, copied) == [
        Attached("default", "a-00002", {"a-00001": ("Rollout a-r1",)})
    ]
    assert shadows.of_rollout(rollout, entry("a", arm("a"))) == []
