"""Laws of the campaign, tried on a made-up fleet whose true success rates are known."""

from collections import Counter, deque
from dataclasses import replace

import pytest

from coordinator.campaign import Attempt
from coordinator.evolution.records import CandidateMade, DecisionMade, Event, HeldoutMeasured, HypothesisMade, TrialUsed
from edge.records import Outcome
from tests.harness.ideal_world import SPACE, STARTS, Lab, World, ladder, nothing_matters

STATIONS = 4


def play(lab: Lab, fleet: World, trials: int, lost: float = 0.0) -> list[Event]:
    """Run until the campaign has finished or so many trials are done; a few stay out at any time, some are lost."""
    events: list[Event] = []
    out: deque[Attempt] = deque()
    now_s = 0.0
    while lab.campaign.finished is None and fleet.sequence < trials:
        while len(out) < 2 * STATIONS:
            work = lab.next_work("station-1", now_s)
            assert work is not None
            out.extend(work.attempts)
        chosen = int(fleet.rng.integers(0, len(out)))
        attempt = out[chosen]
        del out[chosen]
        now_s += 0.3
        if fleet.rng.uniform() < lost:
            lab.campaign.expire(attempt.assignment_id, now_s)
        else:
            lab.campaign.record(fleet.run(attempt), now_s)
        events += lab.campaign.drain()
    return events


def test_a_ladder_of_ideas_is_climbed_to_the_target() -> None:
    needed, first = [], []
    for seed in range(10):
        fleet = World(ladder, seed)
        lab = Lab(fleet, seed)
        events = play(lab, fleet, 1500)
        if lab.campaign.finished == "target":
            needed.append(fleet.sequence)
        accepts = [e for e in events if isinstance(e, DecisionMade) and e.verdict == "accept" and e.stage == "gate"]
        first.append(accepts[0].trials_so_far)
    print(f"trials to the target {sorted(needed)}, to the first gain {sorted(first)}")
    assert len(needed) >= 9
    assert sorted(first)[4] <= 150


def test_where_nothing_matters_almost_nothing_is_accepted() -> None:
    accepted = tested = 0
    for seed in range(10):
        fleet = World(nothing_matters, 100 + seed)
        lab = Lab(fleet, seed)
        events = play(lab, fleet, 600)
        accepted += sum(isinstance(e, DecisionMade) and e.stage == "gate" and e.verdict == "accept" for e in events)
        tested += sum(isinstance(e, DecisionMade) and e.stage == "gate" for e in events)
    assert tested >= 40
    assert accepted <= 0.1 * tested


def test_the_same_calls_give_the_same_events() -> None:
    told = []
    for _ in range(2):
        fleet = World(ladder, 3)
        told.append(play(Lab(fleet, 3), fleet, 300))
    assert told[0] == told[1]


def bank_attempts(lab: Lab, fleet: World, trials: int, forgetful: bool) -> tuple[list[Attempt], list[Event]]:
    """Run so many trials, one by one, and return what the bank asked; `forgetful`: nobody masters a state of it."""
    asked: list[Attempt] = []
    events: list[Event] = []
    while lab.campaign.finished is None and fleet.sequence < trials:
        work = lab.next_work("station-1", 0.0)
        assert work is not None
        for attempt in work.attempts:
            trial = fleet.run(attempt)
            if attempt.purpose == "bank":
                asked.append(attempt)
                trial = replace(trial, outcome=Outcome.FAILURE) if forgetful else trial
            lab.campaign.record(trial, 0.0)
        events += lab.campaign.drain()
    return asked, events


def test_what_passes_the_gate_is_tried_on_states_that_an_incumbent_failed_and_a_later_one_mastered() -> None:
    fleet = World(ladder, 3, invalid=0.0)
    lab = Lab(fleet, 3)
    asked, events = bank_attempts(lab, fleet, 1500, forgetful=False)
    accepts = [e for e in events if isinstance(e, DecisionMade) and e.verdict == "accept"]
    assert {attempt.start_id.partition("-")[0] for attempt in asked} == {"gate"}
    assert asked[0].candidate_id > accepts[1].candidate_id  # the first gain finds the bank empty
    assert lab.campaign.finished == "target"


def test_a_gain_that_undoes_what_was_learnt_is_turned_down() -> None:
    fleet = World(ladder, 3, invalid=0.0)
    asked, events = bank_attempts(Lab(fleet, 3), fleet, 900, forgetful=True)
    told = [e for e in events if isinstance(e, DecisionMade) and "once-failed states 0/" in e.reason]
    assert asked
    assert {(e.verdict, e.stage) for e in told} == {("reject", "gate")}


def test_lost_attempts_are_asked_for_again_and_change_nothing_else() -> None:
    fleet = World(ladder, 5, invalid=0.1)
    lab = Lab(fleet, 5)
    play(lab, fleet, 1500, lost=0.1)
    assert lab.campaign.finished == "target"


def test_a_trial_counts_once_and_a_stray_one_never() -> None:
    fleet = World(ladder, 1, invalid=0.0)
    lab = Lab(fleet, 1)
    work = lab.next_work("station-1", 0.0)
    assert work is not None
    trial = fleet.run(work.attempts[0])
    for _ in range(3):
        lab.campaign.record(trial, 1.0)
    lab.campaign.record(replace(trial, sequence=99, assignment_id="nobody"), 1.0)
    assert lab.campaign.snapshot().trials == 1
    assert sum(isinstance(event, TrialUsed) for event in lab.campaign.drain()) == 1


