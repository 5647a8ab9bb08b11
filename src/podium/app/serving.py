"""Serves a model's file or folder on this machine, without a server: `python -m podium.app serve-model`.

Started by `podium model serve`, to which it speaks in lines of JSON on stdout: `progress`, `ready`, `log`, `note`, and
at the end `problem` where there was one. The way is that of a push: look at the files (never loading them), resolve,
make the environment (shared with the installation in the same home), copy and hash; then the model server in its box,
on a socket that it inherits. It ends with SIGTERM, with the end of stdin, or when the model server does.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from podium._wheels import runtime_wheel
from podium.app.local_replica import LocalReplica
from podium.app.preparation import Prepared, Preparing
from podium.app.profiling.inputs import found_or_made_up
from podium.app.settings import Settings, private_folder
from podium.environments.uv import Environments
from podium.processes.removal import remove_tree
from podium.registry.blobs import CHUNK, BlobStore
from podium.registry.checkout import Checkout
from podium.registry.intake import PushHints, draft
from podium.registry.push import complete
from podium.resources.errors import InvalidInput, Issue, PodiumError, Refused, Unavailable
from podium.resources.issues import issues_of
from podium.resources.manifest import FileEntry, Manifest, Signature, check_path
from podium.resources.requests import PushRequest

HOST = "127.0.0.1"
LEFT_OUT = frozenset({".git", "__pycache__", ".ipynb_checkpoints", ".DS_Store"})
"""Names that are no part of a model; the same that a push leaves out."""
_RUN = re.compile(r"[0-9a-f]{12}")
_HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
_MAX_LOCK_BYTES = 16 * 2**20
_LONGEST_COMMAND = 2000
_ASK_SECONDS = 60.0


@dataclass(frozen=True)
class Wish:
    """What to serve, as the command line says it. None: found by looking at the files."""

    path: Path
    port: int
    """0: any free one."""
    name: str | None
    python: str | None
    requirements: Sequence[str] | None
    flavor: str | None


class Ended(BaseException):
    """Somebody asked us to end. No Exception: nothing on the way may take it for an error of its own."""


def serve(settings: Settings, wish: Wish) -> int:
    """Serve until told to end; 0 then, 1 after a problem that was said."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    try:
        _serve(settings, wish)
    except Ended:
        return 0
    except PodiumError as error:
        # Whoever reads the problem lets go of us at once.
        _ignore_signals()
        _say("problem", _problem(error))
        return 1
    finally:
        _end_group()
    return 0


def _serve(settings: Settings, wish: Wish) -> None:
    private_folder(settings.home)
    name = wish.name or _name_of(wish.path)
    with _listen(wish.port) as listener, work_folder(settings.home / "serving") as work:
        manifest, prepared = _prepare(settings, wish, work)
        replica = LocalReplica(work / "run", _log)
        try:
            replica.start(prepared, manifest.digest(), name, listener)
            # From here on the model server alone listens.
            port = listener.getsockname()[1]
            listener.close()
            _say("progress", "loading the model")
            replica.wait_ready(HOST, port)
            _say("ready", _announcement(replica, manifest, prepared, name, (port, work)))
            replica.wait()
        finally:
            _ignore_signals()
            replica.stop()


# --- files and environment ------------------------------------------------------------------------------------------


def _prepare(settings: Settings, wish: Wish, work: Path) -> tuple[Manifest, Prepared]:
    blobs = BlobStore(str(work / "blobs"))
    _say("progress", "reading the files")
    request = _request(wish, _store(wish.path, blobs))
    found = draft(request.files, PushHints.of(request, _HERE), blobs)
    for words in found.notes:
        _say("note", words)
    wheel = runtime_wheel()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    environments = Environments(
        settings.home / "environments", wheel=wheel, max_bytes=settings.environments_limit
    )
    _say("progress", f"resolving {len(found.requirements)} requirements for Python {found.python}")
    lock = environments.resolve(list(found.requirements), found.python)
    blobs.put([lock.text.encode()], lock.sha256)
    manifest = complete(found, lock.sha256, None, request)
    preparing = Preparing(blobs, Checkout(work / "checkouts", blobs), environments)
    said = ""
    while (prepared := preparing.of(manifest, digest)).python is None:
        if prepared.error:
            raise InvalidInput(
                Issue("requirements", prepared.error),
                next_step="say what it needs: --requirement NAME==VERSION, --python 3.N",
            )
        if prepared.progress and prepared.progress != said:
            said = prepared.progress
            _say("progress", f"environment: {said}")
        time.sleep(0.1)
    # The checkout has its own copy.
    remove_tree(work / "blobs")
    return manifest, prepared


def _request(wish: Wish, files: list[FileEntry]) -> PushRequest:
    given = {"flavor": wish.flavor, "python": wish.python, "requirements": wish.requirements, "files": files}
    try:
        return PushRequest.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(issues_of(error, model=PushRequest)) from None


def _store(path: Path, blobs: BlobStore) -> list[FileEntry]:
    """Every file, into the blob store of this run."""
    if not path.exists():
        raise InvalidInput(Issue("PATH", f"{path} does not exist"), next_step="name a model's file or folder")
    if path.is_file():
        return [_store_file(path, path.name, blobs)]
    found = []
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(set(names) - LEFT_OUT) + [
            one for one in folders if Path(parent, one).is_symlink()
        ]:
            file = Path(parent, name)
            if file.is_symlink() or not file.is_file():
                raise InvalidInput(Issue("PATH", f"{file}: expected a regular file, not a link or a device"))
            found.append(_store_file(file, file.relative_to(path).as_posix(), blobs))
    if not found:
        raise InvalidInput(Issue("PATH", f"{path} has no files"), next_step="name a model's file or folder")
    return sorted(found, key=lambda entry: entry.path)


