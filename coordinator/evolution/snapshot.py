"""A campaign at one moment, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.evolution.book import Accepted, Book
from coordinator.evolution.candidate import tally
from coordinator.evolution.measuring import Measuring
from coordinator.evolution.rates import exact_interval
from policies.interface import Value


@dataclass(frozen=True)
class Snapshot:
    """The campaign at one moment."""

    incumbent_id: int
    incumbent_params: Mapping[str, Value]
    successes: int  # of the incumbent's valid baseline, screen and gate trials
    trials: int
    low: float
    high: float
    tried: int
    accepted: tuple[Accepted, ...]
    testing: tuple[str, ...]  # sentences in the screen or at the gate
    heldout_successes: int  # of the measurement that runs, on audit starts too
    heldout_done: int
    heldout_total: int
    heldout_running: bool
    outcomes: Mapping[str, int]


def snapshot(book: Book, measuring: Measuring) -> Snapshot:
    """Return what people see."""
    successes, trials = tally(book.incumbent.results)
    low, high = exact_interval(successes, trials)
    held = (0, 0) if measuring.current is None else measuring.current.counts
    return Snapshot(
        incumbent_id=book.incumbent.candidate_id,
        incumbent_params=dict(book.incumbent.source.params),
        successes=successes,
        trials=trials,
        low=low,
        high=high,
        tried=len(book.candidates) - 1,
        accepted=tuple(book.accepted),
        testing=tuple(candidate.proposal.sentence for candidate in book.testing),
        heldout_successes=held[0],
        heldout_done=held[1],
        heldout_total=measuring.total,
        heldout_running=measuring.current is not None,
        outcomes=dict(book.outcomes),
    )
