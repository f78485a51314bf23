"""Databases of runs as a report reads them, row by row."""

from __future__ import annotations

import json
import sqlite3
from importlib.resources import files
from pathlib import Path

STARTED_S = 1_700_000_000.0
HOSTILE = "<script>alert('x')</script> & \"quotes\""


def make_database(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "coordinator.db")
    database.executescript((files("coordinator") / "migrations" / "0001_first.sql").read_text())
    return database


def insert(database: sqlite3.Connection, table: str, **values: object) -> None:
    marks = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def add_idea(
    database: sqlite3.Connection,
    number: int,
    parent: int | None,
    bundle: str,
    verdict: str,
    minute: float,
    **more: object,
) -> None:
    insert(
        database, "bundles", bundle=bundle, parent=None, task="push_t", policy="push_t", params="{}", manifest="{}",
        archive=b"", created_unix_s=STARTED_S,
    )  # fmt: skip
    insert(
        database, "hypotheses", hypothesis_id=number, researcher="offline",
        kind="seed" if parent is None else "switch", sentence=more.get("sentence", f"Idea {number} helps."),
        falsifier="no gain", changes=json.dumps(more.get("changes", {f"idea_{number}": True})),
        created_unix_s=STARTED_S + 60 * minute,
    )  # fmt: skip
    insert(
        database, "candidates", candidate_id=number, hypothesis_id=number, bundle=bundle, parent_candidate_id=parent,
        state="gate", created_unix_s=STARTED_S + 60 * minute,
    )  # fmt: skip
    if parent is not None and verdict:
        insert(
            database, "decisions", candidate_id=number, verdict=verdict, stage="gate", reason="the test said so",
            pairs=12, wins=7, losses=1, wealth=21.0, candidate_successes=8, candidate_trials=12, incumbent_successes=2,
            incumbent_trials=12, gain_points=50.0, trials_so_far=24, decided_unix_s=STARTED_S + 60 * (minute + 1.0),
        )  # fmt: skip


def add_trial(
    database: sqlite3.Connection, sequence: int, bundle: str, outcome: str, *, edge: str = "yam-1", **more: object
) -> None:
    started_s = STARTED_S + 12.0 * sequence
    values: dict[str, object] = {
        "edge": edge, "epoch": "e", "sequence": sequence, "content_sha256": "0", "received_unix_s": started_s,
        "used": 1, "assignment_id": f"{edge}-{sequence}", "lease_id": "l", "task": "push_t", "bundle": bundle,
        "start_id": f"dev-{sequence}", "purpose": "screen", "seed": 7, "outcome": outcome,
        "cause": "" if outcome == "success" else "missed_goal", "detail": HOSTILE, "progress": 0.5,
        "measures": json.dumps({"coverage": 0.97}), "achieved_start": "{}", "reset_s": 10.0, "reset_tries": 1,
        "trial_s": 20.0, "policy_steps": 600, "wall_reset_s": 2.0, "wall_trial_s": 8.0, "started_unix_s": started_s,
        "ended_unix_s": started_s + 10.0, "station_hash": "5" * 64, "calibration_hash": "6" * 64, "software": "s",
        "recording": "", "recording_bytes": 0, "notes": "{}",
    }  # fmt: skip
    insert(database, "trials", **(values | more))
