"""Routes at a real Envoy: split, sticky assignment, rules, and what happens when a Deployment is not there."""

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from podium.planning.route_test import tell
from podium.planning.routes import plan_published
from podium.planning.routing import plan_route
from podium.planning.sticky import place_of
from podium.resources.kinds import KINDS
from podium.resources.route_test import RouteTestRequest
from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, deployment, revision, route
from tests.integration.gateway.signing import Signer

pytestmark = pytest.mark.integration
USERS = 800


def loaded(world: World, version: int) -> None:
    until(lambda: any(report["observedVersion"] >= version for report in world.server.reports[-3:]), 60)


def started(world: World, *documents: dict[str, Any]) -> World:
    """Deployments churn, small and big; these documents; a gateway that has loaded all."""
    for name in ("small", "big"):
        world.deploy(name)
    version = world.server.put(*documents)
    world.gateway.start_agent()
    loaded(world, version)
    return world


def split(*shares: tuple[str, float], **more: Any) -> dict[str, Any]:
    return {"to": [{"deployment": name, "weight": weight} for name, weight in shares], **more}


def answered_by(gateway: Gateway, path: str = "/v2/models/front/infer", **arguments: Any) -> str:
    response = gateway.get(path, **arguments)
    assert response.status_code == 200, response.text
    return str(response.json()["revision"]).rpartition("-")[0]


def variants(
    gateway: Gateway, header: str = "x-user", path: str = "/v2/models/front/infer"
) -> dict[int, str]:
    """user -> who answered, for all users."""
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(
            lambda user: answered_by(gateway, path, headers={header: f"user-{user}"}), range(USERS)
        )
        return dict(enumerate(found))


def test_a_route_has_a_name_of_its_own_and_the_deployments_keep_theirs(world: World) -> None:
    gateway = started(world, route("front", {"to": "churn"})).gateway
    seen = gateway.get("/v2/models/front/infer?a=b", headers={"x-podium-route": "forged"}).json()
    assert seen["target"] == "/v2/models/-/infer?a=b"
    assert seen["headers"]["x-podium-route"] == "front"
    assert gateway.get("/v2/models/churn/infer").json()["target"] == "/v2/models/churn/infer"
    v1 = gateway.get("/v1/models/front:predict").json()
    assert v1["target"] == "/v2/models/-/v1/models/-:predict"
    assert gateway.get("/v2/models/front/versions/1/infer").status_code == 404
    assert gateway.get("/v2/models/front2/infer").status_code == 404


def test_shares_of_a_split(world: World) -> None:
    gateway = started(world, route("front", split(("churn", 70), ("small", 20), ("big", 10)))).gateway
    found = Counter(answered_by(gateway) for _ in range(800))
    assert found["churn"] == pytest.approx(560, abs=80)
    assert found["small"] == pytest.approx(160, abs=70)
    assert found["big"] == pytest.approx(80, abs=60)


def test_a_user_stays_where_it_is_while_shares_grow_and_where_it_is_can_be_told(world: World) -> None:
    started(
        world, route("front", split(("churn", 80), ("small", 10), ("big", 10), sticky={"header": "x-user"}))
    )
    gateway = world.gateway
    before = variants(gateway)
    salt = "uid-default-route-front"
    for user, variant in before.items():
        place = place_of(salt, f"user-{user}")
        assert variant == ("small" if place < 1000 else "big" if place >= 9000 else "churn"), user
    version = world.server.put(
        route("front", split(("churn", 10), ("small", 50), ("big", 40), sticky={"header": "x-user"}))
    )
    loaded(world, version)
    after = variants(gateway)
    assert all(after[user] == variant for user, variant in before.items() if variant != "churn")
    shares = Counter(after.values())
    assert shares["small"] / USERS == pytest.approx(0.5, abs=0.08)
    assert shares["big"] / USERS == pytest.approx(0.4, abs=0.08)
    # Another Route has another salt: it meets other users.
    version = world.server.put(
        route("other", split(("churn", 50), ("small", 50), sticky={"header": "x-user"}))
    )
    loaded(world, version)
    other = variants(gateway, path="/v2/models/other/infer")
    both = sum(1 for user in other if (other[user] == "small") and (after[user] == "small"))
    assert both / USERS == pytest.approx(0.25, abs=0.08)


