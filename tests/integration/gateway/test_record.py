"""The access record of a real Envoy: a line for each request, whatever is sent and whoever dies, and nothing secret."""

import json
import os
import signal
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from podium.gateway.settings import AccessRecord
from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, deployment, revision, route
from tests.integration.gateway.load import Load
from tests.integration.gateway.one_envoy import one_envoy
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration

PATH = "/v2/models/churn/infer"
SECRET = "sesame-123"


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line, each of which has to be JSON; one that is still being written does not end yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def recorded(gateway: Gateway, count: int, path: str | None = None) -> list[dict[str, Any]]:
    """The lines about requests for `path` (None: all but the tests' own looks at /v2/health), when there are so many:
    Envoy writes every second."""
    place = gateway.settings.record_file
    assert place is not None

    def found() -> list[dict[str, Any]]:
        files = [*place.parent.glob(f"{place.name}.*"), place]
        said = [line for file in files for line in lines(file)]
        return [
            one
            for one in said
            if (one.get("path") == path if path else not str(one.get("path")).startswith("/v2/health"))
        ]

    until(lambda: len(found()) >= count, 60, 0.05)
    return found()


@contextmanager
def serving(server: WireServer, **settings: Any) -> Iterator[tuple[Gateway, World]]:
    """A gateway that has loaded a Deployment `churn`."""
    gateway = Gateway(server.url, **settings)
    try:
        world = World(server, gateway)
        version = world.deploy("churn")
        gateway.start_agent()
        server.wait_loaded(version, 60)
        yield gateway, world
    finally:
        gateway.close()


def test_a_line_says_who_asked_what_and_how_it_ended(
    server: WireServer, gateway: Gateway, world: World
) -> None:
    signer = Signer()
    server.access = signer.access("gone")
    world.deploy("churn", "team")
    loyal = {"name": "loyal", "match": {"headers": {"x-loyal": {"exact": "1"}}}, "to": "churn"}
    version = server.put(
        route("front", loyal, {"to": "churn"}),
        revision("empty", 1, []), deployment("empty", stable="empty-00001"),
    )  # fmt: skip
    gateway.start_agent()
    server.wait_loaded(version, 60)
    good = signer.token(sub="ann", ws=["default", "team"])
    bearer = {"authorization": f"Bearer {good}"}

    def ask(name: str, path: str, *, headers: dict[str, str] = bearer, **more: Any) -> int:
        return gateway.client.request(
            more.pop("method", "POST"), path, headers={**headers, "x-request-id": name}, **more
        ).status_code

    body = {"inputs": [SECRET]}
    assert ask("answered", f"{PATH}?key={SECRET}", json=body) == 200
    assert ask("elsewhere", f"/ws/team{PATH}?key={SECRET}", json=body) == 200
    assert ask("ruled", "/v2/models/front/infer", headers={**bearer, "x-loyal": "1"}, json=body) == 200
    assert ask("other", "/v2/models/front/infer", json=body) == 200
    assert ask("failed", f"{PATH}?status=500", json=body) == 500
    assert ask("nobody", PATH, headers={}, json=body) == 401
    assert ask("wrong", PATH, headers={"authorization": f"Bearer {SECRET}"}, json=body) == 401
    assert (
        ask("revoked", PATH, headers={"authorization": f"Bearer {signer.token(sub='bob', jti='gone')}"})
        == 401
    )
    assert ask("unknown", "/v2/models/none/infer", json=body) == 404
    assert ask("empty", "/v2/models/empty/infer", json=body) == 503
    assert ask("reading", "/v2/models/churn", method="GET") == 200
    found = {one.get("requestId"): one for one in recorded(gateway, 11)}
    _is_told(found, body)
    place = gateway.settings.record_file
    assert place is not None
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    text = place.read_text()
    assert SECRET not in text and good.split(".")[2] not in text and "uthorization" not in text


