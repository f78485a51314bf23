"""What the campaign has decided, as rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from coordinator.evolution.records import (
    AuditMeasured,
    CandidateMade,
    CandidateMerged,
    CandidateState,
    DecisionMade,
    Event,
    HeldoutMeasured,
    HypothesisMade,
    PlayMade,
    ProposalTurnedDown,
    StationTold,
    TrialUsed,
)

TABLES: dict[type, str] = {
    HypothesisMade: "hypotheses",
    CandidateMade: "candidates",
    CandidateMerged: "merges",
    ProposalTurnedDown: "refusals",
    PlayMade: "plays",
    DecisionMade: "decisions",
    HeldoutMeasured: "heldout",
    AuditMeasured: "audits",
    StationTold: "events",
}


def insert(db: sqlite3.Connection, table: str, row: Mapping[str, Any], or_ignore: bool = False) -> None:
    """Add a row; objects and lists become JSON."""
    marks = ", ".join("?" * len(row))
    conflict = " ON CONFLICT DO NOTHING" if or_ignore else ""
    values = [json.dumps(item, sort_keys=True) if isinstance(item, Mapping | tuple) else item for item in row.values()]
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks}){conflict}", values)


def write_event(db: sqlite3.Connection, event: Event) -> None:
    """Keep what the campaign has decided."""
    match event:
        case CandidateState():
            db.execute(
                "UPDATE candidates SET state = ?, ended_unix_s = ? WHERE candidate_id = ?",
                (event.state, event.ended_unix_s, event.candidate_id),
            )
        case TrialUsed():
            db.execute(
                "UPDATE trials SET used = 1 WHERE edge = ? AND epoch = ? AND sequence = ?",
                (event.edge, event.epoch, event.sequence),
            )
        case _:
            insert(db, TABLES[type(event)], asdict(event))
