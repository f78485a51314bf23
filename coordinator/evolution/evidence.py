"""When a candidate counts as better: paired comparisons, a screen and an anytime-valid test.

- Two attempts are compared: success beats failure; between failures more progress wins; between successes nobody
  wins, unless the incumbent is near its ceiling, where the clearly shorter one does.
- The screen is a filter on development starts, no evidence: each attempt is compared with all that the incumbent has
  made on the same station, as a few of its own would let every candidate share their luck, and on all stations where
  that one has too few. The gate is evidence: pairs on fresh starts, each on one station.
- The gate bets on each comparison. Under "the candidate is no more often better than worse" the wealth is a
  supermartingale, so it reaches 1/alpha with probability at most alpha however often one looks (Ville's inequality).
- It gives up by a bet too: against "the candidate wins so much more of the pairs than it loses as is worth having",
  which is WORTH, or half of what the incumbent still fails where that is less. An idea that does is given up for that
  reason with probability at most GIVEN_UP_WRONGLY; DULL gives up on top of that. The less is worth having, the more
  pairs it may take.
- Decisions read the comparisons in the order in which they were asked for, never in the order in which they arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb

import numpy as np

from edge.records import Outcome, Trial
from policies.interface import Array

PROGRESS_MARGIN = 0.05  # of progress; less than this between two attempts says nothing
FASTER_SHARE = 0.9  # near the ceiling an attempt at least a tenth shorter is better
SCREEN_ATTEMPTS, LONGEST_SCREEN = 8, 24
SEEN_TO_FAIL = 2.4  # how often the incumbent would fail in a whole screen, where it fails seldom
# In standard deviations. A lead of one success in eight passes: eight attempts cannot tell more, and turning down what
# is 25 points better costs more than a gate that gives up early.
SCREEN_LEAD = 0.65  # what a whole screen must show,
EARLY_LEAD = (5, 2.0)  # what so many attempts must show to be enough,
NO_LEAD = ((3, -1.3), (5, -0.5))  # and below what they end it
LEAST_ON_STATION = 8  # attempts of the incumbent, for a station to be compared with itself
LEAST_SPREAD = 0.02  # variance of a comparison; an incumbent that always does the same still meets other days
ALPHA = 0.05
BETS = (0.5, 0.7, 0.9)
GATE_CAP, MOST_PAIRS = 80, 240  # pairs for a gain of WORTH, and for the least
LOSING_TAIL = 0.15
LOSING_AFTER = 4
WORTH = 0.25
WORTH_OF_FAILURES = 0.5
LEAST_FAILING = 0.05  # less cannot be shown to be cured within MOST_PAIRS
RATE_TRIALS = 12  # of the incumbent, before its rate says what is worth having
GIVEN_UP_WRONGLY = 0.07
DOUBTS = (0.4, 0.8)  # bets that the candidate is not worth it
# After so many pairs with a difference a lead of no more than that is not worth the robots' time, where WORTH is looked
# for: others gain more. Where less is, so much less.
DULL = ((8, 0), (14, 2), (22, 4), (32, 6))


class Call(StrEnum):
    """What a stage says so far."""

    GO_ON = "go on"
    PASS = "pass"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Result:
    """What one valid attempt counts for."""

    success: bool
    progress: float
    seconds: float
    cause: str = ""  # the failure class
    station: str = ""


def result_of(trial: Trial) -> Result:
    """Return what a trial counts for; one that could not be judged is no success."""
    success = trial.outcome is Outcome.SUCCESS
    return Result(success, trial.progress, trial.trial_s, trial.cause, trial.edge)


@dataclass(frozen=True)
class Stage:
    """What a stage says so far, and why."""

    call: Call
    reason: str
    pairs: int  # in the screen: attempts
    wins: int
    losses: int
    wealth: float = 1.0  # of the gate
    lead: float = 0.0  # of the screen
    mean: float = 0.0  # of the screen's comparisons, -1 to 1


def compare(candidate: Result, incumbent: Result, near_ceiling: bool = False) -> int:
    """Return +1 where the candidate's attempt is better, -1 where it is worse, 0 where neither is."""
    if candidate.success != incumbent.success:
        return 1 if candidate.success else -1
    if candidate.success:
        if not near_ceiling:
            return 0
        return int(candidate.seconds <= FASTER_SHARE * incumbent.seconds) - int(
            incumbent.seconds <= FASTER_SHARE * candidate.seconds
        )
    gained = candidate.progress - incumbent.progress
    return int(gained >= PROGRESS_MARGIN) - int(gained <= -PROGRESS_MARGIN)


