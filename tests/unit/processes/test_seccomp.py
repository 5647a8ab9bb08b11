"""The filter's decisions on both architectures, by running it as the kernel would: it is a small program."""

import errno

import pytest

from podium.processes.shim import seccomp
from podium.processes.shim.seccomp import Instruction, build

ALLOW, REFUSE, SKIP = "allow", "EPERM", "skipped"
ARCHITECTURES = ["x86_64", "aarch64"]


def decide(
    program: list[Instruction], machine: str, number: int, *arguments: int, arch: int | None = None
) -> str:
    """What classic BPF answers for a system call; struct seccomp_data: nr, arch, ip, six arguments."""
    given = [*arguments, *[0] * (6 - len(arguments))]
    data = {0: number, 4: seccomp._AUDIT_ARCH[machine] if arch is None else arch}
    for index, value in enumerate(given):
        data[16 + 8 * index], data[20 + 8 * index] = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    at, accumulator = 0, 0
    while True:
        code, true, false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = data[operand]
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += true if accumulator == operand else false
            case 0x35:
                at += true if accumulator >= operand else false
            case 0x45:
                at += true if accumulator & operand else false
            case 0x06:
                if operand == 0x7FFF0000:
                    return ALLOW
                assert operand >> 16 == 0x0005
                return SKIP if operand & 0xFFFF == 0 else errno.errorcode[operand & 0xFFFF]


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def number(machine: str, x86_64: int, aarch64: int) -> int:
    return x86_64 if machine == "x86_64" else aarch64


def test_every_named_call_is_refused_or_skipped(machine: str) -> None:
    program = build(machine, connects=False, listens=False, files_can_be_truncated=True)
    column = ARCHITECTURES.index(machine)
    for table, answer in ((seccomp._REFUSED, REFUSE), (seccomp._IGNORED, SKIP)):
        for name, numbers in table.items():
            if numbers[column] is not None:
                assert decide(program, machine, numbers[column] or 0) == answer, name
    assert decide(program, machine, number(machine, 76, 45)) == REFUSE  # truncate
    assert decide(program, machine, 435) == "ENOSYS"  # clone3


def test_what_programs_live_on_is_allowed(machine: str) -> None:
    program = build(machine, connects=False, listens=False, files_can_be_truncated=False)
    calls = {"read": (0, 63), "openat": (257, 56), "mmap": (9, 222), "futex": (202, 98), "execve": (59, 221),
             "accept4": (288, 242), "kill": (62, 129), "truncate": (76, 45), "getrandom": (318, 278)}  # fmt: skip
    for name, (x86_64, aarch64) in calls.items():
        assert decide(program, machine, number(machine, x86_64, aarch64)) == ALLOW, name


@pytest.mark.parametrize("connects", [False, True])
@pytest.mark.parametrize("listens", [False, True])
def test_sockets(machine: str, connects: bool, listens: bool) -> None:
    program = build(machine, connects=connects, listens=listens, files_can_be_truncated=False)
    socket, pair = number(machine, 41, 198), number(machine, 53, 199)
    for family in range(0, 46):
        internet = family in (2, 10)
        for flags in (0, 0o4000, 0o2000000):
            tcp = ALLOW if internet and (connects or listens) else REFUSE
            assert decide(program, machine, socket, family, 1 | flags) == tcp, family
            assert decide(program, machine, socket, family, 1 | flags, 6) == tcp, family
            udp = ALLOW if internet and connects else REFUSE
            assert decide(program, machine, socket, family, 2 | flags) == udp, family
            assert decide(program, machine, socket, family, 2 | flags, 17) == udp, family
        # MPTCP, SCTP, SMC, ping, UDP-Lite, raw: no rule of Landlock's binds them.
        others = [(1, 262), (1, 132), (1, 256), (2, 1), (2, 136), (3, 0), (3, 6), (5, 132), (6, 0)]
        for kind, protocol in others:
            assert decide(program, machine, socket, family, kind, protocol) == REFUSE, (kind, protocol)
    assert decide(program, machine, socket, 1 | 2 << 32, 1) == REFUSE, "the kernel takes the low half"
    for kind in range(16):
        for flags in (0, 0o4000, 0o2000000, 0o2004000):
            assert decide(program, machine, pair, 1, kind | flags) == (ALLOW if kind in (1, 5) else REFUSE)


@pytest.mark.parametrize(("connects", "listens"), [(True, False), (False, True), (False, False)])
def test_ports_cannot_be_reached_past_landlock(machine: str, connects: bool, listens: bool) -> None:
    program = build(machine, connects=connects, listens=listens, files_can_be_truncated=False)
    fast_open, no_signal = 0x20000000, 0x4000
    for call, place in (((44, 206), 3), ((46, 211), 2), ((307, 269), 3)):
        before = [7] * place
        assert decide(program, machine, number(machine, *call), *before, no_signal) == ALLOW
        assert decide(program, machine, number(machine, *call), *before, no_signal | fast_open) == REFUSE
    listen = decide(program, machine, number(machine, 50, 201), 3, 128)
    assert listen == (SKIP if connects and not listens else ALLOW), (
        "an unbound socket gets a port by listen()"
    )


def test_processes(machine: str) -> None:
    program = build(machine, connects=False, listens=False, files_can_be_truncated=False)
    clone, prctl = number(machine, 56, 220), number(machine, 157, 167)
    assert decide(program, machine, clone, 17) == ALLOW
    assert decide(program, machine, clone, 0x3D0F00) == ALLOW, "a thread"
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert decide(program, machine, clone, 17 | 1 << bit) == REFUSE, bit
    assert decide(program, machine, prctl, 1) == REFUSE
    assert decide(program, machine, prctl, 15) == ALLOW, "naming a thread"


def test_other_processes_limits_and_priorities(machine: str) -> None:
    program = build(machine, connects=False, listens=False, files_can_be_truncated=False)
    for x86_64, aarch64 in ((302, 261), (144, 119), (142, 118), (314, 274)):
        assert decide(program, machine, number(machine, x86_64, aarch64), 0) == ALLOW
        assert decide(program, machine, number(machine, x86_64, aarch64), 4242) == REFUSE
    affinity = number(machine, 203, 122)
    assert (decide(program, machine, affinity, 0), decide(program, machine, affinity, 4242)) == (ALLOW, SKIP)
    for call, myself in ((number(machine, 141, 140), 0), (number(machine, 251, 30), 1)):
        assert decide(program, machine, call, myself, 0) == ALLOW
        assert decide(program, machine, call, myself, 4242) == REFUSE
        assert decide(program, machine, call, myself + 1, 0) == REFUSE, "a group, and a user, are others too"


def test_other_abis_get_nothing(machine: str) -> None:
    program = build(machine, connects=True, listens=True, files_can_be_truncated=False)
    assert decide(program, machine, 0, arch=0x40000003) == REFUSE, "i386"
    if machine == "x86_64":
        assert decide(program, machine, 0x40000000) == REFUSE, "x32"


def test_the_program_is_one_that_the_kernel_takes(machine: str) -> None:
    program = build(machine, connects=True, listens=True, files_can_be_truncated=True)
    assert len(program) <= 4096
    for at, (code, true, false, _) in enumerate(program):
        assert max(true, false) <= 255
        assert code == 0x06 or at + 1 + max(true, false) < len(program), "control never falls out"
