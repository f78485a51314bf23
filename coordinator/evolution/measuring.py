"""Measures one policy on starts that choose nothing: held-out ones for the target, audit ones after it."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from coordinator.evolution.book import Book
from coordinator.evolution.candidate import Candidate, Slot, tally
from coordinator.evolution.evidence import heldout_hopeless
from coordinator.evolution.rates import exact_interval
from coordinator.evolution.records import AuditMeasured, HeldoutMeasured
from coordinator.evolution.starts import Start, Starts

# Each incumbent is measured on held-out starts once, but for `doubt`, so it is once that may well reach the target:
PROMISING_TRIALS = 12  # it has so many trials,
PROMISING_CHANCE = 0.25  # and the rate in them (with Laplace's prior) reaches the target with at least this chance.


class Measurement:
    """One policy on a list of starts, which may be stopped early."""

    def __init__(self, purpose: str, candidate: Candidate, places: Sequence[tuple[Start, int]], target: int) -> None:
        """Measure `candidate` on (start, seed) `places`; `target` successes are hoped for, 0 to run all of them."""
        self.purpose, self.candidate = purpose, candidate
        self.slots = [Slot(candidate, start, purpose, seed) for start, seed in places]
        self._target = target
        self._asked = 0

    def next(self) -> Slot | None:
        """Return the next place; None once all were asked for."""
        if self._asked >= len(self.slots):
            return None
        self._asked += 1
        return self.slots[self._asked - 1]

    @property
    def counts(self) -> tuple[int, int]:
        """Successes and valid trials."""
        done = [slot.result for slot in self.slots if slot.result is not None]
        return sum(result.success for result in done), len(done)

    @property
    def over(self) -> bool:
        """Whether all is measured, or the target cannot be reached any more."""
        successes, done = self.counts
        return done == len(self.slots) or heldout_hopeless(successes, done, self._target, len(self.slots))

    @property
    def reached(self) -> bool:
        """Whether all is measured and the target is reached."""
        successes, done = self.counts
        return done == len(self.slots) and successes >= self._target

    @property
    def invalid(self) -> int:
        """How many of its trials count as failures because what the policy left could not be judged."""
        return sum(slot.invalid for slot in self.slots)

    def for_want_of(self, edge: str) -> bool:
        """Return whether the target was missed by failures on that station: without them it could be reached yet."""
        failed = [slot.edge == edge for slot in self.slots if slot.result is not None and not slot.result.success]
        return any(failed) and len(self.slots) - failed.count(False) >= self._target

    def reopen(self, edge: str) -> list[Slot]:
        """Empty the places that a station filled which is not believed any more, whatever came out, and return them."""
        doubted = [slot for slot in self.slots if slot.result is not None and slot.edge == edge]
        for slot in doubted:
            slot.result, slot.invalid = None, False
        return doubted


class Measuring:
    """When the incumbent is measured, and what came of it.

    Each measurement has held-out starts of its own while there are such; then the first ones' come again.
    """

    def __init__(self, book: Book, starts: Starts, *, target: int, heldout: int, audit: int) -> None:
        """Hope for `target` successes of `heldout` starts; after that run `audit` more, 0 for none."""
        self._book = book
        self._target = target
        size = min(heldout, len(starts.heldout))
        self._blocks = [starts.heldout[k : k + size] for k in range(0, len(starts.heldout) - size + 1, max(1, size))]
        self._size, self._audit = size, starts.audit[:audit]
        self._measured: set[int] = set()  # candidates that were tried on held-out starts, or are as good as one
        self._count = 0  # of measurements on held-out starts
        self._missed: Measurement | None = None  # the last one, where it did not reach the target
        self._again: set[int] = set()  # candidates that were let be measured once more
        self.current: Measurement | None = None

    @property
    def ending(self) -> bool:
        """Whether the target is reached and only the audit is left."""
        return self.current is not None and self.current.purpose == "audit"

    @property
    def due(self) -> bool:
        """Whether a measurement runs or may begin now."""
        return self.current is not None or (self._size > 0 and self._promising())

    @property
    def total(self) -> int:
        """How many starts the measurement has that runs, or the next one on held-out starts."""
        return self._size if self.current is None else len(self.current.slots)

    def next(self) -> Slot | None:
        """Return the next place, of a measurement that may begin now; None where there is none."""
        if self.current is None and self.due:
            self._measured.add(self._book.incumbent.candidate_id)
            self.current = self._of("heldout", self._blocks[self._count % len(self._blocks)], self._target)
            self._count += 1
        return None if self.current is None else self.current.next()

    def judge(self) -> Measurement | None:
        """Return the measurement if it is over."""
        return self.current if self.current is not None and self.current.over else None

    def close(self, measured: Measurement, now_s: float) -> None:
        """Write down what was measured and stop measuring."""
        self.current = None
        self._missed = None if measured.reached else measured
        successes, done = measured.counts
        if done:
            made = AuditMeasured if measured.purpose == "audit" else HeldoutMeasured
            number, who = self._book.count(measured.purpose), measured.candidate.candidate_id
            low, high = exact_interval(successes, done)
            complete = done == len(measured.slots)
            self._book.tell(made(number, who, successes, done, low, high, complete, now_s, measured.invalid))

    def doubt(self, edge: str) -> list[Slot]:
        """Believe a station no longer; return the places of the measurement that are to be filled anew.

        Where the incumbent has missed the target already, and without the failures on that station might not have, it
        is measured once more; once only.
        """
        if self.current is not None:
            return self.current.reopen(edge)
        missed, who = self._missed, self._book.incumbent.candidate_id
        mine = missed is not None and missed.candidate.candidate_id == who and missed.for_want_of(edge)
        if mine and who not in self._again:
            self._again.add(who)
            self._measured.discard(who)
        return []

    def replaced(self, old: Candidate, new: Candidate) -> None:
        """Let a simplification of `old` be measured only if that was not: another draw of the same would be luck."""
        if old.candidate_id in self._measured:
            self._measured.add(new.candidate_id)

    def begin_audit(self) -> bool:
        """Measure the incumbent on audit starts from now on; return False where nobody asked for that."""
        if self._audit:
            self.current = self._of("audit", self._audit, 0)
        return bool(self._audit)

    def _of(self, purpose: str, starts: Sequence[Start], target: int) -> Measurement:
        places = [(start, self._book.draw_seed()) for start in starts]
        return Measurement(purpose, self._book.incumbent, places, target)

    def _promising(self) -> bool:
        won, tried = tally(self._book.incumbent.results)
        fresh = self._book.incumbent.candidate_id not in self._measured
        if not fresh or tried < PROMISING_TRIALS:
            return False
        return chance(self._target, self._size, (won + 1) / (tried + 2)) >= PROMISING_CHANCE


def chance(target: int, starts: int, rate: float) -> float:
    """Return the chance of at least `target` successes from so many starts at a success rate."""
    return sum(comb(starts, k) * rate**k * (1.0 - rate) ** (starts - k) for k in range(target, starts + 1))
