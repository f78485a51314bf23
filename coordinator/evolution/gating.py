"""The gate: pairs on fresh starts for the candidate that promises most so far, then the bank of once-failed states.

What all gates together may risk on false gains is kept in one purse. Pairs are looked at in the order of asking, up to
the first that is not complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coordinator.evolution.book import Book
from coordinator.evolution.campaign_alpha import Purse
from coordinator.evolution.candidate import Candidate, Pair, Slot, tally
from coordinator.evolution.evidence import GATE_CAP, Call, Stage, most_pairs, worth_having
from coordinator.evolution.pairs import Paired, judge, judge_simpler
from coordinator.evolution.regression import bank, chosen, needed
from coordinator.evolution.starts import Start, Starts

STRONG_LEAD = 3.5  # of a screen: such an idea goes to the gate at once,
SCREENED_FIRST = 10  # another waits until so many were screened or none is left to be, so that it is for the best
ONE_OUT_OF = 6  # pairs of a long gate may be out beyond the usual, as few of them would be for nothing
SHARES_OF_STARTS = 5  # no gate may use more of the starts that are left than one of so many shares
MOST_BEHIND = 3  # times what may be out: a station that stays silent must not use the starts up
CEILING_RATE, CEILING_TRIALS = 0.9, 12


class Gate:
    """Asks for pairs and attempts on once-failed states, and says what they mean."""

    def __init__(self, book: Book, starts: Starts) -> None:
        self._book, self._starts = book, starts.gate
        self._purse = Purse()
        self._next = 0  # of the gate's starts
        self._learnt: dict[str, tuple[Start, int]] = {}  # by start: an incumbent failed, a later one succeeded

    def next_pair(self, screened: int, most_out: int, alone: int = 0) -> list[Slot]:
        """Return both halves of the next pair in a random order; none where nobody needs one.

        Args:
            screened: how many screens ended against this incumbent.
            most_out: pairs in flight beyond those decided on,
            alone: and where nobody is in the screen, so that no station is left with play only.
        """
        in_screen = any(item.state == "screen" for item in self._book.testing)
        waiting = [
            item
            for item in self._book.testing
            if item.state == "gate"
            and item.bank is None
            and (item.pairs or item.lead >= STRONG_LEAD or screened >= SCREENED_FIRST or not in_screen)
        ]
        if not waiting or self._next >= len(self._starts):
            return []
        # What waits keeps its pairs: it goes on when it looks the best again.
        candidate = max(waiting, key=lambda item: item.promise)
        out = sum(pair.done is None for item in waiting for pair in item.pairs)
        behind = sum(len(item.pairs) - item.judged for item in waiting)  # those that wait for one that is out, too
        most_out = max(most_out, candidate.judged // ONE_OUT_OF, 0 if in_screen else alone)
        if out >= most_out or behind >= MOST_BEHIND * most_out:
            return []
        if not candidate.pairs:
            candidate.stake, self._purse = self._purse.stake, self._purse.staked()
            candidate.worth = worth_having(*tally(self._book.incumbent.results))
            fair = max(GATE_CAP, (len(self._starts) - self._next) // SHARES_OF_STARTS)
            candidate.most_pairs = min(most_pairs(candidate.worth), fair)
        return self._pair(candidate)

    @property
    def exhausted(self) -> bool:
        """Whether no fresh start is left, and nothing is out that could still decide."""
        out = any(pair.done is None for item in self._book.testing for pair in item.pairs)
        return self._next >= len(self._starts) and not out and not any(item.bank for item in self._book.testing)

    def next_bank(self) -> Slot | None:
        """Return the next once-failed state; no more are out than would do if all succeeded."""
        for candidate in self._book.testing:
            slots = candidate.bank or []
            asked = slots[: candidate.bank_asked]
            hoped = sum(slot.result is None or slot.result.success for slot in asked)
            if len(asked) < len(slots) and hoped < candidate.bank_least:
                candidate.bank_asked += 1
                return slots[candidate.bank_asked - 1]
        return None

    def judge(self, candidate: Candidate) -> tuple[Stage, list[Slot]]:
        """Say what the candidate's pairs, then its attempts on the bank, mean; and what is waited for no longer."""
        dropped: list[Slot] = []
        while candidate.bank is None and candidate.judged < len(candidate.pairs):
            done = [pair.done for pair in candidate.pairs[: candidate.judged + 1]]
            complete = [pair for pair in done if pair is not None]
            if len(complete) < len(done):
                break
            candidate.judged += 1
            candidate.last = stage = _judge(candidate, complete)
            if stage.call is Call.PASS:
                dropped = slots_of(candidate)  # pairs beyond those that decided
                self._begin_bank(candidate)
            elif stage.call is not Call.GO_ON:
                return stage, dropped
        if candidate.bank is None:
            return Stage(Call.GO_ON, "", candidate.judged, 0, 0), dropped
        return self._judge_bank(candidate, candidate.bank), dropped

    def accepted(self, candidate: Candidate) -> None:
        """Keep the states from which it succeeded and its predecessor failed; drop those that it has lost.

        A simplification has shown no gain, and puts nothing into the purse.
        """
        if not candidate.proposal.not_worse:
            self._purse = self._purse.gained()
        for slot in candidate.bank or []:
            if slot.result is not None and not slot.result.success:
                del self._learnt[slot.start.start_id]
        for pair in candidate.pairs[: candidate.judged]:
            if (done := pair.done) is not None and done.mine.success and not done.theirs.success:
                self._learnt[pair.candidate.start.start_id] = (pair.candidate.start, pair.candidate.seed)

    def given_up(self, candidate: Candidate) -> None:
        """Take back what a bet still holds."""
        if candidate.stake:
            now = candidate.last.wealth if candidate.state == "gate" and candidate.last else 1.0
            self._purse = self._purse.given_up(candidate.stake, now)

    def _pair(self, candidate: Candidate) -> list[Slot]:
        start = self._starts[self._next]
        self._next += 1
        seed = self._book.draw_seed()
        mine = Slot(candidate, start, "gate", seed)
        theirs = Slot(self._book.incumbent, start, "gate", seed)
        pair = Pair(f"pair-{self._next:04d}", mine, theirs, self._near_ceiling())
        mine.pair = theirs.pair = pair
        candidate.pairs.append(pair)
        return [theirs, mine] if self._book.rng.integers(0, 2) else [mine, theirs]

    def _begin_bank(self, candidate: Candidate) -> None:
        successes, trials = tally(self._book.incumbent.results)
        states = chosen(list(self._learnt.values()))
        candidate.bank = [Slot(candidate, start, "bank", seed) for start, seed in states]
        candidate.bank_least = needed(len(states), successes, trials)

    def _judge_bank(self, candidate: Candidate, slots: list[Slot]) -> Stage:
        passed = candidate.last
        assert passed is not None  # a candidate comes here from the gate
        results = [slot.result for slot in slots if slot.result is not None]
        call = bank(results, len(slots), candidate.bank_least)
        told = f"; once-failed states {sum(item.success for item in results)}/{len(results)}" if results else ""
        return replace(passed, call=call, reason=passed.reason + told)

    def _near_ceiling(self) -> bool:
        won, tried = tally(self._book.incumbent.results)
        return tried >= CEILING_TRIALS and won >= CEILING_RATE * tried


def _judge(candidate: Candidate, pairs: Sequence[Paired]) -> Stage:
    if candidate.proposal.not_worse:
        return judge_simpler(pairs, candidate.stake)
    return judge(pairs, candidate.stake, candidate.worth, candidate.most_pairs)


def slots_of(candidate: Candidate) -> list[Slot]:
    """Return all places for the sake of a candidate, the incumbent's in its pairs too."""
    halves = [half for pair in candidate.pairs for half in (pair.candidate, pair.incumbent)]
    return [*candidate.screens.values(), *(candidate.bank or []), *halves]
