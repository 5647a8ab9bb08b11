"""Rules that are sticky and ask others in turn: a user keeps the variant, whoever is asked after it. A real Envoy."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from podium.gateway.render.access import AccessRules
from podium.planning.route_test import tell
from podium.planning.routes import RoutePlan
from podium.resources.claims import as_text
from podium.resources.route_test import RouteTestRequest
from tests.integration.gateway.conftest import until
from tests.integration.gateway.published import PublishedEnvoy, entry_of, planned, published_envoy
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.upstreams import Upstream, says, upstreams

USERS = [f"user-{number}" for number in range(80)]
SPLIT = {
    "to": [{"deployment": "a", "weight": 40}, {"deployment": "b", "weight": 30}, {"deployment": "dead", "weight": 30}]
}  # fmt: skip
MANY = {
    "to": [
        {"deployment": name, "weight": weight}
        for name, weight in (("a", 40), ("b", 10), ("dead", 10), ("unsure", 20), ("c", 20))
    ]
}
HEADER = {"sticky": {"header": "x-user"}}
NEXT = {"fallback": {"deployments": ["next"]}}


@dataclass
class Site:
    envoy: PublishedEnvoy
    replicas: dict[str, Upstream]
    plans: dict[str, RoutePlan]

    def post(self, route: str, path: str = "/infer", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.envoy.client.post(f"/v2/models/{route}{path}", content=b"some rows", headers=named)

    def variant(self, route: str, **headers: str) -> str:
        """Who is asked first, by `podium route test`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        [one] = tell(self.plans[route], RouteTestRequest(headers=named)).answering
        return one.revision


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with upstreams() as started, published_envoy() as envoy:
        names = ("a", "b", "c", "next", "large", "shadow", "r-old", "r-new")
        replicas = {name: started.start(name, says({"by": name})) for name in names}
        replicas["dead"] = started.nobody("dead")
        replicas["unsure"] = started.start("unsure", says({"by": "unsure"}, x_podium_escalate="0.4"))
        entries = {
            name: entry_of(name, (replica, 100)) for name, replica in replicas.items() if "-" not in name
        }
        entries["r"] = entry_of("r", (replicas["r-old"], 50), (replicas["r-new"], 50))
        cascade = {"deployment": "large", "threshold": 0.8}
        unsure = {
            "to": [{"deployment": "a", "weight": 50}, {"deployment": "unsure", "weight": 50}],
            "cascade": cascade,
        }
        matched = {"name": "m", "match": {"headers": {"x-tier": "gold"}}, "to": "c"}
        plans = [
            planned("header", matched, {**SPLIT, **HEADER, **NEXT}, entries=entries),
            planned("cookie", {**SPLIT, **NEXT, "sticky": {"cookie": "uid"}}, entries=entries),
            planned("many", {**MANY, **HEADER, **NEXT}, entries=entries),
            planned("cascade", {**unsure, **HEADER}, entries=entries),
            planned("both", {**unsure, **HEADER, **NEXT}, entries=entries),
            planned("answer", {**SPLIT, **HEADER, "fallback": {**NEXT["fallback"], "answer": {"body": {"by": "none"}},
                    "deployments": ["gone"]}}, entries=entries),
            planned("copied", {**SPLIT, **HEADER, **NEXT, "shadow": [{"deployment": "shadow"}]}, entries=entries),
            planned("limited", {**SPLIT, **HEADER, **NEXT}, entries=entries,
                    limits={"route": {"requests": 50, "per": "1h"}}),
            planned("again", {**SPLIT, **HEADER, **NEXT}, entries=entries, retries={"attempts": 2}),
            planned("rollout", {"to": [{"deployment": "b", "weight": 50}, {"deployment": "r", "weight": 50}], **HEADER,
                    **NEXT}, entries=entries),
        ]  # fmt: skip
        yield Site(envoy.serve(plans), replicas, {plan.route: plan for plan in plans})


@pytest.mark.parametrize("route", ["header", "many", "again"])
def test_users_keep_their_variant_and_only_those_of_a_dead_one_are_answered_by_the_next(
    site: Site, route: str
) -> None:
    met = Counter[str]()
    for user in USERS:
        variant = site.variant(route, x_user=user)
        answer = site.post(route, x_user=user)
        assert answer.status_code == 200, answer.text
        by, fallback = answer.json()["by"], answer.headers.get("x-podium-fallback")
        expected = ("next", "deployment") if variant == "dead-00001" else (variant.rpartition("-")[0], None)
        assert (by, fallback) == expected, user
        assert site.replicas[by].got[-1].body == b"some rows"
        assert site.replicas[by].got[-1].path == "/v2/models/-/infer"
        met[by] += 1
    assert len(met) == (3 if route != "many" else 5)


