"""The figures of a run: written to summary.json, and told to a person in a few lines.

They are computed from the database as the report does it, with what only the running coordinator knows beside: memory,
when the command began, and what stations had begun and not delivered.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordinator.report.gains import points
from coordinator.report.measures import (
    APART,
    ATTEMPTS,
    HELDOUT,
    Count,
    Incumbent,
    idea_counts,
    incumbents,
    invalid_causes,
    pass_at,
    resets,
    robot_use,
    station_minutes,
    tried_against,
)
from coordinator.report.milestones import (
    EPISODES,
    SHARES,
    Milestone,
    climb,
    clock_minutes,
    success_at,
    time_to,
    to_target,
    token_use,
)
from coordinator.report.run import Idea, Run, load
from coordinator.report.verdicts import verdicts
from coordinator.store import FILE as DATABASE
from edge.records import OWN_PURPOSES

FILE = "summary.json"


@dataclass(frozen=True)
class Observed:
    """What the database does not hold."""

    began_unix_s: float  # when the command was typed
    pace: float
    station_peak_mb: Mapping[str, float]
    coordinator_peak_mb: float
    begun: Mapping[str, int]  # station -> number of the last trial that it said it had begun


@dataclass(frozen=True)
class Integrity:
    """Whether every trial arrived, once; all zero is right."""

    lost: int  # numbers that an edge passed over
    at_stations: int  # begun and not delivered when the run ended: in a station's ledger
    doubled: int  # attempts that were run twice
    invented: int  # trials of attempts that nobody asked for, neither the campaign nor a roll-out
    quarantined: int


def summarise(folder: Path, observed: Observed) -> dict[str, Any]:
    """Return every figure of the run in `folder`."""
    run = load(folder)
    line = incumbents(run)
    use = robot_use(run)
    valid = [trial for trial in run.trials if trial.valid]
    ran_s = [trial.wall_trial_min * 60.0 for trial in run.trials]
    return {
        "folder": str(folder),
        "task": run.campaign.task if run.campaign else "",
        "seed": run.campaign.seed if run.campaign else None,
        "stations": len(run.stations),
        "pace": observed.pace,
        "ended_why": run.campaign.ended_why if run.campaign else "",
        "wall_minutes": run.minutes,
        "station_minutes": station_minutes(run),
        "speed": station_minutes(run) * 60.0 / max(sum(ran_s) + _wall_reset_s(run), 1e-9),
        "target": _target(run),
        "from": _success(run, line[0]) if line else None,
        "to": _success(run, line[-1]) if line else None,
        "audit": _audit(run),
        "verdicts": {name: _count(Count(**value)) for name, value in asdict(verdicts(run)).items()},
        "climb": climb(run),
        "clock_minutes": clock_minutes(run),
        "accepted": [_accepted(run, item.idea) for item in line if item.idea.parent_candidate_id is not None],
        "ideas": idea_counts(run),
        "trials": {
            "total": len(run.trials),
            "valid": len(valid),
            "successes": sum(trial.outcome == "success" for trial in valid),
            "used": sum(trial.used for trial in run.trials),
            "per_minute": len(run.trials) / run.minutes if run.minutes else 0.0,
            "invalid_by_cause": dict(invalid_causes(run)),
        },
        "mru": {
            "any_experiment": use.any_experiment,
            "useful": use.useful,
            "any_with_resets": use.any_at_work,
            "useful_with_resets": use.useful_at_work,
            "agents": use.agents,
            "offline_researcher": use.candidates - use.agents,
        },
        "mtu": asdict(token_use(run)),
        "time_to": {f"{share:.2f}": _milestone(time_to(run, share)) for share in SHARES},
        "to_target": _milestone(to_target(run)),
        f"at_{EPISODES}_episodes": _milestone(success_at(run)),
        "reset_share": use.resetting,
        "reset": _reset(run),
        "first_trial_s": _first_trial_s(folder, observed),
        "minutes_to_first_accept": _first_accept_minute(line),
        "minutes_to_target": _target_minute(run),
        "memory": {
            "stations_peak_mb": dict(observed.station_peak_mb),
            "coordinator_peak_mb": observed.coordinator_peak_mb,
        },
        "integrity": asdict(check_integrity(folder / DATABASE, observed.begun)),
        "files": {
            "report": "report.html",
            "database": DATABASE,
            "hillclimb": "hillclimb.png",
            "idea_tree": "idea_tree.png",
        },
    }


def check_integrity(database: Path, begun: Mapping[str, int]) -> Integrity:
    """Count what is missing, there twice or unasked-for; every edge numbers its trials from 1 without gaps."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as db:
        ledgers = db.execute("SELECT edge, COUNT(*), MAX(sequence) FROM trials GROUP BY edge, epoch").fetchall()
        delivered = Counter[str]()
        # A station says only the number of its newest ledger, which is the one that the stations table names.
        for edge, last in db.execute(
            "SELECT stations.edge, MAX(sequence) FROM stations JOIN trials USING (edge, epoch) GROUP BY stations.edge"
        ):
            delivered[edge] = last
        return Integrity(
            lost=sum(last - count for _, count, last in ledgers),
            at_stations=sum(max(0, last - delivered[edge]) for edge, last in begun.items()),
            doubled=_one(
                db, "SELECT COALESCE(SUM(n - 1), 0) FROM (SELECT COUNT(*) n FROM trials GROUP BY assignment_id)"
            ),
            invented=_one(
                db,
                "SELECT COUNT(*) FROM trials WHERE assignment_id NOT IN (SELECT assignment_id FROM assignments)"
                f" AND purpose NOT IN ({', '.join('?' * len(OWN_PURPOSES))})",
                *OWN_PURPOSES,
            ),
            quarantined=_one(db, "SELECT COUNT(*) FROM quarantine"),
        )


