"""Verify, garbage collection, and folders into the store."""

import datetime
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from podium.registry.blobs import BlobStore
from podium.registry.folder import list_files, store_folder
from podium.registry.garbage import DEFAULT_GRACE, collect
from podium.registry.verify import LOCK, verify_version
from podium.resources.errors import InvalidInput, TooLarge
from podium.resources.manifest import Manifest

Make = Callable[..., Manifest]
FILES = {"a.bin": b"aaa", "b.bin": b"bbb", "c/d.bin": b"aaa"}
NOW = datetime.datetime.now(datetime.UTC)


def place(blobs: BlobStore, sha256: str) -> Path:
    return Path(blobs.url, sha256[:2], sha256[2:4], sha256)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_an_intact_version_has_no_findings(blobs: BlobStore, manifest: Make) -> None:
    read: list[str] = []
    assert verify_version(manifest(FILES), blobs, read.append) == []
    assert read == ["a.bin", "b.bin", "c/d.bin", LOCK, "manifest.json"]


def test_every_file_that_shares_a_damaged_blob_is_named(blobs: BlobStore, manifest: Make) -> None:
    made = manifest(FILES)
    path = place(blobs, sha(b"aaa"))
    path.chmod(0o600)
    path.write_bytes(b"aab")
    place(blobs, sha(b"bbb")).unlink()
    lock = place(blobs, made.lock.sha256)
    lock.chmod(0o600)
    lock.write_bytes(b"evil==6.6.6\n")
    findings = {finding.path: finding.problem for finding in verify_version(made, blobs)}
    assert findings == {"a.bin": "digest", "b.bin": "missing", "c/d.bin": "digest", LOCK: "digest"}
    path.write_bytes(b"aa")
    assert {f.path: f.problem for f in verify_version(made, blobs)}["a.bin"] == "size"


def test_a_blob_that_cannot_be_read_is_a_finding(blobs: BlobStore, manifest: Make) -> None:
    made = manifest(FILES)
    place(blobs, sha(b"bbb")).unlink()
    place(blobs, sha(b"bbb")).symlink_to("/etc/passwd")
    findings = verify_version(made, blobs)
    assert [(finding.path, finding.problem) for finding in findings] == [("b.bin", "unreadable")]


def test_only_old_blobs_that_nobody_refers_to_go(blobs: BlobStore) -> None:
    contents = {name: os.urandom(100) for name in ("used", "old", "young", "taken")}
    for content in contents.values():
        blobs.put([content], sha(content))
    for name in ("used", "old", "taken"):
        os.utime(place(blobs, sha(contents[name])), (1_000_000, 1_000_000))

    def referenced() -> set[str]:
        # A push begins to use a blob after the listing and before its version is committed.
        blobs.refresh(sha(contents["taken"]))
        return {sha(contents["used"])}

    done = collect(blobs, referenced, now=NOW)
    assert done.removed == (sha(contents["old"]),)
    assert (done.removed_bytes, done.kept, done.young) == (100, 1, 2)
    assert {sha256 for sha256, _ in blobs.walk()} == {
        sha(contents[name]) for name in ("used", "young", "taken")
    }
    later = collect(blobs, lambda: {sha(contents["used"])}, now=NOW + 2 * DEFAULT_GRACE)
    assert set(later.removed) == {sha(contents["young"]), sha(contents["taken"])}
    assert blobs.verify(sha(contents["used"]))


def test_unfinished_uploads_go_with_the_garbage(blobs: BlobStore) -> None:
    writer = blobs.writer(sha(b"x"))
    writer.write(b"x")
    (left,) = Path(blobs.url, "incoming").iterdir()
    os.utime(left, (1_000_000, 1_000_000))
    assert collect(blobs, set, now=NOW).unfinished == 1
    writer.__exit__(None, None, None)


def test_a_grace_period_shorter_than_a_push_is_refused(blobs: BlobStore) -> None:
    with pytest.raises(InvalidInput, match="at least 2:00:00"):
        collect(blobs, set, now=NOW, grace=datetime.timedelta(minutes=5))


def test_a_folder_goes_into_the_store(blobs: BlobStore, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(b"flavors: {}")
    (folder / "code/m.py").write_bytes(b"")
    entries = store_folder(folder, blobs)
    assert [(entry.path, entry.size) for entry in entries] == [("MLmodel", 11), ("code/m.py", 0)]
    assert all(blobs.verify(entry.sha256) for entry in entries)
    with pytest.raises(TooLarge):
        list_files(folder, max_files=1)


def test_a_flipped_bit_in_the_stored_manifest_is_found(
    blobs: BlobStore, manifest: Make, tmp_path: Path
) -> None:
    made = manifest(FILES)
    own = made.canonical_bytes()
    digest = hashlib.sha256(own).hexdigest()
    blobs.put([own], digest)
    assert verify_version(made, blobs) == []
    (stored,) = tmp_path.rglob(digest)
    stored.chmod(0o600)
    stored.write_bytes(bytes([own[0] ^ 1]) + own[1:])
    assert [(found.path, found.problem) for found in verify_version(made, blobs)] == [
        ("manifest.json", "digest")
    ]


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe", "name"])
def test_links_and_strange_files_are_refused_not_followed(
    blobs: BlobStore, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if kind == "link":
        (folder / "x").symlink_to("/etc/passwd")
    elif kind == "folder link":
        (folder / "x").symlink_to("/etc")
    elif kind == "pipe":
        os.mkfifo(folder / "x")
    else:
        os.mkdir(os.fsencode(folder) + b"/\xff")
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff"), "x").write_text("")
    with pytest.raises(InvalidInput, match="files: "):
        store_folder(folder, blobs)
    assert list(blobs.walk()) == []
