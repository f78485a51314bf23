"""Who signs what in the lab's TUF repository, and how long a signature lasts.

- root and targets say whose keys count; people hold them, and targets names no file itself.
- Everything that may run is named by `released` or `candidates`; the online key alone can never reach `policies/`.
- One person can always stop a bundle (`revoked`); letting one skip its canary (`overrides`) takes two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge.wire.targets import (
    ASSIGNMENTS,
    CANDIDATES,
    OVERRIDES,
    RELEASED,
    REVOKED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    WEIGHTS,
)

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
PAIR = 2


class Who(StrEnum):
    """Whose signatures a role needs."""

    ONLINE = "the online key"
    QUORUM = "people, the threshold"
    ANYONE = "any one person"
    TWO = "two people"


@dataclass(frozen=True)
class Role:
    """One line of the table below."""

    name: str
    who: Who
    life_s: float
    paths: tuple[str, ...] = ()  # of targets that it may name; empty for a role of the repository itself

    def threshold(self, quorum: int) -> int:
        """Return how many signatures the role needs where people decide by `quorum`."""
        return {Who.QUORUM: quorum, Who.TWO: PAIR}.get(self.who, 1)


ROLES = {
    role.name: role
    for role in (
        Role(ROOT, Who.QUORUM, 365 * DAY_S),
        Role(TARGETS, Who.QUORUM, 90 * DAY_S),
        Role(SNAPSHOT, Who.ONLINE, DAY_S),
        Role(TIMESTAMP, Who.ONLINE, HOUR_S),
        Role(RELEASED, Who.QUORUM, 30 * DAY_S, ("policies/*/*",)),
        Role(CANDIDATES, Who.ONLINE, DAY_S, ("candidates/*/*",)),
        Role(WEIGHTS, Who.QUORUM, 30 * DAY_S, ("weights/*",)),
        Role(ASSIGNMENTS, Who.ONLINE, 12 * HOUR_S, ("assign/*",)),
        Role(REVOKED, Who.ANYONE, 7 * DAY_S, ("revoked/*",)),
        Role(OVERRIDES, Who.TWO, 30 * DAY_S, ("overrides/*",)),
    )
}
DELEGATED = tuple(role for role in ROLES.values() if role.paths)
