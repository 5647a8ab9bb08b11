"""A version's files as a folder: byte for byte, read-only, whole or not at all."""

import fcntl
import hashlib
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podium.registry.blobs import BlobStore
from podium.registry.checkout import Checkout
from podium.registry.paths import check_files
from podium.resources.errors import IntegrityError, InvalidInput, PodiumError, Unavailable
from podium.resources.manifest import FileEntry, Manifest

Make = Callable[..., Manifest]
FILES = {
    "MLmodel": b"flavors: {}",
    "code/pkg/__init__.py": b"",
    "code/pkg/m.py": b"x = 1\n" * 100,
    "empty": b"",
}


@pytest.fixture
def checkout(blobs: BlobStore, tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkouts", blobs)


def content_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def test_the_folder_is_what_was_pushed(checkout: Checkout, manifest: Make) -> None:
    made = manifest(FILES)
    model, document = checkout.ensure(made)
    assert content_of(model) == FILES
    assert "sha256:" + hashlib.sha256(document.read_bytes()).hexdigest() == made.digest()
    assert model.parent == document.parent
    assert model.parent.name == made.digest().removeprefix("sha256:")


names = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=3).map(
    "/".join
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(names, st.binary(max_size=3000), min_size=1, max_size=5))
def test_any_files_that_are_accepted_come_out_as_they_went_in(
    blobs: BlobStore, checkout: Checkout, manifest: Make, files: Mapping[str, bytes]
) -> None:
    try:
        entries = [
            FileEntry(path=p, size=len(c), sha256=hashlib.sha256(c).hexdigest()) for p, c in files.items()
        ]
        check_files(entries, max_files=10, max_bytes=100_000)
    except (ValueError, PodiumError):
        return
    made = manifest(files)
    model, _ = checkout.ensure(made)
    assert content_of(model) == dict(files)
    checkout.discard(made.digest())


def test_it_is_read_only_and_shares_no_inode_with_the_store(
    checkout: Checkout, manifest: Make, blobs: BlobStore
) -> None:
    model, document = checkout.ensure(manifest(FILES))
    stored = {path.stat().st_ino for path in Path(blobs.url).rglob("*")}
    for path in [model.parent, model, document, *model.rglob("*")]:
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == (0o500 if path.is_dir() else 0o400)
        assert path.is_dir() or (status.st_nlink == 1 and status.st_ino not in stored)


def test_a_second_call_changes_nothing_but_the_time_of_use(checkout: Checkout, manifest: Make) -> None:
    made = manifest(FILES)
    model, _ = checkout.ensure(made)
    before = (model / "MLmodel").stat().st_ino
    os.utime(model.parent, (1_000_000, 1_000_000))
    other, _ = checkout.ensure(manifest({"x.txt": b"other"}))
    assert [entry.path for entry in checkout.entries()] == [model.parent, other.parent]
    assert checkout.ensure(made)[0] == model
    assert (model / "MLmodel").stat().st_ino == before
    entries = checkout.entries()
    assert [entry.path for entry in entries] == [other.parent, model.parent]
    assert entries[1].bytes == sum(map(len, FILES.values())) + len(made.canonical_bytes())


@pytest.mark.parametrize(
    "damage", ["shorter", "missing", "extra", "link", "link of that size", "folder link", "manifest"]
)
def test_a_folder_that_does_not_look_right_is_made_anew(
    checkout: Checkout, manifest: Make, damage: str
) -> None:
    made = manifest(FILES)
    model, document = checkout.ensure(made)
    for path in [model.parent, *model.parent.rglob("*")]:
        path.chmod(0o700)
    target = model / "code/pkg/m.py"
    if damage == "shorter":
        target.write_bytes(b"x")
    elif damage == "missing":
        target.unlink()
    elif damage == "extra":
        (model / "code/sitecustomize.py").write_text("import os")
    elif damage == "link":
        target.unlink()
        target.symlink_to("/etc/passwd")
    elif damage == "link of that size":
        size = target.stat().st_size
        target.unlink()
        target.symlink_to("/" * (size - len("etc/passwd")) + "etc/passwd")
        assert target.lstat().st_size == size
    elif damage == "folder link":
        (model / "code").rename(model.parent / "elsewhere")
        (model / "code").symlink_to(model.parent / "elsewhere")
    else:
        document.write_text("{}")
    model, document = checkout.ensure(made)
    assert content_of(model) == FILES
    assert document.read_bytes() == made.canonical_bytes()


