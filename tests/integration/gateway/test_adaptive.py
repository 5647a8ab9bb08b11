"""Limits that find their own height: a real Envoy before a replica whose latency grows with load."""

import concurrent.futures
import heapq
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from podium.gateway.render.adaptive import controllers
from podium.gateway.render.clusters import cluster
from podium.gateway.settings import ADAPTIVE
from podium.resources.traffic import Limits
from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, route
from tests.integration.gateway.load import Load
from tests.integration.gateway.one_envoy import OneEnvoy, arm_of, one_envoy
from tests.integration.gateway.planned import rule_route
from tests.integration.gateway.upstreams import Reply, Request, Upstreams, upstreams

pytestmark = pytest.mark.integration
_STATS = "http.podium.adaptive_concurrency.gradient_controller"
# Of the middle, so that a slow moment of the machine is no load.
QUICK: dict[str, Any] = {
    "percentile": 50, "updateInterval": "0.1s", "idleLatencyInterval": "1h", "idleLatencyRequests": 30,
    "minConcurrency": 2, "maxConcurrency": 64,
}  # fmt: skip


@pytest.fixture
def replicas() -> Iterator[Upstreams]:
    with upstreams() as made:
        yield made


@pytest.fixture
def envoy() -> Iterator[OneEnvoy]:
    with one_envoy() as made:
        yield made


class Queueing:
    """A replica that does `places` requests at once, each in `seconds`; the others wait for their turn."""

    def __init__(self, places: int, seconds: float) -> None:
        self.seconds = seconds
        self.places(places)

    def places(self, number: int) -> None:
        self._free = [0.0] * number

    def __call__(self, _: Request) -> Reply:
        now = time.monotonic()
        done = max(now, self._free[0]) + self.seconds
        heapq.heapreplace(self._free, done)
        return Reply(delay=done - now)


@contextmanager
def asking(envoy: OneEnvoy, path: str, callers: int) -> Iterator[Counter[int]]:
    """So many callers that each ask again as soon as they are answered, a moment later where they are turned away.
    What they were answered."""
    over, statuses = threading.Event(), Counter[int]()

    def ask() -> None:
        while not over.is_set():
            status = envoy.client.post(path).status_code
            statuses[status] += 1
            if status == 503:
                over.wait(0.02)

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(ask) for _ in range(callers)]
        try:
            yield statuses
        finally:
            over.set()
            for one in running:
                one.result(60)


def limit_of(made: OneEnvoy | Gateway) -> int:
    """The limit that Envoy has found; 0 while it measures."""
    transport = httpx.HTTPTransport(uds=str(made.settings.layout.admin_socket))
    with httpx.Client(transport=transport, base_url="http://envoy", timeout=30) as admin:
        text = admin.get("/stats", params={"filter": rf"^{_STATS}\."}).text
    stats = dict(line.removeprefix(f"{_STATS}.").split(": ", 1) for line in text.splitlines())
    return 0 if stats.get("min_rtt_calculation_active", "1") == "1" else int(stats["concurrency_limit"])


def adapts(path: str, **wish: Any) -> dict[str, bytes]:
    """What the document says of the Route at a path."""
    return controllers(Limits.model_validate({"adaptive": wish}), "default", path.strip("/"))


def test_a_limit_rises_with_a_replica_that_bears_it_and_falls_with_one_that_does_not(
    envoy: OneEnvoy, replicas: Upstreams
) -> None:
    working = Queueing(64, 0.03)
    model = replicas.start("model", working)
    routes = [rule_route("/adapts", "model", limits={"adaptive": QUICK})]
    envoy.start(routes, [cluster(arm_of("model", model))], adapting=adapts("/adapts", **QUICK))
    with asking(envoy, "/adapts", 24) as statuses:
        until(lambda: limit_of(envoy) >= 24, 60)
        assert statuses[503] > 0, "what was too much while it measured"
        working.places(4)
        until(lambda: 2 < limit_of(envoy) < 16, 60)
        before = statuses[503]
        until(lambda: statuses[503] > before, 60)
        assert set(statuses) == {200, 503}
        working.places(64)
        until(lambda: limit_of(envoy) >= 24, 60)


