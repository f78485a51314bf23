"""The bank of once-failed states: a better candidate must not undo what its line has learnt.

- A state gets in when a candidate is accepted that succeeded from it where the incumbent failed, and goes out when a
  later incumbent fails from it. So the incumbent has succeeded from each at least once, and one before it has failed.
- A candidate that passed the gate runs up to BANK of them, spread over all that were learnt. It is turned down when
  it succeeds so seldom as a policy with the incumbent's rate does with a chance of at most FALSE_ALARM. It passes as
  soon as that cannot happen any more.
- The bank can only turn down, so it costs nothing of what a campaign may risk on false gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import TypeVar

from coordinator.evolution.evidence import Call, Result

BANK = 8
FALSE_ALARM = 0.02
SAFETY = "safety"  # the failure class of an attempt that the guard or the workspace ended
SAFETY_LEAD = 2  # so many more of these than the incumbent turn a candidate down

State = TypeVar("State")


def chosen(learnt: Sequence[State]) -> list[State]:
    """Return at most BANK of the states, in order, spread evenly over all of them."""
    count = min(BANK, len(learnt))
    return [learnt[k * len(learnt) // count] for k in range(count)]


def needed(states: int, successes: int, trials: int) -> int:
    """Return how many of `states` a candidate must succeed from, given the incumbent's counts (with Laplace's prior).

    0 where no number of failures says anything.
    """
    rate = (successes + 1.0) / (trials + 2.0)
    at_most = 0.0
    for least in range(states + 1):
        at_most += comb(states, least) * rate**least * (1.0 - rate) ** (states - least)
        if at_most > FALSE_ALARM:
            return least
    return states


def bank(results: Sequence[Result], states: int, least: int) -> Call:
    """Say what a candidate's results on the bank so far mean, in any order.

    Args:
        states: how many it is to run at most.
        least: from `needed`.
    """
    successes = sum(result.success for result in results)
    if successes >= least:
        return Call.PASS
    return Call.REJECT if successes + states - len(results) < least else Call.GO_ON


def less_safe(pairs: Sequence[tuple[Result, Result]]) -> bool:
    """Return whether the candidate of (candidate, incumbent) pairs had to be stopped for safety clearly more often."""
    mine, theirs = safety_stops(pairs)
    return mine - theirs >= SAFETY_LEAD


def safety_stops(pairs: Sequence[tuple[Result, Result]]) -> tuple[int, int]:
    """Return how often the candidate and the incumbent had to be stopped for safety."""
    mine, theirs = (sum(pair[side].cause == SAFETY for pair in pairs) for side in (0, 1))
    return mine, theirs
