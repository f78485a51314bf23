"""Watches a stream of numbers for the moment at which their mean rises above zero: an e-detector.

At each number a new bet of 1 is opened that the mean is above zero from here on, and all bets run on; their sum is the
detector's value (Shiryaev-Roberts with e-values: Shin, Ramdas and Rinaldo, "E-detectors", 2022). While the mean, given
all that came before, is at most zero, the value grows by no more than 1 a step, so that the mean number of steps to a
false alarm is at least `limit`. Looking after every number is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Detector:
    """The state after some numbers."""

    bets: tuple[float, ...]  # each at most 1 / the largest drop, so that no number takes all
    limit: float
    sums: tuple[float, ...] = ()  # by bet

    def step(self, number: float) -> Detector:
        """Return the state after one more number."""
        before = self.sums or (0.0,) * len(self.bets)
        return replace(
            self, sums=tuple((1.0 + item) * (1.0 + bet * number) for bet, item in zip(self.bets, before, strict=True))
        )

    @property
    def value(self) -> float:
        """What the bets have become, on average over their sizes."""
        return sum(self.sums) / len(self.bets)

    @property
    def alarm(self) -> bool:
        """Whether the value has reached the limit."""
        return self.value >= self.limit