def _store_file(file: Path, name: str, blobs: BlobStore) -> FileEntry:
    try:
        hasher = hashlib.sha256()
        for chunk in _chunks(file):
            hasher.update(chunk)
        blobs.put(_chunks(file), hasher.hexdigest())
        return FileEntry(path=check_path(name), size=file.stat().st_size, sha256=hasher.hexdigest())
    except OSError as error:
        raise InvalidInput(Issue("PATH", f"{file}: {error.strerror}")) from None
    except ValueError as error:
        raise InvalidInput(Issue("PATH", f"{ascii(name)[:200]}: {error}")) from None


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


@contextlib.contextmanager
def work_folder(root: Path) -> Iterator[Path]:
    """A folder of this run, removed at its end; those of runs that were killed go with it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        # While one run sweeps or makes its folder no other does: a folder that nobody holds yet is nobody's.
        door = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(door, fcntl.LOCK_EX)
            _sweep(root)
            work = root / secrets.token_hex(6)
            work.mkdir(mode=0o700)
            fcntl.flock(held.enter_context((work / "lock").open("a")), fcntl.LOCK_EX)
        finally:
            os.close(door)
        try:
            yield work
        finally:
            with contextlib.suppress(OSError):
                remove_tree(work)


def _sweep(root: Path) -> None:
    """What runs that were killed left behind. Anything else that lies there is left alone."""
    for left in root.iterdir():
        # A run may end, and its folder go, while this looks at it.
        with contextlib.suppress(OSError):
            if not _RUN.fullmatch(left.name):
                continue
            with (left / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(left)


def _name_of(path: Path) -> str:
    """The file's or folder's name as a model's name."""
    words = re.sub(r"[^a-z0-9]+", "-", path.resolve().stem.lower()).strip("-")
    return (words if re.match(r"[a-z]", words) else f"model-{words}")[:53].strip("-") or "model"


# --- listening and asking -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    """First of all, so that a port that is taken is said before anything is made."""
    try:
        listener = socket.create_server((HOST, port), backlog=1024)
    except OSError as error:
        raise Refused(
            f"port {port} cannot be listened on: {os.strerror(error.errno or 0)}",
            next_step="choose another with --port; 0 takes any free one",
        ) from None
    with listener:
        yield listener


def _announcement(
    replica: LocalReplica, manifest: Manifest, prepared: Prepared, name: str, place: tuple[int, Path]
) -> dict[str, Any]:
    """Address, metadata, and an example that was tried."""
    port, work = place
    url = f"http://{HOST}:{port}/v2/models/{name}"
    status, metadata = ask(port, "GET", f"/v2/models/{name}")
    if status != http.HTTPStatus.OK:
        raise Unavailable(f"the model server answers {status} to {url}")
    found: dict[str, Any] = {
        "name": name, "url": url, "pid": replica.pid, "flavor": manifest.flavor.name, "python": manifest.python,
        "requirements": manifest.requirements, "sandbox": replica.sandbox(),
        "inputs": metadata.get("inputs") or [], "outputs": metadata.get("outputs") or [],
    }  # fmt: skip
    try:
        signature = Signature.model_validate(
            {"inputs": found["inputs"], "outputs": found["outputs"]} if found["inputs"] else None
        )
        example = found_or_made_up(manifest, signature, prepared.model_path)
    except (ValidationError, InvalidInput):
        return {**found, "example": None}
    body = example.body()
    code, answer = ask(port, "POST", f"/v2/models/{name}/infer", body)
    return {
        **found,
        "example": {
            "source": example.source, "command": _command(f"{url}/infer", body, work), "status": code, "answer": answer,
        },
    }  # fmt: skip


def _command(url: str, body: str, work: Path) -> str:
    """A line to paste. A body too long for one lies in a file for as long as the model is served."""
    quoted = "'" + body.replace("'", "'\\''") + "'"
    if len(quoted) > _LONGEST_COMMAND:
        file = work / "example.json"
        file.write_text(body)
        quoted = f"@{file}"
    return f"curl -s {url} -H 'content-type: application/json' -d {quoted}"


def ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    """Status and parsed answer. Raises Unavailable."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ASK_SECONDS)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"the model server does not answer: {error}") from None
    finally:
        connection.close()


# --- the line to whoever started us ---------------------------------------------------------------------------------


def _say(kind: str, what: object) -> None:
    # Whoever listened may be gone; that is noticed by the end of stdin.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({kind: what}) + "\n")
        sys.stdout.flush()


def _log(line: str) -> None:
    _say("log", line)


def _problem(error: PodiumError) -> dict[str, Any]:
    issues = error.issues if isinstance(error, InvalidInput) else []
    return {
        "message": error.message,
        "nextStep": error.next_step,
        "issues": [{"field": issue.field, "message": issue.message} for issue in issues],
    }


def _end(*_: object) -> None:
    raise Ended


def _end_with_stdin() -> None:
    """Whoever started us holds its other end: when that goes, so do we."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _end_group() -> None:
    """An installer that was under way, where this process has a group of its own."""
    _ignore_signals()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
