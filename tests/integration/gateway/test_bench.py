"""The benchmark of the gateway: its chain does all that is said of it, and each of its pieces works. No times."""

import json
from pathlib import Path

import httpx
import pytest

from benchmarks.gateway import __main__ as bench
from benchmarks.gateway import chain, contestants, envoys, instructions
from benchmarks.gateway.contestants import DIRECT, FULL, PLAIN, Cores
from benchmarks.gateway.generators import Asked, Own, Wrk

UNBOUND = Cores(None, None, None)


def test_the_full_chain_asks_for_tokens_splits_by_user_limits_and_records(tmp_path: Path) -> None:
    with envoys.folder() as place:
        sockets = [place / "one.sock", place / "two.sock"]
        record = place / "record.log"
        port = envoys.free_port()
        made = chain.full(place, port, sockets, record)
        # A backend that says who it is, so that the split can be seen.
        named = json.loads(json.dumps(envoys.backend(sockets, envoys.free_port())))
        for number, listener in enumerate(named["static_resources"]["listeners"]):
            routes = chain.manager_of(listener)["route_config"]["virtual_hosts"][0]["routes"]
            routes[0]["direct_response"]["body"]["inline_string"] = json.dumps({"replica": number})
        backend = envoys.written(place, "backend", named)
        whole = envoys.written(place, "chain", made.config)
        with (
            envoys.running(backend, place, None),
            envoys.running(whole, place, None, flags=["--file-flush-interval-msec", "50"]),
        ):
            envoys.answers({"unix": str(sockets[1])}, place / "backend.log")
            envoys.answers({"port": port}, place / "chain.log")
            url = f"http://127.0.0.1:{port}/v2/models/{chain.ROUTE}/infer"
            with httpx.Client(trust_env=False, timeout=30) as client:
                assert client.post(url, content="{}").status_code == 401
                owned = {"authorization": f"Bearer {made.token}"}
                answers = {
                    user: [
                        client.post(url, content="{}", headers={**owned, chain.STICKY: user})
                        for _ in range(2)
                    ]
                    for user in (f"user-{number}" for number in range(40))
                }
            replicas = {user: {found.json()["replica"] for found in pair} for user, pair in answers.items()}
            assert all(len(found) == 1 for found in replicas.values()), "a user meets one variant"
            assert {0, 1} == set.union(*replicas.values())
            assert answers["user-1"][0].headers["x-ratelimit-limit"].startswith("1000000")
            bench_line = wait_for_line(record, '"caller":"bench"')
        assert {"time", "requestId", "path", "status", "cluster", "durationMs"} <= set(bench_line)


def wait_for_line(record: Path, part: str) -> dict[str, object]:
    import time

    deadline = time.monotonic() + 60
    while True:
        lines = record.read_text().splitlines() if record.exists() else []
        found = next((line for line in lines if part in line), None)
        if found is not None:
            return dict(json.loads(found))
        assert time.monotonic() < deadline, lines[:3]
        time.sleep(0.05)


def test_every_part_can_be_taken_out_and_every_contestant_answers_alike() -> None:
    with contestants.started(UNBOUND, str, parts=True, proxies=True) as field:
        contestants.checked([*field.contestants, *field.parts])
        names = [one.name for one in field.contestants]
        assert names[:3] == [DIRECT, PLAIN, FULL]
        assert len(names) == 7
        assert {"without access record", "without sticky key"} <= {one.name for one in field.parts}


def test_a_quick_run_tells_every_way_and_the_goals(tmp_path: Path) -> None:
    out = tmp_path / "gateway.json"
    code = bench.main(
        [
            "--quick",
            "--own",
            "--rounds",
            "1",
            "--seconds",
            "0.3",
            "--connections",
            "1",
            "4",
            "--json",
            str(out),
        ]
    )
    rows = json.loads(out.read_text())["rows"]
    ways = [row for row in rows if "way" in row]
    assert [(row["way"], row["connections"]) for row in ways][:3] == [(DIRECT, 1), (PLAIN, 1), (FULL, 1)]
    assert all(row["per_second"] > 0 and row["cpu_us"] >= 0 for row in ways)
    goals = [row for row in rows if "goal" in row]
    assert code == (0 if all(goal["met"] for goal in goals) else 1)


def test_all_ways_whose_instructions_are_counted_fit_into_one_envoy() -> None:
    with envoys.folder() as place:
        sockets = [place / "one.sock", place / "two.sock"]
        made = chain.full(place, envoys.free_port(), sockets, place / "record.log")
        config, ways = instructions.together(made.config, place, sockets)
        names = [name for name, _ in ways]
        assert names[:2] == [PLAIN, FULL]
        assert {"without access record", "without filter podium.place"} < set(names)
        backend = envoys.written(place, "backend", envoys.backend(sockets, envoys.free_port()))
        with envoys.running(backend, place, None):
            envoys.answers({"unix": str(sockets[-1])}, place / "backend.log")
            with envoys.running(envoys.written(place, "together", config), place, None):
                for _, port in ways:
                    envoys.answers({"port": port}, place / "together.log", 60)
                    instructions.ask(port, made.token, 2)


@pytest.mark.parametrize("name", ["wrk", "podium load"])
def test_a_generator_that_meets_failures_gives_no_figure(name: str) -> None:
    import shutil

    from podium.resources.errors import Unavailable

    if name == "wrk" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    with contestants.started(UNBOUND, str, parts=False, proxies=False) as field, envoys.folder() as place:
        full = next(one for one in field.contestants if one.name == FULL)
        without_token = [
            {key: value for key, value in one.items() if key != "authorization"} for one in full.asked.headers
        ]
        generator = Wrk(place, None) if name == "wrk" else Own(None)
        with pytest.raises(Unavailable, match="failed"):
            generator.measure(Asked(full.asked.port, full.asked.path, full.asked.body, without_token), 2, 0.3)
        assert generator.measure(full.asked, 2, 0.3).requests > 0
