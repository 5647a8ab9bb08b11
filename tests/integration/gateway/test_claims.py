"""Claims that a person has put into a token, in a real Envoy: rules match on them, users are told apart by them."""

import datetime
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from podium.api.tokens import TokenAuthority
from podium.gateway.render.access import CALLER_HEADER, CLAIMS_HEADER
from podium.planning.route_test import tell
from podium.planning.routes import plan_published
from podium.planning.sticky import place_of
from podium.resources.kinds import KINDS
from podium.resources.route_test import RouteTestRequest
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.documents import World, route
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.wire_server import WireServer
from tests.unit.planning.test_routes import entry

pytestmark = pytest.mark.integration

PATH = "/v2/models/front/infer"
STICKY = {"to": [{"deployment": "churn", "weight": 50}, {"deployment": "small", "weight": 50}]}
DOCUMENT = route(
    "front",
    {"name": "gold", "match": {"claims": {"tier": "gold", "role": "predict"}}, "to": "big"},
    {"name": "labs", "match": {"claims": {"team": {"regex": "lab-[0-9]+"}}}, "to": "small"},
    {"name": "anonymous", "match": {"claims": {"user": {"present": False}}}, "to": "churn"},
    {"name": "users", **STICKY, "sticky": {"claim": "user"}},
)
HOSTILE = ("a=b", "user=u-1", "\\\\1", "%REQ(authorization)%", '"a",b', "${x}", "(.*)", "../..", "~" * 128)


class Caller:
    """Tokens as the server issues them."""

    def __init__(self, server: WireServer) -> None:
        self._authority = TokenAuthority(Signer().key)
        server.access = {
            "jwks": self._authority.jwks(), "issuer": "podium", "tokensRequired": True, "revoked": [], "version": 1,
        }  # fmt: skip

    def bearer(self, **claims: str) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC)
        token, _ = self._authority.issue(
            "app", "predict", ("default",), datetime.timedelta(minutes=10), now, None, claims
        )
        return {"authorization": f"Bearer {token}"}


@pytest.fixture
def running(server: WireServer, gateway: Gateway, world: World) -> Iterator[tuple[Gateway, Caller]]:
    """Deployments churn, small and big, the Route `front`, and a gateway that has all of it."""
    caller = Caller(server)
    for name in ("small", "big"):
        world.deploy(name)
    version = server.put(DOCUMENT)
    gateway.start_agent()
    server.wait_loaded(version, 60)
    yield gateway, caller


def told(claims: dict[str, str]) -> set[str]:
    """Who may answer, by `podium route test`."""
    entries = {name: entry(name, 100) for name in ("churn", "small", "big")}
    plan = plan_published(KINDS["Route"].parse(DOCUMENT), entries)
    claims = {"sub": "app", "role": "predict", **claims}
    return {one.deployment for one in tell(plan, RouteTestRequest(claims=claims)).answering}


def answered(gateway: Gateway, headers: dict[str, str], path: str = PATH) -> dict[str, Any]:
    response = gateway.get(path, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return {**found, "deployment": found["revision"].rpartition("-")[0]}


def test_rules_match_on_claims_and_route_test_says_the_same(running: tuple[Gateway, Caller]) -> None:
    gateway, caller = running
    cases = [
        ({"tier": "gold"}, "big"), ({"tier": "gold", "team": "lab-1"}, "big"), ({"tier": "golden"}, "churn"),
        ({"team": "lab-17"}, "small"), ({"team": "lab-"}, "churn"),
        ({"team": "x=lab-1", "a": "b"}, "churn"), ({}, "churn"),
    ]  # fmt: skip
    for claims, expected in cases:
        assert answered(gateway, caller.bearer(**claims))["deployment"] == expected, claims
        assert told(claims) == {expected}, claims


def test_users_are_told_apart_by_a_claim_whatever_is_in_it(running: tuple[Gateway, Caller]) -> None:
    gateway, caller = running
    users = [f"u-{number}" for number in range(60)] + list(HOSTILE)
    met = Counter[str]()
    for user in users:
        # Other claims around it change nothing, nor does one whose value looks like it.
        for more in ({}, {"a": "user=other", "zone": "user=else"}):
            expected = "small" if place_of("uid-default-route-front", user) < 5000 else "churn"
            seen = answered(gateway, caller.bearer(user=user, **more))
            assert seen["deployment"] == expected, (user, more)
            assert told({"user": user, **more}) == {expected}
            assert seen["headers"][CALLER_HEADER] == "app"
            assert f"user={user}" in seen["headers"][CLAIMS_HEADER].split(";")
        met[expected] += 1
    assert min(met.values()) > 10


def test_a_client_cannot_say_claims_by_itself(running: tuple[Gateway, Caller]) -> None:
    gateway, caller = running
    for name in (CLAIMS_HEADER, CLAIMS_HEADER.upper(), CLAIMS_HEADER.replace("-", "_")):
        forged = {name: "tier=gold;team=lab-1;user=u-1"}
        seen = answered(gateway, caller.bearer() | forged)
        assert seen["deployment"] == "churn"
        assert not {one for one in seen["headers"] if "claims" in one}
        # Nor its key: that of the token counts.
        user = next(f"u-{number}" for number in range(99) if told({"user": f"u-{number}"}) == {"small"})
        other = next(f"u-{number}" for number in range(99) if told({"user": f"u-{number}"}) == {"churn"})
        assert answered(gateway, caller.bearer(user=user) | {name: f"user={other}"})["deployment"] == "small"


def test_where_no_token_is_asked_for_nobody_has_claims(
    gateway: Gateway, server: WireServer, world: World
) -> None:
    for name in ("small", "big"):
        world.deploy(name)
    version = server.put(DOCUMENT)
    gateway.start_agent()
    server.wait_loaded(version, 60)
    assert answered(gateway, {CLAIMS_HEADER: "tier=gold;user=u-1"})["deployment"] == "churn"
