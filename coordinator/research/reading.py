"""What a researcher reads out of its context: what is about the present incumbent, what a change was worth, what fails.

Only development starts are in a context by name, and of a gate no more than its sums, so nothing here can leak another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.evolution.ideas import DevResult, ResearchContext, Standing, Tried
from policies.interface import Value

PROGRESS_WORTH = 0.2  # of a success: what orders attempts that all fail
SECONDS_WORTH = 0.05  # of a success: what an attempt costs that takes as long as the incumbent's
STALE = 0.25  # what a test against an earlier incumbent counts
HELP_WEIGHT = 8.0
WHOLE = 1.0 + HELP_WEIGHT  # what an option deserves that was not tried and helps against all failures
SCREEN_FULL = 8.0  # attempts of a whole screen
NO_GAIN = ("reject", "inconclusive")
AFTER_GATE = 0.3  # of a screen's lead that a gate did not bear out
GATE_COUNTS = 16.0  # attempts that a gate without a gain is worth
UNDECIDED_COUNTS = 64.0  # and at most one that gained something but could not show it
LEAST_VARIANCE = 0.02  # of the incumbent's success


@dataclass(frozen=True)
class Seen:
    """What is known of one change, so far as it was tried."""

    candidate_id: int
    changes: Mapping[str, Value]
    files: Mapping[str, bytes]
    dev: tuple[DevResult, ...]
    decided: bool


@dataclass(frozen=True)
class Effect:
    """How much better a change was in the screen, and how many attempts say so."""

    changes: Mapping[str, Value]
    files: Mapping[str, bytes]  # empty where it was tested against an earlier incumbent
    lead: float  # in standard deviations of a whole screen
    attempts: float


def present(context: ResearchContext) -> list[Tried]:
    """Return what was tested against the present incumbent."""
    accepted = [item.candidate_id for item in context.tried if item.verdict == "accept"]
    if not accepted:
        return list(context.tried)
    return [item for item in context.tried if item.parent_id == accepted[-1]]


def seen(context: ResearchContext) -> list[Seen]:
    """Return what is known against the present incumbent, tests that still run among it."""
    files = {item.candidate_id: item.files for item in context.standings}
    ids = {item.candidate_id for item in context.tried}
    done = [
        Seen(item.candidate_id, item.changes, files.get(item.candidate_id, {}), item.dev, True)
        for item in present(context)
    ]
    running = [
        Seen(item.candidate_id, item.changes, item.files, item.dev, False)
        for item in context.standings
        if item.candidate_id not in ids
    ]
    return [*done, *running]


def worth(dev: Sequence[DevResult], incumbent: Sequence[DevResult]) -> float:
    """Return how much better attempts went than the incumbent's: per attempt, a success counts 1.

    Each is compared with the incumbent's on the same start where there are such, else with all of them, else with 0.
    """
    typical_s = float(np.mean([item.seconds for item in incumbent])) if incumbent else 0.0
    gains = []
    for item in dev:
        others = [other for other in incumbent if other.start_id == item.start_id] or list(incumbent)
        theirs = float(np.mean([_score(other, typical_s) for other in others])) if others else 0.0
        gains.append(_score(item, typical_s) - theirs)
    return float(np.mean(gains)) if gains else 0.0


def effects(context: ResearchContext) -> list[Effect]:
    """Return what each test says of its change, those against earlier incumbents for a part of it."""
    mine = {item.candidate_id for item in present(context)}
    files = {item.candidate_id: item.files for item in context.standings}
    found = []
    for tried in context.tried:
        content = files.get(tried.candidate_id, {})
        counts = 1.0 if tried.candidate_id in mine else STALE
        attempts = len(tried.dev) or SCREEN_FULL
        found.append(Effect(tried.changes, content, tried.lead * (SCREEN_FULL / attempts) ** 0.5, counts * attempts))
        if tried.stage == "gate" and tried.verdict in NO_GAIN:
            measured = _undecided(tried) and tried.candidate_id in mine
            lead, attempts = _at_gate(tried, context) if measured else (0.0, counts * GATE_COUNTS)
            found.append(Effect(tried.changes, content, lead, attempts))
    return found


def _at_gate(tried: Tried, context: ResearchContext) -> tuple[float, float]:
    """Return the lead that an undecided gate has seen, of a whole screen, and what it counts.

    What varies in a pair is both of its attempts, so two pairs say as much as one attempt against a known rate.
    """
    lead = SCREEN_FULL**0.5 * tried.gain_points / 100.0 / _spread(context)
    return float(lead), min(tried.pairs / 2.0, UNDECIDED_COUNTS)


def led(item: Standing, context: ResearchContext) -> float:
    """Return the lead that a change is believed to have: at a gate without a gain it turned out to be luck.

    A gate that ends undecided may have seen a gain, too small to be shown in so many pairs; it leads by that.
    """
    given_up = {
        tried.candidate_id: tried for tried in context.tried if tried.stage == "gate" and tried.verdict in NO_GAIN
    }
    tried = given_up.get(item.candidate_id)
    if tried is None:
        return item.lead
    gain = tried.gain_points / 100.0 if _undecided(tried) else 0.0
    return max(item.lead * AFTER_GATE, float(gain * (tried.pairs / 2.0) ** 0.5 / _spread(context)))


def _undecided(tried: Tried) -> bool:
    return tried.verdict == "inconclusive" and tried.pairs > 0


def _spread(context: ResearchContext) -> float:
    """Return the standard deviation of the incumbent's success."""
    rate = success_rate(context)
    return float(max(LEAST_VARIANCE, rate * (1.0 - rate)) ** 0.5)


def dominant(context: ResearchContext) -> str:
    """Return the incumbent's most frequent failure class on development starts, empty where it did not fail."""
    return max(sorted(context.failures), key=lambda name: context.failures[name], default="")


def help_share(helps: Sequence[str], context: ResearchContext) -> float:
    """Return for which share of the incumbent's failures something claims to help."""
    total = sum(context.failures.values())
    return sum(count for name, count in context.failures.items() if name in helps) / total if total else 0.0


def deserved(helps: Sequence[str], tries: float, context: ResearchContext) -> float:
    """Return how much a change deserves a try: it claims to help against what is seen, and was tried little."""
    return (1.0 + HELP_WEIGHT * help_share(helps, context)) / (1.0 + tries) ** 2


def success_rate(context: ResearchContext) -> float:
    """Return the incumbent's share of successes on development starts, 0 where it has none."""
    return sum(item.success for item in context.dev) / max(1, len(context.dev))


def _score(item: DevResult, typical_s: float) -> float:
    late = item.seconds / typical_s if typical_s > 0.0 else 0.0
    return float(item.success) + PROGRESS_WORTH * item.progress - SECONDS_WORTH * late
