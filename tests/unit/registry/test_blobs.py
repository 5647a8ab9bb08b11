"""The blob store in a local folder: whole or not at all, never rewritten, found out when damaged."""

import datetime
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podium.registry.blobs import BlobStore
from podium.resources.errors import IntegrityError, InvalidInput, NotFound, TooLarge, Unavailable

NOW = datetime.datetime.now(datetime.UTC)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def place(blobs: BlobStore, sha256: str) -> Path:
    return Path(blobs.url) / sha256[:2] / sha256[2:4] / sha256


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=5000), max_size=8))
def test_what_went_in_comes_out(blobs: BlobStore, chunks: list[bytes]) -> None:
    content = b"".join(chunks)
    sha256 = digest(content)
    blobs.put(chunks, sha256)
    assert b"".join(blobs.iterate(sha256, 700)) == content
    assert blobs.read(sha256, 40_000) == content
    assert blobs.size(sha256) == len(content)
    assert blobs.verify(sha256)


def test_a_blob_is_stored_once_and_is_never_rewritten(blobs: BlobStore) -> None:
    sha256 = digest(b"model")
    assert blobs.put([b"mo", b"del"], sha256) is True
    before = place(blobs, sha256).stat()
    assert blobs.put([b"model"], sha256) is False
    after = place(blobs, sha256).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert stat.S_IMODE(after.st_mode) == 0o400


def test_bytes_with_another_hash_are_refused_and_leave_nothing(blobs: BlobStore) -> None:
    with pytest.raises(InvalidInput, match="hash to") as error:
        blobs.put([b"other"], digest(b"model"))
    assert error.value.issues[0].field == "sha256"
    assert files_below(Path(blobs.url)) == []
    # also where the right bytes are stored already: nobody is told "stored" without having them
    blobs.put([b"model"], digest(b"model"))
    with pytest.raises(InvalidInput):
        blobs.put([b"other"], digest(b"model"))


def test_more_bytes_than_allowed_are_refused_while_they_come(tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path), max_bytes=10)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"1234"

    with pytest.raises(TooLarge, match="10 bytes"):
        blobs.put(endless(), digest(b""))
    assert taken == 3
    assert files_below(tmp_path) == []


