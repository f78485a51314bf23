"""Laws of the rule near the ceiling: faster is accepted where it is shown to be not worse, and only then."""

import numpy as np
import pytest

from coordinator.evolution.campaign_alpha import MOST
from coordinator.evolution.ceiling import RISK, faster, not_worse
from coordinator.evolution.evidence import FASTER_SHARE, GATE_CAP, Call, Result
from coordinator.evolution.pairs import Paired, judge
from coordinator.evolution.regression import SAFETY, SAFETY_LEAD

SEED = 11


def done(success: bool, seconds: float = 20.0, cause: str = "") -> Result:
    return Result(success, 1.0 if success else 0.5, seconds, cause)


def judged(rate: float, share: float, rng: np.random.Generator, incumbent: float = 0.95) -> Call:
    """Return what the gate says of a candidate with a success rate that takes so much of the incumbent's time."""
    pairs: list[Paired] = []
    while (stage := judge(pairs, MOST)).call is Call.GO_ON:
        luck = rng.uniform()
        mine = done(luck < rate, 20.0 * share * rng.lognormal(0.0, 0.1))
        pairs.append(Paired(mine, done(luck < incumbent, 20.0 * rng.lognormal(0.0, 0.1)), near_ceiling=True))
    return stage.call


@pytest.mark.parametrize(
    ("rate", "share", "least", "most"),
    [
        (0.95, 0.7, 0.8, 1.0),  # faster and as good
        (0.95, 1.0, 0.0, 0.02),  # equal
        (0.95, 0.96, 0.0, 0.05),  # faster by less than a tenth
        (0.85, 0.7, 0.0, RISK),  # faster and ten points worse
        (0.75, 0.7, 0.0, 0.03),  # faster and twenty points worse
    ],
)
def test_near_the_ceiling_only_what_is_as_good_and_clearly_faster_is_accepted(
    rate: float, share: float, least: float, most: float
) -> None:
    rng = np.random.default_rng(SEED)
    accepted = sum(judged(rate, share, rng) is Call.PASS for _ in range(150)) / 150
    print(f"seed {SEED}: {accepted:.3f} accepted at {rate} in {share} of the time")
    assert least <= accepted <= most


def test_not_worse_takes_evidence_and_a_loss_takes_some_back() -> None:
    even = (done(True), done(True))
    counts = [count for count in range(GATE_CAP) if not_worse([even] * count)]
    assert counts[0] > 15
    assert counts == list(range(counts[0], GATE_CAP))
    assert not not_worse([even] * counts[0] + [(done(False), done(True))])


def test_faster_is_the_mean_over_pairs_in_which_both_succeed() -> None:
    assert faster([(done(True, 20.0 * FASTER_SHARE), done(True, 20.0))])
    assert not faster([(done(True, 20.0 * FASTER_SHARE + 1e-6), done(True, 20.0))])
    assert not faster([(done(False, 1.0), done(True, 20.0)), (done(True, 1.0), done(False, 20.0))])


def test_a_candidate_that_succeeds_more_often_need_not_be_faster() -> None:
    better = [Paired(done(True, 40.0), done(False), near_ceiling=True)] * 8
    assert judge(better, MOST).call is Call.PASS


def test_a_candidate_that_has_to_be_stopped_more_often_is_rejected_whatever_it_gains() -> None:
    gains = [Paired(done(True), done(False), near_ceiling=False)] * 8
    stopped = Paired(done(False, cause=SAFETY), done(False), near_ceiling=False)
    assert judge([*gains, *[stopped] * (SAFETY_LEAD - 1)], MOST).call is Call.PASS
    assert judge([*gains, *[stopped] * SAFETY_LEAD], MOST).call is Call.REJECT
    both = Paired(done(False, cause=SAFETY), done(False, cause=SAFETY), near_ceiling=False)
    assert judge([*gains, *[both] * SAFETY_LEAD], MOST).call is Call.PASS


def test_a_slower_candidate_that_never_fails_where_the_incumbent_does_is_accepted_near_the_ceiling() -> None:
    slow_and_sure = [
        Paired(done(True, 30.0), done(k % 7 != 0, 20.0), near_ceiling=True) for k in range(80)
    ]  # loses most pairs by time, and twelve of the incumbent's failures are its successes
    calls = [judge(slow_and_sure[: k + 1], MOST).call for k in range(80)]
    assert Call.PASS in calls
    assert set(calls[: calls.index(Call.PASS)]) == {Call.GO_ON}


def test_what_is_faster_and_fails_more_is_rejected_as_soon_as_that_shows() -> None:
    pairs = [Paired(done(k % 4 != 3, 14.0), done(True), near_ceiling=True) for k in range(40)]
    calls = [judge(pairs[: count + 1], MOST, worth=0.03).call for count in range(len(pairs))]
    assert next(call for call in calls if call is not Call.GO_ON) is Call.REJECT
    assert calls.index(Call.REJECT) < 20


def test_an_attempt_that_took_no_time_says_nothing_of_speed() -> None:
    assert not faster([(done(True, 0.0), done(True, 20.0)), (done(True, 20.0), done(True, 0.0))])
    assert faster([(done(True, 10.0), done(True, 20.0)), (done(True, 20.0), done(True, 0.0))])
