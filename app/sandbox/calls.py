"""Which system calls the code may make: not those that reach beyond its namespaces and limits."""

import errno
import os
import socket
from struct import pack

Step = tuple[int, int, int, int]

# The numbers are those of each machine, in this order.
MACHINES = ("x86_64", "aarch64")
ARCHITECTURE = (0xC000003E, 0xC00000B7)
SOCKET, CLONE, CLONE3 = (41, 198), (56, 220), (435, 435)
FORBIDDEN = {
    # Namespaces of its own, in which it would have privileges and could mount as much memory as it likes.
    "unshare": (272, 97),
    "setns": (308, 268),
    # The service's keyrings.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Memory that is counted by no limit.
    "shmget": (29, 194),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # Ways around this list, and deep into the kernel.
    "io_uring_setup": (425, 425),
    "ptrace": (101, 117),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
NEW_NAMESPACES = 0x7E020000
# Not every network has namespaces: that between a virtual machine and its host has none.
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
SECOND_TABLE = 0x40000000

LOAD, RETURN, EQUAL, AT_LEAST, ANY_BIT = 0x20, 0x06, 0x15, 0x35, 0x45
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NOT_PERMITTED, NOT_THERE, NO_SUCH_FAMILY = (REFUSE | error for error in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))


def is_known() -> bool:
    """Return whether this machine's calls are known."""
    return os.uname().machine in MACHINES


def program() -> bytes:
    """Return the filter as the kernel takes it (seccomp): steps of operation, two jumps and operand."""
    steps: list[Step] = [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 1, 0, _here(ARCHITECTURE)),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        *_where(AT_LEAST, SECOND_TABLE, NOT_PERMITTED),
        *(step for call in FORBIDDEN.values() for step in _where(EQUAL, _here(call), NOT_PERMITTED)),
        # Its arguments cannot be looked at; whoever does not find it takes the older call.
        *_where(EQUAL, _here(CLONE3), NOT_THERE),
        (EQUAL, 0, 4, _here(CLONE)),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        *_where(ANY_BIT, NEW_NAMESPACES, NOT_PERMITTED),
        (RETURN, 0, 0, ALLOW),
        (EQUAL, 1, 0, _here(SOCKET)),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        *(step for family in FAMILIES for step in _where(EQUAL, family, ALLOW)),
        (RETURN, 0, 0, NO_SUCH_FAMILY),
    ]
    return b"".join(pack("HBBI", *step) for step in steps)


def _where(test: int, operand: int, answer: int) -> tuple[Step, Step]:
    return (test, 0, 1, operand), (RETURN, 0, 0, answer)


def _here(numbers: tuple[int, int]) -> int:
    return numbers[MACHINES.index(os.uname().machine)]
