"""What is done to an installation while requests flow, and how many of them fail: one function per disruption.

Called by `availability` (long, at full rate) and by tests/chaos (short). Each takes a World whose Deployment is served
and leaves it so; each raises TimeoutError or AssertionError when the disruption itself does not come out right, so that
"no failed request" is never said of something that did not happen.
"""

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.world import NAME, World, kill, until
from podium.demo.load import Answer, quantile
from podium.resources.kinds import Rollout

MIGRATION = '''"""What an upgrade would bring: a new column with data in it, and a table of its own."""

import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{down}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("gateways") as batch:
        batch.add_column(sa.Column("zone", sa.Text, nullable=False, server_default="here"))
    op.create_table("prices", sa.Column("uid", sa.Text, sa.ForeignKey("resources.uid"), primary_key=True))
    op.execute("INSERT INTO prices (uid) SELECT uid FROM resources")
'''


@dataclass(frozen=True)
class Seen:
    """What the clients saw while it happened. `note`: what was done, in words and figures."""

    requests: int
    failures: list[Answer]
    seconds: float
    latencies: list[float]
    note: str

    @property
    def words(self) -> str:
        """The failures, for an error message."""
        kinds = Counter(f"{row.status or 'no answer'} {row.error}".strip() for row in self.failures)
        return f"{len(self.failures)} of {self.requests} requests failed ({self.note}): {dict(kinds)}"

    def row(self, title: str) -> dict[str, Any]:
        """For a table."""
        return {
            "while": title,
            "requests": self.requests,
            "per_second": self.requests / self.seconds,
            "failed": len(self.failures),
            "p50_ms": 1000 * quantile(self.latencies, 0.5),
            "p99_ms": 1000 * quantile(self.latencies, 0.99),
            "worst_ms": 1000 * max(self.latencies, default=0.0),
            "what": self.note,
        }


Disruption = Callable[[World], str]


def under_load(world: World, disruption: Disruption, *, rate: float, after: float = 1.0) -> Seen:
    """Do it while `rate` requests per second flow, and for `after` seconds more; every request is waited for."""
    with world.load(rate) as load:
        note = disruption(world)
        ended = time.time()
        load.wait_until(lambda answers: bool(answers.since(ended + after)), after + 60)
    rows = list(load.answers.rows)
    first, last = min(row.started for row in rows), max(row.started for row in rows)
    latencies = [row.seconds for row in rows if not row.failed]
    return Seen(len(rows), load.answers.failures(), last - first, latencies, note)


def served(world: World) -> str:
    """The role of the version that takes the traffic."""
    number = world.deployment().status.served_version
    return next(role for role, version in world.versions.items() if version == number)


def other(world: World, of: str | None = None) -> str:
    """Of the two good versions, not that one (None: not the one that is served)."""
    return "second" if (of or served(world)) == "first" else "first"


def scale(world: World, replicas: int) -> None:
    """So many replicas of what is served; no rollout."""
    world.settle(served(world), replicas=replicas)


def _begin(world: World) -> tuple[int, str]:
    """Open a rollout to the other good version: its number and the candidate's role."""
    role, before = other(world), world.settled()
    world.apply(role)
    return before.status.rollout_count + 1, role


def _moving(world: World, number: int) -> Rollout:
    """Once the candidate has its first share, and the gateway has loaded that."""
    return world.rollout_reaches(number, lambda it: it.status.weight > 0 and it.status.loaded)


def _promoted(world: World, number: int) -> Rollout:
    """The rollout, which must be promoted, having taken each of its steps once."""
    ended = world.rollout_ends(number)
    taken = [
        item.decision for item in ended.status.decisions if item.decision in ("start", "advance", "promote")
    ]
    assert ended.status.phase == "Promoted", f"{ended.status.phase}: {ended.status.message}"
    assert taken == ["start", "advance", "promote"], f"steps taken: {taken}"
    assert world.settled().status.rollout_count == number, "another rollout was opened"
    return ended


# --- planned ---------------------------------------------------------------------------------------------------


def rollout(world: World) -> str:
    """A good candidate, step by step, with the analysis, to the end."""
    began = time.monotonic()
    number, _ = _begin(world)
    _promoted(world, number)
    return f"promoted after {time.monotonic() - began:.1f} s"


def abort(world: World) -> str:
    """A person takes a good candidate back in the middle of its rollout."""
    number, role = _begin(world)
    _moving(world, number)
    world.installation.client.rollout(NAME, "abort")
    ended = world.rollout_ends(number)
    assert ended.status.phase == "RolledBack", ended.status.phase
    # What was taken back is not tried again until something else is wished for: wish for what is served.
    world.apply(other(world, of=role))
    kept = world.settled().status.stable_revision
    assert kept == ended.spec.stable_revision, f"{kept} is served"
    return f"aborted at {_weight_before_end(ended)} %"


