"""Many at once: `python -m benchmarks.concurrency`. Exits 1 when something was written twice, lost, or let through.

Three parts: 50 writers on one Deployment over HTTP; two server processes on one PostgreSQL with 100 Deployments that
change; a configuration that Envoy refuses in the middle of a rollout.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from rich.console import Console

from benchmarks import report
from benchmarks.parts import Parts
from benchmarks.world import NAME, World, until, world
from podium.demo.load import quantile
from podium.resources.kinds import AnyResource
from tests.postgres import server_url, url_of

Say = Callable[[str], object]
Row = dict[str, Any]
BAD_ADDRESS = "unix:/" + "x" * 150
"""Envoy takes at most 107 bytes."""


# --- 50 writers ------------------------------------------------------------------------------------------------


def writers(made: World, count: int, rounds: int, say: Say) -> Row:
    """In each round all writers read the same version and try to replace it at the same moment.

    The server writes too. A round whose version it replaced first has no winner, and is held again.
    """
    codes: Counter[int] = Counter()
    overtaken = 0
    winners: list[int] = []
    seconds: list[float] = []
    made.apply("first", name="contested", replicas=0)
    for turn in range(rounds):
        say(f"{count} writers, round {turn + 1} of {rounds}")
        while True:
            before = _at_rest(made, "contested")
            answers = _all_at_once(made, before, count, turn, seconds)
            if not _overtaken(made, before, answers) or overtaken == rounds:
                break
            overtaken += 1
        codes.update(answer.status_code for answer in answers)
        won = [answer for answer in answers if answer.status_code == httpx.codes.OK]
        winners.append(len(won))
        present = {
            answer.json().get("resourceVersion")
            for answer in answers
            if answer.status_code == httpx.codes.CONFLICT
        }
        if len(won) == 1:
            written = won[0].json()["object"]
            assert present and min(present) >= written["metadata"]["resourceVersion"], f"409 names {present}"
            now = made.deployment("contested")
            assert now.spec.runtime.max_batch == written["spec"]["runtime"]["maxBatch"], (
                "the winner's write is lost"
            )
    updates = [
        row
        for row in made.installation.client.audit(kind="Deployment", name="contested", limit=1000)
        if row["verb"] == "update"
    ]
    return {
        "part": f"{count} writers on one Deployment",
        "rounds": rounds,
        "succeeded": codes.pop(200, 0),
        "conflicts": codes.pop(409, 0),
        "other_answers": dict(codes) or 0,
        "rounds_without_one_winner": sum(number != 1 for number in winners),
        "rounds_held_again": overtaken,
        "audit_rows": len(updates),
        "p50_ms": 1000 * quantile(seconds, 0.5),
        "worst_ms": 1000 * max(seconds),
        "right": set(winners) == {1} and not codes and len(updates) == rounds,
    }


def _all_at_once(
    made: World, before: AnyResource, count: int, turn: int, seconds: list[float]
) -> list[httpx.Response]:
    url = f"{made.installation.addresses()['url']}/api/v1/apply"
    headers = {"authorization": f"Bearer {made.installation.token}"}
    barrier = threading.Barrier(count)

    def write(number: int) -> httpx.Response:
        wish = before.document()
        # 1 to 4,096, and different from what all the other writers of this and the last round want.
        wish["spec"]["runtime"]["maxBatch"] = 1 + (turn % 2) * count + number
        with httpx.Client(headers=headers, timeout=60, trust_env=False) as client:
            client.get(url)  # any answer: the connection is there when the others start
            barrier.wait(60)
            began = time.perf_counter()
            answer = client.post(url, json=wish)
            seconds.append(time.perf_counter() - began)
            return answer

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(write, range(count)))


def _overtaken(made: World, before: AnyResource, answers: list[httpx.Response]) -> bool:
    """Were all refused because the server's own status came first? Their wish would show in the generation."""
    now = made.deployment("contested").metadata
    return (
        all(answer.status_code == httpx.codes.CONFLICT for answer in answers)
        and now.resource_version != before.metadata.resource_version
        and now.generation == before.metadata.generation
    )


