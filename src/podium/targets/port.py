"""What the control plane needs of whatever runs replicas. One file or package per technology beside this one."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from podium.resources.revision import RevisionSpec


@dataclass(frozen=True)
class ReplicaWish:
    """One replica that should run."""

    name: str
    workspace: str
    revision: str
    revision_uid: str
    deployment: str
    spec: RevisionSpec
    python: Path
    model_path: Path
    manifest_path: Path
    extra_read_paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ReplicaObservation:
    """One replica as it is now."""

    name: str
    revision_uid: str
    phase: Literal["Starting", "Ready", "Draining", "Exited"]
    address: str
    pid: int | None
    started_at: datetime.datetime | None
    exit_code: int | None
    log_tail: Sequence[str]
    sandbox: str


class Target(Protocol):
    """Starts, observes and stops replicas. Every call is idempotent."""

    def start(self, wish: ReplicaWish) -> ReplicaObservation:
        """Start it unless it runs already."""

    def observe(self, revision_uid: str) -> list[ReplicaObservation]:
        """All replicas of the revision, those that ended too until they are forgotten."""

    def stop(self, name: str, grace: float) -> None:
        """Ask it to drain; it is killed after `grace` seconds. Returns at once."""

    def forget(self, name: str) -> None:
        """Remove what is left of one that ended."""

    def logs(self, name: str, lines: int) -> list[str]:
        """The last lines that it wrote."""


class ExitWatch(Protocol):
    """A target that can tell at once when a replica ends."""

    def watch(self, callback: Callable[[str], None]) -> None:
        """`callback(revision_uid)` from any thread."""