def test_a_sender_that_breaks_off_leaves_nothing(blobs: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"mo"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.put(broken(), digest(b"model"))
    assert files_below(Path(blobs.url)) == []
    assert not blobs.exists(digest(b"model"))


@pytest.mark.parametrize(
    "name", ["", "abc", "A" * 64, "../" * 20 + "etc/passwd", "0" * 63 + "/", "0" * 63 + "\n", "0" * 65]
)
def test_only_a_sha256_is_a_name(blobs: BlobStore, name: str) -> None:
    for call in (
        blobs.open,
        blobs.size,
        blobs.exists,
        blobs.delete,
        blobs.verify,
        blobs.refresh,
        blobs.writer,
    ):
        with pytest.raises(InvalidInput, match="64 hexadecimal"):
            call(name)


def test_a_missing_blob_is_not_found(blobs: BlobStore) -> None:
    missing = digest(b"never")
    assert blobs.exists(missing) is False
    assert blobs.delete(missing) is False
    for call in (blobs.open, blobs.size, blobs.verify, blobs.refresh):
        with pytest.raises(NotFound):
            call(missing)
    with pytest.raises(NotFound):
        list(blobs.iterate(missing))


@pytest.mark.parametrize("bit", [0, 7, 8 * 2_500_000 - 1, 8 * 1_234_567 + 3])
def test_one_flipped_bit_is_found_and_the_end_is_never_given_out(blobs: BlobStore, bit: int) -> None:
    content = os.urandom(2_500_000)
    sha256 = digest(content)
    blobs.put([content], sha256)
    flip(place(blobs, sha256), bit)
    assert blobs.verify(sha256) is False
    given_out = 0
    with pytest.raises(IntegrityError, match="damaged"):
        for chunk in blobs.iterate(sha256):
            given_out += len(chunk)
    assert given_out < len(content)
    with pytest.raises(IntegrityError):
        blobs.read(sha256, 3_000_000)


@pytest.mark.parametrize("damaged", [b"mode", b"mudel", b""], ids=["truncated", "flipped", "empty"])
def test_a_damaged_blob_is_replaced_when_its_bytes_come_again(blobs: BlobStore, damaged: bytes) -> None:
    sha256 = digest(b"model")
    blobs.put([b"model"], sha256)
    path = place(blobs, sha256)
    path.chmod(0o600)
    path.write_bytes(damaged)
    assert not blobs.verify(sha256)
    assert blobs.put([b"model"], sha256) is True
    assert blobs.verify(sha256)
    assert blobs.put([b"model"], sha256) is False


def test_walk_finds_every_blob_and_passes_over_strangers(blobs: BlobStore) -> None:
    contents = [b"one", b"two", b"three"]
    for content in contents:
        blobs.put([content], digest(content))
    Path(blobs.url, "README").write_text("not a blob")
    shard = place(blobs, digest(b"one")).parent
    (shard / "stranger").write_text("neither")
    (shard / digest(b"two")).write_text("in the wrong shard")
    (shard / ("f" * 64)).symlink_to("/etc/passwd")
    found = {sha256: stored.size for sha256, stored in blobs.walk()}
    assert found == {digest(content): len(content) for content in contents}


def test_a_link_in_place_of_a_blob_is_not_followed(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    sha256 = digest(b"secret")
    path = place(blobs, sha256)
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "secret")
    assert blobs.find(sha256) is None
    with pytest.raises(Unavailable):
        blobs.open(sha256)


def test_refresh_changes_the_time_and_nothing_else(blobs: BlobStore) -> None:
    sha256 = digest(b"model")
    blobs.put([b"model"], sha256)
    os.utime(place(blobs, sha256), (1_000_000, 1_000_000))
    assert blobs.find(sha256).modified_at < NOW - datetime.timedelta(days=1)  # type: ignore[union-attr]
    blobs.refresh(sha256)
    assert blobs.find(sha256).modified_at > NOW - datetime.timedelta(days=1)  # type: ignore[union-attr]
    assert blobs.verify(sha256)


def test_many_writers_of_the_same_blob_end_with_one_whole_blob(blobs: BlobStore) -> None:
    content = os.urandom(300_000)
    sha256 = digest(content)
    outcomes: list[bool] = []
    start = threading.Barrier(8)

    def write() -> None:
        start.wait(10)
        outcomes.append(blobs.put((content[at : at + 1000] for at in range(0, len(content), 1000)), sha256))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert True in outcomes
    assert blobs.verify(sha256)
    assert len(files_below(Path(blobs.url))) == 1


def _put_with_a_small_disk(
    url: str, sha256: str, results: "multiprocessing.SimpleQueue[tuple[str, str]]"
) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    blobs = BlobStore(url)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
    try:
        blobs.put([b"x" * 1_000_000] * 3, sha256)
    except Unavailable as error:
        results.put(("Unavailable", str(error)))
    else:
        results.put(("stored", ""))


def test_a_disk_that_refuses_more_bytes_leaves_no_half_blob(blobs: BlobStore) -> None:
    """The kernel's own file-size limit: a real write that really fails in the middle."""
    sha256 = digest(b"x" * 3_000_000)
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_put_with_a_small_disk, args=(blobs.url, sha256, results))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    kind, message = results.get()
    assert kind == "Unavailable"
    assert "File too large" in message
    assert blobs.url not in message
    assert files_below(Path(blobs.url)) == []
    blobs.put([b"x" * 1_000_000] * 3, sha256)
    assert blobs.verify(sha256)


def on_a_small_disk(tmp_path: Path, program: str) -> str:
    """Run a program with a file system of 2 MiB as its argument, in a mount namespace of its own; what it printed."""
    script = tmp_path / "program.py"
    script.write_text(program)
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--mount", "--map-root-user"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode != 0
    ):
        pytest.skip("this machine lets nobody make a mount namespace")
    mount = f"mount -t tmpfs -o size=2m tmpfs {disk} && exec {sys.executable} {script} {disk}"
    done = subprocess.run([*namespace, "sh", "-c", mount], check=False, capture_output=True, text=True)
    if "mount:" in done.stderr:
        pytest.skip("this machine lets nobody mount a tmpfs")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_unavailable(tmp_path: Path) -> None:
    program = """
import hashlib, pathlib, sys
from podium.registry.blobs import BlobStore
from podium.resources.errors import Unavailable
root = pathlib.Path(sys.argv[1])
blobs = BlobStore(str(root))
content = b"x" * 4_000_000
try:
    blobs.put([content], hashlib.sha256(content).hexdigest())
except Unavailable as error:
    print(error, error.retryable, [str(p) for p in root.rglob("*") if p.is_file()])
small = b"fits"
print(blobs.put([small], hashlib.sha256(small).hexdigest()))
try:
    blobs.check()
except Unavailable as error:
    print(error.next_step)
"""
    said = on_a_small_disk(tmp_path, program)
    assert "No space left on device True []" in said
    assert "\nTrue\n" in said
    assert "free some space" in said


