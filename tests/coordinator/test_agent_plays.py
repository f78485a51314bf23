"""Attempts of an agent's unfinished change: they are made on development starts, and nothing is learned of them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from coordinator.campaign import Attempt, Campaign
from coordinator.evolution.ideas import Play
from coordinator.evolution.plays import MOST_REFILLS
from coordinator.evolution.records import PlayMade, TrialUsed
from edge.records import Outcome
from tests.harness.ideal_world import STARTS, World, ladder

AGENT = "claude-api-1"
UNFINISHED = Play({"moves.json": b"[]"}, {}, 3)
DEV = {start.start_id for start in STARTS.dev}


def begun(world: World) -> Campaign:
    """Return a campaign whose baseline is measured, and which has nothing to do but play."""
    campaign = Campaign(world.workshop, STARTS, 5)
    for _ in range(8):
        for attempt in handed(campaign):
            campaign.record(world.run(attempt), 0.0)
    campaign.drain()
    return campaign


def handed(campaign: Campaign) -> tuple[Attempt, ...]:
    """Return the next attempts but for checks, which follow what could not be judged: the station's fault perhaps."""
    while (work := campaign.next_work("station-1", 0.0)) is not None:
        if work.attempts[0].purpose != "check":
            return work.attempts
        campaign.expire(work.attempts[0].assignment_id, 0.0)
    raise AssertionError("there is always work")


def asked(campaign: Campaign, play: Play = UNFINISHED, researcher: str = AGENT) -> str:
    """Queue a play and return the bundle that it runs."""
    assert campaign.play(play, researcher, 0.0) == ""
    [made] = [event for event in campaign.drain() if isinstance(event, PlayMade)]
    assert made.researcher == researcher
    return made.bundle


def test_a_refused_play_counts_as_one_so_that_the_next_is_another() -> None:
    campaign = begun(World(ladder, 1, invalid=0.0))
    assert campaign.play(Play({}, {"no_such_parameter": 1.0}, 1), AGENT, 0.0)
    context = campaign.wants_play(0.0, AGENT)
    assert context is not None
    assert context.proposals == 1


def test_they_are_made_on_development_starts_and_counted_down() -> None:
    world = World(ladder, 1, invalid=0.0)
    campaign = begun(world)
    bundle = asked(campaign)
    for left in (3, 2, 1):
        assert campaign.unmade(bundle) == left
        [attempt] = handed(campaign)
        assert (attempt.bundle, attempt.purpose) == (bundle, "play")
        assert attempt.start_id in DEV
        campaign.record(world.run(attempt), 0.0)
    assert campaign.unmade(bundle) == 0
    assert handed(campaign)[0].bundle == campaign.incumbent.bundle


@pytest.mark.parametrize("outcome", list(Outcome))
def test_whatever_comes_of_them_nothing_is_learned_of_it(outcome: Outcome) -> None:
    world = World(ladder, 1, invalid=0.0)
    campaign = begun(world)
    before = campaign._book.context("")
    incumbent = campaign.incumbent
    known = (list(incumbent.results), list(incumbent.dev), dict(incumbent.failures), incumbent.station_s)
    bundle = asked(campaign)
    cause = "" if outcome is Outcome.SUCCESS else "undecided"
    for _ in range(3 * (MOST_REFILLS + 1)):
        if campaign.unmade(bundle) == 0:
            break
        [attempt] = handed(campaign)
        trial = replace(world.run(attempt), outcome=outcome, cause=cause, notes={"policy": "row 1 2 3"})
        campaign.record(trial, 0.0)
    assert campaign.unmade(bundle) == 0
    assert campaign._book.context("") == before
    assert (list(incumbent.results), list(incumbent.dev), dict(incumbent.failures), incumbent.station_s) == known
    assert not [event for event in campaign.drain() if isinstance(event, TrialUsed)]


def test_one_that_cannot_be_made_is_asked_for_again_and_given_up_at_last() -> None:
    world = World(ladder, 1, invalid=0.0)
    campaign = begun(world)
    bundle = asked(campaign, replace(UNFINISHED, attempts=1))
    for number in range(MOST_REFILLS + 1):
        assert campaign.unmade(bundle) == 1
        [attempt] = handed(campaign)
        assert attempt.bundle == bundle
        if number % 2:
            campaign.expire(attempt.assignment_id, 0.0)
        else:
            campaign.record(replace(world.run(attempt), outcome=Outcome.INVALID, cause="crash"), 0.0)
    assert campaign.unmade(bundle) == 0
    assert handed(campaign)[0].bundle != bundle


def test_the_offline_researcher_s_are_told_to_all_as_they_were() -> None:
    world = World(ladder, 1, invalid=0.0)
    campaign = begun(world)
    bundle = asked(campaign, researcher="offline")
    for _ in range(3):
        [attempt] = handed(campaign)
        campaign.record(replace(world.run(attempt), notes={"policy": "pushed"}), 0.0)
    assert [item.notes for item in campaign._book.context("").played] == ["pushed"] * 3
    assert campaign.unmade(bundle) == 0


def test_once_the_target_is_reached_none_is_taken() -> None:
    world = World(lambda params: 1.0, 1, invalid=0.0)
    campaign = Campaign(world.workshop, STARTS, 5, target=4, heldout=5, audit=4)
    out: deque[Attempt] = deque()
    while not campaign._measuring.ending:
        out.extend(handed(campaign))
        campaign.record(world.run(out.popleft()), 0.0)
    campaign.drain()
    published = len(world.workshop.published)
    assert campaign.play(UNFINISHED, AGENT, 0.0) == "the campaign has reached its target"
    assert campaign.drain() == []
    assert len(world.workshop.published) == published