def screen_length(incumbent: Sequence[Result]) -> int:
    """Return how many attempts a whole screen has: more where the incumbent fails seldom, as few tell nobody apart."""
    failed = sum(not item.success for item in incumbent)
    failing = (failed + 1) / (len(incumbent) + 2)  # by Laplace's rule
    return min(LONGEST_SCREEN, max(SCREEN_ATTEMPTS, round(SEEN_TO_FAIL / failing)))


def screen(
    results: Sequence[Result],
    incumbent: Sequence[Result],
    not_worse: bool = False,
    length: int = SCREEN_ATTEMPTS,
) -> Stage:
    """Say whether a candidate deserves fresh starts, from its attempts on development starts.

    The lead is the sum of its comparisons with the incumbent, each averaged over all `incumbent` attempts on its
    station (on all stations where those are few), over what such a sum varies by for the incumbent itself. Whoever
    never fails passes, as no lead over a good incumbent is large, and one that was not seen to fail leaves none at all;
    the gate may still find a candidate surer or faster. A screen of a greater `length` goes on after SCREEN_ATTEMPTS
    only with what would have passed there. A simplification (`not_worse`) passes unless it trails by as
    much as others must lead.
    """
    if not results or not incumbent:
        return Stage(Call.GO_ON, "", len(results), 0, 0)
    scores, own = _scores(results, incumbent), _scores(incumbent, incumbent)
    count = len(scores)
    spread = max(float(np.mean(np.square(own))), LEAST_SPREAD)
    lead = float(np.sum(scores) / np.sqrt(count * spread))
    flawless = all(item.success for item in results) and lead >= 0.0
    call = Call.GO_ON
    wanted, hopeless = (-SCREEN_LEAD, NO_LEAD[:1]) if not_worse else (SCREEN_LEAD, NO_LEAD)
    leads = lead >= wanted or flawless
    if (count >= EARLY_LEAD[0] and lead >= EARLY_LEAD[1]) or (count >= length and leads):
        call = Call.PASS
    elif (
        count >= length
        or (count == SCREEN_ATTEMPTS and not leads)
        or any(count >= least and lead < below for least, below in hopeless)
    ):
        call = Call.REJECT
    reason = f"{lead:+.1f} standard deviations from the incumbent in {count} attempts on development starts"
    better, worse = int(np.sum(scores > 0)), int(np.sum(scores < 0))  # the journal writes them as JSON
    return Stage(call, reason, count, better, worse, lead=lead, mean=float(np.mean(scores)))


def _scores(items: Sequence[Result], incumbent: Sequence[Result]) -> Array:
    """Return the mean of `compare` of each attempt with the incumbent's on its station, or with all of them, (n,)."""
    stations = Counter(other.station for other in incumbent)
    scores = np.empty(len(items))
    for station in {item.station for item in items}:
        own = stations[station] >= LEAST_ON_STATION
        others = [other for other in incumbent if other.station == station] if own else incumbent
        mine = np.array([item.station == station for item in items])
        scores[mine] = _means([item for item in items if item.station == station], others)
    return scores


def _means(items: Sequence[Result], others: Sequence[Result]) -> Array:
    won, progress = (np.array([getattr(item, name) for item in items], float) for name in ("success", "progress"))
    theirs_won, theirs = (np.array([getattr(item, name) for item in others], float) for name in ("success", "progress"))
    gained = progress[:, None] - theirs[None, :]
    both_failed = (1.0 - won)[:, None] * (1.0 - theirs_won)[None, :]
    further = both_failed * ((gained >= PROGRESS_MARGIN).astype(float) - (gained <= -PROGRESS_MARGIN))
    return np.asarray((won[:, None] - theirs_won[None, :] + further).mean(axis=1))


