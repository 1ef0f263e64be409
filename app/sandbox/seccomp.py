"""The seccomp filter of the code, which blocks system calls that reach beyond its namespaces and limits."""

import errno
import os
import socket
from struct import pack

Step = tuple[int, int, int, int]

# The numbers for each architecture, in this order; None if it has no such call.
MACHINES = ("x86_64", "aarch64")
ARCHITECTURE = (0xC000003E, 0xC00000B7)
SOCKET, CLONE = (41, 198), (56, 220)
FORBIDDEN = {
    # New namespaces, in which the code would have privileges and could mount unlimited memory.
    "unshare": (272, 97),
    "setns": (308, 268),
    # The service's keyrings.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Memory that no limit counts.
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # Other processes of the same user, such as the first process of the sandbox.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    # Ways around this list, and large attack surfaces of the kernel.
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
# The filter cannot read their arguments; programs fall back to the older call.
NOT_OFFERED = {"clone3": (435, 435), "openat2": (437, 437)}
# The position of the argument with a file's mode, whose set-id bits would let other users become the service's.
MODES = {
    "chmod": ((90, None), 1),
    "fchmod": ((91, 52), 1),
    "fchmodat": ((268, 53), 2),
    "fchmodat2": ((452, 452), 2),
    "creat": ((85, None), 1),
    "mknod": ((133, None), 1),
    "mknodat": ((259, 33), 2),
}
# These have a mode only if their flags, the argument before it, create a file.
OPENING_MODES = {"open": ((2, None), 2), "openat": ((257, 56), 3)}
SET_ID = 0o6000
MAKES_A_FILE = os.O_CREAT | 0o20000000  # O_TMPFILE without O_DIRECTORY, which it contains
NEW_NAMESPACES = 0x7E020000
# Not every network has namespaces, for instance that between a virtual machine and its host.
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
SECOND_TABLE = 0x40000000

LOAD, RETURN, EQUAL, AT_LEAST, ANY_BIT = 0x20, 0x06, 0x15, 0x35, 0x45
NUMBER, MACHINE, FIRST_ARGUMENT, ARGUMENT_BYTES = 0, 4, 16, 8
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NOT_PERMITTED, NOT_THERE, NO_SUCH_FAMILY = (REFUSE | error for error in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))


def is_known() -> bool:
    """Return whether the system calls of this processor are known."""
    return os.uname().machine in MACHINES


def program() -> bytes:
    """Return the filter in the kernel's format: steps of an operation, two jumps and an operand."""
    steps: list[Step] = [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 1, 0, ARCHITECTURE[_here()]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        *_answer_if(AT_LEAST, SECOND_TABLE, NOT_PERMITTED),
    ]
    for numbers in FORBIDDEN.values():
        steps += _answer_if(EQUAL, numbers[_here()], NOT_PERMITTED)
    for numbers in NOT_OFFERED.values():
        steps += _answer_if(EQUAL, numbers[_here()], NOT_THERE)
    steps += _for_call(CLONE, [_load(0), *_answer_if(ANY_BIT, NEW_NAMESPACES, NOT_PERMITTED)])
    steps += _for_call(
        SOCKET,
        [
            _load(0),
            *(step for family in FAMILIES for step in _answer_if(EQUAL, family, ALLOW)),
            (RETURN, 0, 0, NO_SUCH_FAMILY),
        ],
    )
    for numbers, mode in MODES.values():
        steps += _for_call(numbers, [_load(mode), *_answer_if(ANY_BIT, SET_ID, NOT_PERMITTED)])
    for numbers, mode in OPENING_MODES.values():
        refuse = [_load(mode), *_answer_if(ANY_BIT, SET_ID, NOT_PERMITTED)]
        steps += _for_call(numbers, [_load(mode - 1), (ANY_BIT, 0, len(refuse), MAKES_A_FILE), *refuse])
    steps.append((RETURN, 0, 0, ALLOW))
    return b"".join(pack("HBBI", *step) for step in steps)


def _for_call(numbers: tuple[int | None, ...], steps: list[Step]) -> list[Step]:
    """Return steps that apply to this call only; other calls continue with the next steps."""
    number = numbers[_here()]
    return [] if number is None else [(LOAD, 0, 0, NUMBER), (EQUAL, 0, len(steps), number), *steps]


def _answer_if(test: int, operand: int, answer: int) -> tuple[Step, Step]:
    return (test, 0, 1, operand), (RETURN, 0, 0, answer)


def _load(argument: int) -> Step:
    return LOAD, 0, 0, FIRST_ARGUMENT + ARGUMENT_BYTES * argument


def _here() -> int:
    return MACHINES.index(os.uname().machine)
