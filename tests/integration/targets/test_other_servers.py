"""Servers of the user's choice as replicas: told where to listen, checked before they start, shut in like any other."""

import hashlib
import http.client
import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podium.processes.shim import landlock
from podium.resources.deployment import RuntimeSettings, SandboxSettings
from podium.resources.errors import Refused
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest
from podium.targets.port import ReplicaObservation, ReplicaWish
from podium.targets.process import ProcessTarget
from podium.targets.process.checked_start import DAMAGED
from podium.targets.process.ports import FIRST, LAST

from .conftest import Yard, get, until
from .test_process_target import LEVEL

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="replicas as processes need Linux"),
]
COMMAND = ["{python}", "{model}/server.py"]


@pytest.fixture
def served(yard: Yard) -> Yard:
    """The yard's model is the files of another server."""
    (yard.model / "behave.json").unlink()
    shutil.copy(Path(__file__).with_name("other_server.py"), yard.model / "server.py")
    (yard.model / "weights").mkdir()
    (yard.model / "weights" / "w.bin").write_bytes(b"w" * 3_000_000)
    return yard


def wish(yard: Yard, number: int = 1, *, command: list[str] | None = None, **runtime: Any) -> ReplicaWish:
    """A wish for the files as they are now."""
    files = [
        FileEntry(
            path=path.relative_to(yard.model).as_posix(),
            size=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(yard.model.rglob("*"))
        if path.is_file()
    ]
    manifest = Manifest(
        flavor=Flavor(name="custom"), files=files, python="3.11", lock=LockReference(sha256="a" * 64)
    )
    yard.manifest.write_bytes(manifest.canonical_bytes())
    settings = {"command": command or COMMAND, "protocol": "http", "readyPath": "/up", "drain": 5, **runtime}
    made = yard.wish(
        name=f"churn-00001-{number}",
        runtime=RuntimeSettings.model_validate(settings),
        sandbox=SandboxSettings(require=LEVEL),
    )
    return replace(made, spec=made.spec.model_copy(update={"manifest_digest": manifest.digest()}))


def port_of(replica: ReplicaObservation) -> int:
    host, _, port = replica.address.removeprefix("http://").partition(":")
    assert host == "127.0.0.1"
    return int(port)


def ask(port: int, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def test_a_server_is_told_its_port_serves_and_drains(served: Yard) -> None:
    target = served.target()
    command = [*COMMAND, "--port", "{port}", "--host", "{host}"]
    env = {"WHERE": "{model} {{model}} {port.metrics}", "HOME": "{tmp}/home"}
    started = target.start(wish(served, command=command, env=env))
    assert started.phase == "Starting"
    ready = served.reaches(target, "Ready")
    assert ready.sandbox == LEVEL
    assert FIRST <= port_of(ready) <= LAST
    about = ask(port_of(ready), "/about")
    assert about["pid"] == ready.pid, "the check has become the server"
    assert about["argv"][1:] == ["--port", str(port_of(ready)), "--host", "127.0.0.1"]
    environ = about["environ"]
    more = environ["PODIUM_PORT_METRICS"]
    assert environ["WHERE"] == f"{served.model} {{model}} {more}"
    assert environ["PODIUM_PORT"] == str(port_of(ready)) != more
    assert (environ["PODIUM_NAME"], environ["PODIUM_VERSION"]) == ("churn", "1")
    assert environ["HOME"] == f"{about['cwd']}/home"
    again = served.target().start(wish(served, command=command, env=env))
    assert (again.phase, again.address) == ("Ready", ready.address), "another server finds it where it is"
    target.stop(ready.name, 5)
    ended = served.reaches(target, "Exited")
    assert (ended.exit_code, ended.log_tail[-1]) == (0, "stopped")
    assert any("draining" in line for line in target.logs(ready.name, 50))


def test_each_replica_has_a_port_of_its_own(served: Yard) -> None:
    """By PODIUM_PORT alone, too."""
    target = served.target()
    for number in (1, 2, 3):
        target.start(wish(served, number))
    served.reaches(target, "Ready")
    seen = target.observe("uid-1")
    ports = [port_of(one) for one in seen]
    assert len(set(ports)) == 3
    assert {ask(port, "/about")["pid"] for port in ports} == {one.pid for one in seen}
    target.stop("churn-00001-1", 5)
    until(lambda: target.observe("uid-1")[0].phase == "Exited")
    target.forget("churn-00001-1")
    target.start(wish(served, 4))
    until(lambda: target.observe("uid-1")[-1].phase == "Ready")
    assert port_of(target.observe("uid-1")[-1]) not in ports, "a port that was just used is not used again"


def test_a_server_that_takes_a_descriptor_needs_no_port(served: Yard) -> None:
    target = served.target()
    target.start(wish(served, command=[*COMMAND, "--fd", "{fd}"]))
    ready = served.reaches(target, "Ready")
    assert ready.address.startswith("unix:")
    assert get(ready.address, "/about")["environ"]["PODIUM_FD"] == "3"


@pytest.mark.skipif(landlock.abi() < 4, reason="TCP is limited from Landlock ABI 4 on")
def test_there_is_no_way_out_of_its_box(served: Yard, tmp_path: Path) -> None:
    secret = tmp_path / "admin.token"
    secret.write_text("s3cret")
    target = served.target()
    target.start(wish(served))
    ready = served.reaches(target, "Ready")
    with socket.create_server(("127.0.0.1", 0)) as outside:
        tried = ask(port_of(ready), f"/escape?port={outside.getsockname()[1]}&file={secret}")
    assert set(tried.values()) == {"PermissionError"}, tried


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda model: (model / "weights" / "w.bin").write_bytes(b"x" * 3_000_000),
            "weights/w.bin: the stored",
        ),
        (lambda model: (model / "weights" / "w.bin").write_bytes(b"w"), "weights/w.bin: 1 bytes are stored"),
        (lambda model: (model / "weights" / "w.bin").unlink(), "weights/w.bin: is missing"),
        (lambda model: (model / "sitecustomize.py").write_text(""), "sitecustomize.py: this file is in the"),
        (lambda model: (model / "more").symlink_to("/etc"), "more: this file is in the"),
    ],
)
def test_nothing_starts_from_files_that_are_not_the_versions(served: Yard, damage: Any, words: str) -> None:
    target, wished = served.target(), wish(served)
    damage(served.model)
    target.start(wished)
    ended = served.reaches(target, "Exited")
    assert ended.exit_code == DAMAGED
    assert any(line.startswith(f"not started: {words}") for line in ended.log_tail), ended.log_tail
    assert not any("the command began" in line for line in target.logs(ended.name, 50))


