"""The loop against a server at the wire: what is counted is what was answered."""

import socket
import time
from typing import Any

import pytest

from podium.load.generator import TIMEOUT_WORDS, Found, Plan, Run
from podium.load.requests import request_bytes
from podium.load.wire import Place
from tests.unit.load.scripted import CLOSE, HANG, ok, scripted

BODY = b'{"a": 1}'


def measured(port: int, **wish: Any) -> Found:
    requests = wish.pop("requests", [request_bytes("/x", "h", body=BODY)])
    given = {"connections": 1, "seconds": 60.0, "limit": 20} | wish
    return Run(Plan(Place(address="127.0.0.1", port=port), requests, **given)).measure()


def test_exactly_as_many_requests_as_were_allowed_are_asked_and_counted() -> None:
    with scripted() as server:
        found = measured(server.port, limit=50, connections=7)
        assert len(server.requests) == 50
    assert server.connections == 7
    assert (found.statuses, found.failed, found.sent, found.latencies.count) == ({200: 50}, 0, 50, 50)
    assert found.received == 50 * len(ok(0)[0])
    assert set(server.requests) == {request_bytes("/x", "h", body=BODY)}


def test_requests_are_asked_in_turn() -> None:
    wanted = [request_bytes(f"/{number}", "h") for number in range(3)]
    with scripted() as server:
        measured(server.port, requests=wanted, limit=7, first=1)
    assert server.requests == [wanted[(number + 1) % 3] for number in range(7)]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\ncontent", b"-length: 5\r\n\r", b"\nhel", b"lo"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhe\r", b"\n3\r\nllo\r\n0\r\nt: 1\r\n", b"\r\n"],
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
        [b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
    ],
    ids=["length", "in pieces", "chunks", "chunks in pieces with a trailer", "no body", "after an interim answer"],
)  # fmt: skip
def test_every_way_to_end_an_answer_keeps_the_connection(pieces: list[bytes]) -> None:
    def answers(number: int) -> list[bytes]:
        return pieces

    with scripted(answers) as server:
        found = measured(server.port, limit=5)
    assert (sum(found.statuses.values()), found.failed, server.connections) == (5, 0, 1)
    assert found.received == 5 * len(b"".join(pieces))


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n{}"],
    ids=["said so", "up to the end"],
)
@pytest.mark.parametrize("rate", [None, 200.0])
def test_a_server_that_closes_after_each_answer_loses_nothing(answer: bytes, rate: float | None) -> None:
    with scripted(lambda number: [answer, CLOSE]) as server:
        found = measured(server.port, limit=5, rate=rate)
    assert (found.statuses, found.failed, server.connections) == ({200: 5}, 0, 5)


def test_statuses_are_told_apart_and_the_first_of_each_bad_one_is_quoted() -> None:
    bad = b'HTTP/1.1 503 No\r\ncontent-length: 15\r\n\r\n{"error": "no"}'
    with scripted(lambda number: [bad] if number % 4 == 3 else ok(number)) as server:
        found = measured(server.port)
    assert (found.statuses, found.failed, found.samples) == ({200: 15, 503: 5}, 5, {503: '{"error": "no"}'})


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([CLOSE], "the server closed the connection"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", CLOSE], "the server closed the connection"),
        ([b"SMTP ready\r\n\r\n"], "the answer is not HTTP/1.1"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"], "the answer's content-length is no number"),
        (
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
            "the answer's chunks are no chunks",
        ),
        ([b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000], "the answer's head does not end"),
    ],
)
def test_what_is_no_answer_is_a_failed_request_and_the_next_goes_on(pieces: list[bytes], words: str) -> None:
    with scripted(lambda number: pieces if number == 1 else ok(number)) as server:
        found = measured(server.port, limit=4)
    assert (found.statuses, found.errors, found.failed) == ({200: 3}, {words: 1}, 1)


def test_an_answer_that_does_not_come_is_given_up_and_has_taken_that_long() -> None:
    with scripted(lambda number: [HANG] if number == 0 else ok(number)) as server:
        found = measured(server.port, limit=4, timeout=0.3)
    assert (found.statuses, found.errors) == ({200: 3}, {TIMEOUT_WORDS: 1})
    assert found.latencies.most >= 0.3


def test_nobody_there_is_a_failed_request_each_time_without_a_busy_loop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for rate in (None, 100.0):
        found = measured(port, limit=None, seconds=0.5, rate=rate)
        assert set(found.errors) == {"the connection was refused"}
        assert 1 <= found.failed == found.sent <= 20


def test_a_pause_of_the_server_shows_in_an_open_loop_as_long_as_it_was() -> None:
    """Coordinated omission: one answer in a hundred takes half a second, on the only connection; what was due meanwhile
    waited too."""

    def answers(number: int) -> list[bytes]:
        if number == 20:
            time.sleep(0.5)
        return list(ok(number))

    with scripted(answers) as server:
        found = measured(server.port, limit=100, rate=100.0)
    assert found.statuses == {200: 100}
    # Fifty were due in that half second, one every 10 ms: at least every fourth waited 0.2 s or longer.
    assert found.latencies.quantile(0.75) >= 0.2
    assert found.latencies.most >= 0.5


def test_what_was_due_and_never_sent_is_counted_with_the_time_it_waited() -> None:
    def answers(number: int) -> list[bytes]:
        time.sleep(0.2)
        return list(ok(number))

    with scripted(answers) as server:
        found = measured(server.port, limit=None, seconds=1.0, rate=100.0)
    assert found.unsent + found.answered == 100
    assert found.unsent >= 90
    assert found.latencies.count == 100
    assert 0.3 <= found.latencies.quantile(0.5) <= 0.7


def test_random_moments_come_at_the_rate_and_alike_in_every_run() -> None:
    with scripted() as server:
        found = measured(server.port, limit=200, rate=400.0, random=True, connections=20)
        gaps = [b - a for a, b in zip(server.arrivals, server.arrivals[1:], strict=False)]
    assert found.statuses == {200: 200}
    # Exponential gaps vary as much as their mean; even ones do not vary.
    mean = sum(gaps) / len(gaps)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 > 0.5 * mean


def test_what_settles_is_not_counted() -> None:
    with scripted() as server:
        found = measured(server.port, limit=None, seconds=0.3, settle=0.3, rate=100.0)
        assert found.sent == len(server.requests)
    # Sixty were due in all; one may be due at the very end.
    assert 30 <= found.answered + found.unsent <= 31
    assert 60 <= found.sent + found.unsent <= 61


def test_a_run_that_is_stopped_has_what_was_answered() -> None:
    with scripted() as server:
        plan = Plan(Place(address="127.0.0.1", port=server.port), [request_bytes("/", "h")], 3, 3600.0)
        run = Run(plan)
        seen: list[int] = []

        def tick(found: Found) -> None:
            seen.append(found.answered)
            run.stop()

        found = run.measure(tick)
        assert found.answered == len(server.requests) >= seen[0] > 0
    assert found.failed == 0


def test_what_was_found_survives_the_way_between_processes() -> None:
    with scripted(lambda number: [CLOSE] if number == 3 else ok(number)) as server:
        found = measured(server.port)
    twice = Found.parse(found.document())
    assert twice.document() == found.document()
    twice.merge(found)
    assert (twice.answered, twice.failed, twice.latencies.count) == (38, 2, 38)
