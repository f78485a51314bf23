"""What is handed out, and what goes before what.

One queue serves all stations. Its classes, most urgent first:

- P0 canaries, purpose `check`: the incumbent on a development start, to tell whether a station is to be believed.
- P1 what a decision waits for: pairs of the gate, once-failed states, held-out and audit starts.
- P2 the incumbent's baseline and screens of agents' candidates.
- P3 screens of the offline researcher's candidates, and attempts that it learns from.
- P4 the incumbent on development starts, for its baseline: there is always one more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

OFFLINE = "offline"  # the researcher that costs nothing to ask; all others are agents


class Urgency(IntEnum):
    """The classes of the queue; the lower, the sooner. A canary, P0, goes before the queue."""

    CONFIRM = 1
    AGENTS = 2
    OFFLINE = 3
    PLAY = 4


@dataclass(frozen=True)
class Attempt:
    """One attempt to hand out."""

    assignment_id: str
    candidate_id: int
    bundle: str
    start_id: str
    start: Mapping[str, float]
    seed: int
    purpose: str
    pair_id: str | None


@dataclass(frozen=True)
class Work:
    """Attempts that belong on one station, back to back."""

    attempts: tuple[Attempt, ...]


Offer = tuple[Urgency, Callable[[], Work | None]]


def first(offers: Iterable[Offer]) -> Work | None:
    """Return the most urgent work that there is; among equally urgent offers the earlier one's."""
    for _, offer in sorted(offers, key=lambda item: item[0]):
        if (work := offer()) is not None:
            return work
    return None


def urgency_of(researcher: str) -> Urgency:
    """Return the class of a researcher's screens."""
    return Urgency.OFFLINE if researcher == OFFLINE else Urgency.AGENTS
