"""Copies for a shadow: every one arrives, and nothing that the shadow does is felt in front of it."""

from collections.abc import Iterator

import pytest

from podium.gateway.render.clusters import cluster
from podium.gateway.render.mirror import UNDER_WAY
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, arm_of, live, one_envoy
from tests.integration.gateway.planned import rule_route
from tests.integration.gateway.upstreams import Upstream, says, upstreams

ROUTES = [
    rule_route("/all", "champion", shadows={"shadow": 10_000}),
    rule_route("/some", "champion", shadows={"shadow": 2_500}),
    rule_route("/alone", "champion"),
    rule_route("/hangs", "champion", shadows={"hangs": 10_000}),
    rule_route("/dead", "champion", shadows={"dead": 10_000}),
    rule_route("/fails", "champion", shadows={"fails": 10_000}),
    rule_route("/two", "champion", shadows={"shadow": 10_000, "fails": 10_000}),
]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OneEnvoy, dict[str, Upstream]]]:
    with upstreams() as replicas, one_envoy() as envoy:
        made = {
            "champion": replicas.start("champion", says({"by": "champion"})),
            "shadow": replicas.start("shadow", says({"by": "shadow"}, x_podium_escalate="0.1")),
            "hangs": replicas.start("hangs", lambda _: None),
            "fails": replicas.start("fails", says({}, 500)),
            "dead": replicas.nobody("dead"),
        }
        clusters = [
            cluster(arm_of(name, replica, role="live" if name == "champion" else "shadow"))
            for name, replica in made.items()
        ]
        yield envoy.start(ROUTES, clusters), made


def test_every_copy_arrives_under_the_id_of_its_request(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, replicas = served
    champion, shadow = replicas["champion"], replicas["shadow"]
    before = len(champion.got), len(shadow.got)
    bodies = [bytes([number % 251]) * (1 + number * 997) for number in range(120)]
    for number, body in enumerate(bodies):
        answer = envoy.client.post(f"/all?n={number}", content=body)
        assert (answer.status_code, answer.json()) == (200, {"by": "champion"})
    until(lambda: len(shadow.got) - before[1] == len(bodies), 60)
    first, copies = champion.got[before[0] :], shadow.got[before[1] :]
    by_id = {request.headers["x-request-id"]: request for request in copies}
    for request in first:
        copy = by_id[request.headers["x-request-id"]]
        assert (copy.path, copy.body) == (request.path, request.body)
        assert copy.headers["x-podium-shadow"] == "true"
        assert copy.headers["host"] == request.headers["host"]
        assert copy.headers["x-podium-record"] == request.headers["x-podium-record"] == "true"
        assert "x-podium-shadow" not in request.headers
    assert len(by_id) == len(first) == len(bodies)


def test_only_requests_that_may_be_copied_are_recorded_whatever_a_client_says(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, replicas = served
    before = len(replicas["champion"].got)
    told = {"x-podium-record": "true", "X_Podium_Record": "true"}
    assert envoy.client.post("/alone", content=b"{}", headers=told).status_code == 200
    assert envoy.client.post("/all", content=b"{}", headers={"x-podium-record": "no"}).status_code == 200
    alone, copied = replicas["champion"].got[before:]
    assert not {"x-podium-record", "x_podium_record"} & set(alone.headers)
    assert copied.headers["x-podium-record"] == "true"


def test_copies_are_in_no_count_of_live_traffic(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    envoy, _ = served
    name = arm_of("shadow", role="shadow").cluster
    envoy.client.post("/all", content=b"{}")
    until(lambda: envoy.stats(f"^cluster.{name}.upstream_rq_completed$"), 60)
    assert not envoy.stats(f"^cluster.{live('shadow')}")


def test_a_share_of_requests(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    envoy, replicas = served
    before = len(replicas["shadow"].got)
    for _ in range(400):
        envoy.client.post("/some", content=b"{}")
    # 100 expected; 40 or 160 are seven standard deviations away. Copies may still be on their way.
    until(lambda: len(replicas["shadow"].got) - before > 40, 60)
    assert len(replicas["shadow"].got) - before < 160


@pytest.mark.parametrize("path", ["/dead", "/fails", "/two"])
def test_a_shadow_that_fails_is_not_felt(served: tuple[OneEnvoy, dict[str, Upstream]], path: str) -> None:
    envoy, _ = served
    for _ in range(20):
        answer = envoy.client.post(path, content=b"x" * 100_000)
        assert (answer.status_code, answer.json()) == (200, {"by": "champion"})
        assert "x-podium-escalate" not in answer.headers


def test_a_shadow_that_hangs_holds_a_few_copies_and_nobody_else(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, replicas = served
    times = 2 * UNDER_WAY
    for _ in range(times):
        # Thirty seconds is what one request may take: none of these waits for its copy.
        answer = envoy.client.post("/hangs", content=b"x" * 1000)
        assert (answer.status_code, answer.json()) == (200, {"by": "champion"})
    name = arm_of("hangs", role="shadow").cluster
    counts = envoy.stats(f"^cluster.{name}.upstream_rq_active(_overflow)?$")
    assert counts[f"cluster.{name}.upstream_rq_active"] == UNDER_WAY
    assert counts[f"cluster.{name}.upstream_rq_active_overflow"] == UNDER_WAY
    assert len(replicas["hangs"].got) <= UNDER_WAY
