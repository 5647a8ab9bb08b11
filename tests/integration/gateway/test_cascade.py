"""A small model first and a larger one where it is not sure: a real Envoy; then real models against the same models
asked without any server."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from podium.gateway.admin import Admin
from podium.gateway.load_report import LoadCounters
from podium.gateway.render.clusters import cluster
from tests.integration.gateway.one_envoy import OneEnvoy, arm_of, clusters_for, live, one_envoy
from tests.integration.gateway.planned import rule_route
from tests.integration.gateway.upstreams import Reply, Request, Upstream, says, upstreams

TO_LARGE = {"deployment": "large", "threshold": 0.75}


def unsure_if_told(request: Request) -> Reply:
    """A small model: the body says how sure it is; asked only if the header names it."""
    sure = json.loads(request.body)["sure"]
    asked = request.headers.get("x-podium-cascade", "")
    headers = {}
    if asked.startswith("by=small;") and sure < 0.75:
        headers["x-podium-escalate"] = str(sure)
    return Reply(headers=headers, body=b'{"by":"small"}')


ROUTES = [
    rule_route("/cascade", "small", cascade=TO_LARGE),
    rule_route("/only-large", "small", cascade=TO_LARGE, absent=("small",)),
    rule_route("/only-small", "small", cascade=TO_LARGE, absent=("large",)),
    rule_route("/small-dead", "dead", cascade=TO_LARGE),
    rule_route("/large-dead", "small", cascade={**TO_LARGE, "deployment": "dead"}),
    rule_route(
        "/safe", "small", cascade={**TO_LARGE, "deployment": "dead"}, fallback={"deployments": ["next"]}
    ),
    rule_route("/three", "small", cascade=TO_LARGE, fallback={"deployments": ["next"]}),
    rule_route("/refused", "full", cascade=TO_LARGE),
    rule_route("/plain", "small"),
    rule_route("/two", "small", "small-b", cascade=TO_LARGE),
    rule_route("/half", "small", cascade={**TO_LARGE, "deployment": "half"}),
]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OneEnvoy, dict[str, Upstream]]]:
    with upstreams() as replicas, one_envoy() as envoy:
        made = {
            "small": replicas.start("small", unsure_if_told),
            "small-b": replicas.start("small-b", says({"by": "small-b"}, x_podium_escalate="0.1")),
            "large": replicas.start("large", says({"by": "large"})),
            "next": replicas.start("next", says({"by": "next"})),
            "full": replicas.start("full", says({}, 429, retry_after="1")),
            "dead": replicas.nobody("dead"),
        }
        half = cluster(arm_of("half", made["large"], made["dead"], role="next"))
        yield envoy.start(ROUTES, [*clusters_for(made), half]), made


def ask(envoy: OneEnvoy, path: str, sure: float, **headers: str) -> tuple[int, str | None]:
    answer = envoy.client.post(path, content=json.dumps({"sure": sure}), headers=headers)
    return answer.status_code, answer.json().get("by")


def test_who_is_sure_answers_and_who_is_not_hands_on(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    envoy, replicas = served
    before = len(replicas["large"].got)
    answers = [ask(envoy, "/cascade", number / 100) for number in range(50, 100)]
    assert answers == [(200, "large" if number < 75 else "small") for number in range(50, 100)]
    assert len(replicas["large"].got) - before == 25
    assert replicas["large"].got[-1].body == b'{"sure": 0.74}'
    told = replicas["large"].got[-1].headers["x-podium-cascade"]
    assert told == "by=small;threshold=0.75;output=predict_proba"


def test_both_ask_under_one_request_id_and_both_are_counted(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, replicas = served
    answer = envoy.client.post("/cascade", content=b'{"sure":0.1}')
    ids = [replicas[name].got[-1].headers["x-request-id"] for name in ("small", "large")]
    assert set(ids) == {answer.headers["x-request-id"]}
    # What was handed on is told apart from what was answered, and what came second from live traffic.
    larger = arm_of("large", role="next").cluster
    counts = envoy.stats(rf"^cluster.({live('small')}.retry|{larger}).upstream_rq_2xx$")
    assert counts[f"cluster.{live('small')}.retry.upstream_rq_2xx"] >= 1
    assert counts[f"cluster.{larger}.upstream_rq_2xx"] >= 1


def test_what_the_small_model_hands_on_is_load_of_its_replicas(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, _ = served

    async def requests() -> dict[str, int]:
        admin = Admin(envoy.settings.layout.admin_socket)
        try:
            counters = LoadCounters(admin)
            counters.delivered(await counters.read("e1"))
            for number in range(8):
                await asyncio.to_thread(ask, envoy, "/cascade", 0.1 if number < 5 else 0.9)
            counters._due = 0.0
            document = await counters.read("e1")
        finally:
            await admin.close()
        assert document is not None
        found: dict[str, list[int]] = {}
        for one in document["clusters"]:
            found.setdefault(f"{one['deployment']} {one['role']}", []).append(one["requests"])
        # The last of a cluster's rows is now; one before it, or nothing, is where it began.
        return {
            name: counts[-1] - counts[0] if len(counts) > 1 else counts[-1] for name, counts in found.items()
        }

    assert asyncio.run(requests()) == {"small live": 8, "large next": 5}


def test_only_the_gateway_asks(served: tuple[OneEnvoy, dict[str, Upstream]]) -> None:
    envoy, replicas = served
    mine = {"x-podium-cascade": "by=small;threshold=1.0;output=predict_proba", "x-podium-shadow": "true"}
    assert ask(envoy, "/cascade", 0.9, **mine) == (200, "small")
    assert ask(envoy, "/plain", 0.1, **mine) == (200, "small")
    assert "x-podium-cascade" not in replicas["small"].got[-1].headers
    assert "x-podium-shadow" not in replicas["small"].got[-1].headers


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/only-large", (200, "large")),
        ("/only-small", (200, "small")),
        ("/small-dead", (200, "large")),
        ("/large-dead", (503, None)),
        ("/safe", (200, "next")),
        ("/three", (200, "large")),
        ("/refused", (429, None)),
    ],
)
def test_when_one_of_them_cannot(
    served: tuple[OneEnvoy, dict[str, Upstream]], path: str, expected: tuple[int, str | None]
) -> None:
    """The answer that was not sure is gone when the larger one turns out to be dead: that is why a fallback helps."""
    assert ask(served[0], path, 0.1) == expected


def test_a_dead_replica_of_the_larger_model_is_not_felt(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, _ = served
    assert {ask(envoy, "/half", 0.1) for _ in range(60)} == {(200, "large")}
    name = arm_of("half", role="next").cluster
    assert sum(envoy.stats(f"^cluster.{name}.upstream_cx_connect_fail$").values()) > 0


def test_each_of_two_small_models_hands_on(
    served: tuple[OneEnvoy, dict[str, Upstream]],
) -> None:
    envoy, replicas = served
    before = len(replicas["small-b"].got)
    answers = {ask(envoy, "/two", 0.9) for _ in range(40)}
    assert answers == {(200, "small"), (200, "large")}
    assert len(replicas["small-b"].got) > before