def write_summary(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write summary.json whole, or not at all."""
    path = folder / FILE
    unfinished = path.with_suffix(".part")
    with open(unfinished, "w") as out:
        json.dump(summary, out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(path)
    return path


def _success(run: Run, incumbent: Incumbent) -> dict[str, Any]:
    """Return a claim of success with all that it must carry."""
    bundle = incumbent.idea.bundle
    heldout = incumbent.heldout is not None
    counted = [item for item in run.trials if (item.purpose == HELDOUT if heldout else item.purpose not in APART)]
    mine = [item for item in counted if item.bundle == bundle]
    return {
        **_count(incumbent.best_count),
        "pass_at_1": pass_at(1, incumbent.best_count),
        f"pass_at_{ATTEMPTS}": pass_at(ATTEMPTS, incumbent.best_count),
        "starts": incumbent.starts,
        # A measurement that was stopped leans low, and starts that chose the policy lean high.
        "complete": any(row.complete for row in run.heldout if row.candidate_id == incumbent.idea.candidate_id),
        "invalid": incumbent.heldout_invalid,
        # Of whichever policy: the more there were, the more a success rate near the target owes to luck.
        "heldout_measurements": len(run.heldout),
        "policy": bundle,
        "stations": sorted({trial.edge for trial in mine}),
        "station_hashes": sorted({trial.station_hash for trial in mine}),
        "calibration_hashes": sorted({trial.calibration_hash for trial in mine}),
        "seed": run.campaign.seed if run.campaign else None,
        "generation": incumbent.generation,
    }


def _milestone(reached: Milestone | None) -> dict[str, Any] | None:
    return None if reached is None else {**asdict(reached), "success": _count(reached.success)}


def _count(count: Count) -> dict[str, Any]:
    low, high = count.bounds_percent
    return {
        "successes": count.successes,
        "trials": count.trials,
        "percent": count.percent,
        "low_percent": low,
        "high_percent": high,
    }


def _accepted(run: Run, idea: Idea) -> dict[str, Any]:
    decision = idea.decision
    assert decision is not None and idea.parent_candidate_id is not None  # noqa: PT018 - the seed alone has neither
    return {
        "candidate_id": idea.candidate_id,
        "sentence": idea.sentence,
        "kind": idea.kind,
        "change": idea.short,
        "changes": dict(idea.changes),
        "policy": idea.bundle,
        "gain": points(run, idea, decision),
        "gain_points": decision.gain_points,
        "of_tried": tried_against(run, idea.parent_candidate_id),
        "pairs": decision.pairs,
        "wins": decision.wins,
        "losses": decision.losses,
        "minute": decision.minute,
    }


def _target(run: Run) -> dict[str, Any] | None:
    if run.campaign is None:
        return None
    return {
        "successes": run.campaign.target_successes,
        "trials": run.campaign.target_trials,
        "reached": _target_minute(run) is not None,
    }


def _target_minute(run: Run) -> float | None:
    reached = to_target(run)
    return None if reached is None else reached.minute


def _audit(run: Run) -> dict[str, Any] | None:
    """Return the last measurement on audit starts, which nothing was chosen by."""
    if not run.audits:
        return None
    last = run.audits[-1]
    counted = _count(Count(last.successes, last.trials))
    return {**counted, "complete": last.complete, "candidate_id": last.candidate_id, "invalid": last.invalid}


def _first_accept_minute(line: tuple[Incumbent, ...]) -> float | None:
    return line[1].from_minute if len(line) > 1 else None


def _reset(run: Run) -> dict[str, Any] | None:
    found = resets(run)
    if found is None:
        return None
    return {"ready_at_first_try": _count(found.first_try), "median_station_s": found.median_s}


def _wall_reset_s(run: Run) -> float:
    return sum(trial.wall_reset_min for trial in run.trials) * 60.0


def _first_trial_s(folder: Path, observed: Observed) -> float | None:
    """Return how long after the command the first attempt that counts was finished."""
    with closing(sqlite3.connect(f"{(folder / DATABASE).resolve().as_uri()}?mode=ro", uri=True)) as db:
        first = _one(db, "SELECT MIN(ended_unix_s) FROM trials WHERE outcome != 'invalid'")
    return None if first is None else first - observed.began_unix_s


def _one(db: sqlite3.Connection, query: str, *values: str) -> Any:
    return db.execute(query, values).fetchone()[0]
