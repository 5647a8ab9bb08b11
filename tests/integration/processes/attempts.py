"""What model code tries from inside the box. Run there as a program; prints one JSON object: attempt -> outcome.

An outcome is `ok` (it worked), `ok: <detail>`, or the error's name. Arguments come as one JSON object.
"""

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

GIVEN = json.loads(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
OUTCOMES: dict[str, str] = {}


def attempt(name: str, action: Callable[[], object]) -> None:
    try:
        detail = action()
    except OSError as error:
        OUTCOMES[name] = type(error).__name__
    else:
        OUTCOMES[name] = "ok" if detail is None else f"ok: {detail}"


def call(number: int, *arguments: object) -> int:
    result = LIBC.syscall(
        ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as one:
        one.settimeout(2)
        one.connect(address)


def listen_unbound() -> None:
    """The kernel chooses a port then, and no bind() is seen. What counts is whether somebody could connect."""
    with socket.socket() as one:
        one.listen()
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise PermissionError("listen() was skipped")


def fast_open(port: int) -> None:
    """A send that connects: connect() is never called."""
    with socket.socket() as one:
        one.sendto(b"escaped", socket.MSG_FASTOPEN, ("127.0.0.1", port))


def mptcp(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as one:
        one.connect(("127.0.0.1", port))


def send_from_a_pair(kind: int, path: str) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        one.sendto(b"escaped", path)


def write_private() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_text("kept")
        path.rename(Path(folder) / "renamed")
        path.with_name("renamed").chmod(0o600)
        assert path.with_name("renamed").read_text() == "kept"


def child_reads(path: str) -> None:
    done = subprocess.run(["/bin/cat", path], capture_output=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.decode())


def x86_int80() -> None:
    """socket(AF_UNIX) through the 32-bit entry, whose numbers differ: mov eax,359; int 0x80."""
    code = b"\xb8\x67\x01\x00\x00\xbb\x01\x00\x00\x00\xb9\x01\x00\x00\x00\x31\xd2\xcd\x80\xc3"
    code = b"\x53" + code[:-1] + b"\x5b\xc3"  # rbx belongs to the caller
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def main() -> None:
    outside, allowed, parent = GIVEN["outside"], GIVEN["allowed"], os.getppid()
    attempt("read allowed", lambda: Path(allowed).read_text())
    attempt("write allowed", lambda: Path(allowed).write_text("changed"))
    attempt("write private", write_private)
    attempt("read outside", lambda: Path(outside).read_text())
    attempt("read outside by /proc/self/root", lambda: Path("/proc/self/root" + outside).read_text())
    attempt("write outside", lambda: Path(outside).write_text("changed"))
    attempt("truncate outside", lambda: os.truncate(outside, 0))
    attempt("list outside", lambda: os.listdir(Path(outside).parent))
    attempt("link outside into private", lambda: os.link(outside, "linked"))
    attempt("child reads outside", lambda: child_reads(outside))
    attempt("child reads allowed", lambda: child_reads(allowed))
    attempt("xattr outside", lambda: os.setxattr(outside, "user.a", b"b"))
    attempt("chmod outside", lambda: os.chmod(outside, 0o777))
    attempt("times outside", lambda: os.utime(outside, (1, 1)))
    attempt("read shadow", lambda: Path("/etc/shadow").read_bytes()[:0])
    attempt("read own status", lambda: Path("/proc/self/status").read_text()[:0] or None)
    attempt("read cpuinfo", lambda: Path("/proc/cpuinfo").read_text()[:0] or None)
    attempt("read the shim's environ", lambda: Path(f"/proc/{parent}/environ").read_bytes())
    attempt("read another's environ", lambda: Path(f"/proc/{GIVEN['stranger']}/environ").read_bytes())
    attempt("read another's command", lambda: Path(f"/proc/{GIVEN['stranger']}/cmdline").read_bytes())
    attempt("ptrace the shim", lambda: call(101, 0x4206, parent, 0, 0))
    attempt("signal the shim", lambda: os.kill(parent, 0))
    attempt("signal a stranger", lambda: os.kill(GIVEN["stranger"], 0))
    attempt(
        "signal a stranger by pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(GIVEN["stranger"]), 0)
    )
    attempt("signal itself", lambda: os.kill(os.getpid(), 0))
    attempt("limit a stranger", lambda: resource.prlimit(GIVEN["stranger"], resource.RLIMIT_CPU, (1, 1)))
    attempt("slow a stranger down", lambda: os.setpriority(os.PRIO_PROCESS, GIVEN["stranger"], 19))
    attempt("slow itself down", lambda: os.setpriority(os.PRIO_PROCESS, 0, 19))
    attempt("unix socket", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, GIVEN["unix"]))
    attempt("abstract socket", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, GIVEN["abstract"]))
    attempt("datagram pair", lambda: send_from_a_pair(socket.SOCK_DGRAM, GIVEN["datagram"]))
    attempt("raw pair", lambda: send_from_a_pair(socket.SOCK_RAW, GIVEN["datagram"]))
    attempt("stream pair", lambda: [one.close() for one in socket.socketpair()] and None)
    attempt("sequenced pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) and None)
    for name in ("tcp", "tcp allowed"):
        if name in GIVEN:
            attempt(
                name, lambda at=name: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", GIVEN[at]))
            )
    attempt("tcp listen", lambda: socket.create_server(("127.0.0.1", 0)).close())
    attempt("tcp listen unbound", listen_unbound)
    attempt("tcp by fast open", lambda: fast_open(GIVEN["tcp"]))
    attempt("mptcp", lambda: mptcp(GIVEN["tcp"]))
    for name in ("listen allowed", "listen next"):
        if name in GIVEN:
            attempt(name, lambda at=name: socket.create_server(("127.0.0.1", GIVEN[at])).close())
    attempt("udp", lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 9)))
    attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close())
    attempt("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close())
    attempt("io_uring", lambda: call(425, 8, ctypes.create_string_buffer(120)))
    attempt("bpf", lambda: call(321, 0, ctypes.create_string_buffer(64), 64))
    attempt("keyctl", lambda: call(250, 0, -3, 0))
    attempt("new user namespace", lambda: call(272, 0x10000000))
    attempt("new namespace by clone", lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0) or os._exit(0))
    attempt("system v memory", lambda: call(29, 0, 4096, 0o1600))
    attempt("32-bit system call", x86_int80)
    attempt("outlive the shim", lambda: call(157, 1, 0, 0, 0, 0))
    attempt("core dump", lambda: resource.getrlimit(resource.RLIMIT_CORE)[1])
    attempt("open files", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    attempt("processors", lambda: sorted(os.sched_getaffinity(0)))
    attempt("environment", lambda: " ".join(sorted(os.environ)))
    print(json.dumps(OUTCOMES))


if __name__ == "__main__":
    main()
