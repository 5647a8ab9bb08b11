"""The blob store: bytes under their sha256, in a local folder or in S3-compatible object storage.

Called by the API (uploads, downloads), `intake`, `checkout`, `verify`, `garbage`. Calls `local_folder` or `bucket`.
What is stored is never changed: a blob is written once, under a name that is the hash of its bytes.
"""

import datetime
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

from podium.registry.storage import Staged, Storage, Stored
from podium.resources.errors import IntegrityError, InvalidInput, Issue, NotFound, TooLarge, Unavailable

CHUNK: Final = 1024 * 1024
MAX_BLOB: Final = 50 * 2**30
"""Bytes of one blob, where nothing else is said."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_S3_OPTIONS = ("endpointUrl", "region", "accessKey", "secretKey", "sessionToken", "profile")
_SECRET_OPTIONS = ("accessKey", "secretKey", "sessionToken")


class BlobStore:
    """Bytes under their sha256. Safe for threads, and for any number of processes on one store.

    `url`: a folder's absolute path, `file:///folder`, or `s3://bucket/prefix`.
    `options` (S3 only): `endpointUrl`, `region`, `profile`, and by reference (`env:NAME` or `file:/path`) `accessKey`,
    `secretKey`, `sessionToken`. What is not given is found by botocore's own rules (AWS_ENDPOINT_URL, ...).
    `max_bytes`: the largest blob that is taken.
    Raises InvalidInput for an unknown scheme or option, a secret that is not a reference, or credentials in the URL.
    """

    def __init__(
        self, url: str, options: Mapping[str, str] | None = None, *, max_bytes: int = MAX_BLOB
    ) -> None:
        self.url = url
        self.max_bytes = max_bytes
        self._storage = _open_storage(url, options or {})

    def __repr__(self) -> str:
        return f"BlobStore({self.url!r})"

    def put(self, chunks: Iterable[bytes], sha256: str, *, max_bytes: int | None = None) -> bool:
        """Store the bytes; True if they were not there yet. See `writer` for the errors."""
        with self.writer(sha256, max_bytes=max_bytes) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def writer(self, sha256: str, *, max_bytes: int | None = None) -> "BlobWriter":
        """A context manager that takes the bytes piece by piece, for callers that receive them so.

        Its `write` raises TooLarge past the limit; its `commit` raises InvalidInput when the bytes do not hash to
        `sha256`. Without `commit` nothing stays. Both raise Unavailable when the storage is full or gone.
        """
        key = _key(sha256)
        limit = self.max_bytes if max_bytes is None else min(max_bytes, self.max_bytes)
        return BlobWriter(sha256, limit, self._storage.stage(key), lambda: self._is_intact(sha256))

    def _is_intact(self, sha256: str) -> bool:
        try:
            return self.verify(sha256)
        except NotFound:
            return False

    def open(self, sha256: str) -> BinaryIO:
        """A seekable stream of the stored bytes, NOT checked against the hash. Raises NotFound."""
        return self._storage.open(_key(sha256))

    def iterate(self, sha256: str, chunk_size: int = CHUNK) -> Iterator[bytes]:
        """The bytes in chunks, hashed on the way; the last chunk is only given out if the hash is right.

        Raises NotFound, and IntegrityError when the stored bytes are not those that were pushed.
        """
        hasher = hashlib.sha256()
        held = b""
        with self.open(sha256) as stream:
            while chunk := stream.read(chunk_size):
                hasher.update(chunk)
                if held:
                    yield held
                held = chunk
        if hasher.hexdigest() != sha256:
            raise damaged(sha256)
        if held:
            yield held

    def read(self, sha256: str, max_bytes: int) -> bytes:
        """A small blob as a whole, checked against its hash. Raises NotFound, TooLarge, IntegrityError."""
        with self.open(sha256) as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise TooLarge(f"blob {sha256} has more than {max_bytes} bytes")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise damaged(sha256)
        return content

    def find(self, sha256: str) -> Stored | None:
        """Size and time of a blob, or None."""
        return self._storage.find(_key(sha256))

    def exists(self, sha256: str) -> bool:
        return self.find(sha256) is not None

    def size(self, sha256: str) -> int:
        """Bytes. Raises NotFound."""
        found = self.find(sha256)
        if found is None:
            raise NotFound(f"blob {sha256} is not stored")
        return found.size

    def verify(self, sha256: str) -> bool:
        """Read the whole blob: does it still hash to its name? Raises NotFound."""
        hasher = hashlib.sha256()
        with self.open(sha256) as stream:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
        return hasher.hexdigest() == sha256

    def delete(self, sha256: str) -> bool:
        """True if it was there."""
        return self._storage.delete(_key(sha256))

    def refresh(self, sha256: str) -> None:
        """Make the blob as young as a new one for garbage collection, its bytes untouched. Raises NotFound."""
        self._storage.refresh(_key(sha256))

    def walk(self) -> Iterator[tuple[str, Stored]]:
        """Every blob as (sha256, what is stored), in no promised order. Other files in the storage are passed over."""
        for stored in self._storage.walk():
            name = stored.key.rpartition("/")[2]
            if _SHA256.fullmatch(name) and stored.key == _key(name):
                yield name, stored

    def sweep(self, before: datetime.datetime) -> int:
        """Remove unfinished uploads that were begun before that time; how many."""
        return self._storage.sweep(before)

    def check(self) -> None:
        """Raise Unavailable, saying why, unless the storage can be reached and written to."""
        self._storage.check()


class BlobWriter:
    """One blob on its way in. Use as a context manager; see `BlobStore.writer`.

    What is stored and intact is left alone, and the new bytes are dropped. What is stored but damaged is replaced by
    them: they are the right ones.
    """

    def __init__(self, sha256: str, limit: int, staged: Staged, is_intact: Callable[[], bool]) -> None:
        self._sha256 = sha256
        self._limit = limit
        self._staged: Staged | None = staged
        self._is_intact = is_intact
        self._hasher = hashlib.sha256()
        self.size = 0
        """Bytes that were written so far."""

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._staged is not None:
            self._staged.abort()
            self._staged = None

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit:
            raise TooLarge(f"the blob has more than the {self._limit} bytes that are allowed")
        self._hasher.update(chunk)
        if self._staged is not None:
            self._staged.write(chunk)

    def commit(self) -> bool:
        """True if the bytes were stored: there were none under this hash, or damaged ones."""
        found = self._hasher.hexdigest()
        if found != self._sha256:
            raise InvalidInput(
                Issue("sha256", f"the {self.size} bytes that came hash to {found}, not to {self._sha256}"),
                next_step="send the file again; it may have changed while it was read",
            )
        if self._staged is None:
            raise RuntimeError("this writer is finished")
        if self._is_intact():
            return False
        self._staged.commit(_key(self._sha256))
        self._staged = None
        return True


def damaged(sha256: str) -> IntegrityError:
    """The error for stored bytes that no longer hash to their name."""
    return IntegrityError(
        f"blob {sha256} is damaged: its stored bytes do not hash to its name",
        next_step="take the blob out of the store (a backup may have it whole) and push the same files again",
        details={"sha256": sha256},
    )


def _key(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise InvalidInput(Issue("sha256", "expected 64 hexadecimal digits in lower case"))
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _open_storage(url: str, options: Mapping[str, str]) -> Storage:
    from podium.registry.local_folder import LocalFolder

    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            Issue("blobs.url", "expected no credentials in the URL; give them by reference as options")
        )
    if parts.scheme in ("", "file"):
        path = unquote(parts.path) if parts.scheme else url
        if not os.path.isabs(path) or parts.netloc not in ("", "localhost"):
            raise InvalidInput(
                Issue("blobs.url", "expected an absolute path, file:///folder or s3://bucket/prefix")
            )
        if options:
            raise InvalidInput(Issue("blobs.options", "a local folder has no options"))
        return LocalFolder(Path(path))
    if parts.scheme == "s3":
        from podium.registry.bucket import Bucket

        if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", parts.netloc) or parts.query or parts.fragment:
            raise InvalidInput(Issue("blobs.url", "expected s3://bucket/prefix"))
        return Bucket(parts.netloc, unquote(parts.path).strip("/"), _s3_settings(options))
    raise InvalidInput(Issue("blobs.url", f"unknown scheme {parts.scheme[:20]!r}; known: file, s3"))


def _s3_settings(options: Mapping[str, str]) -> dict[str, Any]:
    unknown = sorted(set(options) - set(_S3_OPTIONS))
    if unknown:
        raise InvalidInput(
            Issue(f"blobs.options.{unknown[0][:40]}", f"unknown; known: {', '.join(_S3_OPTIONS)}")
        )
    values = {
        name: _resolve(name, value) if name in _SECRET_OPTIONS else value for name, value in options.items()
    }
    names = {"accessKey": "key", "secretKey": "secret", "sessionToken": "token", "profile": "profile"}
    settings: dict[str, Any] = {names[name]: value for name, value in values.items() if name in names}
    client = {"endpointUrl": "endpoint_url", "region": "region_name"}
    settings["client_kwargs"] = {client[name]: value for name, value in values.items() if name in client}
    # botocore waits a minute for a connection and as long for an answer, five times over; nobody should.
    settings["config_kwargs"] = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}}
    return settings


def _resolve(name: str, reference: str) -> str:
    """The secret behind `env:NAME` or `file:/path`; what is wrong never shows the secret."""
    kind, _, target = reference.partition(":")
    if kind == "env" and target:
        if target not in os.environ:
            raise InvalidInput(
                Issue(f"blobs.options.{name}", f"the environment has no variable {target[:80]}")
            )
        return os.environ[target]
    if kind == "file" and os.path.isabs(target):
        try:
            return Path(target).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"blobs.options.{name}: the file cannot be read: {type(error).__name__}"
            ) from None
    expected = "expected a reference, env:NAME or file:/path, not the secret itself"
    raise InvalidInput(Issue(f"blobs.options.{name}", expected))
