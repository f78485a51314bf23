"""A candidate on its way: the places for its results, and the pairs in which it meets the incumbent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.evolution.evidence import GATE_CAP, WORTH, Result, Stage
from coordinator.evolution.ideas import DevResult, Proposal, Source, Standing
from coordinator.evolution.pairs import Paired
from coordinator.evolution.starts import Start
from coordinator.scheduling.work import Urgency

DOUBT = 4.0  # comparisons without a difference that a candidate's promise begins with


@dataclass(eq=False)
class Slot:
    """A place for one valid result: a candidate on a start for a purpose."""

    candidate: Candidate
    start: Start
    purpose: str
    seed: int
    pair: Pair | None = None
    bundle: str = ""  # what runs; empty for the candidate's own
    edge: str = ""  # where it was handed out last
    assignment_id: str = ""
    result: Result | None = None
    refills: int = 0  # attempts that could not be judged, through no fault of the policy
    failed_on: set[str] = field(default_factory=set)  # the stations that made those
    lost_on: set[str] = field(default_factory=set)  # and those that never brought the one they were given
    invalid: bool = False  # it counts as a failure because what the policy left could not be judged

    @property
    def policy(self) -> str:
        """The bundle that runs."""
        return self.bundle or self.candidate.bundle

    @property
    def tested(self) -> Candidate:
        """The candidate for whose sake it is asked."""
        return self.candidate if self.pair is None else self.pair.candidate.candidate


@dataclass(eq=False)
class Pair:
    """A candidate and the incumbent on one fresh start, on one station."""

    name: str
    candidate: Slot
    incumbent: Slot
    near_ceiling: bool  # when it was asked for, so that no later trial changes what it says

    @property
    def done(self) -> Paired | None:
        """Both results; None before they are there."""
        mine, theirs = self.candidate.result, self.incumbent.result
        return None if mine is None or theirs is None else Paired(mine, theirs, self.near_ceiling)


@dataclass(eq=False)
class Candidate:
    """A policy that tests a hypothesis, and what is known of it."""

    candidate_id: int
    proposal: Proposal
    researcher: str
    source: Source
    bundle: str
    parent: Candidate | None
    urgency: Urgency
    state: str = "screen"
    screens: dict[str, Slot] = field(default_factory=dict)  # by start
    screen_length: int = 0  # attempts of a whole screen, fixed with the first
    stake: float = 0.0  # of the campaign's purse, from its first pair on
    worth: float = WORTH  # the gain that its pairs are to show, and
    most_pairs: int = GATE_CAP  # how many there may be, from then on too
    pairs: list[Pair] = field(default_factory=list)
    judged: int = 0  # of the pairs, from the first
    bank: list[Slot] | None = None  # on once-failed states, from when it has passed the gate
    bank_asked: int = 0
    bank_least: int = 0  # successes there that it needs
    results: list[Result] = field(default_factory=list)  # valid, but for held-out, audit, canaries and play
    failures: Counter[str] = field(default_factory=Counter)  # on development starts
    dev: list[DevResult] = field(default_factory=list)
    station_s: float = 0.0  # that its test has taken
    last: Stage | None = None
    lead: float = 0.0  # in the screen
    mean: float = 0.0  # of its comparisons there

    @property
    def promise(self) -> float:
        """How much more of its comparisons it wins than it loses, screen and gate together, drawn towards none."""
        compared = [done.comparison for pair in self.pairs if (done := pair.done) is not None]
        attempts = len(self.screens)
        return (attempts * self.mean + sum(compared)) / (attempts + len(compared) + DOUBT)

    @property
    def standing(self) -> Standing:
        """What is known of its idea."""
        return Standing(self.proposal.changes, self.lead, self.candidate_id, dict(self.proposal.files), tuple(self.dev))


def tally(results: Sequence[Result | None]) -> tuple[int, int]:
    """Return successes and valid results."""
    valid = [result for result in results if result is not None]
    return sum(result.success for result in valid), len(valid)
