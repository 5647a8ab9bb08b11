"""The replica that is measured: one process of the version's own environment, in its box, as a Deployment would run it.

Called by `profiler`. Calls `targets.process`, over folders of its own: the reconcilers never see these replicas.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from podium.app.preparation import Prepared
from podium.resources.deployment import ResourceLimits, RuntimeSettings, SandboxSettings
from podium.resources.errors import InvalidInput, Issue
from podium.resources.kinds import ModelVersion
from podium.resources.profile import ProfileRequest
from podium.resources.revision import RevisionSpec
from podium.targets.port import ReplicaObservation, ReplicaWish
from podium.targets.process import ProcessTarget

_NAME = "profile"
_STARTUP_SECONDS = 600.0
_LOOK_SECONDS = 0.02
_GRACE_SECONDS = 1.0
_COUNTED = ("RssAnon:", "RssShmem:", "VmSwap:")
_SHOWN_LINES = 5


@dataclass(frozen=True)
class Running:
    """A replica that is ready."""

    name: str
    socket: str
    pid: int
    start_seconds: float
    sandbox: str
    path: str
    """Where to ask for predictions."""


class ReplicaEnded(InvalidInput):
    """It does not start, or ended while it was measured; the message has its own last words."""

    def __init__(self, what: str, observation: ReplicaObservation) -> None:
        words = " ".join(observation.log_tail[-_SHOWN_LINES:])[-1500:]
        super().__init__(Issue("version", f"{what}: {words or 'it said nothing'}"))


class Bench:
    """Where replicas are measured. `root`: their folders; `sockets`: a short, private one."""

    def __init__(self, root: Path, sockets: Path) -> None:
        self._root, self._sockets = root, sockets
        self._target = ProcessTarget(root, sockets)

    def sweep(self) -> int:
        """End what a server that died left here; how many there were."""
        left = self._target.observe_all()
        for replica in left:
            self._end(replica.name, replica.revision_uid)
        return len(left)

    def close(self) -> None:
        """No more replicas."""
        self._target.close()

    @contextmanager
    def replica(
        self,
        version: ModelVersion,
        prepared: Prepared,
        request: ProfileRequest,
        *,
        runtime_wheel: str,
        max_batch: int,
        check: Callable[[], None],
    ) -> Iterator[Running]:
        """A replica from ready to its end. `check` is called while it is waited for, and may raise.

        Raises ReplicaEnded when it does not become ready, Unavailable when it cannot be started at all.
        """
        uid = f"{_NAME}-{secrets.token_hex(8)}"
        wish = _wish(uid, version, prepared, request, (runtime_wheel, max_batch))
        began = time.monotonic()
        try:
            self._target.start(wish)
            while (seen := self.look(uid)).phase != "Ready":
                if seen.phase != "Starting":
                    raise ReplicaEnded("the model does not start", seen)
                check()
                time.sleep(_LOOK_SECONDS)
            yield Running(
                name=uid,
                socket=seen.address.removeprefix("unix:"),
                pid=seen.pid or 0,
                start_seconds=time.monotonic() - began,
                sandbox=seen.sandbox,
                path=f"/v2/models/{wish.deployment}/infer",
            )
        finally:
            self._end(wish.name, uid)

    def look(self, uid: str) -> ReplicaObservation:
        """The replica as it is now."""
        [seen] = self._target.observe(uid)
        return seen

    def _end(self, name: str, uid: str) -> None:
        """Ended and forgotten, whatever it does."""
        self._target.stop(name, _GRACE_SECONDS, revision_uid=uid)
        deadline = time.monotonic() + 30
        while any(seen.phase != "Exited" for seen in self._target.observe(uid)):
            if time.monotonic() > deadline:
                return  # the next sweep finds it
            time.sleep(_LOOK_SECONDS)
        self._target.forget(name, revision_uid=uid)


def _wish(
    uid: str, version: ModelVersion, prepared: Prepared, request: ProfileRequest, build: tuple[str, int]
) -> ReplicaWish:
    assert prepared.python is not None  # noqa: S101 - the profiler waited for the environment
    runtime_wheel, max_batch = build
    spec = RevisionSpec(
        deployment=version.spec.model,
        deployment_uid=uid,
        number=1,
        model=version.spec.model,
        version=version.spec.version,
        manifest_digest=version.spec.digest,
        runtime_wheel=runtime_wheel,
        target="process",
        resources=ResourceLimits(memory=request.memory, cpus=request.cpus),
        runtime=RuntimeSettings(
            max_batch=max_batch, startup_timeout=_STARTUP_SECONDS, drain=_GRACE_SECONDS, request_timeout=600.0
        ),
        sandbox=SandboxSettings(),
        idempotent=True,
        content_hash=uid,
    )
    return ReplicaWish(
        name=_NAME, workspace=version.metadata.workspace, revision=_NAME, revision_uid=uid,
        deployment=version.spec.model, spec=spec, python=prepared.python,
        model_path=prepared.model_path, manifest_path=prepared.manifest_path,
    )  # fmt: skip


def held_memory(pid: int) -> int:
    """Bytes that a process and its descendants hold, counted as a replica's limit counts them (decision 030)."""
    try:
        process = psutil.Process(pid)
        return sum(_resident(one.pid) for one in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_COUNTED))
