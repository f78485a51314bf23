"""Laws of the campaign, tried on a made-up fleet whose true success rates are known."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import policies
from coordinator.campaign import Attempt, Campaign
from coordinator.evolution.records import CandidateMade, DecisionMade, Event, HeldoutMeasured, HypothesisMade, TrialUsed
from coordinator.evolution.starts import Starts
from coordinator.research.offline import OfflineResearcher, canonical
from edge.records import Outcome, Trial
from policies.interface import Value
from policies.space import load_space

SPACE = load_space(Path(policies.__file__).parent / "push_t")
STARTS = Starts.load("push_t")
IDEAS = [idea.name for idea in SPACE.ideas]
STATIONS = 4

Skill = Callable[[Mapping[str, Value]], float]  # how good a configuration is, 0 to 1


def ladder(params: Mapping[str, Value]) -> float:
    """Four of the declared ideas matter, and one parameter."""
    skill = 0.25 * sum(bool(params[name]) for name in IDEAS[:3])
    return skill + (0.24 if float(params["push_speed_m_s"]) <= 0.13 else 0.0)


def nothing_matters(params: Mapping[str, Value]) -> float:
    return 0.5


class Fleet:
    """Stations that answer from a known model, some attempts invalid, in an order of their own."""

    def __init__(self, skill: Skill, seed: int, invalid: float = 0.02) -> None:
        self.rng = np.random.default_rng(seed)
        self.params: dict[str, dict[str, Value]] = {}
        self.sequence = 0
        self.skill, self.invalid = skill, invalid

    def publish(self, params: Mapping[str, Value], provenance: Mapping[str, object], parent: str | None) -> str:
        bundle = hashlib.sha256(canonical(params).encode()).hexdigest()
        self.params[bundle] = dict(params)
        return bundle

    def run(self, attempt: Attempt) -> Trial:
        self.sequence += 1
        skill = self.skill(self.params[attempt.bundle])
        hard = np.random.default_rng([attempt.seed, 7]).uniform()  # the start's own difficulty, shared by a pair
        success = bool(self.rng.uniform() < skill and (skill > 0.9 or hard < skill + 0.1))
        progress = 1.0 if success else float(np.clip(0.8 * skill + self.rng.normal(0.0, 0.15), 0.0, 0.99))
        outcome = Outcome.SUCCESS if success else Outcome.FAILURE
        if self.rng.uniform() < self.invalid:
            outcome = Outcome.INVALID
        return Trial(
            edge="station-1", epoch="e", sequence=self.sequence, assignment_id=attempt.assignment_id, lease_id="l",
            task="push_t", bundle=attempt.bundle, start_id=attempt.start_id, purpose=attempt.purpose,
            seed=attempt.seed, outcome=outcome, cause="" if success else "near", detail="", progress=progress,
            measures={}, achieved_start={}, reset_s=12.0, reset_tries=1, trial_s=25.0, policy_steps=700,
            wall_reset_s=0.4, wall_trial_s=0.7, started_unix_s=0.0, ended_unix_s=0.0, station_hash="",
            calibration_hash="", software="", recording="",
        )  # fmt: skip


def begin(fleet: Fleet, seed: int) -> Campaign:
    return Campaign(SPACE, STARTS, OfflineResearcher(SPACE, seed), fleet.publish, seed, stations=STATIONS)


def play(campaign: Campaign, fleet: Fleet, trials: int, lost: float = 0.0) -> list[Event]:
    """Run until the campaign has finished or so many trials are done; a few stay out at any time, some are lost."""
    events: list[Event] = []
    out: deque[Attempt] = deque()
    now_s = 0.0
    while campaign.finished is None and fleet.sequence < trials:
        while len(out) < 2 * STATIONS:
            work = campaign.next_work("station-1", now_s)
            assert work is not None
            out.extend(work.attempts)
        chosen = int(fleet.rng.integers(0, len(out)))
        attempt = out[chosen]
        del out[chosen]
        now_s += 0.3
        if fleet.rng.uniform() < lost:
            campaign.expire(attempt.assignment_id, now_s)
        else:
            campaign.record(fleet.run(attempt), now_s)
        events += campaign.drain()
    return events


def test_a_ladder_of_ideas_is_climbed_to_the_target() -> None:
    needed, first = [], []
    for seed in range(10):
        fleet = Fleet(ladder, seed)
        campaign = begin(fleet, seed)
        events = play(campaign, fleet, 1500)
        if campaign.finished == "target":
            needed.append(fleet.sequence)
        accepts = [e for e in events if isinstance(e, DecisionMade) and e.verdict == "accept" and e.stage == "gate"]
        first.append(accepts[0].trials_so_far)
    print(f"trials to the target {sorted(needed)}, to the first gain {sorted(first)}")
    assert len(needed) >= 9
    assert sorted(first)[4] <= 150


def test_where_nothing_matters_almost_nothing_is_accepted() -> None:
    accepted = tested = 0
    for seed in range(10):
        fleet = Fleet(nothing_matters, 100 + seed)
        campaign = begin(fleet, seed)
        events = play(campaign, fleet, 600)
        accepted += sum(isinstance(e, DecisionMade) and e.stage == "gate" and e.verdict == "accept" for e in events)
        tested += sum(isinstance(e, DecisionMade) and e.stage == "gate" for e in events)
    assert tested >= 40
    assert accepted <= 0.1 * tested


def test_the_same_calls_give_the_same_events() -> None:
    told = []
    for _ in range(2):
        fleet = Fleet(ladder, 3)
        told.append(play(begin(fleet, 3), fleet, 300))
    assert told[0] == told[1]


def bank_attempts(campaign: Campaign, fleet: Fleet, trials: int, forgetful: bool) -> tuple[list[Attempt], list[Event]]:
    """Run so many trials, one by one, and return what the bank asked; `forgetful`: nobody masters a state of it."""
    asked: list[Attempt] = []
    events: list[Event] = []
    while campaign.finished is None and fleet.sequence < trials:
        work = campaign.next_work("station-1", 0.0)
        assert work is not None
        for attempt in work.attempts:
            trial = fleet.run(attempt)
            if attempt.purpose == "bank":
                asked.append(attempt)
                trial = replace(trial, outcome=Outcome.FAILURE) if forgetful else trial
            campaign.record(trial, 0.0)
        events += campaign.drain()
    return asked, events


def test_what_passes_the_gate_is_tried_on_states_that_an_incumbent_failed_and_a_later_one_mastered() -> None:
    fleet = Fleet(ladder, 3, invalid=0.0)
    campaign = begin(fleet, 3)
    asked, events = bank_attempts(campaign, fleet, 1500, forgetful=False)
    accepts = [e for e in events if isinstance(e, DecisionMade) and e.verdict == "accept"]
    assert {attempt.start_id.partition("-")[0] for attempt in asked} == {"gate"}
    assert asked[0].candidate_id > accepts[1].candidate_id  # the first gain finds the bank empty
    assert campaign.finished == "target"


def test_a_gain_that_undoes_what_was_learnt_is_turned_down() -> None:
    fleet = Fleet(ladder, 3, invalid=0.0)
    asked, events = bank_attempts(begin(fleet, 3), fleet, 900, forgetful=True)
    told = [e for e in events if isinstance(e, DecisionMade) and "once-failed states 0/" in e.reason]
    assert asked
    assert {(e.verdict, e.stage) for e in told} == {("reject", "gate")}


def test_lost_attempts_are_asked_for_again_and_change_nothing_else() -> None:
    fleet = Fleet(ladder, 5, invalid=0.1)
    campaign = begin(fleet, 5)
    play(campaign, fleet, 1500, lost=0.1)
    assert campaign.finished == "target"


def test_a_trial_counts_once_and_a_stray_one_never() -> None:
    fleet = Fleet(ladder, 1, invalid=0.0)
    campaign = begin(fleet, 1)
    work = campaign.next_work("station-1", 0.0)
    assert work is not None
    trial = fleet.run(work.attempts[0])
    for _ in range(3):
        campaign.record(trial, 1.0)
    campaign.record(replace(trial, sequence=99, assignment_id="nobody"), 1.0)
    assert campaign.snapshot().trials == 1
    assert sum(isinstance(event, TrialUsed) for event in campaign.drain()) == 1


def test_a_pair_goes_to_one_station_and_gate_starts_are_used_once() -> None:
    fleet = Fleet(ladder, 2)
    campaign = begin(fleet, 2)
    pairs: dict[str, set[int]] = {}
    starts: list[str] = []
    for _ in range(400):
        work = campaign.next_work("station-1", 0.0)
        if work is None:
            break
        for attempt in work.attempts:
            if attempt.purpose == "gate" and attempt.pair_id is not None and len(work.attempts) == 2:
                pairs.setdefault(attempt.pair_id, set()).add(attempt.candidate_id)
                starts.append(attempt.start_id)
            campaign.record(fleet.run(attempt), 0.0)
    assert pairs
    assert all(len(candidates) == 2 for candidates in pairs.values())
    assert len(set(starts)) == len(pairs)


def test_heldout_starts_are_for_measuring_only() -> None:
    fleet = Fleet(ladder, 4)
    campaign = begin(fleet, 4)
    events = play(campaign, fleet, 1500)
    assert campaign.finished == "target"
    last = [event for event in events if isinstance(event, HeldoutMeasured)][-1]
    assert last.complete
    assert last.trials == 50
    assert last.successes >= 46
    heldout = {tuple(start.coordinates.values()) for start in STARTS.heldout}
    used_for_choosing = {tuple(start.coordinates.values()) for start in (*STARTS.dev, *STARTS.gate)}
    assert not heldout & used_for_choosing


def test_every_candidate_is_published_and_valid_and_none_is_tested_for_ever() -> None:
    fleet = Fleet(ladder, 6)
    events = play(begin(fleet, 6), fleet, 500)
    made = [event for event in events if isinstance(event, CandidateMade)]
    assert max(Counter(event.bundle for event in made).values()) <= 3
    for params in fleet.params.values():
        SPACE.validate(params)


def test_nothing_is_decided_once_the_campaign_has_finished() -> None:
    fleet = Fleet(ladder, 4)
    campaign = begin(fleet, 4)
    out: list[Attempt] = []
    while campaign.finished is None:
        while len(out) < 3 * STATIONS:
            work = campaign.next_work("station-1", 0.0)
            assert work is not None
            out.extend(work.attempts)
        campaign.record(fleet.run(out.pop(0)), 0.0)
    campaign.drain()
    assert out
    for attempt in out:
        campaign.record(fleet.run(attempt), 0.0)
    assert campaign.drain() == []


def test_a_trial_of_another_policy_or_start_fills_no_place() -> None:
    fleet = Fleet(ladder, 1, invalid=0.0)
    campaign = begin(fleet, 1)
    work = campaign.next_work("station-1", 0.0)
    assert work is not None
    trial = fleet.run(work.attempts[0])
    campaign.record(replace(trial, sequence=98, bundle="another"), 1.0)
    campaign.record(replace(trial, sequence=99, start_id="another"), 1.0)
    assert campaign.snapshot().trials == 0
    campaign.record(trial, 1.0)
    assert campaign.snapshot().trials == 1


def test_a_candidate_that_cannot_be_judged_is_given_up() -> None:
    fleet = Fleet(ladder, 1, invalid=0.0)
    campaign = begin(fleet, 1)
    events: list[Event] = []
    for _ in range(300):
        work = campaign.next_work("station-1", 0.0)
        assert work is not None
        for attempt in work.attempts:
            trial = fleet.run(attempt)
            campaign.record(trial if attempt.candidate_id == 1 else replace(trial, outcome=Outcome.INVALID), 0.0)
        events += campaign.drain()
    given_up = [event for event in events if isinstance(event, DecisionMade) and event.candidate_id > 1]
    assert len(given_up) >= 10
    assert {(event.verdict, event.stage) for event in given_up} == {("inconclusive", "screen")}
    assert "could not be judged" in given_up[0].reason


def test_every_part_of_every_change_changes_its_parent() -> None:
    fleet = Fleet(ladder, 7)
    events = play(begin(fleet, 7), fleet, 500)
    changes = {event.hypothesis_id: event.changes for event in events if isinstance(event, HypothesisMade)}
    made = {event.candidate_id: event for event in events if isinstance(event, CandidateMade)}
    tested = [event for event in made.values() if event.parent_candidate_id is not None]
    assert len({event.parent_candidate_id for event in tested}) >= 2
    for event in tested:
        parent = fleet.params[made[event.parent_candidate_id].bundle]
        unchanged = [name for name, value in changes[event.hypothesis_id].items() if parent[name] == value]
        assert unchanged == []


@pytest.mark.parametrize("split", ["dev", "gate", "heldout", "audit"])
def test_starts_are_distinct(split: str) -> None:
    places = [tuple(start.coordinates.values()) for start in getattr(STARTS, split)]
    assert len(set(places)) == len(places)
