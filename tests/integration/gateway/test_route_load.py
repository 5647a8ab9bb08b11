"""What comes to each Route, as the agent reports it, against a real Envoy: also what the gateway answers itself."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from podium.gateway.admin import Admin
from podium.gateway.counter_room import CounterRoom
from podium.gateway.load_report import LoadCounters
from podium.gateway.render.clusters import cluster
from podium.gateway.render.counting import BY_ROUTE
from podium.gateway.render.limits import buckets, limited
from podium.resources.load import LoadReport, RouteCount
from podium.resources.traffic import Limits
from tests.integration.gateway.conftest import until
from tests.integration.gateway.one_envoy import OneEnvoy, a_route, arm_of, live, one_envoy
from tests.integration.gateway.upstreams import Reply, Request, upstreams

pytestmark = pytest.mark.integration
LIMITS = Limits.model_validate({"route": {"requests": 3, "per": "1h"}})


def answer(request: Request) -> Reply | None:
    return Reply(int(request.path.rpartition("/")[2]))


@pytest.fixture
def envoy() -> Iterator[OneEnvoy]:
    held = buckets(LIMITS)
    routes = [
        a_route("/front/", live("churn"), name="route:default/front#0"),
        a_route("/gold/", live("churn"), name="route:default/front#gold"),
        a_route("/odd/", live("churn"), name="route:default/What is this?"),
        a_route("/few/", live("churn"), name="route:default/few") | limited(LIMITS, "default", "few"),
        a_route("/churn/", live("churn"), name="deployment:default/churn"),
        {"match": {"prefix": "/shut/"}, "direct_response": {"status": 503}, "name": "route:team/shut"},
    ]
    with upstreams() as made, one_envoy() as envoy:
        yield envoy.start(routes, [cluster(arm_of("churn", made.start("one", answer)))], held=[held])


def send(envoy: OneEnvoy, path: str, *answers: int) -> None:
    for status in answers:
        assert envoy.client.get(f"/{path}/{status}").status_code in (status, 429, 503)


async def settled(envoy: OneEnvoy, requests: int) -> None:
    """Envoy counts a request a moment after its client has the answer."""

    def counted() -> int:
        return sum(envoy.stats(r"^podium\.routes\.requests\.").values())

    await asyncio.to_thread(until, lambda: counted() >= requests, 30)


def play(envoy: OneEnvoy, what: Callable[["Callable[..., Awaitable[LoadReport]]"], Awaitable[None]]) -> None:
    async def run() -> None:
        admin = Admin(envoy.settings.layout.admin_socket)
        counters = LoadCounters(admin)

        async def read(*, delivered: bool = True) -> LoadReport:
            counters._due = 0.0
            document = await counters.read("e1")
            if delivered:
                counters.delivered(document)
            return LoadReport.model_validate(document)

        try:
            await what(read)
        finally:
            await admin.close()

    asyncio.run(run())


def figures(one: RouteCount) -> tuple[str, int, int, int, int]:
    return f"{one.workspace}/{one.route}", one.requests, one.errors, one.refused, one.limited


def test_every_answer_counts_for_its_route_and_nothing_for_who_was_quiet(envoy: OneEnvoy) -> None:
    async def what(read: Any) -> None:
        send(envoy, "front", 200, 500)
        await settled(envoy, 2)
        assert (await read()).routes == [], "what was counted before the first look has no time"
        send(envoy, "front", 200)
        send(envoy, "gold", 429)
        send(envoy, "odd", 200)
        send(envoy, "few", *[200] * 5)
        send(envoy, "shut", 200)
        send(envoy, "churn", 200)
        await settled(envoy, 12)
        report = await read()
        assert [figures(one) for one in report.routes if one.age == 0] == [
            ("default/few", 5, 0, 2, 2), ("default/front", 4, 1, 1, 0), ("team/shut", 1, 1, 0, 0),
        ]  # fmt: skip
        before = [figures(one) for one in report.routes if one.age > 0]
        assert before == [
            ("default/few", 0, 0, 0, 0), ("default/front", 2, 1, 0, 0), ("team/shut", 0, 0, 0, 0),
        ]  # fmt: skip
        assert (await read()).routes == []

    play(envoy, what)


def test_what_was_not_delivered_is_in_the_next_report(envoy: OneEnvoy) -> None:
    async def what(read: Any) -> None:
        await read()
        send(envoy, "front", 200)
        await settled(envoy, 1)
        await read(delivered=False)
        send(envoy, "front", 200)
        await settled(envoy, 2)
        assert [(one.requests, one.age > 0) for one in (await read()).routes] == [(0, True), (2, False)]
        send(envoy, "front", 200)
        await settled(envoy, 3)
        assert [(one.requests, one.age) for one in (await read()).routes] == [(3, 0)], (
            "it was in the last one"
        )

    play(envoy, what)


def test_a_servers_own_statuses_take_no_counters_of_their_own(envoy: OneEnvoy) -> None:
    """Otherwise one server with a thousand of them would use up what all Routes are counted with."""
    statuses = [200, 201, 299, 404, 418, 429, 500, 503, 599, 600, 777, 999]
    for status in statuses:
        assert envoy.client.get(f"/front/{status}").status_code == status
    # With the first of all, which asked whether Envoy is there.
    asyncio.run(settled(envoy, len(statuses) + 1))
    found = envoy.stats(r"^podium\.routes\.requests\..*front")
    by_class = {name.rpartition(".")[2]: count for name, count in found.items()}
    assert by_class == {"2": 3, "4": 2, "429": 1, "5": 3, "6": 3}
    assert len(found) == 5


def test_a_client_that_goes_is_counted(envoy: OneEnvoy) -> None:
    async def what(read: Any) -> None:
        await read()
        with socket.create_connection(("127.0.0.1", envoy.settings.port), timeout=20) as connection:
            connection.sendall(b"POST /front/200 HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nab")
            # Only a request that Envoy has begun is one that ends.
            await asyncio.to_thread(
                until, lambda: envoy.stats(r"^http\.podium\.downstream_rq_active$").get(
                    "http.podium.downstream_rq_active", 0) >= 1, 30,
            )  # fmt: skip
        await settled(envoy, 2)
        assert [figures(one) for one in (await read()).routes if one.age == 0] == [
            ("default/front", 1, 0, 0, 0)
        ]

    play(envoy, what)


def test_a_set_that_is_nearly_full_is_told(envoy: OneEnvoy) -> None:
    async def words(most: int) -> str:
        admin = Admin(envoy.settings.layout.admin_socket)
        try:
            return await CounterRoom(admin, {BY_ROUTE: most}).problem()
        finally:
            await admin.close()

    for status in (200, 404, 429, 500):
        envoy.client.get(f"/front/{status}")
    # And one more for what was no Route's: whether Envoy is there.
    asyncio.run(settled(envoy, 5))
    assert asyncio.run(words(7)) == ""
    told = asyncio.run(words(6))
    assert told.startswith("5 of 6 counters of podium.routes are in use: when all are, ")
    assert "not counted" in told
