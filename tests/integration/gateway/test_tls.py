"""TLS at the gateway: who may connect how, and certificates that are renewed while requests run. A real Envoy."""

import datetime
import http.client
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from podium.gateway.certificates import read_certificate
from podium.gateway.settings import CertificateFiles
from podium.resources.errors import Refused
from tests.integration.certificates import DAY, Authority, put
from tests.integration.gateway.client_environment import Driver, client_python
from tests.integration.gateway.conftest import HERE, Gateway, until
from tests.integration.gateway.documents import World
from tests.integration.gateway.load import Load
from tests.integration.gateway.test_grpc import Site, X, to
from tests.integration.gateway.wire_server import WireServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PATH = "/v2/models/churn/infer"


class Secured:
    """A gateway with TLS, one Deployment `churn`, and the files of its certificate."""

    def __init__(self, folder: Path, server: WireServer) -> None:
        self.folder, self.server = folder, server
        self.authority = Authority(folder)
        self.issued = self.authority.issue()
        self.files = self.issued.write(folder)
        self.gateway = Gateway(server.url, certificate=self.files)
        self.world = World(server, self.gateway)

    def start(self) -> None:
        self.world.deploy("churn", replicas=2)
        self.gateway.start_agent()
        self.server.wait_loaded(self.server.version, 60)

    def context(self, *protocols: str) -> ssl.SSLContext:
        """A client's, which trusts the authority and nobody else."""
        made = ssl.create_default_context(cafile=self.authority.file)
        if protocols:
            made.set_alpn_protocols(list(protocols))
        return made

    def connect(self, *protocols: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=20)
        return (context or self.context(*protocols)).wrap_socket(plain, server_hostname="localhost")

    def serial(self) -> int:
        """Of the certificate that a new connection gets."""
        with self.connect() as connection:
            found = connection.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found).serial_number

    def problem(self) -> str:
        with self.server._lock:
            return str(self.server.reports[-1]["envoy"]["problem"]) if self.server.reports else ""


@pytest.fixture
def secured(tmp_path: Path, server: WireServer) -> Iterator[Secured]:
    made = Secured(tmp_path, server)
    yield made
    made.gateway.close()


@pytest.mark.filterwarnings("ignore:.*TLSv1_1:DeprecationWarning")
def test_both_protocols_and_no_old_ones(secured: Secured) -> None:
    secured.start()
    for offered, taken in (
        (("h2",), "h2"),
        (("http/1.1",), "http/1.1"),
        (("http/1.1", "h2"), "h2"),
        ((), None),
    ):
        with secured.connect(*offered) as connection:
            assert connection.selected_alpn_protocol() == taken
            assert connection.version() == "TLSv1.3"
    connection = http.client.HTTPSConnection(
        "localhost", secured.gateway.port, timeout=20, context=secured.context()
    )
    connection.request("GET", PATH)
    answer = json.loads(connection.getresponse().read())
    assert answer["headers"]["x-forwarded-proto"] == "https"
    connection.close()
    older = secured.context()
    older.set_ciphers("DEFAULT@SECLEVEL=0")
    older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_2
    with secured.connect(context=older) as connected:
        assert connected.version() == "TLSv1.2"
    older.minimum_version = ssl.TLSVersion.TLSv1_1
    older.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        secured.connect(context=older)
    # Without TLS nothing is said at all.
    with socket.create_connection(("127.0.0.1", secured.gateway.port), timeout=20) as plain:
        plain.sendall(f"GET {PATH} HTTP/1.1\r\nhost: g\r\n\r\n".encode())
        assert b"HTTP/1.1 200" not in _rest(plain)


