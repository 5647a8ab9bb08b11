"""The blob store on S3: a real server on a loopback port, spoken to over HTTP as any other."""

import datetime
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.registry.garbage import collect
from podium.registry.intake import PushHints, draft
from podium.registry.push import complete
from podium.registry.verify import verify_version
from podium.resources.errors import IntegrityError, InvalidInput, NotFound, TooLarge, Unavailable
from podium.resources.manifest import FileEntry, Manifest
from podium.resources.requests import PushRequest

pytestmark = pytest.mark.integration
MEBIBYTE = 1024 * 1024
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(server: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=server,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture
def bucket(client: Any) -> str:
    """A fresh bucket."""
    name = "podium-" + os.urandom(6).hex()
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def blobs(server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    return BlobStore(f"s3://{bucket}/some/prefix", options(server, monkeypatch))


def options(server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("PODIUM_TEST_KEY", "test")
    monkeypatch.setenv("PODIUM_TEST_SECRET", "hush-hush")
    return {
        "endpointUrl": server,
        "region": "us-east-1",
        "accessKey": "env:PODIUM_TEST_KEY",
        "secretKey": "env:PODIUM_TEST_SECRET",
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def key(sha256: str) -> str:
    return f"some/prefix/{sha256[:2]}/{sha256[2:4]}/{sha256}"


@pytest.mark.parametrize("size", [0, 1, MEBIBYTE, 16 * MEBIBYTE, 16 * MEBIBYTE + 1, 40 * MEBIBYTE])
def test_what_went_in_comes_out(blobs: BlobStore, client: Any, bucket: str, size: int) -> None:
    content = os.urandom(size)
    sha256 = digest(content)
    chunks = [content[at : at + 700_000] for at in range(0, size, 700_000)]
    assert blobs.put(chunks, sha256) is True
    assert blobs.put(chunks, sha256) is False
    assert client.get_object(Bucket=bucket, Key=key(sha256))["Body"].read() == content
    assert b"".join(blobs.iterate(sha256)) == content
    assert blobs.size(sha256) == size
    assert blobs.verify(sha256)
    with blobs.open(sha256) as stream:
        stream.seek(max(0, size - 10))
        assert stream.read() == content[max(0, size - 10) :]
    assert blobs.delete(sha256) is True
    assert blobs.delete(sha256) is False
    assert not blobs.exists(sha256)


@pytest.mark.parametrize("size", [100, 20 * MEBIBYTE])
def test_wrong_bytes_never_appear(blobs: BlobStore, client: Any, bucket: str, size: int) -> None:
    """Small ones wait in memory; large ones are an upload in parts that is given up."""
    with pytest.raises(InvalidInput, match="hash to"):
        blobs.put([os.urandom(size)], digest(b"other"))
    limited = [os.urandom(MEBIBYTE)] * (size // MEBIBYTE + 2)
    with pytest.raises(TooLarge):
        blobs.put(limited, digest(b"".join(limited)), max_bytes=size)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_uploads_of_dead_writers_are_swept(blobs: BlobStore, client: Any, bucket: str) -> None:
    client.create_multipart_upload(Bucket=bucket, Key=key(digest(b"x")))
    client.create_multipart_upload(Bucket=bucket, Key="somebody/elses")
    assert blobs.sweep(NOW - datetime.timedelta(days=9000)) == 0
    # moto dates every upload to the year 2010.
    assert blobs.sweep(NOW) == 1
    left = [upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket)["Uploads"]]
    assert left == ["somebody/elses"]


def test_damage_is_found(blobs: BlobStore, client: Any, bucket: str) -> None:
    content = os.urandom(3 * MEBIBYTE)
    sha256 = digest(content)
    blobs.put([content], sha256)
    flipped = bytearray(content)
    flipped[2_000_000] ^= 4
    client.put_object(Bucket=bucket, Key=key(sha256), Body=bytes(flipped))
    assert blobs.verify(sha256) is False
    with pytest.raises(IntegrityError):
        list(blobs.iterate(sha256))
    client.put_object(Bucket=bucket, Key=key(sha256), Body=content[:-1])
    assert blobs.put([content], sha256) is True, "the right bytes take the place of damaged ones"
    assert blobs.verify(sha256)


def test_what_is_missing_is_not_found(blobs: BlobStore) -> None:
    for call in (blobs.size, blobs.open, blobs.verify, blobs.refresh):
        with pytest.raises(NotFound):
            call("0" * 64)


def test_walk_and_garbage(blobs: BlobStore, client: Any, bucket: str) -> None:
    contents = [b"one", b"two", b"three"]
    for content in contents:
        blobs.put([content], digest(content))
    client.put_object(Bucket=bucket, Key="some/prefix/README", Body=b"stranger")
    client.put_object(Bucket=bucket, Key="other/aa/bb/" + "a" * 64, Body=b"stranger")
    assert {sha256: stored.size for sha256, stored in blobs.walk()} == {digest(c): len(c) for c in contents}
    assert collect(blobs, set, now=NOW).removed == ()
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    done = collect(blobs, lambda: {digest(b"one")}, now=later)
    assert set(done.removed) == {digest(b"two"), digest(b"three")}
    assert [sha256 for sha256, _ in blobs.walk()] == [digest(b"one")]
    assert {item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]} > {
        "some/prefix/README"
    }


def test_refresh_makes_a_blob_young(blobs: BlobStore) -> None:
    sha256 = digest(b"model")
    blobs.put([b"model"], sha256)
    before = blobs.find(sha256)
    assert before is not None
    blobs.refresh(sha256)
    after = blobs.find(sha256)
    assert after is not None
    assert after.modified_at >= before.modified_at
    assert blobs.verify(sha256)


def test_another_servers_write_is_seen_at_once(
    server: str, bucket: str, blobs: BlobStore, client: Any
) -> None:
    """No cache of listings stands between two servers on one bucket."""
    sha256 = digest(b"model")
    assert not blobs.exists(sha256)
    client.put_object(Bucket=bucket, Key=key(sha256), Body=b"model")
    assert blobs.exists(sha256)
    assert [name for name, _ in blobs.walk()] == [sha256]
    client.delete_object(Bucket=bucket, Key=key(sha256))
    assert not blobs.exists(sha256)
    assert list(blobs.walk()) == []


def test_a_missing_bucket_is_said_without_secrets(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobStore("s3://no-such-bucket-here/x", options(server, monkeypatch))
    for call in (
        blobs.check,
        lambda: blobs.put([b"x"], digest(b"x")),
        lambda: blobs.put([b"x" * 20 * MEBIBYTE], "0" * 64),
    ):
        with pytest.raises(Unavailable, match=r"NoSuchBucket|404|FileNotFound") as error:
            call()
        assert "hush" not in f"{error.value} {error.value.next_step} {error.value.__cause__!r}"


def test_a_server_that_is_gone_is_unavailable(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        blobs = BlobStore(
            f"s3://{bucket}/x", options(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch)
        )
        with pytest.raises(Unavailable, match="EndpointConnectionError") as error:
            blobs.exists("0" * 64)
    assert error.value.retryable
    assert "hush" not in f"{error.value}"


def test_a_whole_version_goes_through_a_bucket(
    blobs: BlobStore, client: Any, bucket: str, tmp_path: Path
) -> None:
    files = {
        "podium.yaml": b"class: m:Model\nrequirements: [numpy]\n",
        "m.py": b"class Model: ...",
        "w": os.urandom(MEBIBYTE),
    }
    made = push(blobs, files)
    model, _ = Checkout(tmp_path / "checkouts", blobs).ensure(made)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == files
    assert verify_version(made, blobs) == []
    client.put_object(Bucket=bucket, Key=key(digest(files["w"])), Body=bytes(MEBIBYTE))
    assert [(finding.path, finding.problem) for finding in verify_version(made, blobs)] == [("w", "digest")]
    with pytest.raises(IntegrityError, match="w: blob"):
        Checkout(tmp_path / "elsewhere", blobs).ensure(made)


def push(blobs: BlobStore, files: dict[str, bytes]) -> Manifest:
    entries = []
    for path, content in files.items():
        blobs.put([content], digest(content))
        entries.append(FileEntry(path=path, size=len(content), sha256=digest(content)))
    blobs.put([b"numpy==2.0\n"], digest(b"numpy==2.0\n"))
    request = PushRequest(files=entries)
    return complete(draft(entries, PushHints("3.11"), blobs), digest(b"numpy==2.0\n"), None, request)


def test_threads_share_one_store(blobs: BlobStore) -> None:
    from concurrent.futures import ThreadPoolExecutor

    contents = [os.urandom(100_000) for _ in range(16)]

    def there_and_back(content: bytes) -> bool:
        sha256 = digest(content)
        blobs.put([content], sha256)
        return b"".join(blobs.iterate(sha256)) == content and blobs.verify(sha256)

    work: Callable[[bytes], bool] = there_and_back
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, contents))
