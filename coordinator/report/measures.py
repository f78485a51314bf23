"""The figures of a run: counts with intervals, incumbents, use of the robots, resets and failures.

- A success rate is a Count: k of n valid trials with the exact 95 % interval. Invalid trials leave n, counted apart.
- Held-out and audit trials are never pooled with the trials that chose a policy, nor are checks of a station, which
  tell of it rather than of the policy, and the attempts of a roll-out, which no campaign asked for.
- Use of the robots (MRU) is wall time in trials over the wall time of the run, as a mean over the stations; once with
  the resets by the robots, once without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from coordinator.evolution import rates
from coordinator.evolution.rates import exact_interval
from coordinator.report.run import Heldout, Idea, Run, TrialRow
from edge.records import OWN_PURPOSES

HELDOUT = "heldout"
NOT_OF_POLICY = frozenset(("check", *OWN_PURPOSES))  # purposes of attempts that tell of the station or of a roll-out
APART = NOT_OF_POLICY | {HELDOUT, "audit"}  # purposes that no success of a policy is pooled over
HELDOUT_STARTS, CHOSEN_BY = "held-out", "development and gate"  # starts; the second chose the policy, so they lean high
ATTEMPTS = 8  # of pass@8
PAPER_MRU = {1: 0.491, 4: 0.309, 8: 0.298}  # by robots: ENPIRE (arXiv 2606.19980), Fig. 7
VERDICTS = {  # of ideas, in words
    "accept": "accepted",
    "reject": "rejected",
    "inconclusive": "inconclusive",
    "superseded": "superseded",
    "open": "undecided at the end",
}


@dataclass(frozen=True)
class Count:
    """k successes in n valid trials."""

    successes: int
    trials: int

    @property
    def percent(self) -> float:
        """The rate, 0 where nothing was tried."""
        return 100.0 * self.successes / self.trials if self.trials else 0.0

    @property
    def bounds_percent(self) -> tuple[float, float]:
        """The exact 95 % interval; everything is possible where nothing was tried."""
        if not self.trials:
            return (0.0, 100.0)
        low, high = exact_interval(self.successes, self.trials)
        return (100.0 * low, 100.0 * high)

    @property
    def text(self) -> str:
        """k/n with rate and interval, for a person."""
        if not self.trials:
            return "no trials"
        low, high = self.bounds_percent
        return f"{self.successes}/{self.trials} = {self.percent:.0f} % (95 % interval {low:.0f}–{high:.0f} %)"


@dataclass(frozen=True)
class Incumbent:
    """A policy that was the best known one for a while."""

    idea: Idea
    generation: int
    from_minute: float
    to_minute: float
    pooled: Count  # every valid trial of it that chose policies, whenever it ran: not those APART
    heldout: Count | None  # its largest held-out measurement
    heldout_invalid: int  # of that one, failures because they could not be judged

    @property
    def best_count(self) -> Count:
        """The count to quote: held-out where it was measured, else pooled."""
        return self.heldout or self.pooled

    @property
    def starts(self) -> str:
        """Which starts that count is over."""
        return HELDOUT_STARTS if self.heldout else CHOSEN_BY


def unjudged(invalid: int) -> str:
    """Return the words beside a count that say how many of its failures could not be judged; empty for none."""
    return f", {invalid} of the failures could not be judged" if invalid else ""


def count(trials: Iterable[TrialRow]) -> Count:
    """Return successes over valid trials."""
    outcomes = [trial.outcome for trial in trials if trial.valid]
    return Count(outcomes.count("success"), len(outcomes))


def incumbents(run: Run) -> tuple[Incumbent, ...]:
    """Return every incumbent in the order in which they ruled; empty where no seed was written."""
    accepted = sorted((idea for idea in run.ideas if idea.verdict == "accept"), key=_ruled_from)
    starts = [_ruled_from(idea) for idea in accepted]
    return tuple(
        Incumbent(
            idea=idea,
            generation=generation,
            from_minute=start,
            to_minute=end,
            pooled=count(trial for trial in run.trials if trial.bundle == idea.bundle and trial.purpose not in APART),
            heldout=Count(row.successes, row.trials) if (row := _heldout(run, idea)) else None,
            heldout_invalid=row.invalid if row else 0,
        )
        for generation, (idea, (start, end)) in enumerate(zip(accepted, pairwise([*starts, run.minutes]), strict=True))
    )


def _ruled_from(idea: Idea) -> float:
    return 0.0 if idea.parent_candidate_id is None or idea.decision is None else idea.decision.minute


def _heldout(run: Run, idea: Idea) -> Heldout | None:
    # A measurement that was stopped early because the target was out of reach is biased low, so a complete one wins.
    rows = sorted(
        (row for row in run.heldout if row.candidate_id == idea.candidate_id),
        key=lambda row: (row.complete, row.trials),
    )
    return rows[-1] if rows and rows[-1].trials else None


def idea_counts(run: Run) -> dict[str, int]:
    """Return how many ideas beside the seed met each verdict; they add up to `tried`."""
    verdicts = Counter(idea.verdict for idea in run.ideas if idea.parent_candidate_id is not None)
    return {"tried": sum(verdicts.values()), **{name: verdicts[name] for name in VERDICTS}}


def tried_against(run: Run, candidate_id: int) -> int:
    """Return how many ideas were tried against that incumbent, whatever became of them."""
    return sum(idea.parent_candidate_id == candidate_id for idea in run.ideas)


def idea_words(counts: Mapping[str, int]) -> str:
    """Return the counts of `idea_counts` for a person; of the rarer verdicts only those that were met."""
    told = [name for name in VERDICTS if counts.get(name) or name in ("accept", "reject")]
    return f"{counts['tried']} tried: " + ", ".join(f"{counts[name]} {VERDICTS[name]}" for name in told)


def depth(run: Run, idea: Idea) -> int:
    """Return how many accepted ideas stand between this one and the seed, the seed itself being 0."""
    steps = 0
    while idea.parent_candidate_id is not None:
        idea = run.idea(idea.parent_candidate_id)
        steps += 1
    return steps


def lineage(run: Run, idea: Idea) -> tuple[Idea, ...]:
    """Return the ideas from the seed to this one."""
    line = [idea]
    while line[-1].parent_candidate_id is not None:
        line.append(run.idea(line[-1].parent_candidate_id))
    return tuple(reversed(line))


@dataclass(frozen=True)
class RobotUse:
    """Shares of the stations' wall time, [0, 1]."""

    any_experiment: float
    useful: float  # trials that entered a decision, a baseline or a held-out measurement
    candidates: float  # trials of policies that a researcher made, not of the seed
    agents: float  # of those that a language model made
    resetting: float
    any_at_work: float  # any experiment with its resets, as bench/mru.py counts
    useful_at_work: float  # those that entered something, with their resets