def test_nothing_starts_from_a_manifest_that_was_not_approved(served: Yard) -> None:
    target, wished = served.target(), wish(served)
    served.manifest.write_bytes(served.manifest.read_bytes() + b" ")
    target.start(wished)
    ended = served.reaches(target, "Exited")
    assert ended.exit_code == DAMAGED
    assert any("the manifest's bytes have digest" in line for line in ended.log_tail)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["no-such-server"], 127, "no-such-server: no such program in PATH"),
        (["/opt/none/server"], 127, "/opt/none/server: no such program in that place"),
        (["{model}/server.py"], 126, "cannot be run: Permission denied"),
        (["{python}", "-c", "raise SystemExit(3)"], 3, "ended with exit code 3"),
    ],
)
def test_a_command_that_cannot_be_run_says_so(
    served: Yard, command: list[str], code: int, words: str
) -> None:
    target = served.target()
    target.start(wish(served, command=command))
    ended = served.reaches(target, "Exited")
    assert ended.exit_code == code
    assert any(words in line for line in ended.log_tail), ended.log_tail


def test_one_that_opens_itself_to_other_machines_is_ended(served: Yard) -> None:
    target = served.target()
    target.start(wish(served, command=[*COMMAND, "--host", "0.0.0.0"]))
    ended = served.reaches(target, "Exited")
    assert "it listens on 0.0.0.0:" in ended.log_tail[-1], ended.log_tail


class Stranger:
    """Answers 200 to everybody on a port."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.answer, daemon=True).start()

    def answer(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def strangers() -> Iterator[list[Stranger]]:
    made: list[Stranger] = []
    yield made
    for one in made:
        one.listener.shutdown(socket.SHUT_RDWR)
        one.listener.close()


def test_a_stranger_on_its_port_is_never_taken_for_it(served: Yard, strangers: list[Stranger]) -> None:
    """Between the choice of the port and the server's bind anybody can take it."""
    target = served.target()
    started = target.start(wish(served, command=[*COMMAND, "--never"]))
    strangers.append(Stranger(port_of(started)))
    phases = set()

    def ended() -> bool:
        phases.add(target.observe("uid-1")[0].phase)
        return "Exited" in phases

    until(ended)
    assert "Ready" not in phases
    assert "another program answers on its port" in target.observe("uid-1")[0].log_tail[-1]


def test_a_fixed_port_serves_one_replica(served: Yard, strangers: list[Stranger]) -> None:
    target = served.target()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    target.start(wish(served, port=port))
    assert port_of(served.reaches(target, "Ready")) == port
    with pytest.raises(Refused, match=f"runtime.port: {port} is taken by churn-00001-1"):
        target.start(wish(served, 2, port=port))
    assert [one.name for one in target.observe("uid-1")] == ["churn-00001-1"], "nothing was changed"
    strangers.append(Stranger(0))
    other = strangers[0].listener.getsockname()[1]
    with pytest.raises(Refused, match=f"{other} is taken by another program"):
        target.start(wish(served, 3, port=other))


def test_a_program_of_another_folder_runs_where_the_operator_says_so(served: Yard, tmp_path: Path) -> None:
    tool = tmp_path / "tools" / "bin" / "serve"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\nexec "$@"\n')
    tool.chmod(0o755)
    command = [str(tool), *COMMAND, "--port", "{port}"]
    target = served.target()
    target.start(wish(served, 1, command=command))
    if LEVEL != "none":
        assert served.reaches(target, "Exited").exit_code == 126
        target.forget("churn-00001-1")
    target = ProcessTarget(served.root, served.sockets, [tmp_path / "tools"])
    served.targets.append(target)
    target.start(wish(served, 2, command=command))
    served.reaches(target, "Ready")
