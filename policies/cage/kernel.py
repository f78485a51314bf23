"""What Python has no function for: calls to the C library and the kernel that raise OSError when they fail."""

from __future__ import annotations

import ctypes
import os

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
MOUNT_SETATTR = 442  # from 424 on, a system call has the same number on every architecture

_C = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Return what a function of the C library returns; integers are passed at the width of a register.

    Raises:
        OSError: it returned -1, or this C library has no such function.
    """
    try:
        made = getattr(_C, function)
    except AttributeError as error:
        raise OSError(f"the C library has no {function}") from error
    result = int(made(*(ctypes.c_long(item) if isinstance(item, int) else item for item in arguments)))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int | bytes = 0, data: bytes | int = 0) -> int:
    """Set or ask one property of this process; see prctl(2)."""
    return call("prctl", option, value, data, 0, 0)