def test_a_pair_goes_to_one_station_and_gate_starts_are_used_once() -> None:
    fleet = World(ladder, 2)
    lab = Lab(fleet, 2)
    pairs: dict[str, set[int]] = {}
    starts: list[str] = []
    for _ in range(400):
        work = lab.next_work("station-1", 0.0)
        if work is None:
            break
        for attempt in work.attempts:
            if attempt.purpose == "gate" and attempt.pair_id is not None and len(work.attempts) == 2:
                pairs.setdefault(attempt.pair_id, set()).add(attempt.candidate_id)
                starts.append(attempt.start_id)
            lab.campaign.record(fleet.run(attempt), 0.0)
    assert pairs
    assert all(len(candidates) == 2 for candidates in pairs.values())
    assert len(set(starts)) == len(pairs)


def test_heldout_starts_are_for_measuring_only() -> None:
    fleet = World(ladder, 4)
    lab = Lab(fleet, 4)
    events = play(lab, fleet, 1500)
    assert lab.campaign.finished == "target"
    last = [event for event in events if isinstance(event, HeldoutMeasured)][-1]
    assert last.complete
    assert last.trials == 50
    assert last.successes >= 46
    heldout = {tuple(start.coordinates.values()) for start in STARTS.heldout}
    used_for_choosing = {tuple(start.coordinates.values()) for start in (*STARTS.dev, *STARTS.gate)}
    assert not heldout & used_for_choosing


def test_every_candidate_is_published_and_valid_and_none_is_tested_for_ever() -> None:
    fleet = World(ladder, 6)
    events = play(Lab(fleet, 6), fleet, 500)
    made = [event for event in events if isinstance(event, CandidateMade)]
    assert max(Counter(event.bundle for event in made).values()) <= 3
    for source in fleet.workshop.sources.values():
        SPACE.validate(source.params)


def test_nothing_is_decided_once_the_campaign_has_finished() -> None:
    fleet = World(ladder, 4)
    lab = Lab(fleet, 4)
    out: list[Attempt] = []
    while lab.campaign.finished is None:
        while len(out) < 3 * STATIONS:
            work = lab.next_work("station-1", 0.0)
            assert work is not None
            out.extend(work.attempts)
        lab.campaign.record(fleet.run(out.pop(0)), 0.0)
    lab.campaign.drain()
    assert out
    for attempt in out:
        lab.campaign.record(fleet.run(attempt), 0.0)
    assert lab.campaign.drain() == []


def test_a_trial_of_another_policy_or_start_fills_no_place() -> None:
    fleet = World(ladder, 1, invalid=0.0)
    lab = Lab(fleet, 1)
    work = lab.next_work("station-1", 0.0)
    assert work is not None
    trial = fleet.run(work.attempts[0])
    lab.campaign.record(replace(trial, sequence=98, bundle="another"), 1.0)
    lab.campaign.record(replace(trial, sequence=99, start_id="another"), 1.0)
    assert lab.campaign.snapshot().trials == 0
    lab.campaign.record(trial, 1.0)
    assert lab.campaign.snapshot().trials == 1


def test_a_candidate_whose_attempts_are_always_cut_short_is_given_up() -> None:
    fleet = World(ladder, 1, invalid=0.0)
    lab = Lab(fleet, 1)
    events: list[Event] = []
    for _ in range(300):
        work = lab.next_work("station-1", 0.0)
        assert work is not None
        for attempt in work.attempts:
            trial = fleet.run(attempt)
            crashed = replace(trial, outcome=Outcome.INVALID, cause="crash")
            lab.campaign.record(trial if attempt.candidate_id == 1 else crashed, 0.0)
        events += lab.campaign.drain()
    given_up = [event for event in events if isinstance(event, DecisionMade) and event.candidate_id > 1]
    assert len(given_up) >= 10
    assert {(event.verdict, event.stage) for event in given_up} == {("inconclusive", "screen")}
    assert "could not be made (crash)" in given_up[0].reason


def test_every_part_of_every_change_changes_its_parent() -> None:
    fleet = World(ladder, 7)
    events = play(Lab(fleet, 7), fleet, 500)
    changes = {event.hypothesis_id: event.changes for event in events if isinstance(event, HypothesisMade)}
    made = {event.candidate_id: event for event in events if isinstance(event, CandidateMade)}
    tested = [event for event in made.values() if event.parent_candidate_id is not None]
    assert len({event.parent_candidate_id for event in tested}) >= 2
    for event in tested:
        assert event.parent_candidate_id is not None
        parent = fleet.workshop.sources[made[event.parent_candidate_id].bundle].params
        unchanged = [name for name, value in changes[event.hypothesis_id].items() if parent[name] == value]
        assert unchanged == []


@pytest.mark.parametrize("split", ["dev", "gate", "heldout", "audit"])
def test_starts_are_distinct(split: str) -> None:
    places = [tuple(start.coordinates.values()) for start in getattr(STARTS, split)]
    assert len(set(places)) == len(places)
