"""A Podium of its own with real model versions: what the benchmarks of the whole path and the chaos tests start from.

Called by `availability`, `rollback`, `scale`, `disruptions` and tests/chaos. Everything is asked for through the client
and the command line, as a user would. Processes are signalled only under pids that this installation's own files name.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from benchmarks.versions import train
from podium.demo.installation import Installation
from podium.demo.load import Load, running
from podium.resources.errors import NotFound, Unavailable
from podium.resources.kinds import Deployment, Revision, Rollout
from podium.resources.rollout import FINAL_PHASES

T = TypeVar("T")
NAME = "patients"
"""The model, and the Deployment that serves it."""
STEPS = [{"weight": 20, "requests": 50}, {"weight": 50, "requests": 150}]
REQUEST_TIMEOUT = "4s"
"""Proof counts requests from one such timeout after a shift on: a rollout's last step takes at least as long."""


class World:
    """An installation, its versions and its Deployment."""

    def __init__(self, installation: Installation, versions: dict[str, str], bodies: list[bytes]) -> None:
        self.installation = installation
        self.versions = versions
        """Version numbers by role: `first`, `second` (both good), `failing`."""
        self.bodies = bodies

    # --- wishes ------------------------------------------------------------------------------------------------

    def wish(self, role: str, *, name: str = NAME, replicas: int = 1, **rollout: Any) -> dict[str, Any]:
        """A Deployment of one version, as a user would have it in a file; `rollout` is put into its settings."""
        settings = {
            "strategy": {"type": "canary", "steps": STEPS, "keepOld": "1s"},
            "analysis": {"errorRate": {"margin": 0.05}, "refusalRate": {"margin": 0.05}},
            **rollout,
        }
        model = {"name": NAME, "version": self.versions[role]}
        return {
            "apiVersion": "podium/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "model": model, "replicas": replicas, "rollout": settings,
                "runtime": {"requestTimeout": REQUEST_TIMEOUT, "drain": "10s"},
            },
        }  # fmt: skip

    def apply(self, role: str, **wish: Any) -> Deployment:
        """Apply such a wish; the Deployment as it was answered."""
        from podium.resources.kinds import KINDS

        answer = self.installation.client.apply(self.wish(role, **wish))
        return KINDS["Deployment"].parse(answer.object)

    def settle(self, role: str, seconds: float = 90.0, **wish: Any) -> Deployment:
        """Apply it and wait until all of it is served and nothing moves any more."""
        self.apply(role, **wish)
        return self.settled(wish.get("name", NAME), seconds)

    def settled(self, name: str = NAME, seconds: float = 90.0) -> Deployment:
        """The Deployment, once its wish is served by as many replicas as it wants, and no other is left."""

        def quiet() -> Deployment | None:
            found = self.deployment(name)
            status = found.status
            if status.observed_generation != found.metadata.generation or status.rollout is not None:
                return None
            if status.rejected is None and status.latest_revision != status.stable_revision:
                return None
            replicas = {item.metadata.name: item.status for item in self.revisions(name)}
            idle = all(not it.replicas for key, it in replicas.items() if key != status.stable_revision)
            stable = replicas.get(status.stable_revision or "")
            ready = stable is not None and stable.ready_replicas == found.spec.replicas == len(
                stable.replicas
            )
            return found if idle and ready and not status.retiring else None

        return until(quiet, seconds, lambda: f"{name} does not settle: {self.deployment(name).status}")

    # --- what is -----------------------------------------------------------------------------------------------

    def deployment(self, name: str = NAME) -> Deployment:
        """As the server has it now."""
        found: Deployment = self.installation.client.get("Deployment", name)
        return found

    def revisions(self, name: str = NAME) -> list[Revision]:
        """All of the Deployment's revisions."""
        return list(self.installation.client.list("Revision", fields=f"spec.deployment={name}"))

    def stable(self, name: str = NAME) -> Revision:
        """The revision that takes the traffic."""
        found: Revision = self.installation.client.get(
            "Revision", str(self.deployment(name).status.stable_revision)
        )
        return found

    def rollout(self, number: int, name: str = NAME) -> Rollout | None:
        """The Deployment's n-th rollout, if it has been opened."""
        try:
            found: Rollout = self.installation.client.get("Rollout", f"{name}-{number}")
        except NotFound:
            return None
        return found

    def rollout_reaches(
        self, number: int, condition: Callable[[Rollout], object], seconds: float = 90.0, name: str = NAME
    ) -> Rollout:
        """The rollout, once `condition` holds for it. Raises TimeoutError with its words, also when it ended before."""

        def look() -> Rollout | None:
            found = self.rollout(number, name)
            if found is None or condition(found):
                return found
            if found.status.phase in FINAL_PHASES:
                raise TimeoutError(
                    f"{found.metadata.name} ended: {found.status.phase}, {found.status.message}"
                )
            return None

        def words() -> str:
            found = self.rollout(number, name)
            return f"{name}-{number}: {found.status.phase + ', ' + found.status.message if found else 'not opened'}"

        return until(look, seconds, words)

    def rollout_ends(self, number: int, seconds: float = 90.0, name: str = NAME) -> Rollout:
        """The rollout, once it is over."""
        return self.rollout_reaches(number, lambda it: it.status.phase in FINAL_PHASES, seconds, name)

    def load(
        self, rate: float, *, name: str = NAME, timeout: float = 30.0
    ) -> contextlib.AbstractContextManager[Load]:
        """A constant stream of predictions, entered when it flows."""
        url = f"{self.installation.gateway}/v2/models/{name}/infer"
        made = Load(url, self.bodies, rate=rate, token=self.installation.token, timeout=timeout)
        return running(made, requests=max(20, int(rate / 4)), timeout=60.0)

    # --- processes ---------------------------------------------------------------------------------------------

    def pid(self, part: str) -> int:
        """Of `supervisor`, `server`, `gateway` or `envoy`, from the installation's own files."""
        if part == "envoy":
            return int(self.envoys()[-1]["pid"])
        found = self.installation.processes()[part]
        if found is None:
            raise Unavailable(f"the {part} does not run\n{self.installation.last_words()}")
        return found

    def envoys(self) -> list[dict[str, Any]]:
        """What the gateway agent keeps on the Envoys that it started: one, or two during a handover."""
        return list(
            json.loads((self.installation.home / "gateway" / "envoy.json").read_bytes())["incarnations"]
        )

    def shim_pid(self, revision: Revision, replica: str) -> int:
        """Of the shim that keeps this replica."""
        folder = self.installation.home / "replicas" / revision.uid / replica
        return int(json.loads((folder / "state.json").read_bytes())["shim"]["pid"])

    def kill(self, part: str) -> int:
        """SIGKILL to a part; its pid, once it is gone."""
        return kill(self.pid(part))

    def replaced(self, part: str, before: int, seconds: float = 60.0) -> int:
        """The pid of the process that came in the place of another one."""

        def other() -> int | None:
            pid = self.installation.processes()[part]
            return pid if pid not in (None, before) else None

        return until(other, seconds, lambda: f"no new {part}\n{self.installation.last_words()}")

    def replica_processes(self) -> list[psutil.Process]:
        """Every process of this installation's replicas: shims, and model servers (their configuration lies there)."""
        folder = str(self.installation.home / "replicas")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(argument.startswith(folder) for argument in process.cmdline()):
                    found.append(process)
        return found


