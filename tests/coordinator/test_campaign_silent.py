"""A call that gave nothing changed nothing: what a journal leaves out may be left out of a replay."""

from collections import deque
from dataclasses import replace

import pytest

from coordinator.campaign import Attempt, Campaign
from tests.harness.ideal_world import STARTS, Lab, World, ladder


@pytest.mark.parametrize("seed", range(1, 9))
def test_a_campaign_is_the_same_without_the_requests_that_gave_neither_work_nor_events(seed: int) -> None:
    world = World(ladder, seed, invalid=0.1)
    world.handicap["station-1"] = 0.9
    lab = Lab(world, seed)
    campaign, calls, told, left_out = lab.campaign, [], list(lab.campaign.drain()), 0
    held: dict[str, deque[Attempt]] = {f"station-{k}": deque() for k in range(1, 5)}
    for turn in range(2_400):
        now_s, edge = float(turn), f"station-{turn % 4 + 1}"
        if held[edge]:
            trial = replace(world.run(held[edge].popleft(), edge), ended_unix_s=now_s)
            calls.append(("record", (trial, now_s)))
            campaign.record(trial, now_s)
            told += campaign.drain()
        for _ in range(3):
            while (context := campaign.wants(now_s, "offline")) is not None:
                proposal = lab.researcher.propose(context)
                calls.append(("propose", (proposal, "offline", now_s)))
                campaign.propose(proposal, "offline", now_s)
                told += campaign.drain()
            ahead = len(held[edge])
            work = campaign.next_work(edge, now_s, ahead)
            events = campaign.drain()
            told += events
            if work is None and not events:
                left_out += 1
                continue
            calls.append(("next_work", (edge, now_s, ahead)))
            held[edge].extend(() if work is None else work.attempts)
        if campaign.finished:
            break
    again = Campaign(world.workshop, STARTS, seed, stations=4, heldout=50, audit=0)
    retold = list(again.drain())
    for name, given in calls:
        getattr(again, name)(*given)
        retold += again.drain()
    assert left_out > 0
    assert retold == told
