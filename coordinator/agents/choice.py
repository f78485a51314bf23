"""Whom to ask next: the researcher whose ideas are accepted most for what they cost, as far as is known.

- How often a researcher's ideas are accepted is drawn from what is known of it (Thompson 1933), so that one of whom
  little is known is asked now and then.
- An idea costs the model's money, the minutes of thinking, and the robots that test it. The last is why a researcher
  that costs nothing to ask is not asked for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRIOR_ACCEPTED, PRIOR_REFUSED = 1.0, 4.0  # one idea in five, until it is known better
PRIOR_IDEAS = 1.0  # what a researcher's mean cost counts before it was asked: that of all


@dataclass(frozen=True)
class Record:
    """What became of one researcher's ideas."""

    name: str
    ideas: int  # decided ones
    accepted: int
    usd: float
    minutes: float  # of thinking
    robot_minutes: float


@dataclass(frozen=True)
class Worth:
    """What time is worth, in dollars."""

    usd_a_minute: float = 0.02
    usd_a_robot_minute: float = 0.05


def choose(records: Sequence[Record], rng: np.random.Generator, worth: Worth | None = None) -> str:
    """Return the name of the researcher to be asked, out of at least one."""
    worth = worth or Worth()
    ideas = sum(record.ideas for record in records)
    usual = sum(_cost(record, worth) for record in records) / ideas if ideas else 1.0

    def drawn(record: Record) -> float:
        refused = record.ideas - record.accepted
        rate = rng.beta(PRIOR_ACCEPTED + record.accepted, PRIOR_REFUSED + refused)
        cost = (_cost(record, worth) + PRIOR_IDEAS * usual) / (record.ideas + PRIOR_IDEAS)
        return float(rate / max(cost, 1e-9))

    return max(records, key=drawn).name


def _cost(record: Record, worth: Worth) -> float:
    return record.usd + record.minutes * worth.usd_a_minute + record.robot_minutes * worth.usd_a_robot_minute
