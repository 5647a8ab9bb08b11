"""Processes that ask: one job is shared by several, ends early when told, and leaves nothing behind."""

import datetime
import ipaddress
import os
import signal
import socket
import ssl
import threading
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from podium.load.driver import Driver, DriverFailed, Job
from podium.load.generator import Found
from podium.load.requests import request_bytes
from tests.unit.load.scripted import HANG, ok, scripted


def job(port: int, **wish: object) -> Job:
    given = {"connections": 4, "seconds": 60.0, "limit": 100, "requests": [request_bytes("/", "h")]} | wish
    place = given.pop("place", {"address": "127.0.0.1", "port": port})
    return Job(place=place, **given)  # type: ignore[arg-type]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def test_a_job_is_shared_and_every_request_is_asked_once() -> None:
    wanted = [request_bytes(f"/{number}", "h") for number in range(10)]
    before = children()
    with scripted() as server, Driver(3) as driver:
        found = driver.run(job(server.port, requests=wanted, limit=101))
        again = driver.run(job(server.port, requests=wanted, limit=30, rate=1000.0))
        assert len(server.requests) == 131
        assert server.connections >= 4
    assert (found.statuses, again.statuses) == ({200: 101}, {200: 30})
    assert children() == before


def test_more_processes_than_connections_are_not_used() -> None:
    with scripted() as server, Driver(3) as driver:
        found = driver.run(job(server.port, connections=1, limit=5))
        assert (found.answered, server.connections) == (5, 1)


def test_progress_is_told_and_a_job_that_is_stopped_answers_with_what_there_is() -> None:
    seen: list[int] = []
    with scripted() as server, Driver(2) as driver:

        def progress(found: Found) -> None:
            seen.append(found.answered)
            driver.stop()

        found = driver.run(job(server.port, seconds=3600.0, limit=None), progress=progress)
        assert found.answered == len(server.requests) >= seen[0] > 0
        # A stop that comes too late is none for the next job.
        driver.stop()
        assert driver.run(job(server.port, limit=10)).answered == 10


def test_a_process_that_dies_is_said() -> None:
    before = children()
    with scripted(lambda number: [HANG]) as server, Driver() as driver:
        [pid] = children() - before
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(DriverFailed, match="ended"):
            driver.run(job(server.port))


def test_a_unix_socket(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused, Driver() as driver:
        place = {"unix": str(tmp_path / "none")}
        found = driver.run(job(unused.getsockname()[1], place=place, limit=2))
    assert sum(found.errors.values()) == 2
    assert "No such file" in next(iter(found.errors))


def certificate(folder: Path) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, encryption_algorithm=serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


def test_tls_is_checked_against_the_authorities_that_were_named(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    # Larger than a TLS record: what is decrypted already shows in no poll.
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
    with (
        scripted(lambda number: [large] if number % 2 else ok(number), tls=context) as server,
        Driver() as driver,
    ):
        tls = {"name": "127.0.0.1", "authorities": str(path), "insecure": False}
        place = {"address": "127.0.0.1", "port": server.port, "tls": tls}
        found = driver.run(job(server.port, place=place))
        assert (found.statuses, found.errors) == ({200: 100}, {})
        unchecked = place | {"tls": tls | {"authorities": None, "insecure": True}}
        assert driver.run(job(server.port, place=unchecked, limit=8)).statuses == {200: 8}
        strict = place | {"tls": tls | {"authorities": None}}
        refused = driver.run(job(server.port, place=strict, limit=4))
    assert sum(refused.errors.values()) == 4
    assert "not trusted" in next(iter(refused.errors))
    with Driver() as driver, pytest.raises(DriverFailed, match="No such file"):
        driver.run(job(1, place=place | {"tls": tls | {"authorities": str(tmp_path / "none.pem")}}))
