"""Tells when dormant replicas were woken: one thread looks at their state files. Called by `target`.

Nothing depends on it but how soon the control plane knows: a replica that is woken starts by itself.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from podium.processes import supervision
from podium.resources.errors import IntegrityError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


class WakeWatch:
    """Watches any number of folders; `callback(revision_uid)` once per watch, when what the shim says has changed.

    The thread is a daemon; it starts with the first watch and ends when there is nothing left to look at.
    """

    def __init__(self, callback: Callable[[str], None]) -> None:
        self._callback = callback
        self._lock = threading.Lock()
        self._watched: dict[Path, tuple[str, object]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def watch(self, folder: Path, revision_uid: str) -> None:
        """From now on; idempotent."""
        with self._lock:
            if folder in self._watched or self._closed.is_set():
                return
            # What it was before it is asked whether it sleeps: a wake between the two is not missed.
            version = _version(folder)
            self._watched[folder] = (revision_uid, version if _sleeps(folder) else None)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="replica-wakes", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            with self._lock:
                watched = dict(self._watched)
            changed = {folder for folder, (_, known) in watched.items() if _version(folder) != known}
            with self._lock:
                for folder in changed:
                    del self._watched[folder]
                done = not self._watched
                if done:
                    self._thread = None
            for revision_uid in {watched[folder][0] for folder in changed}:
                self._call(revision_uid)
            if done:
                return

    def _call(self, revision_uid: str) -> None:
        try:
            self._callback(revision_uid)
        except Exception:
            log.exception("the callback for a woken replica of revision %s failed", revision_uid)


def _version(folder: Path) -> object:
    """Another one each time that the state is written: it is replaced by a new file. False without one."""
    with contextlib.suppress(OSError):
        found = (folder / "state.json").stat()
        return found.st_ino, found.st_mtime_ns
    return False


def _sleeps(folder: Path) -> bool:
    with contextlib.suppress(IntegrityError):
        seen = supervision.observe(folder)
        return seen is not None and seen.phase == "dormant"
    return False
