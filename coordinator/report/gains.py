"""What an accepted idea gained at the gate: success, progress between two failures, or time between two successes.

A decision keeps how many pairs were won; which kind of win each was follows from the attempts of its pairs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from coordinator.evolution.evidence import PROGRESS_MARGIN
from coordinator.report.run import Decision, Half, Idea, Run


@dataclass(frozen=True)
class Gain:
    """What the pairs of a decision show."""

    wins: int
    by_success: int  # of the wins
    by_progress: int  # of the wins; the rest are by time
    progress_points: float  # mean progress minus the incumbent's, percentage points

    @property
    def mostly_progress(self) -> bool:
        """Whether more pairs were won by progress than by success."""
        return self.by_progress > self.by_success


def gain(run: Run, idea: Idea) -> Gain | None:
    """Return what an idea's pairs at the gate show; None where it came to none, or they are not all there."""
    made = idea.decision
    if made is None or made.stage != "gate" or not made.pairs:
        return None
    pairs = _pairs(run, idea)[: made.pairs]
    if len(pairs) < made.pairs:
        return None
    return Gain(
        wins=made.wins,
        by_success=sum(mine.success and not theirs.success for mine, theirs in pairs),
        by_progress=sum(
            not mine.success and not theirs.success and mine.progress - theirs.progress >= PROGRESS_MARGIN
            for mine, theirs in pairs
        ),
        progress_points=100.0 * sum(mine.progress - theirs.progress for mine, theirs in pairs) / len(pairs),
    )


def points(run: Run, idea: Idea, made: Decision) -> str:
    """Return a gain for a label: of progress where that won most pairs, of success otherwise."""
    shown = gain(run, idea)
    if shown is not None and shown.mostly_progress:
        return f"{shown.progress_points:+.0f} points of progress"
    return f"{made.gain_points:+.0f} points"


def words(run: Run, idea: Idea, made: Decision) -> str:
    """Return a gain for a table: of success, and what won the pairs where that was not success alone."""
    shown = gain(run, idea)
    said = f"{made.gain_points:+.0f} points"
    if shown is None or shown.by_success >= shown.wins:
        return said
    by_time = max(shown.wins - shown.by_success - shown.by_progress, 0)
    kinds = ((shown.by_success, "success"), (shown.by_progress, "progress"), (by_time, "time"))
    won = ", ".join(f"{pairs} by {kind}" for pairs, kind in kinds if pairs)
    progress = f" of success, {shown.progress_points:+.0f} of progress" if shown.by_progress else ""
    return f"{said}{progress} (wins: {won})"


def _pairs(run: Run, idea: Idea) -> list[tuple[Half, Half]]:
    """Return the complete pairs of an idea and the incumbent that it was tried against, in the order of asking."""
    halves: dict[str, dict[int, Half]] = defaultdict(dict)
    for half in run.halves:
        halves[half.pair_id][half.candidate_id] = half
    both = (idea.candidate_id, idea.parent_candidate_id)
    found = [(name, half) for name, half in halves.items() if all(number in half for number in both)]
    found.sort(key=lambda item: (len(item[0]), item[0]))  # their numbers rise, and may outgrow their zeros
    return [(half[both[0]], half[both[1]]) for _, half in found if both[1] is not None]
