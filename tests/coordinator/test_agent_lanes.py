"""Several researchers at once: none waits for another, and none takes another down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from coordinator.agents.choice import Record, choose
from coordinator.agents.coding_agent import AgentFailed
from coordinator.agents.lanes import LaneError, Lanes, Offer
from coordinator.evolution.ideas import Play, Proposal, ProposalRefused, ResearchContext

CONTEXT = ResearchContext({}, (), frozenset(), {}, ())
IDEA = Proposal("agent", {}, "One thing helps.", "It does not.")


class Thinker:
    """A researcher that does what a test says, once it is let."""

    def __init__(self, name: str, does: Callable[[], Proposal]) -> None:
        self.name, self._does = name, does
        self.let = threading.Event()
        self.stop: Callable[[], str | None] = lambda: None

    def propose(self, context: ResearchContext) -> Proposal:
        while not self.let.wait(0.005):
            if self.stop() is not None:
                raise AgentFailed(f"{self.name} stopped: {self.stop()}", lasting=True)
        return self._does()

    def play(self, context: ResearchContext) -> Play | None:
        return None


def fails(error: Exception) -> Callable[[], Proposal]:
    def do() -> Proposal:
        raise error

    return do


def wait(lanes: Lanes, count: int) -> list[Offer]:
    come: list[Offer] = []
    until = time.monotonic() + 10
    while len(come) < count and time.monotonic() < until:
        come += lanes.offers()
        time.sleep(0.005)
    return come


def states(lanes: Lanes, now_s: float = 0.0) -> dict[str, str]:
    return {state.lane: state.state for state in lanes.states(now_s)}


def test_a_lane_that_hangs_holds_nobody_up() -> None:
    slow, quick = Thinker("slow", lambda: IDEA), Thinker("quick", lambda: IDEA)
    lanes = Lanes([slow, quick])
    for name in lanes.idle(0.0):
        lanes.think(name, CONTEXT, 0.0)
    quick.let.set()
    [offer] = wait(lanes, 1)
    assert (offer.lane, offer.proposal, offer.failure, offer.context) == ("quick", IDEA, "", CONTEXT)
    assert states(lanes) == {"slow": "thinking", "quick": "idle"}
    with pytest.raises(LaneError, match="thinking"):
        lanes.think("slow", CONTEXT, 0.0)
    lanes.pause("slow")
    [offer] = wait(lanes, 1)
    assert offer.failure == "slow stopped: paused by a person"
    assert states(lanes, 1e9)["slow"] == "halted"
    lanes.resume("slow")
    assert states(lanes)["slow"] == "idle"


@pytest.mark.parametrize(
    ("error", "says", "after"),
    [
        (AgentFailed("brought nothing"), "brought nothing", "resting"),
        (AgentFailed("the key is refused", lasting=True), "the key is refused", "halted"),
        (ProposalRefused("no"), "no", "resting"),
        (ZeroDivisionError("by\nzero"), "one broke: ZeroDivisionError: by zero", "resting"),
        (MemoryError(), "one broke: MemoryError:", "resting"),
    ],
)
def test_a_failure_costs_its_own_lane_only(error: Exception, says: str, after: str) -> None:
    lanes = Lanes([Thinker("one", fails(error)), Thinker("other", lambda: IDEA)])
    for name in lanes.idle(0.0):
        lanes._lanes[name].researcher.let.set()  # type: ignore[attr-defined]
        lanes.think(name, CONTEXT, 0.0)
    offers = {offer.lane: offer for offer in wait(lanes, 2)}
    assert offers["one"].failure == says
    assert offers["other"].proposal == IDEA
    assert states(lanes, 5.0) == {"one": after, "other": "idle"}


def test_a_lane_that_fails_again_rests_longer_and_a_good_one_is_forgiven() -> None:
    thinker = Thinker("one", fails(AgentFailed("no")))
    thinker.let.set()
    lanes = Lanes([thinker])
    now_s, rests = 0.0, []
    for _ in range(9):
        lanes.think("one", CONTEXT, now_s)
        wait(lanes, 1)
        rests.append(round(lanes._lanes["one"].rests_until_s - now_s))
        now_s = lanes._lanes["one"].rests_until_s + 1
    assert rests == sorted(rests)
    assert rests[0] < rests[1] < rests[2]
    assert rests[-1] == rests[-2]
    thinker._does = lambda: IDEA
    lanes.think("one", CONTEXT, now_s)
    wait(lanes, 1)
    assert lanes.idle(now_s) == ["one"]
    lanes.turned_down("one", "it is in test", now_s)
    assert round(lanes._lanes["one"].rests_until_s - now_s) == rests[-1]
    lanes.taken("one")
    lanes.turned_down("one", "it is in test", now_s)
    assert round(lanes._lanes["one"].rests_until_s - now_s) == rests[0]
    assert lanes.idle(now_s) == []


def test_lanes_come_and_go_while_others_think() -> None:
    first = Thinker("first", lambda: IDEA)
    lanes = Lanes([first])
    lanes.think("first", CONTEXT, 0.0)
    lanes.add(Thinker("second", lambda: IDEA))
    with pytest.raises(LaneError, match="already"):
        lanes.add(Thinker("second", lambda: IDEA))
    lanes.remove("first")
    assert list(states(lanes)) == ["second"]
    with pytest.raises(LaneError, match="there are second"):
        lanes.pause("first")
    lanes.close()
    assert lanes.offers() == []


def test_the_end_waits_for_a_lane_that_was_removed_while_it_thought() -> None:
    ended = threading.Event()

    def late() -> Proposal:
        time.sleep(0.2)
        ended.set()
        return IDEA

    thinker = Thinker("one", late)
    lanes = Lanes([thinker])
    lanes.think("one", CONTEXT, 0.0)
    thinker.let.set()
    lanes.remove("one")
    assert not lanes.close(0.0) or ended.is_set()
    assert lanes.close()
    assert ended.is_set()


def test_the_end_of_a_campaign_ends_all_thinking() -> None:
    thinkers = [Thinker(f"t{i}", lambda: IDEA) for i in range(4)]
    lanes = Lanes(thinkers)
    for name in lanes.idle(0.0):
        lanes.think(name, CONTEXT, 0.0)
    lanes.close()
    assert set(states(lanes).values()) == {"halted"}


def asked(records: list[Record], times: int = 400) -> dict[str, float]:
    rng = np.random.default_rng(11)
    names = [choose(records, rng) for _ in range(times)]
    return {record.name: names.count(record.name) / times for record in records}


def test_who_brings_more_for_the_same_is_asked_more() -> None:
    shares = asked([Record("good", 40, 20, 20, 40, 400), Record("bad", 40, 4, 20, 40, 400)])
    assert shares["good"] > 0.9


def test_who_brings_the_same_for_less_is_asked_more() -> None:
    shares = asked([Record("dear", 40, 10, 200, 400, 400), Record("cheap", 40, 10, 2, 4, 400)])
    assert shares["cheap"] > 0.9


def test_who_costs_nothing_but_brings_nothing_is_not_asked_for_ever() -> None:
    shares = asked([Record("offline", 200, 2, 0, 0, 2000), Record("agent", 40, 16, 20, 200, 400)])
    assert shares["agent"] > 0.8


def test_a_newcomer_is_asked() -> None:
    shares = asked([Record("known", 40, 8, 20, 40, 400), Record("new", 0, 0, 0, 0, 0)])
    assert 0.15 < shares["new"] < 0.85
    assert choose([Record("only", 0, 0, 0, 0, 0)], np.random.default_rng(1)) == "only"
