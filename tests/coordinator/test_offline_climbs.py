"""The offline researcher climbs worlds on paper, judged by the real screen and gate, and faster than chance allows."""

import numpy as np
import pytest

from coordinator.evolution.ideas import Proposal, ResearchContext
from coordinator.research import racing
from coordinator.research.offline import OfflineResearcher
from coordinator.research.scales import at_share, canonical
from tests.harness.proving_ground import Campaign, World
from tests.harness.proving_worlds import basin_world, pin_world, push_world, tricky_world

WORLDS = {"push": push_world, "pin": pin_world, "basin": basin_world, "tricky": tricky_world}


class Blind:
    """Points over all parameters and ideas, evenly: what the researcher must beat."""

    name = "blind"

    def __init__(self, world: World, seed: int) -> None:
        self._space, self._seed = world.space, seed

    def propose(self, context: ResearchContext) -> Proposal:
        """Return a point that is not closed."""
        rng = np.random.default_rng([self._seed, context.proposals])
        while True:
            changes = {item.name: at_share(item, float(rng.random())) for item in self._space.parameters}
            changes |= {item.name: bool(rng.integers(2)) for item in self._space.ideas}
            if canonical({**context.incumbent, **changes}) not in context.known:
                return Proposal(racing.KIND, changes, "a point", "")


@pytest.mark.parametrize("stations", [1, 4, 8])
def test_the_pin_world_is_climbed_though_single_changes_show_nothing(stations: int) -> None:
    climbs = []
    for seed in range(4):
        world = pin_world()
        assert world.rate(world.space.defaults()) < 0.12
        campaign = Campaign(world, OfflineResearcher(world.space, seed), seed, stations)
        climbs.append(campaign.climb(0.85, 1500))
    assert sum(item.reached for item in climbs) >= 3, climbs


@pytest.mark.parametrize("name", ["push", "basin"])
def test_other_worlds_are_climbed_too(name: str) -> None:
    climbs = []
    for seed in range(5):
        world = WORLDS[name]()
        climbs.append(Campaign(world, OfflineResearcher(world.space, seed), seed).climb(0.8, 800))
    assert sum(item.reached for item in climbs) >= 4, climbs


def test_it_needs_less_than_points_without_a_thought() -> None:
    needed = {"researcher": 0, "blind": 0}
    for seed in range(4):
        world = pin_world()
        needed["researcher"] += Campaign(world, OfflineResearcher(world.space, seed), seed).climb(0.6, 500).trials
        needed["blind"] += Campaign(world, Blind(world, seed), seed).climb(0.6, 500).trials
    assert needed["researcher"] < needed["blind"] / 2, needed


def test_a_lure_that_raises_progress_and_lowers_success_is_not_what_moves_the_incumbent() -> None:
    for seed in range(2):
        world = tricky_world()
        campaign = Campaign(world, OfflineResearcher(world.space, seed), seed)
        campaign.climb(0.75, 300)
        assert world.rate(campaign.incumbent.params) >= world.rate(world.space.defaults()) - 0.05


def test_a_campaign_on_paper_is_the_same_again() -> None:
    climbs = [Campaign(push_world(), OfflineResearcher(push_world().space, 2), 2).climb(0.9, 300) for _ in range(2)]
    assert climbs[0] == climbs[1]