def _at_rest(made: World, name: str) -> AnyResource:
    """The Deployment, once the server has nothing more to write to its status."""

    def look() -> AnyResource | None:
        found = made.deployment(name)
        revision = found.status.latest_revision
        if revision is None or found.status.observed_generation != found.metadata.generation:
            return None
        last = made.installation.client.get("Revision", str(revision))
        return found if last.status.phase == "Idle" and made.deployment(name) == found else None

    return until(look, 60.0, lambda: f"{name} does not come to rest: {made.deployment(name).status}")


# --- two servers -----------------------------------------------------------------------------------------------


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database of its own."""
    server, name = server_url(), "podium_concurrency"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield url_of(server, name)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def two_servers(deployments: int, changes: int, say: Say) -> Row:
    """Two server processes, API and reconcilers each, on one PostgreSQL; all Deployments change in each round."""
    with postgres() as url:

        def make(home: Path) -> Parts:
            return Parts(home, servers=2, gateway=False, environment={"PODIUM_DATABASE_URL": url})

        with world(say, make=make, roles=["first"]) as made:
            began = time.monotonic()
            workers = _change_all(made, url, deployments, changes, say)
            took = time.monotonic() - began
            return _count_twice(made, deployments, changes) | {"server_processes": workers, "seconds": took}


def _change_all(made: World, url: str, deployments: int, changes: int, say: Say) -> int:
    """Create and change them through both servers in turn; how many server processes were seen to hold leases."""
    installation = made.installation
    assert isinstance(installation, Parts)
    headers = {"authorization": f"Bearer {installation.token}"}
    clients = [
        httpx.Client(base_url=it, headers=headers, timeout=60, trust_env=False) for it in installation.urls
    ]
    holders: set[str] = set()
    over = threading.Event()

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not over.wait(0.002):
                rows = connection.execute(
                    "SELECT DISTINCT worker FROM work WHERE worker IS NOT NULL"
                ).fetchall()
                holders.update(row[0] for row in rows)

    def change(job: tuple[int, int]) -> None:
        number, turn = job
        client = clients[(number + turn) % 2]
        wish = made.wish("first", name=f"busy-{number}", replicas=0)
        wish["spec"]["runtime"]["maxBatch"] = turn + 1
        path = f"/api/v1/workspaces/default/deployments/busy-{number}"
        while True:
            if turn:
                wish["metadata"]["resourceVersion"] = client.get(path).json()["metadata"]["resourceVersion"]
            answer = client.post("/api/v1/apply", json=wish)
            # A status that was written in between is another version: nothing was changed, read again.
            if not turn or answer.status_code != httpx.codes.CONFLICT:
                break
        assert answer.status_code in (httpx.codes.OK, httpx.codes.CREATED), answer.text

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            for turn in range(changes + 1):
                say(f"two servers, change {turn} of {changes} of {deployments} Deployments")
                list(pool.map(change, [(number, turn) for number in range(deployments)]))
                until(lambda: _all_done(made, deployments), 120.0, lambda: "the Deployments do not settle")
    finally:
        over.set()
        watcher.join()
        for client in clients:
            client.close()
    pids = {int(holder.split("-")[-3]) for holder in holders}
    return len(pids & set(installation.server_pids))


def _all_done(made: World, deployments: int) -> bool:
    found = made.installation.client.list("Deployment")
    done = [
        item for item in found
        if item.status.observed_generation == item.metadata.generation
        and item.status.latest_revision is not None
    ]  # fmt: skip
    return len(done) == deployments


def _count_twice(made: World, deployments: int, changes: int) -> Row:
    """What was written, from the objects themselves and from the audit trail."""
    client = made.installation.client
    wrong: list[str] = []
    wanted = list(range(1, changes + 2))
    found = list(client.list("Revision"))
    for number in range(deployments):
        name = f"busy-{number}"
        own = sorted((it for it in found if it.spec.deployment == name), key=lambda it: it.spec.number)
        if [it.spec.number for it in own] != wanted or [it.spec.runtime.max_batch for it in own] != wanted:
            wrong.append(f"{name}: revisions {[(it.spec.number, it.spec.runtime.max_batch) for it in own]}")
    audit = [row for row in client.audit(limit=100_000) if str(row["name"]).startswith("busy-")]
    told = Counter((row["kind"], row["verb"], row["name"]) for row in audit)
    once = {key: count for key, count in told.items() if key[1] == "create" and count != 1}
    updates = {
        key: count for key, count in told.items() if key[:2] == ("Deployment", "update") and count != changes
    }
    return {
        "part": f"2 servers, {deployments} Deployments, {changes} changes each",
        "revisions": len(found),
        "revisions_wanted": deployments * len(wanted),
        "audit_rows": len(audit),
        "taken_twice_or_lost": len(wrong) + len(once) + len(updates),
        "right": not wrong and not once and not updates and len(found) == deployments * len(wanted),
        "wrong": wrong[:3] + [str(item) for item in (*once.items(), *updates.items())][:3],
    }


# --- a configuration that Envoy refuses ------------------------------------------------------------------------


def break_candidate(found: dict[str, Any]) -> None:
    """Give the candidate's replicas an address that Envoy does not take."""
    if found["kind"] == "Revision" and found["metadata"]["name"] == f"{NAME}-00002":
        for replica in found["status"].get("replicas", ()):
            replica["address"] = BAD_ADDRESS


