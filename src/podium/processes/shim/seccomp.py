"""seccomp: system calls that a replica has no business with are refused by the kernel.

Called by `confine`. It closes what Landlock leaves open: Unix sockets by path, io_uring (which would go round these
very rules), other sockets, reading and changing other processes, keys, mounts, namespaces; and, by path, changes of
mode, owner, times and extended attributes. Numbers: the kernel's own tables for x86_64 and for the generic ABI
(aarch64); filter format: linux/Documentation/userspace-api/seccomp_filter.rst and uapi/linux/{seccomp,filter}.h.
"""

import ctypes
import errno
import os
import struct

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}
_X32_BIT = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_REFUSE = _ERRNO | errno.EPERM
_UNKNOWN = _ERRNO | errno.ENOSYS
# The call is skipped and answers 0, as if it had been done.
_IGNORE = _ERRNO | 0
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16

_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; clone cannot make a time namespace
_STREAM, _DATAGRAM, _SEQUENCED = 1, 2, 5
_KIND = 0xF
"""The low bits of a socket's type; the others are flags."""
_INET, _INET6 = 2, 10
_DEFAULT_PROTOCOL, _TCP, _UDP = 0, 6, 17
_FAST_OPEN = 0x20000000
_SET_PARENT_DEATH_SIGNAL = 1
_WHICH_PROCESS = 0
_IOPRIO_WHO_PROCESS = 1

Numbers = tuple[int | None, int | None]
Instruction = tuple[int, int, int, int]

# name: (x86_64, aarch64); None where the architecture has no such call.
_REFUSED: dict[str, Numbers] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "kcmp": (312, 272),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # the kernel's own interfaces
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "syslog": (103, 116), "lsm_set_self_attr": (460, 460),
    # the machine
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161),
    "setdomainname": (171, 162), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "vhangup": (153, 58), "lookup_dcookie": (212, 18),
    # mounts, namespaces, files by handle
    "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429), "open_tree": (428, 428),
    "open_tree_attr": (467, 467), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    # System V and POSIX message passing: shared with every process of the user, and no file
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191),
    "semop": (65, 193), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # extended attributes and flags of files
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}  # fmt: skip
# Landlock does not cover these, so they would reach every file of the user. They are skipped, not refused: a library
# that copies a file into its private folder together with mode and times should not fail for it.
_IGNORED: dict[str, Numbers] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip
_TRUNCATE: Numbers = (76, 45)
_LISTEN: Numbers = (50, 201)
_SENDTO, _SENDMSG, _SENDMMSG = (44, 206), (46, 211), (307, 269)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_SOCKET, _SOCKETPAIR, _PRCTL = (41, 198), (53, 199), (157, 167)
_PRLIMIT, _SETPRIORITY, _IOPRIO_SET = (302, 261), (141, 140), (251, 30)
_SCHED_OF_ANOTHER: dict[str, Numbers] = {
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
_SCHED_SETAFFINITY = (203, 122)

_SET_SECCOMP, _FILTER_MODE = 22, 2


def install(*, connects: bool, listens: bool, files_can_be_truncated: bool) -> None:
    """Put the filter in force for this process and all that it starts. Needs no_new_privs. There is no way back.

    `connects`: TCP and UDP sockets may be made; `listens`: TCP sockets may be made and listened on (Landlock then
    limits the TCP ports). `files_can_be_truncated`: Landlock does not cover truncate() by path (its levels 1 and 2), so
    it is refused here. Raises OSError without seccomp, or on an architecture whose calls are not listed above.
    """
    machine = os.uname().machine
    if machine not in _AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"seccomp: the system calls of {machine} are not known here")
    program = build(
        machine, connects=connects, listens=listens, files_can_be_truncated=files_can_be_truncated
    )
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: unsigned short, padding, pointer
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER_MODE), ctypes.c_char_p(header), ctypes.c_ulong(0), 0)
        != 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def build(machine: str, *, connects: bool, listens: bool, files_can_be_truncated: bool) -> list[Instruction]:
    """The filter as (code, jump if true, jump if false, operand) of classic BPF. `machine` as uname says it."""
    column = _COLUMN[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _REFUSE),  # another ABI (int 0x80) has other numbers: nothing of it is allowed
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _REFUSE)]
    for numbers, answer in _flat(connects, listens, files_can_be_truncated):
        if (number := numbers[column]) is not None:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    for numbers, check in _checked(connects, listens):
        number = numbers[column]
        assert number is not None  # noqa: S101 - every call with a check exists on both architectures
        program += [(_EQUAL, 0, len(check), number), *check]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _flat(connects: bool, listens: bool, files_can_be_truncated: bool) -> list[tuple[Numbers, int]]:
    """Calls that get the same answer whatever their arguments are."""
    flat = [(numbers, _REFUSE) for numbers in _REFUSED.values()]
    flat += [(numbers, _IGNORE) for numbers in _IGNORED.values()]
    # Its flags lie in memory, where a filter cannot look; the C library then takes clone, whose flags it can see.
    flat.append((_CLONE3, _UNKNOWN))
    if files_can_be_truncated:
        flat.append((_TRUNCATE, _REFUSE))
    if connects and not listens:
        # A socket that is not bound gets a port by listen(), and no Landlock rule sees that. The replica's own socket
        # listens already, and servers that say so again should not fail for it.
        flat.append((_LISTEN, _IGNORE))
    return flat


