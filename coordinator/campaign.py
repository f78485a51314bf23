"""What to try next and what has been found: the campaign as a state machine without clock, network or disk.

Attempts go out by `next_work`, results come back by `record`, lost ones by `expire`; `drain` gives the events to keep.
The same calls in the same order give the same events.

- An attempt fills a slot: a candidate on a start for a purpose. An invalid or lost attempt leaves its slot open, and
  the slot is asked for again under a new assignment.
- Order of work: slots to fill again, once-failed states for a candidate that passed the gate, held-out measurement of
  a promising incumbent, gate pairs for the candidate that led most in the screen, the incumbent's baseline, screens,
  and when all that is out, the incumbent on development starts (`play`): work never ends. A pair is handed out
  together; a half that has to be filled again goes to whoever asks.
- The incumbent moves by a decision only, and what all gates together may risk on false gains is kept in one purse.
  What was promising against the old incumbent is tried again on the new one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from coordinator.evolution.campaign_alpha import Purse
from coordinator.evolution.evidence import SCREEN_ATTEMPTS, Call, Result, Stage, heldout_hopeless, screen
from coordinator.evolution.pairs import Paired, judge
from coordinator.evolution.rates import exact_interval
from coordinator.evolution.records import (
    CandidateMade,
    CandidateState,
    DecisionMade,
    Event,
    HeldoutMeasured,
    HypothesisMade,
    TrialUsed,
)
from coordinator.evolution.regression import bank, chosen, needed
from coordinator.evolution.starts import Start, Starts
from coordinator.research.offline import Proposal, ResearchContext, Standing, Tried, canonical
from edge.records import Outcome, Trial
from policies.interface import Value
from policies.space import PolicySpace

PROMISING_RATE = 0.85  # of an incumbent that is worth measuring on held-out starts,
PROMISING_TRIALS = 12  # once it has so many trials
CEILING_RATE = 0.9
STRONG_LEAD = 3.5  # of a screen: such an idea goes to the gate at once,
SCREENED_FIRST = 10  # another waits until so many were screened, so that the gate is for the best of them
PAIRS_AHEAD = 4  # pairs of the gate in flight beyond those decided on
ATTEMPTS_AHEAD = 3  # of one candidate in the screen, which may end early
MOST_REFILLS = 4  # of one place; a candidate whose attempts cannot be judged is given up
CHANCES = 3  # tests of one configuration: a screen of eight turns a good one down now and then

Publish = Callable[[Mapping[str, Value], Mapping[str, object], str | None], str]


class Researcher(Protocol):
    """Whoever proposes changes."""

    name: str

    def propose(self, context: ResearchContext) -> Proposal:
        """Return a change to the incumbent that was not tried."""
        ...


@dataclass(frozen=True)
class Attempt:
    """One attempt to hand out."""

    assignment_id: str
    candidate_id: int
    bundle: str
    start_id: str
    start: Mapping[str, float]
    seed: int
    purpose: str
    pair_id: str | None


@dataclass(frozen=True)
class Work:
    """Attempts that belong on one station, back to back."""

    attempts: tuple[Attempt, ...]


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


@dataclass(frozen=True)
class Snapshot:
    """The campaign at one moment, for people."""

    incumbent_id: int
    incumbent_params: Mapping[str, Value]
    successes: int  # of the incumbent's valid baseline, screen and gate trials
    trials: int
    low: float
    high: float
    tried: int
    accepted: tuple[Accepted, ...]
    testing: tuple[str, ...]  # sentences in the screen or at the gate
    heldout_successes: int
    heldout_done: int
    heldout_total: int
    heldout_running: bool
    outcomes: Mapping[str, int]


@dataclass(eq=False)
class _Slot:
    """A place for one valid result."""

    candidate: _Candidate
    start: Start
    purpose: str
    seed: int
    pair_id: str | None = None
    assignment_id: str = ""
    result: Result | None = None
    refills: int = 0  # attempts that were lost or invalid


@dataclass(eq=False)
class _Pair:
    candidate: _Slot
    incumbent: _Slot
    near_ceiling: bool  # when it was asked for, so that no later trial changes what it says

    @property
    def done(self) -> Paired | None:
        """Both results; None before they are there."""
        mine, theirs = self.candidate.result, self.incumbent.result
        return None if mine is None or theirs is None else Paired(mine, theirs, self.near_ceiling)


@dataclass(eq=False)
class _Candidate:
    candidate_id: int
    hypothesis_id: int
    proposal: Proposal
    params: dict[str, Value]
    bundle: str
    parent: _Candidate | None
    state: str
    screens: dict[str, _Slot] = field(default_factory=dict)  # by start
    stake: float = 0.0  # of the campaign's purse, from its first pair on
    pairs: list[_Pair] = field(default_factory=list)
    judged: int = 0  # of the pairs, from the first
    bank: list[_Slot] | None = None  # on once-failed states, from when it has passed the gate
    bank_asked: int = 0
    bank_least: int = 0  # successes there that it needs
    results: list[Result] = field(default_factory=list)  # valid, but for held-out and play
    failures: Counter[str] = field(default_factory=Counter)
    last: Stage | None = None
    lead: float = 0.0  # in the screen

    @property
    def standing(self) -> Standing:
        """What is known of its idea."""
        return Standing(self.proposal.changes, self.lead)


class Campaign:
    """Improves one policy of one task with whatever stations ask for work."""

    def __init__(
        self,
        space: PolicySpace,
        starts: Starts,
        researcher: Researcher,
        publish: Publish,
        seed: int,
        *,
        target: int = 46,
        heldout: int = 50,
        stations: int = 4,
        now_s: float = 0.0,
    ) -> None:
        self._space, self._starts, self._researcher, self._publish = space, starts, researcher, publish
        self._rng = np.random.default_rng([seed, 0xCA3])
        self._run = f"{round(now_s * 1e3):x}"  # in every assignment's name: no two campaigns share one
        self._target, self._heldout_total, self._stations = target, heldout, stations
        self._events: list[Event] = []
        self._slots: dict[str, _Slot] = {}  # by assignment, open ones only
        self._again: deque[_Slot] = deque()
        self._tried: list[Tried] = []
        self._tests: Counter[str] = Counter()  # by configuration
        self._accepted: list[Accepted] = []
        self._outcomes: Counter[str] = Counter()
        self._seen: set[tuple[str, str, int]] = set()
        self._counts: Counter[str] = Counter()
        self._testing: list[_Candidate] = []
        self._purse = Purse()
        self._learnt: dict[str, tuple[Start, int]] = {}  # by start: an incumbent failed, a later one succeeded
        self._next_gate = 0
        self._generation = -1
        self._ended: list[Standing] = []  # screened against this incumbent and turned down
        self._screened = 0  # screens that ended against this incumbent
        self._held: list[_Slot] = []
        self._held_asked = 0
        self._heldout_tried: set[int] = set()
        self.finished: str | None = None
        seed_proposal = Proposal("seed", {}, "the policy as it ships", "")
        self._incumbent = self._make(seed_proposal, space.defaults(), None, now_s)
        self._decide(self._incumbent, "accept", "seed", Stage(Call.PASS, "the first incumbent", 0, 0, 0), now_s)
        self._begin_generation()

    # -- work out -----------------------------------------------------------------------------------------------------

    def next_work(self, edge: str, now_s: float) -> Work | None:
        """Return work for a station; None only once the campaign has finished."""
        if self.finished:
            return None
        if self._again:
            return Work((self._hand_out(self._again.popleft()),))
        return (
            self._bank_work()
            or self._heldout_work(now_s)
            or self._gate_work()
            or self._baseline_work()
            or self._screen_work(now_s)
            or self._play_work()
        )

    def record(self, trial: Trial, now_s: float) -> None:
        """Take a trial into account; one that was seen before, or that nobody waits for, changes nothing."""
        if trial.identity in self._seen:
            return
        self._seen.add(trial.identity)
        self._outcomes[trial.outcome] += 1
        slot = self._slots.get(trial.assignment_id)
        if slot is None or (trial.bundle, trial.start_id) != (slot.candidate.bundle, slot.start.start_id):
            return
        del self._slots[trial.assignment_id]
        if trial.outcome is Outcome.INVALID:
            self._fill_again(slot, now_s)
            return
        slot.result = Result(trial.outcome is Outcome.SUCCESS, trial.progress, trial.trial_s, trial.cause)
        if slot.purpose == "play" or self.finished:
            return
        self._events.append(TrialUsed(*trial.identity))
        if slot.purpose not in ("heldout", "bank"):
            slot.candidate.results.append(slot.result)
            if trial.outcome is Outcome.FAILURE and slot.purpose in ("baseline", "screen"):
                slot.candidate.failures[trial.cause] += 1
        self._judge(now_s)

    def expire(self, assignment_id: str, now_s: float) -> None:
        """Ask again for an attempt that nobody will run any more."""
        slot = self._slots.pop(assignment_id, None)
        if slot is not None:
            self._fill_again(slot, now_s)

    def drain(self) -> list[Event]:
        """Return what happened since the last call."""
        events, self._events = self._events, []
        return events

    def snapshot(self) -> Snapshot:
        """Return the campaign as people see it."""
        successes = sum(result.success for result in self._incumbent.results)
        trials = len(self._incumbent.results)
        low, high = exact_interval(successes, trials)
        done = [slot.result for slot in self._held if slot.result is not None]
        return Snapshot(
            incumbent_id=self._incumbent.candidate_id,
            incumbent_params=dict(self._incumbent.params),
            successes=successes,
            trials=trials,
            low=low,
            high=high,
            tried=self._counts["candidate"] - 1,
            accepted=tuple(self._accepted),
            testing=tuple(candidate.proposal.sentence for candidate in self._testing),
            heldout_successes=sum(result.success for result in done),
            heldout_done=len(done),
            heldout_total=self._heldout_total,
            heldout_running=bool(self._held),
            outcomes=dict(self._outcomes),
        )

    # -- where work comes from ----------------------------------------------------------------------------------------

    def _bank_work(self) -> Work | None:
        """Ask for no more attempts on once-failed states than would do if all succeeded."""
        for candidate in self._testing:
            slots = candidate.bank or []
            asked = slots[: candidate.bank_asked]
            hoped = sum(slot.result is None or slot.result.success for slot in asked)
            if len(asked) < len(slots) and hoped < candidate.bank_least:
                candidate.bank_asked += 1
                return Work((self._hand_out(slots[candidate.bank_asked - 1]),))
        return None

    def _heldout_work(self, now_s: float) -> Work | None:
        if not self._held and self._promising():
            self._heldout_tried.add(self._incumbent.candidate_id)
            self._held = [
                self._slot(self._incumbent, start, "heldout") for start in self._starts.heldout[: self._heldout_total]
            ]
            self._held_asked = 0
        if self._held_asked >= len(self._held):
            return None
        self._held_asked += 1
        return Work((self._hand_out(self._held[self._held_asked - 1]),))

    def _promising(self) -> bool:
        results = self._incumbent.results
        rate = sum(result.success for result in results) / max(1, len(results))
        return (
            len(results) >= PROMISING_TRIALS
            and rate >= PROMISING_RATE
            and self._incumbent.candidate_id not in self._heldout_tried
        )

    def _gate_work(self) -> Work | None:
        waiting = [
            item
            for item in self._testing
            if item.state == "gate"
            and item.bank is None
            and (item.pairs or item.lead >= STRONG_LEAD or self._screened >= SCREENED_FIRST)
        ]
        if not waiting or self._next_gate >= len(self._starts.gate):
            return None
        candidate = max(waiting, key=lambda item: item.lead)  # another's pairs wait, and count when it goes on
        if sum(pair.done is None for pair in candidate.pairs) >= PAIRS_AHEAD:
            return None
        if not candidate.pairs:
            candidate.stake, self._purse = self._purse.stake, self._purse.staked()
        start = self._starts.gate[self._next_gate]
        self._next_gate += 1
        name = f"pair-{self._next_gate:04d}"
        seed = self._draw_seed()
        pair = _Pair(
            _Slot(candidate, start, "gate", seed, name),
            _Slot(self._incumbent, start, "gate", seed, name),
            self._near_ceiling(),
        )
        candidate.pairs.append(pair)
        both = [pair.candidate, pair.incumbent]
        if self._rng.integers(0, 2):
            both.reverse()
        return Work(tuple(self._hand_out(slot) for slot in both))

    def _baseline_work(self) -> Work | None:
        for start in self._window():
            if start.start_id not in self._incumbent.screens:
                slot = self._slot(self._incumbent, start, "baseline")
                self._incumbent.screens[start.start_id] = slot
                return Work((self._hand_out(slot),))
        return None

    def _screen_work(self, now_s: float) -> Work | None:
        screening = [item for item in self._testing if item.state == "screen"]
        for candidate in screening:
            if (start := self._screen_start(candidate)) is not None:
                return Work((self._hand_out(self._screen_slot(candidate, start)),))
        if len(screening) > self._stations:
            return None
        return Work((self._hand_out(self._screen_slot(self._propose(now_s), self._window()[0])),))

    def _screen_start(self, candidate: _Candidate) -> Start | None:
        """Return where a candidate in the screen is to be tried next; None while enough of its attempts are out."""
        if sum(slot.result is None for slot in candidate.screens.values()) >= ATTEMPTS_AHEAD:
            return None
        return next((start for start in self._window() if start.start_id not in candidate.screens), None)

    def _screen_slot(self, candidate: _Candidate, start: Start) -> _Slot:
        """Give the first test of a configuration the incumbent's seeds, so that luck is shared; later ones others."""
        first = self._tests[canonical(candidate.params)] == 1
        seed = self._incumbent.screens[start.start_id].seed if first else self._draw_seed()
        slot = candidate.screens[start.start_id] = _Slot(candidate, start, "screen", seed)
        return slot

    def _play_work(self) -> Work:
        start = self._starts.dev[int(self._rng.integers(0, len(self._starts.dev)))]
        return Work((self._hand_out(self._slot(self._incumbent, start, "play")),))

    def _propose(self, now_s: float) -> _Candidate:
        context = ResearchContext(
            incumbent=dict(self._incumbent.params),
            tried=tuple(self._tried),
            known=frozenset(self._closed()),
            failures=dict(self._incumbent.failures),
            standings=(*self._ended, *(item.standing for item in self._testing)),
        )
        proposal = self._researcher.propose(context)
        return self._test(proposal, now_s)

    def _test(self, proposal: Proposal, now_s: float) -> _Candidate:
        params = {**self._incumbent.params, **proposal.changes}
        candidate = self._make(proposal, params, self._incumbent, now_s)
        self._testing.append(candidate)
        return candidate

    # -- judging ------------------------------------------------------------------------------------------------------

    def _judge(self, now_s: float) -> None:
        self._judge_heldout(now_s)
        for candidate in list(self._testing):
            if candidate not in self._testing:
                continue  # superseded by a decision in this very loop
            if candidate.state == "screen":
                self._judge_screen(candidate, now_s)
            elif candidate.state == "gate":
                self._judge_gate(candidate, now_s)

    def _judge_screen(self, candidate: _Candidate, now_s: float) -> None:
        """Look at the attempts in the order of asking, up to the first that is not there."""
        results: list[Result] = []
        for slot in candidate.screens.values():
            if slot.result is None:
                break
            results.append(slot.result)
        candidate.last = stage = screen(results, self._incumbent.results)
        candidate.lead = stage.lead
        self._screened += stage.call is not Call.GO_ON
        if stage.call is Call.PASS:
            candidate.state, candidate.last = "gate", None
            self._events.append(CandidateState(candidate.candidate_id, "gate", None))
        elif stage.call is Call.REJECT:
            self._end(candidate, "reject", "screen", stage, now_s)

    def _judge_gate(self, candidate: _Candidate, now_s: float) -> None:
        """Look at the pairs in the order of asking, up to the first that is not complete; then at the bank."""
        while candidate.bank is None and candidate.judged < len(candidate.pairs):
            done = [pair.done for pair in candidate.pairs[: candidate.judged + 1]]
            complete = [pair for pair in done if pair is not None]
            if len(complete) < len(done):
                return
            candidate.judged += 1
            candidate.last = stage = judge(complete, candidate.stake)
            if stage.call is Call.PASS:
                self._begin_bank(candidate)
            elif stage.call is not Call.GO_ON:
                self._end(candidate, "reject" if stage.call is Call.REJECT else "inconclusive", "gate", stage, now_s)
                return
        if candidate.bank is not None:
            self._judge_bank(candidate, candidate.bank, now_s)

    def _begin_bank(self, candidate: _Candidate) -> None:
        self._drop(candidate)  # pairs beyond those that decided
        successes, trials = _tally(self._incumbent.results)
        states = chosen(list(self._learnt.values()))
        candidate.bank = [_Slot(candidate, start, "bank", seed) for start, seed in states]
        candidate.bank_least = needed(len(states), successes, trials)

    def _judge_bank(self, candidate: _Candidate, slots: list[_Slot], now_s: float) -> None:
        passed = candidate.last
        assert passed is not None  # a candidate comes here from the gate
        results = [slot.result for slot in slots if slot.result is not None]
        call = bank(results, len(slots), candidate.bank_least)
        if call is Call.GO_ON:
            return
        told = f"; once-failed states {sum(item.success for item in results)}/{len(results)}" if results else ""
        stage = replace(passed, call=call, reason=passed.reason + told)
        if call is Call.PASS:
            self._accept(candidate, stage, now_s)
        else:
            self._end(candidate, "reject", "gate", stage, now_s)

    def _near_ceiling(self) -> bool:
        results = self._incumbent.results
        return len(results) >= PROMISING_TRIALS and sum(r.success for r in results) >= CEILING_RATE * len(results)

    def _judge_heldout(self, now_s: float) -> None:
        if not self._held:
            return
        done = [slot.result for slot in self._held if slot.result is not None]
        successes = sum(result.success for result in done)
        hopeless = heldout_hopeless(successes, len(done), self._target, self._heldout_total)
        if len(done) < self._heldout_total and not hopeless:
            return
        self._close_heldout(now_s)
        if successes >= self._target:
            self.finished = "target"

    def _close_heldout(self, now_s: float) -> None:
        """Write down what was measured on held-out starts and stop measuring."""
        done = [slot.result for slot in self._held if slot.result is not None]
        candidate = self._held[0].candidate
        for slot in self._held:
            self._forget(slot)
        self._held, self._held_asked = [], 0
        if not done:
            return
        successes = sum(result.success for result in done)
        low, high = exact_interval(successes, len(done))
        complete = len(done) == self._heldout_total
        self._events.append(
            HeldoutMeasured(
                self._count("heldout"), candidate.candidate_id, successes, len(done), low, high, complete, now_s
            )
        )

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _accept(self, candidate: _Candidate, stage: Stage, now_s: float) -> None:
        self._testing.remove(candidate)
        self._learn(candidate)
        decision = self._decide(candidate, "accept", "gate", stage, now_s)
        self._accepted.append(
            Accepted(
                candidate.candidate_id,
                candidate.proposal.kind,
                candidate.proposal.sentence,
                decision.gain_points,
                decision.candidate_successes,
                decision.candidate_trials,
                now_s,
            )
        )
        others, self._testing = self._testing, []
        promising = [item.proposal for item in others if self._worth_rebasing(item, candidate)]
        for other in others:
            self._give_up(other)
            unseen = Stage(Call.GO_ON, "", 0, 0, 0)
            self._decide(other, "superseded", other.state, other.last or unseen, now_s)
        self._purse = self._purse.gained()
        if self._held:
            self._close_heldout(now_s)
        self._incumbent = candidate
        self._begin_generation()
        for proposal in promising:
            params = {**candidate.params, **proposal.changes}
            if canonical(params) not in self._closed():
                self._test(proposal, now_s)

    def _learn(self, accepted: _Candidate) -> None:
        """Keep the states from which it succeeded and its predecessor failed; drop those that it has lost."""
        for slot in accepted.bank or []:
            if slot.result is not None and not slot.result.success:
                del self._learnt[slot.start.start_id]
        for pair in accepted.pairs[: accepted.judged]:
            if (done := pair.done) is not None and done.mine.success and not done.theirs.success:
                self._learnt[pair.candidate.start.start_id] = (pair.candidate.start, pair.candidate.seed)

    def _give_up(self, candidate: _Candidate) -> None:
        """Wait no longer for a candidate, and take back what its bet still holds."""
        self._drop(candidate)
        if candidate.stake:
            self._purse = self._purse.given_up(candidate.stake, candidate.last.wealth if candidate.last else 1.0)

    def _worth_rebasing(self, other: _Candidate, accepted: _Candidate) -> bool:
        """Return whether nothing speaks against an idea yet, and it is about something else than the accepted one."""
        about_the_same = set(other.proposal.changes) & set(accepted.proposal.changes)
        return not about_the_same and (other.state == "gate" or other.lead >= 0.0)

    def _end(self, candidate: _Candidate, verdict: str, stage_name: str, stage: Stage, now_s: float) -> None:
        self._testing.remove(candidate)
        self._ended.append(candidate.standing)
        self._give_up(candidate)
        self._decide(candidate, verdict, stage_name, stage, now_s)

    def _decide(self, candidate: _Candidate, verdict: str, stage_name: str, stage: Stage, now_s: float) -> DecisionMade:
        mine: list[Result | None]
        theirs: list[Result | None]
        if stage_name == "gate":
            used = [done for pair in candidate.pairs[: stage.pairs] if (done := pair.done) is not None]
            mine = [done.mine for done in used]
            theirs = [done.theirs for done in used]
        else:
            mine = [slot.result for slot in candidate.screens.values()]
            theirs = list(self._incumbent.results)
        won, tried = _tally(mine)
        incumbent_won, incumbent_tried = _tally(theirs)
        decision = DecisionMade(
            decision_id=self._count("decision"),
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
            trials_so_far=sum(self._outcomes.values()),
            decided_unix_s=now_s,
        )
        candidate.state = {"accept": "accepted", "reject": "rejected"}.get(verdict, verdict)
        self._events += [decision, CandidateState(candidate.candidate_id, candidate.state, now_s)]
        if candidate.proposal.kind != "seed":
            proposal = candidate.proposal
            self._tried.append(Tried(proposal.kind, proposal.changes, verdict))
        return decision

    # -- small parts --------------------------------------------------------------------------------------------------

    def _make(
        self, proposal: Proposal, params: dict[str, Value], parent: _Candidate | None, now_s: float
    ) -> _Candidate:
        self._space.validate(params)
        self._tests[canonical(params)] += 1
        hypothesis_id, candidate_id = self._count("hypothesis"), self._count("candidate")
        provenance = {"researcher": self._researcher.name, "kind": proposal.kind, "hypothesis": proposal.sentence}
        bundle = self._publish(params, provenance, None if parent is None else parent.bundle)
        candidate = _Candidate(candidate_id, hypothesis_id, proposal, params, bundle, parent, "screen")
        self._events += [
            HypothesisMade(
                hypothesis_id,
                self._researcher.name,
                proposal.kind,
                proposal.sentence,
                proposal.falsifier,
                dict(proposal.changes),
                now_s,
            ),
            CandidateMade(
                candidate_id,
                hypothesis_id,
                bundle,
                None if parent is None else parent.candidate_id,
                "screen",
                now_s,
            ),
        ]
        return candidate

    def _begin_generation(self) -> None:
        """Give the new incumbent a window of development starts of its own, so that none is fitted for long."""
        self._generation += 1
        self._incumbent.screens = {}
        self._ended, self._screened = [], 0

    def _window(self) -> list[Start]:
        dev = self._starts.dev
        first = self._generation * SCREEN_ATTEMPTS
        return [dev[(first + k) % len(dev)] for k in range(SCREEN_ATTEMPTS)]

    def _slot(self, candidate: _Candidate, start: Start, purpose: str) -> _Slot:
        return _Slot(candidate, start, purpose, self._draw_seed())

    def _closed(self) -> set[str]:
        """Return the configurations that are not to be tested now: in test, the incumbent, or turned down often."""
        often = {text for text, tests in self._tests.items() if tests >= CHANCES}
        return often | {canonical(item.params) for item in [self._incumbent, *self._testing]}

    def _draw_seed(self) -> int:
        return int(self._rng.integers(0, 2**31))

    def _hand_out(self, slot: _Slot) -> Attempt:
        slot.assignment_id = f"{self._run}-{self._count('assignment'):06d}"
        self._slots[slot.assignment_id] = slot
        return Attempt(
            assignment_id=slot.assignment_id,
            candidate_id=slot.candidate.candidate_id,
            bundle=slot.candidate.bundle,
            start_id=slot.start.start_id,
            start=dict(slot.start.coordinates),
            seed=slot.seed,
            purpose=slot.purpose,
            pair_id=slot.pair_id,
        )

    def _fill_again(self, slot: _Slot, now_s: float) -> None:
        slot.assignment_id = ""
        slot.refills += 1
        candidate = slot.candidate
        if slot.refills >= MOST_REFILLS and candidate in self._testing:
            unjudged = Stage(Call.INCONCLUSIVE, f"{slot.refills} attempts on one start could not be judged", 0, 0, 0)
            self._end(candidate, "inconclusive", candidate.state, unjudged, now_s)
        elif slot.purpose != "play":
            self._again.append(slot)

    def _drop(self, candidate: _Candidate) -> None:
        """Wait no longer for a candidate's attempts, nor for the incumbent's in its pairs."""
        for slot in (*candidate.screens.values(), *(candidate.bank or [])):
            self._forget(slot)
        for pair in candidate.pairs:
            self._forget(pair.candidate)
            self._forget(pair.incumbent)

    def _forget(self, slot: _Slot) -> None:
        self._slots.pop(slot.assignment_id, None)
        if slot in self._again:
            self._again.remove(slot)

    def _count(self, name: str) -> int:
        self._counts[name] += 1
        return self._counts[name]


def _tally(results: Sequence[Result | None]) -> tuple[int, int]:
    valid = [result for result in results if result is not None]
    return sum(result.success for result in valid), len(valid)
