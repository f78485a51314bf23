"""The least that a station will believe: the newest version of each role that it has ever verified.

python-tuf remembers this in its cache alone, and believes an old repository again once the cache is lost. The floor
lies outside of it, in two files of which the one written last counts; a lost copy is made anew from the other.

- A lower version, or the same version with other content, is refused.
- A role starts anew only when those who may sign it have changed, which takes a newer root or targets signed by people:
  this is how a lab recovers from a stolen online key that signed version 2,000,000,000.
- A bundle that was once revoked stays so.
- The clock may not run back behind the last good refresh.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from edge.trust.errors import ClockSuspect, Tampered, TrustError

FILE = "floor.json"
ROOT = "root"
CLOCK_SLACK_S = 300.0
WALL_STEP_S = 600.0  # how far the clock runs before the floor is written for its sake alone
NOW, NEXT_TRIAL = "now", "next-trial"


@dataclass(frozen=True)
class Mark:
    """One role as it was verified."""

    version: int
    sha256: str  # of the file
    keys: str  # names who may sign it, and how many must


@dataclass(frozen=True)
class Floor:
    """Everything that may only rise."""

    count: int = 0  # of writings
    wall_unix_s: float = 0.0  # the clock at the last good refresh
    roles: Mapping[str, Mark] = field(default_factory=dict)
    revoked: Mapping[str, str] = field(default_factory=dict)  # bundle -> "next-trial" or "now"

    def check_clock(self, now_unix_s: float) -> None:
        """Raise unless the clock can be right.

        Raises:
            ClockSuspect: it is earlier than at the last good refresh.
        """
        if not now_unix_s >= self.wall_unix_s - CLOCK_SLACK_S:
            raise ClockSuspect(
                f"the clock is {self.wall_unix_s - now_unix_s:.0f} s behind the last good refresh; set it right "
                "(is the battery of the real-time clock empty?)"
            )

    def raised(self, seen: Mapping[str, Mark], revoked: Mapping[str, str], now_unix_s: float) -> Floor:
        """Return the floor after a good refresh, this one itself where nothing that counts has changed.

        Raises:
            Tampered: a role is older than it was, or is another of the same version.
        """
        for role, mark in seen.items():
            _check(role, self.roles.get(role), mark)
        roles = {**self.roles, **seen}
        denied = {
            **self.revoked,
            **{bundle: _sooner(self.revoked.get(bundle), when) for bundle, when in revoked.items()},
        }
        wall_unix_s = max(self.wall_unix_s, now_unix_s)
        if (roles, denied) == (self.roles, self.revoked) and wall_unix_s < self.wall_unix_s + WALL_STEP_S:
            return self
        return replace(self, roles=roles, revoked=denied, wall_unix_s=wall_unix_s)


def read_floor(copies: Sequence[Path]) -> Floor | None:
    """Return the copy that was written last, None where all are missing or damaged; nothing is written.

    Raises:
        Tampered: two copies of the same count differ.
        TrustError: a copy cannot be read, but for one that a bad sector has damaged, beside another that is sound.
    """
    found = [_read(path) for path in copies]
    known = [floor for floor in found if isinstance(floor, Floor)]
    if not known:
        for unreadable in found:
            if isinstance(unreadable, TrustError):
                raise unreadable
        return None
    newest = max(known, key=lambda floor: floor.count)
    if any(floor.count == newest.count and floor != newest for floor in known):
        raise Tampered(f"the copies of the version floor differ ({', '.join(map(str, copies))}); look who wrote there")
    return newest


def mend_floor(copies: Sequence[Path], floor: Floor) -> None:
    """Make every copy equal to the one that was written last.

    Raises:
        TrustError: a copy cannot be written.
    """
    for path in copies:
        if _read(path) != floor:
            _write(path, floor)


def write_floor(copies: Sequence[Path], floor: Floor) -> Floor:
    """Write the next count of a floor to every copy, one after the other, and return it.

    Raises:
        TrustError: it cannot be written.
    """
    following = replace(floor, count=floor.count + 1)
    for path in copies:
        _write(path, following)
    return following


def _check(role: str, was: Mark | None, now: Mark) -> None:
    if was is None or (role != ROOT and now.keys != was.keys):
        return
    if not now.version >= was.version:
        raise Tampered(
            f"{role} went back from version {was.version} to {now.version}; somebody serves an old repository"
        )
    if now.version == was.version and now.sha256 != was.sha256:
        raise Tampered(f"{role} of version {now.version} is not the one seen before; somebody signs two")


def _sooner(one: str | None, other: str) -> str:
    return NOW if NOW in (one, other) else other


def _read(path: Path) -> Floor | TrustError | None:
    """Return a copy, None where it is missing or damaged, and why it cannot be read where a sector is bad."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        unreadable = TrustError(f"cannot read {path}: {error.strerror}")
        if error.errno == errno.EIO:
            return unreadable
        raise unreadable from error
    try:
        text, _, digest = data.rstrip(b"\n").rpartition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            return None
        raw = json.loads(text)
        marks = {role: Mark(**mark) for role, mark in raw.pop("roles").items()}
        return Floor(**raw, roles=marks)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _write(path: Path, floor: Floor) -> None:
    text = json.dumps(asdict(floor), sort_keys=True).encode()
    unfinished = path.with_name(f".{path.name}")
    try:
        with open(unfinished, "wb") as out:
            out.write(text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise TrustError(f"cannot write {path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