def refused(rate: float, say: Say) -> Row:
    """A rollout whose candidate Envoy refuses to route to. The fault is put in between server and gateway agent, since
    no spec that the API lets through makes Envoy refuse."""
    with world(say, make=lambda home: Parts(home, alter=break_candidate), roles=["first", "second"]) as made:
        made.settle("first")
        say("a rollout that Envoy refuses")
        with made.load(rate) as load:
            made.apply("second")
            ended = made.rollout_ends(2)
            finished = time.time()
            load.wait_until(lambda answers: bool(answers.since(finished + 1)), 60)
        answers = load.answers
        shifted = next((it.at for it in ended.status.decisions if it.decision == "start"), None)
        assert shifted is not None and ended.status.verdict_at is not None, ended.status.decisions
        on_candidate = answers.by_revision()[f"{NAME}-00002"]
        words = ended.status.message
        return {
            "part": "a configuration that Envoy refuses",
            "outcome": ended.status.phase,
            "words": words,
            "seconds_to_verdict": (ended.status.verdict_at - shifted).total_seconds(),
            "requests": len(answers.rows),
            "failed": len(answers.failures()),
            "answered_by_candidate": on_candidate,
            "right": ended.status.phase == "RolledBack" and "refused the configuration" in words
            and "UNIX" in words and not answers.failures() and not on_candidate,
        }  # fmt: skip


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="of the writers (default: %(default)s)")
    parser.add_argument("--deployments", type=int, default=100, help="on two servers (default: %(default)s)")
    parser.add_argument("--changes", type=int, default=5, help="of each of them (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests per second while Envoy refuses")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    console = Console()
    rows: list[Row] = []
    with console.status("setting up") as status:
        with world(status.update) as made:
            rows.append(writers(made, options.writers, options.rounds, status.update))
        rows.append(two_servers(options.deployments, options.changes, status.update))
        rows.append(refused(options.rate, status.update))
    for row in rows:
        facts = [
            {"figure": key.replace("_", " "), "value": value} for key, value in row.items() if key != "part"
        ]
        report.show(row["part"], facts, console)
    console.print(f"written to {report.write('concurrency', rows, options.json)}")
    return 0 if all(row["right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
