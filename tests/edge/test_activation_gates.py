"""The gates pass what is good, fail what cannot pass any more, and wait in between; how often, is counted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.activation import gates as gate
from edge.activation.gates import FAULT_CAUSES, FAULT_WINDOW, Call, Ended, Gates, Pair, Ruling
from edge.activation.series import Series
from edge.records import Outcome, RolloutOrder, RolloutStart

GATES = Gates()
GOOD = gate.Tested(True, "fine", 2_000, 0.010, 0)
WON, LOST, VOID = (Outcome.SUCCESS, ""), (Outcome.FAILURE, "near"), (Outcome.INVALID, "reset")
DRAWS = 4_000
ORDER = RolloutOrder(3, "a" * 64, "push_t", "active", (RolloutStart("dev-1", {"x_m": 0.3}, 7),), 0.0, 60.0)


def ended(outcome: Outcome, cause: str) -> Ended:
    return Ended("a", outcome, cause, "dev-1", 1, 0.0)


def made(*ends: tuple[Outcome, str]) -> list[Ended]:
    return [ended(*item) for item in ends]


def canary(newcomer: Sequence[bool], baseline: Sequence[bool] | None) -> Ruling:
    """Return what the canary gate says of so many successes and failures."""
    trials = made(*(WON if good else LOST for good in newcomer))
    others = [None] * len(trials) if baseline is None else made(*(WON if good else LOST for good in baseline))
    pairs = [Pair(one, other) for one, other in zip(trials, others, strict=True)]
    return gate.canary(pairs, trials, baseline is not None, GATES)


# -- self-test and shadow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"ok": False}, False),
        ({"breaches": 1}, False),
        ({"p99_s": math.nextafter(GATES.step_p99_s, 0.0)}, True),
        ({"p99_s": math.nan}, False),
        ({"p99_s": math.inf}, False),
    ],
)
def test_a_self_test_passes_when_it_is_well_within_the_policy_period(change: dict[str, float], passes: bool) -> None:
    tested = replace(GOOD, **change)  # type: ignore[arg-type]
    expected = Call.PASS if passes else Call.FAIL
    assert gate.self_test(tested, GATES).call is expected
    assert gate.shadow(tested, GATES).call is expected


def test_what_is_only_too_slow_is_no_fault_of_a_self_test_but_is_one_of_a_shadow() -> None:
    slow = replace(GOOD, p99_s=GATES.step_p99_s)
    assert gate.self_test(slow, GATES).call is Call.WAIT
    assert gate.shadow(slow, GATES).call is Call.FAIL
    assert gate.self_test(replace(slow, breaches=1), GATES).call is Call.FAIL
    assert gate.self_test(replace(slow, ok=False), GATES).call is Call.FAIL


def test_the_shadow_waits_for_its_steps_but_not_for_a_breach() -> None:
    assert gate.shadow(replace(GOOD, steps=1_999), GATES).call is Call.WAIT
    assert gate.shadow(replace(GOOD, steps=1_999, breaches=1), GATES).call is Call.FAIL


def test_with_nothing_active_the_shadow_passes_and_says_why() -> None:
    ruling = gate.shadow(None, GATES)
    assert (ruling.call, ruling.gauges) == (Call.PASS, ())
    assert "nothing is active" in ruling.note


# -- canary -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fewer", "call"), [(0, Call.PASS), (3, Call.PASS), (4, Call.FAIL), (10, Call.FAIL)])
def test_the_newcomer_may_succeed_less_often_by_delta(fewer: int, call: Call) -> None:
    assert canary([True] * (12 - fewer) + [False] * (8 + fewer), [True] * 12 + [False] * 8).call is call


def test_the_canary_waits_for_all_its_pairs_however_good_they_are() -> None:
    assert canary([True] * 19, [False] * 19).call is Call.WAIT
    assert canary([True] * 20, [False] * 20).call is Call.PASS


def test_the_canary_fails_as_soon_as_the_pairs_to_come_cannot_save_it() -> None:
    calls = [canary([False] * count, [True] * count).call for count in range(20)]
    assert calls == [Call.WAIT] * 12 + [Call.FAIL] * 8  # after 12 lost ones, 8 won ones would leave it 4 behind


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_a_canary_that_fails_early_would_have_failed_whatever_came(seen: list[tuple[bool, bool]]) -> None:
    if canary([one for one, _ in seen], [other for _, other in seen]).call is Call.FAIL:
        best = seen + [(True, False)] * (20 - len(seen))
        assert canary([one for one, _ in best], [other for _, other in best]).call is Call.FAIL


def test_one_safety_stop_ends_a_canary() -> None:
    trials = made(*[WON] * 19, (Outcome.FAILURE, "safety"))
    pairs = [Pair(item, ended(*LOST)) for item in trials]
    assert gate.canary(pairs, trials, True, GATES).call is Call.FAIL
    assert gate.canary(pairs[:1], [*trials[:1], trials[-1]], True, GATES).call is Call.FAIL


def test_without_a_baseline_a_stated_share_of_successes_counts() -> None:
    assert canary([True] * 10 + [False] * 10, None).call is Call.PASS
    assert canary([True] * 9 + [False] * 11, None).call is Call.FAIL
    assert canary([False] * 10, None).call is Call.WAIT
    assert canary([False] * 11, None).call is Call.FAIL
    ruling = canary([True] * 20, None)
    assert "nothing is active to compare with" in ruling.note
    assert [gauge.threshold for gauge in ruling.gauges if gauge.name == "success share"] == [GATES.least_share]


def test_a_camera_that_damns_both_alike_makes_nobody_active() -> None:
    for won, call in ((4, Call.PASS), (3, Call.FAIL), (0, Call.FAIL)):
        newcomer = [True] * won + [False] * (20 - won)
        ruling = canary(newcomer, newcomer)
        assert ruling.call is call
        [share] = [gauge for gauge in ruling.gauges if gauge.name == "success share"]
        assert (share.threshold, share.holds) == (GATES.floor_share, call is Call.PASS)
        for canary_share in (won / 20, None):
            ruling = gate.probation(made(*(WON if good else LOST for good in newcomer)), canary_share, GATES)
            assert ruling.call is call
            assert GATES.floor_share in [gauge.threshold for gauge in ruling.gauges if gauge.name == "success share"]
    assert [canary([False] * count, [False] * count).call for count in (16, 17)] == [Call.WAIT, Call.FAIL]
    assert [gate.probation(made(*[LOST] * count), None, GATES).call for count in (16, 17)] == [Call.WAIT, Call.FAIL]


@pytest.mark.parametrize(
    ("newcomer", "active", "stated"), [(0.5, 0.5, 0.87), (0.9, 0.9, 0.97), (0.2, 0.5, 0.18), (0.6, 0.9, 0.16)]
)
def test_the_canary_passes_as_often_as_its_docstring_says(newcomer: float, active: float, stated: float) -> None:
    rng = np.random.default_rng(20)
    drawn = rng.random((DRAWS, 2, GATES.canary_pairs)) < np.array([newcomer, active])[None, :, None]
    passed = sum(canary(item[0].tolist(), item[1].tolist()).call is Call.PASS for item in drawn) / DRAWS
    # Four standard errors of the share, and half a point for the rounding of what is stated.
    assert abs(passed - stated) <= 4.0 * math.sqrt(stated * (1.0 - stated) / DRAWS) + 0.005
    lines = [line.split() for line in (gate.canary.__doc__ or "").splitlines() if line.strip().endswith("%")]
    assert [line[-2] for line in lines] == ["87", "97", "18", "16"]


# -- probation and faults ---------------------------------------------------------------------------------------------


def test_probation_waits_for_its_trials_and_invalid_ones_are_none() -> None:
    assert gate.probation(made(*[WON] * 19, *[VOID] * 9), 1.0, GATES).call is Call.WAIT
    assert gate.probation(made(*[WON] * 20), 1.0, GATES).call is Call.PASS


@pytest.mark.parametrize(("won", "share", "call"), [(12, 0.9, Call.PASS), (11, 0.9, Call.FAIL), (4, 0.3, Call.PASS)])
def test_the_full_envelope_may_cost_a_newcomer_some_successes_but_not_all(won: int, share: float, call: Call) -> None:
    assert gate.probation(made(*[WON] * won, *[LOST] * (20 - won)), share, GATES).call is call


def test_probation_ends_as_soon_as_it_cannot_pass() -> None:
    assert gate.probation(made(*[LOST] * 8), 0.9, GATES).call is Call.WAIT
    assert gate.probation(made(*[LOST] * 9), 0.9, GATES).call is Call.FAIL


def test_without_a_canary_faults_and_the_least_share_count_and_the_ruling_says_so() -> None:
    ruling = gate.probation(made(*[WON] * 4, *[LOST] * 16), None, GATES)
    assert ruling.call is Call.PASS
    assert "no canary" in ruling.note


def test_what_a_policy_leaves_so_that_nobody_can_judge_it_is_no_success() -> None:
    unseen, cut_short = (Outcome.INVALID, "unseen"), (Outcome.INVALID, "reset")
    assert gate.probation(made(*[WON] * 6, *[unseen] * 14), 1.0, GATES).call is Call.FAIL
    assert gate.probation(made(*[WON] * 20, *[cut_short] * 14), 1.0, GATES).call is Call.PASS
    series = Series(ORDER, "probation", "a" * 64)
    names = [series.attempt(number, "new", ()).assignment_id for number in range(2)]
    trials = [replace(ended(*end), assignment_id=name) for name, end in zip(names, (unseen, cut_short), strict=True)]
    pairs, lacking = series.pairs(trials)
    assert [pair.newcomer.cause for pair in pairs] == ["unseen"]
    assert [item.assignment_id for item in lacking] == [names[1].removesuffix("0") + "1"]


@pytest.mark.parametrize("cause", FAULT_CAUSES)
def test_three_faults_in_ten_trials_are_too_many(cause: str) -> None:
    fault = (Outcome.FAILURE, cause)
    assert gate.faults(made(fault, fault, *[WON] * 8), GATES).call is Call.PASS
    assert gate.faults(made(fault, fault, *[WON] * 7, fault), GATES).call is Call.FAIL
    assert gate.faults(made(fault, fault, *[WON] * 8, fault), GATES).call is Call.PASS  # the first is eleven ago
    assert gate.faults(made(fault, fault, *[VOID] * FAULT_WINDOW, fault), GATES).call is Call.FAIL
    assert gate.probation(made(fault, fault, fault), None, GATES).call is Call.FAIL


@pytest.mark.parametrize("end", [(Outcome.FAILURE, "timeout"), LOST, (Outcome.INVALID, "crashed"), WON])
def test_other_ends_are_no_faults(end: tuple[Outcome, str]) -> None:
    assert gate.faults(made(*[end] * FAULT_WINDOW), GATES).call is Call.PASS


# -- all --------------------------------------------------------------------------------------------------------------


def test_every_ruling_is_json_with_each_value_beside_its_threshold() -> None:
    never = replace(GOOD, p99_s=math.nan)
    for ruling in (gate.self_test(never, GATES), gate.shadow(GOOD, GATES), canary([True], [True])):
        said = json.loads(json.dumps(ruling.as_map(), allow_nan=False))
        assert set(said) == {"gate", "call", "gauges", "note"}
        assert all({"name", "value", "rule", "threshold", "holds"} == set(gauge) for gauge in said["gauges"])
