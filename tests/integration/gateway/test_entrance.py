"""Filters that are off until a route switches them on: whatever a client writes, none that it needs stays off."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from podium.gateway.render.access import AccessRules
from podium.gateway.render.clusters import cluster
from podium.gateway.render.limits import buckets
from podium.gateway.render.routes import Handling, route_to
from podium.gateway.render.rules import published_routes
from podium.planning.routes import FallbackPlan, RoutePlan, RulePlan
from podium.planning.routing import WHOLE
from podium.resources.route import Match
from podium.resources.traffic import Fallback, Limits
from tests.integration.gateway.one_envoy import OneEnvoy, a_route, arm_of, live, one_envoy
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.upstreams import Reply, Request, Upstream, upstreams

pytestmark = pytest.mark.integration

PLENTY = Limits.model_validate({"route": {"requests": 100_000, "per": "1h"}})
SAFE = {"label": "unknown"}
CALL = "/inference.GRPCInferenceService/ModelInfer"
LARGE = 20 * 2**20
SLOW = 2.0
"""Seconds that the slow replica takes to answer, four times what its route allows."""


def rule(
    name: str,
    *,
    match: dict[str, Any] | None = None,
    answer: bool = False,
    to: str = "model",
    timeout: float = 30.0,
) -> RulePlan:
    settings = Fallback.model_validate({"answer": {"body": SAFE}}) if answer else None
    return RulePlan(
        name=name, match=Match.model_validate(match) if match else None, sticky=None,
        slots=((arm_of(to), WHOLE),), shadows=(), cascade=None,
        fallback=FallbackPlan(settings, ()) if settings else None,
        timeout=timeout, waking=0.0, idempotent=True, max_body=16 * 2**20, unavailable="", absent=(),
    )  # fmt: skip


def routes_of(name: str, *rules: RulePlan, limits: Limits | None = None) -> list[dict[str, Any]]:
    plan = RoutePlan(
        workspace="default", route=name, uid="u", rules=rules, retries=None, hedge=None, limits=limits
    )
    return [json.loads(one) for one in published_routes(plan).published]


def large(name: str) -> dict[str, Any]:
    how = Handling(30.0, True, 32 * 2**20)
    return route_to({"path_separated_prefix": f"/v2/models/{name}"}, {"cluster": live("model")}, how)


def other_server(name: str, *, to: str) -> dict[str, Any]:
    how = Handling(SLOW / 4, True, 16 * 2**20, held=False)
    return route_to({"path_separated_prefix": f"/v2/models/{name}"}, {"cluster": live(to)}, how)


ROUTES = [
    *routes_of("limited", rule("0"), limits=PLENTY),
    *routes_of("safe", rule("0", answer=True)),
    *routes_of(
        "claims", rule("gold", match={"claims": {"sub": "gold"}}, answer=True), rule("rest"), limits=PLENTY
    ),
    *routes_of("members", rule("gold", match={"claims": {"sub": "gold"}}, answer=True), limits=PLENTY),
    a_route("/v2/models/slow", live("slow"), timeout=SLOW / 4),
    *routes_of("late", rule("0", to="slow", timeout=SLOW / 4)),
    *routes_of("begun", rule("0", to="begun", timeout=SLOW / 4)),
    other_server("other", to="slow"),
    large("large"),
]


HELD = [buckets(PLENTY)]


def model(request: Request) -> Reply:
    """Fails where it is asked to."""
    return Reply(500 if "fail" in request.path else 200)


@pytest.fixture(scope="module")
def replicas() -> Iterator[dict[str, Upstream]]:
    with upstreams() as made:
        yield {
            "model": made.start("model", model),
            "slow": made.start("slow", lambda _: Reply(delay=SLOW)),
            "begun": made.start("begun", lambda _: Reply(pause=SLOW)),
        }


def started(envoy: OneEnvoy, replicas: dict[str, Upstream], rules: AccessRules | None = None) -> OneEnvoy:
    return envoy.start(ROUTES, [cluster(arm_of(name, one)) for name, one in replicas.items()], rules, HELD)


@pytest.fixture(scope="module")
def envoy(replicas: dict[str, Upstream]) -> Iterator[OneEnvoy]:
    with one_envoy() as made:
        yield started(made, replicas)


def raw(envoy: OneEnvoy, target: str, *headers: str, method: str = "POST") -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to exactly these bytes: clients tidy paths up."""
    lines = "".join(f"{header}\r\n" for header in headers)
    head = f"{method} {target} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{lines}"
    with socket.create_connection(("127.0.0.1", envoy.settings.port), timeout=60) as connection:
        connection.sendall(f"{head}content-length: 5\r\n\r\n".encode() + bytes(5))
        answer = connection.makefile("rb")
        status = int(answer.readline().split(b" ")[1])
        found = {}
        while (line := answer.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            found[name.lower()] = value.strip()
    return status, found


GRPC, TO = "content-type: application/grpc", "podium-deployment: limited"
FORGED = [
    ("/v2/models/limited/infer",),
    ("//v2//models///limited/infer",),
    ("/v2/./models/limited/infer",),
    ("/x/../v2/models/limited/infer",),
    ("/v1/../v2/models/limited/infer",),
    ("/v2/models/%6cimited/infer",),
    ("/v2/models/limited%2finfer",),
    ("/v2/models/limited;x=1/infer",),
    ("/v2/models/limited?/v1/models/",),
    ("/v2/models/limited/infer#/v2/models/free",),
    ("/V2/models/limited/infer",),
    ("/v2/Models/Limited/infer",),
    ("http://other/v2/models/limited/infer",),
    ("http://other//v2/models/limited/infer",),
    ("/v2/models/limited/generate_stream",),
    ("/v2/models/limited/infer", "accept: text/event-stream"),
    ("/v2/models/limited/infer", "accept: application/json", "accept: text/event-stream"),
    ("/v2/models/limited/infer", "x-envoy-upstream-rq-timeout-ms: 0"),
    ("/v2/models/limited/infer", "podium.entrance.note: passed"),
    ("/v2/models/limited/infer", "x-envoy-original-path: /v2/models/free"),
    ("/v2/models/limited/infer", "content-type: application/x-protobuf"),
    ("/v2/models/limited/infer", "content-type: text/plain", GRPC),
    ("/v1/models/limited:predict",),
    ("//v1//models//limited:predict",),
    ("/x/../v1/models/limited:predict",),
    ("/v1/models/%6cimited:predict",),
    ("/%76%31/models/limited:predict",),
    ("/V1/models/limited:predict",),
    ("http://other/v1/models/limited:predict",),
    ("/ws/default/v1/models/limited:predict",),
    ("/v1/models/limited:predict", "accept: text/event-stream"),
    ("/v1/models/limited:predict?/v1/models/free:predict",),
    (CALL, GRPC, TO),
    (CALL, f"{GRPC}+proto", TO),
    (CALL, "content-type: APPLICATION/GRPC", TO),
    (CALL, "Content-Type: application/grpc;x=y", TO),
    (f"/{CALL}", GRPC, TO),
    (f"/x/..{CALL}", GRPC, TO),
    ("/inference%2eGRPCInferenceService/ModelInfer", GRPC, TO),
    (f"http://other{CALL}", GRPC, TO),
    (CALL, GRPC, TO, "accept: text/event-stream"),
    ("/v1/models/limited:predict", GRPC, TO),
    ("/v2/models/limited/infer", GRPC, TO),
]


@pytest.mark.parametrize("sent", FORGED, ids=lambda sent: " ".join(sent))
def test_no_request_reaches_a_replica_past_the_limit(
    envoy: OneEnvoy, replicas: dict[str, Upstream], sent: tuple[str, ...]
) -> None:
    before = len(replicas["model"].got)
    status, headers = raw(envoy, *sent)
    if len(replicas["model"].got) > before:
        assert headers["x-ratelimit-limit"] == "100000", (status, headers)
    else:
        # Refused, sent elsewhere, or a call that says in gRPC's way that it is not one.
        assert status in (308, 400, 404, 415, 501) or headers.get("grpc-status") in ("3", "5", "12"), status


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/v2/models/limited/infer", ()),
        ("/v1/models/limited:predict", ()),
        ("/v2/models/limited/generate_stream", ()),
        ("/v2/models/limited/infer", ("accept: text/event-stream",)),
        (CALL, (GRPC, TO)),
    ],
)
def test_every_protocol_is_limited(
    envoy: OneEnvoy, replicas: dict[str, Upstream], target: str, headers: tuple[str, ...]
) -> None:
    before = len(replicas["model"].got)
    _, found = raw(envoy, target, *headers)
    assert found["x-ratelimit-limit"] == "100000"
    assert len(replicas["model"].got) == before + 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v2/models/safe/infer?fail", {}),
        ("/v1/models/safe:predict?fail", {}),
        ("/v2/models/safe/generate_stream?fail", {}),
        ("/v2/models/safe/infer?fail", {"accept": "text/event-stream"}),
    ],
)
def test_the_declared_answer_for_every_protocol(envoy: OneEnvoy, path: str, headers: dict[str, str]) -> None:
    found = envoy.client.post(path, headers=headers)
    assert (found.status_code, found.json()) == (200, SAFE)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v2/models/slow/generate_stream", {}),
        ("/v2/models/slow/infer", {"accept": "text/event-stream"}),
        ("/v2/models/slow/infer", {"accept": "application/json, text/event-stream"}),
        ("/v1/models/slow:predict", {"accept": "text/event-stream"}),
    ],
)
def test_streams_outlive_the_timeout_and_nothing_else_does(
    envoy: OneEnvoy, path: str, headers: dict[str, str]
) -> None:
    assert envoy.client.post(path, headers=headers).status_code == 200
    assert envoy.client.post("/v2/models/slow/infer").status_code == 504
    assert envoy.client.post("/v1/models/slow:predict").status_code == 504


