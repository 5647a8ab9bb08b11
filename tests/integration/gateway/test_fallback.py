"""Who answers when a rule's own Deployment does not: a real Envoy before tiny replicas that fail in every way."""

from collections.abc import Iterator

import httpx
import pytest

from podium.gateway.render.clusters import cluster
from podium.gateway.render.limits import buckets
from podium.resources.traffic import Limits
from tests.integration.gateway.one_envoy import OneEnvoy, arm_of, clusters_for, live, one_envoy
from tests.integration.gateway.planned import rule_route
from tests.integration.gateway.upstreams import Reply, Upstream, says, upstreams

SAFE = {"label": "unknown", "score": 0.5, "words": "100 % %REQ(:path)% %PROTOCOL%"}
NEXT = {"deployments": ["next"], "attemptTimeout": "0.3s"}
BOTH = {**NEXT, "answer": {"body": SAFE}}
ONCE = {"route": {"requests": 1, "per": "1h"}}
FAILING = ("dead", "hangs", "e500", "e502", "e503", "full")
"""Deployments: no connection, no answer, the model's error, a broken gateway, not ready, a full queue."""
ROUTES = [
    rule_route("/well", "well", fallback=BOTH),
    *(rule_route(f"/next/{name}", name, fallback=NEXT) for name in FAILING),
    *(
        rule_route(f"/answer/{name}", name, timeout=0.4, fallback={"answer": {"body": SAFE, "status": 203}})
        for name in (*FAILING, "nowhere", "empty")
    ),
    rule_route("/both/dead", "dead", fallback={**BOTH, "deployments": ["full", "e500"]}),
    rule_route("/third", "dead", fallback={"deployments": ["e503", "next"]}),
    rule_route("/absent", "gone", absent=("gone",), fallback=NEXT),
    rule_route("/all-absent", "gone", absent=("gone", "next"), fallback=BOTH),
    rule_route("/strict", "e500", fallback={**NEXT, "onServerError": False}),
    rule_route("/mine", "e400", fallback=BOTH),
    rule_route("/again", "flaky", fallback=NEXT, retries={"attempts": 1}),
    rule_route("/begins-hedged", "begins", hedge={"after": "0.3s"}),
    rule_route("/once", "dead", limits=ONCE, fallback={"answer": {"body": SAFE}}),
    rule_route("/begins", "begins", fallback=NEXT),
    rule_route("/v2/models/call-next", "e503", fallback={"deployments": ["well"]}),
    rule_route("/v2/models/call-answer", "e503", fallback={"answer": {"body": SAFE}}),
]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OneEnvoy, dict[str, Upstream]]]:
    with upstreams() as replicas, one_envoy() as envoy:
        made = {
            "well": replicas.start("well", says({"by": "well"})),
            "next": replicas.start("next", says({"by": "next"})),
            "dead": replicas.nobody("dead"),
            "hangs": replicas.start("hangs", lambda _: None),
            "full": replicas.start("full", says({"by": "full"}, 429, retry_after="1")),
            "flaky": replicas.nobody("flaky"),
            "begins": replicas.start("begins"),
            **{f"e{code}": replicas.start(f"e{code}", says({}, code)) for code in (400, 500, 502, 503)},
        }
        held = buckets(Limits.model_validate(ONCE))
        yield envoy.start(ROUTES, [*clusters_for(made), cluster(arm_of("empty"))], held=[held]), made


@pytest.mark.parametrize("failing", FAILING)
def test_the_next_deployment_answers(served: tuple[OneEnvoy, dict[str, Upstream]], failing: str) -> None:
    envoy, replicas = served
    before = len(replicas[failing].got)
    answer = envoy.client.post(f"/next/{failing}", content=b"some rows")
    assert (answer.status_code, answer.json()) == (200, {"by": "next"})
    assert answer.headers["x-podium-fallback"] == "deployment"
    request = replicas["next"].got[-1]
    assert request.body == b"some rows"
    assert request.headers["x-request-id"] == answer.headers["x-request-id"]
    assert len(replicas[failing].got) - before == (0 if failing == "dead" else 1), "asked once, never again"


@pytest.mark.parametrize("failing", [*FAILING, "nowhere", "empty"])
def test_the_declared_answer_is_in_the_place_of_every_failure(
    served: tuple[OneEnvoy, dict[str, Upstream]], failing: str
) -> None:
    envoy, _ = served
    answer = envoy.client.post(f"/answer/{failing}", content=b"{}")
    assert (answer.status_code, answer.json()) == (203, SAFE)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-podium-fallback"] == "answer"
    assert answer.headers["x-request-id"]
    assert "retry-after" not in answer.headers


