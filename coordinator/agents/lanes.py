"""Several researchers at once, each thinking in a thread of its own while the campaign goes on.

- Whoever conducts a campaign asks `idle` who may think, gives each a context with `think`, and takes what came with
  `offers`. None of these waits for anybody.
- A researcher that fails, whatever it raises, costs its own lane only: the lane rests, twice as long each time. One
  that would fail again, for a refused key or a spent budget, is halted and says why until somebody resumes it.
- An agent's files are whole files, made of the incumbent that it was shown. Where that is not the incumbent any more,
  whoever takes the offer must merge: base is the context's files, one side the new incumbent, the other the proposal.
- Whoever takes an offer says whether it was any use, by `taken` or `turned_down`: a researcher whose ideas are not
  wanted rests too, so that it does not spend its budget on saying the same again.
- Lanes can be added, paused, resumed and removed while others think. Pausing ends what a lane is thinking.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.agents.coding_agent import AgentFailed
from coordinator.errors import CoordinatorError
from coordinator.evolution.ideas import Proposal, ProposalRefused, ResearchContext, Researcher

LOG = logging.getLogger(__name__)
SHORTEST_REST_S, LONGEST_REST_S = 10.0, 600.0
DOUBLINGS = 16  # that are counted; long before that the longest rest is reached


class LaneError(CoordinatorError):
    """A lane that is not there, is there already, or thinks already."""


@dataclass(frozen=True)
class Offer:
    """What a lane brought: a proposal, or why there is none."""

    lane: str
    proposal: Proposal | None
    failure: str  # one line, empty with a proposal
    seconds: float  # of thinking
    context: ResearchContext  # what it was given; its incumbent may have been followed by another one since


@dataclass(frozen=True)
class LaneState:
    """How a lane is, for people."""

    lane: str
    state: str  # "idle", "thinking", "resting", "halted"
    why: str  # of resting and halted
    proposals: int
    failures: int


class _Lane:
    def __init__(self, researcher: Researcher) -> None:
        self.researcher = researcher
        self.thinking = False
        self.halted: str | None = None
        self.rests_until_s = 0.0
        self.why = ""
        self.proposals = self.failures = self.in_a_row = 0
        if hasattr(researcher, "stop"):
            researcher.stop = lambda: self.halted


class Lanes:
    """All lanes of a campaign."""

    def __init__(self, researchers: Sequence[Researcher] = ()) -> None:
        """Begin with these, each under its own name."""
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}
        self._removed: list[_Lane] = []
        self._offers: list[Offer] = []
        for researcher in researchers:
            self.add(researcher)

    def add(self, researcher: Researcher) -> None:
        """Open a lane.

        Raises:
            LaneError: there is one of this name.
        """
        with self._lock:
            if researcher.name in self._lanes:
                raise LaneError(f"there is a lane named {researcher.name!r} already; give this one another name")
            self._lanes[researcher.name] = _Lane(researcher)

    def remove(self, name: str) -> None:
        """Close a lane; what it is thinking ends and is not offered."""
        self.pause(name, "removed")
        with self._lock:
            self._removed.append(self._lanes.pop(name))

    def pause(self, name: str, why: str = "paused by a person") -> None:
        """Let a lane think no more, and end what it is thinking."""
        with self._lock:
            self._lane(name).halted = why

    def resume(self, name: str) -> None:
        """Let a lane think again at once."""
        with self._lock:
            lane = self._lane(name)
            lane.halted, lane.why, lane.rests_until_s, lane.in_a_row = None, "", 0.0, 0

    def idle(self, now_s: float) -> list[str]:
        """Return the lanes that may be given a context."""
        with self._lock:
            return [name for name, lane in self._lanes.items() if _state(lane, now_s) == "idle"]

    def think(self, name: str, context: ResearchContext, now_s: float) -> None:
        """Let a lane think about this.

        Raises:
            LaneError: it is not idle.
        """
        with self._lock:
            lane = self._lane(name)
            if _state(lane, now_s) != "idle":
                raise LaneError(f"lane {name!r} is {_state(lane, now_s)}")
            lane.thinking = True
        threading.Thread(
            target=self._think, args=(name, lane, context, now_s), name=f"lane {name}", daemon=True
        ).start()

    def offers(self) -> list[Offer]:
        """Return what has come since this was asked last."""
        with self._lock:
            come, self._offers = self._offers, []
            return come

    def taken(self, name: str) -> None:
        """Note that what a lane brought was wanted: its next failure is the first one again."""
        with self._lock:
            if name in self._lanes:
                self._lanes[name].in_a_row = 0

    def turned_down(self, name: str, why: str, now_s: float) -> None:
        """Note that what a lane brought was not wanted: it rests as after a failure."""
        with self._lock:
            if name in self._lanes:
                _rest(self._lanes[name], why, now_s)

    def halt(self, why: str) -> None:
        """Pause all lanes that are not halted."""
        with self._lock:
            for lane in self._lanes.values():
                lane.halted = lane.halted or why

    def states(self, now_s: float) -> list[LaneState]:
        """Return how every lane is."""
        with self._lock:
            return [
                LaneState(name, _state(lane, now_s), lane.halted or lane.why, lane.proposals, lane.failures)
                for name, lane in self._lanes.items()
            ]

    def close(self, wait_s: float = 10.0) -> bool:
        """End all thinking, that of removed lanes too, and wait until it has ended; return whether it has."""
        self.halt("the campaign is over")
        with self._lock:
            lanes = [*self._lanes.values(), *self._removed]
        until_s = time.monotonic() + wait_s
        while any(lane.thinking for lane in lanes) and time.monotonic() < until_s:
            time.sleep(0.02)
        return not any(lane.thinking for lane in lanes)

    def _think(self, name: str, lane: _Lane, context: ResearchContext, now_s: float) -> None:
        began_s = time.monotonic()
        proposal, failure, lasting = None, "", False
        try:
            proposal = lane.researcher.propose(context)
        except AgentFailed as error:
            failure, lasting = str(error), error.lasting
        except (CoordinatorError, ProposalRefused) as error:
            failure = str(error)
        except Exception as error:
            LOG.exception("lane %s broke", name)
            failure = f"{name} broke: {type(error).__name__}: {error}"
        seconds = time.monotonic() - began_s
        with self._lock:
            lane.thinking = False
            _note(lane, failure, lasting, now_s + seconds)
            if self._lanes.get(name) is lane:
                self._offers.append(Offer(name, proposal, " ".join(failure.split()), seconds, context))

    def _lane(self, name: str) -> _Lane:
        if name not in self._lanes:
            raise LaneError(f"there is no lane named {name!r}; there are {', '.join(sorted(self._lanes)) or 'none'}")
        return self._lanes[name]


def _state(lane: _Lane, now_s: float) -> str:
    if lane.thinking:
        return "thinking"
    if lane.halted is not None:
        return "halted"
    return "resting" if now_s < lane.rests_until_s else "idle"


def _note(lane: _Lane, failure: str, lasting: bool, now_s: float) -> None:
    if not failure:
        lane.proposals += 1
        lane.why = ""
        return
    lane.failures += 1
    _rest(lane, failure, now_s)
    if lasting and lane.halted is None:
        lane.halted = failure


def _rest(lane: _Lane, why: str, now_s: float) -> None:
    lane.why = why
    lane.rests_until_s = now_s + min(SHORTEST_REST_S * 2 ** min(lane.in_a_row, DOUBLINGS), LONGEST_REST_S)
    lane.in_a_row += 1
