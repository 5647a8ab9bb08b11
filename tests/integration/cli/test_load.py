"""`podium load`: what is asked on the wire, what is told of it, and whom it does not ask."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.api.server import ApiServer
from tests.integration.certificates import Authority
from tests.integration.cli.conftest import Podium
from tests.unit.load.scripted import Scripted, scripted

METADATA = {"name": "churn", "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 3]}]}


def said(status: int, document: object) -> bytes:
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def gateway(podium: Podium, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """Knows a model; every fifth prediction is answered with 503."""

    def answers(number: int) -> Sequence[bytes]:
        if server.requests[number].startswith(b"GET /v2/models/churn HTTP"):
            return [said(200, METADATA)]
        asked = sum(request.startswith(b"POST") for request in server.requests[: number + 1])
        return [said(503, {"error": "busy"}) if asked % 5 == 0 else said(200, {"outputs": []})]

    with scripted(answers) as server:
        monkeypatch.setenv("PODIUM_GATEWAY_URL", f"http://127.0.0.1:{server.port}")
        yield server


def posts(gateway: Scripted) -> list[bytes]:
    return [request for request in gateway.requests if request.startswith(b"POST")]


def test_a_deployment_is_asked_with_inputs_that_it_takes(
    podium: Podium, server: ApiServer, gateway: Scripted
) -> None:
    told = podium("load", "churn", "-n", "40", "-c", "2", "--duration", "60s", "-o", "json").json()
    assert told["target"] == f"http://127.0.0.1:{gateway.port}/v2/models/churn/infer"
    assert told["requests"] == {"sent": 40, "answered": 40, "failed": 8, "unsent": 0}
    assert (told["statuses"], told["classes"]) == ({"200": 32, "503": 8}, {"2xx": 32, "5xx": 8})
    assert (told["errors"], told["samples"]) == ({}, {"503": '{"error": "busy"}'})
    latency = told["latency"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"]
    assert sum(bar["count"] for bar in told["histogram"]) == 40
    assert told["requestsPerSecond"] == pytest.approx(40 / told["seconds"])
    assert (told["connections"], told["rate"], told["processes"], told["interrupted"]) == (2, None, 1, False)
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in posts(gateway)]
    assert all(body["inputs"][0]["shape"] == [1, 3] for body in bodies)
    assert len({json.dumps(body) for body in bodies}) > 30
    assert all(
        f"authorization: Bearer {server.admin_token}".encode() in request for request in posts(gateway)
    )


def test_for_people(podium: Podium, gateway: Scripted) -> None:
    out = podium("load", "churn", "-n", "40").out
    assert "8 connections" in out
    assert "40 answers, " in out
    assert "p99.9 " in out
    assert out.count("#") > 40
    assert "statuses  200: 32  503: 8" in out
    assert '503       {"error": "busy"}' in out


def test_failures_decide_the_exit_code_where_one_says_so(podium: Podium, gateway: Scripted) -> None:
    podium("load", "churn", "-n", "4", "-c", "1", "--fail-on-error")
    podium("load", "churn", "-n", "40", "--fail-on-error", code=1)
    podium("load", "http://127.0.0.1:9", "-n", "3", "--fail-on-error", code=1)
    assert "3 x the connection was refused" in podium("load", "http://127.0.0.1:9", "-n", "3").out


def test_inputs_bodies_and_headers(podium: Podium, gateway: Scripted, tmp_path: Path) -> None:
    one = ("-n", "1", "-c", "1")
    podium("load", "churn", "--input", "[[1, 2, null]]", "-H", "x-user: a: b", *one)
    (tmp_path / "in.json").write_text('{"x": [[4, 5, 6]]}')
    podium("load", "churn", "--input", "@in.json", *one)
    (tmp_path / "raw").write_bytes(b"\x00\xffraw")
    podium("load", "churn", "--body", "raw", "-H", "content-type: application/octet-stream", *one)
    first, second, third = posts(gateway)
    assert b"x-user: a: b\r\n" in first
    assert json.loads(first.partition(b"\r\n\r\n")[2])["inputs"][0]["data"] == [1, 2, None]
    assert json.loads(second.partition(b"\r\n\r\n")[2])["inputs"][0]["data"] == [4, 5, 6]
    assert b"content-type: application/octet-stream\r\n" in third
    assert third.endswith(b"content-length: 5\r\n\r\n\x00\xffraw")


def test_the_token_goes_to_the_gateway_and_to_nobody_else(
    podium: Podium, server: ApiServer, gateway: Scripted
) -> None:
    token = f"authorization: Bearer {server.admin_token}".encode()
    podium("load", f"http://127.0.0.1:{gateway.port}/v2/x", "-n", "2")
    with scripted() as other:
        podium("load", f"http://127.0.0.1:{other.port}/v2/x", "-n", "2")
        podium("load", f"http://localhost:{other.port}/v2/y?a=1", "-n", "1", "-H", "Authorization: mine")
    assert all(token in request for request in gateway.requests)
    assert not any(token in request for request in other.requests)
    assert [request.split(b" HTTP")[0] for request in other.requests] == [
        b"GET /v2/x",
        b"GET /v2/x",
        b"GET /v2/y?a=1",
    ]
    assert b"Authorization: mine" in other.requests[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://192.0.2.1/x"], "192.0.2.1 (192.0.2.1) is not this machine"),
        (["http://192.0.2.1/x"], "--i-own-this-host"),
        (
            ["http://127.0.0.1:9", "-d", "2h"],
            "--duration: expected 0.001 to 3,600 s with --warm-up, got 7200",
        ),
        (["http://127.0.0.1:9", "-c", "10001"], "--connections: expected 1 to 10,000, got 10001"),
        (["http://127.0.0.1:9", "-c", "0"], "--connections"),
        (["http://127.0.0.1:9", "-n", "100000000"], "--requests: expected 1 to 50,000,000"),
        (["http://127.0.0.1:9", "--rate", "0"], "--rate"),
        (["http://127.0.0.1:9", "--rate", "nan"], "--rate"),
        (["http://127.0.0.1:9", "-H", "nothing"], "--header: expected NAME: VALUE"),
        (["http://127.0.0.1:9", "-H", "content-length: 4"], "--header: the header content-length is set"),
        (["http://127.0.0.1:9", "--body", "none"], "none: No such file"),
        (["http://127.0.0.1:9", "--method", "HEAD"], "--method"),
        (["https://127.0.0.1:9", "--ca", "none.pem"], "none.pem: No such file or directory"),
        (["churn", "--input", "{"], "--input: expected JSON"),
        (["churn", "--input", "{}"], "--input: expected an object of tensors"),
        (["churn", "--input", "[[1], [1, 2]]"], "--input: row 2: expected 1 values"),
    ],
)
def test_what_is_wrong_or_not_allowed_is_named(
    podium: Podium, gateway: Scripted, arguments: list[str], words: str
) -> None:
    assert words in podium("load", *arguments, code=1).err
    assert posts(gateway) == []


def test_ctrl_c_tells_what_there_is(tmp_path: Path) -> None:
    with scripted() as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "podium.cli", "load", f"http://127.0.0.1:{server.port}/", "-d", "1h", "-o", "json"],
            stdout=subprocess.PIPE, env=os.environ | {"PODIUM_HOME": str(tmp_path)},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while len(server.requests) < 50:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        told = json.loads(out)
        assert told["interrupted"] is True
        assert told["requests"]["answered"] == len(server.requests) >= 50
    assert process.returncode == 130


@contextlib.contextmanager
def secured(authority: Authority, name: str = "localhost", *, clients: bool = False) -> Iterator[Scripted]:
    """With a certificate of that authority; `clients`: wants one of them, too."""
    files = authority.issue(names=(name,)).write(authority.folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    with scripted(tls=context) as server:
        yield server


def test_who_is_trusted_over_tls_as_by_every_command(
    podium: Podium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "certificates").mkdir()
    authority = Authority(tmp_path / "certificates")
    few = ("-n", "4", "-c", "2")
    with secured(authority) as server:
        url = f"https://localhost:{server.port}/x"
        for named in ("--ca", "--ca-file"):
            assert "4 answers" in podium("load", url, *few, named, str(authority.file)).out
        with monkeypatch.context() as patch:
            patch.setenv("PODIUM_CA_FILE", str(authority.file))
            assert "4 answers" in podium("load", url, *few).out
        asked = len(server.requests)
        stranger = podium("load", url, *few, "--fail-on-error", code=1).out
        assert "4 x the certificate is not trusted: " in stranger
        assert "next      --ca FILE names who signed it" in stranger
        assert len(server.requests) == asked
    # The gateway of this home's `podium up` is known by its certificate, whatever names are in it; nobody else is.
    with secured(authority, "models.example.org") as server:
        url = f"https://127.0.0.1:{server.port}"
        other = podium("load", f"{url}/x", *few, "--ca", str(authority.file)).out
        assert "4 x the certificate is not trusted: IP address mismatch" in other
        known = {"gateway": url, "certificates": {"gateway": str(authority.folder / "tls.crt")}}
        home = Path(os.environ["PODIUM_HOME"])
        home.mkdir(exist_ok=True)
        (home / "connection.json").write_text(json.dumps(known))
        assert "4 answers" in podium("load", f"{url}/x", *few).out
        assert "not trusted" in podium("load", f"https://localhost:{server.port}/x", *few).out


def test_a_certificate_of_ones_own(podium: Podium, tmp_path: Path) -> None:
    (tmp_path / "certificates").mkdir()
    (tmp_path / "mine").mkdir()
    authority = Authority(tmp_path / "certificates")
    mine = authority.issue(names=("client",)).write(tmp_path / "mine")
    both = tmp_path / "both.pem"
    both.write_bytes(mine.chain.read_bytes() + mine.key.read_bytes())
    with secured(authority, clients=True) as server:
        url, few = f"https://localhost:{server.port}/", ("-n", "4", "-c", "2", "--ca", str(authority.file))
        pair = ("--client-cert", str(mine.chain), "--client-key", str(mine.key))
        assert "4 answers" in podium("load", url, *few, *pair).out
        assert "4 answers" in podium("load", url, *few, "--client-cert", str(both)).out
        without = podium("load", url, *few).out
        assert "x the server wants a certificate of its client" in without
        assert "next      --client-cert FILE" in without
        another = ("--client-cert", str(mine.chain), "--client-key", str(authority.folder / "tls.key"))
        for arguments, words in (
            (another, "--client-cert: "),
            (another, "its private key is another one's"),
            (pair[2:], "--client-key: expected --client-cert with it"),
            (("--client-cert", str(authority.file)), "is no certificate with its key"),
            (("--client-cert", "none.pem"), "none.pem: No such file or directory"),
            (("--ca", str(mine.key)), "mine/tls.key: holds no certificate in PEM"),
        ):
            assert words in podium("load", url, *few, *arguments, code=1).err
