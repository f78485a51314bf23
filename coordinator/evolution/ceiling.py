"""A candidate need not succeed more often near the ceiling, nor where it makes the policy simpler.

Near the ceiling it may be not worse and at least a tenth faster; a simplification may be not worse.

- "Not worse" is evidence, not the lack of it: a bet against "it succeeds less often by WORSE or more" must have grown
  to 1 / RISK. Such a bet grows with each pair that has no difference, so it takes some twenty pairs without a loss.
  For a simplification it must have grown to 1 / stake, as there is no other evidence: some forty pairs.
- "Faster" is the geometric mean of the ratios of times, over pairs in which both succeed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coordinator.evolution.evidence import FASTER_SHARE, Result

WORSE = 0.1  # of success, what a candidate must be shown not to lose
RISK = 0.2  # of passing one that loses as much
BETS = (0.5, 0.9)  # below 1 / (1 - WORSE), so that a loss leaves something


def trust(pairs: Sequence[tuple[Result, Result]]) -> float:
    """Return what betting 1 against "the candidate succeeds less often by WORSE or more" has become.

    Args:
        pairs: (candidate, incumbent), in the order in which they were asked for.
    """
    steps = np.array([mine.success - theirs.success + WORSE for mine, theirs in pairs], float)
    return float(np.mean([np.prod(1.0 + bet * steps) for bet in BETS]))


def not_worse(pairs: Sequence[tuple[Result, Result]], risk: float = RISK) -> bool:
    """Return whether (candidate, incumbent) pairs show that the candidate succeeds less often by less than WORSE.

    A candidate that loses as much passes at any one of the looks with a chance of at most `risk` (Ville's inequality).
    """
    return trust(pairs) >= 1.0 / risk


def faster(pairs: Sequence[tuple[Result, Result]]) -> bool:
    """Return whether the candidate takes at most FASTER_SHARE of the incumbent's time where both succeed."""
    both = [(mine.seconds, theirs.seconds) for mine, theirs in pairs if mine.success and theirs.success]
    ratios = [mine / theirs for mine, theirs in both if mine > 0.0 and theirs > 0.0]  # no clock of a station is trusted
    return bool(ratios) and bool(np.exp(np.mean(np.log(ratios))) <= FASTER_SHARE)
