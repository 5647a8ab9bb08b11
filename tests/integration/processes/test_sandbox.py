"""What model code cannot do from inside its box, tried from inside a real one on this machine's kernel."""

import ctypes
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium.processes import shim as shim_package
from podium.processes.sandbox import Box, Limits, python_roots
from podium.processes.shim import landlock
from podium.processes.supervision import Finished, Program, observe, prepare, run_once

from .conftest import GIB, PYTHON, Boxes

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        platform.machine() != "x86_64" or landlock.abi() < 6,
        reason="the attempts use system call numbers of x86_64, and all of them need Landlock ABI 6 to fail",
    ),
]
SHIM = Path(shim_package.__file__ or "").parent
ATTEMPTS = Path(__file__).with_name("attempts.py")


class Outside:
    """What lies around the box: a secret, a stranger's process, listening sockets of every kind."""

    def __init__(self, folder: Path, short: Path) -> None:
        self.secret = folder / "secret" / "token"
        self.secret.parent.mkdir()
        self.secret.write_text("s3cret")
        self.secret.chmod(0o600)
        os.utime(self.secret, (1_000_000_000, 1_000_000_000))
        self.allowed = folder / "model" / "weights"
        self.allowed.parent.mkdir()
        self.allowed.write_text("weights")
        self.stranger = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"], env={"SECRET": "s3cret"}
        )
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        self.unix, self.abstract = str(short / "u"), f"\0podium-test-{os.getpid()}"
        self.sockets[0].bind(self.unix)
        self.sockets[1].bind(self.abstract)
        for one in self.sockets:
            one.listen()
        self.datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagram.bind(str(short / "d"))
        self.datagram.setblocking(False)
        self.tcp = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.ports = [one.getsockname()[1] for one in self.tcp]

    def given(self) -> dict[str, object]:
        return {
            "outside": str(self.secret), "allowed": str(self.allowed), "stranger": self.stranger.pid,
            "unix": self.unix, "abstract": self.abstract, "datagram": self.datagram.getsockname(),
            "tcp": self.ports[0], "tcp allowed": self.ports[1],
        }  # fmt: skip

    def close(self) -> None:
        self.stranger.kill()
        self.stranger.wait()
        for one in [*self.sockets, self.datagram, *self.tcp]:
            one.close()


@pytest.fixture
def outside(tmp_path: Path, short: Path) -> Iterator[Outside]:
    around = Outside(tmp_path, short)
    yield around
    around.close()


def attempts(
    boxes: Boxes, outside: Outside, more: dict[str, int] | None = None, **box: object
) -> dict[str, str]:
    folder = boxes.folder()
    read = (outside.allowed.parent, ATTEMPTS)
    program = boxes.program(
        [str(ATTEMPTS), json.dumps(outside.given() | (more or {}))],
        folder,
        box={"read": read, **box},
        timeout=60.0,
        capture_stdout=2**20,
        limits={"open_files": 512, "cpus": (min(os.sched_getaffinity(0)),)},
    )
    finished = run_once(folder, program)
    assert finished.exit_code == 0, finished
    assert finished.sandbox == "full", finished.sandbox_missing
    outcomes: dict[str, str] = json.loads(finished.stdout)
    return outcomes


REFUSED = {
    "write allowed", "read outside", "read outside by /proc/self/root", "write outside", "truncate outside",
    "list outside", "link outside into private", "child reads outside", "xattr outside", "read shadow",
    "read the shim's environ", "read another's environ", "read another's command", "ptrace the shim",
    "signal the shim", "signal a stranger", "signal a stranger by pidfd", "limit a stranger",
    "slow a stranger down", "unix socket", "abstract socket", "datagram pair", "raw pair", "netlink", "vsock",
    "io_uring", "bpf", "keyctl", "new user namespace", "new namespace by clone", "system v memory",
    "32-bit system call", "outlive the shim", "tcp", "tcp allowed", "tcp listen", "udp",
    "tcp listen unbound", "tcp by fast open", "mptcp",
}  # fmt: skip
WORKS = {
    "read allowed": "ok: weights", "write private": "ok", "child reads allowed": "ok", "read own status": "ok",
    "read cpuinfo": "ok", "signal itself": "ok", "slow itself down": "ok", "stream pair": "ok",
    "sequenced pair": "ok", "core dump": "ok: 0", "open files": "ok: 512",
}  # fmt: skip


