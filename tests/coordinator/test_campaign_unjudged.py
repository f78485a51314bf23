"""What cannot be judged, what does not come, and what comes too late: none of it makes a policy look better."""

from collections import Counter
from dataclasses import replace

import pytest

from coordinator.campaign import MOST_REFILLS, Attempt, Work
from coordinator.evolution.book import Book
from coordinator.evolution.campaign_alpha import PURSE, Purse
from coordinator.evolution.candidate import Candidate, Slot
from coordinator.evolution.evidence import Call, Result, Stage
from coordinator.evolution.gating import MOST_BEHIND, Gate
from coordinator.evolution.ideas import Proposal, Source
from coordinator.evolution.measuring import Measuring
from coordinator.evolution.records import DecisionMade, HeldoutMeasured, TrialUsed
from coordinator.evolution.slots import Slots
from coordinator.evolution.starts import Starts
from coordinator.scheduling.work import Urgency
from edge.records import Outcome, Trial
from tests.harness.ideal_world import STARTS, Lab, World, ladder

SEED = 11
WON = Result(True, 1.0, 20.0)


def drive(lab: Lab, world: World, turns: int, stations: int = 4) -> list[HeldoutMeasured]:
    """Run a fleet and return what was measured on held-out starts."""
    measured = []
    for turn in range(turns):
        edge = f"station-{turn % stations + 1}"
        work = lab.next_work(edge, float(turn))
        for attempt in () if work is None else work.attempts:
            lab.campaign.record(world.run(attempt, edge), float(turn))
        measured += [event for event in lab.campaign.drain() if isinstance(event, HeldoutMeasured)]
    return measured


def at(work: Work | None) -> Attempt:
    """Return the first attempt of some work."""
    assert work is not None
    return work.attempts[0]


def until(lab: Lab, world: World, purpose: str, edge: str = "station-1") -> Work:
    """Let one station work until it is given an attempt for a purpose, and return that."""
    for _ in range(2_000):
        work = lab.next_work(edge)
        assert work is not None
        if work.attempts[0].purpose == purpose:
            return work
        for attempt in work.attempts:
            lab.campaign.record(world.run(attempt, edge), 0.0)
    raise AssertionError(f"no {purpose} in time")


def failed(trial: Trial, cause: str) -> Trial:
    return replace(trial, outcome=Outcome.INVALID, cause=cause)


def test_a_policy_whose_misses_cannot_be_judged_does_not_reach_the_target_by_that() -> None:
    def four_in_five(params: object) -> float:
        return 0.8

    world = World(four_in_five, SEED, invalid=0.0)
    run = world.run

    def hides_its_misses(attempt: Attempt, edge: str = "station-1") -> Trial:
        trial = run(attempt, edge)
        return trial if trial.outcome is Outcome.SUCCESS else failed(trial, "unseen")

    world.run = hides_its_misses  # type: ignore[method-assign]
    lab = Lab(world, SEED)
    lab.campaign._measuring._promising = lambda: True  # type: ignore[method-assign]  # as often as it likes
    for measured in drive(lab, world, 600):
        assert measured.successes < 46
        assert measured.invalid == measured.trials - measured.successes
    assert lab.campaign.finished is None


