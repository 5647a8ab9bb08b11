"""Locks and virtual environments, made by the real uv from a folder of small wheels."""

import contextlib
import functools
import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podium.environments.uv import Environments, EnvironmentState
from podium.resources.errors import InvalidInput, NotFound

from .conftest import HERE, Shelf, make_sdist, make_wheel

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        f"{sys.version_info.major}.{sys.version_info.minor}" != HERE, reason=f"locks for {HERE}"
    ),
]


def says(state: EnvironmentState, code: str) -> str:
    assert state.python is not None, state
    done = subprocess.run([state.python, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_lock_holds_pins_with_hashes_and_no_address(shelf: Shelf) -> None:
    heard: list[str] = []
    lock = shelf.environments().resolve(["plain<2"], HERE, heard.append)
    pins = [line.split()[0] for line in lock.text.splitlines() if line[0] not in " #"]
    assert pins == ["plain==1.0", "serving==1.4"]
    digest = hashlib.sha256((shelf.folder / "plain-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert f"--hash=sha256:{digest}" in lock.text
    assert lock.sha256 == hashlib.sha256(lock.text.encode()).hexdigest()
    assert str(shelf.folder) not in lock.text
    assert "--find-links" not in lock.text
    assert any("Resolved 2 packages" in line for line in heard)


def test_the_resolver_says_in_its_own_words_why_not(shelf: Shelf) -> None:
    make_wheel(shelf.folder, "picky", "1.0", requires=["plain<1.5"])
    with pytest.raises(InvalidInput) as refused:
        shelf.environments().resolve(["picky", "plain>=2"], HERE)
    (issue,) = refused.value.issues
    assert issue.field == "requirements"
    assert "picky" in issue.message
    assert "plain<1.5" in issue.message
    with pytest.raises(InvalidInput, match="no-such-package"):
        shelf.environments().resolve(["no-such-package"], HERE)


def test_a_password_in_an_index_address_is_in_no_words(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://robot:s3cret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    heard: list[str] = []
    with pytest.raises(InvalidInput) as refused:
        shelf.environments().resolve(["elsewhere"], HERE, heard.append)
    assert "127.0.0.1:9" in str(refused.value)
    assert "s3cret" not in str(refused.value) + "".join(heard)


def test_a_python_that_is_not_here_is_named_with_those_that_are(shelf: Shelf) -> None:
    with pytest.raises(InvalidInput) as refused:
        shelf.environments().resolve(["plain"], "3.99")
    (issue,) = refused.value.issues
    assert issue.field == "python"
    assert "Python 3.99 is not installed on this machine; there is" in issue.message
    assert HERE in issue.message
    state = shelf.done(shelf.lock("plain"), python="3.99")
    assert state.phase == "failed"
    assert "3.99 is not installed" in state.error


@pytest.mark.parametrize(
    "hostile", ["/bin/sh", "--help", "3", "3.11 ", "pypy3.11", "../python", "3.11\n3.12"]
)
def test_a_python_is_a_version_and_nothing_else(shelf: Shelf, hostile: str) -> None:
    with pytest.raises(InvalidInput, match="expected a Python version"):
        shelf.environments().resolve(["plain"], hostile)


def test_an_environment_holds_the_lock_and_the_runtime(shelf: Shelf) -> None:
    lock = shelf.lock("plain<2")
    environments = shelf.environments()
    state = shelf.done(lock, environments)
    code = "import plain as p, serving as s, podium_runtime as r; print(p.version, s.version, r.version, p.__cached__)"
    plain, serving, runtime, cached = says(state, code).split(maxsplit=3)
    assert (plain, serving, runtime) == ("1.0", "1.4", "0.1.0")
    assert Path(cached).exists(), "byte code is there before the first start"
    folder = shelf.root / shelf.digest(lock)
    assert state.python == folder / "bin" / "python"
    assert environments.ensure(lock, HERE, shelf.wheel_sha256) == state
    assert shelf.environments().ensure(lock, HERE, shelf.wheel_sha256) == state


def test_nothing_of_a_package_runs_outside_the_sandbox(shelf: Shelf, tmp_path: Path) -> None:
    """A .pth file runs with every start of the environment's interpreter: so there must have been none."""
    mark = tmp_path / "ran"
    make_wheel(
        shelf.folder, "evil", "1.0", files={"evil.pth": f"import os; open({str(mark)!r}, 'a').write('x')\n"}
    )
    state = shelf.done(shelf.lock("evil"))
    assert state.phase == "ready", state
    assert not mark.exists()
    says(state, "pass")
    assert mark.exists(), "the trap works"


def test_nothing_is_built_from_source(shelf: Shelf, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    make_sdist(shelf.folder, "sourceonly", "1.0", f"open({str(mark)!r}, 'w').write('x')\n")
    with pytest.raises(InvalidInput, match="sourceonly"):
        shelf.environments().resolve(["sourceonly"], HERE)
    assert not mark.exists()


def test_changed_bytes_of_a_package_are_refused(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = shelf.lock("plain<2")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another-cache"))  # the first still has the right bytes
    make_wheel(shelf.folder, "plain", "1.0", files={"plain.py": "version = 'swapped'\n"})
    state = shelf.done(lock)
    assert state.phase == "failed"
    assert "hash" in state.error.lower()
    assert not (shelf.root / shelf.digest(lock)).exists()


def test_a_lock_that_names_another_source_is_refused(shelf: Shelf) -> None:
    state = shelf.done("--index-url https://evil.example/simple\n" + shelf.lock("plain"))
    assert state.phase == "failed"
    assert "line 1" in state.error


def test_packages_that_do_not_fit_together_are_said(shelf: Shelf) -> None:
    pins = shelf.lock("plain<2").splitlines()
    without = "\n".join(pins[: next(n for n, line in enumerate(pins) if line.startswith("serving"))]) + "\n"
    state = shelf.done(without)
    assert state.phase == "failed"
    assert "podium_runtime 0.1.0 requires serving>=1, which is not installed" in state.error


def test_a_wheel_that_is_not_kept_is_not_replaced_by_another(shelf: Shelf) -> None:
    lock = shelf.lock("plain")
    for unknown in ("0" * 64, "../wheels", ""):
        with pytest.raises(NotFound, match="not kept"):
            shelf.environments().ensure(lock, HERE, unknown)


def test_the_old_runtime_stays_after_an_upgrade(shelf: Shelf) -> None:
    lock, before = shelf.lock("plain"), shelf.wheel_sha256
    shelf.wheel = make_wheel(shelf.wheel.parent, "podium_runtime", "0.2.0", requires=["serving>=1"])
    upgraded = shelf.environments()
    assert says(shelf.done(lock, upgraded), "import podium_runtime as r; print(r.version)") == "0.1.0"
    shelf.wheel_sha256 = hashlib.sha256(shelf.wheel.read_bytes()).hexdigest()
    assert before != shelf.wheel_sha256
    assert says(shelf.done(lock, upgraded), "import podium_runtime as r; print(r.version)") == "0.2.0"


def test_a_kept_wheel_that_was_changed_is_not_installed(shelf: Shelf) -> None:
    lock, environments = shelf.lock("plain"), shelf.environments()
    kept = next((shelf.root / "wheels" / shelf.wheel_sha256).glob("*.whl"))
    make_wheel(kept.parent, "podium_runtime", "0.1.0", files={"podium_runtime.py": "version = 'swapped'\n"})
    state = shelf.done(lock, environments)
    assert state.phase == "failed"
    assert "is not what it was" in state.error


SEVERAL = """
import sys, time
from pathlib import Path
from podium.environments.uv import Environments
root, wheel, lock, python, sha = sys.argv[1:]
environments = Environments(Path(root), wheel=Path(wheel), max_bytes=2**40)
while (state := environments.ensure(Path(lock).read_text(), python, sha)).phase == "building":
    time.sleep(0.005)
print(state.phase, state.python, state.error)
"""


def other_process(shelf: Shelf, lock: str, tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "lock").write_text(lock)
    arguments = [str(shelf.root), str(shelf.wheel), str(tmp_path / "lock"), HERE, shelf.wheel_sha256]
    return subprocess.Popen([sys.executable, "-c", SEVERAL, *arguments], stdout=subprocess.PIPE, text=True)


def test_however_many_want_it_it_is_made_once(shelf: Shelf, tmp_path: Path) -> None:
    lock = shelf.lock("plain")
    made: set[int] = set()
    over = threading.Event()
    configuration = shelf.root / shelf.digest(lock) / "pyvenv.cfg"

    def look() -> None:
        while not over.is_set():
            with contextlib.suppress(FileNotFoundError):
                now = configuration.stat()
                if now.st_size:  # created empty, then written: two times of one making
                    made.add(now.st_mtime_ns)
            time.sleep(0.002)

    looker = threading.Thread(target=look)
    looker.start()
    environments = shelf.environments()
    others = [other_process(shelf, lock, tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        states = [one.result() for one in [pool.submit(shelf.done, lock, environments) for _ in range(8)]]
    answers = [one.communicate(timeout=60)[0] for one in others]
    over.set()
    looker.join()
    assert {state.phase for state in states} == {"ready"}
    assert all(answer.startswith("ready") for answer in answers), answers
    assert len(made) == 1


def test_killed_in_the_middle_it_is_made_anew(shelf: Shelf, tmp_path: Path) -> None:
    lock = shelf.lock("plain")
    folder = shelf.root / shelf.digest(lock)
    other = other_process(shelf, lock, tmp_path)
    try:
        deadline = time.monotonic() + 30
        while not (folder / "pyvenv.cfg").exists():
            assert time.monotonic() < deadline
            assert other.poll() is None
        os.kill(other.pid, signal.SIGKILL)
    finally:
        other.kill()
        other.communicate()
    assert not (folder / ".complete").exists()
    state = shelf.done(lock)
    assert says(state, "import plain; print(plain.version)") == "2.0"


def aged(environments: Environments, shelf: Shelf, lock: str, age: float) -> str:
    state = shelf.done(lock, environments)
    assert state.phase == "ready", state
    name = shelf.digest(lock)
    when = time.time() - age
    os.utime(shelf.root / name / ".complete", (when, when))
    return name


def test_the_least_recently_used_go_first_and_those_in_use_never(shelf: Shelf) -> None:
    environments = shelf.environments(max_bytes=0)
    make_wheel(shelf.folder, "other", "1.0")
    locks = [shelf.lock("plain<2"), shelf.lock("plain>=2"), shelf.lock("other"), shelf.lock("other", "plain")]
    oldest, older, old, fresh = (
        aged(environments, shelf, lock, age) for lock, age in zip(locks, (4000, 3000, 2000, 10), strict=True)
    )
    assert environments.collect({older}) == [oldest, old]
    left = {path.name for path in shelf.root.iterdir() if len(path.name) == 64}
    assert left == {older, fresh}
    assert shelf.done(locks[0], environments).phase == "ready"


def test_within_the_limit_nothing_goes(shelf: Shelf) -> None:
    environments = shelf.environments(max_bytes=2**40)
    aged(environments, shelf, shelf.lock("plain"), 4000)
    assert environments.collect(set()) == []


def test_what_a_dead_build_left_goes_too_but_not_one_under_way(shelf: Shelf) -> None:
    environments = shelf.environments()
    dead, under_way = "d" * 64, "e" * 64
    for name in (dead, under_way):
        (shelf.root / name / "lib").mkdir(parents=True)
    with environments._locked(under_way):
        assert environments.collect(set()) == [dead]
    assert not (shelf.root / dead).exists()
    assert (shelf.root / under_way).exists()


def test_a_build_that_fails_says_so_and_leaves_nothing(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = shelf.lock("plain<2")
    (shelf.folder / "plain-1.0-py3-none-any.whl").unlink()
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another-cache"))
    state = shelf.done(lock)
    assert state.phase == "failed"
    assert "plain" in state.error
    assert [path.name for path in shelf.root.iterdir() if len(path.name) == 64] == []


def test_an_index_that_is_away_for_a_moment_is_asked_again(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = shelf.lock("plain<2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another-cache"))
    monkeypatch.setenv("UV_FIND_LINKS", f"http://127.0.0.1:{port}/")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    environments = shelf.environments()
    deadline = time.monotonic() + 60
    while "tried again" not in (state := environments.ensure(lock, HERE, shelf.wheel_sha256)).progress:
        assert state.phase == "building", state
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(shelf.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as index:
        serving = threading.Thread(target=index.serve_forever)
        serving.start()
        try:
            state = shelf.done(lock, environments)
        finally:
            index.shutdown()
            serving.join()
    assert state.phase == "ready", state
