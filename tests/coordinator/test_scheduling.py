"""Laws of the scheduler: order, health of stations by simulation with printed seeds, wear, and what is in flight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.scheduling.detector import Detector
from coordinator.scheduling.flight import LEAST_ATTEMPTS, LEAST_PAIRS, MOST_ATTEMPTS, MOST_PAIRS, flight
from coordinator.scheduling.health import (
    CANARIES,
    CHECK_EVERY,
    DRIFT_BETS,
    INVALID,
    INVALID_BETS,
    MOST_INVALID,
    RESETS,
    RUN,
    SUSPECT_AFTER,
    Health,
)
from coordinator.scheduling.wear import HOUR_S, Wear, WearBudget
from coordinator.scheduling.work import Urgency, Work, first, urgency_of

SEED = 11
EDGES = [f"station-{number}" for number in range(1, 5)]


def run_length(detector: Detector, numbers: np.ndarray) -> int:
    """Return after how many numbers the alarm came, all of them where it did not."""
    for count, number in enumerate(numbers, start=1):
        detector = detector.step(float(number))
        if detector.alarm:
            return count
    return len(numbers)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_like_stations_raise_an_alarm_less_often_than_once_in_a_run(rate: float) -> None:
    rng = np.random.default_rng(SEED)
    lengths = []
    for _ in range(60):
        numbers = rng.binomial(1, rate, 3000) - rng.binomial(1, rate, 3000)
        lengths.append(run_length(Detector(DRIFT_BETS, RUN), numbers))
    print(f"seed {SEED}: {np.mean(lengths):.0f} comparisons to a false alarm at {rate}, cut at 3000")
    assert np.mean(lengths) >= RUN


@pytest.mark.parametrize(("good", "bad", "most"), [(0.9, 0.3, 25), (0.9, 0.6, 70), (0.5, 0.1, 50)])
def test_a_station_that_drifts_is_found_soon(good: float, bad: float, most: int) -> None:
    rng = np.random.default_rng(SEED)
    lengths = []
    for _ in range(100):
        alike = rng.binomial(1, good, 50) - rng.binomial(1, good, 50)
        apart = rng.binomial(1, good, 500) - rng.binomial(1, bad, 500)
        numbers = np.concatenate([alike, apart])
        lengths.append(run_length(Detector(DRIFT_BETS, RUN), numbers) - 50)
    print(f"seed {SEED}: found after {np.median(lengths):.0f} comparisons, {good} here and {bad} there")
    assert np.median(lengths) <= most


def test_verdicts_are_believed_up_to_their_share_of_invalid_ones() -> None:
    rng = np.random.default_rng(SEED)
    numbers = [rng.binomial(1, INVALID, 3000) / INVALID - 1.0 for _ in range(60)]
    assert np.mean([run_length(Detector(INVALID_BETS, RUN), item) for item in numbers]) >= RUN
    numbers = [rng.binomial(1, 0.6, 300) / INVALID - 1.0 for _ in range(60)]
    assert np.median([run_length(Detector(INVALID_BETS, RUN), item) for item in numbers]) <= 20


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=40))
def test_a_detector_is_never_negative_and_grows_by_one_where_nothing_differs(numbers: list[float]) -> None:
    detector = Detector(DRIFT_BETS, RUN)
    for number in numbers:
        after = detector.step(number)
        assert after.value >= 0.0
        assert number or after.value == pytest.approx(detector.value + 1.0)
        detector = after


def fleet(rates: dict[str, float], attempts: int, rng: np.random.Generator) -> tuple[Health, dict[str, int]]:
    """Let stations run the incumbent in turn; return what is known and when each was quarantined."""
    health = Health()
    found: dict[str, int] = {}
    for edge in rates:
        health.present(edge, True)
    for number in range(attempts):
        for edge, rate in rates.items():
            for name, _ in health.outcome(edge, bool(rng.uniform() < rate)):
                found.setdefault(name, number)
    return health, found


def test_of_a_fleet_only_the_station_that_drifted_is_quarantined() -> None:
    rng = np.random.default_rng(SEED)
    wrong, delays = 0, []
    for _ in range(50):
        _, found = fleet({**dict.fromkeys(EDGES, 0.8), EDGES[2]: 0.3}, 100, rng)
        wrong += len(set(found) - {EDGES[2]})
        delays.append(found.get(EDGES[2], 100))
    print(f"seed {SEED}: {wrong} sound stations of 150 quarantined in 100 attempts, delay {np.median(delays):.0f}")
    assert wrong <= 15
    assert np.median(delays) <= 40


def test_of_two_stations_that_differ_the_one_that_fails_more_is_quarantined() -> None:
    rng = np.random.default_rng(SEED)
    found = [set(fleet({EDGES[0]: 0.9, EDGES[1]: 0.2}, 60, rng)[1]) for _ in range(20)]
    assert found == [{EDGES[1]}] * 20


def judged_fleet(invalid: dict[str, float], attempts: int, rng: np.random.Generator) -> tuple[Health, dict[str, int]]:
    """Let stations run an incumbent that succeeds wherever it can be judged; return the same as `fleet`."""
    health = Health()
    found: dict[str, int] = {}
    for number in range(attempts):
        for edge, share in invalid.items():
            for name, _ in health.outcome(edge, None if rng.uniform() < share else True):
                found.setdefault(name, number)
    return health, found


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("stations", [1, 2, 4])
def test_what_a_policy_leaves_on_every_station_damns_none(share: float, stations: int) -> None:
    rng = np.random.default_rng(SEED)
    found = sum(len(judged_fleet(dict.fromkeys(EDGES[:stations], share), 100, rng)[1]) for _ in range(50))
    print(f"seed {SEED}: {found} of {50 * stations} quarantined wrongly in 100 attempts, {share:.0%} not to be judged")
    assert found <= 0.08 * 50 * stations


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_station_that_alone_cannot_judge_is_found_soon_and_comes_back_once_it_judges_as_the_others(
    share: float,
) -> None:
    rng = np.random.default_rng(SEED)
    wrong, delays, back = 0, [], {share: 0, 0.9: 0}
    for _ in range(50):
        health, found = judged_fleet({**dict.fromkeys(EDGES, share), EDGES[2]: 1.0}, 40, rng)
        wrong += len(set(found) - {EDGES[2]})
        delays.append(found.get(EDGES[2], 40))
        for now in back:
            if health.quarantined(EDGES[2]):
                canaries = [None if rng.uniform() < now else True for _ in range(CANARIES)]
                back[now] += [health.canary(EDGES[2], item, 99, 100) for item in canaries][-1]
    print(f"seed {SEED}: {wrong} of 150 wrongly, found after {np.median(delays):.0f} attempts, back {back} of 50")
    assert wrong <= 5
    assert np.median(delays) <= 20
    assert back[share] >= 40
    assert back[0.9] == 0


def test_a_quarantined_station_comes_back_by_good_canaries_only() -> None:
    rng = np.random.default_rng(SEED)
    back = {0.8: 0, 0.2: 0}
    for rate in back:
        for _ in range(200):
            health = Health()
            for _ in range(RESETS):
                found = health.reset_failed("station-1", True)
            assert found
            assert health.due("station-1")
            verdicts = [health.canary("station-1", bool(rng.uniform() < rate), 80, 100) for _ in range(CANARIES)]
            assert not any(verdicts[:-1])
            back[rate] += verdicts[-1]
            assert health.quarantined("station-1") is not verdicts[-1]
    print(f"seed {SEED}: back after one block of canaries: {back} of 200")
    assert back[0.8] >= 190
    assert back[0.2] <= 4


def test_canaries_that_cannot_be_judged_bring_no_station_back() -> None:
    for invalid in (MOST_INVALID, MOST_INVALID + 1):
        health = Health()
        for _ in range(RESETS):
            health.reset_failed("station-1", True)
        verdicts: list[bool | None] = [None] * invalid + [True] * (CANARIES - invalid)
        assert [health.canary("station-1", item, 5, 10) for item in verdicts][-1] is (invalid == MOST_INVALID)


def test_resets_that_fail_in_a_row_quarantine_a_station_and_one_that_succeeds_begins_anew() -> None:
    health = Health()
    told = [health.reset_failed("station-1", failed) for failed in [True, True, False, True, True, True, True]]
    assert [bool(found) for found in told] == [False] * 5 + [True, False]


def test_a_sound_station_is_checked_where_no_incumbent_ran_for_long_and_where_an_attempt_could_not_be_judged() -> None:
    health = Health()
    assert not health.due("station-1")
    for _ in range(CHECK_EVERY):
        assert not health.due("station-1")
        health.handed("station-1", incumbent=False, canary=False)
    assert health.due("station-1")
    health.handed("station-1", incumbent=True, canary=True)
    health.unjudged("station-1")
    for _ in range(SUSPECT_AFTER):
        assert not health.due("station-1")
        health.handed("station-1", incumbent=False, canary=False)
    assert health.due("station-1")


def test_a_bound_on_play_is_for_each_hour_and_one_on_wear_for_good() -> None:
    wear = Wear(WearBudget(play_per_hour=2, station_minutes=10.0))
    for _ in range(2):
        assert wear.may_play("station-1", 0.0)
        wear.played("station-1", 0.0)
    assert not wear.may_play("station-1", HOUR_S - 1.0)
    assert wear.may_play("station-1", HOUR_S)
    assert wear.may_play("station-2", 0.0)
    wear.worked("station-1", 600.0)
    assert not wear.may_play("station-1", 10 * HOUR_S)
    assert Wear(WearBudget()).may_play("station-1", 0.0)


def test_the_most_urgent_work_goes_first_and_equals_in_order() -> None:
    made = [Work(()) for _ in range(3)]
    offers = [(Urgency.PLAY, lambda: made[0]), (Urgency.CONFIRM, lambda: None), (Urgency.AGENTS, lambda: made[1]),
              (Urgency.AGENTS, lambda: made[2])]  # fmt: skip
    assert first(offers) is made[1]
    assert first([]) is None
    assert urgency_of("offline") > urgency_of("any agent")


@given(st.integers(1, 64))
def test_more_stations_have_more_of_one_test_in_flight_within_bounds(stations: int) -> None:
    small, large = flight(stations), flight(stations + 1)
    assert LEAST_PAIRS <= small.pairs <= large.pairs <= MOST_PAIRS
    assert LEAST_ATTEMPTS <= small.attempts <= large.attempts <= MOST_ATTEMPTS
    assert small.pairs_alone >= max(stations, small.pairs)  # one for each, where there is nothing else
    assert small.candidates <= large.candidates
