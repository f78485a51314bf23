"""Laws of the bank of once-failed states."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.evolution.evidence import Call, Result
from coordinator.evolution.regression import BANK, FALSE_ALARM, bank, chosen, needed

SEED = 11


def results(successes: int, failures: int) -> list[Result]:
    return [Result(True, 1.0, 20.0)] * successes + [Result(False, 0.5, 20.0)] * failures


@given(st.lists(st.integers(), unique=True, max_size=60))
def test_states_are_taken_in_order_from_all_that_were_learnt(learnt: list[int]) -> None:
    taken = chosen(learnt)
    assert len(taken) == min(BANK, len(learnt))
    places = [learnt.index(item) for item in taken]
    assert places == sorted(set(places))
    if len(learnt) >= 2 * BANK:
        assert places[0] < len(learnt) / BANK
        assert places[-1] >= len(learnt) - 1 - 2 * len(learnt) / BANK


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_a_policy_as_good_as_the_incumbent_is_seldom_turned_down(rate: float) -> None:
    rng = np.random.default_rng(SEED)
    least = needed(BANK, round(1000 * rate), 1000)
    turned_down = np.mean(rng.binomial(BANK, rate, size=20_000) < least)
    print(f"seed {SEED}: {turned_down:.4f} turned down at {rate}")
    assert turned_down <= FALSE_ALARM + 0.003


def test_a_policy_that_lost_what_was_learnt_is_turned_down() -> None:
    rng = np.random.default_rng(SEED)
    least = needed(BANK, 27, 30)
    assert np.mean(rng.binomial(BANK, 0.3, size=20_000) < least) >= 0.9


@given(st.integers(0, BANK), st.integers(0, 60), st.integers(0, 60))
def test_a_better_incumbent_asks_for_no_less(states: int, successes: int, failures: int) -> None:
    trials = successes + failures
    asked = needed(states, successes, trials)
    assert 0 <= asked <= states
    assert asked <= needed(states, successes + 1, trials + 1)


def test_an_incumbent_that_always_fails_and_an_empty_bank_ask_for_nothing() -> None:
    assert needed(BANK, 0, 30) == 0
    assert needed(0, 30, 30) == 0
    assert bank([], 0, 0) is Call.PASS


@pytest.mark.parametrize(
    ("successes", "failures", "call"),
    [
        (0, 0, Call.GO_ON), (4, 0, Call.GO_ON), (5, 0, Call.PASS), (5, 3, Call.PASS), (4, 3, Call.GO_ON),
        (4, 4, Call.REJECT), (0, 3, Call.GO_ON), (0, 4, Call.REJECT),
    ],
)  # fmt: skip
def test_the_bank_ends_as_soon_as_the_rest_can_change_nothing(successes: int, failures: int, call: Call) -> None:
    assert bank(results(successes, failures), 8, 5) is call