def _rest(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b""


def test_renewed_under_load(secured: Secured) -> None:
    """No request fails, open connections stay open, new ones get the new certificate."""
    secured.start()
    assert secured.serial() == secured.issued.serial
    kept = [
        http.client.HTTPSConnection("localhost", secured.gateway.port, timeout=20, context=secured.context())
        for _ in range(5)
    ]
    for connection in kept:
        connection.request("GET", PATH)
        assert connection.getresponse().read()
    ports = [connection.sock.getsockname() for connection in kept]
    with Load(secured.gateway.port, rate=200, tls=secured.context()) as load:
        load.wait_more(100, 60)
        for _ in range(3):
            renewed = secured.authority.issue()
            renewed.write(secured.folder)
            until(lambda new=renewed: secured.serial() == new.serial, seconds=60)
            load.wait_more(100, 60)
    assert not load.failures, load.failures[:3]
    for connection, port in zip(kept, ports, strict=True):
        connection.request("GET", PATH)
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (200, True)
        assert connection.sock.getsockname() == port
        old = x509.load_der_x509_certificate(connection.sock.getpeercert(binary_form=True))
        assert old.serial_number == secured.issued.serial
        connection.close()


@pytest.mark.timeout(300)
def test_grpc_over_tls(tmp_path: Path, server: WireServer) -> None:
    """Triton's own client, which takes HTTP/2 by ALPN only, to a real replica; also over a renewal."""
    authority = Authority(tmp_path)
    gateway = Gateway(server.url, certificate=authority.issue().write(tmp_path))
    site = Site(tmp_path, server, gateway)
    driver = Driver(client_python("clients-tritonclient"), HERE / "triton_driver.py")
    try:
        site.deploy("churn")
        gateway.start_agent()
        server.wait_loaded(server.version, 60)
        url = f"localhost:{gateway.port}"
        driver("trust", url=url, ca=str(authority.file))

        def infer() -> None:
            answer = driver("infer", url=url, name="churn", inputs=[X], headers=to("churn"))
            assert answer["outputs"]["x"]["data"] == X["data"]

        assert driver("live", url=url, headers=to("churn")) == {"live": True}
        infer()
        version = gateway.settings.layout.document("certificates").read_bytes()
        authority.issue().write(tmp_path)
        until(lambda: gateway.settings.layout.document("certificates").read_bytes() != version, seconds=60)
        infer()
    finally:
        driver.close()
        gateway.close()
        site.close()


def _half(authority: Authority, files: CertificateFiles) -> None:
    put(files.chain, files.chain.read_bytes()[:300])


def _garbage(authority: Authority, files: CertificateFiles) -> None:
    put(files.chain, b"\x00garbage" * 50)


def _empty(authority: Authority, files: CertificateFiles) -> None:
    put(files.key, b"")


def _another_key(authority: Authority, files: CertificateFiles) -> None:
    put(files.key, authority.issue().key)


def _over(authority: Authority, files: CertificateFiles) -> None:
    authority.issue(-DAY).write(files.chain.parent)


def _gone(authority: Authority, files: CertificateFiles) -> None:
    files.key.unlink()


def _open_to_all(authority: Authority, files: CertificateFiles) -> None:
    authority.issue().write(files.chain.parent)
    files.key.chmod(0o644)


def _small_rsa(authority: Authority, files: CertificateFiles) -> None:
    _key(files, rsa.generate_private_key(public_exponent=65537, key_size=1024))


def _unusual(authority: Authority, files: CertificateFiles) -> None:
    _key(files, ed25519.Ed25519PrivateKey.generate())


def _key(files: CertificateFiles, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
    no = serialization.NoEncryption()
    put(files.key, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no))


BAD: list[tuple[Callable[[Authority, CertificateFiles], None], str]] = [
    (_half, "expected certificates in PEM"),
    (_garbage, "expected certificates in PEM"),
    (_empty, "expected a private key in PEM"),
    (_another_key, "not the key of the certificate"),
    (_over, "expired"),
    (_gone, "cannot be read"),
    (_open_to_all, "by everybody"),
    (_small_rsa, "at least 2048 bits"),
    (_unusual, "RSA or an ECDSA key"),
]


def test_a_bad_certificate_is_refused_and_the_old_one_stays(secured: Secured) -> None:
    secured.start()
    serial = secured.issued.serial
    for spoil, words in BAD:
        spoil(secured.authority, secured.files)
        with pytest.raises(Refused, match=words):
            read_certificate(secured.files, datetime.datetime.now(datetime.UTC))
        report = secured.server.wait_report(
            lambda report, words=words: words in report["envoy"]["problem"], 60
        )
        assert "the certificate in force stays" in report["envoy"]["problem"]
        assert secured.serial() == serial
        good = secured.authority.issue()
        good.write(secured.folder)
        until(lambda new=good: secured.serial() == new.serial, seconds=60)
        until(lambda: secured.problem() == "", seconds=60)
        serial = good.serial
    # Back to what is in force: there is nothing wrong then.
    _garbage(secured.authority, secured.files)
    secured.server.wait_report(lambda report: "in PEM" in report["envoy"]["problem"], 60)
    good.write(secured.folder)
    until(lambda: secured.problem() == "", seconds=60)
    # No key in what is told to anybody.
    assert "PRIVATE KEY" not in secured.gateway.agent_log() + json.dumps(secured.server.reports)


def test_a_gateway_comes_back_with_the_last_good_one(secured: Secured) -> None:
    """The agent dies, the files turn bad, Envoy dies: what was in force is in force."""
    secured.start()
    _another_key(secured.authority, secured.files)
    agent = secured.gateway.agent
    assert agent is not None
    agent.kill()
    agent.wait(20)
    pid = secured.gateway.envoy_pid()
    subprocess.run(["kill", "-9", str(pid)], check=True)
    secured.gateway.start_agent()
    until(lambda: _serves(secured), seconds=60)
    assert secured.serial() == secured.issued.serial
    secured.server.wait_report(lambda report: "not the key" in report["envoy"]["problem"], 60)
    stored = secured.gateway.settings.layout.document("certificates")
    assert stored.stat().st_mode & 0o777 == 0o600


def _serves(secured: Secured) -> bool:
    try:
        return bool(secured.serial())
    except OSError:
        return False


def test_no_start_without_a_good_one(secured: Secured) -> None:
    put(secured.files.chain, b"nothing")
    secured.gateway.start_agent()
    agent = secured.gateway.agent
    assert agent is not None
    assert agent.wait(60) != 0
    assert "expected certificates in PEM" in secured.gateway.agent_log()
    assert secured.gateway.envoy_state() is None


def test_tls_is_turned_on_and_off(secured: Secured) -> None:
    """Between two runs of the agent, with Envoy going on."""
    secured.start()
    pid = secured.gateway.envoy_pid()
    for certificate in (None, secured.files):
        secured.gateway.signal_agent(signal.SIGTERM)
        secured.gateway.given["certificate"] = certificate
        secured.gateway.start_agent()
        if certificate is None:
            until(secured.gateway.answers, seconds=60)
        else:
            until(lambda: _serves(secured), seconds=60)
        assert secured.gateway.envoy_pid() == pid
