"""Repeats, hedging, ejection and breakers: a real Envoy before replicas that fail or dawdle."""

import concurrent.futures
import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from podium.gateway.render.clusters import cluster
from podium.resources.traffic import DeploymentTraffic
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, arm_of, live, one_envoy
from tests.integration.gateway.planned import rule_route
from tests.integration.gateway.upstreams import Answering, Reply, Upstreams, says, upstreams


@pytest.fixture
def replicas() -> Iterator[Upstreams]:
    with upstreams() as made:
        yield made


@pytest.fixture
def envoy() -> Iterator[OneEnvoy]:
    with one_envoy() as made:
        yield made


def failing_first(times: int, status: int) -> Answering:
    """So many failures, then good answers."""
    count = itertools.count()
    return lambda _: Reply(status if next(count) < times else 200)


def test_repeats_are_those_that_are_declared(envoy: OneEnvoy, replicas: Upstreams) -> None:
    flaky = {name: replicas.start(name) for name in ("a", "b", "c")}
    routes = [
        rule_route("/default", "a"),
        rule_route("/unavailable", "b", retries={"attempts": 3, "on": ["unavailable"]}),
        rule_route("/errors", "c", retries={"attempts": 3, "on": ["serverError"]}),
    ]
    envoy.start(routes, [cluster(arm_of(name, replica)) for name, replica in flaky.items()])

    def asked(path: str, name: str, times: int, status: int) -> tuple[int, int]:
        flaky[name].answering = failing_first(times, status)
        before = len(flaky[name].got)
        return envoy.client.post(path).status_code, len(flaky[name].got) - before

    assert asked("/default", "a", 2, 503) == (503, 1)
    assert asked("/unavailable", "b", 2, 503) == (200, 3)
    assert asked("/unavailable", "b", 2, 500) == (500, 1)
    assert asked("/unavailable", "b", 9, 503) == (503, 4)
    assert asked("/errors", "c", 2, 500) == (200, 3)
    assert asked("/errors", "c", 2, 429) == (429, 1), "a full queue is never asked again"


def test_an_attempt_that_takes_too_long_is_given_up_for_another_replica(
    envoy: OneEnvoy, replicas: Upstreams
) -> None:
    hangs, well = replicas.start("hangs", lambda _: None), replicas.start("well", says({"by": "well"}))
    retries = {"attempts": 2, "perTryTimeout": "0.1s", "on": ["reset"]}
    routes = [
        rule_route("/given-up", "both", retries=retries),
        rule_route("/once", "both", retries=retries, idempotent=False, timeout=0.5),
    ]
    envoy.start(routes, [cluster(arm_of("both", hangs, well))])
    answers = [envoy.client.post("/given-up").status_code for _ in range(12)]
    assert answers == [200] * 12
    until(lambda: hangs.given_up == len(hangs.got) > 0, 60)
    # Not idempotent: what a replica has read is not given to another.
    until(lambda: envoy.client.post("/once").status_code == 504, 60, 0)


def test_a_hedged_request_asks_a_second_replica_and_takes_the_first_answer(
    envoy: OneEnvoy, replicas: Upstreams
) -> None:
    hangs, well = replicas.start("hangs", lambda _: None), replicas.start("well", says({"by": "well"}))
    routes = [rule_route("/hedged", "both", hedge={"after": "0.1s"})]
    envoy.start(routes, [cluster(arm_of("both", hangs, well))])
    answers = [envoy.client.post("/hedged") for _ in range(12)]
    assert [answer.json() for answer in answers] == [{"by": "well"}] * 12
    assert hangs.got, "one of the two was asked first now and then"
    until(lambda: hangs.given_up == len(hangs.got), 60)


def test_what_is_not_idempotent_is_not_hedged(envoy: OneEnvoy, replicas: Upstreams) -> None:
    slow = replicas.start("slow", lambda _: Reply(delay=0.4))
    other = replicas.start("other", lambda _: Reply(delay=0.4))
    routes = [rule_route("/hedged", "both", hedge={"after": "0.1s"}, idempotent=False)]
    envoy.start(routes, [cluster(arm_of("both", slow, other))])
    for _ in range(4):
        assert envoy.client.post("/hedged").status_code == 200
    assert len(slow.got) + len(other.got) == 4


def test_a_replica_that_fails_in_a_row_is_left_out(envoy: OneEnvoy, replicas: Upstreams) -> None:
    broken, well = replicas.start("broken", says({}, 503)), replicas.start("well")
    wish = DeploymentTraffic.model_validate(
        {"outlierEjection": {"consecutiveErrors": 3, "interval": "0.1s", "baseEjection": "10m"}}
    )
    guarded = replace(arm_of("both", broken, well), protection=wish)
    model_fails = replicas.start("model-fails", says({}, 500))
    routes = [rule_route("/both", "both"), rule_route("/model", "model")]
    envoy.start(
        routes,
        [cluster(guarded), cluster(replace(arm_of("model", model_fails), protection=wish))],
    )
    ejected = f"^cluster.{live('both')}.outlier_detection.ejections_active$"

    def left_out() -> bool:
        envoy.client.post("/both")
        return sum(envoy.stats(ejected).values()) == 1

    until(left_out, 60, 0)
    before = len(broken.got)
    assert [envoy.client.post("/both").status_code for _ in range(20)] == [200] * 20
    assert len(broken.got) == before
    # A model's own error is about the input: no caller can have replicas left out with it.
    for _ in range(20):
        assert envoy.client.post("/model").status_code == 500
    assert not any(
        envoy.stats(f"^cluster.{live('model')}.outlier_detection.ejections_(active|total)$").values()
    )


def test_a_breaker_holds_what_is_under_way(envoy: OneEnvoy, replicas: Upstreams) -> None:
    gate = threading.Event()
    model = replicas.start("model", lambda _: Reply(delay=0.05) if gate.is_set() else None)
    wish = DeploymentTraffic.model_validate({"circuitBreaker": {"maxRequests": 3}})
    # Hanging requests end with their own time.
    routes = [rule_route("/few", "model", timeout=5.0)]
    envoy.start(routes, [cluster(replace(arm_of("model", model), protection=wish))])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(lambda: envoy.client.post("/few").status_code) for _ in range(3)]
        until(lambda: len(model.got) == 3, 60)
        refused = envoy.client.post("/few")
        assert refused.status_code == 503
        assert (refused.json()["code"], refused.json()["reason"]) == ("unavailable", "overloaded")
        assert "circuitBreaker" in refused.json()["detail"]
        assert len(model.got) == 3
        assert [one.result(60) for one in waiting] == [504] * 3
    gate.set()
    until(lambda: envoy.client.post("/few").status_code == 200, 60)
