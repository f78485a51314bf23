"""What the gate lets through and what that costs, by simulation: equal candidates, and better ones by known gains.

Each candidate goes the whole way: a screen of eight, or of more where the incumbent fails seldom, pairs at the gate,
then the bank of once-failed states; what its campaign may risk is kept in one purse. An attempt succeeds or fails and
shows nothing else, no progress and no time, which is the hardest case for power; near the ceiling, where times are
compared, there are equal ones that vary in time too. Candidate and incumbent share the draw of an attempt with a
probability (`shared`), as a start that is hard is so for both; 0.8 is the value of facts that the bounds were set with,
0 is a world in which pairing does not help.

Episodes are those that the candidate causes: its attempts in the screen, both halves of each of its pairs, its
attempts on once-failed states, and a tenth of the incumbent's baseline of eight, which serves at least ten candidates.
Usage: python bench/gate_characteristics.py [CANDIDATES] [SEED]
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import numpy as np

from coordinator.evolution.campaign_alpha import Purse
from coordinator.evolution.evidence import SCREEN_ATTEMPTS, Call, Result, screen, screen_length, worth_having
from coordinator.evolution.pairs import Paired, judge
from coordinator.evolution.rates import exact_interval
from coordinator.evolution.regression import BANK, bank, needed

SHARED = 0.8
TIMES = 0.25
CAMPAIGN = 40  # candidates of one campaign, where they share a purse
KNOWN = 100  # attempts by which the incumbent's rate is known when a gate begins
BASELINE_EPISODES = SCREEN_ATTEMPTS / 10.0  # SCREENED_FIRST candidates at least have the use of it
MOST_ACCEPTED, LEAST_POWER, MOST_EPISODES = 0.01, 0.80, 60.0

Row = dict[str, object]  # what, figure, bound, holds


@dataclass(frozen=True)
class World:
    """An incumbent, a candidate, and how much of an attempt's luck the two share."""

    incumbent: float
    candidate: float
    shared: float = SHARED
    spread: float = 0.0  # of an attempt's time, lognormal; with some the gate compares times, as near the ceiling

    def pair(self, rng: np.random.Generator) -> tuple[Result, Result]:
        """Draw the candidate's and the incumbent's attempt from one start."""
        theirs = rng.uniform()
        mine = theirs if rng.uniform() < self.shared else rng.uniform()
        seconds = 20.0 * np.exp(self.spread * rng.standard_normal(2)) if self.spread else (20.0, 20.0)
        return _result(mine < self.candidate, seconds[0]), _result(theirs < self.incumbent, seconds[1])


@dataclass(frozen=True)
class Trialled:
    """What became of a candidate."""

    accepted: bool
    episodes: float