def _weight_before_end(ended: Rollout) -> int:
    return next(item.weight for item in ended.status.decisions if item.decision == "rollback")


def rollback(world: World) -> str:
    """`podium rollback`: all traffic back to the revision before, whose replicas are not running any more."""
    number, _ = _begin(world)
    before = _promoted(world, number).spec.stable_revision
    _run(world, "podium.cli", "rollback", NAME)
    ended = world.rollout_ends(number + 1)
    assert (ended.status.phase, ended.spec.cause) == ("Promoted", "rollback"), ended.status.message
    assert world.settled().status.stable_revision == before
    return f"back to {before}"


def _run(world: World, *command: str) -> None:
    """A module of ours on the command line."""
    own = {"PODIUM_URL": world.installation.addresses()["url"], "PODIUM_TOKEN": world.installation.token}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**world.installation.environment, **own}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"


def migration(world: World) -> str:
    """Down with --keep-serving, an upgrade that brings a migration, up again."""
    installation = world.installation
    envoy = world.pid("envoy")
    installation.stop(keep_serving=True)
    folder = installation.home / "upgrade"
    if "PODIUM_MIGRATIONS" not in installation.environment:
        folder.mkdir()
        (folder / "9001_next.py").write_text(MIGRATION.format(down=_schema(world)))
        installation.environment["PODIUM_MIGRATIONS"] = str(folder)
    began = time.monotonic()
    installation.start()
    seconds = time.monotonic() - began
    assert _schema(world) == "9001", f"the database is at {_schema(world)}"
    assert world.pid("envoy") == envoy, "Envoy was restarted"
    world.settled()
    return f"up again, migrated, after {seconds:.1f} s"


def _schema(world: World) -> str:
    """The database's revision, read past Podium."""
    connection = sqlite3.connect(f"file:{world.installation.home / 'podium.db'}?mode=ro", uri=True)
    try:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    finally:
        connection.close()


def gateway_upgrade(world: World) -> str:
    """A new Envoy takes over from the running one in place."""
    before = world.envoys()[-1]
    _run(world, "podium.app", "gateway-upgrade", "--home", str(world.installation.home))

    def handed_over() -> dict[str, Any] | None:
        now = world.envoys()
        return now[-1] if len(now) == 1 and now[-1]["pid"] not in (0, before["pid"]) else None

    after = until(handed_over, 60.0, lambda: f"no new Envoy: {world.envoys()}")
    # The old one ends by itself when its drain is over; until then it may still answer.
    until(lambda: not _exists(before["pid"]), 60.0, lambda: f"the old Envoy ({before['pid']}) does not end")
    return f"restart epoch {before['restart_epoch']} -> {after['restart_epoch']}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- killed ----------------------------------------------------------------------------------------------------


def server_killed(world: World, pause: float = 0.0) -> str:
    """SIGKILL to the server in the middle of a rollout, `pause` seconds after its first step has begun."""
    number, _ = _begin(world)
    _moving(world, number)
    time.sleep(pause)
    before = world.rollout(number)
    assert before is not None
    began = time.monotonic()
    world.replaced("server", world.kill("server"))
    world.installation.wait_ready()
    seconds = time.monotonic() - began
    ended = _promoted(world, number)
    known = [item.decision for item in before.status.decisions]
    kept = [item.decision for item in ended.status.decisions][: len(known)]
    assert kept == known, f"decisions were lost: {known} became {kept}"
    return f"killed at {before.status.weight} %, back after {seconds:.1f} s, went on and was promoted"


def server_killed_often(world: World, pauses: list[float]) -> str:
    """SIGKILL to the server again and again during one rollout, each `pause` seconds after it has answered again."""
    number, _ = _begin(world)
    met = []
    for pause in pauses:
        time.sleep(pause)
        found = world.rollout(number)
        met.append(found.status.phase if found else "not opened")
        world.replaced("server", world.kill("server"))
        world.installation.wait_ready()
    _promoted(world, number)
    wanted = world.deployment().spec.replicas
    _no_stray(world, wanted)
    return f"killed {len(pauses)} times ({', '.join(met)}), promoted"


def _no_stray(world: World, replicas: int) -> None:
    """Every process under the replicas' folder belongs to a replica that is on record: a shim and its model each."""
    known = {item.pid for item in world.stable().status.replicas}
    found = {process.pid for process in world.replica_processes()}
    stable = world.stable()
    known |= {world.shim_pid(stable, item.name) for item in stable.status.replicas}
    assert found == known and len(known) == 2 * replicas, f"processes {found}, on record {known}"


