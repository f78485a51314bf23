"""Whom the next pair of the gate is for: the candidate that promises most by all that is known of it so far."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.evolution.book import Book
from coordinator.evolution.candidate import Candidate
from coordinator.evolution.evidence import GATE_CAP, Result, _scores, compare
from coordinator.evolution.gating import ONE_OUT_OF, SHARES_OF_STARTS, Gate
from coordinator.evolution.ideas import Proposal, Source
from coordinator.evolution.starts import Starts
from coordinator.scheduling.work import Urgency

SEED = 5
WON, LOST = Result(True, 1.0, 20.0), Result(False, 0.2, 20.0)
results = st.builds(
    Result, st.booleans(), st.sampled_from([0.0, 0.05, 0.1, 0.5]), st.just(1.0), station=st.sampled_from(["a", "b"])
)


def candidate(number: int, mean: float) -> Candidate:
    made = Candidate(
        number, Proposal("switch", {}, "s", "f"), "r", Source({}, {}, str(number)), "b", None, Urgency.OFFLINE
    )
    made.state, made.mean, made.lead = "gate", mean, 4.0
    return made


def gate_of(*testing: Candidate) -> Gate:
    book = Book(SEED)
    book.incumbent = candidate(0, 0.0)
    book.testing = list(testing)
    return Gate(book, Starts.load("push_t"))


def bring(gate: Gate, mine: Result, theirs: Result) -> Candidate:
    """Ask for a pair, bring both halves, and return whose it was."""
    (pair,) = {id(slot.pair): slot.pair for slot in gate.next_pair(10, 4)}.values()
    assert pair is not None
    pair.candidate.result, pair.incumbent.result = mine, theirs
    return pair.candidate.candidate


def test_a_candidate_that_disappoints_at_the_gate_yields_and_goes_on_when_it_looks_the_best_again() -> None:
    lucky, steady = candidate(1, 0.6), candidate(2, 0.5)
    for one in (lucky, steady):
        one.screens = {f"dev-{k}": None for k in range(8)}  # type: ignore[dict-item]  # only their number counts
    gate = gate_of(lucky, steady)
    assert bring(gate, LOST, WON) is lucky
    assert bring(gate, WON, WON) is steady
    while steady.promise >= lucky.promise:
        assert bring(gate, LOST, WON) is steady
    assert bring(gate, WON, LOST) is lucky
    assert [len(one.pairs) for one in (lucky, steady)] == [2, len(steady.pairs)]


def test_pairs_in_flight_are_counted_over_all_candidates() -> None:
    gate = gate_of(candidate(1, 0.6), candidate(2, 0.5))
    for _ in range(4):
        assert len(gate.next_pair(10, 4)) == 2
    assert gate.next_pair(10, 4) == []


def test_where_nobody_is_in_the_screen_every_station_may_have_a_pair() -> None:
    gate = gate_of(candidate(1, 0.6))
    asked = 0
    while gate.next_pair(10, 4, alone=16):
        asked += 1
    assert asked == 16


def test_no_gate_uses_up_the_starts_that_others_need() -> None:
    first, later = candidate(1, 0.6), candidate(2, 0.5)
    gate = gate_of(first, later)
    book = gate._book
    book.incumbent.results = [WON] * 99 + [LOST]
    bring(gate, WON, WON)
    book.testing.remove(first)
    gate._next = len(gate._starts) - 100
    bring(gate, WON, WON)
    assert first.most_pairs == len(gate._starts) // SHARES_OF_STARTS
    assert later.most_pairs == GATE_CAP


def test_a_long_gate_has_more_out_and_of_each_never_more_than_a_share_for_nothing() -> None:
    one = candidate(1, 0.6)
    gate = gate_of(one)
    for judged in (8 * ONE_OUT_OF, 12 * ONE_OUT_OF):
        while one.judged < judged:
            bring(gate, WON, WON)
            one.judged += 1  # as its judge would count
        asked = 0
        while gate.next_pair(10, 4):
            asked += 1
        assert asked == judged // ONE_OUT_OF
        for pair in one.pairs:
            pair.candidate.result = pair.incumbent.result = WON
        one.judged = len(one.pairs)


@given(st.lists(results, min_size=1, max_size=9), st.lists(results, min_size=1, max_size=30))
def test_scores_are_mean_comparisons_with_the_incumbent_on_the_same_station(
    mine: list[Result], his: list[Result]
) -> None:
    for item, score in zip(mine, _scores(mine, his), strict=True):
        near = [other for other in his if other.station == item.station]
        others = near if len(near) >= 8 else his
        assert np.isclose(score, np.mean([compare(item, other) for other in others]), atol=1e-12)
