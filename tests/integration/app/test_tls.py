"""The API over TLS: uvicorn with a context whose certificate is renewed while connections are open."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509

from podium.app.tls import RenewedContext
from podium.gateway.settings import GatewaySettings
from podium.gateway.trust import trust_of
from podium.resources.errors import InvalidInput, Refused
from tests.integration.certificates import Authority, put

pytestmark = pytest.mark.integration


def until(what: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not in {seconds} s"
        time.sleep(0.02)


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Served:
    """A server with TLS on a free port."""

    def __init__(self, folder: Path, renewing: RenewedContext) -> None:
        self.renewing = renewing
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        config = uvicorn.Config(
            application, log_config=None, lifespan="off", timeout_keep_alive=120,
            ssl_context_factory=lambda *_: renewing.context,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True
        )

    def connection(self, context: ssl.SSLContext) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, timeout=20, context=context)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def served(tmp_path: Path, authority: Authority) -> Iterator[Served]:
    (tmp_path / "run").mkdir(mode=0o700)
    made = Served(tmp_path, RenewedContext(authority.issue().write(tmp_path), tmp_path / "run"))
    made.renewing.start()
    made.thread.start()
    try:
        until(lambda: made.server.started)
        yield made
    finally:
        made.renewing.stop()
        made.server.should_exit = made.server.force_exit = True
        made.thread.join(20)
        made.listener.close()


def client_of(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


def asked(connection: http.client.HTTPSConnection) -> int:
    """The serial number of the certificate of the connection that answered."""
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    found = connection.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
    return x509.load_der_x509_certificate(found).serial_number


def fresh(served: Served, authority: Authority) -> int:
    with contextlib.closing(served.connection(client_of(authority))) as connection:
        return asked(connection)


def test_renewed_while_connections_are_open(served: Served, authority: Authority, tmp_path: Path) -> None:
    kept = served.connection(client_of(authority))
    first = asked(kept)
    port = kept.sock.getsockname()
    failures: list[BaseException] = []
    seen: set[int] = set()
    ended = threading.Event()

    def ask_again_and_again() -> None:
        while not ended.is_set():
            try:
                seen.add(fresh(served, authority))
            except BaseException as error:
                failures.append(error)

    askers = [threading.Thread(target=ask_again_and_again) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(3):
            new = authority.issue()
            new.write(tmp_path)
            until(lambda new=new: new.serial in seen)
    finally:
        ended.set()
        for asker in askers:
            asker.join(60)
    assert not failures, failures[:2]
    assert len(seen) == 4
    assert asked(kept) == first
    assert kept.sock.getsockname() == port
    kept.close()
    # What was on disk for a moment is there no more.
    assert not list((tmp_path / "run").iterdir())


def test_a_bad_certificate_changes_nothing(
    served: Served, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serial = fresh(served, authority)
    for name, content, words in (
        ("tls.crt", b"garbage", "in PEM"),
        ("tls.key", authority.issue().key, "not the key"),
        ("tls.key", b"-----BEGIN PRIVATE KEY-----\nMIG", "in PEM"),
    ):
        put(tmp_path / name, content)
        until(lambda words=words: any(words in record.message for record in caplog.records))
        assert fresh(served, authority) == serial
        caplog.clear()
        good = authority.issue()
        good.write(tmp_path)
        until(lambda new=good: fresh(served, authority) == new.serial)
        serial = good.serial


def test_no_start_with_a_bad_one(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue().write(tmp_path)
    put(files.key, authority.issue().key)
    with pytest.raises(Refused, match="not the key"):
        RenewedContext(files, tmp_path)


@pytest.mark.filterwarnings("ignore:.*TLSv1_1:DeprecationWarning")
def test_no_old_protocol(served: Served, authority: Authority) -> None:
    old = client_of(authority)
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        contextlib.closing(served.connection(old)) as connection,
    ):
        connection.connect()


def test_whom_an_agent_trusts(served: Served, authority: Authority, tmp_path: Path) -> None:
    """This machine's own API by its very certificate, whatever its names; another one by who signed it."""

    def settings(**more: Any) -> GatewaySettings:
        return GatewaySettings(home=tmp_path, name="g", server_url=f"https://127.0.0.1:{served.port}", **more)

    def reaches(context: ssl.SSLContext) -> bool:
        with contextlib.closing(served.connection(context)) as connection:
            try:
                connection.connect()
            except ssl.SSLCertVerificationError:
                return False
            return True

    elsewhere = authority.issue(names=("models.example.org",))
    elsewhere.write(tmp_path)
    until(lambda: reaches_serial(served, elsewhere.serial))
    own = trust_of(settings(server_certificate=tmp_path / "tls.crt"))
    signed = trust_of(settings(server_ca=authority.file))
    assert own is not None
    assert signed is not None
    assert reaches(own.context)
    assert not reaches(signed.context), "its names are others"
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    other = trust_of(settings(server_certificate=Authority(stranger).issue().write(stranger).chain))
    assert other is not None
    assert not reaches(other.context)
    # Renewed: known after the next look, while the one before is still taken.
    renewed = authority.issue()
    renewed.write(tmp_path)
    own.renew()
    assert reaches(own.context)
    until(lambda: reaches_serial(served, renewed.serial))
    assert reaches(own.context)
    assert reaches(signed.context)
    assert trust_of(settings()) is None
    with pytest.raises(InvalidInput, match=r"server_ca: .*nowhere"):
        trust_of(settings(server_ca=tmp_path / "nowhere"))


def reaches_serial(served: Served, serial: int) -> bool:
    """Whether new connections get this certificate, whoever it is for."""
    found = ssl.get_server_certificate(("127.0.0.1", served.port), timeout=20)
    return x509.load_pem_x509_certificate(found.encode()).serial_number == serial