def main(candidates: int, seed: int) -> None:
    """Simulate and print the figures."""
    rows: list[Row] = []
    for rate in (0.5, 0.9):
        for shared in (SHARED, 0.0):
            rows += _null_rows(World(rate, rate, shared), candidates, seed)
    rows += _null_rows(World(0.9, 0.9, spread=TIMES), candidates, seed)
    rows += _null_rows(World(0.1, 0.1), candidates, seed)
    rows += _power_rows(0.25, 4 * candidates, seed, bound=True)
    for gain in (0.10, 0.15, 0.40):
        rows += _power_rows(gain, candidates, seed, bound=False)
    for incumbent, gain in ((0.87, 0.09), (0.90, 0.05), (0.94, 0.03)):
        rows += _power_rows(gain, candidates, seed, bound=False, incumbent=incumbent)
    rows += _null_rows(World(0.97, 0.97), candidates, seed)
    rows += _late_rows(candidates // 4, seed)
    print(json.dumps({"name": "gate_characteristics", "rows": rows}))


def _null_rows(world: World, candidates: int, seed: int) -> list[Row]:
    what = f"equal candidates at p = {world.incumbent}, shared {world.shared}"
    what += f", times that vary by {world.spread:.0%}" if world.spread else ""
    rng = np.random.default_rng([seed, 1])
    firsts = [_test(world, Purse(), rng)[0] for _ in range(candidates)]
    rng = np.random.default_rng([seed, 2])
    inside = [one for _ in range(candidates // CAMPAIGN) for one in _campaign(world, Purse(), CAMPAIGN, rng)[0]]
    # The first candidate has the largest stake, and where pairing does not help screen and stake are all that holds it.
    bound = world.incumbent in (0.5, 0.9)
    return [
        _row(f"{what}, accepted in campaigns of {CAMPAIGN}", inside, MOST_ACCEPTED if bound else None),
        _row(f"{what}, accepted as the first of a campaign", firsts, MOST_ACCEPTED if bound and world.shared else None),
        {"what": f"{what}, mean episodes", "figure": f"{_mean(inside):.1f}", "bound": "", "holds": None},
    ]


def _power_rows(gain: float, candidates: int, seed: int, bound: bool, incumbent: float = 0.5) -> list[Row]:
    rows: list[Row] = []
    for shared in (SHARED, 0.0):
        rng = np.random.default_rng([seed, 3])
        tested = [_test(World(incumbent, incumbent + gain, shared), Purse(), rng)[0] for _ in range(candidates)]
        what = f"candidates better by {100 * gain:.0f} points, {incumbent:g} to {incumbent + gain:.2f}, shared {shared}"
        binds = bound and shared == SHARED
        power, mean = float(np.mean([one.accepted for one in tested])), _mean(tested)
        rows += [
            _row(f"{what}, accepted", tested, None)
            | ({"bound": f"at least {LEAST_POWER:.0%}", "holds": power >= LEAST_POWER} if binds else {}),
            {
                "what": f"{what}, mean episodes",
                "figure": f"{mean:.1f}",
                "bound": f"at most {MOST_EPISODES:.0f}" if binds else "",
                "holds": mean <= MOST_EPISODES if binds else None,
            },
        ]
    return rows


def _late_rows(candidates: int, seed: int) -> list[Row]:
    """Return how a candidate 25 points better fares after many that were no better, when stakes are small."""
    rng = np.random.default_rng([seed, 4])
    rows: list[Row] = []
    for equal in (20, 80):
        purses = [_campaign(World(0.5, 0.5), Purse(), equal, rng)[1] for _ in range(candidates)]
        tested = [_test(World(0.5, 0.75), purse, rng)[0] for purse in purses]
        what = f"candidates better by 25 points after {equal} equal ones"
        rows.append(_row(f"{what}, accepted", tested, None))
        rows.append({"what": f"{what}, mean episodes", "figure": f"{_mean(tested):.1f}", "bound": "", "holds": None})
    return rows


def _campaign(world: World, purse: Purse, count: int, rng: np.random.Generator) -> tuple[list[Trialled], Purse]:
    """Test candidates one after another against one purse."""
    tested = []
    for _ in range(count):
        one, purse = _test(world, purse, rng)
        tested.append(one)
    return tested, purse


def _test(world: World, purse: Purse, rng: np.random.Generator) -> tuple[Trialled, Purse]:
    """Take a candidate as far as it comes."""
    won = round(KNOWN * world.incumbent)
    length = screen_length([_result(place < won, 20.0) for place in range(KNOWN)])
    baseline = [world.pair(rng) for _ in range(SCREEN_ATTEMPTS)]
    mine, theirs = [pair[0] for pair in baseline], [pair[1] for pair in baseline]
    mine += [world.pair(rng)[0] for _ in range(length - SCREEN_ATTEMPTS)]  # where the incumbent has no attempts
    stages = (screen(mine[: count + 1], theirs, length=length) for count in range(length))
    last = next(stage for stage in stages if stage.call is not Call.GO_ON)
    episodes = BASELINE_EPISODES + last.pairs
    if last.call is not Call.PASS:
        return Trialled(False, episodes), purse
    stake, purse = purse.stake, purse.staked()
    pairs: list[Paired] = []
    worth = worth_having(round(KNOWN * world.incumbent), KNOWN)
    while (stage := judge(pairs, stake, worth)).call is Call.GO_ON:
        pairs.append(Paired(*world.pair(rng), near_ceiling=world.spread > 0.0))
    episodes += 2 * stage.pairs
    if stage.call is Call.PASS:
        passed, attempts = _bank(world, theirs, rng)
        episodes += attempts
        if passed:
            return Trialled(True, episodes), purse.gained()
    return Trialled(False, episodes), purse.given_up(stake, stage.wealth)


def _bank(world: World, theirs: list[Result], rng: np.random.Generator) -> tuple[bool, int]:
    """Return whether the candidate holds on states that the incumbent has succeeded from, and after how many."""
    least = needed(BANK, sum(item.success for item in theirs), len(theirs))
    results: list[Result] = []
    while (call := bank(results, BANK, least)) is Call.GO_ON:
        mine, incumbent = world.pair(rng)
        if incumbent.success:
            results.append(mine)
    return call is Call.PASS, len(results)


def _result(success: bool, seconds: float) -> Result:
    return Result(bool(success), 1.0 if success else 0.0, float(seconds))


def _mean(tested: list[Trialled]) -> float:
    return float(np.mean([one.episodes for one in tested]))


def _row(what: str, tested: list[Trialled], most: float | None) -> Row:
    accepted, total = sum(one.accepted for one in tested), len(tested)
    low, high = exact_interval(accepted, total)
    figure = f"{accepted}/{total} = {accepted / total:.1%} (95 % interval {low:.1%} to {high:.1%})"
    if most is None:
        return {"what": what, "figure": figure, "bound": "", "holds": None}
    return {"what": what, "figure": figure, "bound": f"at most {most:.0%}", "holds": accepted <= most * total}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
