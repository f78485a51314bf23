"""Laws of what comes in and goes on beside the search: proposals, merges, plays, audits, and stations that fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from coordinator.campaign import Attempt, Campaign
from coordinator.evolution.campaign_alpha import MOST
from coordinator.evolution.ceiling import WORSE
from coordinator.evolution.evidence import GATE_CAP, Call, Result
from coordinator.evolution.ideas import Play, Proposal, ResearchContext
from coordinator.evolution.pairs import Paired, judge_simpler
from coordinator.evolution.records import (
    AuditMeasured,
    CandidateMade,
    CandidateMerged,
    DecisionMade,
    Event,
    HypothesisMade,
    PlayMade,
    ProposalTurnedDown,
    StationTold,
)
from coordinator.evolution.regression import SAFETY
from coordinator.scheduling.wear import WearBudget
from edge.records import Outcome
from tests.harness.ideal_world import IDEAS, STARTS, Lab, MemoryWorkshop, World, ladder

SEED = 11


def switched(*names: str, **more: object) -> Proposal:
    return Proposal("switch", dict.fromkeys(names, True), f"{' and '.join(names)} on", "no", **more)  # type: ignore[arg-type]


def told(campaign: Campaign, kind: type) -> list[Event]:
    return [event for event in campaign.drain() if isinstance(event, kind)]


def begun(world: World) -> Campaign:
    """Return a campaign whose baseline is there."""
    campaign = Campaign(world.workshop, STARTS, SEED)
    for _ in range(8):
        run_one(campaign, world)
    return campaign


def run_one(campaign: Campaign, world: World, edge: str = "station-1") -> tuple[Attempt, ...]:
    work = campaign.next_work(edge, 0.0)
    assert work is not None
    for attempt in work.attempts:
        campaign.record(world.run(attempt, edge), 0.0)
    return work.attempts


def test_nothing_is_wanted_before_the_baseline_is_out_nor_while_a_candidate_waits() -> None:
    world = World(ladder, SEED, invalid=0.0)
    campaign = Campaign(world.workshop, STARTS, SEED)
    assert campaign.wants(0.0) is None
    campaign = begun(world)
    assert isinstance(campaign.wants(0.0), ResearchContext)
    assert campaign.propose(switched(IDEAS[0]), "offline", 0.0) == ""
    assert campaign.wants(0.0) is None


def test_a_proposal_that_was_tried_or_cannot_be_is_told_with_its_reason_and_never_published() -> None:
    world = World(ladder, SEED, invalid=0.0)
    campaign = begun(world)
    campaign.propose(switched(IDEAS[0]), "offline", 0.0)
    published = list(world.workshop.published)
    campaign.drain()
    for proposal in (switched(IDEAS[0]), switched(), switched("no_such_idea"), switched(IDEAS[1], parents=(99,))):
        assert campaign.propose(proposal, "agent", 1.0)
    events = campaign.drain()
    reasons = [event.reason for event in events if isinstance(event, ProposalTurnedDown)]
    assert len(reasons) == len(events) == 4
    for words, reason in zip(
        ["in test as candidate 2", "the incumbent", "no_such_idea", "no candidate 99"], reasons, strict=True
    ):
        assert words in reason
    assert world.workshop.published == published
    context = campaign.wants(2.0, "agent")
    assert context is None or context.proposals == 4


def test_a_merge_takes_over_what_its_parents_changed_and_no_score() -> None:
    world = World(ladder, SEED, invalid=0.0)
    campaign = begun(world)
    for name in IDEAS[:2]:
        campaign.propose(switched(name), "offline", 0.0)
    campaign.drain()
    merge = Proposal("crossover", {}, "both", "no", parents=(2, 3))
    assert campaign.propose(merge, "offline", 1.0) == ""
    events = campaign.drain()
    made = next(event for event in events if isinstance(event, CandidateMade))
    assert {event.merged_candidate_id for event in events if isinstance(event, CandidateMerged)} == {2, 3}
    assert next(event.changes for event in events if isinstance(event, HypothesisMade)) == dict.fromkeys(
        IDEAS[:2], True
    )
    assert all(world.workshop.sources[made.bundle].params[name] is True for name in IDEAS[:2])
    assert made.state == "screen"
    clash = Proposal("crossover", {IDEAS[2]: True}, "and more", "no", parents=(2,))
    assert campaign.propose(clash, "offline", 1.0) == ""


def test_a_merge_of_what_two_want_otherwise_is_what_it_says_itself() -> None:
    world = World(ladder, SEED, invalid=0.0)
    campaign = begun(world)
    for speed in (0.08, 0.12):
        campaign.propose(Proposal("parameter", {"push_speed_m_s": speed}, f"{speed}", "no"), "offline", 0.0)
    campaign.drain()
    both = Proposal("merge", {"push_speed_m_s": 0.12, IDEAS[0]: True}, "both", "no", parents=(2, 3))
    assert "changes what another parent changes" in campaign.propose(replace(both, changes={}), "offline", 1.0)
    assert campaign.propose(both, "offline", 1.0) == ""
    [made] = told(campaign, CandidateMade)
    assert isinstance(made, CandidateMade)
    params = world.workshop.sources[made.bundle].params
    assert (params["push_speed_m_s"], params[IDEAS[0]]) == (0.12, True)


def test_a_candidate_is_screened_longer_where_the_incumbent_hardly_fails() -> None:
    world = World(lambda params: 1.0, SEED, invalid=0.0)
    campaign = begun(world)
    campaign.propose(switched(IDEAS[0]), "offline", 0.0)
    starts: list[str] = []
    while campaign._book.testing[0].state == "screen":
        starts += [item.start_id for item in run_one(campaign, world) if item.purpose == "screen"]
    assert len(starts) == len(set(starts)) == 24


def test_a_play_runs_what_it_says_and_decides_nothing() -> None:
    world = World(ladder, SEED, invalid=0.0)
    campaign = begun(world)
    campaign.drain()
    assert campaign.wants_play(0.0) is not None
    assert campaign.play(Play({"moves.json": b"[]"}, {}, 3), "offline", 0.0) == ""
    assert campaign.wants_play(0.0) is None
    [made] = told(campaign, PlayMade)
    assert isinstance(made, PlayMade)
    assert made.files == ("moves.json",)
    before = campaign.snapshot()
    seen: Counter[str] = Counter()
    while campaign.wants_play(0.0) is None or seen["play"] < 3:
        work = campaign.next_work("station-1", 0.0)
        assert work is not None
        for attempt in work.attempts:
            seen["play"] += attempt.bundle == made.bundle
            campaign.record(replace(world.run(attempt), notes={"policy": "pushed"}), 0.0)
    assert seen["play"] == 3
    context = campaign.wants_play(0.0)
    assert context is not None
    assert [item.notes for item in context.played][:3] == ["pushed"] * 3
    assert campaign.snapshot().trials == before.trials


def test_an_agent_s_candidate_is_screened_before_the_offline_researcher_s() -> None:
    world = World(ladder, SEED, invalid=0.0)
    campaign = begun(world)
    campaign.propose(switched(IDEAS[0]), "offline", 0.0)
    campaign.propose(switched(IDEAS[1]), "an agent", 0.0)
    assert [attempt.candidate_id for attempt in run_one(campaign, world)] == [3]


def test_a_campaign_ends_after_its_audit_and_audit_starts_choose_nothing() -> None:
    world = World(ladder, 4, invalid=0.0)
    lab = Lab(world, 4, audit=12)
    events: list[Event] = []
    used: Counter[str] = Counter()
    while lab.campaign.finished is None:
        work = lab.next_work()
        assert work is not None
        for attempt in work.attempts:
            used[attempt.purpose] += 1
            assert (attempt.purpose == "audit") == attempt.start_id.startswith("audit")
            lab.campaign.record(world.run(attempt), 0.0)
        events += lab.campaign.drain()
    [audit] = [event for event in events if isinstance(event, AuditMeasured)]
    assert audit.trials == 12
    assert audit.complete
    after = events[events.index(audit) :]
    assert not any(isinstance(event, DecisionMade) for event in after)
    assert used["audit"] == 12


def test_a_pair_stays_on_its_station_and_is_made_anew_where_that_station_is_gone() -> None:
    world = World(ladder, 2, invalid=0.0)
    lab = Lab(world, 2)
    lab.next_work("station-2")
    while True:
        work = lab.next_work("station-1")
        assert work is not None
        if work.attempts[0].purpose == "gate":
            break
        for attempt in work.attempts:
            lab.campaign.record(world.run(attempt), 0.0)
    one, other = work.attempts
    lab.campaign.record(world.run(one), 0.0)
    given = lab.next_work("station-2")
    assert given is not None
    assert given.attempts[0].pair_id != one.pair_id
    lab.campaign.station("station-1", "away", 1.0)
    lab.campaign.expire(other.assignment_id, 1.0)
    anew = lab.next_work("station-2")
    assert anew is not None
    assert [item.pair_id for item in anew.attempts] == [one.pair_id] * 2
    assert {item.candidate_id for item in anew.attempts} == {one.candidate_id, other.candidate_id}


def test_a_station_that_fails_its_resets_gets_canaries_until_they_are_good_and_its_results_count_no_more() -> None:
    world = World(ladder, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    for _ in range(12):
        run_through(lab, world, "station-2")
    for _ in range(3):
        work = lab.next_work("station-1")
        assert work is not None
        for attempt in work.attempts:
            lab.campaign.record(replace(world.run(attempt), outcome=Outcome.INVALID, cause="reset"), 0.0)
    [quarantine] = told(lab.campaign, StationTold)
    assert isinstance(quarantine, StationTold)
    assert "resets in a row" in quarantine.text
    purposes = [run_through(lab, world, "station-1") for _ in range(13)]
    assert purposes[:12] == [{"check"}] * 12
    assert purposes[12] != {"check"}
    assert len(told(lab.campaign, StationTold)) == 1


def run_through(lab: Lab, world: World, edge: str) -> set[str]:
    work = lab.next_work(edge)
    assert work is not None
    for attempt in work.attempts:
        lab.campaign.record(world.run(attempt, edge), 0.0)
    return {attempt.purpose for attempt in work.attempts}


def test_a_station_that_is_worn_rests_rather_than_plays() -> None:
    world = World(ladder, SEED, invalid=0.0)
    campaign = Campaign(world.workshop, STARTS, SEED, wear=WearBudget(play_per_hour=2))
    purposes = [attempt.purpose for _ in range(10) for attempt in run_one(campaign, world)]
    assert purposes == ["baseline"] * 8 + ["play"] * 2
    assert campaign.next_work("station-1", 0.0) is None
    assert campaign.next_work("station-2", 0.0) is not None
    assert campaign.propose(switched(IDEAS[0]), "offline", 0.0) == ""
    assert campaign.next_work("station-1", 0.0) is not None


def simpler(rate: float, incumbent: float, shared: float, rng: np.random.Generator) -> Call:
    """Return what the gate says of a simplification; candidate and incumbent share so much of an attempt's luck."""
    pairs: list[Paired] = []
    while True:
        mine = rng.uniform()
        theirs = mine if rng.uniform() < shared else rng.uniform()
        pairs.append(Paired(ended(mine < rate), ended(theirs < incumbent), near_ceiling=False))
        if (stage := judge_simpler(pairs, MOST)).call is not Call.GO_ON:
            return stage.call


