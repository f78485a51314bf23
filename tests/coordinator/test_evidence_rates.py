"""Laws of success rates: intervals against scipy's, several tries against counting."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from coordinator.evolution.rates import exact_interval, pass_at, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(11, 12, 0.615, 0.998), (50, 50, 0.929, 1.0), (48, 50, 0.863, 0.995), (199, 200, 0.972, 1.0), (0, 10, 0.0, 0.308)],
)
def test_intervals_are_the_exact_ones(successes: int, trials: int, low: float, high: float) -> None:
    assert exact_interval(successes, trials) == pytest.approx((low, high), abs=1.2e-3)


@given(st.integers(0, 60), st.integers(0, 60))
def test_intervals_hold_the_rate_and_mirror(successes: int, failures: int) -> None:
    low, high = exact_interval(successes, successes + failures)
    assert 0.0 <= low <= high <= 1.0
    mirrored = exact_interval(failures, successes + failures)
    assert (1.0 - mirrored[1], 1.0 - mirrored[0]) == pytest.approx((low, high))


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 successes of 4"):
        exact_interval(5, 4)


@given(st.integers(0, 80), st.integers(0, 80))
def test_both_intervals_are_scipys(successes: int, failures: int) -> None:
    trials = successes + failures
    if trials == 0:
        assert exact_interval(0, 0) == wilson_interval(0, 0) == (0.0, 1.0)
        return
    for mine, method in ((exact_interval, "exact"), (wilson_interval, "wilson")):
        theirs = binomtest(successes, trials).proportion_ci(method=method)
        assert mine(successes, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.integers(1, 4), st.integers(0, 8), st.integers(0, 8))
def test_pass_at_k_is_the_share_of_choices_of_k_trials_that_hold_a_success(k: int, good: int, bad: int) -> None:
    outcomes = [True] * good + [False] * bad
    choices = [any(choice) for choice in combinations(outcomes, k)]
    expected = sum(choices) / len(choices) if choices else None
    assert pass_at(k, good, good + bad) == (None if expected is None else pytest.approx(expected))