def _is_told(found: dict[Any, dict[str, Any]], body: dict[str, Any]) -> None:
    """found: request id -> its line."""
    said = found["answered"]
    assert {name: said[name] for name in ("caller", "route", "cluster", "method", "path")} == {
        "caller": "ann", "route": "deployment:default/churn", "cluster": "default_churn-00001_live",
        "method": "POST", "path": PATH,
    }  # fmt: skip
    assert (said["status"], said["reason"], said["flags"], said["attempts"]) == (200, "via_upstream", "-", 1)
    assert said["protocol"] == "HTTP/1.1" and "grpcStatus" not in said
    assert said["bytesIn"] == len(json.dumps(body, separators=(",", ":"))) and said["bytesOut"] > 0
    assert 0 <= said["upstreamMs"] <= said["durationMs"] + 1
    assert said["time"].startswith("20") and said["time"].endswith("Z")
    # What was asked for, not what the replica was asked.
    assert found["elsewhere"]["path"] == f"/ws/team{PATH}"
    assert found["elsewhere"]["cluster"] == "team_churn-00001_live"
    assert (
        found["ruled"]["route"] == "route:default/front#loyal"
        and found["ruled"]["path"] == "/v2/models/front/infer"
    )
    assert found["other"]["route"] == "route:default/front#1"
    assert (found["failed"]["status"], found["failed"]["reason"]) == (500, "via_upstream")
    for name in ("nobody", "wrong", "revoked"):
        # The cluster is where it would have gone; nobody was asked.
        assert (found[name]["status"], found[name]["attempts"]) == (401, 0), found[name]
    assert found["nobody"]["reason"].startswith("jwt_authn_access_denied")
    assert found["revoked"]["reason"].startswith("rbac_access_denied_matched_policy[revoked")
    # Who it was is known although the token is good no more.
    assert found["revoked"]["caller"] == "bob"
    assert "caller" not in found["nobody"] and "caller" not in found["wrong"]
    assert (found["unknown"]["status"], found["unknown"]["reason"]) == (404, "direct_response")
    assert (found["empty"]["route"], found["empty"]["status"]) == ("deployment:default/empty", 503)
    assert found["reading"]["method"] == "GET"


HOSTILE: dict[str, bytes] = {
    "an id that is no UTF-8": b'GET %s HTTP/1.1\r\nx-request-id: a\xff\xfe"b\\\r\n' % PATH.encode(),
    "an id in UTF-8": f"GET {PATH} HTTP/1.1\r\nx-request-id: ä\u2028\u202e\r\n".encode(),
    "an id of 30 KB": b"GET %s HTTP/1.1\r\nx-request-id: %s\r\n" % (PATH.encode(), b"i" * 30_000),
    "a control byte in a header": b"GET %s HTTP/1.1\r\nx-request-id: a\x01b\r\n" % PATH.encode(),
    "quotes in the path": b"GET %s/a\"b'c\\d<e> HTTP/1.1\r\n" % PATH.encode(),
    "a path that is no UTF-8": b"GET %s/\xff\xfe HTTP/1.1\r\n" % PATH.encode(),
    "a control byte in the path": b"GET %s/a\x01b HTTP/1.1\r\n" % PATH.encode(),
    "escapes in the path": b"GET %s/%%22%%0a%%ff%%5c HTTP/1.1\r\n" % PATH.encode(),
    "a nul escaped": b"GET %s/%%00 HTTP/1.1\r\n" % PATH.encode(),
    "a path of 8 KiB": b"GET %s/%s HTTP/1.1\r\n" % (PATH.encode(), b"p" * 8192),
    "a path over all limits": b"GET %s/%s HTTP/1.1\r\n" % (PATH.encode(), b"p" * 60_000),
    "a method that is none": b'A"B %s HTTP/1.1\r\n' % PATH.encode(),
    "no HTTP": b"\x16\x03\x01\xff\xfe\r\n",
    "a forged original path": b"GET %s HTTP/1.1\r\nx-envoy-original-path: /forged?%s\r\n"
    % (PATH.encode(), SECRET.encode()),
    "a secret behind #": f"GET {PATH}#{SECRET} HTTP/1.1\r\n".encode(),
    "a secret in the authority": f"GET http://me:{SECRET}@h{PATH}?{SECRET} HTTP/1.1\r\n".encode(),
}


