"""How soon a run came how far: time, trials and tokens to a share of success, success after so many trials, tokens.

A share of success is reached by a complete measurement on held-out starts only. Its interval says how sure that is:
50 of 50 is at least 93 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from coordinator.agents.prices import NANO_USD
from coordinator.report.measures import HELDOUT_STARTS, Count, incumbents
from coordinator.report.run import Idea, Run, TrialRow

SHARES = (0.95, 0.99)
EPISODES = 128  # the budget at which EvoPolicyGym compares researchers


@dataclass(frozen=True)
class Milestone:
    """What it took to get somewhere."""

    minute: float  # wall time from the start of the run
    station_minutes: float  # of the stations' own clocks, trials and resets, over all stations
    clock_minutes: float  # of the one station's own clock that had the most of it
    trials: int  # finished by then, invalid ones too
    tokens: int  # of language models, in and out
    success: Count
    starts: str = HELDOUT_STARTS  # that it is over


@dataclass(frozen=True)
class TokenUse:
    """What language models read and wrote (MTU)."""

    tokens: int
    per_minute: float
    per_accept: float | None  # None where no idea of a language model was accepted
    usd: float
    usd_per_accept: float | None


def time_to(run: Run, share: float) -> Milestone | None:
    """Return the first complete held-out measurement with at least that share of success; None where there is none."""
    reached = (row for row in run.heldout if row.complete and row.trials and row.successes >= share * row.trials)
    first = min(reached, key=lambda row: row.minute, default=None)
    return None if first is None else _milestone(run, first.minute, Count(first.successes, first.trials))


def to_target(run: Run) -> Milestone | None:
    """Return the first complete held-out measurement that met the campaign's target; None where there is none."""
    wanted = run.campaign.target_successes if run.campaign else None
    met = (row for row in run.heldout if wanted is not None and row.complete and row.successes >= wanted)
    first = min(met, key=lambda row: row.minute, default=None)
    return None if first is None else _milestone(run, first.minute, Count(first.successes, first.trials))


def success_at(run: Run, episodes: int = EPISODES) -> Milestone | None:
    """Return how good the policy was that ruled when so many trials had ended; None where there were fewer.

    Its success is the count to quote, whenever it was measured.
    """
    ended = sorted(map(_ended_minute, run.trials))
    reigns = incumbents(run)
    if len(ended) < episodes or not reigns:
        return None
    minute = ended[episodes - 1]
    ruled = [reign for reign in reigns if reign.from_minute <= minute]
    return replace(_milestone(run, minute, ruled[-1].best_count), starts=ruled[-1].starts) if ruled else None


def climb(run: Run) -> list[dict[str, float]]:
    """Return the steps of the hill-climb over the stations' own time: when each incumbent came, and its success.

    Success is the count to quote, in percent with its 95 % interval; an incumbent that was never measured is left out.
    """
    steps = []
    for reign in incumbents(run):
        if reign.best_count.trials:
            low, high = reign.best_count.bounds_percent
            at = _milestone(run, reign.from_minute, reign.best_count).clock_minutes
            steps.append(
                {"clock_minutes": at, "percent": reign.best_count.percent, "low_percent": low, "high_percent": high}
            )
    return steps


def clock_minutes(run: Run) -> float:
    """Return the minutes of the one station's own clock that had the most trials and resets in the whole run."""
    return _milestone(run, math.inf, Count(0, 0)).clock_minutes


def token_use(run: Run) -> TokenUse:
    """Return the use of tokens over the whole run."""
    tokens = sum(call.tokens for call in run.token_calls)
    usd = sum(call.nano_usd for call in run.token_calls) / NANO_USD
    asked = {call.researcher for call in run.token_calls}
    accepted = len([idea for idea in accepted_ideas(run) if idea.researcher in asked])
    return TokenUse(
        tokens,
        tokens / run.minutes if run.minutes else 0.0,
        tokens / accepted if accepted else None,
        usd,
        usd / accepted if accepted else None,
    )


def accepted_ideas(run: Run) -> list[Idea]:
    """Return the ideas that were accepted, the seed apart."""
    return [idea for idea in run.ideas if idea.verdict == "accept" and idea.parent_candidate_id is not None]


def _milestone(run: Run, minute: float, success: Count) -> Milestone:
    before = [trial for trial in run.trials if _ended_minute(trial) <= minute]
    clocks: dict[str, float] = {}
    for trial in before:
        clocks[trial.edge] = clocks.get(trial.edge, 0.0) + trial.trial_s + trial.reset_s
    return Milestone(
        minute=minute,
        station_minutes=sum(clocks.values()) / 60.0,
        clock_minutes=max(clocks.values(), default=0.0) / 60.0,
        trials=len(before),
        tokens=sum(call.tokens for call in run.token_calls if call.minute <= minute),
        success=success,
    )


def _ended_minute(trial: TrialRow) -> float:
    return trial.start_minute + trial.wall_reset_min + trial.wall_trial_min
