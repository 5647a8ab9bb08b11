"""Virtual environments for models: one per digest of (Python version, lock, runtime wheel), shared and cached.

Called by the app for replicas and pushes. An environment is made once, however many threads and processes want it; one
that was left half made is made anew; those used least recently go when all together are over the size limit.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from podium.environments.installer import Say, UvFailed, call, find_python
from podium.environments.locks import Lock, resolve
from podium.resources.errors import InvalidInput, NotFound, PodiumError, Unavailable

_COMPLETE = ".complete"
_FAILED_FOR = 60.0
"""Seconds for which a failure is remembered: an index may be back after that."""


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

    progress: str = "waiting"
    error: str = ""
    ended: float | None = None


class Environments:
    """Folders `<digest>` under `root`. Safe for threads and processes. `max_bytes`: size limit for `collect`."""

    def __init__(self, root: Path, *, wheel: Path, max_bytes: int) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._wheels, self._locks = root / "wheels", root / ".locks"
        # uv's own cache, wherever the user keeps it (UV_CACHE_DIR): what was downloaded once is linked, not copied.
        self._cache: Path | None = None
        for folder in (root, self._wheels, self._locks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._wheel = self._keep_wheel(wheel)
        self._builds: dict[str, _Build] = {}
        self._guard = threading.Lock()

    def resolve(self, requirements: Sequence[str], python: str, progress: Say | None = None) -> Lock:
        """A lock with hashes for the requirements and the runtime's own. Raises InvalidInput with the resolver's words,
        or naming the Python versions that this machine has."""
        return resolve(requirements, python, self._wheel, cache=self._cache, say=progress)

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
        folder = self._root / name
        if (folder / _COMPLETE).exists():
            with contextlib.suppress(OSError):
                os.utime(folder / _COMPLETE)
            return EnvironmentState("ready", python=folder / "bin" / "python")
        wheel = self._find_wheel(wheel_sha256)
        with self._guard:
            build = self._builds.get(name)
            if build is not None and build.ended is not None and time.monotonic() - build.ended > _FAILED_FOR:
                build = None
            if build is None:
                build = self._builds[name] = _Build()
                arguments = (name, lock_text, python, wheel, build)
                threading.Thread(
                    target=self._run, args=arguments, name=f"env-{name[:8]}", daemon=True
                ).start()
        if build.error:
            return EnvironmentState("failed", error=build.error)
        return EnvironmentState("building", progress=build.progress)

    def _run(self, name: str, lock_text: str, python: str, wheel: Path, build: _Build) -> None:
        try:
            self._make(name, lock_text, python, wheel, build)
            with self._guard:
                self._builds.pop(name, None)
        except UvFailed as failed:
            build.error = failed.words
        except InvalidInput as error:
            build.error = str(error)
        except (PodiumError, OSError) as error:
            build.error = f"the environment could not be made: {error}"
        finally:
            build.ended = time.monotonic()

    def _make(self, name: str, lock_text: str, python: str, wheel: Path, build: _Build) -> None:
        folder = self._root / name

        def say(text: str) -> None:
            build.progress = text

        with self._locked(name):
            if (folder / _COMPLETE).exists():
                return
            # Whoever made this folder died on the way: virtual environments hold their own path, so it is made in place.
            shutil.rmtree(folder, ignore_errors=True)
            say(f"making an environment with Python {python}")
            interpreter = find_python(python, cache=self._cache)
            call(
                ["venv", "--python", str(interpreter), "--no-project", str(folder)],
                cache=self._cache,
                say=say,
            )
            inside = folder / "bin" / "python"
            lock = folder / "requirements.lock"
            lock.write_text(lock_text)
            install = ["pip", "install", "--python", str(inside), "--no-sources"]
            call([*install, "--require-hashes", "--no-deps", "-r", str(lock)], cache=self._cache, say=say)
            say("installing podium-runtime")
            call([*install, "--no-deps", "--compile-bytecode", str(wheel)], cache=self._cache, say=say)
            call(["pip", "check", "--python", str(inside)], cache=self._cache, say=say)
            size = _tree_size(folder)
            _write_durably(folder / _COMPLETE, json.dumps({"bytes": size, "python": python}))

    def collect(self, in_use: set[str]) -> list[str]:
        """Remove environments, least recently used first, until all are within the limit; never one of `in_use`, nor
        one that is being made. Returns the digests that went."""
        found = []
        for folder in self._root.iterdir():
            marker = folder / _COMPLETE
            if len(folder.name) == 64 and marker.exists():
                size = int(json.loads(marker.read_text()).get("bytes", 0))
                found.append((marker.stat().st_mtime, folder, size))
        total, gone = sum(size for _, _, size in found), []
        for _, folder, size in sorted(found, key=lambda item: item[0]):
            if total <= self._max_bytes:
                break
            if folder.name in in_use:
                continue
            with self._locked(folder.name):
                # Without its marker it counts as half made, whenever this dies.
                (folder / _COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
            total -= size
            gone.append(folder.name)
        return gone

    def _keep_wheel(self, wheel: Path) -> Path:
        """A copy under its sha256: a revision that pinned it is served by the same build after an upgrade."""
        content = wheel.read_bytes()
        kept = self._wheels / hashlib.sha256(content).hexdigest() / wheel.name
        if not kept.exists():
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            draft = kept.with_name(f".{kept.name}.{os.getpid()}")
            draft.write_bytes(content)
            draft.replace(kept)
        return kept

    def _find_wheel(self, sha256: str) -> Path:
        found = sorted((self._wheels / sha256).glob("*.whl"))
        if not found:
            raise NotFound(
                f"the runtime's wheel {sha256[:12]} is not kept here",
                next_step="apply the deployment again: a new revision uses the present runtime",
            )
        return found[0]

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One maker or remover at a time, over all processes; the lock ends with its holder."""
        with (self._locks / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _tree_size(folder: Path) -> int:
    """Bytes of all files, hard links counted in full."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(base, name)).st_size
    return total


def _write_durably(path: Path, text: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unavailable(f"{path.name} could not be written: {error.strerror}") from None