def test_hostile_bytes_stay_within_their_line(server: WireServer) -> None:
    with serving(server) as (gateway, _):
        before = len(recorded(gateway, 0))
        for what, request in HOSTILE.items():
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
                connection.sendall(request + b"host: h\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 "), what
        found = recorded(gateway, before + len(HOSTILE))[before:]
        assert len(found) == len(HOSTILE)
        assert max(len(json.dumps(one)) for one in found) < 2500
        said = json.dumps(found)
        assert "forged" not in said
        assert {one.get("requestId") for one in found} >= {"i" * 128, "ä\u2028\u202e"}
        assert {one["status"] for one in found} == {200, 400, 431}
        place = gateway.settings.record_file
        assert place is not None
        # Of what is refused before it is looked at, the path is told as it came, but without a query.
        leaks = [one for one in lines(place) if SECRET in json.dumps(one)]
        assert [(one["status"], one["reason"]) for one in leaks] == [(400, "path_normalization_failed")]


def test_full_files_are_put_aside_and_no_line_is_lost(server: WireServer) -> None:
    with serving(server, record=AccessRecord(size=30_000, kept=100)) as (gateway, _):
        place = gateway.settings.record_file
        assert place is not None
        with Load(gateway.port, path=PATH, rate=200, connections=4) as load:
            until(lambda: place.with_name("access.log.3").exists(), 60)
        assert load.failures == []
        found = recorded(gateway, load.total, PATH)
        assert len(found) == load.total
        assert len({one.get("requestId") for one in found}) == load.total
        modes = {stat.S_IMODE(one.stat().st_mode) for one in place.parent.glob("access.log*")}
        assert modes == {0o600}


def test_what_is_kept_is_bounded(server: WireServer) -> None:
    with serving(server, record=AccessRecord(size=20_000, kept=2)) as (gateway, _):
        place = gateway.settings.record_file
        assert place is not None
        first = until(lambda: place.exists() and place.stat().st_ino)
        # Somebody else's, or of a time when more were kept: who knows. They follow ours, and do not.
        others = [place.with_name(f"access.log.{number}") for number in (3, 4, 7, 20261101)]
        for other in others:
            other.write_text("{}\n")
        with Load(gateway.port, path=PATH, rate=200, connections=4) as load:
            until(
                lambda: (
                    all(one.stat().st_ino != first for one in (place, *place.parent.glob("access.log.*")))
                    and place.with_name("access.log.2").exists()
                ),
                60,
            )
        assert load.failures == []
        mine = {"access.log", "access.log.1", "access.log.2"}
        until(
            lambda: (
                {one.name for one in place.parent.glob("access.log*")} - {one.name for one in others} == mine
            )
        )
        assert [other.read_text() for other in others] == ["{}\n"] * 4


def test_the_record_goes_on_whoever_dies(server: WireServer) -> None:
    with serving(server) as (gateway, _):
        with Load(gateway.port, path=PATH, rate=100, connections=4) as load:
            load.wait_more(50)
            gateway.signal_agent(signal.SIGKILL)
            load.wait_more(50)
            server.reports.clear()
            gateway.start_agent()
            until(lambda: server.reports, 60)
            pid = gateway.envoy_pid()
            gateway.signal_agent(signal.SIGHUP, wait=False)
            until(lambda: "handed over in place" in gateway.agent_log(), 60)
            assert gateway.envoy_pid() != pid
            load.wait_more(100)
        assert load.failures == []
        # Both Envoys of a handover write into it, whole lines: each request is there, once.
        found = recorded(gateway, load.total, PATH)
        times = Counter(one.get("requestId") for one in found)
        assert len(times) == load.total and set(times.values()) == {1}
        pid = gateway.envoy_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: gateway.envoy_pid() != pid and gateway.answers(), 60)
        assert gateway.get(PATH, headers={"x-request-id": "after"}).status_code == 200
        found = recorded(gateway, load.total + 1, PATH)
        assert {"after"} == {one.get("requestId") for one in found} - set(times)


def test_a_file_that_somebody_took_away_is_begun_anew(server: WireServer) -> None:
    with serving(server) as (gateway, _):
        place = gateway.settings.record_file
        assert place is not None
        gateway.get(PATH, headers={"x-request-id": "one"})
        recorded(gateway, 1, PATH)
        place.rename(place.with_name("taken"))
        until(place.exists, 60)
        with Load(gateway.port, path=PATH, rate=20, connections=1):
            until(lambda: lines(place), 60)
        place.unlink()
        with Load(gateway.port, path=PATH, rate=20, connections=1):
            until(lambda: lines(place), 60)
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_none_where_none_is_wanted(server: WireServer) -> None:
    with serving(server, record=None) as (gateway, _):
        assert gateway.settings.record_file is None
        assert gateway.get(PATH).status_code == 200
        assert not (gateway.settings.home / "access.log").exists()


