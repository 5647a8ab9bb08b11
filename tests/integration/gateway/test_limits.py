"""How many requests a route lets through: a real Envoy, with the gateway's own listener."""

import concurrent.futures
import functools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from podium.gateway.files import WatchedFiles
from podium.gateway.render.access import CALLER_HEADER, AccessRules
from podium.gateway.render.clusters import cluster
from podium.gateway.render.limits import TURNED_AWAY, buckets, limited
from podium.gateway.settings import LIMITS
from podium.resources.traffic import Limits
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, a_route, arm_of, live, one_envoy
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.upstreams import Upstream, says, upstreams

HOUR = {"per": "1h"}


WISHES: dict[str, dict[str, Any]] = {
    "all": {"route": {"requests": 20, **HOUR}},
    "burst": {"route": {"requests": 1, "burst": 5, **HOUR}},
    "each": {"perCaller": {"requests": 2, **HOUR}},
    "both": {"route": {"requests": 3, **HOUR}, "perCaller": {"requests": 2, **HOUR}},
    "few": {"perCaller": {"requests": 1, **HOUR}, "callers": 2},
    "refill": {"route": {"requests": 10, "per": "1s", "burst": 1}},
    "rules": {"route": {"requests": 6, **HOUR}},
    "kept": {"route": {"requests": 4, **HOUR}, "perCaller": {"requests": 3, **HOUR}, "callers": 9},
    "slow-callers": {"route": {"requests": 3, **HOUR}, "perCaller": {"requests": 1, **HOUR}},
    "fast-callers": {"route": {"requests": 3, **HOUR}, "perCaller": {"requests": 60, "burst": 1, **HOUR}},
    "shut": {"route": {"requests": 2, **HOUR}},
    "body": {"route": {"requests": 1, **HOUR}},
}
"""What Routes of these names wish."""


def held_for(name: str, wish: dict[str, Any] | None = None) -> dict[bytes, int]:
    return buckets(Limits.model_validate(wish or WISHES[name]))


def limit_route(name: str, path: str | None = None, wish: dict[str, Any] | None = None) -> dict[str, Any]:
    """One rendered route of the Route `name`."""
    made = a_route(path or f"/{name}", live("model"), name=f"route:default/{name}")
    return made | limited(Limits.model_validate(wish or WISHES[name]), "default", name)


ONCE: dict[str, Any] = {"route": {"requests": 1, **HOUR}}
ROUTES = [
    *(limit_route(name, f"/rules/{number}") for number, name in enumerate(["rules"] * 3)),
    *(limit_route(name) for name in WISHES if name not in ("rules", "shut")),
    {
        "match": {"prefix": "/shut"}, "direct_response": {"status": 503}, "name": "route:default/shut",
        **limited(Limits.model_validate(WISHES["shut"]), "default", "shut"),
    },
    a_route("/free", live("model")),
]  # fmt: skip
HELD = [held_for(name) for name in WISHES]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OneEnvoy, Upstream]]:
    with upstreams() as replicas, one_envoy(concurrency=2) as envoy:
        model = replicas.start("model", says({"answer": 1}))
        yield envoy.start(ROUTES, [cluster(arm_of("model", model))], held=HELD), model


def loaded(envoy: OneEnvoy) -> None:
    """Envoy has the limits that were written last."""
    version = WatchedFiles(envoy.settings.layout).version(LIMITS)
    assert version is not None
    assert until(lambda: f'podium.limits.version_text: "{version}"' in envoy.readouts(), 30)


def missing(envoy: OneEnvoy, path: str) -> bool:
    return codes(envoy, path, 1) == [404]


def answers(envoy: OneEnvoy, path: str) -> bool:
    return codes(envoy, path, 1) == [200]


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
    counted = f"{TURNED_AWAY}.requests.route.route:default/all"
    # Envoy counts when it is done with a request, which may be after the client has its answer.
    assert until(lambda: envoy.stats(f"^{TURNED_AWAY}.*default/all$") == {counted: 40}, 30)
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


