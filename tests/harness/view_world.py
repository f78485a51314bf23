"""Databases of the newest format, filled row by row, for tests of their views."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge.records import OWN_PURPOSES, Outcome, Trial

MIGRATIONS = Path(__file__).parents[2] / "coordinator" / "migrations"
ROLLOUT = dict.fromkeys(OWN_PURPOSES, "roll-out")
APART = {"heldout": "held-out", "audit": "audit", "check": "check", **ROLLOUT}  # purposes, and how the views name them
NOW_S = 1_700_000_000.0
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle="b",
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.FAILURE, cause="near", detail="2 mm off",
    progress=0.9, measures={"coverage": 0.93}, achieved_start={"x_m": 0.3}, reset_s=9.0, reset_tries=1, trial_s=20.0,
    policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5,
    station_hash="5" * 64, calibration_hash="6" * 64, software="s", recording="", notes={},
)  # fmt: skip
ENDINGS = {
    Outcome.SUCCESS: {"outcome": Outcome.SUCCESS, "cause": "", "progress": 1.0},
    Outcome.FAILURE: {"outcome": Outcome.FAILURE, "cause": "near", "progress": 0.5},
    Outcome.INVALID: {"outcome": Outcome.INVALID, "cause": "undecided", "progress": 0.0},
}


def insert(db: sqlite3.Connection, table: str, **row: Any) -> None:
    values = [json.dumps(item) if isinstance(item, Mapping) else item for item in row.values()]
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", values)


def add(
    db: sqlite3.Connection, outcome: Outcome = Outcome.FAILURE, received_unix_s: float = NOW_S, **fields: Any
) -> None:
    """Keep a trial under the next free number."""
    [sequence] = db.execute("SELECT COUNT(*) + 1 FROM trials").fetchone()
    trial = replace(TRIAL, **{"sequence": sequence, "assignment_id": f"a{sequence}", **ENDINGS[outcome], **fields})
    insert(db, "trials", **asdict(trial), content_sha256=f"{sequence}", received_unix_s=received_unix_s)


def add_idea(
    db: sqlite3.Connection, number: int, bundle: str, verdict: str = "", at_s: float = NOW_S, **fields: Any
) -> None:
    """Keep a hypothesis with its bundle, candidate and, where there is a verdict, decision."""
    insert(
        db, "bundles", bundle=bundle, task="push_t", policy="push_t", params="{}", manifest="{}", archive=b"",
        created_unix_s=at_s,
    )  # fmt: skip
    insert(
        db, "hypotheses", hypothesis_id=number, researcher=fields.pop("researcher", "offline"),
        kind="seed" if number == 1 else "switch", sentence=f"idea {number}", falsifier="", changes="{}",
        created_unix_s=at_s,
    )  # fmt: skip
    insert(
        db, "candidates", candidate_id=number, hypothesis_id=number, bundle=bundle, state="accepted",
        created_unix_s=at_s,
    )  # fmt: skip
    counts = dict.fromkeys(("pairs", "wins", "losses", "trials_so_far"), 0)
    counts |= {f"{who}_{what}": 0 for who in ("candidate", "incumbent") for what in ("successes", "trials")}
    if verdict:
        insert(
            db, "decisions", candidate_id=number, verdict=verdict, stage="gate", reason="so it came", wealth=1.0,
            decided_unix_s=at_s, **({"gain_points": 0.0} | counts | fields),
        )  # fmt: skip


def one(db: sqlite3.Connection, query: str) -> dict[str, Any]:
    [row] = db.execute(query).fetchall()
    return dict(row)
