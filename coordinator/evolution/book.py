"""What a campaign knows and has said: the incumbent, who is in test, what was tried, and the events to keep."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from coordinator.evolution.candidate import Candidate, tally
from coordinator.evolution.evidence import Result, Stage
from coordinator.evolution.ideas import Played, Proposal, ResearchContext, Source, Tried
from coordinator.evolution.records import (
    CandidateMade,
    CandidateMerged,
    CandidateState,
    DecisionMade,
    Event,
    HypothesisMade,
    PlayMade,
    ProposalTurnedDown,
    StationTold,
)
from coordinator.scheduling.work import urgency_of
from policies.interface import Value

CHANCES = 3  # tests of one policy: a screen of eight turns a good one down now and then
SEED = "seed"  # the kind of the first candidate
VERDICTS = {"accept": "accepted", "reject": "rejected"}
E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class Accepted:
    """An idea that moved the incumbent."""

    candidate_id: int
    kind: str
    sentence: str
    gain_points: float
    successes: int
    trials: int
    decided_unix_s: float


class Book:
    """The campaign's memory; it decides nothing."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 0xCA3])
        self.incumbent: Candidate  # from the first `enter` on
        self.testing: list[Candidate] = []
        self.ended: list[Candidate] = []  # tested against this incumbent and turned down
        self.accepted: list[Accepted] = []
        self.played: list[Played] = []
        self.outcomes: Counter[str] = Counter()
        self.proposals: Counter[str] = Counter()  # by researcher
        self.plays: Counter[str] = Counter()  # by researcher
        self.candidates: dict[int, Candidate] = {}
        self._events: list[Event] = []
        self._counts: Counter[str] = Counter()
        self._tried: list[Tried] = []
        self._tests: Counter[str] = Counter()  # by key

    def drain(self) -> list[Event]:
        """Return what happened since the last call."""
        events, self._events = self._events, []
        return events

    def tell(self, event: E) -> E:
        """Keep an event until it is drained."""
        self._events.append(event)
        return event

    def count(self, name: str) -> int:
        """Return the next number of that name, from 1."""
        self._counts[name] += 1
        return self._counts[name]

    def draw_seed(self) -> int:
        """Return a seed for an attempt or a pair."""
        return int(self.rng.integers(0, 2**31))

    def tests_of(self, source: Source) -> int:
        """Return how often a policy was tested, now included."""
        return self._tests[source.key]

    def closed(self) -> frozenset[str]:
        """Return the keys that are not to be tested now: in test, the incumbent, or turned down often."""
        often = {key for key, tests in self._tests.items() if tests >= CHANCES}
        return frozenset(often | {item.source.key for item in [self.incumbent, *self.testing]})

    def why_closed(self, key: str) -> str:
        """Return why a policy is not tested now, empty where it may be."""
        if key == self.incumbent.source.key:
            return "it is the incumbent but for comments and layout"
        for item in self.testing:
            if item.source.key == key:
                return f"it is in test as candidate {item.candidate_id}"
        return f"it was tested {self._tests[key]} times" if self._tests[key] >= CHANCES else ""

    def context(self, researcher: str = "") -> ResearchContext:
        """Return what a researcher is shown; without a name, proposals of all are counted."""
        mine = self.proposals[researcher] if researcher else sum(self.proposals.values())
        return ResearchContext(
            incumbent=dict(self.incumbent.source.params),
            tried=tuple(self._tried),
            known=self.closed(),
            failures=dict(self.incumbent.failures),
            standings=tuple(item.standing for item in (*self.ended, *self.testing)),
            files=dict(self.incumbent.source.files),
            dev=tuple(self.incumbent.dev),
            played=tuple(self.played),
            proposals=mine,
            incumbent_id=self.incumbent.candidate_id,
        )

    def turn_down(self, researcher: str, proposal: Proposal, reason: str, now_s: float) -> None:
        """Say why a proposal is not tested."""
        told = (researcher, proposal.kind, proposal.sentence, reason)
        self.tell(ProposalTurnedDown(self.count("refusal"), *told, now_s))

    def enter(
        self, proposal: Proposal, researcher: str, source: Source, bundle: str, parent: Candidate | None, now_s: float
    ) -> Candidate:
        """Write down a candidate that was published."""
        self._tests[source.key] += 1
        hypothesis_id, candidate_id = self.count("hypothesis"), self.count("candidate")
        changes = dict(proposal.changes) if parent is None else _difference(parent.source, source)
        files = () if parent is None else _changed_files(parent.source, source, proposal)
        words = (researcher, proposal.kind, proposal.sentence, proposal.falsifier)
        self.tell(HypothesisMade(hypothesis_id, *words, changes, now_s, files, proposal.not_worse))
        parent_id = None if parent is None else parent.candidate_id
        self.tell(CandidateMade(candidate_id, hypothesis_id, bundle, parent_id, "screen", now_s))
        for merged in proposal.parents:
            self.tell(CandidateMerged(candidate_id, merged))
        proposal = replace(proposal, changes=changes)
        candidate = Candidate(candidate_id, proposal, researcher, source, bundle, parent, urgency_of(researcher))
        self.candidates[candidate_id] = candidate
        return candidate

    def enter_play(self, researcher: str, source: Source, bundle: str, attempts: int, now_s: float) -> None:
        """Write down attempts that nothing is decided on."""
        incumbent = self.incumbent
        self.plays[researcher] += 1
        self.tell(
            PlayMade(
                self.count("play"),
                researcher,
                incumbent.candidate_id,
                bundle,
                _difference(incumbent.source, source),
                tuple(name for name in source.files if incumbent.source.files.get(name) != source.files[name]),
                attempts,
                now_s,
            )
        )

    def gained(self, candidate: Candidate, decision: DecisionMade) -> None:
        """Note an idea that moves the incumbent."""
        row = Accepted(
            candidate_id=candidate.candidate_id,
            kind=candidate.proposal.kind,
            sentence=candidate.proposal.sentence,
            gain_points=decision.gain_points,
            successes=decision.candidate_successes,
            trials=decision.candidate_trials,
            decided_unix_s=decision.decided_unix_s,
        )
        self.accepted.append(row)

    def station_told(self, edge: str, text: str, now_s: float, level: str = "warning") -> None:
        """Say something about a station."""
        self.tell(StationTold(now_s, edge, level, text))

    def changed_state(self, candidate: Candidate, state: str, ended_s: float | None = None) -> None:
        """Note how far a candidate is."""
        candidate.state = state
        self.tell(CandidateState(candidate.candidate_id, state, ended_s))

    def decide(self, candidate: Candidate, verdict: str, stage_name: str, stage: Stage, now_s: float) -> DecisionMade:
        """Write down a decision with what it rests on."""
        mine: list[Result | None]
        theirs: list[Result | None]
        if stage_name == "gate":
            used = [done for pair in candidate.pairs[: stage.pairs] if (done := pair.done) is not None]
            mine = [done.mine for done in used]
            theirs = [done.theirs for done in used]
        else:
            mine = [slot.result for slot in candidate.screens.values()]
            theirs = [] if candidate.parent is None else list(self.incumbent.results)
        won, tried = tally(mine)
        incumbent_won, incumbent_tried = tally(theirs)
        decision = self.tell(
            DecisionMade(
                decision_id=self.count("decision"),
                candidate_id=candidate.candidate_id,
                verdict=verdict,
                stage=stage_name,
                reason=stage.reason,
                pairs=stage.pairs,
                wins=stage.wins,
                losses=stage.losses,
                wealth=stage.wealth,
                candidate_successes=won,
                candidate_trials=tried,
                incumbent_successes=incumbent_won,
                incumbent_trials=incumbent_tried,
                gain_points=100.0 * (won / max(1, tried) - incumbent_won / max(1, incumbent_tried)),
                trials_so_far=sum(self.outcomes.values()),
                decided_unix_s=now_s,
            )
        )
        self.changed_state(candidate, VERDICTS.get(verdict, verdict), now_s)
        if candidate.parent is not None:
            self._tried.append(_tried(candidate, candidate.parent, decision))
        return decision


def _tried(candidate: Candidate, parent: Candidate, decision: DecisionMade) -> Tried:
    return Tried(
        candidate_id=candidate.candidate_id,
        parent_id=parent.candidate_id,
        kind=candidate.proposal.kind,
        changes=candidate.proposal.changes,
        files=tuple(candidate.proposal.files),
        sentence=candidate.proposal.sentence,
        verdict=decision.verdict,
        stage=decision.stage,
        lead=candidate.lead,
        gain_points=decision.gain_points,
        robot_minutes=candidate.station_s / 60.0,
        dev=tuple(candidate.dev),
        pairs=decision.pairs,
    )


def _difference(base: Source, source: Source) -> dict[str, Value]:
    """Return the parameters in which two policies differ, with their new values."""
    before = base.params
    return {name: value for name, value in source.params.items() if name not in before or before[name] != value}


def _changed_files(base: Source, source: Source, proposal: Proposal) -> tuple[str, ...]:
    """Return the files that a proposal changes: those it gives, or where it merges others, all that differ."""
    if not proposal.parents:
        return tuple(proposal.files)
    return tuple(name for name in source.files if base.files.get(name) != source.files[name])