def test_a_model_reaches_nothing_but_what_it_was_given(boxes: Boxes, outside: Outside) -> None:
    mode_before, time_before = outside.secret.stat().st_mode, outside.secret.stat().st_mtime
    outcomes = attempts(boxes, outside)
    assert {name for name in REFUSED if outcomes[name].startswith("ok")} == set()
    assert {name: outcomes[name] for name in WORKS} == WORKS
    assert outcomes["processors"] == f"ok: [{min(os.sched_getaffinity(0))}]"
    # These are skipped, not refused; what counts is that nothing changed.
    assert outcomes["chmod outside"] == outcomes["times outside"] == "ok"
    assert outside.secret.stat().st_mode == mode_before
    assert outside.secret.stat().st_mtime == time_before
    assert outside.secret.read_text() == "s3cret"
    assert outside.allowed.read_text() == "weights"
    with pytest.raises(BlockingIOError):
        outside.datagram.recv(100)
    assert set(outcomes) == REFUSED | set(WORKS) | {
        "chmod outside",
        "times outside",
        "processors",
        "environment",
    }


def test_the_same_attempts_work_without_the_box(outside: Outside) -> None:
    """Else the test above would show nothing. (What root alone may do, and this test may not, is left out.)"""
    given = outside.given() | {"outside": str(outside.secret)}
    done = subprocess.run(
        [sys.executable, str(ATTEMPTS), json.dumps(given)], capture_output=True, check=True, timeout=60,
        cwd=outside.secret.parent,
    )  # fmt: skip
    outcomes = json.loads(done.stdout)
    for name in (
        "read outside", "read outside by /proc/self/root", "write outside", "truncate outside", "list outside",
        "link outside into private", "child reads outside", "read another's environ", "read another's command",
        "signal the shim", "signal a stranger", "signal a stranger by pidfd", "limit a stranger",
        "slow a stranger down", "unix socket", "abstract socket", "datagram pair", "raw pair", "netlink",
        "tcp", "tcp allowed", "tcp listen", "udp", "outlive the shim", "chmod outside", "times outside",
        "tcp listen unbound", "tcp by fast open",
    ):  # fmt: skip
        assert outcomes[name].startswith("ok"), (name, outcomes[name])
    assert outside.secret.stat().st_mode & 0o777 == 0o777


def test_one_tcp_port_can_be_opened_and_only_that(boxes: Boxes, outside: Outside) -> None:
    outcomes = attempts(boxes, outside, connect_ports=(outside.ports[1],))
    assert outcomes["tcp allowed"] == "ok"
    assert outcomes["udp"] == "ok"
    others = REFUSED - {"tcp allowed", "udp"}
    assert {name: outcomes[name] for name in others if outcomes[name].startswith("ok")} == {}


def test_one_tcp_port_can_be_listened_on_and_only_that(boxes: Boxes, outside: Outside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"listen allowed": one.getsockname()[1], "listen next": other.getsockname()[1]}
    outcomes = attempts(boxes, outside, ports, bind_ports=(ports["listen allowed"],))
    assert outcomes["listen allowed"] == "ok"
    others = REFUSED - {"tcp listen unbound"} | {"listen next"}
    assert {name: outcomes[name] for name in others if outcomes[name].startswith("ok")} == {}


