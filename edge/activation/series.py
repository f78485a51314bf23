"""The attempts of a canary and of a probation, known by their names alone.

A name says order, purpose, bundles, number, side and try. So the ledger's trials say which attempts have ended, and
what is to be asked for next is the same after every restart. An invalid attempt is asked for again on its start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.activation.gates import Ended, Pair
from edge.records import RolloutOrder

OWN = "rollout-"  # begins the names of all of them
NEWCOMER, BASELINE = "new", "old"  # sides
NAME_CHARS = 12  # of a bundle's hash


@dataclass(frozen=True)
class Attempt:
    """A local attempt that the steward asks for."""

    assignment_id: str  # the same for the same attempt, always
    bundle: str
    start_id: str
    start: Mapping[str, float]
    seed: int
    purpose: str  # canary or probation


@dataclass(frozen=True)
class Series:
    """The attempts of one canary or probation."""

    plan: RolloutOrder  # that it began under
    purpose: str
    newcomer: str
    baseline: str = ""

    @property
    def prefix(self) -> str:
        """What the names of all its attempts begin with."""
        baseline = self.baseline[:NAME_CHARS] or "alone"
        return f"{OWN}{self.plan.number}-{self.purpose}-{self.newcomer[:NAME_CHARS]}-{baseline}-"

    def pick(self, trials: Sequence[Ended], side: str) -> list[Ended]:
        """Return those trials that are of one side of this series, in their order.

        `trials` are those of that side's bundle: whatever a trial is called, no bundle stands in for the other.
        """
        return [item for item in trials if self._side(item.assignment_id) == side]

    def pairs(self, trials: Sequence[Ended]) -> tuple[list[Pair], list[Attempt]]:
        """Return the pairs in which all sides have ended validly, and what the next pair lacks, in turns."""
        found: list[Pair] = []
        while True:
            number = len(found)
            newcomer = self._valid(number, NEWCOMER, trials)
            baseline = self._valid(number, BASELINE, trials) if self.baseline else None
            if newcomer is None or (baseline is None and self.baseline):
                break
            found.append(Pair(newcomer, baseline))
        sides = [(NEWCOMER, newcomer)] + [(BASELINE, baseline)] * bool(self.baseline)
        if number % 2:
            sides.reverse()
        return found, [self.attempt(number, side, trials) for side, ended in sides if ended is None]

    def attempt(self, number: int, side: str, trials: Sequence[Ended]) -> Attempt:
        """Return the attempt that one side of a pair is to make, after those that have ended."""
        start = self.plan.starts[number % len(self.plan.starts)]
        again = len(self._ended(number, side, trials))
        return Attempt(
            f"{self._name(number, side)}{again}",
            self.newcomer if side == NEWCOMER else self.baseline,
            start.start_id,
            start.start,
            start.seed,
            self.purpose,
        )

    def _side(self, assignment_id: str) -> str:
        """Return the side that an attempt of this series is of, empty where it is of another series."""
        if not assignment_id.startswith(self.prefix):
            return ""
        parts = assignment_id.removeprefix(self.prefix).split("-")
        return parts[1] if len(parts) == 3 else ""

    def _name(self, number: int, side: str) -> str:
        return f"{self.prefix}{number:03d}-{side}-"

    def _ended(self, number: int, side: str, trials: Sequence[Ended]) -> list[Ended]:
        return [item for item in trials if item.assignment_id.startswith(self._name(number, side))]

    def _valid(self, number: int, side: str, trials: Sequence[Ended]) -> Ended | None:
        return next((item for item in self._ended(number, side, trials) if item.counts), None)
