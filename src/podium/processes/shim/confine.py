"""What a replica's process does to itself between fork and exec, from where there is no way back.

Called by `supervise` in the child; calls `landlock` and `seccomp`. Every level that the host cannot give is written
down with its reason; where less is reached than the spec requires, the program is not started.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import landlock, seccomp

LEVELS = ("none", "files", "full")
_GIB = 2**30

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPSET_VERSION_3 = 0x20080522

# What programs read of the system: code, libraries and the settings of the C library and of TLS; no host's secrets.
SYSTEM_RUN = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
SYSTEM_READ = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives",
    "/etc/localtime", "/etc/timezone", "/etc/os-release", "/etc/lsb-release", "/etc/debian_version", "/etc/mime.types",
    "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf",
    "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted", "/etc/fonts",
    "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage",
    "/dev/random", "/dev/urandom", "/dev/zero",
)  # fmt: skip
# Of /proc only what is about the machine and about the process itself: nobody else's command line.
_PROC_READ = (
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version",
    "/proc/filesystems", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/osrelease",
)  # fmt: skip


class Unreached(Exception):
    """The host gives less than the spec requires; the message says what is missing."""


class Reached:
    """What holds for the process, in plain words where something is missing.

    No dataclass: that module is a fifth of all that a shim would load.
    """

    def __init__(self, landlock_abi: int) -> None:
        self.level = "none"
        self.landlock_abi = landlock_abi
        self.files = False
        self.tcp = False
        self.local_sockets = False
        self.signals = False
        self.seccomp = False
        self.missing: list[str] = []

    def document(self) -> dict[str, Any]:
        """As it stands in state.json."""
        return {
            "level": self.level, "landlockAbi": self.landlock_abi, "files": self.files, "tcp": self.tcp,
            "localSockets": self.local_sockets, "signals": self.signals, "seccomp": self.seccomp,
            "missing": self.missing,
        }  # fmt: skip


def die_with(parent: int) -> None:
    """Be killed when the shim dies. Raises Unreached if it is dead already."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise Unreached("the shim died before its replica began")


def limit(limits: dict[str, Any]) -> None:
    """Resource limits, priority and processors: {memory (bytes), openFiles, niceness, cpus (list, empty: all)}.

    The memory limit proper is resident data, which the shim watches. Address space is no measure of it (numpy and
    torch reserve far more than they touch); RLIMIT_DATA is the wall behind, against a runaway that outruns the watch.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, limits["openFiles"])
    _lower(resource.RLIMIT_DATA, 2 * limits["memory"] + _GIB)
    if limits["niceness"]:
        os.nice(limits["niceness"])
    if limits["cpus"]:
        os.sched_setaffinity(0, set(limits["cpus"]))
    with contextlib.suppress(OSError):
        # When the machine runs out of memory, a model goes before the control plane and before its own shim.
        Path("/proc/self/oom_score_adj").write_text("500")


def confine(box: dict[str, Any], after_credentials: Callable[[], None]) -> Reached:
    """Drop every privilege and shut the process in: {require, read, run, write, connectPorts, bindPorts}.

    `after_credentials` runs when credentials change no more (a change can clear the parent-death signal) and before
    the filter, which refuses it. Raises Unreached when less than box["require"] is reached, and OSError when the
    kernel refuses a step that it should be able to take.
    """
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    after_credentials()
    reached = Reached(landlock_abi=landlock.abi())
    if reached.landlock_abi:
        _restrict_files(box, reached)
    else:
        reached.missing.append("files: this kernel has no Landlock, or it is switched off")
    connects, listens = bool(box["connectPorts"]), bool(box["bindPorts"])
    if reached.landlock_abi < 6:
        reached.missing.append("signals: needs Landlock ABI 6")
    try:
        seccomp.install(connects=connects, listens=listens, files_can_be_truncated=reached.landlock_abi < 3)
    except OSError as error:
        reached.missing.append(f"local sockets: {error.strerror}")
    else:
        reached.seccomp = reached.local_sockets = True
        # No port allowed: no IP socket at all, whatever Landlock can do.
        reached.tcp = reached.tcp or not (connects or listens)
    if not reached.tcp:
        reached.missing.append("TCP: needs Landlock ABI 4")
    if reached.files:
        reached.level = "full" if reached.tcp and reached.local_sockets else "files"
    if LEVELS.index(reached.level) < LEVELS.index(box["require"]):
        raise Unreached(
            f"sandbox level {box['require']} is required, this host gives {reached.level}: "
            + "; ".join(reached.missing)
        )
    return reached


def _restrict_files(box: dict[str, Any], reached: Reached) -> None:
    rules = landlock.Rules(reached.landlock_abi)
    for path in (*SYSTEM_RUN, *box["run"]):
        rules.allow_path(path, landlock.READ_AND_RUN)
    for path in (*SYSTEM_READ, *box["read"]):
        rules.allow_path(path, landlock.READ)
    for path in _PROC_READ:
        rules.allow_path(path, landlock.READ, pin=True)
    rules.allow_path("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE)
    for path in box["write"]:
        rules.allow_path(path, landlock.READ_AND_WRITE)
    if reached.landlock_abi >= 4:
        rules.allow_connect(box["connectPorts"])
        rules.allow_bind(box["bindPorts"])
    rules.apply()
    reached.files = True
    reached.tcp = reached.landlock_abi >= 4
    reached.signals = reached.landlock_abi >= 6


def _drop_capabilities() -> None:
    """Root without capabilities is a user like others who happens to own root's files. Nothing to do for a user."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        # Fails only without CAP_SETPCAP, and then the bounding set gives nothing new under no_new_privs either.
        libc.prctl(
            _PR_CAPBSET_DROP,
            ctypes.c_ulong(capability),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        )
    header = (ctypes.c_uint32 * 2)(_CAPSET_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def _prctl(operation: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(operation), ctypes.c_ulong(value), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {operation}: {os.strerror(number)}")


def _lower(kind: int, value: int) -> None:
    """Set a limit, but never above what the shim itself was given."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
