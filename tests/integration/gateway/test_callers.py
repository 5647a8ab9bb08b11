"""Who a request is from: the header that filters and replicas believe. A real Envoy says it."""

from collections.abc import Iterator

import pytest

from podium.gateway.render.access import CALLER_HEADER
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.documents import World
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration

PATH = "/v2/models/churn/infer"
FORGED = (CALLER_HEADER, CALLER_HEADER.upper(), CALLER_HEADER.replace("-", "_"), "x-podium-route")


@pytest.fixture
def running(server: WireServer, gateway: Gateway, world: World) -> Iterator[Gateway]:
    gateway.start_agent()
    server.wait_loaded(server.version, 60)
    yield gateway


@pytest.fixture
def signer(server: WireServer) -> Signer:
    """Before `running`: tokens are required from the start."""
    signer = Signer()
    server.access = signer.access()
    return signer


def _seen(gateway: Gateway, path: str, headers: list[tuple[str, str]]) -> dict[str, str]:
    answer = gateway.client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    seen: dict[str, str] = answer.json()["headers"]
    return seen


def test_the_tokens_subject_reaches_the_replica(signer: Signer, running: Gateway) -> None:
    for subject in ("batch-job", "ann@example.org", "x" * 128):
        bearer = ("authorization", f"Bearer {signer.token(sub=subject)}")
        for path in (
            PATH,
            "/v2/models/churn",
            "/v1/models/churn:predict",
            "/v2/models/churn/versions/1/infer",
        ):
            assert _seen(running, path, [bearer])[CALLER_HEADER] == subject
    # Two tokens, two callers, on one kept-alive connection.
    for subject in ("one", "two", "one"):
        bearer = ("authorization", f"Bearer {signer.token(sub=subject)}")
        assert _seen(running, PATH, [bearer])[CALLER_HEADER] == subject


def test_a_clients_own_header_never_survives(signer: Signer, running: Gateway) -> None:
    bearer = ("authorization", f"Bearer {signer.token(sub='me')}")
    for name in FORGED:
        for values in (["admin"], ["admin", "root"], [""]):
            seen = _seen(running, PATH, [bearer, *((name, value) for value in values)])
            assert seen[CALLER_HEADER] == "me"
            assert not {one for one in seen if one.replace("_", "-").startswith("x-podium")} - {CALLER_HEADER}


def test_not_where_no_tokens_are_required_either(running: Gateway) -> None:
    for name in FORGED:
        seen = _seen(running, PATH, [(name, "admin"), (name, "root")])
        assert not {one for one in seen if one.replace("_", "-").startswith("x-podium")}
