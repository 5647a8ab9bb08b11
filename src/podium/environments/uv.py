"""Virtual environments for models: one per digest of (Python version, lock, runtime wheel), shared and cached.

Called by the app for replicas and pushes. An environment is made once, however many threads and processes want it; one
that was left half made is made anew; those used least recently go when all together are over the size limit. The only
module that imports uv.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uv import find_uv_bin

from podium.environments.building import build
from podium.environments.installer import Installer, Say, UvFailed
from podium.environments.locks import Lock, check_lock, resolve
from podium.resources.durable import replace_file
from podium.resources.errors import NotFound, PodiumError, Unavailable

_COMPLETE = ".complete"
_FAILED_SECONDS = 60.0
"""For how long a failure is remembered: an index may be back after that."""
_FRESH_SECONDS = 600.0
"""One that was asked for this recently is never removed: somebody may be about to start a replica in it."""
_RETRY_SECONDS = (2.0, 10.0, 30.0)
"""Before each further attempt at a build that failed for a reason that may pass. uv repeats single requests itself."""
_PASSING = (
    "error sending request", "timed out", "connection", "dns error", "failed to fetch", "http status server error",
    "no space left",
)  # fmt: skip
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class EnvironmentState:
    """`python`: the interpreter, once ready. `progress`: the last thing that the installer said. `error`: its words."""

    phase: Literal["building", "ready", "failed"]
    python: Path | None = None
    progress: str = ""
    error: str = ""


@dataclass
class _Build:
    """One build that this process runs or ran."""

    error: str = ""
    ended: float | None = None


def _words(error: Exception) -> str:
    """What a person is told."""
    if isinstance(error, UvFailed):
        return error.words
    if isinstance(error, PodiumError):
        return f"{error}; {error.next_step}" if error.next_step else str(error)
    if isinstance(error, OSError):
        return f"the environment could not be made: {error.strerror}: {error.filename}"
    return str(error)


def _may_pass(error: Exception) -> bool:
    """Whether trying again may help. uv says of its network errors nothing that is easier to read than its words."""
    return not isinstance(error, UvFailed) or any(mark in error.words.lower() for mark in _PASSING)


class Environments:
    """Folders `<digest>` under `root`. Safe for threads and processes. `max_bytes`: size limit for `collect`.

    What uv downloads stays in uv's own cache (UV_CACHE_DIR, else the user's): files are linked from it, not copied,
    where both lie on one file system.
    """

    def __init__(self, root: Path, *, wheel: Path, max_bytes: int) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._wheels, self._locks = root / "wheels", root / ".locks"
        for folder in (root, self._wheels, self._locks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._installer = Installer(Path(find_uv_bin()))
        self._wheel = self._keep_wheel(wheel)
        self._builds: dict[str, _Build] = {}
        self._guard = threading.Lock()

    def resolve(
        self, requirements: Sequence[str], python: str, progress: Say | None = None, *, fresh: bool = False
    ) -> Lock:
        """A lock with hashes for the requirements and the runtime's own. Blocks, for seconds to minutes. `fresh`: ask
        the index again for what is cached of it.

        Raises InvalidInput with the resolver's words, or naming the Python versions that this machine has.
        """
        return resolve(
            requirements, python, self._wheel, installer=self._installer, say=progress, fresh=fresh
        )

    @staticmethod
    def digest(lock_sha256: str, python: str, wheel_sha256: str) -> str:
        """The environment's name: sha256 over what it is made of."""
        return hashlib.sha256(json.dumps([python, lock_sha256, wheel_sha256]).encode()).hexdigest()

    def ensure(self, lock_text: str, python: str, wheel_sha256: str) -> EnvironmentState:
        """Where the environment stands; begins to make it where nobody does. Returns at once.

        Raises NotFound when the wheel of an older Podium is no longer kept here.
        """
        lock_sha256 = hashlib.sha256(lock_text.encode()).hexdigest()
        name = self.digest(lock_sha256, python, wheel_sha256)
        if (state := self._ready(name)) is not None:
            return state
        wheel = self._find_wheel(wheel_sha256)
        with self._guard:
            known = self._builds.get(name)
            if known is None or (
                known.ended is not None and time.monotonic() - known.ended > _FAILED_SECONDS
            ):
                known = self._builds[name] = _Build()
                threading.Thread(
                    target=self._run,
                    args=(name, lock_text, python, wheel, known),
                    name=f"env-{name[:8]}",
                    daemon=True,
                ).start()
        if known.error:
            return EnvironmentState("failed", error=known.error)
        # It may have been finished between the two looks.
        return self._ready(name) or EnvironmentState("building", progress=self._progress(name))

    def _ready(self, name: str) -> EnvironmentState | None:
        marker = self._root / name / _COMPLETE
        try:
            os.utime(marker)
        except FileNotFoundError:
            return None
        except OSError:
            pass  # a full or read-only disk: the order of removal suffers, nothing else
        return EnvironmentState("ready", python=self._root / name / "bin" / "python")

    def _run(self, name: str, lock_text: str, python: str, wheel: Path, mine: _Build) -> None:
        """Make it. What may pass by itself (an index that does not answer) is tried again a few times first: a version
        is not bad because the network was."""
        try:
            for wait in (*_RETRY_SECONDS, None):
                try:
                    self._make(name, lock_text, python, wheel)
                except (UvFailed, Unavailable, OSError) as error:
                    words = _words(error)
                    if wait is None or not _may_pass(error):
                        mine.error = words
                        return
                    self._say(name, f"it is tried again in {wait:g} s: {words.splitlines()[-1]}")
                    time.sleep(wait)
                else:
                    with self._guard:
                        self._builds.pop(name, None)
                    return
        except PodiumError as error:
            mine.error = _words(error)
        finally:
            self._progress_file(name).unlink(missing_ok=True)
            mine.ended = time.monotonic()

    def _make(self, name: str, lock_text: str, python: str, wheel: Path) -> None:
        folder = self._root / name
        check_lock(lock_text)
        with self._locked(name) as held:
            if (folder / _COMPLETE).exists():
                return
            try:
                build(
                    folder, lock=lock_text, python=python, wheel=wheel, installer=self._installer,
                    say=lambda words: self._say(name, words), held=held,
                )  # fmt: skip
                # In one step: who sees the marker may use the environment, measure it, or take it away.
                about = {"bytes": _tree_size(folder), "python": python}
                replace_file(folder / _COMPLETE, json.dumps(about).encode())
            except BaseException:
                # Half an environment is of no use, and on a full disk in the way.
                shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                self._progress_file(name).unlink(missing_ok=True)

    def collect(self, in_use: set[str]) -> list[str]:
        """Remove environments, least recently used first, until all are within the limit; and what is left of builds
        that died. Never one of `in_use`, one that is being made, or one that was asked for in the last ten minutes.
        Returns the digests that went."""
        gone = [
            name
            for name in self._names()
            if not self._is_complete(name) and self._remove(name, half_made=True)
        ]
        found = []
        for name in self._names():
            with contextlib.suppress(OSError, ValueError, KeyError):
                marker = self._root / name / _COMPLETE
                found.append((marker.stat().st_mtime, name, int(json.loads(marker.read_text())["bytes"])))
        total = sum(size for _, _, size in found)
        for used, name, size in sorted(found):
            if total <= self._max_bytes:
                break
            if name in in_use or time.time() - used < _FRESH_SECONDS:
                continue
            if self._remove(name, half_made=False):
                total -= size
                gone.append(name)
        return gone

    def _names(self) -> list[str]:
        return [folder.name for folder in self._root.iterdir() if _DIGEST.fullmatch(folder.name)]

    def _is_complete(self, name: str) -> bool:
        return (self._root / name / _COMPLETE).exists()

    def _remove(self, name: str, *, half_made: bool) -> bool:
        """False if somebody is at it, or it is no longer what it seemed to be."""
        try:
            with self._locked(name, wait=False):
                if half_made and self._is_complete(name):
                    return False
                # Without its marker it counts as half made, whenever this dies.
                (self._root / name / _COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(self._root / name, ignore_errors=True)
        except BlockingIOError:
            return False
        return True

    def _keep_wheel(self, wheel: Path) -> Path:
        """A copy under its sha256: a revision that pinned it is served by the same build after an upgrade."""
        content = wheel.read_bytes()
        kept = self._wheels / hashlib.sha256(content).hexdigest() / wheel.name
        if not kept.exists() or kept.read_bytes() != content:
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(kept, content, several_writers=True)
        return kept

    def _find_wheel(self, sha256: str) -> Path:
        found = sorted((self._wheels / sha256).glob("*.whl")) if _DIGEST.fullmatch(sha256) else []
        if not found:
            raise NotFound(
                f"the runtime's wheel {sha256[:12]} is not kept here",
                next_step="apply the deployment again: a new revision uses the present runtime",
            )
        return found[0]

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[int]:
        """One maker or remover at a time, over all processes; the lock ends with its last holder.

        Raises BlockingIOError if somebody has it and `wait` is False.
        """
        with (self._locks / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield file.fileno()

    def _progress_file(self, name: str) -> Path:
        return self._locks / f"{name}.progress"

    def _say(self, name: str, words: str) -> None:
        # In a file, because another process may be the one who builds. Only for people: losing it does no harm.
        with contextlib.suppress(OSError):
            self._progress_file(name).write_text(words)

    def _progress(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return self._progress_file(name).read_text() or "waiting"
        return "waiting"


def _tree_size(folder: Path) -> int:
    """Bytes of all files, those that are shared with uv's cache by hard links counted in full."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