@pytest.mark.parametrize("cause", ["reset", "crash", "stopped", "disk", "bundle"])
def test_an_attempt_that_says_nothing_of_its_policy_is_made_again_by_a_station_that_has_not_failed_at_it(
    cause: str,
) -> None:
    world = World(ladder, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    lab.campaign.station("station-2", "here", 0.0)
    first = at(lab.next_work("station-1"))
    lab.campaign.record(failed(world.run(first, "station-1"), cause), 0.0)
    assert at(lab.next_work("station-1")).start_id != first.start_id
    again = at(lab.next_work("station-2"))
    assert (again.start_id, again.seed, again.candidate_id) == (first.start_id, first.seed, first.candidate_id)


def test_a_lone_station_makes_its_own_failed_attempt_again() -> None:
    world = World(ladder, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    first = at(lab.next_work())
    lab.campaign.record(failed(world.run(first), "crash"), 0.0)
    assert at(lab.next_work()).start_id == first.start_id


def test_a_station_that_lets_a_place_lie_is_not_the_only_one_that_may_fill_it() -> None:
    world = World(ladder, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    lab.campaign.station("station-2", "here", 0.0)
    first = at(lab.next_work("station-1"))
    lab.campaign.record(failed(world.run(first, "station-1"), "reset"), 0.0)
    again = at(lab.next_work("station-2"))
    assert again.start_id == first.start_id
    lab.campaign.expire(again.assignment_id, 1.0)
    assert at(lab.next_work("station-1")).start_id == first.start_id


def test_lost_attempts_end_no_candidate() -> None:
    world = World(ladder, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    screened = at(until(lab, world, "screen"))
    for _ in range(3 * MOST_REFILLS):
        lab.campaign.expire(screened.assignment_id, 0.0)
        screened = at(lab.next_work())
    ended = [event for event in lab.campaign.drain() if isinstance(event, DecisionMade)]
    assert screened.candidate_id not in {event.candidate_id for event in ended}


def test_a_pair_that_its_station_does_not_deliver_is_made_anew_by_another_that_asks() -> None:
    world = World(ladder, 2, invalid=0.0)
    lab = Lab(world, 2)
    lab.campaign.station("station-2", "here", 0.0)
    pair = until(lab, world, "gate")
    done, lost = pair.attempts
    lab.campaign.record(world.run(done), 0.0)
    lab.campaign.expire(lost.assignment_id, 1.0)  # while its station is still here
    anew = lab.next_work("station-2")
    assert anew is not None
    assert [item.pair_id for item in anew.attempts] == [done.pair_id] * 2


def test_a_silent_station_does_not_let_one_candidate_use_up_the_gates_starts() -> None:
    book, gate = gate_and_book(candidate(1))
    asked = 0
    for _ in range(200):
        slots = gate.next_pair(10, 4)
        asked += bool(slots)
        if not slots:
            break
        if asked > 1:  # the first pair never comes
            for slot in slots:
                slot.result = WON
        gate.judge(book.testing[0])
    assert asked <= MOST_BEHIND * 4


def test_a_candidate_at_the_gate_does_not_wait_for_screens_that_nobody_asks_for() -> None:
    weak, screened = candidate(1), candidate(2)
    weak.lead, screened.state = 1.0, "screen"
    book, gate = gate_and_book(weak, screened)
    assert not gate.next_pair(0, 4)
    book.testing.remove(screened)
    assert gate.next_pair(0, 4)


def test_only_a_gain_fills_the_purse() -> None:
    for not_worse, left in ((True, PURSE), (False, 2 * PURSE)):
        _, gate = gate_and_book(candidate(1, not_worse))
        gate.accepted(gate._book.testing[0])
        assert gate._purse == Purse(left, 0)


def test_measurements_have_starts_of_their_own_and_a_simplification_gets_no_second_draw() -> None:
    book = Book(SEED)
    book.incumbent = candidate(1)
    measuring = Measuring(book, Starts.load("push_t"), target=46, heldout=50, audit=0)
    used: Counter[str] = Counter()
    for number in range(1, 5):
        book.incumbent = candidate(number)
        book.incumbent.results += [WON] * 40
        assert measuring.due
        while (slot := measuring.next()) is not None:
            used[slot.start.start_id] += 1
            slot.result = WON
        assert measuring.current is not None
        measuring.close(measuring.current, 0.0)
        assert not measuring.due  # once each
    assert len(used) == 200
    assert set(used.values()) == {1}
    simpler = candidate(5, not_worse=True)
    simpler.results += [WON] * 40
    measuring.replaced(book.incumbent, simpler)
    book.incumbent = simpler
    assert not measuring.due


def test_what_a_station_measured_is_measured_anew_once_it_is_not_believed() -> None:
    measuring = about_to_measure()
    slots = [slot for _ in range(9) if (slot := measuring.next()) is not None]
    for number, slot in enumerate(slots):
        slot.edge, slot.invalid = f"station-{number % 3}", number < 6
        slot.result = Result(not slot.invalid, 0.5, 20.0)
    measured = measuring.current
    assert measured is not None
    assert measured.invalid == 6
    assert measured.reopen("station-0") == [slots[0], slots[3], slots[6]]
    assert (measured.counts, measured.invalid) == ((2, 6), 4)


@pytest.mark.parametrize(("blind", "again"), [("station-0", True), ("station-2", False)])
def test_a_policy_that_missed_the_target_on_a_station_that_is_found_out_later_is_measured_once_more(
    blind: str, again: bool
) -> None:
    measuring = about_to_measure()
    first = [slot for _ in range(15) if (slot := measuring.next()) is not None]
    for number, slot in enumerate(first):
        slot.edge, slot.result = f"station-{number % 3}", Result(number % 3 != 0, 0.5, 20.0)
    missed = measuring.judge()
    assert missed is not None
    measuring.close(missed, 0.0)
    assert not measuring.due
    assert measuring.doubt(blind) == []
    assert measuring.due is again
    second = [slot for _ in range(15) if (slot := measuring.next()) is not None]
    assert not {slot.start.start_id for slot in second} & {slot.start.start_id for slot in first}
    if again:  # once only
        for slot in second:
            slot.edge, slot.result = blind, Result(False, 0.5, 20.0)
        missed = measuring.judge()
        assert missed is not None
        measuring.close(missed, 1.0)
        assert measuring.doubt(blind) == []
        assert not measuring.due


def test_a_policy_that_missed_the_target_without_the_station_that_is_found_out_is_not_measured_again() -> None:
    measuring = about_to_measure()
    for number in range(6):
        slot = measuring.next()
        assert slot is not None
        slot.edge, slot.result = f"station-{number > 0}", Result(False, 0.5, 20.0)
    missed = measuring.judge()
    assert missed is not None
    measuring.close(missed, 0.0)
    assert measuring.doubt("station-False") == []
    assert not measuring.due


def test_a_measurement_that_cannot_be_made_counts_failures_and_ends() -> None:
    def perfect(params: object) -> float:
        return 1.0

    world = World(perfect, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    edges = [f"station-{k}" for k in range(1, 5)]
    for edge in edges:
        lab.campaign.station(edge, "here", 0.0)
    lab.campaign._measuring._promising = lambda: True  # type: ignore[method-assign]
    measured: list[HeldoutMeasured] = []
    for turn in range(1_200):
        edge = edges[turn % 4]
        for attempt in (lab.next_work(edge, float(turn)) or Work(())).attempts:
            trial = world.run(attempt, edge)
            broken = attempt.purpose == "heldout" and attempt.start_id == "heldout-0003"
            lab.campaign.record(failed(trial, "reset") if broken else trial, float(turn))
        measured += [event for event in lab.campaign.drain() if isinstance(event, HeldoutMeasured)]
        if measured:
            break
    assert [(event.successes, event.trials, event.invalid) for event in measured] == [(49, 50, 1)]


def test_late_attempts_of_the_incumbent_and_of_candidates_that_are_shown_teach_something() -> None:
    world = World(ladder, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    screened = until(lab, world, "screen")
    candidate_id = screened.attempts[0].candidate_id
    tested = lab.campaign._book.candidates[candidate_id]
    lab.campaign._end(tested, "reject", "screen", Stage(Call.REJECT, "for this test", 0, 0, 0), 0.0)
    lab.campaign.drain()
    lab.campaign.record(world.run(screened.attempts[0]), 1.0)
    assert [type(event) for event in lab.campaign.drain()] == [TrialUsed]
    context = lab.campaign._book.context("offline")
    assert sum(len(item.dev) for item in context.standings if item.candidate_id == candidate_id) == 1


def test_the_incumbents_play_adds_to_its_baseline() -> None:
    world = World(ladder, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    before = None
    for _ in range(40):  # no researcher is asked, so play is all that is left
        work = lab.campaign.next_work("station-1", 0.0)
        assert work is not None
        if work.attempts[0].purpose == "play":
            before = lab.campaign.snapshot().trials if before is None else before
        lab.campaign.record(world.run(work.attempts[0]), 0.0)
    assert before == 8
    assert lab.campaign.snapshot().trials > before


def test_forgotten_attempts_fill_no_place() -> None:
    slots = Slots("r")
    one = candidate(1)
    slot = Slot(one, STARTS.dev[0], "screen", 1)
    (attempt,) = slots.hand_out([slot], "station-1").attempts
    slots.forget([slot])
    trial = World(ladder, 1, invalid=0.0)
    trial.workshop.sources["b"] = trial.workshop.seed()
    came = trial.run(attempt, "station-1")
    assert slots.answered(came) is None
    late = slots.late(came)
    assert late is not None
    assert late is not slot
    assert slots.late(came) is None


def candidate(number: int, not_worse: bool = False) -> Candidate:
    proposal = Proposal("switch", {}, "s", "f", not_worse=not_worse)
    made = Candidate(number, proposal, "r", Source({}, {}, str(number)), "b", None, Urgency.OFFLINE)
    made.state, made.lead = "gate", 4.0
    return made


def gate_and_book(*testing: Candidate) -> tuple[Book, Gate]:
    book = Book(SEED)
    book.incumbent = candidate(0)
    book.testing = list(testing)
    return book, Gate(book, Starts.load("push_t"))


def about_to_measure() -> Measuring:
    """Return a measurement that may begin, of a policy that has only succeeded."""
    book = Book(SEED)
    book.incumbent = candidate(1)
    book.incumbent.results += [WON] * 40
    return Measuring(book, STARTS, target=46, heldout=50, audit=0)
