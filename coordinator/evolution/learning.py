"""What a trial adds to what is known of its policy, and to what researchers are shown."""

from __future__ import annotations

from coordinator.evolution.book import Book
from coordinator.evolution.candidate import Slot
from coordinator.evolution.evidence import result_of
from coordinator.evolution.ideas import DevResult
from coordinator.evolution.records import TrialUsed
from edge.records import Trial

ON_DEV = ("baseline", "screen", "play")  # purposes whose starts are for development


def learn(book: Book, slot: Slot, trial: Trial) -> None:
    """Take in an attempt that counts."""
    book.tell(TrialUsed(*trial.identity))
    candidate, result = slot.candidate, result_of(trial)
    if slot.purpose in (*ON_DEV, "gate"):
        candidate.results.append(result)
    if slot.purpose in ON_DEV:
        seen = DevResult(slot.start.start_id, result.success, result.progress, result.cause, result.seconds)
        candidate.dev.append(seen)
        if not result.success:
            candidate.failures[result.cause] += 1


def learn_late(book: Book, slot: Slot, trial: Trial) -> None:
    """Take in an attempt whose test has ended: of the incumbent, or of a candidate that researchers still see."""
    of_incumbent = slot.candidate is book.incumbent and slot.purpose == "gate"
    shown = slot.candidate in book.ended and slot.purpose == "screen"
    if of_incumbent or shown:
        learn(book, slot, trial)
