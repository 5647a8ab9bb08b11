"""`podium doctor`: what it finds on this machine, and on machines that are not fit."""

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from podium.cli import checks
from podium.cli.application import build
from podium.cli.installation import Installation


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    for name in [name for name in os.environ if name.startswith("PODIUM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PODIUM_API_PORT", "0")
    monkeypatch.setenv("PODIUM_GATEWAY_PORT", "0")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Installation(home)


@pytest.fixture
def postgres() -> Iterator[int]:
    """Something that answers as PostgreSQL does to a request for TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked = connection.recv(8)
                    connection.sendall(b"N" if asked == b"\x00\x00\x00\x08\x04\xd2\x16\x2f" else b"E")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_this_machine_is_fit(installation: Installation) -> None:
    result = CliRunner().invoke(build(), ["doctor", "--home", str(installation.home), "-o", "json"])
    found = json.loads(result.stdout)
    by_name = {check["name"]: check for check in found["checks"]}
    assert result.exit_code == (0 if found["healthy"] else 1)
    for name in (
        "python",
        "uv",
        "models' pythons",
        "envoy",
        "home",
        "sockets",
        "ports",
        "database",
        "clock",
        "settings",
    ):
        assert by_name[name]["level"] == "ok", by_name[name]
    assert by_name["envoy"]["message"][0].isdigit()
    assert all(check["nextStep"] for check in found["checks"] if check["level"] != "ok")
    told = CliRunner().invoke(build(), ["doctor", "--home", str(installation.home)]).stdout
    assert len([line for line in told.splitlines() if not line.strip().startswith("next:")]) == len(by_name)


def test_a_home_that_others_can_enter(installation: Installation) -> None:
    installation.home.chmod(0o755)
    check = checks.check_home(installation)
    assert (check.level, check.next_step) == ("warn", f"chmod 700 {installation.home}")


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert checks.check_home(Installation(tmp_path / "file")).level == "fail"


def test_a_token_that_others_can_read(installation: Installation) -> None:
    token = installation.home / "admin.token"
    token.write_text("x")
    token.chmod(0o640)
    assert checks.check_tokens(installation).level == "fail"
    token.chmod(0o600)
    assert checks.check_tokens(installation).level == "ok"


def test_a_port_that_another_program_has(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv("PODIUM_API_PORT", str(port))
        check = checks.check_ports(installation)
        assert check.level == "fail"
        assert f"api {port} on 127.0.0.1 is taken" in check.message
        result = CliRunner().invoke(
            build(), ["up", "--home", str(installation.home), "--api-port", str(port)]
        )
    assert result.exit_code == 1
    assert f"port {port} on 127.0.0.1 is in use by another program" in result.stderr
    assert not (installation.home / "logs").exists()
    monkeypatch.setenv("PODIUM_API_PORT", "many")
    assert checks.check_ports(installation).level == "fail"


def test_a_database_that_is_none(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    database = installation.home / "podium.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    assert checks.check_database(installation).level == "ok"
    database.write_bytes(b"this is no database, " * 100)
    assert checks.check_database(installation).level == "fail"
    monkeypatch.setenv("PODIUM_DATABASE_URL", "mysql://somewhere")
    assert "no database that Podium knows" in checks.check_database(installation).message


def test_postgresql_answers_or_not(
    installation: Installation, postgres: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_DATABASE_URL", f"postgresql://someone:secret@127.0.0.1:{postgres}/podium")
    check = checks.check_database(installation)
    assert check.level == "ok", check
    assert "secret" not in check.message
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("PODIUM_DATABASE_URL", f"postgresql://someone:secret@127.0.0.1:{port}/podium")
    check = checks.check_database(installation)
    assert check.level == "fail"
    assert "secret" not in check.message + check.next_step


def test_a_clock_that_went_back(installation: Installation) -> None:
    database = installation.home / "podium.db"
    database.touch()
    os.utime(database, (time.time() + 7200, time.time() + 7200))
    assert checks.check_clock(installation).level == "fail"


def test_a_misspelt_setting_is_named(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_API_PROT", "1")
    check = checks.check_variables(installation)
    assert check.level == "warn"
    assert "PODIUM_API_PROT" in check.message


def test_a_temporary_folder_that_is_too_deep_is_passed_over(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("deep" * 20)))
    assert checks.check_sockets(installation).level == "ok"
