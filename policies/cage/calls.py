"""Which system calls a policy may make: a list of what Python and numpy need, as a seccomp program.

- What is not in the list fails with EPERM: sockets, new processes and programs, signals to others, tracing, mounts,
  namespaces, keys, shared memory, files opened for writing, and whatever a later kernel invents.
- Where a call is harmless in one form only, the form is checked too.
- Another instruction set's calls (32 bit on a 64 bit machine) end the process.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from policies.cage import kernel

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, KILL = 0x7FFF_0000, 0x8000_0000
EPERM, ENOSYS = 0x0005_0001, 0x0005_0026
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

OWN_PID = 0x5EA1_ED1D  # more than any process's number can be, and like nothing else in the program
# WRONLY, RDWR, CREAT, TRUNC and TMPFILE, alike on both architectures.
OPEN_TO_WRITE = 0x1 | 0x2 | 0x40 | 0x200 | 0x40_0000
# What glibc and musl start a thread with; a new process or a namespace is any other combination.
THREADS = (0x3D_0F00, 0x7D_0F00)
# dup, get and set of the descriptor's flags and the file's: not F_SETOWN, which sends signals to others.
FCNTL = (0, 1, 2, 3, 4, 1030)
# TCGETS, FIONREAD, FIONCLEX, FIOCLEX: what open() and set_inheritable() ask.
IOCTL = (0x5401, 0x541B, 0x5450, 0x5451)


@dataclass(frozen=True)
class OneOf:
    """The lower 32 bits of this argument must be one of these; the kernel reads no more of any argument below."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Without:
    """No bit of the mask may be set in the lower 32 bits of this argument."""

    argument: int
    mask: int


Form = OneOf | Without

# name: number on x86-64, number on AArch64 (None: no such call there). The most frequent stand first.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "futex": (202, 98),
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "lseek": (8, 62),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "open": (2, None),
    "openat": (257, 56),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "clone": (56, 220),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "pause": (34, None),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "eventfd2": (290, 19),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "prlimit64": (302, 261),
}
CLONE3 = 435  # answered as by a kernel that lacks it: the C library then starts its threads with `clone`


def forms(own_pid: int) -> dict[str, Form]:
    """Return the only allowed form of each call that is not harmless in all of them."""
    return {
        "clone": OneOf(0, THREADS),
        "kill": OneOf(0, (own_pid,)),
        "tgkill": OneOf(0, (own_pid,)),
        "prlimit64": OneOf(0, (0,)),
        "fcntl": OneOf(1, FCNTL),
        "ioctl": OneOf(1, IOCTL),
        "open": Without(1, OPEN_TO_WRITE),
        "openat": Without(2, OPEN_TO_WRITE),
    }


def program(machine: str, own_pid: int) -> bytes:
    """Return the filter for a process of this number as classic BPF, 8 bytes an instruction.

    Raises:
        OSError: there is no list for this architecture.
    """
    return template(machine).replace(struct.pack("=I", OWN_PID), struct.pack("=I", own_pid))


@functools.cache
def template(machine: str) -> bytes:
    """Return the filter with OWN_PID in place of the process's number; the host makes it once for all children."""
    if machine not in ARCHITECTURES:
        raise OSError(f"no list of system calls for {machine}; add its numbers to policies/cage/calls.py")
    column = list(ARCHITECTURES).index(machine)
    checked = forms(OWN_PID)
    steps = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, ARCHITECTURES[machine]), (RETURN, 0, 0, KILL)]
    steps.append((LOAD, 0, 0, NUMBER_AT))
    for name, numbers in NUMBERS.items():
        if (number := numbers[column]) is not None:
            allowed = list(_allowed(checked.get(name)))
            steps += [(EQUAL, 0, len(allowed), number), *allowed]
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ENOSYS), (RETURN, 0, 0, EPERM)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _allowed(form: Form | None) -> Iterator[tuple[int, int, int, int]]:
    """Yield what is done with a call of the list: every path of it returns."""
    match form:
        case OneOf(argument, values):
            yield LOAD, 0, 0, ARGUMENTS_AT + 8 * argument
            for left, value in zip(range(len(values), 0, -1), values, strict=True):
                yield EQUAL, left, 0, value
            yield RETURN, 0, 0, EPERM
        case Without(argument, mask):
            yield LOAD, 0, 0, ARGUMENTS_AT + 8 * argument
            yield ANY_BIT, 0, 1, mask
            yield RETURN, 0, 0, EPERM
    yield RETURN, 0, 0, ALLOW


def filter_calls() -> None:
    """Leave this process no other system calls, for good; it must have set no_new_privs.

    Raises:
        OSError: the kernel has no seccomp filters, or accepts one and does not keep to it.
    """
    code = program(platform.machine(), os.getpid())
    address = ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p).value
    kernel.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, struct.pack("HxxxxxxQ", len(code) // 8, address))
    try:
        os.getsid(0)  # harmless, always possible, and not in the list
    except PermissionError:
        return
    raise OSError("the kernel took the filter of system calls and does not keep to it")