def _checked(connects: bool, listens: bool) -> list[tuple[Numbers, list[Instruction]]]:
    """Calls whose arguments decide. Each list ends in a return, so control never falls out of it."""
    mine_only = _unless_argument(0, [0], _REFUSE)
    return [
        (_SOCKET, _sockets(streams=connects or listens, datagrams=connects)),
        # With this flag a send connects, and Landlock is not asked. The flags' place differs from call to call.
        (_SENDTO, _unless_bits(3, _FAST_OPEN)),
        (_SENDMSG, _unless_bits(2, _FAST_OPEN)),
        (_SENDMMSG, _unless_bits(3, _FAST_OPEN)),
        # A datagram socket of a pair can still be sent to any path; a stream one is connected for good. SOCK_RAW
        # means datagram here, hence the list of what is allowed.
        (_SOCKETPAIR, _unless_argument(1, [_STREAM, _SEQUENCED], _REFUSE, mask=_KIND)),
        (_CLONE, _unless_bits(0, _NAMESPACES)),
        # The shim's death must stay the replica's death.
        (
            _PRCTL,
            [
                (_LOAD, 0, 0, _ARGUMENT),
                (_EQUAL, 0, 1, _SET_PARENT_DEATH_SIGNAL),
                (_RETURN, 0, 0, _REFUSE),
                _allow(),
            ],
        ),
        # 0 is the caller; limits and priorities of the user's other processes are not this one's to change.
        (_PRLIMIT, mine_only),
        *((numbers, mine_only) for numbers in _SCHED_OF_ANOTHER.values()),
        # Threads are bound by their own number, which cannot be told from another process': skipped.
        (_SCHED_SETAFFINITY, _unless_argument(0, [0], _IGNORE)),
        (_SETPRIORITY, _only_myself(_WHICH_PROCESS)),
        (_IOPRIO_SET, _only_myself(_IOPRIO_WHO_PROCESS)),
    ]


def _sockets(*, streams: bool, datagrams: bool) -> list[Instruction]:
    """IP sockets of TCP and UDP proper: MPTCP, SCTP and SMC carry streams too, and Landlock's rules do not see them."""
    if not streams:
        return [(_RETURN, 0, 0, _REFUSE)]
    tcp = _unless_argument(2, [_DEFAULT_PROTOCOL, _TCP], _REFUSE)
    udp = _unless_argument(2, [_DEFAULT_PROTOCOL, _UDP], _REFUSE)
    return [
        (_LOAD, 0, 0, _ARGUMENT),
        (_EQUAL, 2, 0, _INET),
        (_EQUAL, 1, 0, _INET6),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _ARGUMENT + 8),
        (_AND, 0, 0, _KIND),
        (_EQUAL, 0, len(tcp), _STREAM),
        *tcp,
        *([(_EQUAL, 0, len(udp), _DATAGRAM), *udp] if datagrams else []),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _unless_bits(index: int, bits: int) -> list[Instruction]:
    """Refuse the call where the argument has one of these bits."""
    return [
        (_LOAD, 0, 0, _ARGUMENT + 8 * index),
        (_ANY_BIT, 0, 1, bits),
        (_RETURN, 0, 0, _REFUSE),
        _allow(),
    ]


def _allow() -> Instruction:
    return (_RETURN, 0, 0, _ALLOW)


def _unless_argument(
    index: int, allowed: list[int], answer: int, *, mask: int = 0xFFFFFFFF
) -> list[Instruction]:
    """Allow the call where the argument is one of `allowed`, else give `answer`. Arguments are C ints: low 32 bits."""
    steps: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENT + 8 * index)]
    if mask != 0xFFFFFFFF:
        steps.append((_AND, 0, 0, mask))
    for value in allowed:
        steps += [(_EQUAL, 0, 1, value), _allow()]
    return [*steps, (_RETURN, 0, 0, answer)]


def _only_myself(which: int) -> list[Instruction]:
    """Allow where argument 0 is `which` (one process) and argument 1 is 0 (the caller)."""
    return [
        (_LOAD, 0, 0, _ARGUMENT),
        (_EQUAL, 1, 0, which),
        (_RETURN, 0, 0, _REFUSE),
        *_unless_argument(1, [0], _REFUSE),
    ]
