"""What the control plane needs of whatever runs replicas. One file or package per technology beside this one."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from podium.resources.revision import RevisionSpec

ReplicaPhase = Literal["Dormant", "Starting", "Ready", "Draining", "Exited"]


@dataclass(frozen=True)
class ReplicaWish:
    """One replica that should run."""

    name: str
    """Unique for ever within its revision."""
    workspace: str
    revision: str
    revision_uid: str
    deployment: str
    spec: RevisionSpec
    python: Path
    """The interpreter of its environment."""
    model_path: Path
    manifest_path: Path
    extra_read_paths: tuple[Path, ...] = ()
    dormant: bool = False
    """It listens, and starts its server when the first request comes, whether or not anything of Podium runs then."""


@dataclass(frozen=True)
class ReplicaObservation:
    """One replica as it is now."""

    name: str
    revision_uid: str
    phase: ReplicaPhase
    address: str
    """`unix:/path` or `http://127.0.0.1:port`, as the gateway reaches it."""
    pid: int | None
    started_at: datetime.datetime | None
    exit_code: int | None
    """Negative: the signal that ended it. None: it runs, never ran, or nobody saw how it ended."""
    log_tail: Sequence[str]
    """Of one that ended: its last lines, and at the end how it ended, in words."""
    sandbox: str
    """The level reached: `none`, `files`, `full`; empty before it is known."""
    woken: bool = False
    """It was dormant, and a request started it; `started_at` is when."""


@dataclass(frozen=True)
class RecordMark:
    """How far the records of one replica were read."""

    segment: int
    offset: int
    """Bytes into that segment."""
    seen: int
    """Answers read or lost until then, by the replica's own count."""


@dataclass(frozen=True)
class ReplicaRecords:
    """What a replica wrote down about its answers since a mark. Model code could have written all of it."""

    replica: str
    lines: Sequence[bytes]
    mark: RecordMark
    """Where to go on."""
    lost: int
    """Answers that it could not write down, or that were gone before they were read."""
    more: bool
    """There is more to read at once."""


class Target(Protocol):
    """Starts, observes and stops replicas. Every call is idempotent, and any server may make it.

    A replica is meant by `name` and `revision_uid`. Names repeat between workspaces (and after a Deployment was made
    anew): without the uid a call means the one replica of that name, and raises Conflict where there are several.
    """

    def start(self, wish: ReplicaWish) -> ReplicaObservation:
        """Start it (or have it listen, where it is to be dormant) unless that was done before. Raises Refused,
        Unavailable."""

    def observe(self, revision_uid: str) -> list[ReplicaObservation]:
        """All replicas of the revision, those that ended too until they are forgotten."""

    def observe_all(self) -> list[ReplicaObservation]:
        """The same of every revision, those that nobody knows any more included."""

    def stop(self, name: str, grace: float, *, revision_uid: str | None = None) -> None:
        """Ask it to drain; it is killed after `grace` seconds. Returns at once; an unknown name is fine."""

    def forget(self, name: str, *, revision_uid: str | None = None) -> None:
        """Remove what is left of one that ended. One that runs, and an unknown name, is left alone."""

    def logs(self, name: str, lines: int, *, revision_uid: str | None = None) -> list[str]:
        """The last lines that it wrote, oldest first. Raises NotFound."""


class Recordings(Protocol):
    """A target whose replicas write down answers to requests that a shadow answers too."""

    def records(self, revision_uid: str, marks: Mapping[str, RecordMark]) -> list[ReplicaRecords]:
        """Of every replica of the revision that wrote any, from its mark on. A bounded part of it at once."""


class ProcessorClock(Protocol):
    """A target that knows how much processor time its replicas have used."""

    @property
    def processors(self) -> int:
        """That a replica can have at most."""

    def processor_times(self, revision_uid: str) -> Mapping[str, float]:
        """Replica -> seconds of processor time since its start, of it and all that it started; those that run."""


class ExitWatch(Protocol):
    """A target that can tell at once when a replica ends, and soon when a dormant one is woken."""

    def watch(self, callback: Callable[[str], None]) -> None:
        """`callback(revision_uid)` from any thread, for every replica that was started or observed."""