def test_a_full_disk_leaves_no_half_checkout(tmp_path: Path) -> None:
    program = """
import hashlib, pathlib, sys, tempfile
from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.resources.errors import Unavailable
from podium.resources.manifest import Manifest
root = pathlib.Path(sys.argv[1])
with tempfile.TemporaryDirectory() as stored:
    blobs = BlobStore(stored)
    files = []
    for name, content in {"a.bin": b"a" * 100_000, "b.bin": b"x" * 4_000_000}.items():
        sha256 = hashlib.sha256(content).hexdigest()
        blobs.put([content], sha256)
        files.append({"path": name, "size": len(content), "sha256": sha256})
    flavor = {"name": "python"}
    made = Manifest.model_validate({"flavor": flavor, "files": files, "python": "3.11", "lock": {"sha256": "0" * 64}})
    checkout = Checkout(root, blobs)
    try:
        checkout.ensure(made)
    except Unavailable as error:
        print(error, error.next_step, checkout.entries(), list((root / ".building").iterdir()))
    print(checkout.ensure(made.model_copy(update={"files": made.files[:1]}))[0].is_dir())
"""
    said = on_a_small_disk(tmp_path, program)
    assert "No space left on device free some space [] []" in said
    assert said.endswith("\nTrue\n")


def _put_for_ever(url: str, started: Any) -> None:
    blobs = BlobStore(url)
    number = 0
    while True:
        content = number.to_bytes(4, "big") * 50_000
        blobs.put([content[:70_000], content[70_000:]], digest(content))
        number += 1
        if number == 5:
            started.set()


def test_a_writer_that_is_killed_leaves_only_whole_blobs(blobs: BlobStore) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        started = context.Event()
        process = context.Process(target=_put_for_ever, args=(blobs.url, started))
        process.start()
        try:
            assert started.wait(60)
        finally:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
    found = [sha256 for sha256, _ in blobs.walk()]
    assert len(found) >= 5
    assert all(blobs.verify(sha256) for sha256 in found)
    blobs.sweep(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5))
    assert len(files_below(Path(blobs.url))) == len(found)


def test_sweep_removes_what_dead_writers_left_and_nothing_young(blobs: BlobStore) -> None:
    writer = blobs.writer(digest(b"model"))
    writer.write(b"mo")
    left = files_below(Path(blobs.url))
    assert len(left) == 1
    assert blobs.sweep(NOW - datetime.timedelta(hours=1)) == 0
    os.utime(left[0], (1_000_000, 1_000_000))
    assert blobs.sweep(NOW - datetime.timedelta(hours=1)) == 1
    assert files_below(Path(blobs.url)) == []
    writer.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "unknown scheme"),
        ("gs://bucket", "unknown scheme"),
        ("relative/folder", "absolute path"),
        ("file://other-host/folder", "absolute path"),
        ("s3://key:hush@bucket/prefix", "no credentials in the URL"),
        ("s3:///prefix", "s3://bucket"),
        ("s3://bucket/prefix?acl=public", "s3://bucket"),
    ],
)
def test_a_bad_url_says_what_is_expected(url: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        BlobStore(url)
    assert "hush" not in str(error.value)


def test_secrets_come_by_reference_only_and_show_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THE_KEY", "AKIA-hush")
    (tmp_path / "secret").write_text("hush-hush\n")
    options = {
        "accessKey": "env:THE_KEY",
        "secretKey": f"file:{tmp_path}/secret",
        "endpointUrl": "http://127.0.0.1:9",
    }
    blobs = BlobStore("s3://bucket/prefix", options)
    assert "hush" not in repr(blobs)
    assert "hush" not in str(vars(blobs))
    for name, value, words in [
        ("secretKey", "hush-hush", "expected a reference"),
        ("secretKey", "env:NO_SUCH_VARIABLE", "no variable NO_SUCH_VARIABLE"),
        ("password", "env:THE_KEY", "unknown; known: endpointUrl"),
    ]:
        with pytest.raises(InvalidInput, match=words) as refused:
            BlobStore("s3://bucket", {name: value})
        assert refused.value.issues[0].field == f"blobs.options.{name}"
        assert "hush" not in str(refused.value)
    with pytest.raises(Unavailable, match="cannot be read"):
        BlobStore("s3://bucket", {"secretKey": "file:/no/such/file"})


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a read-only file, as a failing disk would."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    path.chmod(mode)
