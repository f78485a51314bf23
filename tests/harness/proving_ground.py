"""A campaign on paper: synthetic worlds that a researcher climbs, judged by the real screen and the real gate.

A world says how likely an attempt with some parameters is to succeed; the loop hands out attempts one by one in the
order in which a campaign does. `climb` counts the attempts until the incumbent's true rate reaches the target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from coordinator.evolution.campaign_alpha import Purse
from coordinator.evolution.ceiling import not_worse
from coordinator.evolution.evidence import SCREEN_ATTEMPTS, Call, Result, screen
from coordinator.evolution.ideas import DevResult, Proposal, ResearchContext, Standing, Tried
from coordinator.evolution.pairs import Paired, judge
from coordinator.research.scales import canonical
from policies.interface import Value
from policies.space import PolicySpace

Params = Mapping[str, Value]
STRONG_LEAD, SCREENED_FIRST, CHANCES = 3.5, 10, 3
DEV, CEILING, OFTEN = 40, 0.9, 12


class Proposes(Protocol):
    """What is tested."""

    def propose(self, context: ResearchContext) -> Proposal:
        """Return a change to the incumbent."""
        ...


@dataclass(frozen=True)
class World:
    """A policy's space, and what an attempt with some parameters comes to."""

    space: PolicySpace
    attempt: Callable[[Params, np.random.Generator], Result]
    rate: Callable[[Params], float]  # the true one


@dataclass(eq=False)
class Candidate:
    """A policy under test."""

    number: int
    proposal: Proposal
    params: dict[str, Value]
    parent: int
    fresh_seeds: bool
    dev: dict[str, Result] = field(default_factory=dict)
    pairs: list[Paired] = field(default_factory=list)
    at_gate: bool = False
    lead: float = 0.0
    stake: float = 0.0
    spent_s: float = 0.0


@dataclass(frozen=True)
class Climb:
    """How a campaign went."""

    trials: int  # until the target was reached, or all there were
    reached: bool
    accepted: tuple[str, ...]  # kinds
    tested: int
    rate: float


