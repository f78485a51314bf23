"""What to try next and what has been found: the campaign as a state machine without clock, network or disk.

Attempts go out by `next_work`, results come back by `record`, lost ones by `expire`, ideas come in by `propose` and
`play`, stations come and go by `station`; `drain` gives the events to keep. The same calls in the same order give the
same events, so that a campaign can be had again from its calls.

- The campaign asks nobody: `wants` and `wants_play` return what a researcher is to be shown, None while enough waits.
- Work goes out by urgency, see `scheduling.work`; while there is no other there is play, so that work ends only where
  a station's wear budget says so.
- The incumbent moves by a decision only, and what all gates together may risk on false gains is kept in one purse.
  What was promising against the old incumbent is merged into the new one and tried again.
- What a policy leaves that cannot be judged is not a success: it counts as a failure wherever it was asked for, so
  that no policy gains by being hard to judge. An attempt that failed before its policy ran, or was cut short, is asked
  for again.
- After the target is reached the incumbent is measured on audit starts, where that was asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from coordinator.evolution.book import Book
from coordinator.evolution.candidate import Candidate, Slot, tally
from coordinator.evolution.evidence import Call, Stage, result_of
from coordinator.evolution.gating import Gate, slots_of
from coordinator.evolution.ideas import (
    Play,
    Proposal,
    ProposalRefused,
    ResearchContext,
    Workshop,
)
from coordinator.evolution.intake import Intake
from coordinator.evolution.learning import ON_DEV, learn, learn_late
from coordinator.evolution.measuring import Measurement, Measuring
from coordinator.evolution.plays import MOST_REFILLS, Plays
from coordinator.evolution.records import Event
from coordinator.evolution.screening import Screening
from coordinator.evolution.slots import Slots
from coordinator.evolution.snapshot import Snapshot as Snapshot
from coordinator.evolution.snapshot import snapshot
from coordinator.evolution.starts import Starts
from coordinator.scheduling.dispatch import Dispatch
from coordinator.scheduling.flight import Flight, flight
from coordinator.scheduling.health import CANARIES
from coordinator.scheduling.wear import WearBudget
from coordinator.scheduling.work import Attempt as Attempt
from coordinator.scheduling.work import Offer, Urgency, first
from coordinator.scheduling.work import Work as Work
from edge.records import Outcome, Trial, is_tried

MEASURED = ("heldout", "audit")
MOST_AT_GATE = 12  # candidates that wait there or are in test, beyond which no researcher is asked
UNSEEN = Stage(Call.GO_ON, "", 0, 0, 0)
REVOKED = Stage(Call.REJECT, "a person has revoked it", 0, 0, 0)


class Campaign:
    """Improves one policy of one task with whatever stations ask for work."""

    def __init__(
        self, workshop: Workshop, starts: Starts, seed: int, *, target: int = 46, heldout: int = 50, audit: int = 0,
        stations: int = 4, wear: WearBudget | None = None, now_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Begin with the policy as it ships.

        Args:
            target: successes of `heldout` held-out starts that end the campaign.
            audit: starts to measure the final incumbent on after that.
            stations: how many are expected; more candidates are in test where more stations come.
        """
        self._expected = stations
        self._book = book = Book(seed)
        self._intake = Intake(workshop, book)
        self._measuring = Measuring(book, starts, target=target, heldout=heldout, audit=audit)
        self._slots = Slots(f"{round(now_s * 1e3):x}")
        self._dispatch = Dispatch(wear or WearBudget())
        self._screening, self._gate = Screening(book, starts), Gate(book, starts)
        self._plays = Plays()
        self._rebases: deque[tuple[Candidate, Candidate]] = deque()  # idea, the incumbent that it was tested against
        self._seen: set[tuple[str, str, int]] = set()
        self.finished: str | None = None  # "target", "revoked", or "starts" once the gate has no fresh ones left
        self._intake.ship(now_s)
        self._screening.begin()

    # -- ideas --------------------------------------------------------------------------------------------------------

    def wants(self, now_s: float, researcher: str = "") -> ResearchContext | None:
        """Return what a researcher is shown; None while enough candidates wait, or once the campaign has ended."""
        in_screen = sum(1 for _ in self._screening.screening)
        enough = (
            in_screen > self._flight.candidates
            or sum(item.state == "gate" for item in self._book.testing) >= MOST_AT_GATE
            or self._screening.waiting(self._flight.attempts) > 0
            or len(self._rebases) > 0
        )
        if self.finished or self._measuring.ending or enough or not self._screening.baseline_asked:
            return None
        return self._book.context(researcher)

    def propose(self, proposal: Proposal, researcher: str, now_s: float) -> str:
        """Take a proposal into test; return why not where it is not, which is told by an event too.

        Raises:
            CoordinatorError: it could not be published; nothing has changed.
        """
        if self.finished or self._measuring.ending:
            return self._intake.refuse(proposal, researcher, "the campaign has reached its target", now_s)
        return self._intake.take(proposal, researcher, now_s)

    def wants_play(self, now_s: float, researcher: str = "") -> ResearchContext | None:
        """Return what a researcher is shown to choose attempts that would teach something; None while some wait.

        Its `proposals` are the plays that this researcher has asked for.
        """
        if self.finished or self._measuring.ending or self._plays.wait:
            return None
        return replace(self._book.context(researcher), proposals=self._book.plays[researcher])

    def play(self, play: Play, researcher: str, now_s: float) -> str:
        """Queue attempts that nothing is decided on; return why not where they are not.

        Raises:
            CoordinatorError: they could not be published; nothing has changed.
        """
        if self.finished or self._measuring.ending:
            return "the campaign has reached its target"
        try:
            bundle = self._intake.play(play, researcher, now_s)
        except ProposalRefused as error:
            return str(error)
        self._plays.add((self._screening.somewhere("play", bundle) for _ in range(play.attempts)), researcher)
        return ""

    def unmade(self, bundle: str) -> int:
        """Return how many attempts of an agent's play are still to come."""
        return self._plays.unmade(bundle)

    # -- work ---------------------------------------------------------------------------------------------------------

    def next_work(self, edge: str, now_s: float, ahead: int = 0) -> Work | None:
        """Return work for a station; None, and nothing has changed, once the campaign has ended or where it rests.

        Args:
            ahead: attempts that the station holds beyond the one that it runs; with one there it gets no other that
                can wait, so that what is urgent later comes to its turn soon.

        Raises:
            CoordinatorError: an idea could not be published anew; nothing has changed.
        """
        if self.finished:
            return None
        if self._rebases:  # one a call, so that a failure to publish it leaves all as it was
            self._intake.rebase(*self._rebases[0], now_s)
            self._rebases.popleft()
        if self._dispatch.health.due(edge):
            return None if ahead else self._hand_out([self._screening.somewhere("check")], edge, now_s)
        offers = self._offers(edge, now_s)
        return first([offer for offer in offers if not ahead or offer[0] < Urgency.OFFLINE])

    def record(self, trial: Trial, now_s: float) -> None:
        """Take a trial into account; one that was seen before, or that nobody waits for, changes nothing."""
        if trial.identity in self._seen:
            return
        self._seen.add(trial.identity)
        book = self._book
        book.outcomes[trial.outcome] += 1
        slot = self._slots.answered(trial)
        believed = not self._dispatch.health.quarantined(trial.edge)
        tried = is_tried(trial.outcome, trial.cause)
        if slot is None:
            late = self._slots.late(trial)
            if late is not None and believed and tried and not self.finished:
                learn_late(book, late, trial)
            return
        if not self._plays.of_agent(slot):  # what an agent tries is not its incumbent's cost
            slot.tested.station_s += trial.reset_s + trial.trial_s
        told = self._dispatch.took(slot, trial, book.incumbent.candidate_id, self._rate_elsewhere(trial.edge))
        for edge, sentence in told:
            book.station_told(edge, sentence, now_s)
            if self._dispatch.health.doubted(edge):
                for place in self._measuring.doubt(edge):
                    self._slots.ask_again(place)
        believed = believed and not self._dispatch.health.doubted(trial.edge)
        if slot.purpose == "play":
            self._take_play(slot, trial, believed and tried, now_s)
        elif slot.purpose == "check":
            pass
        elif not believed:
            self._slots.ask_again(slot)  # by another station, whatever came out
        elif not tried:
            self._fill_again(slot, trial, now_s)
        else:
            self._fill(slot, trial, now_s)

    def expire(self, assignment_id: str, now_s: float) -> None:
        """Ask again for an attempt that nobody will run any more; a pair then begins anew on whichever station asks."""
        slot = self._slots.lost(assignment_id)
        if slot is None:
            return
        if slot.bundle:
            self._plays.again(slot)
        elif slot.purpose not in ("check", "play"):
            slot.lost_on.add(slot.edge)
            slot.edge = "" if slot.pair else slot.edge
            self._slots.ask_again(slot)

    def station(self, edge: str, what: str, now_s: float) -> None:
        """Note that a station is "here" or "away"."""
        self._dispatch.health.present(edge, what == "here")

    def revoke(self, bundle: str, now_s: float) -> None:
        """Test a policy no longer that a person has forbidden; where it is the incumbent, the campaign has ended."""
        if self.finished:
            return
        if bundle == self._book.incumbent.bundle:
            self.finished = "revoked"
        self._rebases = deque(item for item in self._rebases if item[0].bundle != bundle)
        for candidate in [item for item in self._book.testing if item.bundle == bundle]:
            self._end(candidate, "reject", candidate.state, REVOKED, now_s)

    @property
    def bundles(self) -> frozenset[str]:
        """Those that are in test, and the incumbent's."""
        return frozenset(item.bundle for item in (self._book.incumbent, *self._book.testing))

    @property
    def incumbent(self) -> Candidate:
        """The policy that the campaign stands on."""
        return self._book.incumbent

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every candidate there was, in their order."""
        return tuple(self._book.candidates.values())

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The assignments that are out."""
        return tuple(self._slots.out)

    def drain(self) -> list[Event]:
        """Return what happened since the last call."""
        return self._book.drain()

    def snapshot(self) -> Snapshot:
        """Return the campaign as people see it."""
        return snapshot(self._book, self._measuring)

    # -- what to hand out ---------------------------------------------------------------------------------------------

    @property
    def _flight(self) -> Flight:
        return flight(len(self._dispatch.health.usable) or self._expected)

    def _offers(self, edge: str, now_s: float) -> list[Offer]:
        """Return where work comes from, most urgent first among equals."""

        def one(slot: Slot | None) -> Work | None:
            return None if slot is None else self._hand_out([slot], edge, now_s)

        def some(slots: Sequence[Slot]) -> Work | None:
            return self._hand_out(slots, edge, now_s) if slots else None

        def play() -> Work | None:
            return one(self._screening.play()) if self._dispatch.wear.may_play(edge, now_s) else None

        return [
            (Urgency.CONFIRM, lambda: some(self._slots.again(edge, self._dispatch.health.usable))),
            (Urgency.CONFIRM, lambda: one(self._gate.next_bank())),
            (Urgency.CONFIRM, lambda: one(self._measuring.next())),
            (
                Urgency.CONFIRM,
                lambda: some(
                    []
                    if self._measuring.ending
                    else self._gate.next_pair(self._screening.ended, self._flight.pairs, self._flight.pairs_alone)
                ),
            ),
            (Urgency.AGENTS, lambda: one(None if self._measuring.ending else self._screening.baseline())),
            (Urgency.AGENTS, lambda: one(self._screen(Urgency.AGENTS))),
            (Urgency.OFFLINE, lambda: one(self._learn() or self._screen(Urgency.OFFLINE))),
            (Urgency.PLAY, play),
        ]

    def _hand_out(self, slots: Sequence[Slot], edge: str, now_s: float) -> Work:
        for slot in slots:
            self._dispatch.handed(slot, edge, self._book.incumbent.candidate_id, now_s)
        return self._slots.hand_out(slots, edge)

    def _screen(self, urgency: Urgency) -> Slot | None:
        slot = None if self._measuring.ending else self._screening.next(urgency, self._flight.attempts)
        if slot is not None:
            self._plays.screened()
        return slot

    def _learn(self) -> Slot | None:
        """Return an attempt that a researcher learns from."""
        screens_wait = self._plays.wait and self._screening.waiting(self._flight.attempts) > 0
        return self._plays.next(screens_wait)

    # -- what came back -----------------------------------------------------------------------------------------------

    def _fill(self, slot: Slot, trial: Trial, now_s: float) -> None:
        slot.result = result_of(trial)
        slot.invalid = trial.outcome is Outcome.INVALID
        if self.finished:
            return
        learn(self._book, slot, trial)
        self._judge(slot, now_s)

    def _rate_elsewhere(self, edge: str) -> tuple[int, int]:
        """Return the incumbent's successes and attempts on the other stations that are believed; where few, on all."""
        results, health = self._book.incumbent.results, self._dispatch.health
        others = [item for item in results if item.station != edge and not health.quarantined(item.station)]
        return tally(others if len(others) >= CANARIES else results)

    def _take_play(self, slot: Slot, trial: Trial, counts: bool, now_s: float) -> None:
        """Take in what a policy noted; the incumbent as it is adds to its baseline too."""
        if (played := self._plays.took(slot, trial, counts)) is not None:
            self._book.played.append(played)
        if not slot.bundle and counts:
            self._fill(slot, trial, now_s)

    def _fill_again(self, slot: Slot, trial: Trial, now_s: float) -> None:
        """Ask again for an attempt that failed before its policy ran, or was cut short, though not for ever."""
        slot.refills += 1
        slot.failed_on.add(trial.edge)
        usable = self._dispatch.health.usable
        everywhere = len(slot.failed_on & usable) >= min(MOST_REFILLS, len(usable))
        if slot.refills < MOST_REFILLS or not everywhere:
            self._slots.ask_again(slot)
        elif slot.purpose in MEASURED:
            self._fill(slot, trial, now_s)
        elif slot.tested in self._book.testing:
            reason = f"{slot.refills} attempts on {slot.start.start_id} could not be made ({trial.cause})"
            untried = Stage(Call.INCONCLUSIVE, reason, 0, 0, 0)
            self._end(slot.tested, "inconclusive", slot.tested.state, untried, now_s)

    def _judge(self, slot: Slot, now_s: float) -> None:
        if slot.purpose in MEASURED:
            self._judge_measurement(now_s)
        elif slot.candidate is self._book.incumbent and slot.purpose in ON_DEV:
            for candidate in list(self._screening.screening):
                self._judge_screen(candidate, now_s)
        elif slot.tested.state == "screen" and slot.tested in self._book.testing:
            self._judge_screen(slot.tested, now_s)
        elif slot.tested.state == "gate" and slot.tested in self._book.testing:
            self._judge_gate(slot.tested, now_s)
        if self.finished is None and self._gate.exhausted and not self._measuring.due:
            self.finished = "starts"

    def _judge_screen(self, candidate: Candidate, now_s: float) -> None:
        stage = self._screening.judge(candidate)
        if stage.call is Call.PASS:
            candidate.last = None
            self._book.changed_state(candidate, "gate")
        elif stage.call is Call.REJECT:
            self._end(candidate, "reject", "screen", stage, now_s)

    def _judge_gate(self, candidate: Candidate, now_s: float) -> None:
        stage, dropped = self._gate.judge(candidate)
        self._slots.forget(dropped)
        if stage.call is Call.PASS:
            self._accept(candidate, stage, now_s)
        elif stage.call is not Call.GO_ON:
            verdict = "reject" if stage.call is Call.REJECT else "inconclusive"
            self._end(candidate, verdict, "gate", stage, now_s)

    def _judge_measurement(self, now_s: float) -> None:
        measured = self._measuring.judge()
        if measured is None:
            return
        self._close(measured, now_s)
        if measured.purpose == "heldout" and measured.reached and self._measuring.begin_audit():
            for candidate in list(self._book.testing):
                self._supersede(candidate, now_s)
            self._plays.clear()
        elif measured.reached:
            self.finished = "target"

    def _close(self, measured: Measurement, now_s: float) -> None:
        self._slots.forget(measured.slots)
        self._measuring.close(measured, now_s)

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _accept(self, candidate: Candidate, stage: Stage, now_s: float) -> None:
        book = self._book
        book.testing.remove(candidate)
        self._gate.accepted(candidate)
        book.gained(candidate, book.decide(candidate, "accept", "gate", stage, now_s))
        old = book.incumbent
        if candidate.proposal.not_worse:
            self._measuring.replaced(old, candidate)
        for other in list(book.testing):
            if other.state == "gate" or other.lead >= 0.0:  # nothing speaks against it yet
                self._rebases.append((other, old))
            self._supersede(other, now_s)
        if self._measuring.current is not None:
            self._close(self._measuring.current, now_s)
        book.incumbent, book.ended = candidate, []
        self._dispatch.health.forget_outcomes()
        self._screening.begin()

    def _end(self, candidate: Candidate, verdict: str, stage_name: str, stage: Stage, now_s: float) -> None:
        self._book.testing.remove(candidate)
        self._book.ended.append(candidate)
        self._give_up(candidate)
        self._book.decide(candidate, verdict, stage_name, stage, now_s)

    def _supersede(self, candidate: Candidate, now_s: float) -> None:
        self._book.testing.remove(candidate)
        self._give_up(candidate)
        self._book.decide(candidate, "superseded", candidate.state, candidate.last or UNSEEN, now_s)

    def _give_up(self, candidate: Candidate) -> None:
        """Wait no longer for a candidate, and take back what its bet still holds."""
        self._slots.forget(slots_of(candidate))
        self._gate.given_up(candidate)
