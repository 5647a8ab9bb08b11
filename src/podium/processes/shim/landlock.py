"""Landlock: what the process may touch from now on, also as root, for itself and all that it starts.

Called by `confine`; calls the kernel through ctypes. Rights, structures and what each ABI level knows:
linux/Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

import ctypes
import os
import stat
from collections.abc import Iterable

# Same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH, _NET_PORT = 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1 << 0, 1 << 1

READ = READ_FILE | READ_DIR
READ_AND_RUN = READ | EXECUTE
READ_AND_WRITE = (
    READ
    | WRITE_FILE
    | TRUNCATE
    | REFER
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_FIFO
    | MAKE_SYM
)
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """The kernel's level, 0 without Landlock. 1 files, 2 +rename, 3 +truncate, 4 +TCP, 5 +ioctl, 6 +scopes."""
    libc = ctypes.CDLL(None, use_errno=True)
    level = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(0, int(level))


class Rules:
    """Rules being collected; `apply` puts them in force. Everything that no rule allows is refused."""

    def __init__(self, level: int) -> None:
        """`level` is what `abi` said, at least 1."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        known = {1: 13, 2: 14, 3: 15, 4: 15}.get(level, 16)
        self._handled = (1 << known) - 1
        attributes = _Ruleset(self._handled, 0, 0)
        size = 8
        if level >= 4:
            attributes.net, size = _BIND_TCP | _CONNECT_TCP, 16
        if level >= 6:
            attributes.scoped, size = _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL, 24
        self._descriptor = self._call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)

    def allow_path(self, path: str, rights: int, *, pin: bool = False) -> bool:
        """Allow `rights` on a file, or on a folder and all below it. False: there is no such path.

        `pin` keeps a descriptor open over exec. /proc makes new inodes when memory was short, and a rule is bound to
        the inode: while somebody has it open it stays the same.
        """
        try:
            parent = os.open(path, os.O_PATH | (0 if pin else os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        try:
            rights &= self._handled
            if not stat.S_ISDIR(os.fstat(parent).st_mode):
                rights &= _ON_FILES
            rule = _PathRule(rights, parent)
            self._call(_ADD_RULE, self._descriptor, _PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            if pin:
                os.set_inheritable(parent, True)
            else:
                os.close(parent)
        return True

    def allow_connect(self, ports: Iterable[int]) -> None:
        """Allow outgoing TCP connections to these ports; needs level 4."""
        self._allow_ports(_CONNECT_TCP, ports)

    def allow_bind(self, ports: Iterable[int]) -> None:
        """Allow TCP sockets to be bound to these ports, on any of the host's addresses; needs level 4."""
        self._allow_ports(_BIND_TCP, ports)

    def apply(self) -> None:
        """Put the rules in force for this thread and its descendants. Needs no_new_privs. There is no way back."""
        self._call(_RESTRICT_SELF, self._descriptor, 0)
        os.close(self._descriptor)

    def _allow_ports(self, right: int, ports: Iterable[int]) -> None:
        for port in ports:
            rule = _PortRule(right, port)
            self._call(_ADD_RULE, self._descriptor, _NET_PORT, ctypes.byref(rule), 0)

    def _call(self, number: int, *arguments: object) -> int:
        # A plain int would travel as a C int through a variadic call; the kernel takes longs.
        converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        result = int(self._libc.syscall(ctypes.c_long(number), *converted))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"Landlock call {number}: {os.strerror(code)}")
        return result
