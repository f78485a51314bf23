"""How far the judge can be believed, as far as a run can tell: abstentions, repeated verdicts, canaries.

What was really so a run cannot know; `bench/verdict_truth.py` and `bench/pin_truth.py` measure that against emulated
benches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from coordinator.report.measures import Count, count
from coordinator.report.run import Run, TrialRow

ABSTAINED = "undecided"  # the cause of a trial whose judge saw too little
CANARY = "check"


@dataclass(frozen=True)
class Verdicts:
    """Each as k of n; n is 0 where there was nothing of the kind."""

    abstentions: Count  # of the trials that came to a verdict
    agreement: Count  # of valid trials, with the one before of the same policy from the same start
    canaries: Count  # successes of attempts that tell of a station rather than of a policy


def verdicts(run: Run) -> Verdicts:
    """Return what the run's trials tell of their judge."""
    abstained = sum(trial.cause == ABSTAINED for trial in run.trials)
    judged = abstained + sum(trial.valid for trial in run.trials)
    pairs = [(before.outcome, after.outcome) for before, after in _repeated(run.trials)]
    return Verdicts(
        abstentions=Count(abstained, judged),
        agreement=Count(sum(before == after for before, after in pairs), len(pairs)),
        canaries=count(trial for trial in run.trials if trial.purpose == CANARY),
    )


def _repeated(trials: Iterable[TrialRow]) -> list[tuple[TrialRow, TrialRow]]:
    """Return neighbours in time of one policy from one start, valid ones, each trial in one pair at most."""
    same: dict[tuple[str, str], list[TrialRow]] = defaultdict(list)
    for trial in trials:
        if trial.valid:
            same[trial.bundle, trial.start_id].append(trial)
    return [pair for some in same.values() for pair in list(pairwise(some))[::2]]
