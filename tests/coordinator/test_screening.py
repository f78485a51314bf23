"""How long a candidate's screen is, whatever becomes of the incumbent meanwhile."""

from __future__ import annotations

from coordinator.evolution.book import Book
from coordinator.evolution.candidate import Candidate
from coordinator.evolution.evidence import LONGEST_SCREEN, SCREEN_ATTEMPTS, Call, Result, screen_length
from coordinator.evolution.ideas import Proposal, Source
from coordinator.evolution.screening import Screening
from coordinator.scheduling.work import Urgency
from tests.harness.ideal_world import STARTS

WON, LOST = Result(True, 1.0, 20.0), Result(False, 0.2, 20.0)


def candidate(number: int) -> Candidate:
    source = Source({}, {}, str(number))
    return Candidate(number, Proposal("switch", {}, "", ""), "offline", source, "", None, Urgency.OFFLINE)


def under_way(wins: int, losses: int) -> tuple[Screening, Book, Candidate]:
    """Return a screen of one candidate against an incumbent with so many results, whose baseline is there."""
    book = Book(0)
    book.incumbent, tested = candidate(1), candidate(2)
    book.incumbent.results = [WON] * wins + [LOST] * losses
    screening = Screening(book, STARTS)
    screening.begin()
    while (slot := screening.baseline()) is not None:
        slot.result = WON
    book.testing.append(tested)
    return screening, book, tested


def attempts_until_the_end(screening: Screening, tested: Candidate) -> int:
    while (slot := screening.next(tested.urgency, 1)) is not None:
        slot.result = WON
        if screening.judge(tested).call is not Call.GO_ON:
            return len(tested.screens)
    raise AssertionError(f"a screen with no end after {len(tested.screens)} attempts")


def test_a_screen_is_longer_where_the_incumbent_fails_seldom() -> None:
    assert attempts_until_the_end(*under_way(100, 0)[::2]) == LONGEST_SCREEN
    assert attempts_until_the_end(*under_way(60, 40)[::2]) <= SCREEN_ATTEMPTS


def test_a_long_screen_goes_on_to_its_end_though_the_incumbent_turns_out_worse_meanwhile() -> None:
    screening, book, tested = under_way(100, 0)
    for _ in range(SCREEN_ATTEMPTS + 1):
        slot = screening.next(tested.urgency, 1)
        assert slot is not None
        slot.result = WON
        assert screening.judge(tested).call is Call.GO_ON
    book.incumbent.results += [LOST] * 100  # in pairs, so that nobody judges the screen anew
    assert screen_length(book.incumbent.results) == SCREEN_ATTEMPTS
    assert attempts_until_the_end(screening, tested) <= LONGEST_SCREEN


def test_the_rest_of_a_long_screen_is_only_for_what_has_passed_at_eight_though_the_eighth_comes_in_last() -> None:
    screening, _, tested = under_way(90, 10)
    slots = [screening.next(tested.urgency, LONGEST_SCREEN) for _ in range(SCREEN_ATTEMPTS + 1)]
    assert slots[-1] is None
    for slot in slots[:-1]:
        assert slot is not None
        slot.result = WON
    eighth = slots[-2]
    assert eighth is not None
    eighth.result = None
    assert screening.judge(tested).call is Call.GO_ON
    assert screening.next(tested.urgency, LONGEST_SCREEN) is None
    eighth.result = LOST
    assert screening.judge(tested).call is Call.REJECT