def test_the_environment_holds_nothing_of_ours(
    boxes: Boxes, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("PODIUM_TOKEN", "s3cret")
    outcomes = attempts(boxes, outside)
    known = {
        "HOME", "LANG", "LC_ALL", "LC_CTYPE", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS", "PATH", "PODIUM_PROCESS_TOKEN", "TMPDIR", "TZ", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
    }  # fmt: skip
    assert set(outcomes["environment"].removeprefix("ok: ").split()) <= known


def once(boxes: Boxes, code: str, **changes: object) -> Finished:
    folder = boxes.folder()
    return run_once(folder, boxes.program(["-c", code], folder, timeout=30.0, capture_stdout=4096, **changes))


def test_a_program_that_does_not_exist_is_said_in_words(boxes: Boxes) -> None:
    folder = boxes.folder()
    program = boxes.program([], folder, timeout=10.0)
    finished = run_once(
        folder, type(program)(("/no/such/python",), {}, program.box, program.limits, timeout=10.0)
    )
    assert finished.exit_code is None
    assert "not started" in finished.reason
    assert "/no/such/python" in finished.reason or "No such file" in finished.reason


def test_native_libraries_work_in_the_box(boxes: Boxes) -> None:
    code = (
        "import numpy, ssl, mimetypes, multiprocessing, concurrent.futures as f\n"
        "mimetypes.init(); ssl.create_default_context(); multiprocessing.cpu_count()\n"
        "a = numpy.ones((500, 500))\n"
        "print(sum(f.ThreadPoolExecutor(2).map(lambda _: (a @ a).sum(), range(2))))"
    )
    finished = once(boxes, code)
    assert finished.exit_code == 0, finished
    assert finished.stdout.strip() == b"250000000.0"


SYSTEM_PYTHON = Path("/usr/bin/python3")
OUTSIDE_FOR_ALL = Path("/var/lib/dpkg/status")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.skipif(
    not SYSTEM_PYTHON.exists() or not OUTSIDE_FOR_ALL.exists(),
    reason=f"needs what every user can read: {SYSTEM_PYTHON} and {OUTSIDE_FOR_ALL}",
)
def test_it_holds_for_an_ordinary_user_too(boxes: Boxes, short: Path) -> None:
    """The shim as `nobody`: Landlock and seccomp need no privilege."""
    folder = short / "r"
    inside = (
        "import socket\n"
        f"for path in ['/etc/passwd', {str(OUTSIDE_FOR_ALL)!r}]:\n"
        "    try: open(path).close(); print('read', path)\n"
        "    except OSError as error: print(type(error).__name__, path)\n"
        "try: socket.socket(socket.AF_UNIX)\n"
        "except OSError as error: print(type(error).__name__, 'socket')\n"
    )
    box = Box(run=python_roots(SYSTEM_PYTHON), require="full")
    prepare(folder, Program((str(SYSTEM_PYTHON), "-I", "-c", inside), {}, box, Limits(GIB)))
    shim = shutil.copytree(SHIM, short / "shim")
    for path in (short, *short.rglob("*")):
        shutil.chown(path, 65534, 65534)
    subprocess.run(
        [SYSTEM_PYTHON, "-I", "-S", shim, folder / "spec.json"], user=65534, group=65534, extra_groups=[],
        env={"PODIUM_PROCESS_TOKEN": "t" * 32}, cwd="/", check=True, timeout=30,
    )  # fmt: skip
    seen = observe(folder)
    assert seen is not None
    assert seen.sandbox == "full", seen
    expected = ["read /etc/passwd", f"PermissionError {OUTSIDE_FOR_ALL}", "PermissionError socket"]
    assert list(seen.log_tail) == expected


# Classic BPF: refuse prctl(PR_SET_SECCOMP, ...) with EINVAL, as a kernel without seccomp does; allow the rest.
WITHOUT_SECCOMP = [
    (0x20, 0, 0, 0), (0x15, 0, 3, 157), (0x20, 0, 0, 16), (0x15, 0, 1, 22), (0x06, 0, 0, 0x00050016),
    (0x06, 0, 0, 0x7FFF0000),
]  # fmt: skip


@pytest.mark.parametrize(("require", "starts"), [("full", False), ("files", True), ("none", True)])
def test_a_level_that_the_host_does_not_give_is_an_error_not_a_weaker_box(
    boxes: Boxes, require: str, starts: bool
) -> None:
    folder = boxes.folder()
    prepare(folder, boxes.program(["-c", "print('ran')"], folder, box={"require": require}))
    code = b"".join(struct.pack("=HBBI", *one) for one in WITHOUT_SECCOMP)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(WITHOUT_SECCOMP), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None)

    def lose_seccomp() -> None:
        libc.prctl(38, 1, 0, 0, 0)
        libc.prctl(22, ctypes.c_ulong(2), ctypes.c_char_p(header), ctypes.c_ulong(0), 0)

    subprocess.run(
        [PYTHON, "-I", "-S", SHIM, folder / "spec.json"], preexec_fn=lose_seccomp, check=True, timeout=30,
        env={"PODIUM_PROCESS_TOKEN": "t" * 32},
    )  # fmt: skip
    seen = observe(folder)
    assert seen is not None
    assert seen.phase == "exited"
    assert seen.log_tail == (("ran",) if starts else ())
    if starts:
        assert seen.sandbox == "files"
        assert any(reason.startswith("local sockets: seccomp") for reason in seen.sandbox_missing)
    else:
        assert seen.exit_code is None
        assert (
            "not started: sandbox level full is required, this host gives files: local sockets" in seen.reason
        )