def wealth(comparisons: Sequence[int]) -> float:
    """Return what betting 1 on the candidate has become, averaged over several sizes of bet."""
    return float(np.mean([np.prod([1.0 + bet * item for item in comparisons]) for bet in BETS]))


def worth_having(successes: int, trials: int) -> float:
    """Return the gain, as a share of the pairs, that a gate is to find over an incumbent with so many successes."""
    if trials < RATE_TRIALS:
        return WORTH
    failing = max(LEAST_FAILING, (trials - successes + 1) / (trials + 2))  # by Laplace's rule: never none
    return min(WORTH, WORTH_OF_FAILURES * failing)


def most_pairs(worth: float) -> int:
    """Return how many pairs a gain of `worth` may take."""
    return min(MOST_PAIRS, round(GATE_CAP * WORTH / worth))


def doubt(comparisons: Sequence[int], worth: float = WORTH) -> float:
    """Return what betting 1 against "it wins `worth` more of the pairs than it loses" has become."""
    return float(np.mean([np.prod([1.0 - bet * (item - worth) for item in comparisons]) for bet in DOUBTS]))


def gate(
    comparisons: Sequence[int],
    success_lead: int,
    alpha: float = ALPHA,
    admissible: bool = True,
    bet: float | None = None,
    worth: float = WORTH,
    most: int | None = None,
) -> Stage:
    """Decide from comparisons on fresh starts, in the order in which they were asked for.

    Args:
        comparisons: one of -1, 0, +1 a pair.
        success_lead: the candidate's successes minus the incumbent's on these pairs; a candidate that succeeds less
            often is never accepted, however much progress it makes.
        alpha: the chance of accepting a candidate that is no better; what the campaign stakes on it.
        admissible: whether it may be accepted so far, all else granted.
        bet: what betting 1 has become, where that was not on `comparisons` alone.
        worth: the gain that it is to find, as a share of the pairs; fixed before the first.
        most: pairs that it may take, fixed before the first too; None for what `worth` may take.
    """
    wins, losses = comparisons.count(1), comparisons.count(-1)
    now = wealth(comparisons) if bet is None else bet

    def stage(call: Call, reason: str) -> Stage:
        return Stage(call, reason, len(comparisons), wins, losses, now)

    if now >= 1.0 / alpha and success_lead >= 0 and admissible:
        return stage(Call.PASS, f"wealth {now:.1f} of {1 / alpha:.0f} after {wins} wins and {losses} losses")
    if losing(wins, losses):
        return stage(Call.REJECT, f"losing: {wins} wins, {losses} losses")
    if _not_worth_it(comparisons, wins, losses, worth):
        return stage(Call.INCONCLUSIVE, f"no difference seen in {len(comparisons)} pairs: {wins} wins, {losses} losses")
    if len(comparisons) >= (most_pairs(worth) if most is None else most):
        return stage(Call.INCONCLUSIVE, f"undecided after {len(comparisons)} pairs: {wins} wins, {losses} losses")
    return stage(Call.GO_ON, "")


def losing(wins: int, losses: int) -> bool:
    """Return whether so few wins against losses speak against a candidate."""
    return wins + losses >= LOSING_AFTER and wins < losses and _tail(losses, wins + losses) < LOSING_TAIL


def _not_worth_it(comparisons: Sequence[int], wins: int, losses: int, worth: float) -> bool:
    share = worth / WORTH
    dull = any(wins + losses >= different and wins - losses <= share * lead for different, lead in DULL)
    return dull or doubt(comparisons, worth) >= 1.0 / GIVEN_UP_WRONGLY


def heldout_hopeless(successes: int, done: int, target: int, total: int) -> bool:
    """Return whether the target can no longer be reached."""
    return successes + (total - done) < target


def _tail(losses: int, discordant: int) -> float:
    """Return the chance of at least so many losses if wins and losses were equally likely."""
    return sum(comb(discordant, k) for k in range(losses, discordant + 1)) / 2.0**discordant
