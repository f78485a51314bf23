"""How much is out at a time: enough that no station waits, and little that a decision would make useless.

A fleet is as fast as what waits for one another: an attempt comes back only after those that its station holds before
it. So a large fleet has more of one test out at once rather than more tests, and stations hold less ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_PAIRS, MOST_PAIRS = 4, 12
LEAST_ATTEMPTS, MOST_ATTEMPTS = 3, 8
LEAST_CANDIDATES = 4


@dataclass(frozen=True)
class Flight:
    """What may be out."""

    pairs: int  # of the gate, beyond those decided on
    pairs_alone: int  # the same while nobody is in the screen
    attempts: int  # of one candidate in the screen, which may end early
    candidates: int  # in the screen, beyond which no researcher is asked


def flight(stations: int) -> Flight:
    """Return what suits a number of stations."""
    return Flight(
        pairs=min(MOST_PAIRS, max(LEAST_PAIRS, 3 * stations // 4)),
        pairs_alone=max(LEAST_PAIRS, stations),
        attempts=min(MOST_ATTEMPTS, max(LEAST_ATTEMPTS, stations)),
        candidates=max(LEAST_CANDIDATES, 2 + stations // 2),
    )
