"""Who a request is from: the header that filters and replicas believe, and what is counted by it, in a real Envoy."""

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from podium.gateway.metrics import MOST_CALLERS, OTHER
from podium.gateway.render.access import CALLER_HEADER, CLAIMS_HEADER
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.documents import World
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration

PATH = "/v2/models/churn/infer"
HEADERS = (
    CALLER_HEADER,
    CLAIMS_HEADER,
    "x-podium-route",
    "x-podium-cascade",
    "x-podium-record",
    "x-podium-shadow",
)
# Servers of CGI's line read `_` as `-`: every mixture of both, and of cases.
MIXED = [
    first.join(("x", second.join(("podium", name.removeprefix("x-podium-")))))
    for name in HEADERS
    for first in "-_"
    for second in "-_"
]
FORGED = [*MIXED, *(name.upper() for name in MIXED), CALLER_HEADER.title()]


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


@pytest.fixture
def counted(server: WireServer) -> Iterator[tuple[Gateway, Signer, str]]:
    """A gateway with metrics, `churn` in two workspaces, and where the metrics are."""
    signer = Signer()
    server.access = signer.access()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gateway = Gateway(server.url, metrics_port=port)
    try:
        world = World(server, gateway)
        world.deploy("churn")
        world.deploy("churn", "team")
        gateway.start_agent()
        server.wait_loaded(server.version, 60)
        yield gateway, signer, f"http://127.0.0.1:{port}/metrics"
    finally:
        gateway.close()


def _counts(url: str) -> Counter[tuple[str, ...]]:
    """(caller, workspace, kind, name, status) -> requests."""
    answer = httpx.get(url, trust_env=False, timeout=20)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    line = re.compile(
        r'podium_gateway_requests_total\{caller="([^"]*)",workspace="([^"]*)",kind="([^"]*)",name="([^"]*)",'
        r'status="([^"]*)"\} (\d+)'
    )
    found: Counter[tuple[str, ...]] = Counter()
    for text in answer.text.splitlines():
        if not text.startswith("#"):
            matched = line.fullmatch(text)
            assert matched is not None, text
            assert matched.groups()[:5] not in found
            found[matched.groups()[:5]] = int(matched[6])
    return found


def _until_counted(url: str, requests: int) -> Counter[tuple[str, ...]]:
    """Envoy counts a request when it is over, which the client may see a little earlier."""
    deadline = time.monotonic() + 60
    while (found := _counts(url)).total() < requests:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_requests_are_counted_by_caller(counted: tuple[Gateway, Signer, str]) -> None:
    gateway, signer, url = counted

    def ask(path: str, times: int, **claims: object) -> None:
        bearer = {"authorization": f"Bearer {signer.token(**claims)}"} if claims else {}
        for _ in range(times):
            gateway.get(path, headers=bearer)

    ask(PATH, 3, sub="ann@example.org")
    ask(f"{PATH}?status=503", 2, sub="ann@example.org")
    ask(f"{PATH}?status=429", 1, sub="ann@example.org")
    ask("/v1/models/churn:predict", 1, sub="ann@example.org")
    ask(f"/ws/team{PATH}", 4, sub="batch", ws=["team"])
    ask(PATH, 2, sub="batch", ws=["team"])
    ask("/v2/models/nobody", 1, sub="batch")
    ask(PATH, 2)
    found = _until_counted(url, 16)
    churn = ("default", "deployment", "churn")
    assert found == Counter(
        {
            ("ann@example.org", *churn, "2xx"): 4,
            ("ann@example.org", *churn, "5xx"): 2,
            ("ann@example.org", *churn, "429"): 1,
            ("batch", "team", "deployment", "churn", "2xx"): 4,
            # Refused, and of whom: a name that the token proved.
            ("batch", *churn, "4xx"): 2,
            ("batch", "", "", "", "4xx"): 1,
            ("", *churn, "4xx"): 2,
        }
    )


def test_callers_without_end_have_no_labels_without_end(counted: tuple[Gateway, Signer, str]) -> None:
    gateway, signer, url = counted
    busy = {"authorization": f"Bearer {signer.token(sub='busy')}"}
    for _ in range(3):
        gateway.get(PATH, headers=busy)
    _until_counted(url, 3)
    for number in range(MOST_CALLERS + 20):
        gateway.get(PATH, headers={"authorization": f"Bearer {signer.token(sub=f'job-{number}')}"})
    total = MOST_CALLERS + 23
    found = _until_counted(url, total)
    assert found.total() == total
    callers = {key[0] for key in found}
    assert len(callers) == MOST_CALLERS + 1
    assert "busy" in callers
    assert sum(count for key, count in found.items() if key[0] == OTHER) == 21
    # Who has a label keeps it, and no count ever goes down.
    for _ in range(5):
        gateway.get(PATH, headers={"authorization": f"Bearer {signer.token(sub='job-late')}"})
    later = _until_counted(url, total + 5)
    assert {key[0] for key in later} == callers
    assert all(later[key] >= count for key, count in found.items())


def test_metrics_are_for_this_machine(counted: tuple[Gateway, Signer, str]) -> None:
    _, _, url = counted
    assert httpx.get(url, headers={"host": "evil.example:80"}, trust_env=False).status_code == 403
    assert httpx.get(url.replace("/metrics", "/"), trust_env=False).status_code == 404
    assert httpx.post(url, trust_env=False).status_code == 404
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"G" * 100_000)
        assert connection.recv(10) == b""
    assert _counts(url) == Counter()
