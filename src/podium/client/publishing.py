"""Push, pull and import of model versions. Run by both clients.

Files are hashed here, and only what the server lacks is sent.
"""

import hashlib
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from podium.client import operations
from podium.client.answers import error_in
from podium.client.effects import Call, Operation, call, work
from podium.client.operations import place
from podium.resources.errors import IntegrityError, InvalidInput, Issue, NotFound, Refused, Unavailable
from podium.resources.issues import issues_of
from podium.resources.kinds import KINDS, ModelVersion
from podium.resources.manifest import DatasetReference, FileEntry, GitReference, check_path
from podium.resources.requests import ImportRequest, PushRequest

LEFT_OUT = frozenset({".git", "__pycache__", ".ipynb_checkpoints", ".DS_Store"})
"""Names that are no part of a model, wherever they are in the folder."""
_PIECE = 2**20
_SERVER_PATIENCE = 1800.0
"""Seconds between two lines of a push: environments are made meanwhile."""


@dataclass(frozen=True)
class Progress:
    """Where a push or pull is. `done` and `total` in bytes, 0 where there is nothing to count."""

    stage: str
    """`hashing`, `uploading`, `server`, `downloading`."""
    message: str
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        share = f" ({100 * self.done // self.total} %)" if self.total else ""
        return f"{self.message}{share}"


Tell = Callable[[Progress], object]


@dataclass(frozen=True)
class PushOptions:
    """What a push says beside the files; the fields are those of `PushRequest`."""

    note: str = ""
    alias: str | None = None
    metrics: Mapping[str, float] | None = None
    datasets: Sequence[str | Path] = ()
    """Files: only their names, sizes and hashes are kept."""
    lineage: Mapping[str, Any] | None = None
    requirements: Sequence[str] | None = None
    python: str | None = None
    flavor: str | None = None
    repair: bool = False
    """Send every file, also what the server has: it replaces what was damaged there."""


@dataclass(frozen=True)
class Pushed:
    """`created` is False when the same was pushed before."""

    version: ModelVersion
    created: bool


def push(
    model: str, path: str | Path, workspace: str, options: PushOptions, tell: Tell | None
) -> Operation[Pushed]:
    """A file or a folder as a new version. Raises InvalidInput naming what is wrong, before anything is sent if it can
    be seen here."""
    say = tell or (lambda progress: None)
    found = yield from work(lambda: _hash_all(Path(path), say))
    datasets = yield from work(lambda: [_fingerprint(Path(file), say) for file in options.datasets])
    git = yield from work(lambda: _git_reference(Path(path)))
    try:
        request = PushRequest.model_validate(
            {
                "files": [entry for _, entry in found],
                "flavor": options.flavor,
                "requirements": None if options.requirements is None else list(options.requirements),
                "python": options.python,
                "metrics": dict(options.metrics or {}),
                "datasets": datasets,
                "git": git,
                "lineage": dict(options.lineage or {}),
                "note": options.note,
                "alias": options.alias,
            }
        )
    except ValidationError as error:
        raise InvalidInput(issues_of(error, model=PushRequest)) from None
    yield from _upload(found, say, again=options.repair)
    path_ = f"{place(KINDS['Model'], workspace, model)}/versions"
    body = request.model_dump(mode="json", by_alias=True)
    return (yield from _publish(path_, body, say))


def import_mlflow(model: str, request: ImportRequest, workspace: str, tell: Tell | None) -> Operation[Pushed]:
    """The server fetches it by itself."""
    body = request.model_dump(mode="json", by_alias=True)
    path = f"{place(KINDS['Model'], workspace, model)}/import"
    return (yield from _publish(path, body, tell or (lambda progress: None)))


def _publish(path: str, body: dict[str, Any], say: Tell) -> Operation[Pushed]:
    last = yield from last_line(path, body, say, _SERVER_PATIENCE, "the push", "push the same again")
    return Pushed(operations.parsed(last["version"]), bool(last["created"]))


def last_line(
    path: str, body: dict[str, Any], say: Tell, patience: float, what: str, next_step: str
) -> Operation[dict[str, Any]]:
    """POST something that takes a while: progress comes in lines, and the last one, which is returned, has the result.

    `patience`: seconds of silence. Raises the error that the last line describes, and Unavailable where there is none.
    """
    last: list[dict[str, Any]] = []

    def line(text: str) -> None:
        item = orjson.loads(text)
        if "progress" in item:
            say(Progress("server", str(item["progress"])))
        else:
            last.append(item)

    yield from call(Call("POST", path, body=body, on_line=line, timeout=patience))
    if not last:
        raise Unavailable(f"the server broke off in the middle of {what}", next_step=next_step)
    if "problem" in last[0]:
        raise error_in(last[0]["problem"])
    return last[0]


def _upload(found: Sequence[tuple[Path, FileEntry]], say: Tell, *, again: bool) -> Operation[None]:
    """Each blob that the server lacks, once however many files have it; `again`: those that it has, too."""
    unique = {entry.sha256: (file, entry) for file, entry in found}
    total, done = sum(entry.size for _, entry in unique.values()), 0
    for sha256, (file, entry) in unique.items():
        say(Progress("uploading", f"sending {entry.path}", done, total))
        lacking = again
        if not again:
            reply = yield from call(Call("HEAD", f"/blobs/{sha256}", allow=(404,)))
            lacking = reply.status == 404
        if lacking:
            yield from call(Call("PUT", f"/blobs/{sha256}", upload=file, timeout=600))
        done += entry.size
    say(Progress("uploading", "all files are stored", total, total))


