"""Connections as a client that does as it likes sees them: in order, within limits, and never left hanging."""

import contextlib
import json
import re
import socket
import time

import numpy as np
import pytest

from runtime.tests.replica import Connection, python_version, running, tensor

SOURCE = """
import os, time
import numpy as np
class Model:
    signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
                 "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}
    def predict(self, inputs):
        x = inputs["x"]
        if (x == 9).any():
            raise ValueError("no nines")
        if (x == 8).any():
            return np.arange(2_000_000, dtype=float)
        if (x == 7).any():
            open(GATE + ".held", "w").close()
            while not os.path.exists(GATE):
                time.sleep(0.002)
        return x * 2
"""
LIMIT = 20_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("connections")


@pytest.fixture(scope="module")
def replica(place):
    source = SOURCE.replace("GATE", repr(str(place / "gate")))
    settings = {"maxBodyBytes": LIMIT, "requestTimeoutSeconds": 2, "batch": {"maxSize": 1}}
    with running(python_version(place, source, **settings).write()) as made:
        yield made


class Wire:
    """A plain socket to a replica."""

    def __init__(self, replica):
        self.connection = Connection(replica.address)
        self.connection.connect()
        self.sock = self.connection.sock
        self.sock.settimeout(30)

    def send(self, *pieces):
        for piece in pieces:
            self.sock.sendall(piece)
        return self

    def until(self, words, count=1):
        got = b""
        while got.count(words) < count:
            piece = self.sock.recv(65536)
            assert piece, f"the connection ended after {got!r}"
            got += piece
        return got

    def to_end(self):
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.sock.recv(65536):
                got += piece
        return got

    def close(self):
        self.connection.close()


@pytest.fixture
def wire(replica):
    made = Wire(replica)
    yield made
    made.close()


def body(*values):
    return json.dumps({"inputs": [tensor(np.array(values, dtype=float), "x")]}).encode()