def test_routes_with_one_salt_deal_alike_and_a_route_that_is_made_again_too(world: World) -> None:
    def halves(salt: str | None) -> dict[str, Any]:
        return split(("churn", 50), ("small", 50), sticky={"header": "x-user", "salt": salt})

    started(world, route("front", halves("sale")), route("again", halves("sale")))
    before = variants(world.gateway)
    assert all(
        before[user] == ("small" if place_of("sale", f"user-{user}") < 5000 else "churn") for user in before
    )
    assert variants(world.gateway, path="/v2/models/again/infer") == before
    # Without one, the uid deals them anew.
    loaded(world, world.server.put(route("front", halves(None))))
    after = variants(world.gateway)
    assert sum(after[user] == before[user] for user in before) < 0.7 * USERS


def test_without_its_key_a_request_is_spread_at_random(world: World) -> None:
    gateway = started(
        world, route("front", split(("churn", 50), ("small", 50), sticky={"header": "x-user"}))
    ).gateway
    found = Counter(answered_by(gateway) for _ in range(400))
    assert min(found["churn"], found["small"]) > 100


def test_a_cookie_is_a_key_whatever_other_cookies_there_are(world: World) -> None:
    gateway = started(
        world, route("front", split(("churn", 50), ("small", 50), sticky={"cookie": "uid"}))
    ).gateway
    salt = "uid-default-route-front"
    for user in range(60):
        expected = "small" if place_of(salt, f"u{user}") < 5000 else "churn"
        for cookies in (f"uid=u{user}", f"a=1; uid=u{user}; b={user}", f"xuid=no;uid=u{user}"):
            assert answered_by(gateway, headers={"cookie": cookies}) == expected, cookies
    found = Counter(answered_by(gateway, headers={"cookie": "other=7; xuid=3"}) for _ in range(200))
    assert min(found["churn"], found["small"]) > 40


def test_the_arms_of_a_rollout_keep_their_shares_within_a_variant(world: World) -> None:
    started(world, route("front", split(("big", 40), ("churn", 60), sticky={"header": "x-user"})))
    version = world.canary("churn", 50)
    loaded(world, version)
    found: Counter[str] = Counter()
    for user in range(600):
        found[
            world.gateway.get("/v2/models/front/infer", headers={"x-user": str(user)}).json()["revision"]
        ] += 1
    assert found["churn-00002"] / 600 == pytest.approx(0.3, abs=0.08)
    assert found["churn-00001"] / 600 == pytest.approx(0.3, abs=0.08)
    assert found["big-00001"] / 600 == pytest.approx(0.4, abs=0.08)
    loaded(world, world.canary("churn", 0))
    users = [str(user) for user in range(100)]
    revisions = {
        world.gateway.get("/v2/models/front/infer", headers={"x-user": u}).json()["revision"] for u in users
    }
    assert revisions == {"churn-00001", "big-00001"}


RULES = [
    {"name": "gold", "match": {"headers": {"x-tier": "gold"}}, "to": "big"},
    {"match": {"headers": {"x-no": {"present": False}, "x-tier": {"regex": "s[il]+ver"}}}, "to": "small"},
    {"match": {"query": {"model": {"prefix": "b"}}}, "to": "big"},
    {"match": {"path": {"prefix": "/invocations"}}, "to": "small"},
    {"match": {"path": {"suffix": "/ready"}}, "to": "big"},
    {"match": {"path": {"contains": "-a.b-"}}, "to": "small"},
    {"to": "churn"},
]
REQUESTS = [
    ("/infer", {"x-tier": "gold"}, "big"),
    ("/infer", {"x-tier": "golden"}, "churn"),
    ("/infer", {"x-tier": "silver"}, "small"),
    ("/infer", {"x-tier": "silver", "x-no": "1"}, "churn"),
    ("/infer?model=best", {}, "big"),
    ("/infer?model=worst", {}, "churn"),
    ("/invocations", {}, "small"),
    ("/ready", {}, "big"),
    ("/x-a.b-y", {}, "small"),
    ("/x-aXb-y", {}, "churn"),
    ("", {}, "churn"),
]


