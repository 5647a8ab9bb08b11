"""The folders of replicas: where they lie, what stands in them, which one is meant.

    <root>/<revision uid>/<replica>/   the shim's folder (`processes.supervision`), with
        replica.json                   what was wished, written before anything is started
        config.json                    the configuration of the model server, or of `checked_start`
        was-ready                      it has answered ready once

Called by `target`.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from podium.processes import supervision
from podium.processes.supervision import Observed
from podium.resources.errors import Conflict, IntegrityError, InvalidInput, Issue, PodiumError, Refused
from podium.targets.process.commands import SERVED
from podium.targets.process.health import LOOPBACK, READY_PATH, Question

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ABANDONED_SECONDS = 60.0
"""A folder that was prepared and not started for this long belongs to a starter that died."""


@dataclass(frozen=True)
class Kept:
    """replica.json: what a later server must know about a replica and cannot ask anybody."""

    socket: str
    startup_timeout: float
    ports: dict[str, int] = field(default_factory=dict)
    """By name, the served one under the empty name. None: it listens on `socket`."""
    ready_path: str = READY_PATH

    @property
    def question(self) -> Question:
        """How to ask whether it is ready."""
        return Question(self.ports[SERVED] if self.ports else Path(self.socket), self.ready_path)

    @property
    def address(self) -> str:
        """As the gateway reaches it."""
        return f"http://{LOOPBACK}:{self.ports[SERVED]}" if self.ports else f"unix:{self.socket}"


@dataclass(frozen=True)
class Replica:
    """A replica that was started, as its files say."""

    folder: Path
    kept: Kept
    seen: Observed

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def revision_uid(self) -> str:
        return self.folder.parent.name

    @property
    def was_ready(self) -> bool:
        """Has any server ever seen it ready?"""
        return (self.folder / "was-ready").exists()

    def mark_ready(self) -> None:
        """Remember that it was."""
        (self.folder / "was-ready").touch(mode=0o600)


class Replicas:
    """All replicas under `root`, with their sockets in `sockets`."""

    def __init__(self, root: Path, sockets: Path) -> None:
        """Makes both folders. Raises Refused where the sockets' folder is not this user's own, private one."""
        self._root, self._sockets = root, sockets
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(sockets)

    def folder(self, revision_uid: str, name: str) -> Path:
        """Where this replica lies. Raises InvalidInput for a name that could lead elsewhere."""
        for which, text in (("revisionUid", revision_uid), ("name", name)):
            if not _NAME.fullmatch(text):
                raise InvalidInput(Issue(which, f"{text[:60]!r}: expected letters, digits, '.', '_' and '-'"))
        return self._root / revision_uid / name

    def socket(self, folder: Path) -> Path:
        """Short, whatever the names are; the same in every server."""
        digest = hashlib.sha256(f"{folder.parent.name}/{folder.name}".encode()).hexdigest()
        return self._sockets / f"{digest[:20]}.sock"

    def of_revision(self, revision_uid: str) -> list[Replica]:
        """Those that were started, by name. What a starter that died left behind is removed after a minute."""
        found = (self.read(folder) for folder in _children(self._root / revision_uid))
        return [replica for replica in found if replica is not None]

    def folders(self, revision_uid: str) -> list[Path]:
        """Where its replicas lie, whatever became of them."""
        return _children(self._root / revision_uid)

    def all(self) -> list[Replica]:
        """The replicas of all revisions."""
        return [replica for folder in _children(self._root) for replica in self.of_revision(folder.name)]

    def find(self, name: str, revision_uid: str | None) -> Path | None:
        """The folder of the replica that is meant; None: there is none. Raises Conflict where there are several."""
        if revision_uid is not None:
            folder = self.folder(revision_uid, name)
            return folder if folder.is_dir() else None
        if not _NAME.fullmatch(name):
            return None
        found = [folder / name for folder in _children(self._root) if (folder / name).is_dir()]
        if len(found) > 1:
            raise Conflict(
                f"there are {len(found)} replicas {name}, of different revisions",
                next_step="name the revision's uid",
            )
        return found[0] if found else None

    def keep(self, folder: Path, kept: Kept, config: dict[str, Any]) -> None:
        """Write down what is wished, before anything is started."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / "replica.json", asdict(kept))
        _write(folder / "config.json", config)

    def read(self, folder: Path) -> Replica | None:
        """What is known of one; None if it was never started, or was damaged with nothing running."""
        try:
            seen = supervision.observe(folder)
            if seen is not None:
                return Replica(folder, Kept(**json.loads((folder / "replica.json").read_bytes())), seen)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, IntegrityError):
            # A power cut can leave files without content. No process survived it, and `remove` makes sure of that.
            pass
        with contextlib.suppress(OSError, PodiumError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                self.remove(folder)
        return None

    def remove(self, folder: Path) -> None:
        """Remove all that is left of a replica. Raises Refused while it runs."""
        supervision.remove(folder)
        self.socket(folder).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def bound_processors(replicas: list[Replica]) -> Iterator[tuple[int, ...]]:
    """The processors that each running replica is bound to."""
    for replica in replicas:
        if replica.seen.phase != "exited":
            with contextlib.suppress(OSError, ValueError, KeyError):
                yield tuple(json.loads((replica.folder / "spec.json").read_bytes())["limits"]["cpus"])


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir())
    except FileNotFoundError:
        return []


def _check_private(sockets: Path) -> None:
    """The folder may lie in /tmp, where anybody could have made it first."""
    found = sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Refused(
            f"{sockets}: expected a folder that belongs to the user who runs Podium",
            next_step="remove it, or set another folder for sockets",
        )
    sockets.chmod(0o700)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, private."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file)
    draft.replace(path)