def test_a_deployment_that_is_well_answers_itself(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    answer = served[0].client.post("/well", content=b"{}")
    assert (answer.status_code, answer.json()) == (200, {"by": "well"})
    assert "x-podium-fallback" not in answer.headers


def test_the_declared_answer_comes_after_all_deployments(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, replicas = served
    before = [len(replicas[name].got) for name in ("full", "e500")]
    answer = envoy.client.post("/both/dead", content=b"{}")
    assert (answer.status_code, answer.json()) == (200, SAFE)
    assert answer.headers.get_list("x-podium-fallback") == ["answer"]
    assert [len(replicas[name].got) for name in ("full", "e500")] == [count + 1 for count in before]


def test_each_deployment_in_its_turn(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    answer = served[0].client.post("/third", content=b"{}")
    assert (answer.status_code, answer.json()) == (200, {"by": "next"})


def test_who_has_no_replica_is_not_waited_for(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    envoy, _ = served
    answer = envoy.client.post("/absent", content=b"{}")
    assert (answer.status_code, answer.json()) == (200, {"by": "next"})
    assert answer.headers["x-podium-fallback"] == "deployment"
    answer = envoy.client.post("/all-absent", content=b"{}")
    assert (answer.status_code, answer.json()) == (200, SAFE)


def test_the_next_deployment_gets_all_of_a_large_body(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    envoy, replicas = served
    body = bytes(range(256)) * 2**15
    answer = envoy.client.post("/next/e503", content=body)
    assert (answer.status_code, answer.json()) == (200, {"by": "next"})
    assert replicas["next"].got[-1].body == body


def test_an_answer_that_has_begun_is_not_given_up(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    envoy, replicas = served
    # Twice as long as an attempt may take, and as a second replica is asked after: but the head is out at once.
    replicas["begins"].answering = lambda _: Reply(pause=0.6, body=b'{"by":"begins"}')
    for path in ("/begins", "/begins-hedged"):
        answer = envoy.client.post(path, content=b"{}")
        assert (answer.status_code, answer.json()) == (200, {"by": "begins"})
        assert "x-podium-fallback" not in answer.headers
    assert len(replicas["begins"].got) == 2


def test_what_is_wrong_with_the_request_is_said(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    answer = served[0].client.post("/mine", content=b"{}")
    assert answer.status_code == 400
    assert "x-podium-fallback" not in answer.headers


def test_a_callers_limit_is_said(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    answers = [served[0].client.post("/once", content=b"{}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[0].json() == SAFE
    assert answers[1].json()["code"] == "rateLimited"


def test_a_models_error_may_be_its_answer(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    assert served[0].client.post("/strict", content=b"{}").status_code == 500


def test_retries_of_the_route_come_before_the_next_deployment(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, _ = served
    before = envoy.stats(f"^cluster.{live('flaky')}.upstream_cx_connect_fail$")
    answer = envoy.client.post("/again", content=b"{}")
    assert (answer.json(), answer.headers["x-podium-fallback"]) == ({"by": "next"}, "deployment")
    assert sum(envoy.stats(f"^cluster.{live('flaky')}.upstream_cx_connect_fail$").values()) == 2 + sum(
        before.values()
    )


def test_live_counters_are_of_those_that_were_asked_first(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, _ = served
    name = arm_of("next", role="next").cluster
    before = envoy.stats(f"^cluster.{name}.upstream_rq_completed$")
    assert envoy.client.post("/next/dead", content=b"{}").status_code == 200
    after = envoy.stats(f"^cluster.{name}.upstream_rq_completed$")
    assert sum(after.values()) - sum(before.values()) == 1
    assert not envoy.stats(f"^cluster.{live('next')}.upstream_rq_(total|retry)$")


def test_a_call_of_grpc_gets_the_next_deployment_but_no_declared_answer(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, replicas = served
    protobuf = {"content-type": "application/x-protobuf"}
    failed = protobuf | {"x-grpc-status": "14", "x-grpc-message": "not ready"}
    good = replicas["well"], lambda _: Reply(headers=protobuf, body=b"message")
    bad = replicas["e503"], lambda _: Reply(503, failed, b"")
    for replica, answering in (good, bad):
        replica.answering = answering
    # A message of JSON would be none of protobuf's: the caller gets the failure in gRPC's own words.
    expected = {"call-next": b"\x00\x00\x00\x00\x07message", "call-answer": bytes(5)}
    for name, content in expected.items():
        headers = {"content-type": "application/grpc", "podium-deployment": name}
        # Over HTTP/1.1, which has no room for what gRPC sends after a body: a connection for each.
        with httpx.Client(trust_env=False, timeout=60) as client:
            url = f"http://127.0.0.1:{envoy.settings.port}/inference.GRPCInferenceService/ModelInfer"
            answer = client.post(url, content=bytes(5), headers=headers)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers.get("x-podium-fallback") == ("deployment" if name == "call-next" else None)


def test_envoy_has_nothing_to_say_about_it(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    assert served[0].words() == ""
