"""Starts, observes and stops replicas as processes. All it knows lies in files: any server over the same folders sees
the same replicas, also those that another one started before it died.

    <root>/<revision uid>/<replica>/   the shim's folder (`processes.supervision`), with
        replica.json                   what was wished, written before anything is started
        config.json                    the model server's configuration
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from podium.processes import supervision
from podium.processes.exits import ExitWatcher
from podium.processes.identity import ProcessIdentity
from podium.resources.errors import IntegrityError, NotFound, PodiumError, Unavailable
from podium.targets.port import ReplicaObservation, ReplicaWish
from podium.targets.process.health import is_ready
from podium.targets.process.programs import configuration, program

_log = logging.getLogger("podium.targets.process")
_ABANDONED_SECONDS = 60.0
"""A folder that was prepared and never started for this long belongs to a starter that died."""


class ProcessTarget:
    """Replicas under `root`; their sockets in `sockets`, a short folder that only this user may enter."""

    def __init__(self, root: Path, sockets: Path) -> None:
        self._root, self._sockets = root, sockets
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._exits = ExitWatcher("replica-exits")
        self._callback: Callable[[str], None] | None = None
        self._watched: set[ProcessIdentity] = set()

    def start(self, wish: ReplicaWish) -> ReplicaObservation:
        """Start it unless it was started before. Raises Refused (the sandbox that is required cannot be reached, no
        Linux), Unavailable (the shim did not start, the disk is full)."""
        folder = self._root / wish.revision_uid / wish.name
        try:
            if supervision.observe(folder) is None and not supervision.stop_was_asked(folder):
                self._prepare(wish, folder)
                supervision.launch(folder)
        except OSError as error:
            raise Unavailable(
                f"replica {wish.name} could not be started: {error.strerror or error}"
            ) from None
        seen = self._observation(folder)
        if seen is None:
            raise Unavailable(f"replica {wish.name} was not started")
        return seen

    def _prepare(self, wish: ReplicaWish, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket = self._socket(folder)
        kept = {
            "name": wish.name,
            "revisionUid": wish.revision_uid,
            "socket": str(socket),
            "startupTimeout": wish.spec.runtime.startup_timeout,
            "drain": wish.spec.runtime.drain,
        }
        _write(folder / "replica.json", kept)
        config = folder / "config.json"
        _write(config, configuration(wish))
        supervision.prepare(folder, program(wish, folder, config, socket))

    def _socket(self, folder: Path) -> Path:
        digest = hashlib.sha256(f"{folder.parent.name}/{folder.name}".encode()).hexdigest()
        return self._sockets / f"{digest[:20]}.sock"

    def observe(self, revision_uid: str) -> list[ReplicaObservation]:
        """All of the revision's replicas by name, those that ended included until they are forgotten."""
        folder = self._root / revision_uid
        if not folder.is_dir():
            return []
        found = []
        for child in sorted(folder.iterdir()):
            seen = self._observation(child)
            if seen is not None:
                found.append(seen)
        return found

    def observe_all(self) -> list[ReplicaObservation]:
        """The replicas of all revisions."""
        return [seen for folder in sorted(self._root.iterdir()) for seen in self.observe(folder.name)]

    def _observation(self, folder: Path) -> ReplicaObservation | None:
        try:
            seen = supervision.observe(folder)
            kept = json.loads((folder / "replica.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            seen, kept = None, {}
        except (ValueError, IntegrityError) as error:
            _log.warning("%s: its files cannot be read: %s", folder.name, error)
            return None
        if seen is None:
            self._clear_abandoned(folder)
            return None
        phase: Literal["Starting", "Ready", "Draining", "Exited"]
        if seen.phase == "exited":
            phase = "Exited"
        elif seen.phase == "stopping" or supervision.stop_was_asked(folder):
            phase = "Draining"
        else:
            phase = "Ready" if is_ready(Path(kept["socket"])) else "Starting"
            self._watch_shim(folder, seen.shim)
            if phase == "Ready":
                (folder / "was-ready").touch(mode=0o600)
        if phase == "Starting":
            self._end_if_late(folder, kept, seen.started_at)
        tail = [*seen.log_tail, seen.reason] if seen.reason else list(seen.log_tail)
        return ReplicaObservation(
            name=folder.name,
            revision_uid=folder.parent.name,
            phase=phase,
            address=f"unix:{kept['socket']}",
            pid=seen.pid,
            started_at=seen.started_at,
            exit_code=seen.exit_code,
            log_tail=tail[-20:],
            sandbox=seen.sandbox,
        )

    @staticmethod
    def _end_if_late(folder: Path, kept: dict[str, Any], started_at: datetime) -> None:
        """One that is not ready in time is ended; the next look sees it exited. A replica that was ready before and is
        silent now has had its time too: it is replaced."""
        ready_marker = folder / "was-ready"
        age = (datetime.now(UTC) - started_at).total_seconds()
        if age > float(kept["startupTimeout"]) and not ready_marker.exists():
            _log.warning("%s was not ready within %g s: ended", folder.name, kept["startupTimeout"])
            supervision.stop(folder, 0.0)

    def _clear_abandoned(self, folder: Path) -> None:
        """A starter died between preparing and starting: nothing runs, nothing is lost."""
        with contextlib.suppress(OSError, PodiumError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                supervision.remove(folder)

    def stop(self, name: str, grace: float) -> None:
        """SIGTERM now, SIGKILL after `grace` seconds, both by the shim. Returns at once; unknown names are fine."""
        for folder in self._folders(name):
            if not supervision.stop_was_asked(folder):
                # The model server itself drains for that long; the shim's patience is a little longer.
                supervision.stop(folder, grace + 5.0 if grace else 0.0)

    def forget(self, name: str) -> None:
        """Remove what is left of one that ended, and end what a shim that was killed may have left behind."""
        for folder in self._folders(name):
            seen = supervision.observe(folder)
            if seen is not None and seen.phase != "exited":
                continue
            if seen is not None and seen.exit_code is None:
                supervision.kill_left_over(seen.shim.token)
            self._socket(folder).unlink(missing_ok=True)
            supervision.remove(folder)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()

    def logs(self, name: str, lines: int) -> list[str]:
        """The last lines that it wrote, oldest first. Raises NotFound."""
        for folder in self._folders(name):
            return supervision.read_log(folder, lines)
        raise NotFound(f"there is no replica {name}")

    def watch(self, callback: Callable[[str], None]) -> None:
        """`callback(revision_uid)` when a replica that was observed ends."""
        self._callback = callback

    def close(self) -> None:
        """Watch no more; replicas go on."""
        self._exits.close()

    def _watch_shim(self, folder: Path, shim: ProcessIdentity) -> None:
        if self._callback is None or shim in self._watched:
            return
        self._watched.add(shim)
        revision_uid = folder.parent.name

        def ended(identity: ProcessIdentity) -> None:
            self._watched.discard(identity)
            if self._callback is not None:
                self._callback(revision_uid)

        self._exits.watch(shim, ended)

    def _folders(self, name: str) -> Iterator[Path]:
        # Names are unique for ever; the revision's folder is not part of them.
        if "/" in name or name.startswith("."):
            raise NotFound(f"there is no replica {name[:60]!r}")
        yield from self._root.glob(f"*/{name}")


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, private."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content, indent=1))
    draft.chmod(0o600)
    draft.replace(path)