def ended(success: bool) -> Result:
    return Result(success, float(success), 20.0, "" if success else "near")


@pytest.mark.parametrize(
    ("rate", "incumbent", "shared", "least", "most"),
    [
        (0.9, 0.9, 1.0, 0.95, 1.0),
        (0.5, 0.5, 1.0, 0.95, 1.0),
        (0.95, 0.95, 0.8, 0.6, 1.0),
        (0.9 - WORSE, 0.9, 1.0, 0.0, MOST),
        (0.9 - WORSE, 0.9, 0.8, 0.0, MOST),
        (0.6 - WORSE, 0.6, 0.0, 0.0, MOST),
        (0.3, 0.9, 0.8, 0.0, 0.0),
        (1.0, 0.9, 0.8, 0.95, 1.0),
    ],
)
def test_a_simplification_is_accepted_where_it_is_as_good_and_seldom_where_it_loses_ten_points(
    rate: float, incumbent: float, shared: float, least: float, most: float
) -> None:
    rng = np.random.default_rng(SEED)
    accepted = sum(simpler(rate, incumbent, shared, rng) is Call.PASS for _ in range(400)) / 400
    print(f"seed {SEED}: {accepted:.3f} of simplifications with {rate} against {incumbent} accepted, {shared} shared")
    assert least <= accepted <= most


def test_a_simplification_that_fails_once_more_in_safety_is_never_accepted() -> None:
    good = Paired(Result(True, 1.0, 20.0), Result(True, 1.0, 20.0), near_ceiling=False)
    unsafe = Paired(Result(False, 0.0, 20.0, SAFETY), Result(False, 0.0, 20.0, "near"), near_ceiling=False)
    calls = [judge_simpler([unsafe, *[good] * count], MOST).call for count in range(GATE_CAP)]
    assert Call.PASS not in calls
    assert calls[-1] is Call.INCONCLUSIVE
    assert judge_simpler([good] * 60, MOST).call is Call.PASS


def test_a_workshop_in_memory_merges_what_does_not_clash() -> None:
    workshop = MemoryWorkshop()
    base = workshop.seed()
    one, other = (workshop.draft(base, switched(name)) for name in IDEAS[:2])
    merged = workshop.merge(base, one, other)
    assert merged is not None
    assert all(merged.params[name] for name in IDEAS[:2])
    assert workshop.merge(base, one, one) is None