def test_the_first_rule_that_matches_wins(world: World) -> None:
    gateway = started(world, route("front", *RULES)).gateway
    for path, headers, expected in REQUESTS:
        assert answered_by(gateway, f"/v2/models/front{path}", headers=headers) == expected, (path, headers)


def test_what_is_told_of_a_request_is_what_happens(world: World) -> None:
    rules = [*RULES[:-1], split(("churn", 40), ("small", 30), ("big", 30), sticky={"header": "x-user"})]
    document = route("front", *rules)
    gateway = started(world, document).gateway
    names = ("churn", "small", "big")
    entries = {name: plan_route(*objects(world, name), None) for name in names}
    plan = plan_published(KINDS["Route"].parse(document), entries)
    requests = [(path, headers) for path, headers, _ in REQUESTS if headers]
    requests += [("/infer", {"x-user": f"user-{user}"}) for user in range(100)]
    for path, headers in requests:
        told = tell(plan, RouteTestRequest(path=path, headers=headers))
        if len(told.answering) == 1:
            assert (
                answered_by(gateway, f"/v2/models/front{path}", headers=headers)
                == told.answering[0].deployment
            )
        else:
            assert "x-user" not in headers


def objects(world: World, name: str) -> tuple[Any, dict[str, Any]]:
    """A Deployment and its revisions, as the server has them."""
    found = world.server.objects
    revision = KINDS["Revision"].parse(found["Revision", "default", f"{name}-00001"])
    return KINDS["Deployment"].parse(found["Deployment", "default", name]), {f"{name}-00001": revision}


def test_a_request_that_no_rule_matches_is_told_so(world: World) -> None:
    gateway = started(world, route("front", RULES[0])).gateway
    said = gateway.get("/v2/models/front/infer")
    assert said.status_code == 404
    assert "no rule of route default/front matches" in said.json()["detail"]


def test_who_is_not_served_is_stood_in_for_by_the_first_who_is(world: World) -> None:
    absent = deployment("gone", stable=None)
    rules = (split(("gone", 50), ("churn", 30), ("never", 20), sticky={"header": "x-user"}),)
    started(world, absent, route("front", *rules), route("empty", {"to": "gone"}))
    assert set(variants(world.gateway).values()) == {"churn"}
    said = world.gateway.get("/v2/models/empty/infer")
    assert said.status_code == 503
    assert "gone: no replica of the deployment is ready yet" in said.json()["detail"]
    loaded(world, world.deploy("gone"))
    assert world.gateway.get("/v2/models/empty/infer").status_code == 200


def test_a_route_takes_over_the_path_of_a_deployment_with_its_name_and_gives_it_back(world: World) -> None:
    gateway = started(world, route("churn", {"to": "big"})).gateway
    assert answered_by(gateway, "/v2/models/churn/infer") == "big"
    loaded(world, world.server.delete("Route", "churn"))
    assert answered_by(gateway, "/v2/models/churn/infer") == "churn"


def test_an_agent_that_starts_without_a_server_keeps_the_routes(world: World) -> None:
    rules = split(("churn", 50), ("small", 50), sticky={"cookie": "uid"})
    gateway = started(world, route("front", rules)).gateway
    cookie = {"cookie": "uid=u1"}
    before = answered_by(gateway, headers=cookie)
    gateway.signal_agent(signal.SIGKILL)
    world.server.stop()
    gateway.start_agent()
    assert answered_by(gateway, headers=cookie) == before
    world.server.start()
    version = world.server.put(route("front", {"to": "big"}))
    loaded(world, version)
    assert answered_by(gateway, headers=cookie) == "big"


