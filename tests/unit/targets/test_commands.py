"""What a command becomes, which ports it gets, and where it may listen."""

import dataclasses
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from podium.processes.sockets import Listener, listeners, sockets_of_family
from podium.resources.deployment import RuntimeSettings
from podium.resources.errors import Refused
from podium.targets.port import ReplicaWish
from podium.targets.process.commands import START, misplaced, port_names
from podium.targets.process.ports import FIRST, LAST, Ports, is_free
from podium.targets.process.programs import configuration, program

from .test_programs import wish  # noqa: F401 - a fixture

PORTS = {"": 21000, "grpc": 21001}


def served_by(given: ReplicaWish, **runtime: Any) -> ReplicaWish:
    spec = given.spec.model_copy(update={"runtime": RuntimeSettings.model_validate(runtime)})
    return dataclasses.replace(given, spec=spec)


def test_the_command_is_started_by_what_checks_the_files(wish: ReplicaWish, tmp_path: Path) -> None:  # noqa: F811
    wish = served_by(
        wish,
        command=["serve", "{model}", "{name}:{version}", "--listen={host}:{port}", "{tmp}/x"],
        env={"GRPC": "{port.grpc}", "PATH": "/opt"},
    )
    folder = tmp_path / "r"
    assert configuration(wish, folder, PORTS) == {
        "modelPath": str(tmp_path / "m"),
        "manifestPath": str(tmp_path / "x.json"),
        "manifestDigest": "sha256:" + "a" * 64,
        "command": ["serve", str(tmp_path / "m"), "churn:3", "--listen=127.0.0.1:21000", f"{folder}/tmp/x"],
    }
    made = program(wish, folder, tmp_path / "s", (), PORTS)
    assert made.argv == (str(wish.python), "-I", "-S", "-B", str(START), str(folder / "config.json"))
    assert made.socket is None
    assert made.box.bind_ports == (21000, 21001)
    assert made.box.connect_ports == (5432,)
    assert START in made.box.read
    told = {name: value for name, value in made.env.items() if name.startswith("PODIUM_")}
    assert told == {
        "PODIUM_MODEL": str(tmp_path / "m"), "PODIUM_NAME": "churn", "PODIUM_VERSION": "3",
        "PODIUM_HOST": "127.0.0.1", "PODIUM_PORT": "21000", "PODIUM_PORT_GRPC": "21001",
    }  # fmt: skip
    assert (made.env["GRPC"], made.env["PATH"]) == ("21001", "/opt")


def test_one_that_takes_a_descriptor_can_make_no_tcp_socket(wish: ReplicaWish, tmp_path: Path) -> None:  # noqa: F811
    wish = served_by(wish, command="serve --fd {fd}")
    assert port_names(wish.spec.runtime) == []
    made = program(wish, tmp_path / "r", tmp_path / "s", (), {})
    assert made.socket == tmp_path / "s"
    assert made.box.bind_ports == ()
    assert made.env["PODIUM_FD"] == "3"
    assert configuration(wish, tmp_path / "r", {})["command"] == ["serve", "--fd", "3"]


HERE, THERE = "127.0.0.1", "0.0.0.0"


@pytest.mark.parametrize(
    ("listening", "words"),
    [
        ([Listener(HERE, 21000, 1)], ""),
        ([Listener("::1", 21000, 1), Listener("::ffff:127.0.0.1", 21001, 2)], ""),
        ([Listener(HERE, 21000, 1), Listener(THERE, 80, 99)], ""),
        ([Listener(THERE, 21000, 1)], "0.0.0.0:21000, which other machines can reach"),
        ([Listener("::", 21000, 1)], ":::21000, which other machines can reach"),
        ([Listener("::ffff:10.0.0.1", 21000, 1)], "which other machines can reach"),
        ([Listener(HERE, 21000, 1), Listener(THERE, 40000, 2)], "0.0.0.0:40000, which other machines"),
        ([Listener(HERE, 21000, 1), Listener(HERE, 40000, 2)], "port 40000, which is none of its own"),
        ([Listener(HERE, 21000, 99)], "another program answers on its port 21000"),
        ([Listener(HERE, 21000, 1), Listener(HERE, 21000, 99)], "another program answers"),
    ],
)
def test_where_a_replica_may_listen(listening: list[Listener], words: str) -> None:
    why = misplaced(PORTS, listening, {1, 2})
    assert words in why
    assert bool(words) == bool(why)


def test_sockets_are_found_with_who_holds_them() -> None:
    with socket.create_server((HERE, 0)) as mine:
        port = mine.getsockname()[1]
        (found,) = [one for one in listeners() if one.port == port and one.address == HERE]
        assert found.is_loopback
        assert found.inode in sockets_of_family(os.getpid())
    if socket.has_ipv6:
        with socket.create_server(("::", 0), family=socket.AF_INET6) as mine:
            (found,) = [one for one in listeners() if one.port == mine.getsockname()[1]]
            assert (found.address, found.is_loopback) == ("::", False)


def test_ports_are_handed_out_once_around(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        chosen = [
            port for found in pool.map(lambda _: Ports(tmp_path).choose(2, ()), range(20)) for port in found
        ]
    assert len(set(chosen)) == 40
    assert all(FIRST <= port <= LAST for port in chosen)
    following = Ports(tmp_path).choose(1, ())[0]
    assert following not in chosen
    assert Ports(tmp_path).choose(1, {following + 1, following + 2})[0] not in (following + 1, following + 2)


def test_a_port_in_use_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "next-port").write_text(f"{LAST}\n")
    (last,) = Ports(tmp_path).choose(1, ())
    (tmp_path / "next-port").write_text(f"{last}\n")
    with socket.create_server((HERE, last)):
        assert not is_free(last)
        assert Ports(tmp_path).choose(1, ())[0] != last
    assert is_free(last)
    for damaged in ("", "x", "-1", "99999"):
        (tmp_path / "next-port").write_text(damaged)
        assert FIRST <= Ports(tmp_path).choose(1, ())[0] <= LAST


def test_no_ports_left_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no 1 ports are free"):
        Ports(tmp_path).choose(1, range(FIRST, LAST + 1))
