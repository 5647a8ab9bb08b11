"""A Route's limit is one account over all that happens at the gateway: a real agent and Envoy, and a server where much
changes."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, route

pytestmark = pytest.mark.integration
PATH = "/v2/models/front/infer"
WHOSE = pytest.mark.parametrize("whose", ["route", "perCaller"])


def limits(whose: str, requests: int, callers: int = 40) -> dict[str, Any]:
    """More callers than half of the first room, so that it shows where a Route is counted twice."""
    return {whose: {"requests": requests, "per": "1h"}, "callers": callers}


def loaded(world: World, version: int) -> None:
    until(lambda: any(report["observedVersion"] >= version for report in world.server.reports[-3:]), 60)


def spent(gateway: Gateway, times: int, path: str = PATH, **headers: str) -> int:
    """How many of so many requests are let through."""
    found = [gateway.get(path, headers=headers).status_code for _ in range(times)]
    assert set(found) <= {200, 429}, found
    return found.count(200)


@WHOSE
def test_no_change_elsewhere_fills_a_routes_bucket(world: World, whose: str) -> None:
    mine, others, few = limits(whose, 30), limits(whose, 30, 20), limits(whose, 2, 20)
    for name in ("small", "big"):
        world.deploy(name)
    rules: list[dict[str, Any]] = [
        {"to": "small", "match": {"headers": {"x-small": {"present": True}}}},
        {"to": "churn"},
    ]
    loading = world.server.put(route("front", *rules, limits=mine), route("other", {"to": "big"}, limits=few))
    world.gateway.start_agent()
    gateway = world.gateway
    loaded(world, loading)
    # From the first request on, by whichever rule.
    assert spent(gateway, 3) == 3
    assert spent(gateway, 3, **{"x-small": "1"}) == 3
    changes: list[Callable[[], int]] = [
        lambda: world.canary("churn", 10),
        lambda: world.canary("churn", 50),
        lambda: world.deploy("small", number=2),
        lambda: world.server.put(route("more", {"to": "big"})),
        lambda: world.server.put(route("other", {"to": "small"}, limits=few)),
        lambda: world.server.put(route("other", {"to": "small"})),
        lambda: world.server.put(route("other", {"to": "small"}, limits=others)),
        lambda: world.server.put(route("front", *rules[1:], limits=mine)),
        lambda: world.server.put(route("front", {"to": "big"}, limits=mine)),
        lambda: world.server.delete("Route", "more"),
        lambda: world.server.delete("Route", "other"),
    ]
    for change in changes:
        loaded(world, change())
        assert spent(gateway, 2) == 2
    gateway.signal_agent(signal.SIGKILL)
    gateway.start_agent()
    loaded(world, world.server.put(route("more", {"to": "churn"})))
    # 28 are spent.
    assert spent(gateway, 8) == 2, "nothing has filled the bucket, nothing has taken more than a request each"
    assert spent(gateway, 3) == 0
    # Numbers that nobody had before: everybody begins with a full bucket then.
    loaded(world, world.server.put(route("front", {"to": "big"}, limits=limits(whose, 7))))
    assert spent(gateway, 10) == 7
    loaded(world, world.server.put(route("other", {"to": "big"}, limits=limits(whose, 1))))
    assert (spent(gateway, 10), spent(gateway, 3, "/v2/models/other/infer")) == (7, 1)
    loaded(world, world.server.put(route("front", {"to": "big"})))
    assert spent(gateway, 20) == 20


@WHOSE
def test_limits_hold_without_a_server(world: World, whose: str) -> None:
    loading = world.server.put(route("front", {"to": "churn"}, limits=limits(whose, 4)))
    world.gateway.start_agent()
    gateway = world.gateway
    loaded(world, loading)
    assert spent(gateway, 3) == 3
    gateway.signal_agent(signal.SIGKILL)
    world.server.stop()
    gateway.start_agent()
    assert spent(gateway, 3) == 1
    world.server.start()
    loaded(world, world.server.put(route("more", {"to": "churn"})))
    assert spent(gateway, 3) == 0
