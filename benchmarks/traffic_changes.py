"""What is done to the traffic itself while requests flow: scaled, routed otherwise. One function per change.

Called as `disruptions` is, by `availability` and tests/chaos: each takes a World whose Deployment is served and leaves
it so.
"""

import time
from typing import Any

from benchmarks.disruptions import other, scale
from benchmarks.world import NAME, World, until

_VARIANT = f"{NAME}-next"


def scaled(world: World) -> str:
    """1 replica, 4 of them, 1 again."""
    scale(world, 4)
    first = {item.pid for item in world.stable().status.replicas}
    assert len(first) == 4, f"replicas: {first}"
    scale(world, 1)
    return "4 replicas ready and in the routes, then 3 drained"


def route_changed(world: World) -> str:
    """A Route takes the Deployment's path over, splits it, moves all to another Deployment, and goes again."""
    world.settle(other(world), name=_VARIANT)
    rules: list[list[dict[str, Any]]] = [
        [_split(100, 0)],
        [_split(70, 30)],
        [{**_split(20, 80), "sticky": {"header": "x-request-id"}}],
        [{"match": {"headers": {"x-none": {"present": False}}}, **_split(0, 100)}, {"to": NAME}],
    ]
    for wish in rules:
        _apply_route(world, wish)
    world.installation.client.delete("Route", NAME)
    _all_loaded(world)
    world.installation.client.delete("Deployment", _VARIANT)
    until(lambda: _gone(world), 60.0, lambda: f"{_VARIANT} does not go")
    return f"{len(rules)} changes of a Route, then none"


def _split(own: int, variant: int) -> dict[str, Any]:
    return {"to": [{"deployment": NAME, "weight": own}, {"deployment": _VARIANT, "weight": variant}]}


def _apply_route(world: World, rules: list[dict[str, Any]]) -> None:
    document = {
        "apiVersion": "podium/v1", "kind": "Route", "metadata": {"name": NAME}, "spec": {"rules": rules},
    }  # fmt: skip
    generation = world.installation.client.apply(document).object["metadata"]["generation"]

    def loaded() -> bool:
        status = world.installation.client.get("Route", NAME).status
        return bool(status.loaded and status.observed_generation == generation)

    until(
        loaded,
        60.0,
        lambda: f"the Route is not loaded: {world.installation.client.get('Route', NAME).status}",
    )


def _all_loaded(world: World) -> None:
    """Everything that was committed until now is in force at the gateway."""
    client = world.installation.client
    made = client.apply(
        {"apiVersion": "podium/v1", "kind": "Workspace", "metadata": {"name": f"w{time.time_ns()}"}}
    )
    version = int(made.object["metadata"]["resourceVersion"])
    until(
        lambda: min((int(row["observedVersion"]) for row in client.gateways()), default=0) >= version,
        60.0,
        lambda: f"a gateway has not loaded {version}: {client.gateways()}",
    )


def _gone(world: World) -> bool:
    return all(item.metadata.name != _VARIANT for item in world.installation.client.list("Deployment"))