def post(content, *lines, path=b"/v2/models/churn/infer", version=b"1.1"):
    head = [b"POST %b HTTP/%b" % (path, version), b"host: a", b"content-length: %d" % len(content), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + content


def statuses(got):
    return re.findall(rb"HTTP/1.1 (\d+) ", got)


def test_one_byte_at_a_time(wire):
    for place in range(0, len(request := post(body(1.5)))):
        wire.send(request[place : place + 1])
    assert b'"data":[3.0]' in wire.until(b"]}]}")


def test_pipelined_requests_of_all_kinds_are_answered_in_order(wire):
    get = b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n"
    wire.send((post(body(1)) + get + post(b"{") + get) * 100)
    got = wire.until(b"HTTP/1.1", 400)
    assert statuses(got) == [b"200", b"200", b"400", b"200"] * 100


def test_a_chunked_body_with_trailers(wire):
    content = body(2)
    head = b"POST /v2/models/churn/infer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = b"".join(b"%x;why=not\r\n%b\r\n" % (1, content[at : at + 1]) for at in range(len(content)))
    wire.send(head, pieces, b"0\r\nx-request-id: late\r\n\r\n")
    got = wire.until(b"]}]}")
    assert b"200 OK" in got
    assert b"late" not in got


def test_expect_continue(wire):
    content = body(2)
    head = b"POST /v2/models/churn/infer HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    wire.send(head % len(content))
    assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(content)
    assert b"200 OK" in wire.until(b"]}]}")
    wire.send(head % (LIMIT + 1))
    got = wire.to_end()
    assert got.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in got


def test_an_unknown_expectation(wire):
    wire.send(post(b"", b"expect: a miracle"))
    assert wire.to_end().startswith(b"HTTP/1.1 417")


def test_a_body_too_large_is_refused_at_once_and_the_connection_goes_on(wire):
    content = b" " * (LIMIT + 1)
    request = post(content)
    wire.send(request[:200])
    got = wire.until(b'bytes"}')
    assert got.startswith(b"HTTP/1.1 413")
    wire.send(request[200:], post(body(3)))
    assert b'"data":[6.0]' in wire.until(b"]}]}")


@pytest.mark.parametrize("complete", [True, False])
def test_headers_too_large(wire, complete):
    head = b"POST /v2/models/churn/infer HTTP/1.1\r\nhost: a\r\nx-large: "
    if complete:
        wire.send(head + b"a" * 70_000 + b"\r\n\r\n")
        assert b"HTTP/1.1 431" in wire.until(b"\r\n\r\n")
        return
    wire.send(head)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(100):
            wire.send(b"a" * 10_000)
    assert wire.to_end().startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2/models/churn/infer HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /v2/models/churn/infer HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /v2/models/churn/infer HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v2/models/churn/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\x00c\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_ends_the_connection_only(replica, wire, garbage):
    wire.send(garbage)
    got = wire.to_end()
    assert got.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in got
    assert replica.infer(body(1)).status == 200


def test_garbage_after_a_request_waits_for_that_ones_answer(wire):
    wire.send(post(body(1)) + b"\x00\x00\x00 garbage\r\n\r\n")
    assert statuses(wire.to_end()) == [b"200", b"400"]


@pytest.mark.parametrize(("lines", "version"), [((b"connection: close",), b"1.1"), ((), b"1.0")])
def test_a_client_that_wants_the_connection_closed(wire, lines, version):
    wire.send(post(body(1), *lines, version=version) + post(body(2)))
    got = wire.to_end()
    assert got.count(b"HTTP/1.1") == 1
    assert b"connection: close" in got


def test_http_1_0_with_keep_alive(wire):
    wire.send(post(body(1), b"connection: keep-alive", version=b"1.0"))
    assert b"connection: keep-alive" in wire.until(b"]}]}")
    wire.send(post(body(1), b"connection: keep-alive", version=b"1.0"))
    assert b"200 OK" in wire.until(b"]}]}")


def test_an_upgrade_is_passed_over(wire):
    wire.send(
        b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nPRI * HTTP/2.0"
    )
    got = wire.to_end()
    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(b'{"live":true}')


def test_head_is_get_without_a_body(wire):
    wire.send(
        b"HEAD /v2/models/churn HTTP/1.1\r\nhost: a\r\n\r\nGET /v2/models/churn HTTP/1.1\r\nhost: a\r\n\r\n"
    )
    got = wire.until(b'"properties"')
    head, rest = got.split(b"\r\n\r\n", 1)
    assert rest.startswith(b"HTTP/1.1 200")
    assert head.split(b"content-length: ")[1].split(b"\r\n")[0] in rest


def test_targets_of_other_forms(wire):
    for target in (b"http://other/v2/health/live", b"/v2/health/live?a=b", b"/v2/health/li%76e"):
        wire.send(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % target)
        assert wire.until(b"}").startswith(b"HTTP/1.1 200")
    wire.send(b"PUT /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n")
    got = wire.to_end()
    assert got.startswith(b"HTTP/1.1 405")
    assert b"allow: GET" in got


@pytest.mark.parametrize("sent", [b"POST /v2/models/churn/in", post(b"x" * 50)[:-10]])
def test_a_client_that_never_ends_its_request_is_told_so(replica, wire, sent):
    wire.send(sent)
    # Not at once: the connection is still open when another request has been answered.
    assert replica.infer(body(1)).status == 200
    wire.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.sock.recv(1)
    wire.sock.settimeout(30)
    assert wire.to_end().startswith(b"HTTP/1.1 408")


def test_a_client_that_reads_nothing_is_cut(replica, wire):
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    before = replica.metric("connections")
    wire.send(post(body(8)))
    replica.wait_for(lambda: replica.metric("requests_total", code="200") > 0)
    replica.wait_for(lambda: replica.metric("connections") < before)


def test_a_slow_reader_gets_everything_and_its_next_answer_after_that(wire):
    wire.send(post(body(8)) + post(body(1)))
    got, until = 0, time.monotonic() + 60
    tail = b""
    while b'"data":[2.0]' not in tail and time.monotonic() < until:
        piece = wire.sock.recv(100_000)
        got += len(piece)
        tail = (tail + piece)[-400:]
    assert got > 10_000_000


def test_who_reads_steadily_gets_everything_however_long_it_takes(wire):
    """18 MB in about five seconds, where who takes nothing for two is cut."""
    wire.send(post(body(8), b"connection: close"))
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = wire.until(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    rest = len(head.partition(b"\r\n\r\n")[2])
    started = time.monotonic()
    while piece := wire.sock.recv(65536):
        rest += len(piece)
        while time.monotonic() - started < 5 * rest / length:
            time.sleep(0.005)
    assert rest == length


def test_a_body_in_tiny_chunks_takes_the_memory_of_its_bytes(tmp_path):
    version = python_version(tmp_path, SOURCE, maxBodyBytes=1_000_000, requestTimeoutSeconds=60)
    with running(version.write()) as replica, contextlib.closing(Wire(replica)) as wire:
        head = b"POST /v2/models/churn/infer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        content = body(2)
        before = replica.metric("resident_memory_bytes")
        wire.send(head, b"2\r\n  \r\n" * 400_000)
        # The last piece but one has been read when nothing of it is left in the socket.
        wire.send(b"%x\r\n%b\r\n" % (len(content), content))
        assert replica.metric("resident_memory_bytes") - before < 8e6
        wire.send(b"0\r\n\r\n")
        assert b'"data":[4.0]' in wire.until(b"]}]}")


def test_who_hangs_up_behind_a_running_request_costs_no_prediction(replica, place, wire):
    gate = place / "gate"
    gate.unlink(missing_ok=True)
    held = Wire(replica).send(post(body(7)))
    replica.wait_for((place / "gate.held").exists)
    gone = replica.metric("requests_total", code="499")
    wire.send(post(body(1)))
    replica.wait_for(lambda: replica.metric("queue_length") == 1)
    wire.close()
    replica.wait_for(lambda: replica.metric("requests_total", code="499") == gone + 1)
    calls = replica.metric("predict_seconds_count")
    gate.touch()
    assert b"200 OK" in held.until(b"]}]}")
    held.close()
    assert replica.infer(body(1)).status == 200
    assert replica.metric("predict_seconds_count") == calls + 2


def test_many_pipelined_requests_behind_one_that_runs_are_not_all_read(replica, place, wire):
    gate = place / "gate"
    gate.unlink(missing_ok=True)
    (place / "gate.held").unlink(missing_ok=True)
    wire.send(post(body(7)))
    replica.wait_for((place / "gate.held").exists)
    wire.sock.settimeout(0.5)
    padded = post(body(1) + b" " * 15_000)
    sent = 0
    with contextlib.suppress(TimeoutError):
        for _ in range(400):
            wire.sock.sendall(padded)
            sent += 1
    assert sent < 400
    gate.touch()


def test_the_trace_comes_back_and_into_the_log(replica):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = replica.infer(body(1), {"traceparent": trace, "x-request-id": "r-1"})
    assert (answer.headers["traceparent"], answer.headers["x-request-id"]) == (trace, "r-1")
    for bad in ("x", trace[:-1], trace + "\tsomething"):
        assert "traceparent" not in replica.infer(body(1), {"traceparent": bad}).headers


def test_a_failure_is_logged_with_what_ties_it_to_other_logs(replica):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"traceparent": trace, "x-request-id": 'a"quote'}
    assert replica.infer(body(9), headers).status == 500
    found = [line for line in replica.log_lines() if line.get("request_id") == 'a"quote']
    assert [(line["traceparent"], line["exception"]) for line in found] == [(trace, "ValueError")]


def test_calls_of_grpc_reach_their_own_skin(replica):
    service = "/inference.GRPCInferenceService"
    live = replica.ask("POST", f"{service}/ServerLive", b"", {"grpc-timeout": "100m"})
    assert (live.status, live.body) == (200, b"\x08\x01")
    assert live.headers["content-type"] == "application/x-protobuf"
    unknown = replica.ask("POST", f"{service}/Nothing", b"")
    assert (unknown.status, unknown.headers["x-grpc-status"]) == (404, "12")
    large = replica.ask("POST", f"{service}/ModelInfer", b" " * (LIMIT + 1))
    assert (large.status, large.headers["x-grpc-status"]) == (413, "8")


def test_memory_and_connections_are_in_the_metrics(replica):
    assert 10e6 < replica.metric("resident_memory_bytes", revision="churn-00002") < 10e9
    assert replica.metric("connections") >= 1
