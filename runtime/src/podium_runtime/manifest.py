"""Reads a version's manifest and proves that the files on disk are the ones that were pushed.

Called by `loading` before anything of the model's folder is imported or opened by a framework. Standard library only.
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from podium_runtime.errors import DigestMismatch

FORMAT = "podium.manifest/1"
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class ManifestFile:
    """One file of a version: its path below the folder (POSIX), its size in bytes and its SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What the model server needs of a manifest. `signature` is the raw JSON object or None."""

    flavor: str
    entry: str
    options: dict[str, Any]
    files: tuple[ManifestFile, ...]
    signature: dict[str, Any] | None


def read_manifest(path: Path, digest: str) -> Manifest:
    """Return the manifest at `path` if its bytes hash to `digest` (`sha256:<hex>`).

    Raises DigestMismatch when the bytes differ, are missing or are not a manifest of a known format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DigestMismatch(f"the manifest cannot be read: {error.strerror}: {path.name}") from error
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if found != digest:
        raise DigestMismatch(f"the manifest's bytes have digest {found}, approved is {digest}")
    try:
        return _parse(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise DigestMismatch(
            f"the manifest has the right digest but is not readable as {FORMAT}: {type(error).__name__}: {error}"
        ) from error


def _parse(document: dict[str, Any]) -> Manifest:
    if document["format"] != FORMAT:
        raise ValueError(f"format is {document['format']!r}, known is {FORMAT!r}")
    flavor = document["flavor"]
    return Manifest(
        flavor=str(flavor["name"]),
        entry=str(flavor.get("entry") or ""),
        options=dict(flavor.get("options") or {}),
        files=tuple(
            ManifestFile(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in document["files"]
        ),
        signature=document.get("signature"),
    )


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raise DigestMismatch unless `folder` holds exactly the manifest's files with their sizes and hashes.

    Files that the manifest does not name are refused too: a planted module would be imported like a real one.
    Links are never followed.
    """
    named = {file.path for file in manifest.files}
    for file in manifest.files:
        _verify(folder, file)
    for parent, folders, names in os.walk(folder):
        for name in names + [f for f in folders if os.path.islink(os.path.join(parent, f))]:
            relative = Path(parent, name).relative_to(folder).as_posix()
            if relative not in named:
                raise DigestMismatch(
                    f"{relative}: this file is in the model's folder but not in its manifest"
                )


def _verify(folder: Path, file: ManifestFile) -> None:
    pure = PurePosixPath(file.path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in file.path or "\0" in file.path:
        raise DigestMismatch(f"{file.path!r}: not a path below the model's folder")
    hasher = hashlib.sha256()
    size = 0
    try:
        _refuse_links(folder, pure)
        with open(os.open(folder / pure, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise DigestMismatch(f"{file.path}: not a regular file")
            while chunk := stream.read(_CHUNK):
                hasher.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise DigestMismatch(f"{file.path}: cannot be read: {error.strerror}") from error
    if size != file.size:
        raise DigestMismatch(f"{file.path}: {size} bytes are stored, the manifest says {file.size}")
    if hasher.hexdigest() != file.sha256:
        raise DigestMismatch(
            f"{file.path}: the stored bytes have sha256 {hasher.hexdigest()}, the manifest says {file.sha256}"
        )


def _refuse_links(folder: Path, path: PurePosixPath) -> None:
    current = folder
    for part in path.parts:
        current = current / part
        if current.is_symlink():
            raise DigestMismatch(f"{path}: is or passes through a symbolic link")