class Campaign:
    """The order of a campaign's work, without stations, network or disk."""

    def __init__(self, world: World, researcher: Proposes, seed: int, stations: int = 4) -> None:
        self.world, self.researcher, self.stations, self.seed = world, researcher, stations, seed
        self.trials = self.proposals = self.number = self.gates = self.generation = self.screened = 0
        self.accepted: list[str] = []
        self.purse = Purse()
        self.tried: list[Tried] = []
        self.tests: Counter[str] = Counter()
        self.testing: list[Candidate] = []
        self.standings: list[Candidate] = []
        self.results: list[Result] = []
        self.incumbent = self._candidate(Proposal("seed", {}, "", ""), world.space.defaults())

    def climb(self, target: float, most: int) -> Climb:
        """Run until the incumbent's true rate reaches `target` or `most` attempts were made."""
        while self.trials < most and self.world.rate(self.incumbent.params) < target:
            self._gate() or self._baseline() or self._screen()
        rate = self.world.rate(self.incumbent.params)
        return Climb(self.trials, rate >= target, tuple(self.accepted), self.number - 1, rate)

    def context(self) -> ResearchContext:
        """Return what a campaign shows a researcher."""
        own = _dev(self.incumbent)
        often = {key for key, tests in self.tests.items() if tests >= CHANCES}
        running = {canonical(item.params) for item in (self.incumbent, *self.testing)}
        return ResearchContext(
            incumbent=dict(self.incumbent.params),
            tried=tuple(self.tried),
            known=frozenset(often | running),
            failures=Counter(item.cause for item in own if not item.success),
            standings=tuple(
                Standing(item.proposal.changes, item.lead, item.number, {}, _dev(item))
                for item in (*self.standings, *self.testing)
            ),
            dev=own,
            proposals=self.proposals,
        )

    def _gate(self) -> bool:
        ready = [
            item
            for item in self.testing
            if item.at_gate and (item.pairs or item.lead >= STRONG_LEAD or self.screened >= SCREENED_FIRST)
        ]
        if not ready:
            return False
        candidate = max(ready, key=lambda item: item.lead)
        if not candidate.pairs:
            candidate.stake, self.purse = self.purse.stake, self.purse.staked()
        self.gates += 1
        mine, theirs = (self._try(item, (1, self.gates)) for item in (candidate, self.incumbent))
        won = sum(item.success for item in self.results)
        near = len(self.results) >= OFTEN and won >= CEILING * len(self.results)
        self.results.append(theirs)
        candidate.pairs.append(Paired(mine, theirs, near))
        stage = judge(candidate.pairs, candidate.stake)
        compared = [(pair.mine, pair.theirs) for pair in candidate.pairs]
        if stage.call is Call.PASS or (candidate.proposal.not_worse and not_worse(compared)):
            self._accept(candidate)
        elif stage.call is not Call.GO_ON:
            held = stage.wealth
            self.purse = self.purse.given_up(candidate.stake, held)
            self._end(candidate, "reject" if stage.call is Call.REJECT else "inconclusive", "gate")
        return True

    def _baseline(self) -> bool:
        start = next((name for name in self._window() if name not in self.incumbent.dev), None)
        if start is None:
            return False
        self.incumbent.dev[start] = self._try(self.incumbent, (2, int(start)))
        self.results.append(self.incumbent.dev[start])
        return True

    def _screen(self) -> bool:
        screening = [item for item in self.testing if not item.at_gate]
        while len(screening) <= self.stations:  # as many are in the screen as stations ask for work
            screening.append(self._propose())
        candidate = screening[self.trials % len(screening)]
        start = next(name for name in self._window() if name not in candidate.dev)
        seeds = (3, candidate.number, int(start)) if candidate.fresh_seeds else (2, int(start))
        candidate.dev[start] = self._try(candidate, seeds)
        stage = screen(list(candidate.dev.values()), self.results)
        candidate.lead = stage.lead
        self.screened += stage.call is not Call.GO_ON
        if stage.call is Call.PASS:
            candidate.at_gate = True
        elif stage.call is Call.REJECT:
            self._end(candidate, "reject", "screen")
        return True

    def _propose(self) -> Candidate:
        proposal = self.researcher.propose(self.context())
        self.proposals += 1
        return self._test(proposal)

    def _test(self, proposal: Proposal) -> Candidate:
        params = {**self.incumbent.params, **proposal.changes}
        self.world.space.validate(params)
        assert canonical(params) not in self.context().known
        candidate = self._candidate(proposal, params)
        self.testing.append(candidate)
        return candidate

    def _candidate(self, proposal: Proposal, params: dict[str, Value]) -> Candidate:
        self.number += 1
        again = self.tests[canonical(params)] > 0
        self.tests[canonical(params)] += 1
        parent = self.incumbent.number if self.number > 1 else 0
        return Candidate(self.number, proposal, params, parent, again)

    def _accept(self, candidate: Candidate) -> None:
        self.testing.remove(candidate)
        self._decide(candidate, "accept", "gate")
        others, self.testing = self.testing, []
        for item in others:
            if item.stake:
                held = judge(item.pairs, item.stake).wealth
                self.purse = self.purse.given_up(item.stake, held)
            self._decide(item, "superseded", "gate" if item.at_gate else "screen")
        self.purse = self.purse.gained()
        self.accepted.append(candidate.proposal.kind)
        self.incumbent = candidate
        candidate.dev = {}
        self.results = [pair.mine for pair in candidate.pairs]
        self.generation += 1
        self.standings, self.screened = [], 0
        for item in others:
            apart = not set(item.proposal.changes) & set(candidate.proposal.changes)
            params = {**candidate.params, **item.proposal.changes}
            if apart and (item.at_gate or item.lead >= 0.0) and canonical(params) not in self.context().known:
                self._test(item.proposal)

    def _end(self, candidate: Candidate, verdict: str, stage: str) -> None:
        self.testing.remove(candidate)
        self.standings.append(candidate)
        self._decide(candidate, verdict, stage)

    def _decide(self, item: Candidate, verdict: str, stage: str) -> None:
        mine = [pair.mine for pair in item.pairs] or list(item.dev.values())
        theirs = [pair.theirs for pair in item.pairs] or self.results
        gain = 100.0 * (_share(mine) - _share(theirs))
        proposal = item.proposal
        self.tried.append(
            Tried(
                item.number, item.parent, proposal.kind, proposal.changes, (), proposal.sentence, verdict, stage,
                item.lead, gain, item.spent_s / 60.0, _dev(item),
            )
        )  # fmt: skip

    def _try(self, item: Candidate, place: Sequence[int]) -> Result:
        self.trials += 1
        result = self.world.attempt(item.params, np.random.default_rng([self.seed, self.generation, *place]))
        item.spent_s += result.seconds
        return result

    def _window(self) -> list[str]:
        first = self.generation * SCREEN_ATTEMPTS
        return [str((first + k) % DEV) for k in range(SCREEN_ATTEMPTS)]


def _dev(item: Candidate) -> tuple[DevResult, ...]:
    return tuple(
        DevResult(start, result.success, result.progress, result.cause, result.seconds)
        for start, result in item.dev.items()
    )


def _share(results: Sequence[Result]) -> float:
    return sum(item.success for item in results) / max(1, len(results))
