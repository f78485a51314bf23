"""Laws of the purse: whatever happens, no more is risked than a campaign and its gains have put in."""

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.evolution.campaign_alpha import MOST, PURSE, Purse
from coordinator.evolution.evidence import GATE_CAP, wealth

SEED = 11
endings = st.lists(st.one_of(st.just("gain"), st.floats(0.0, 50.0)), max_size=200)  # or what the bet was worth


@given(endings)
def test_stakes_less_what_came_back_never_exceed_what_was_put_in(gates: list[str | float]) -> None:
    purse, spent, gains = Purse(), 0.0, 0
    for ending in gates:
        stake = purse.stake
        assert 0.0 < stake <= MOST
        before, purse = purse, purse.staked()
        spent += stake
        if isinstance(ending, str):
            purse, gains = purse.gained(), gains + 1
        else:
            purse = purse.given_up(stake, ending)
            spent -= stake * min(1.0, ending)
            assert purse.left <= before.left + 1e-15
        assert purse.left > 0.0
        assert spent <= PURSE * (1 + gains) + 1e-12


def test_a_dry_spell_makes_stakes_smaller_and_a_gain_larger() -> None:
    purse = Purse()
    stakes = []
    for _ in range(50):
        stakes.append(purse.stake)
        purse = purse.staked().given_up(purse.stake, 0.5)
    assert stakes == sorted(stakes, reverse=True)
    assert stakes[-1] < stakes[0] / 20
    assert purse.gained().stake > 20 * stakes[-1]


@cache
def held(wins: int, losses: int) -> float:
    return wealth([1] * wins + [-1] * losses)


def test_false_gains_of_whole_campaigns_stay_within_what_was_promised() -> None:
    """Every gate is of an equal candidate and looks after each pair, up to the cap: the most that luck can do."""
    rng = np.random.default_rng(SEED)
    gains, campaigns = 0, 300
    for _ in range(campaigns):
        purse = Purse()
        for _ in range(20):
            stake, purse = purse.stake, purse.staked()
            flips = rng.choice([-1, 1], size=GATE_CAP)
            wins = np.cumsum(flips == 1)
            worth = [held(int(won), count - int(won)) for count, won in enumerate(wins, start=1)]
            won = max(worth) >= 1.0 / stake
            gains += won
            purse = purse.gained() if won else purse.given_up(stake, worth[-1])
    print(f"seed {SEED}: {gains} false gains in {campaigns} campaigns of 20 gates")
    assert gains <= PURSE * (campaigns + gains)
