"""When a campaign measures, when it asks for no more ideas, and when it has nothing left to decide on."""

from dataclasses import replace

import numpy as np
import pytest

from coordinator.campaign import MOST_AT_GATE
from coordinator.evolution.measuring import PROMISING_CHANCE, chance
from tests.harness import ideal_world
from tests.harness.ideal_world import Lab, World, nothing_matters

SEED = 3


@pytest.mark.parametrize(("target", "starts", "rate"), [(46, 50, 0.9), (96, 100, 0.97), (0, 10, 0.1), (10, 10, 1.0)])
def test_the_chance_of_a_target_is_what_simulation_says(target: int, starts: int, rate: float) -> None:
    drawn = np.random.default_rng(SEED).binomial(starts, rate, 200_000) >= target
    assert chance(target, starts, rate) == pytest.approx(drawn.mean(), abs=0.005)


def test_a_middling_incumbent_is_not_measured_against_a_high_target() -> None:
    assert chance(96, 100, 0.90) < PROMISING_CHANCE < chance(96, 100, 0.97)


def test_a_campaign_whose_fresh_starts_are_used_up_ends_and_asks_no_more_ideas_than_its_gate_can_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = replace(ideal_world.STARTS, gate=ideal_world.STARTS.gate[:40])
    monkeypatch.setattr(ideal_world, "STARTS", few)
    world = World(nothing_matters, SEED)
    lab = Lab(world, SEED)
    most_waiting = 0
    for turn in range(3_000):
        if lab.campaign.finished:
            break
        edge = f"station-{turn % 4 + 1}"
        work = lab.next_work(edge, float(turn))
        assert work is not None
        for attempt in work.attempts:
            trial = world.run(attempt, edge)
            lab.campaign.record(replace(trial, ended_unix_s=float(turn)), float(turn))
        most_waiting = max(most_waiting, len(lab.campaign.snapshot().testing))
    assert lab.campaign.finished == "starts"
    assert most_waiting <= MOST_AT_GATE + 8  # and what was in the screen when the gate filled up


def test_a_station_fills_no_place_that_was_handed_to_another() -> None:
    world = World(nothing_matters, SEED, invalid=0.0)
    lab = Lab(world, SEED)
    work = lab.next_work("station-1", 0.0)
    assert work is not None
    lab.campaign.record(world.run(work.attempts[0], "station-2"), 1.0)
    assert lab.campaign.snapshot().trials == 0
    lab.campaign.record(world.run(work.attempts[0], "station-1"), 2.0)
    assert lab.campaign.snapshot().trials == 1