def problem(server: WireServer) -> str:
    return str(server.reports[-1]["envoy"]["problem"])


def test_a_place_that_is_no_place_stops_nothing(server: WireServer) -> None:
    gateway = Gateway(server.url)
    folder = gateway.folder / "later"
    gateway.given["record"] = AccessRecord(path=folder / "requests.jsonl")
    try:
        world = World(server, gateway)
        version = world.deploy("churn")
        gateway.start_agent()
        server.wait_loaded(version, 60)
        assert gateway.get(PATH).status_code == 200
        until(lambda: "no access record" in problem(server) and str(folder) in problem(server), 60)
        folder.mkdir()
        until(lambda: not problem(server), 60)
        until(lambda: gateway.get(PATH).status_code == 200 and lines(folder / "requests.jsonl"), 60, 0.2)
        # And it dies again with Envoy: it comes up all the same.
        (folder / "requests.jsonl").unlink()
        folder.rmdir()
        pid = gateway.envoy_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: gateway.envoy_pid() != pid and gateway.answers(), 60)
        assert gateway.get(PATH).status_code == 200
    finally:
        gateway.close()


def test_where_nothing_can_be_put_aside_the_file_is_bounded_all_the_same(server: WireServer) -> None:
    with serving(server, record=AccessRecord(size=20_000, kept=1)) as (gateway, _):
        place = gateway.settings.record_file
        assert place is not None
        # A folder that cannot be written to would stop nobody where the tests run as root.
        in_the_way = place.with_name("access.log.1")
        in_the_way.mkdir()
        inode = place.stat().st_ino
        with Load(gateway.port, path=PATH, rate=200, connections=4) as load:
            until(lambda: gateway.agent_log().count("the access record was emptied") >= 2, 60, 0.05)
            assert "is not put aside" in problem(server) and str(in_the_way) in problem(server)
            # In place: Envoy goes on in it, at its beginning.
            assert place.stat().st_ino == inode
            in_the_way.rmdir()
            until(lambda: not problem(server) and lines(in_the_way), 60, 0.05)
        assert load.failures == []
        assert gateway.agent_log().count("is not put aside") == 1


@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_is_no_file_of_ours_is_not_written_to(server: WireServer, what: str) -> None:
    gateway = Gateway(server.url)
    place = gateway.folder / "requests.jsonl"
    gateway.given["record"] = AccessRecord(path=place)
    elsewhere = gateway.folder / "elsewhere"
    try:
        if what == "folder":
            place.mkdir()
        elif what == "link":
            elsewhere.write_text("mine\n")
            place.symlink_to(elsewhere)
        else:
            os.mkfifo(place)
        world = World(server, gateway)
        version = world.deploy("churn")
        gateway.start_agent()
        server.wait_loaded(version, 60)
        assert gateway.get(PATH).status_code == 200
        until(lambda: "no access record" in problem(server), 60)
        assert what != "link" or elsewhere.read_text() == "mine\n"
    finally:
        gateway.close()


def test_two_gateways_do_not_share_a_file(server: WireServer) -> None:
    with serving(server) as (gateway, _):
        second = Gateway(server.url, name="g2", record=AccessRecord(path=gateway.settings.record_file))
        try:
            second.start_agent()
            until(
                lambda: any("another gateway writes there" in report["envoy"]["problem"] for report in server.reports),
                60,
            )  # fmt: skip
            until(lambda: second.get(PATH).status_code == 200, 60)
            assert gateway.get(PATH).status_code == 200
        finally:
            second.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_stops_no_request() -> None:
    with one_envoy(record=AccessRecord(path=Path("/dev/full"))) as envoy:
        envoy.start([], [])
        for _ in range(200):
            assert envoy.client.get("/v2").status_code == 200
        until(lambda: envoy.stats(r"^filesystem\.write_failed$").get("filesystem.write_failed"), 60, 0.05)
        assert envoy.client.get("/v2").status_code == 200
