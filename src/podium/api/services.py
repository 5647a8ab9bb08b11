"""What the API stands on: handed to `create_app` by `podium.app`, kept on the application, no globals.

The Protocols are what the API needs done by parts that it must not know: pushes and profiles (registry, environments,
model processes) and the logs of replicas (targets). `podium.app` has the classes behind them.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import Request

from podium.api.tokens import TokenAuthority
from podium.registry.blobs import BlobStore
from podium.resources.profile import ProfileRequest
from podium.resources.requests import ImportRequest, PushRequest, ReplicaLog
from podium.store import Actor, Store


class Publisher(Protocol):
    """Makes model versions. Both give `{"progress": text}` any number of times, then one `{"version": document,
    "created": bool}`; what goes wrong is raised as a PodiumError, also from within the iteration."""

    def push(
        self, workspace: str, model: str, request: PushRequest, actor: Actor
    ) -> Iterator[dict[str, Any]]:
        """Files that are blobs already, as a new version (or the one that they are)."""

    def import_(
        self, workspace: str, model: str, request: ImportRequest, actor: Actor
    ) -> Iterator[dict[str, Any]]:
        """A version of a foreign registry as one of ours."""


class Profiler(Protocol):
    """Measures a version."""

    def profile(
        self, workspace: str, name: str, request: ProfileRequest, actor: Actor
    ) -> Generator[dict[str, Any], None, None]:
        """`{"progress": text}` at least once a second, then one `{"version": document}`, in whose status the result
        is. Raises PodiumError, also from within. Closing it ends the measurement and its processes."""


class ReplicaLogs(Protocol):
    """Reads what replicas wrote."""

    def logs(self, workspace: str, deployment: str, replica: str | None, lines: int) -> list[ReplicaLog]:
        """The last `lines` lines of each replica, or of one. Raises NotFound for an unknown replica."""


@dataclass(frozen=True)
class Limits:
    """Bytes of a request's body, by what it is."""

    document: int = 2**20
    """Applied documents, actions, tokens."""
    push: int = 64 * 2**20
    """The list of files of a push: 100,000 of them fit."""
    report: int = 64 * 2**20
    """A gateway's report."""
    blob: int = 64 * 2**30
    """One file of a model."""


@dataclass(frozen=True)
class ApiSettings:
    """How the API behaves."""

    tokens_required: bool = True
    """Told to the gateways: whether a prediction needs a token. The API itself always wants one."""
    limits: Limits = field(default_factory=Limits)
    watch_heartbeat: float = 10.0
    """Seconds between two signs of life on a watch on which nothing happens."""


@dataclass(frozen=True)
class Services:
    """Everything that routes reach for."""

    store: Store
    tokens: TokenAuthority
    blobs: BlobStore
    publisher: Publisher
    profiler: Profiler
    logs: ReplicaLogs
    settings: ApiSettings
    version: str
    runtime_wheel: str
    """sha256 of the runtime's wheel, as the reconcilers have it: a dry run decides as they do."""


async def services_of(request: Request) -> Services:
    """The services of the application that this request came to; a FastAPI dependency."""
    services: Services = request.app.state.services
    return services
