"""Laws of the evidence: boundaries, and error rates by simulation with printed seeds."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.evolution.evidence import (
    ALPHA,
    FASTER_SHARE,
    GATE_CAP,
    GIVEN_UP_WRONGLY,
    MOST_PAIRS,
    PROGRESS_MARGIN,
    SCREEN_ATTEMPTS,
    WORTH,
    Call,
    Result,
    compare,
    doubt,
    gate,
    heldout_hopeless,
    most_pairs,
    screen,
    screen_length,
    wealth,
    worth_having,
)

SEED = 11
results = st.builds(Result, st.booleans(), st.floats(0.0, 1.0), st.floats(1.0, 60.0))


def test_success_beats_failure_whatever_the_progress() -> None:
    assert compare(Result(True, 1.0, 60.0), Result(False, 0.99, 1.0)) == 1
    assert compare(Result(False, 0.99, 1.0), Result(True, 1.0, 60.0)) == -1


@pytest.mark.parametrize(
    ("mine", "theirs", "better"),
    [(PROGRESS_MARGIN, 0.0, 1), (PROGRESS_MARGIN - 1e-9, 0.0, 0), (0.0, 0.0, 0), (0.0, PROGRESS_MARGIN, -1)],
)
def test_between_failures_progress_decides_from_its_margin_on(mine: float, theirs: float, better: int) -> None:
    assert compare(Result(False, mine, 20.0), Result(False, theirs, 20.0)) == better


@pytest.mark.parametrize(("seconds", "better"), [(20.0 * FASTER_SHARE, 1), (19.9, 0), (20.0, 0), (23.0, -1)])
def test_between_successes_time_decides_near_the_ceiling_only(seconds: float, better: int) -> None:
    mine, theirs = Result(True, 1.0, seconds), Result(True, 1.0, 20.0)
    assert compare(mine, theirs, near_ceiling=True) == better
    assert compare(mine, theirs) == 0


@given(results, results, st.booleans())
def test_comparison_is_antisymmetric(one: Result, other: Result, near_ceiling: bool) -> None:
    assert compare(one, other, near_ceiling) == -compare(other, one, near_ceiling)


def attempts(rate: float, count: int, rng: np.random.Generator) -> list[Result]:
    """Draw attempts that succeed so often; the others get half way, more or less."""
    return [
        Result(True, 1.0, 20.0) if rng.uniform() < rate else Result(False, float(rng.uniform(0.3, 0.7)), 20.0)
        for _ in range(count)
    ]


def screened(rate: float, incumbent_rate: float, rng: np.random.Generator) -> Call:
    incumbent, results = attempts(incumbent_rate, 20, rng), attempts(rate, SCREEN_ATTEMPTS, rng)
    calls = [screen(results[: count + 1], incumbent).call for count in range(SCREEN_ATTEMPTS)]
    return next(call for call in calls if call is not Call.GO_ON)


@given(
    st.lists(results, min_size=1, max_size=20), st.lists(results, min_size=SCREEN_ATTEMPTS, max_size=SCREEN_ATTEMPTS)
)
def test_a_full_screen_always_decides(incumbent: list[Result], candidate: list[Result]) -> None:
    stage = screen(candidate, incumbent)
    assert stage.call in (Call.PASS, Call.REJECT)
    assert stage.call is Call.REJECT or stage.wins > 0


@given(st.lists(results, min_size=1, max_size=12))
def test_an_incumbent_has_no_lead_over_itself(incumbent: list[Result]) -> None:
    assert screen(incumbent, incumbent).lead == pytest.approx(0.0, abs=1e-9)


def test_whoever_never_fails_passes_against_an_incumbent_that_seldom_does() -> None:
    seldom = [*[Result(True, 1.0, 20.0)] * 19, Result(False, 0.9, 20.0)]
    assert screen([Result(True, 1.0, 20.0)] * SCREEN_ATTEMPTS, seldom).call is Call.PASS
    assert screen([Result(True, 1.0, 20.0)] * SCREEN_ATTEMPTS, seldom[:19]).call is Call.PASS


@pytest.mark.parametrize(("won", "failed", "length"), [(0, 0, 8), (4, 6, 8), (8, 0, 24), (60, 12, 14), (200, 8, 24)])
def test_a_screen_is_longer_where_the_incumbent_fails_seldom(won: int, failed: int, length: int) -> None:
    incumbent = [Result(True, 1.0, 20.0)] * won + [Result(False, 0.5, 20.0)] * failed
    assert screen_length(incumbent) == length


@given(st.lists(results, min_size=24, max_size=24), st.lists(results, min_size=1, max_size=20))
def test_a_long_screen_goes_on_past_the_short_one_only_with_what_would_have_passed(
    candidate: list[Result], incumbent: list[Result]
) -> None:
    short, long = (screen(candidate[:SCREEN_ATTEMPTS], incumbent, length=length).call for length in (8, 24))
    assert (long is Call.REJECT) == (short is Call.REJECT)
    assert screen(candidate, incumbent, length=24).call in (Call.PASS, Call.REJECT)


def test_a_long_screen_tells_apart_what_a_short_one_cannot() -> None:
    rng = np.random.default_rng(SEED)
    passed: Counter[tuple[int, float]] = Counter()
    for _ in range(200):
        incumbent = attempts(0.92, 60, rng)
        for rate in (0.92, 0.99):
            candidate = attempts(rate, 24, rng)
            for length in (8, 24):
                calls = (screen(candidate[:count], incumbent, length=length).call for count in range(1, length + 1))
                passed[length, rate] += next(call for call in calls if call is not Call.GO_ON) is Call.PASS
    assert passed[8, 0.92] > 80
    assert passed[24, 0.92] < 60
    assert passed[24, 0.99] > 150


def test_nothing_to_compare_with_decides_nothing() -> None:
    some = [Result(True, 1.0, 20.0)] * SCREEN_ATTEMPTS
    assert screen(some, []).call is Call.GO_ON
    assert screen([], some).call is Call.GO_ON


@pytest.mark.parametrize(
    ("rate", "incumbent", "least", "most"),
    [(0.0, 0.0, 0.0, 0.3), (0.5, 0.5, 0.0, 0.4), (0.2, 0.7, 0.0, 0.02), (0.7, 0.2, 0.9, 1.0), (1.0, 0.6, 0.95, 1.0)],
)
def test_the_screen_lets_through_what_is_much_better_and_little_else(
    rate: float, incumbent: float, least: float, most: float
) -> None:
    rng = np.random.default_rng(SEED)
    passed = sum(screened(rate, incumbent, rng) is Call.PASS for _ in range(400)) / 400
    print(f"seed {SEED}: {passed:.3f} of candidates at {rate} pass against {incumbent}")
    assert least <= passed <= most


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=30))
def test_ties_never_move_the_wealth(outcomes: list[int]) -> None:
    assert wealth(outcomes) == pytest.approx(wealth([item for item in outcomes if item]))


def test_fewer_successes_are_never_accepted() -> None:
    assert gate([1] * 20, success_lead=-1).call is not Call.PASS
    assert gate([1] * 20, success_lead=0).call is Call.PASS


def test_the_gate_accepts_no_more_than_alpha_of_what_is_equal_however_often_it_looks() -> None:
    rng = np.random.default_rng(SEED)
    accepted, runs = 0, 2000
    for _ in range(runs):
        outcomes: list[int] = []
        for item in rng.choice([-1, 0, 1], size=GATE_CAP, p=[0.4, 0.2, 0.4]):
            outcomes.append(int(item))
            stage = gate(outcomes, success_lead=1)
            if stage.call is not Call.GO_ON:
                accepted += stage.call is Call.PASS
                break
    print(f"seed {SEED}: {accepted} of {runs} equal candidates accepted")
    assert accepted <= ALPHA * runs


def test_the_gate_finds_large_gains_quickly() -> None:
    rng = np.random.default_rng(SEED)
    pairs, accepted = [], 0
    for _ in range(300):
        outcomes: list[int] = []
        for item in rng.choice([-1, 0, 1], size=GATE_CAP, p=[0.1, 0.1, 0.8]):
            outcomes.append(int(item))
            stage = gate(outcomes, success_lead=1)
            if stage.call is not Call.GO_ON:
                break
        accepted += stage.call is Call.PASS
        pairs.append(len(outcomes))
    print(f"seed {SEED}: {accepted} of 300 accepted, median {np.median(pairs):.0f} pairs")
    assert accepted >= 270
    assert np.median(pairs) <= 16


def given_up(world: tuple[float, float], rng: np.random.Generator) -> tuple[Call, int]:
    """Return how the gate ends for a candidate that wins and loses such shares of the pairs, and after how many."""
    wins, losses = world
    outcomes: list[int] = []
    while (stage := gate(outcomes, success_lead=1)).call is Call.GO_ON:
        outcomes.append(int(rng.choice([1, -1, 0], p=[wins, losses, 1.0 - wins - losses])))
    return stage.call, stage.pairs


@pytest.mark.parametrize("world", [(WORTH, 0.0), (WORTH + 0.05, 0.05)])
def test_what_is_worth_it_is_seldom_doubted_away(world: tuple[float, float]) -> None:
    rng = np.random.default_rng(SEED)
    doubted = 0
    for _ in range(600):
        drawn = rng.choice([1, -1, 0], p=[*world, 1.0 - sum(world)], size=GATE_CAP)
        outcomes = [int(item) for item in drawn]
        doubted += any(doubt(outcomes[:count]) >= 1.0 / GIVEN_UP_WRONGLY for count in range(1, GATE_CAP + 1))
    print(f"seed {SEED}: {doubted} of 600 doubted away")
    assert doubted <= GIVEN_UP_WRONGLY * 600


@pytest.mark.parametrize("world", [(0.0, 0.0), (0.05, 0.05), (0.25, 0.25), (0.45, 0.45)])
def test_what_makes_no_difference_is_given_up_early(world: tuple[float, float]) -> None:
    rng = np.random.default_rng(SEED)
    pairs = [given_up(world, rng)[1] for _ in range(200)]
    print(f"seed {SEED}: median {np.median(pairs):.0f} pairs")
    assert np.median(pairs) <= GATE_CAP / 4


@given(st.integers(0, 400), st.integers(0, 400))
def test_what_is_worth_having_shrinks_with_what_still_fails(successes: int, failures: int) -> None:
    trials = successes + failures
    worth = worth_having(successes, trials)
    assert 0.0 < worth <= WORTH
    assert worth_having(successes, trials + 1) >= worth_having(successes + 1, trials + 1)
    assert GATE_CAP <= most_pairs(worth) <= MOST_PAIRS


def near_the_ceiling(worth: float, better: tuple[float, float], seed: int) -> float:
    """Return how many of 200 candidates that win and lose such shares of the pairs are accepted."""
    rng = np.random.default_rng(seed)
    accepted = 0
    for _ in range(200):
        outcomes: list[int] = []
        while (stage := gate(outcomes, success_lead=1, worth=worth)).call is Call.GO_ON:
            outcomes.append(int(rng.choice([1, -1, 0], p=[*better, 1.0 - sum(better)])))
        accepted += stage.call is Call.PASS
    print(f"seed {seed}: {accepted} of 200 accepted where {worth:.3f} is worth having")
    return accepted / 200


def test_near_the_ceiling_a_small_gain_is_found_and_none_that_is_none() -> None:
    little = worth_having(870, 1000)  # nine points of thirteen are cured, nothing else is shared
    assert near_the_ceiling(little, (0.125, 0.035), SEED) >= 0.6
    assert near_the_ceiling(WORTH, (0.125, 0.035), SEED) <= 0.4
    assert near_the_ceiling(little, (0.113, 0.113), SEED) <= ALPHA


def test_whoever_fails_once_does_not_pass_an_incumbent_that_was_not_seen_to() -> None:
    won, lost = Result(True, 1.0, 20.0), Result(False, 0.4, 20.0)
    assert screen([won] * (SCREEN_ATTEMPTS - 1) + [lost], [won] * 30).call is Call.REJECT
    assert screen([won] * (SCREEN_ATTEMPTS - 1), [won] * 30).call is Call.GO_ON


def test_where_little_is_worth_having_a_little_lead_is_not_dull() -> None:
    leads_by_two = [1, -1] * 6 + [1, 1] + [0] * 20
    assert gate(leads_by_two, success_lead=2).call is Call.INCONCLUSIVE
    assert gate(leads_by_two, success_lead=2, worth=0.05).call is Call.GO_ON
    assert gate([1, -1] * 7, success_lead=0, worth=0.05).call is Call.INCONCLUSIVE


def test_a_gate_ends_after_as_many_pairs_as_it_may_take() -> None:
    ties = [0] * 30
    assert gate(ties, success_lead=0, worth=0.05, most=31).call is Call.GO_ON
    assert gate(ties, success_lead=0, worth=0.05, most=30).call is Call.INCONCLUSIVE


def test_a_smaller_stake_asks_for_more() -> None:
    needed = [next(n for n in range(40) if gate([1] * n, 1, alpha).call is Call.PASS) for alpha in (0.05, 0.01, 0.001)]
    assert needed == sorted(set(needed))


def test_what_is_not_admissible_is_not_accepted_and_ends_at_the_cap() -> None:
    assert gate([1] * 20, success_lead=0, admissible=False).call is Call.GO_ON
    assert gate([1] * (GATE_CAP - 1), success_lead=0, admissible=False).call is Call.GO_ON
    assert gate([1] * GATE_CAP, success_lead=0, admissible=False).call is Call.INCONCLUSIVE


@pytest.mark.parametrize(
    ("successes", "done", "hopeless"), [(46, 50, False), (0, 4, False), (0, 5, True), (41, 46, True)]
)
def test_a_target_is_hopeless_once_the_rest_cannot_reach_it(successes: int, done: int, hopeless: bool) -> None:
    assert heldout_hopeless(successes, done, 46, 50) is hopeless