EVENTS = {"accept": "text/event-stream"}


@pytest.mark.parametrize(
    "rest",
    ["/infer?/generate_stream", "/infer?a=/v2/models/late/generate_stream", "/infer/generate_stream"],
)
def test_who_only_names_a_stream_is_held_to_the_timeout(envoy: OneEnvoy, rest: str) -> None:
    for name in ("late", "slow"):
        assert envoy.client.post(f"/v2/models/{name}{rest}").status_code == 504


@pytest.mark.parametrize(
    ("rest", "headers"), [("/infer", EVENTS), ("/generate_stream", {}), ("/any", EVENTS), ("", EVENTS)]
)
def test_a_stream_through_a_route_begins_within_its_timeout(
    envoy: OneEnvoy, replicas: dict[str, Upstream], rest: str, headers: dict[str, str]
) -> None:
    before = len(replicas["begun"].got)
    for name in ("late", "other"):
        assert envoy.client.post(f"/v2/models/{name}{rest}", headers=headers).status_code == 504
    # What has begun goes on, at the one replica that it was sent to.
    assert envoy.client.post(f"/v2/models/begun{rest}", headers=headers).content == b"{}"
    assert len(replicas["begun"].got) == before + 1
    with pytest.raises(httpx.RemoteProtocolError):
        envoy.client.post("/v2/models/begun/infer")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v2/models/large/infer", {}),
        ("/v1/models/large:predict", {}),
        ("/v2/models/large/generate_stream", {}),
        ("/v2/models/large/infer", {"accept": "text/event-stream"}),
    ],
)
def test_bodies_are_those_of_the_route_that_is_taken(
    envoy: OneEnvoy, replicas: dict[str, Upstream], path: str, headers: dict[str, str]
) -> None:
    """The first route has the limit of all others."""
    assert envoy.client.post(path, content=bytes(LARGE), headers=headers).status_code == 200
    assert len(replicas["model"].got[-1].body) == LARGE
    small = path.replace("large", "limited")
    assert envoy.client.post(small, content=bytes(LARGE), headers=headers).status_code == 413


@pytest.mark.parametrize("name", ["claims", "members"])
def test_rules_by_claims_have_their_limits_and_answers(replicas: dict[str, Upstream], name: str) -> None:
    """Filters are made before the token is read, by another rule than the one that is taken then."""
    signer = Signer()
    with one_envoy() as envoy:
        started(envoy, replicas, AccessRules.parse(signer.access()))

        def asked(path: str, **claims: Any) -> tuple[int, str | None, bytes]:
            token = f"Bearer {signer.token(**claims)}"
            found = envoy.client.post(path, headers={"authorization": token})
            return found.status_code, found.headers.get("x-ratelimit-limit"), found.content

        for path in (f"/v2/models/{name}/infer", f"/v1/models/{name}:predict"):
            assert asked(path, sub="gold")[:2] == (200, "100000")
            status, _, answer = asked(f"{path}?fail", sub="gold")
            assert (status, json.loads(answer)) == (200, SAFE)
            status, limit, _ = asked(f"{path}?fail", sub="silver")
            assert (status, limit) == ((500, "100000") if name == "claims" else (404, None))
