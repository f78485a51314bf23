"""Pairs of attempts from the same fresh start, and what they say at the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.evolution.ceiling import faster, not_worse, trust
from coordinator.evolution.evidence import GATE_CAP, WORTH, Call, Result, Stage, compare, gate, losing, wealth
from coordinator.evolution.regression import less_safe, safety_stops


@dataclass(frozen=True)
class Paired:
    """A candidate's attempt and the incumbent's."""

    mine: Result
    theirs: Result
    near_ceiling: bool  # whether the incumbent stood near its ceiling when the pair was asked for

    @property
    def comparison(self) -> int:
        """+1 where the candidate's attempt is better, -1 where it is worse."""
        return compare(self.mine, self.theirs, self.near_ceiling)


def judge(pairs: Sequence[Paired], alpha: float, worth: float = WORTH, most: int | None = None) -> Stage:
    """Decide from all of `pairs`, in the order in which they were asked for, after each shorter run of them went on.

    A candidate that had to be stopped for safety more often is rejected whatever it gains. One that gains by time
    must be shown to be not worse, and at least a tenth faster. Near the ceiling half of the stake is bet on success
    and progress alone, so that being slow hides no success; a candidate is given up where both ways speak against it,
    or where it loses by success, whatever it gains by time. `worth` is the gain that is looked for, as a share of the
    pairs, and `most` how many of them there may be.
    """
    results = [(pair.mine, pair.theirs) for pair in pairs]
    ways = [[compare(mine, theirs) for mine, theirs in results], [pair.comparison for pair in pairs]]
    lead = sum(mine.success - theirs.success for mine, theirs in results)
    bet = sum(wealth(way) for way in ways) / len(ways)
    admissible = _admissible(pairs, alpha)
    by_success, stage = (gate(way, lead, alpha, admissible, bet, worth, most) for way in ways)
    loses = by_success.call is Call.REJECT and not admissible
    if loses or by_success.call in (Call.PASS, Call.GO_ON):
        stage = by_success
    if less_safe(results):
        return Stage(Call.REJECT, "stopped for safety more often", stage.pairs, stage.wins, stage.losses, stage.wealth)
    return stage


def judge_simpler(pairs: Sequence[Paired], alpha: float) -> Stage:
    """Decide on a simplification, which need not be better: from all of `pairs`, in the order of asking.

    One that succeeds less often by ten points or more is accepted with a chance of at most `alpha`; none is that had
    to be stopped for safety more often than the incumbent.
    """
    results = [(pair.mine, pair.theirs) for pair in pairs]
    comparisons = [compare(pair.mine, pair.theirs) for pair in pairs]
    wins, losses = comparisons.count(1), comparisons.count(-1)
    now = trust(results)

    def stage(call: Call, reason: str) -> Stage:
        return Stage(call, reason, len(pairs), wins, losses, now)

    mine, theirs = safety_stops(results)
    if less_safe(results):
        return stage(Call.REJECT, "stopped for safety more often")
    if not_worse(results, alpha) and mine <= theirs:
        return stage(Call.PASS, f"not worse: {now:.1f} of {1 / alpha:.0f} after {wins} wins and {losses} losses")
    if losing(wins, losses):
        return stage(Call.REJECT, f"losing: {wins} wins, {losses} losses")
    if len(pairs) >= GATE_CAP:
        return stage(Call.INCONCLUSIVE, f"not shown to be as good in {len(pairs)} pairs: {wins} wins, {losses} losses")
    return stage(Call.GO_ON, "")


def _admissible(pairs: Sequence[Paired], alpha: float) -> bool:
    if not any(pair.near_ceiling for pair in pairs):
        return True
    if wealth([compare(pair.mine, pair.theirs) for pair in pairs]) >= 1.0 / alpha:
        return True  # by success and progress alone
    results = [(pair.mine, pair.theirs) for pair in pairs]
    return not_worse(results) and faster(results)
