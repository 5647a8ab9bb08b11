"""The load that the agent reports, against a real Envoy: what is in it, what is left out, and what it adds up to."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest

from podium.gateway.admin import Admin
from podium.gateway.load_report import LoadCounters
from podium.gateway.render.clusters import cluster
from podium.planning.load import WindowLoad, window_load
from podium.resources.load import LoadReport
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, a_route, arm_of, live, one_envoy
from tests.integration.gateway.upstreams import Reply, Request, Upstream, upstreams

pytestmark = pytest.mark.integration


def answer(request: Request) -> Reply | None:
    last = request.path.rpartition("/")[2]
    return None if last == "hangs" else Reply(int(last), delay=0.02)


@pytest.fixture(scope="module")
def replica() -> Iterator[Upstream]:
    with upstreams() as made:
        yield made.start("one", answer)


@pytest.fixture
def envoy(replica: Upstream) -> Iterator[OneEnvoy]:
    names = ("churn", "quiet", "price")
    with one_envoy() as envoy:
        routes = [a_route(f"/{name}/", live(name)) for name in names]
        yield envoy.start(routes, [cluster(arm_of(name, replica)) for name in names])


@dataclass(frozen=True)
class Row:
    """As the server keeps it."""

    gateway: str
    epoch: str
    revision: str
    role: str
    at: float
    requests: int
    errors: int
    refused: int
    active: int
    time_ms: float
    buckets: list[tuple[float, int]]


class Reader:
    """Reads by a clock of its own, ten seconds apart, however fast the test is."""

    def __init__(self, envoy: OneEnvoy) -> None:
        self.admin = Admin(envoy.settings.layout.admin_socket)
        self.counters = LoadCounters(self.admin)
        self.rows: list[Row] = []
        self.now = 0.0

    async def read(self, epoch: str = "e1", *, delivered: bool = True) -> LoadReport:
        self.counters._due = 0.0
        document = await self.counters.read(epoch)
        assert document is not None
        report = LoadReport.model_validate(document)
        self.now += 10
        if delivered:
            self.counters.delivered(document)
            for one in report.clusters:
                at = self.now - (10 if one.age else 0)
                self.rows.append(
                    Row("g1", report.epoch, one.revision, one.role, at, one.requests, one.errors, one.refused,
                        one.active, one.time_ms, list(one.buckets))
                )  # fmt: skip
        return report

    def window(self, seconds: float, revision: str = "churn-00001") -> WindowLoad:
        rows = [row for row in self.rows if row.revision == revision]
        return window_load(rows, seconds, {"g1": self.now})


def read(envoy: OneEnvoy, play: Callable[[Reader], Awaitable[None]]) -> None:
    async def run() -> None:
        reader = Reader(envoy)
        try:
            await play(reader)
        finally:
            await reader.admin.close()

    asyncio.run(run())


def send(envoy: OneEnvoy, name: str, *answers: int) -> None:
    for status in answers:
        assert envoy.client.get(f"/{name}/{status}").status_code == status


def test_what_happened_between_two_reads_and_nothing_of_who_was_quiet(envoy: OneEnvoy) -> None:
    async def play(reader: Reader) -> None:
        send(envoy, "churn", 200, 200)
        assert (await reader.read()).clusters == [], "what was counted before the first look has no time"
        assert await reader.counters.read("e1") is None, "not again at once"
        send(envoy, "churn", *[200] * 5, 429, 503, 404)
        await reader.read()
        seen = reader.window(10)
        assert (seen.requests, seen.errors, seen.refused) == (8, 1, 1)
        await asyncio.to_thread(until, lambda: _merged(envoy), 30)
        settled = await reader.read()
        assert {one.revision for one in settled.clusters} == {"churn-00001"}, (
            "once more: its histogram came late"
        )
        p50 = reader.window(30).quantile(0.5)
        assert p50 is not None and 0.015 < p50 < 5
        await reader.read()
        assert (await reader.read()).clusters == []

    read(envoy, play)


def _merged(envoy: OneEnvoy) -> bool:
    text = envoy._admin.get(
        "/stats", params={"filter": "churn-00001_live.upstream_rq_time$", "format": "prometheus"}
    ).text
    return any(line.endswith(" 10") and "_count" in line for line in text.splitlines())


def test_who_was_quiet_for_long_comes_with_its_counters_from_before(envoy: OneEnvoy) -> None:
    async def play(reader: Reader) -> None:
        send(envoy, "churn", *[200] * 30)
        for _ in range(4):
            await reader.read()
        reader.rows.clear()
        send(envoy, "churn", 200, 200)
        before, after = (await reader.read()).clusters
        assert (before.requests, after.requests) == (30, 32)
        assert before.age > 0 == after.age
        assert reader.window(10).requests == pytest.approx(2)
        send(envoy, "price", 200)
        first = [one for one in (await reader.read()).clusters if one.deployment == "price"]
        assert [one.requests for one in first] == [0, 1], "its first request ever"

    read(envoy, play)


def test_what_was_not_delivered_is_in_the_next_report(envoy: OneEnvoy) -> None:
    async def play(reader: Reader) -> None:
        await reader.read()
        send(envoy, "churn", 200, 200, 200)
        await reader.read(delivered=False)
        send(envoy, "churn", 200)
        before, after = (await reader.read()).clusters
        assert (before.requests, after.requests) == (0, 4)
        assert (await reader.read("e2")).clusters == [], "another start of Envoy begins anew"

    read(envoy, play)


def test_requests_under_way_are_told_every_time(envoy: OneEnvoy) -> None:
    async def play(reader: Reader) -> None:
        await reader.read()
        with socket.create_connection(("127.0.0.1", envoy.settings.port), timeout=30) as hanging:
            hanging.sendall(b"GET /churn/hangs HTTP/1.1\r\nhost: test\r\n\r\n")
            active = "churn-00001_live.upstream_rq_active$"
            await asyncio.to_thread(until, lambda: 1 in envoy.stats(active).values(), 30)
            for _ in range(3):
                last = (await reader.read()).clusters[-1]
                assert (last.revision, last.active) == ("churn-00001", 1)
        assert reader.window(20).concurrency == pytest.approx(1)

    read(envoy, play)