def _hash_all(path: Path, say: Tell) -> list[tuple[Path, FileEntry]]:
    names = _list_files(path)
    total, done, found = sum(file.stat().st_size for file, _ in names), 0, []
    for file, name in names:
        say(Progress("hashing", f"reading {name}", done, total))
        size, sha256 = _hash(file)
        done += size
        found.append((file, FileEntry(path=name, size=size, sha256=sha256)))
    return found


def _list_files(path: Path) -> list[tuple[Path, str]]:
    """Files and their paths in the version. Links are refused: what they lead to is not under the pusher's control."""
    if not path.exists():
        raise InvalidInput(Issue("path", f"{path} does not exist"))
    if path.is_file():
        return [(path, _checked(path.name))]
    found = []
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in [*links, *names]:
            file = Path(parent, name)
            if name in LEFT_OUT:
                continue
            if not stat.S_ISREG(file.lstat().st_mode):
                raise InvalidInput(Issue("path", f"{file}: expected a regular file, not a link or a device"))
            found.append((file, _checked(file.relative_to(path).as_posix())))
    if not found:
        raise InvalidInput(Issue("path", f"{path} has no files"))
    return sorted(found, key=lambda item: item[1])


def _checked(name: str) -> str:
    try:
        return check_path(name)
    except ValueError as error:
        raise InvalidInput(Issue("path", f"{ascii(name)[:200]}: {error}")) from None


def _hash(file: Path) -> tuple[int, str]:
    hasher, size = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            hasher.update(piece)
            size += len(piece)
    return size, hasher.hexdigest()


def _fingerprint(file: Path, say: Tell) -> DatasetReference:
    if not file.is_file():
        raise InvalidInput(Issue("datasets", f"{file} is no file"))
    say(Progress("hashing", f"reading {file.name}"))
    size, sha256 = _hash(file)
    return DatasetReference(name=file.name, size=size, sha256=sha256)


def _git_reference(path: Path) -> GitReference | None:
    """The commit that the files lie in, if they lie in a repository and git is there to ask."""
    folder = path if path.is_dir() else path.parent
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        done = subprocess.run(
            [git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    return GitReference(commit=commit, dirty=bool(ask("status", "--porcelain", "--", ".")))


# Pull


def pull(
    model: str, version: str, into: str | Path, workspace: str, tell: Tell | None
) -> Operation[ModelVersion]:
    """The files of a version, byte for byte, in a folder that is new or empty. It appears whole or not at all.

    version: a number, or an alias with a leading @. Raises IntegrityError for bytes that are not those of the manifest,
    Refused for a folder with something in it.
    """
    say = tell or (lambda progress: None)
    target = Path(into)
    number = (yield from _number(model, version[1:], workspace)) if version.startswith("@") else version
    found: ModelVersion = yield from operations.get("ModelVersion", f"{model}.{number}", workspace)
    manifest = found.spec.manifest
    if f"sha256:{hashlib.sha256(manifest.canonical_bytes()).hexdigest()}" != found.spec.digest:
        raise IntegrityError(
            f"the manifest of {model} version {number} does not have the digest {found.spec.digest}"
        )
    draft = yield from work(lambda: _begin(target))
    try:
        total, done = sum(entry.size for entry in manifest.files), 0
        for entry in manifest.files:
            say(Progress("downloading", f"fetching {entry.path}", done, total))
            yield from _fetch(draft, entry)
            done += entry.size
        yield from work(lambda: _finish(draft, target))
    finally:
        # No effect may be asked for here: the caller may have closed the generator.
        shutil.rmtree(draft, ignore_errors=True)
    say(Progress("downloading", f"{len(manifest.files)} files are in {target}", total, total))
    return found


def _number(model: str, alias: str, workspace: str) -> Operation[str]:
    found = yield from operations.get("Model", model, workspace)
    number = found.status.aliases.get(alias)
    if number is None:
        known = ", ".join(sorted(found.status.aliases)) or "none"
        raise NotFound(f"{model} has no alias {alias}; aliases: {known}")
    return str(number)


def _begin(target: Path) -> Path:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Refused(f"{target} is there already and not an empty folder", next_step="name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{target.name}.{secrets.token_hex(6)}"
    draft.mkdir(mode=0o700)
    return draft


def _finish(draft: Path, target: Path) -> None:
    if target.exists():
        target.rmdir()
    draft.chmod(0o755)
    draft.replace(target)


def _fetch(draft: Path, entry: FileEntry) -> Operation[None]:
    # The server's word is checked again here: a path that leads elsewhere is never opened.
    file = draft.joinpath(*check_path(entry.path).split("/"))
    file.parent.mkdir(parents=True, exist_ok=True)
    hasher, size = hashlib.sha256(), 0
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
    with os.fdopen(handle, "wb") as stream:

        def sink(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > entry.size:
                raise IntegrityError(f"{entry.path}: more bytes came than the {entry.size} of the manifest")
            hasher.update(piece)
            stream.write(piece)

        yield from call(Call("GET", f"/blobs/{entry.sha256}", sink=sink, timeout=600))
        stream.flush()
        os.fsync(stream.fileno())
    if size != entry.size or hasher.hexdigest() != entry.sha256:
        raise IntegrityError(
            f"{entry.path}: the bytes that came are not those of the manifest",
            next_step=f"podium model verify tells what is damaged (blob {entry.sha256})",
        )
