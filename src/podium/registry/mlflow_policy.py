"""Which MLflow sources an import may read: pure checks of addresses that a stranger wrote, or that an MLflow server
answered.

Called by `mlflow_source`, before anything is connected to. Three things could go wrong without it: the server fetches
an address for a stranger, sends its credentials there, or reads its own files and hands them out as a model.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from podium.registry.paths import check_portable
from podium.resources.errors import InvalidInput, Issue, TooLarge

_KNOWN = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, runs:/RUN_ID/PATH"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,249}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_REMOTE = ("http", "https")
_LOCAL = ("sqlite", "file")


@dataclass(frozen=True)
class ModelUri:
    """What to import. `name` is a registered model's, a logged model's id, or a run's id."""

    kind: Literal["version", "alias", "loggedModel", "run"]
    name: str
    version: str = ""
    """A version's number or an alias."""
    path: str = ""
    """Of a run's model, below the run's artifacts."""


@dataclass(frozen=True)
class ImportPolicy:
    """What the server's operator allows."""

    tracking_uris: Sequence[str] = ()
    """http(s)://host, sqlite:////absolute/file.db or file:///absolute/folder; the first is the default."""
    allow_any: bool = False
    """True: a caller may name any tracking or registry URI of these kinds. Only for a server that one person uses on
    her own machine; credentials from the environment still go to `tracking_uris` only."""
    artifact_schemes: Sequence[str] = ()
    """Object storage that MLflow may read with the server's own credentials, such as "s3"; none by default."""
    max_files: int = 10_000
    max_bytes: int = 100 * 2**30
    timeout_seconds: float = 1800.0


def parse_uri(uri: str) -> ModelUri:
    """Raises InvalidInput for anything but the known forms."""
    found = _parse(uri)
    if found is None:
        raise InvalidInput(Issue("uri", f"{uri[:100]!r}: expected one of {_KNOWN}"))
    return found


def _parse(uri: str) -> ModelUri | None:
    if re.search(r"[\x00-\x1f\\#?%]", uri):
        return None
    scheme, _, rest = uri.partition(":/")
    if rest.startswith("/"):
        return None
    first, _, last = rest.partition("/")
    if scheme == "runs":
        try:
            check_portable(last)
        except ValueError:
            return None
        return ModelUri("run", first, path=last) if _ID.fullmatch(first) else None
    if scheme != "models":
        return None
    name, at, alias = first.partition("@")
    if at:
        named = _PART.fullmatch(name) and _PART.fullmatch(alias) and not last
        return ModelUri("alias", name, version=alias) if named else None
    if not last:
        return ModelUri("loggedModel", first) if re.fullmatch(r"m-[0-9a-zA-Z]{1,64}", first) else None
    if _PART.fullmatch(name) and re.fullmatch(r"[1-9][0-9]{0,8}", last):
        return ModelUri("version", name, version=last)
    return None


def choose_source(given: str | None, field: str, policy: ImportPolicy) -> str:
    """The tracking or registry URI to use: the given one if the policy has it, or the policy's first.

    Raises InvalidInput naming `field`, with the allowed ones listed without their credentials.
    """
    if given is None:
        if not policy.tracking_uris:
            raise InvalidInput(
                Issue(field, "no MLflow server is configured"),
                next_step="name one with --tracking-uri, or have the server's operator configure one",
            )
        return _checked(policy.tracking_uris[0], field)
    if given not in policy.tracking_uris and not policy.allow_any:
        known = ", ".join(redact(uri) for uri in policy.tracking_uris) or "none"
        raise InvalidInput(
            Issue(field, f"this server does not import from {redact(given)}; it does from: {known}"),
            next_step="have the server's operator add it",
        )
    return _checked(given, field)


def _checked(uri: str, field: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme in _REMOTE and parts.hostname and not parts.query and not parts.fragment:
        return uri
    if parts.scheme in _LOCAL and not parts.netloc and local_path(uri).startswith("/") and not parts.query:
        return uri
    known = "http(s)://host, sqlite:////absolute/file.db or file:///absolute/folder"
    raise InvalidInput(Issue(field, f"{redact(uri)[:100]!r}: expected {known}"))


def local_path(uri: str) -> str:
    """The path of a sqlite: or file: URI. sqlite:////a/b.db is the file /a/b.db, as SQLAlchemy has it."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    return path[1:] if parts.scheme == "sqlite" else path


def is_local(uri: str) -> bool:
    """Does this tracking URI name a file or folder of this machine?"""
    return urlsplit(uri).scheme in _LOCAL


def check_location(location: str, tracking_uri: str, policy: ImportPolicy) -> Literal["local", "remote"]:
    """Where an MLflow server says that a model's files lie: may we go there?

    A local store may name a local folder. A server may name its own artifacts, or object storage that the operator
    allowed. Nothing else: a server that names a folder would make us read our own disk. Raises InvalidInput.
    """
    parts = urlsplit(location)
    scheme = parts.scheme
    if scheme in ("", "file"):
        if (
            is_local(tracking_uri)
            and parts.netloc in ("", "localhost")
            and unquote(parts.path).startswith("/")
        ):
            return "local"
        raise _refused(
            "the MLflow server keeps its artifacts in a folder of its own machine and does not serve them"
        )
    if scheme in policy.artifact_schemes:
        return "remote"
    tracking = urlsplit(tracking_uri)
    if not is_local(tracking_uri):
        own = (tracking.hostname, tracking.port)
        # mlflow-artifacts: takes host and port from the tracking URI, unless it has its own.
        if scheme == "mlflow-artifacts" and (not parts.netloc or (parts.hostname, parts.port) == own):
            return "remote"
        if scheme == tracking.scheme and (parts.hostname, parts.port) == own:
            return "remote"
    raise _refused(f"its artifacts lie in {scheme[:30]}: storage, which this server does not read")


def walk_listing(list_folder: Callable[[str | None], Iterable[Any]], max_files: int) -> dict[str, int]:
    """Every file that an MLflow server lists, with the size in bytes that it says: the names checked, the walk bounded.

    `list_folder` answers for a folder (None: the root) with entries that have `path` (from the root), `is_dir` and
    `file_size`, as ArtifactRepository.list_artifacts does. Raises InvalidInput for an unsafe name, TooLarge.
    """
    files: dict[str, int] = {}
    waiting: list[str | None] = [None]
    asked = 0
    while waiting:
        asked += 1
        for entry in list_folder(waiting.pop()):
            try:
                check_portable(entry.path)
            except ValueError as error:
                raise InvalidInput(
                    Issue(f"uri: {ascii(entry.path)[:200]}", f"unsafe name: {error}")
                ) from None
            if entry.is_dir:
                waiting.append(entry.path)
            else:
                files[entry.path] = int(entry.file_size or 0)
            if max(len(files), asked + len(waiting)) > max_files:
                raise TooLarge(f"the model has more than the {max_files} files that are allowed")
    return files


def redact(text: str) -> str:
    """The text without user names and passwords of addresses in it."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def _refused(words: str) -> InvalidInput:
    return InvalidInput(
        Issue("uri", words),
        next_step="start the MLflow server with --serve-artifacts, or have the operator allow the storage's scheme",
    )
