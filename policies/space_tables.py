"""Reads the tables of a policy.toml: every key is known and of its kind, or the file is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from policies.interface import PolicyError

WORD = re.compile(r"[a-z][a-z0-9_]{0,60}", re.ASCII)  # policies and tasks become parts of paths


class SpaceError(PolicyError):
    """A policy.toml that is not one, or a value outside what it allows; the message is one line."""


def table(raw: object, needed: Mapping[str, type], allowed: Mapping[str, type], where: str) -> dict[str, Any]:
    """Return `raw`, a table that has all of the keys `needed`, and of others only those `allowed`.

    Raises:
        SpaceError: it is not; the first key at fault is named within `where`.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(raw, dict):
        raise SpaceError(f"{where} is not a table")
    for name in needed:
        if name not in raw:
            raise SpaceError(f"{prefix}{name} is missing")
    for name, value in raw.items():
        kind = needed.get(name) or allowed.get(name)
        if kind is None:
            raise SpaceError(f"{prefix}{name} is not known here; known are {', '.join((*needed, *allowed))}")
        if not is_a(value, kind):
            raise SpaceError(f"{prefix}{name} is {value!r}, which is not a {kind.__name__}")
    return raw


def is_a(value: object, kind: type) -> bool:
    """Return whether `value` is of a kind, where a whole number is a float too."""
    if isinstance(value, bool):  # a bool is an int to Python, and here it never is
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def words(raw: list[Any], where: str) -> tuple[str, ...]:
    """Return the strings of a list `helps`.

    Raises:
        SpaceError: it holds something else.
    """
    if not all(isinstance(word, str) for word in raw):
        raise SpaceError(f"{where}.helps holds something that is not a string")
    return tuple(raw)


def check_word(name: str) -> None:
    """Raise unless `name` is a plain word.

    Raises:
        SpaceError: it is not.
    """
    if not WORD.fullmatch(name):
        raise SpaceError(f"{name!r:.80} is not a name of at most 61 of a-z, 0-9 and _ that begins with a letter")
