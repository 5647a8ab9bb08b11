"""Real gateway agents with real Envoys, told what exists by a list in memory instead of a server.

Called by `users` and `routes`: what they measure is the gateway's own, and thousands of Deployments are there at once.
"""

import asyncio
import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from podium.gateway.agent import Agent
from podium.gateway.feed import Change, Listing, Report
from podium.gateway.render.access import AccessRules, open_access
from podium.gateway.settings import GatewaySettings
from podium.resources.deployment import DeploymentSpec, DeploymentStatus
from podium.resources.kinds import AnyResource, Deployment, Revision, Route
from podium.resources.revision import ReplicaState, RevisionSpec, RevisionStatus
from podium.resources.route import RouteSpec, RouteStatus
from podium.resources.shape import DEFAULT_WORKSPACE, Metadata, Resource


class Objects:
    """What exists. It is the feed of any number of agents."""

    def __init__(self) -> None:
        self._changes: list[Change] = []
        self._held: dict[tuple[str, str], AnyResource] = {}
        self._more = asyncio.Condition()
        self._version = 1

    async def put(self, objects: Iterable[AnyResource]) -> int:
        """Commit these together; the version of the commit."""
        self._version += 1
        made = []
        for item in objects:
            metadata = item.metadata.model_copy(update={"resource_version": self._version})
            stored = item.model_copy(update={"metadata": metadata})
            self._held[item.kind, item.metadata.name] = stored
            made.append(stored)
        for place, stored in enumerate(made, 1):
            last = place == len(made)
            self._changes.append(Change(self._version, self._version if last else self._version - 1, stored))
        async with self._more:
            self._more.notify_all()
        return self._version

    async def access(self) -> AccessRules:
        """Everybody may call."""
        return open_access()

    async def listing(self) -> Listing:
        """Everything."""
        return Listing(list(self._held.values()), self._version)

    async def watch(self, after: int) -> AsyncIterator[Sequence[Change]]:
        """What comes."""
        while True:
            found = [change for change in self._changes if change.version > after]
            if found:
                after = self._version
                yield found
                continue
            async with self._more:
                await self._more.wait()


class _Silent:
    """Nobody hears the reports."""

    async def report(self, report: Report) -> None:
        """Nothing."""


class Gateway:
    """One agent in this process, with its Envoy."""

    def __init__(self, objects: Objects, name: str, *, concurrency: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pb", dir="/tmp"))
        self.settings = GatewaySettings(
            home=self.folder / "home",
            name=name,
            server_url="http://127.0.0.1:1",
            port=_free_port(),
            concurrency=concurrency,
            drain=0.0,
        )
        self.agent = Agent(self.settings, objects, _Silent())
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; it loads what there is."""
        self._task = asyncio.create_task(self.agent.run())

    async def loaded(self, version: int, seconds: float = 300.0) -> float:
        """Wait until this version is in force; the moment (monotonic) at which that was seen."""
        deadline = time.monotonic() + seconds
        while self.agent.observed_version < version:
            if self._task is not None and self._task.done():
                self._task.result()
            if time.monotonic() > deadline:
                raise TimeoutError(f"version {version} is not loaded after {seconds:g} s")
            await asyncio.sleep(0.001)
        return time.monotonic()

    async def stop(self) -> None:
        """Stop agent and Envoy, and remove what they wrote."""
        self.agent.stop_all()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(self._task, 60)
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def deployed(name: str, addresses: Sequence[str]) -> tuple[Deployment, Revision]:
    """A Deployment whose first revision has replicas at these addresses."""
    wish = DeploymentSpec.model_validate({"model": {"name": "m", "version": "1"}})
    revision = f"{name}-00001"
    replicas = [
        ReplicaState(name=f"{revision}-{place}", phase="Ready", address=address)
        for place, address in enumerate(addresses)
    ]
    return (
        Resource(
            kind="Deployment",
            metadata=Metadata(name=name, uid=f"uid-{name}"),
            spec=wish,
            status=DeploymentStatus(stable_revision=revision),
        ),
        Resource(
            kind="Revision",
            metadata=Metadata(name=revision, uid=f"uid-{revision}"),
            spec=RevisionSpec(
                deployment=name, deployment_uid=f"uid-{name}", number=1, model="m", version="1",
                manifest_digest="sha256:0", runtime_wheel="0", target="process", resources=wish.resources,
                runtime=wish.runtime, sandbox=wish.sandbox, idempotent=True, content_hash="0",
            ),
            status=RevisionStatus(phase="Ready", replicas=replicas, ready_replicas=len(replicas)),
        ),
    )  # fmt: skip


def routed(name: str, spec: dict[str, object]) -> Route:
    """A Route with this spec."""
    return Resource(
        kind="Route",
        metadata=Metadata(name=name, uid=f"uid-route-{name}", workspace=DEFAULT_WORKSPACE),
        spec=RouteSpec.model_validate(spec),
        status=RouteStatus(),
    )