def test_all_routes_of_a_route_take_from_one_bucket(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, _ = served
    found = [codes(envoy, f"/rules/{number % 3}", 1)[0] for number in range(9)]
    assert found == [200] * 6 + [429] * 3


def test_what_envoy_answers_itself_is_limited_too(served: tuple[OneEnvoy, Upstream]) -> None:
    assert codes(served[0], "/shut", 4) == [503, 503, 429, 429]


def test_a_refusal_keeps_the_connection(served: tuple[OneEnvoy, Upstream]) -> None:
    envoy, _ = served
    body = b"0123456789" * 50_000
    before = envoy.stats("^http.podium.downstream_cx_total$")
    answers = [envoy.client.post("/body", content=body) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 429]
    assert not [answer for answer in answers if "connection" in answer.headers]
    assert envoy.stats("^http.podium.downstream_cx_total$") == before


def test_buckets_outlive_a_change_of_routes() -> None:
    with upstreams() as replicas, one_envoy(concurrency=2) as envoy:
        clusters = [cluster(arm_of("model", replicas.start("model")))]
        table = [limit_route("kept"), a_route("/free", live("model"))]
        envoy.start(table, clusters, held=[held_for("kept")])
        assert codes(envoy, "/kept", 4) == [200, 200, 200, 429]
        for turn in ("one", "two"):
            # As a rollout's new revision or somebody else's Route: the table is another one, this route too.
            changed = limit_route("kept") | {"response_headers_to_add": [_header("x-turn", turn)]}
            envoy.write([changed, a_route(f"/{turn}", live("model"))], clusters, held=[held_for("kept")])
            until(functools.partial(answers, envoy, f"/{turn}"), 30)
            assert codes(envoy, "/kept", 2) == [429, 429]
        # Somebody else's limit with numbers that are there already.
        both = held_for("kept")
        envoy.write([*table, limit_route("other", wish=WISHES["kept"])], clusters, held=[both, both])
        until(functools.partial(answers, envoy, "/other"), 30)
        assert codes(envoy, "/kept", 2) == [429, 429]
        # With others: all begin anew, and are the limits that they were.
        envoy.write(table, clusters, held=[both, held_for("once", ONCE)])
        loaded(envoy)
        assert codes(envoy, "/kept", 4) == [200, 200, 200, 429]
        wider = {"route": {"requests": 9, **HOUR}, "perCaller": {"requests": 5, **HOUR}}
        envoy.write([limit_route("kept", wish=wider)], clusters, held=[both, held_for("kept", wider)])
        until(functools.partial(missing, envoy, "/free"), 30)
        loaded(envoy)
        assert codes(envoy, "/kept", 6) == [200] * 5 + [429]


def test_whose_bucket_is_taken_from_first(served: tuple[OneEnvoy, Upstream]) -> None:
    """The one that fills more slowly; who is refused there takes nothing from the other."""
    envoy, _ = served

    def left(path: str, number: int, times: int) -> list[int]:
        transport = httpx.HTTPTransport(local_address=f"127.0.0.{number}2")
        with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
            address = f"http://127.0.0.1:{envoy.settings.port}{path}"
            return [client.post(address, content=b"{}").status_code for _ in range(times)]

    assert left("/slow-callers", 1, 9) == [200] + [429] * 8
    assert [left("/slow-callers", number, 1) for number in (2, 3, 4)] == [[200], [200], [429]]
    # Callers that may come faster than all together: what is refused for them has cost the Route.
    assert left("/fast-callers", 1, 9) == [200] + [429] * 8
    assert left("/fast-callers", 2, 1) == [429]


def test_a_callers_name_is_that_of_its_token() -> None:
    signer = Signer()
    rules = AccessRules.parse(signer.access())
    routes = [{**route, "match": {"prefix": f"/v2/models{route['match']['prefix']}"}} for route in ROUTES]
    with upstreams() as replicas, one_envoy(concurrency=2) as envoy:
        model = replicas.start("model")
        held = [held_for(name, {**WISHES[name], "callers": 2}) for name in ("each", "few")]
        envoy.start(routes, [cluster(arm_of("model", model))], rules, held)

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
        # Only so many are told apart, 64 at least: the one that was quiet for longest starts afresh.
        assert [asked(name, 2, "few") for name in ("ann", "bob")] == [[200, 429]] * 2
        assert [asked(f"caller-{number}", 1, "few") for number in range(63)] == [[200]] * 63
        assert asked("bob", 1, "few") == [429]
        assert asked("ann", 1, "few") == [200]


def test_all_protocols_of_a_route_take_from_its_bucket() -> None:
    wish = {"route": {"requests": 3, **HOUR}}
    limit = limited(Limits.model_validate(wish), "default", "churn")
    routes = [a_route("/v2/models/churn", live("model"), **limit)]
    with upstreams() as replicas, one_envoy() as envoy:
        model = replicas.start("model")
        envoy.start(routes, [cluster(arm_of("model", model))], held=[held_for("churn", wish)])
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


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}}