def test_damaged_bytes_never_become_a_folder(
    checkout: Checkout, manifest: Make, blobs: BlobStore, tmp_path: Path
) -> None:
    made = manifest(FILES)
    sha256 = hashlib.sha256(FILES["code/pkg/m.py"]).hexdigest()
    path = Path(blobs.url, sha256[:2], sha256[2:4], sha256)
    good = path.read_bytes()
    for bad in (good[:-1] + b"\r", good[:-1], good + b"x"):
        path.chmod(0o600)
        path.write_bytes(bad)
        with pytest.raises(IntegrityError, match=r"code/pkg/m\.py: blob .* is damaged") as error:
            checkout.ensure(made)
        assert error.value.details == {"path": "code/pkg/m.py", "sha256": sha256}
        assert checkout.entries() == []
        assert list((tmp_path / "checkouts" / ".building").iterdir()) == []
    path.unlink()
    with pytest.raises(IntegrityError, match="missing from the store"):
        checkout.ensure(made)
    path.write_bytes(good)
    assert content_of(checkout.ensure(made)[0]) == FILES


def test_a_size_that_the_manifest_says_and_the_bytes_do_not_have(checkout: Checkout, manifest: Make) -> None:
    made = manifest(FILES)
    files = [file.model_copy(update={"size": file.size + 1}) for file in made.files]
    with pytest.raises(IntegrityError, match="MLmodel: blob"):
        checkout.ensure(made.model_copy(update={"files": files}))
    assert checkout.entries() == []


def test_many_callers_get_one_folder(blobs: BlobStore, manifest: Make, tmp_path: Path) -> None:
    made = manifest({"big.bin": os.urandom(2_000_000), **FILES})
    start = threading.Barrier(8)
    results: list[tuple[Path, int]] = []

    def call() -> None:
        mine = Checkout(tmp_path / "checkouts", blobs)
        start.wait(10)
        model, _ = mine.ensure(made)
        results.append((model, (model / "big.bin").stat().st_ino))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1


def _build_slowly(root: str, url: str, document: str) -> None:
    """Stops in the middle: its blob store is a pipe that never ends."""
    blobs = BlobStore(url)
    made = Manifest.model_validate_json(document)
    Checkout(Path(root), blobs).ensure(made)


def test_a_builder_that_was_killed_is_swept_and_the_next_one_succeeds(
    blobs: BlobStore, manifest: Make, tmp_path: Path
) -> None:
    made = manifest({"a.bin": os.urandom(100_000), "b.bin": os.urandom(200_000)})
    sha256 = made.files[1].sha256
    path = Path(blobs.url, sha256[:2], sha256[2:4], sha256)
    good = path.read_bytes()
    path.unlink()
    os.mkfifo(path)  # the builder waits here, a.bin already copied
    root = tmp_path / "checkouts"
    arguments = (str(root), blobs.url, made.canonical_bytes().decode())
    process = multiprocessing.get_context("spawn").Process(target=_build_slowly, args=arguments)
    process.start()
    checkout = Checkout(root, blobs)
    try:
        deadline = time.monotonic() + 60
        while not list((root / ".building").glob("*/model/a.bin")):
            assert time.monotonic() < deadline, "the builder never got to the second file"
            time.sleep(0.01)
        assert checkout.sweep() == 0, "a builder at work is left alone"
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    assert checkout.entries() == []
    assert checkout.sweep() == 1
    assert list((root / ".building").iterdir()) == []
    path.unlink()
    path.write_bytes(good)
    model, _ = checkout.ensure(made)
    assert (model / "b.bin").read_bytes() == good


def test_discard_removes_and_ensure_makes_it_anew(checkout: Checkout, manifest: Make) -> None:
    made = manifest(FILES)
    model, _ = checkout.ensure(made)
    assert checkout.discard(made.digest()) is True
    assert checkout.discard(made.digest()) is False
    assert not model.exists()
    assert checkout.entries() == []
    assert content_of(checkout.ensure(made)[0]) == FILES
    for bad in ("", "sha256:..", "../../etc", "sha256:" + "G" * 64):
        with pytest.raises(InvalidInput, match="64 hexadecimal"):
            checkout.discard(bad)


def test_a_waiting_caller_goes_on_when_the_lock_is_free(
    checkout: Checkout, manifest: Make, tmp_path: Path
) -> None:
    made = manifest(FILES)
    lock = tmp_path / "checkouts/.locks" / made.digest().removeprefix("sha256:")
    done = threading.Event()
    thread = threading.Thread(target=lambda: (checkout.ensure(made), done.set()))
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread.start()
        assert not done.wait(0.2)
    assert done.wait(20)
    thread.join()


def test_a_root_that_cannot_be_made_is_unavailable(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be laid out"):
        Checkout(tmp_path / "file" / "checkouts", blobs)
