"""A Deployment whose own path is closed (`traffic.ownPath: false`): asked through Routes only.

Calls of gRPC are in `test_grpc`.
"""

import signal
from typing import Any

import pytest

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.documents import World, deployment, route
from tests.integration.gateway.test_routes import answered_by, loaded, started

pytestmark = pytest.mark.integration
CLOSED: dict[str, Any] = {"traffic": {"ownPath": False}}
WAYS = (
    "/v2/models/{}", "/v2/models/{}/infer", "/v2/models/{}/infer?x=/v2/models/front", "/v2/models/{}/ready",
    "/v2/models/{}/versions/1", "/v2/models/{}/versions/1/infer", "/v2/models/{}/versions/2/infer",
    "/v2/models/{}/generate_stream", "/v1/models/{}", "/v1/models/{}:predict",
)  # fmt: skip


def is_closed(gateway: Gateway, name: str, workspace: str = "default") -> None:
    """Every way to it is answered 404, in words that say what to do, and by nobody's replica."""
    front = "" if workspace == "default" else f"/ws/{workspace}"
    for way in WAYS:
        for headers in ({}, {"x-podium-preview": "true"}, {"accept": "text/event-stream"}):
            said = gateway.get(front + way.format(name), headers=headers)
            assert said.status_code == 404, way
            assert said.json()["code"] == "notFound", way
            assert f"deployment {workspace}/{name} is asked through Routes only" in said.json()["detail"], way


def test_it_is_asked_through_its_routes_only(world: World) -> None:
    world.deploy("hidden", **CLOSED)
    world.deploy("hidden", "team", **CLOSED)
    front = route("front", {"to": "hidden"})
    gateway = started(world, front, route("front", {"to": "hidden"}, workspace="team")).gateway
    for workspace, path, revision in (("default", "", "hidden"), ("team", "/ws/team", "team.hidden")):
        is_closed(gateway, "hidden", workspace)
        assert answered_by(gateway, f"{path}/v2/models/front/infer") == revision
    assert gateway.get("/v1/models/front:predict").status_code == 200
    assert answered_by(gateway, "/v2/models/churn/versions/1/infer") == "churn", "others stay as they were"
    # Its own name is free for a Route, and is closed again without it.
    loaded(world, world.server.put(route("hidden", {"to": "churn"})))
    assert answered_by(gateway, "/v2/models/hidden/infer") == "churn"
    loaded(world, world.server.delete("Route", "hidden"))
    is_closed(gateway, "hidden")
    loaded(world, world.server.put(deployment("hidden", stable="hidden-00001")))
    assert answered_by(gateway, "/v2/models/hidden/versions/1/infer") == "hidden"


def test_rollouts_and_copies_go_on_behind_its_routes(world: World) -> None:
    gateway = started(world, route("front", {"to": "churn"})).gateway
    world.canary("churn", 0, spec=CLOSED)
    for weight, revisions in ((100, {"churn-00002"}), (0, {"churn-00001"})):
        loaded(world, world.canary("churn", weight))
        is_closed(gateway, "churn")
        assert {gateway.get("/v2/models/front/infer").json()["revision"] for _ in range(5)} == revisions
    strategy = {"type": "blueGreen"}
    loaded(world, world.canary("churn", 0, preview=True, strategy=strategy))
    is_closed(gateway, "churn")


def test_an_agent_that_starts_without_a_server_keeps_it_closed(world: World) -> None:
    world.deploy("hidden", **CLOSED)
    gateway = started(world, route("front", {"to": "hidden"})).gateway
    is_closed(gateway, "hidden")
    gateway.signal_agent(signal.SIGKILL)
    world.server.stop()
    gateway.start_agent()
    table = gateway.settings.layout.document("routes")
    before = table.read_bytes()
    is_closed(gateway, "hidden")
    assert answered_by(gateway) == "hidden"
    world.server.start()
    loaded(world, world.deploy("other"))
    is_closed(gateway, "hidden")
    assert answered_by(gateway) == "hidden"
    assert table.read_bytes() != before