def test_a_users_arm_of_a_rollout_is_kept_too(site: Site) -> None:
    by = {"r-00001": "r-old", "r-00002": "r-new", "b-00001": "b"}
    met = Counter[str]()
    for user in USERS:
        variant = site.variant("rollout", x_user=user)
        assert site.post("rollout", x_user=user).json()["by"] == by[variant]
        met[variant] += 1
    assert set(met) == set(by)


def test_a_cookie_is_a_key_here_too_and_without_it_requests_are_spread(site: Site) -> None:
    for user in USERS:
        cookie = f"x=1; uid={user}; y=2"
        variant = site.variant("cookie", cookie=cookie).rpartition("-")[0]
        assert site.post("cookie", cookie=cookie).json()["by"] == ("next" if variant == "dead" else variant)
    found = Counter(site.post("cookie", cookie="x=1").json()["by"] for _ in range(150))
    assert set(found) == {"a", "b", "next"}
    assert min(found.values()) > 15


def test_what_a_small_variant_is_not_sure_of_the_large_model_answers(site: Site) -> None:
    met = Counter[str]()
    for route in ("cascade", "both"):
        for user in USERS:
            variant = site.variant(route, x_user=user)
            answer = site.post(route, x_user=user)
            assert answer.json()["by"] == ("large" if variant == "unsure-00001" else "a")
            assert "x-podium-fallback" not in answer.headers
            met[variant] += 1
    assert len(met) == 2
    # Who is asked is told what counts as sure.
    assert site.replicas["unsure"].got[-1].headers["x-podium-cascade"].startswith("by=unsure;threshold=0.8;")


def test_the_declared_answer_is_for_the_users_of_the_dead_variant(site: Site) -> None:
    for user in USERS[:30]:
        variant = site.variant("answer", x_user=user).rpartition("-")[0]
        answer = site.post("answer", x_user=user)
        expected = ("none", "answer") if variant == "dead" else (variant, None)
        assert (answer.json()["by"], answer.headers.get("x-podium-fallback")) == expected


def test_each_request_is_copied_once(site: Site) -> None:
    before = len(site.replicas["shadow"].got)
    for user in USERS:
        site.post("copied", x_user=user)
    until(lambda: len(site.replicas["shadow"].got) == before + len(USERS), 60)
    assert site.envoy.stats(r"^cluster\.default_shadow-00001_shadow\.upstream_rq_total$") == {
        "cluster.default_shadow-00001_shadow.upstream_rq_total": len(USERS)
    }


def test_each_request_takes_one_of_the_routes_bucket_whichever_variant(site: Site) -> None:
    found = Counter(site.post("limited", x_user=user).status_code for user in USERS)
    assert found == {200: 50, 429: 30}


def test_calls_of_other_protocols_find_their_variant_too(site: Site) -> None:
    for user in USERS[:30]:
        variant = site.variant("header", x_user=user).rpartition("-")[0]
        answer = site.envoy.client.post("/v1/models/header:predict", content=b"{}", headers={"x-user": user})
        assert answer.json()["by"] == ("next" if variant == "dead" else variant)
    # A rule in front of it is not disturbed.
    assert site.post("header", x_user=USERS[0], x_tier="gold").json()["by"] == "c"


def test_a_claim_of_the_token_is_a_key_with_a_fallback_behind() -> None:
    signer = Signer()
    with upstreams() as started, published_envoy() as envoy:
        replicas = {name: started.start(name, says({"by": name})) for name in ("a", "next")}
        replicas["dead"] = started.nobody("dead")
        entries = {name: entry_of(name, (replica, 100)) for name, replica in replicas.items()}
        to = [{"deployment": "a", "weight": 50}, {"deployment": "dead", "weight": 50}]
        plan = planned("front", {"to": to, **NEXT, "sticky": {"claim": "user"}}, entries=entries)
        envoy.serve([plan], AccessRules.parse(signer.access()))
        met = Counter[str]()
        for user in USERS[:40]:
            claims = {"user": user, "tier": "gold"}
            token = signer.token(claims=claims, claimed=as_text(claims))
            answer = envoy.client.post(
                "/v2/models/front/infer", content=b"{}", headers={"authorization": f"Bearer {token}"}
            )
            [variant] = tell(plan, RouteTestRequest(claims=claims)).answering
            assert answer.status_code == 200, answer.text
            assert answer.json()["by"] == ("next" if variant.deployment == "dead" else "a"), user
            met[variant.deployment] += 1
        assert min(met["a"], met["dead"]) > 5
