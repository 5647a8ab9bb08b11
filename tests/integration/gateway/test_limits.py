"""How many requests a route lets through: a real Envoy, with the gateway's own listener."""

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from podium.gateway.render.access import CALLER_HEADER, AccessRules
from podium.gateway.render.clusters import cluster
from podium.gateway.render.limits import limits
from podium.resources.traffic import Limits
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, a_route, arm_of, live, one_envoy
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.upstreams import Upstream, says, upstreams

HOUR = {"per": "1h"}


def limited(path: str, **wish: Any) -> dict[str, Any]:
    name = path.strip("/")
    return a_route(path, live("model"), typed_per_filter_config=None) | {
        "typed_per_filter_config": limits(Limits.model_validate(wish), "default", name)
    }


ROUTES = [
    limited("/all", route={"requests": 20, **HOUR}),
    limited("/burst", route={"requests": 1, "burst": 5, **HOUR}),
    limited("/each", perCaller={"requests": 2, **HOUR}),
    limited("/both", route={"requests": 3, **HOUR}, perCaller={"requests": 2, **HOUR}),
    limited("/few", perCaller={"requests": 1, **HOUR}, callers=2),
    limited("/refill", route={"requests": 10, "per": "1s", "burst": 1}),
    a_route("/free", live("model")),
]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OneEnvoy, Upstream]]:
    with upstreams() as replicas, one_envoy(concurrency=2) as envoy:
        model = replicas.start("model", says({"answer": 1}))
        yield envoy.start(ROUTES, [cluster(arm_of("model", model))]), model


def codes(envoy: OneEnvoy, path: str, times: int, **headers: str) -> list[int]:
    return [envoy.client.post(path, content=b"{}", headers=headers).status_code for _ in range(times)]


def test_one_bucket_for_all_of_envoys_threads(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, model = served
    before = len(model.got)
    # A new connection each time, so that both threads of Envoy take part.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: codes(envoy, "/all", 1, connection="close")[0], range(60)))
    assert (found.count(200), found.count(429)) == (20, 40)
    assert len(model.got) - before == 20, "what is turned away reaches no replica"
    assert envoy.stats("^limit.default_all.http_local_rate_limit.rate_limited$") == {
        "limit.default_all.http_local_rate_limit.rate_limited": 40
    }
    assert not envoy.stats(r"^cluster\.default_model.*429"), "nor does a replica's count of answers"


def test_a_refusal_says_when_to_come_back(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, _ = served
    assert codes(envoy, "/burst", 5) == [200] * 5
    answer = envoy.client.post("/burst", content=b"{}")
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == ("rateLimited", 429)
    assert problem["instance"] == answer.headers["x-request-id"]
    assert 3500 < int(answer.headers["retry-after"]) <= 3600
    assert answer.headers["x-ratelimit-limit"] == "5"
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert 0 < int(answer.headers["x-ratelimit-reset"]) <= 3600


def test_what_is_left_is_said_on_each_answer(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, _ = served
    headers = envoy.client.post("/each", content=b"{}").headers
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("2", "1")
    free = envoy.client.post("/free", content=b"{}").headers
    assert not [name for name in free if name.startswith("x-ratelimit")]


def test_without_names_callers_are_told_apart_by_address(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, _ = served
    address = f"http://127.0.0.1:{envoy.settings.port}/each"
    for number in (1, 2):
        transport = httpx.HTTPTransport(local_address=f"127.0.0.{number}0")
        with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
            # What a client says about its address or its name does not matter.
            said = [{"x-forwarded-for": f"10.0.0.{turn}", CALLER_HEADER: f"me-{turn}"} for turn in range(4)]
            found = [client.post(address, content=b"{}", headers=headers).status_code for headers in said]
        assert found == [200, 200, 429, 429]


def test_a_callers_refusals_take_nothing_from_the_others(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, _ = served
    address = f"http://127.0.0.1:{envoy.settings.port}/both"
    found = []
    for number in (1, 2, 3):
        transport = httpx.HTTPTransport(local_address=f"127.0.0.{number}1")
        with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
            found.append([client.post(address, content=b"{}").status_code for _ in range(4)])
    # Two each, three in all.
    assert found == [[200, 200, 429, 429], [200, 429, 429, 429], [429, 429, 429, 429]]


def test_a_bucket_fills_again(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, _ = served
    assert until(lambda: codes(envoy, "/refill", 1) == [429], 30, 0)
    assert until(lambda: codes(envoy, "/refill", 1) == [200], 30)


def test_a_callers_name_is_that_of_its_token() -> None:
    signer = Signer()
    rules = AccessRules.parse(signer.access())
    routes = [{**route, "match": {"prefix": f"/v2/models{route['match']['prefix']}"}} for route in ROUTES]
    with upstreams() as replicas, one_envoy(concurrency=2) as envoy:
        model = replicas.start("model")
        envoy.start(routes, [cluster(arm_of("model", model))], rules)

        def asked(name: str, times: int, path: str = "each") -> list[int]:
            # Each time another token of the same caller.
            tokens = [signer.token(sub=name, jti=f"{name}-{number}") for number in range(times)]
            return [
                envoy.client.post(
                    f"/v2/models/{path}", content=b"{}", headers={"authorization": f"Bearer {token}"}
                ).status_code
                for token in tokens
            ]

        assert asked("ann", 4) == [200, 200, 429, 429]
        assert asked("bob", 3) == [200, 200, 429]
        assert asked("ann", 1) == [429]
        assert codes(envoy, "/v2/models/each", 1) == [401], "who has no token takes from no bucket"
        # Only so many are told apart: the one that was quiet for longest starts afresh.
        assert [asked(name, 2, "few") for name in ("ann", "bob")] == [[200, 429]] * 2
        assert asked("cid", 1, "few") == [200]
        assert asked("bob", 1, "few") == [429]
        assert asked("ann", 1, "few") == [200]


def test_all_protocols_of_a_route_take_from_its_bucket() -> None:
    limit = limits(Limits.model_validate({"route": {"requests": 3, **HOUR}}), "default", "churn")
    routes = [a_route("/v2/models/churn", live("model"), typed_per_filter_config=limit)]
    with upstreams() as replicas, one_envoy() as envoy:
        model = replicas.start("model")
        envoy.start(routes, [cluster(arm_of("model", model))])
        base = f"http://127.0.0.1:{envoy.settings.port}"

        def call() -> httpx.Response:
            # Over HTTP/1.1, which has no room for what gRPC sends after a body: a connection for each.
            headers = {"content-type": "application/grpc", "podium-deployment": "churn"}
            with httpx.Client(trust_env=False, timeout=60) as client:
                return client.post(
                    f"{base}/inference.GRPCInferenceService/ModelInfer", content=bytes(5), headers=headers
                )

        assert envoy.client.post("/v2/models/churn/infer", content=b"{}").status_code == 200
        assert envoy.client.post("/v1/models/churn:predict", content=b"{}").status_code == 200
        call()
        assert len(model.got) == 3
        assert envoy.client.post("/v1/models/churn:predict", content=b"{}").status_code == 429
        refused = call()
        # A call that is refused has gRPC's status in the headers of its answer: RESOURCE_EXHAUSTED.
        assert (refused.status_code, refused.headers["grpc-status"]) == (200, "8")
        assert "limit of requests" in refused.headers["grpc-message"]
        assert len(model.got) == 3
