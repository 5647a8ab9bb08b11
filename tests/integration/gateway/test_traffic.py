"""What a Route declares beyond its targets, from the server's documents through the agent to a real Envoy."""

import signal
from typing import Any

import pytest

from tests.integration.gateway.conftest import until
from tests.integration.gateway.documents import World, deployment, route
from tests.integration.gateway.test_routes import loaded, started

pytestmark = pytest.mark.integration
FRONT = "/v2/models/front/infer"
SAFE = {"label": "unknown"}


def answer_of(world: World, query: str = "", path: str = FRONT) -> tuple[int, str | None]:
    """Status, and which revision or declared answer it was."""
    found = world.gateway.get(path + query)
    marked = found.headers.get("x-podium-fallback")
    if marked == "answer":
        assert found.json() == SAFE
        return found.status_code, marked
    return found.status_code, found.headers.get("x-podium-revision")


def kill(world: World, name: str) -> None:
    replica = world.gateway.replicas[f"{name}-00001-0"]
    replica.kill()
    replica.wait(30)


def test_a_route_goes_on_while_its_deployments_die_one_after_the_other(world: World) -> None:
    wish = {"to": "small", "fallback": {"deployments": ["big"], "answer": {"body": SAFE}}}
    started(world, route("front", wish))
    assert answer_of(world) == (200, "small-00001")
    assert answer_of(world, "?status=503") == (200, "answer"), "both say it"
    kill(world, "small")
    assert answer_of(world) == (200, "big-00001")
    kill(world, "big")
    assert answer_of(world) == (200, "answer")
    # And when the server knows it, too: nobody is there to be asked.
    gone = [deployment(name, stable=None) for name in ("small", "big")]
    loaded(world, world.server.put(*gone))
    until(lambda: answer_of(world, path="/v2/models/small/infer")[0] == 503, 60)
    assert answer_of(world) == (200, "answer")


def test_stages_and_copies_outlive_server_and_agent(world: World) -> None:
    wish = {
        "to": "small", "cascade": {"deployment": "big"}, "fallback": {"answer": {"body": SAFE}},
        "shadow": [{"deployment": "churn"}],
    }  # fmt: skip
    gateway = started(world, route("front", wish)).gateway
    kill(world, "small")
    assert answer_of(world) == (200, "big-00001")
    gateway.signal_agent(signal.SIGKILL)
    world.server.stop()
    gateway.start_agent()
    # The replica is dead for everybody, and nobody is there to say so.
    for _ in range(5):
        assert answer_of(world) == (200, "big-00001")
    world.server.start()
    loaded(world, world.server.put(route("front", {"to": "big"})))
    assert answer_of(world) == (200, "big-00001")


def test_a_limit_comes_into_force_and_goes(world: World) -> None:
    limits = {"perCaller": {"requests": 2, "per": "1h"}}
    started(world, route("front", {"to": "small"}, limits=limits))
    assert [answer_of(world)[0] for _ in range(4)] == [200, 200, 429, 429]
    loaded(world, world.server.put(route("front", {"to": "small"})))
    assert [answer_of(world)[0] for _ in range(4)] == [200] * 4


def test_what_protects_a_deployment_needs_no_route(world: World) -> None:
    def guarded(**traffic: Any) -> dict[str, Any]:
        return deployment("churn", stable="churn-00001", traffic=traffic)

    started(world, guarded(circuitBreaker={"maxConnections": 7}, outlierEjection={"consecutiveErrors": 1}))
    path = "/v2/models/churn/infer"
    assert answer_of(world, path=path) == (200, "churn-00001")
    clusters = world.gateway.settings.layout.document("clusters")
    assert b'"max_connections":7' in clusters.read_bytes()
    assert b'"consecutive_gateway_failure":1' in clusters.read_bytes()
    loaded(world, world.server.put(guarded()))
    assert answer_of(world, path=path) == (200, "churn-00001")
    until(lambda: b'"max_connections":7' not in clusters.read_bytes(), 60)