def robot_use(run: Run) -> RobotUse:
    """Return the mean use of the robots, three ways, and the share that resets took."""
    available_min = run.minutes * max(station_count(run), 1)
    if available_min <= 0.0:
        return RobotUse(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    made = {idea.bundle for idea in run.ideas if idea.kind != "seed"}
    models = {call.researcher for call in run.token_calls}
    agents = {idea.bundle for idea in run.ideas if idea.kind != "seed" and idea.researcher in models}
    return RobotUse(
        sum(trial.wall_trial_min for trial in run.trials) / available_min,
        sum(trial.wall_trial_min for trial in run.trials if trial.used) / available_min,
        sum(trial.wall_trial_min for trial in run.trials if trial.bundle in made) / available_min,
        sum(trial.wall_trial_min for trial in run.trials if trial.bundle in agents) / available_min,
        sum(trial.wall_reset_min for trial in run.trials) / available_min,
        sum(trial.wall_reset_min + trial.wall_trial_min for trial in run.trials) / available_min,
        sum(trial.wall_reset_min + trial.wall_trial_min for trial in run.trials if trial.used) / available_min,
    )


def station_count(run: Run) -> int:
    """Return how many stations were asked for, or took part where that is more."""
    seen = {trial.edge for trial in run.trials} | {station.edge for station in run.stations}
    return max(len(seen), run.campaign.stations if run.campaign else 0)


def station_minutes(run: Run) -> float:
    """Return the minutes of the stations' own clocks that trials and resets took."""
    return sum(trial.trial_s + trial.reset_s for trial in run.trials) / 60.0


@dataclass(frozen=True)
class Resets:
    """How the arm put scenes back."""

    first_try: Count  # ready after one try, of those that needed any
    median_s: float  # station time


def resets(run: Run) -> Resets | None:
    """Return how resets went, None where no scene had to be reset."""
    # A reset that was broken off because somebody asked the station to stop is none.
    moved = [
        trial for trial in run.trials if trial.reset_tries > 0 and not (trial.cause == "stopped" and not trial.trial_s)
    ]
    if not moved:
        return None
    # An invalid trial with one try is one whose scene never became ready.
    ready = [trial for trial in moved if trial.reset_tries == 1 and not trial.cause.startswith("reset")]
    return Resets(Count(len(ready), len(moved)), median(trial.reset_s for trial in moved))


def tried_for_itself(run: Run, bundle: str) -> list[TrialRow]:
    """Return the trials whose failures are that policy's own: those of checks are the station's as often as not."""
    return [trial for trial in run.trials if trial.bundle == bundle and trial.purpose not in NOT_OF_POLICY]


def failure_classes(run: Run, bundle: str) -> Counter[str]:
    """Return how often each failure class ended a valid trial of that policy."""
    return Counter(trial.cause or "unnamed" for trial in tried_for_itself(run, bundle) if trial.outcome == "failure")


def invalid_causes(run: Run) -> Counter[str]:
    """Return how often each fault of the harness spoiled a trial."""
    return Counter(trial.cause or "unnamed" for trial in run.trials if not trial.valid)


def pass_at(attempts: int, measured: Count) -> float | None:
    """Return the unbiased estimate that at least one of `attempts` independent tries succeeds.

    None where fewer than `attempts` trials were measured.
    """
    return rates.pass_at(attempts, measured.successes, measured.trials)