def test_no_other_change_of_the_routes_begins_anew(envoy: OneEnvoy, replicas: Upstreams) -> None:
    model = replicas.start("model", Queueing(64, 0.03))
    front = rule_route("/adapts", "model", limits={"adaptive": QUICK})
    held, files = adapts("/adapts", **QUICK), [cluster(arm_of("model", model))]
    envoy.start([front], files, adapting=held)

    def answered(number: int) -> None:
        """Another table is in force, and has been for a while."""
        other = {"match": {"path": "/other"}, "direct_response": {"status": 201 + number}}
        envoy.write([other, front], files, adapting=held)
        until(lambda: envoy.client.get("/other").status_code == 201 + number, 60)
        seen = sum(statuses.values())
        until(lambda: sum(statuses.values()) > seen + 60, 60)
        assert limit_of(envoy) >= 24

    with asking(envoy, "/adapts", 12) as statuses:
        until(lambda: limit_of(envoy) >= 24, 60)
        refused = statuses[503]
        for number in range(5):
            answered(number)
        assert statuses[503] == refused
        # Settings of its own: measured anew.
        again = {**QUICK, "minConcurrency": 3}
        envoy.write([front], files, adapting=adapts("/adapts", **again))
        until(lambda: statuses[503] > refused, 60)
        until(lambda: limit_of(envoy) >= 24, 60)


def test_nothing_that_happens_elsewhere_begins_anew(world: World) -> None:
    limits = {"adaptive": QUICK}
    by_header = {"to": "big", "match": {"headers": {"x-big": {"present": True}}}}
    world.deploy("small")
    loading = world.server.put(route("front", {"to": "small"}, limits=limits))
    world.gateway.start_agent()
    gateway = world.gateway
    document = gateway.settings.layout.document(ADAPTIVE)

    def loaded(version: int) -> None:
        until(lambda: any(report["observedVersion"] >= version for report in world.server.reports[-3:]), 60)

    loaded(loading)
    changes: list[Callable[[], int]] = [
        lambda: world.deploy("big"),
        lambda: world.canary("churn", 10),
        lambda: world.deploy("small", number=2),
        lambda: world.server.put(route("more", {"to": "big"})),
        lambda: world.server.put(route("front", by_header, {"to": "small"}, limits=limits)),
        lambda: world.server.delete("Route", "more"),
    ]
    before = document.read_bytes()
    with Load(gateway.port, "/v2/models/front/infer?sleep=0.03", rate=300.0, connections=12) as load:
        until(lambda: limit_of(gateway) >= 24, 60)
        refused = load.statuses["503"]
        for change in changes:
            loaded(change())
            load.wait_more(60, 60)
        gateway.signal_agent(signal.SIGKILL)
        gateway.start_agent()
        loaded(world.server.put(route("more", {"to": "churn"})))
        load.wait_more(60, 60)
        assert limit_of(gateway) >= 24
        assert (document.read_bytes(), load.statuses["503"]) == (before, refused)
        # A second Route with such a limit is what begins them all anew.
        loaded(world.server.put(route("more", {"to": "churn"}, limits=limits)))
        until(lambda: load.statuses["503"] > refused, 60)
        until(lambda: limit_of(gateway) >= 24, 60)
        # Without the limit there is nobody to turn away.
        loaded(world.server.put(route("front", {"to": "small"})))
        refused = load.statuses["503"]
        load.wait_more(60, 60)
        assert load.statuses["503"] == refused


def test_what_is_beyond_the_limit_is_turned_away_at_once(envoy: OneEnvoy, replicas: Upstreams) -> None:
    held = threading.Event()

    def slow(_: Request) -> Reply | None:
        return Reply() if held.is_set() else None

    model = replicas.start("model", slow)
    wish = {"minConcurrency": 2, "maxConcurrency": 2}
    other = rule_route("/alike", "model", limits={"adaptive": wish})
    routes = [rule_route("/adapts", "model", limits={"adaptive": wish}, timeout=5.0), other]
    both = adapts("/adapts", **wish) | adapts("/alike", **wish)
    envoy.start(routes, [cluster(arm_of("model", model))], adapting=both)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(lambda: envoy.client.post("/adapts").status_code) for _ in range(2)]
        until(lambda: len(model.got) == 2, 60)
        refused = envoy.client.post("/adapts")
        assert refused.status_code == 503
        assert refused.json()["detail"] == "the route's adaptive limit of concurrency is reached"
        held.set()
        assert envoy.client.post("/alike").status_code == 200, "a limit of its own"
        assert [one.result(60) for one in waiting] == [504] * 2
    until(lambda: envoy.client.post("/adapts").status_code == 200, 60)