@pytest.mark.parametrize(
    "path", [{"regex": ".*"}, {"suffix": "/infer"}, {"contains": "in"}, {"regex": "-ge.*"}]
)
def test_a_rule_never_reaches_beyond_the_name_of_its_route(world: World, path: dict[str, str]) -> None:
    world.deploy("big-ge")
    gateway = started(world, route("big", {"match": {"path": path}, "to": "small"}, {"to": "churn"})).gateway
    assert answered_by(gateway, "/v2/models/big-ge/infer") == "big-ge"
    assert answered_by(gateway, "/v2/models/big-ge/infer?x=/v2/models/big/infer") == "big-ge"
    expected = "churn" if path.get("regex") == "-ge.*" else "small"
    assert answered_by(gateway, "/v2/models/big/infer?a=1") == expected


def test_a_route_with_the_name_of_a_deployment_leaves_no_way_around_its_limits(world: World) -> None:
    limits = {"route": {"requests": 1, "per": "1h"}}
    gateway = started(world, route("churn", {"to": "churn"}, limits=limits)).gateway
    assert [gateway.get("/v2/models/churn/infer").status_code for _ in range(3)] == [200, 429, 429]
    assert gateway.get("/v2/models/churn/versions/1/infer").status_code == 404
    assert gateway.get("/v2/models/small/versions/1/infer").status_code == 200
    loaded(world, world.server.delete("Route", "churn"))
    assert gateway.get("/v2/models/churn/versions/1/infer").status_code == 200


def test_a_refused_route_goes_on_as_it_was_with_the_replicas_of_today(world: World) -> None:
    gateway = started(world, route("front", {"to": "churn"})).gateway
    # Envoy takes no path of a socket that long.
    far = [deployment("far", stable="far-00001"), revision("far", 1, [f"unix:/{'x' * 200}"])]
    version = world.server.put(*far, route("front", {"to": "churn", "shadow": [{"deployment": "far"}]}))
    loaded(world, version)

    def refusals() -> list[str]:
        return [str(item.get("route")) for item in world.server.reports[-1]["rejected"] if "route" in item]

    until(lambda: refusals() == ["front"])
    assert answered_by(gateway) == "churn"
    for weight, revisions in ((100, {"churn-00002"}), (0, {"churn-00001"})):
        loaded(world, world.canary("churn", weight))
        answers = [gateway.get("/v2/models/front/infer").json()["revision"] for _ in range(5)]
        assert set(answers) == revisions
    assert refusals() == ["front"]
    loaded(world, world.server.put(route("front", {"to": "small"})))
    until(lambda: refusals() == [])
    assert answered_by(gateway) == "small"


def test_workspaces_have_routes_of_their_own(world: World) -> None:
    world.deploy("churn", "team-a")
    started(world, route("front", {"to": "churn"}, workspace="team-a"))
    seen = world.gateway.get("/ws/team-a/v2/models/front/infer").json()
    assert seen["target"] == "/v2/models/-/infer"
    assert world.gateway.get("/v2/models/front/infer").status_code == 404


def test_callers_are_told_apart_by_their_tokens(world: World) -> None:
    signer = Signer()
    world.server.access = signer.access()
    rules = [
        {"match": {"claims": {"sub": {"prefix": "qa-"}, "role": "predict"}}, "to": "big"},
        split(("churn", 50), ("small", 50), sticky={"claim": "sub"}),
    ]
    gateway = started(world, route("front", *rules)).gateway

    def met(caller: str, **headers: str) -> str:
        token = signer.token(sub=caller)
        return answered_by(gateway, headers={"authorization": f"Bearer {token}", **headers})

    until(lambda: gateway.get("/v2/models/front/infer").status_code == 401)
    assert met("qa-1") == "big"
    for caller in ("alice", "bob", "carol", "dave", "erin", "qa"):
        expected = "small" if place_of("uid-default-route-front", caller) < 5000 else "churn"
        assert met(caller) == met(caller, **{"x-podium-caller": "qa-1"}) == expected
