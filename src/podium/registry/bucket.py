"""Blobs in S3-compatible object storage, through fsspec and s3fs.

Called by `blobs`. An object appears only when its upload is completed, so that there is no half blob to see. Small
blobs go up in one request; larger ones in parts, completed after the hash was found right.
"""

import contextlib
import datetime
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

from podium.registry.storage import Stored
from podium.resources.errors import NotFound, Refused, Unavailable

_PART = 16 * 2**20
"""Bytes per part of a large upload, and the most that is sent in one request."""
_READ_AHEAD = 8 * 2**20


class Bucket:
    """Implements Storage. `settings` are s3fs's own arguments, secrets already looked up."""

    def __init__(self, bucket: str, prefix: str, settings: Mapping[str, Any]) -> None:
        self._bucket = bucket
        self._root = f"{bucket}/{prefix}" if prefix else bucket
        self._files = _connect(settings)

    def stage(self, key: str) -> "StagedObject":
        return StagedObject(self._files, self._path(key))

    def open(self, key: str) -> BinaryIO:
        with _answers("cannot be read"):
            try:
                stream = self._files.open(
                    self._path(key), "rb", block_size=_READ_AHEAD, cache_type="readahead"
                )
            except FileNotFoundError:
                raise NotFound(f"blob {key.rpartition('/')[2]} is not stored") from None
        return cast(BinaryIO, _Reader(stream))

    def find(self, key: str) -> Stored | None:
        with _answers("cannot be read"):
            try:
                info = self._files.info(self._path(key), refresh=True)
            except FileNotFoundError:
                return None
        return _stored(key, info) if info["type"] == "file" else None

    def check(self) -> None:
        with _answers("cannot be reached"):
            self._files.call_s3("head_bucket", Bucket=self._bucket)

    def walk(self) -> Iterator[Stored]:
        # Shard by shard: one listing of everything would sit in memory, one per folder would be 65,536 requests.
        with _answers("cannot be listed"):
            try:
                shards = self._files.ls(self._root, detail=False, refresh=True)
            except FileNotFoundError:
                return
            for shard in sorted(shards):
                if len(shard.rpartition("/")[2]) == 2:
                    for path, info in sorted(self._files.find(shard, detail=True).items()):
                        key = path.removeprefix(self._root + "/")
                        if key.count("/") == 2:
                            yield _stored(key, info)

    def delete(self, key: str) -> bool:
        if self.find(key) is None:
            return False
        with _answers("cannot be deleted from"):
            self._files.rm_file(self._path(key))
        return True

    def refresh(self, key: str) -> None:
        # Object storage knows no "touch": a copy onto itself is the one way to a new time (in parts over 5 GB).
        path = self._path(key)
        with _answers("cannot be refreshed"):
            try:
                self._files.cp_file(path, path, MetadataDirective="REPLACE")
            except FileNotFoundError:
                raise NotFound(f"blob {key.rpartition('/')[2]} is not stored") from None

    def sweep(self, before: datetime.datetime) -> int:
        removed = 0
        with _answers("cannot be swept"):
            for upload in self._files.list_multipart_uploads(self._bucket):
                ours = f"{self._bucket}/{upload['Key']}".startswith(self._root + "/")
                if ours and upload["Initiated"] < before:
                    self._files.abort_mpu(self._bucket, upload["Key"], upload["UploadId"])
                    removed += 1
        return removed

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


class StagedObject:
    """Implements Staged: up to one part waits in memory, more is an unfinished upload in parts."""

    def __init__(self, files: Any, path: str) -> None:
        self._files = files
        self._path = path
        self._waiting = bytearray()
        self._upload: Any = None

    def write(self, chunk: bytes) -> None:
        with _answers("cannot be written to"):
            if self._upload is not None:
                self._upload.write(chunk)
                return
            self._waiting += chunk
            if len(self._waiting) > _PART:
                self._upload = self._files.open(self._path, "wb", block_size=_PART, autocommit=False)
                self._upload.write(bytes(self._waiting))
                self._waiting.clear()

    def commit(self, key: str) -> None:
        with _answers("cannot be written to"):
            if self._upload is None:
                self._files.pipe_file(self._path, bytes(self._waiting))
            else:
                self._upload.close()
                self._upload.commit()

    def abort(self) -> None:
        # Best effort: what cannot be taken back now is swept later.
        with contextlib.suppress(Exception):
            if self._upload is not None:
                self._upload.discard()
                # discard() leaves the file object open; closing it again would start a new upload.
                self._upload.closed = True
        self._waiting.clear()


class _Reader:
    """The few methods of a stream that the registry uses, with the storage's errors made ours."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        with _answers("cannot be read"):
            return cast(bytes, self._stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        with _answers("cannot be read"):
            return cast(int, self._stream.seek(offset, whence))

    def tell(self) -> int:
        return cast(int, self._stream.tell())

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(settings: Mapping[str, Any]) -> Any:
    try:
        import fsspec
        import s3fs  # noqa: F401  fsspec would name it in an error of its own; this one says what to do
    except ImportError:
        raise Refused(
            "s3:// needs s3fs, which is not installed", next_step="pip install 'podium[s3]'"
        ) from None
    # No listing cache: other servers write to the same bucket. No instance cache: it would keep the secrets in a key.
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True, **settings)


def _stored(key: str, info: Mapping[str, Any]) -> Stored:
    return Stored(key, int(info["size"]), info["LastModified"].astimezone(datetime.UTC))


@contextlib.contextmanager
def _answers(trouble: str) -> Iterator[None]:
    """Errors of s3fs, botocore and the network as Unavailable. Their own words are left out, because they may carry
    addresses and key ids: the code (`NoSuchBucket`, `AccessDenied`) or the kind of the error says enough."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        raise Unavailable(
            f"the blob store's bucket {trouble}: {_code(error)}",
            next_step="check the bucket, its address and its credentials",
        ) from None


def _code(error: BaseException) -> str:
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", type(seen).__name__))[:80]
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__