def kill(pid: int) -> int:
    """SIGKILL, and wait until the process is gone (a zombie is)."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not _runs(pid), 20.0, lambda: f"pid {pid} does not end")
    return pid


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(look: Callable[[], T | None], seconds: float, words: Callable[[], str], pause: float = 0.05) -> T:
    """The first true answer; a server that is away meanwhile is waited for. Raises TimeoutError with `words`."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Unavailable, OSError):
            if answer := look():
                return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s: {words()}")
        time.sleep(pause)


def _in_silence(text: str) -> None:
    """Nobody wants to know."""


@contextlib.contextmanager
def world(
    say: Callable[[str], object] = _in_silence,
    *,
    make: Callable[[Path], Installation] = Installation,
    roles: Sequence[str] = ("first", "second", "failing"),
) -> Iterator[World]:
    """A fresh installation with these versions pushed; stopped and removed at the end, also after an error.

    With KEEP_WORLD in the environment its folder stays.
    """
    folder = Path(tempfile.mkdtemp(prefix="pb-", dir="/tmp"))
    installation = make(folder / "home")
    try:
        say("training models")
        lesson = train(folder / "models")
        say("starting Podium")
        installation.start()
        versions = {}
        for role in roles:
            say(f"pushing the {role} version")
            versions[role] = installation.client.push(NAME, lesson.files[role]).version.spec.version
        yield World(installation, versions, lesson.bodies)
    finally:
        try:
            installation.stop()
        finally:
            if os.environ.get("KEEP_WORLD"):
                print(f"kept: {folder}", file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)