def agent_killed(world: World) -> str:
    """SIGKILL to the gateway agent: Envoy serves on, the next agent adopts it and reports again."""
    envoy, version = world.pid("envoy"), _observed(world)
    began = time.monotonic()
    world.replaced("gateway", world.kill("gateway"))
    # A commit that only the new agent can report as loaded.
    world.installation.client.apply(
        {"apiVersion": "podium/v1", "kind": "Workspace", "metadata": {"name": f"w{version}"}}
    )
    until(lambda: _observed(world) > version, 60.0, lambda: "the new agent reports nothing")
    assert world.pid("envoy") == envoy, "Envoy was restarted"
    return f"Envoy adopted and reported after {time.monotonic() - began:.1f} s"


def _observed(world: World) -> int:
    return max((int(row["observedVersion"]) for row in world.installation.client.gateways()), default=0)


def replica_killed(world: World) -> str:
    """SIGKILL to one of two model processes."""
    stable = world.stable()
    victim = stable.status.replicas[0]
    assert victim.pid is not None
    return _replica_ends(world, victim.name, victim.pid)


def shim_killed(world: World) -> str:
    """SIGKILL to the shim of one of two replicas: its model process must not live on."""
    stable = world.stable()
    victim = stable.status.replicas[0]
    assert victim.pid is not None
    note = _replica_ends(world, victim.name, world.shim_pid(stable, victim.name))
    assert not _exists(victim.pid), "the model process outlived its shim"
    return note


def _replica_ends(world: World, name: str, pid: int) -> str:
    wanted = world.deployment().spec.replicas
    assert wanted >= 2, "it takes two to do this"
    began = time.monotonic()
    kill(pid)

    def replaced() -> bool:
        found = world.stable().status
        return found.ready_replicas == wanted and name not in {item.name for item in found.replicas}

    until(replaced, 60.0, lambda: f"{name} is not replaced: {world.stable().status}")
    return f"replaced after {time.monotonic() - began:.1f} s"


def everything_killed(world: World) -> str:
    """SIGKILL to supervisor, server and gateway agent: what serves goes on; `podium up` adopts all of it."""
    envoy = world.pid("envoy")
    replicas = {item.pid for item in world.stable().status.replicas}
    for part in ("supervisor", "server", "gateway"):
        world.kill(part)
    began = time.monotonic()
    time.sleep(2.0)  # not a wait for something: so long the traffic has to go on without any of them
    assert not any(world.installation.processes().values()), "something was restarted by nobody"
    world.installation.start()
    world.settled()
    assert world.pid("envoy") == envoy, "Envoy was restarted"
    assert {item.pid for item in world.stable().status.replicas} == replicas, "replicas were restarted"
    return f"without any of them for {time.monotonic() - began:.1f} s, then adopted"


# --- Envoy itself ----------------------------------------------------------------------------------------------


def envoy_killed(world: World) -> str:
    """SIGKILL to Envoy: how many seconds until predictions are answered again."""
    return f"answers again {_outage(world):.2f} s after the kill"


def envoy_killed_alone(world: World) -> str:
    """The same while supervisor and server are dead: only the gateway agent is there to start it again."""
    agent = world.pid("gateway")
    for part in ("supervisor", "server"):
        world.kill(part)
    seconds = _outage(world)
    found = world.installation.processes()
    assert found["server"] is None and found["supervisor"] is None, "the server was there"
    assert found["gateway"] == agent, "the gateway agent was restarted"
    world.installation.start()
    world.settled()
    return f"answers again {seconds:.2f} s after the kill"


def _outage(world: World) -> float:
    """Kill Envoy; seconds from then to the first good answer of a client that asks all the time."""
    old = world.pid("envoy")
    url = f"{world.installation.gateway}/v2/models/{NAME}/infer"
    headers = {"authorization": f"Bearer {world.installation.token}"}
    began = time.monotonic()
    kill(old)
    with httpx.Client(headers=headers, timeout=2, trust_env=False) as client:
        while time.monotonic() - began < 60:
            try:
                if client.post(url, content=world.bodies[0]).status_code == 200:
                    seconds = time.monotonic() - began
                    until(lambda: world.pid("envoy") != old, 10.0, lambda: "the old Envoy is still on record")
                    return seconds
            except httpx.TransportError:
                time.sleep(0.002)
    raise AssertionError(f"Envoy does not answer\n{world.installation.last_words()}")
