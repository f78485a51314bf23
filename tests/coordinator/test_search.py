"""What was said in words is found by them, before and after VACUUM, and in a database of an older format."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.store import FILE, Store

ROOT = Path(__file__).parents[2]
TRIAL = {
    "edge": "station-1", "epoch": "e1", "sequence": 1, "content_sha256": "c", "received_unix_s": 1.0,
    "assignment_id": "a", "lease_id": "l", "task": "t", "bundle": "b", "start_id": "s", "purpose": "screen", "seed": 1,
    "outcome": "failure", "cause": "near", "detail": "2 mm off", "progress": 0.9, "measures": "{}",
    "achieved_start": "{}", "reset_s": 1.0, "reset_tries": 1, "trial_s": 1.0, "policy_steps": 30, "wall_reset_s": 1.0,
    "wall_trial_s": 1.0, "started_unix_s": 1.0, "ended_unix_s": 2.0, "station_hash": "", "calibration_hash": "",
    "software": "", "recording": "", "recording_bytes": 0, "notes": "{}",
}  # fmt: skip
HYPOTHESIS = {
    "hypothesis_id": 7, "researcher": "r", "kind": "switch", "sentence": "slower pushes settle the springy arm",
    "falsifier": "no more wins than losses", "changes": "{}", "created_unix_s": 1.0,
}  # fmt: skip


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        yield database


def insert(db: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def found(db: sqlite3.Connection, words: str) -> list[tuple[str, str]]:
    query = "SELECT source, name FROM search WHERE search MATCH ? ORDER BY source, name"
    return db.execute(query, (words,)).fetchall()


def test_every_kind_of_sentence_is_found(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA foreign_keys = OFF")
    insert(db, "trials", TRIAL | {"detail": "a zebra stood there"})
    insert(db, "hypotheses", HYPOTHESIS | {"sentence": "zebras push"})
    insert(db, "events", {"event_id": 3, "unix_s": 1.0, "edge": None, "level": "error", "text": "a zebra came"})
    counts = dict.fromkeys(("pairs", "wins", "losses", "wealth", "gain_points", "trials_so_far", "decided_unix_s"), 0)
    counts |= {f"{who}_{what}": 0 for who in ("candidate", "incumbent") for what in ("successes", "trials")}
    decision = {"decision_id": 4, "candidate_id": 1, "verdict": "reject", "stage": "gate", "reason": "the zebra won"}
    insert(db, "decisions", decision | counts)
    everything = [("decision", "4"), ("event", "3"), ("hypothesis", "7"), ("trial", "station-1/e1/1")]
    assert found(db, "zebra") == everything
    db.execute("VACUUM")
    assert found(db, "zebra") == everything
    for table in ("trials", "hypotheses", "decisions", "events"):
        db.execute(f"DELETE FROM {table}")
    assert found(db, "zebra") == []
    assert db.execute("SELECT COUNT(*) FROM sayings").fetchone() == (0,)


def test_words_match_in_all_their_forms(db: sqlite3.Connection) -> None:
    insert(db, "hypotheses", HYPOTHESIS)
    assert found(db, "push") == found(db, "pushing") == found(db, "SETTLES arms") == [("hypothesis", "7")]
    assert found(db, "pull") == []


def test_a_note_is_found_by_its_words_in_any_script_and_no_longer_once_it_is_changed(db: sqlite3.Connection) -> None:
    insert(db, "trials", TRIAL | {"notes": json.dumps({"prüfer": "Kabel lose", "相机": "模糊"})})  # escaped, as stored
    name = [("trial", "station-1/e1/1")]
    assert found(db, "prüfer") == found(db, "kabel") == found(db, "模糊") == name
    db.execute("UPDATE trials SET notes = ?", (json.dumps({"looked": "fine"}),))
    assert found(db, "kabel") == []
    assert found(db, "looked") == found(db, "near") == name


@pytest.mark.parametrize("notes", ["", "not JSON", "[1, null]", '{"a": {"b": [1]}}', '"text"', '{"a": "\\u0000 b"}'])
def test_no_note_however_odd_keeps_a_trial_out(db: sqlite3.Connection, notes: str) -> None:
    insert(db, "trials", TRIAL | {"notes": notes})
    assert db.execute("SELECT notes FROM trials").fetchone() == (notes,)
    assert found(db, "near") == [("trial", "station-1/e1/1")]


def test_marking_a_trial_says_nothing_anew(db: sqlite3.Connection) -> None:
    insert(db, "trials", TRIAL)
    before = db.total_changes
    db.execute("UPDATE trials SET used = 1, replicated = 1")
    assert db.total_changes == before + 1


def test_a_database_of_the_first_format_is_brought_up_with_all_that_it_said(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as old:
        old.executescript((ROOT / "coordinator" / "migrations" / "0001_first.sql").read_text())
        old.execute("PRAGMA user_version = 1")
        insert(old, "trials", TRIAL | {"notes": json.dumps({"who": "möwe"})})
        insert(old, "hypotheses", HYPOTHESIS)
        old.commit()
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as new:
        assert found(new, "möwe OR springy") == [("hypothesis", "7"), ("trial", "station-1/e1/1")]
        assert new.execute("SELECT trials FROM success_by_policy").fetchall() == [(1,)]
        new.execute("INSERT INTO search (search) VALUES ('integrity-check')")


def test_the_index_agrees_with_what_was_said_in_a_whole_run(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "example.db", tmp_path / FILE)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
        counted = dict(database.execute("SELECT source, COUNT(*) FROM sayings GROUP BY source"))
        for source, table in (("trial", "trials"), ("hypothesis", "hypotheses"), ("decision", "decisions")):
            assert database.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (counted[source],)
