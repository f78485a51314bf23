"""What an agent may ask of the lab's records: all of development, and nothing of what candidates are judged on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.agents.assignments import assignment
from coordinator.agents.lab_view import ABOUT, PLACE, TABLES, write_view
from coordinator.agents.pack import Robots, build
from coordinator.agents.purse import Left
from coordinator.agents.shelf import shows
from coordinator.evolution.ideas import ResearchContext
from coordinator.store import FILE, Store

SECRETS = ("gate-0007", "heldout-0003", "audit-0001", "987654321", "0.123456", "sealed")

FREE = Left(None, None, None, None)
EMPTY = ResearchContext({}, (), frozenset(), {}, ())


def fill(database: sqlite3.Connection, table: str, **values: object) -> None:
    """Insert a row with these values and something for every other column that must have one."""
    row = dict(values)
    for _, name, kind, needed, default, key in database.execute(f"PRAGMA table_info({table})"):
        if name not in row and needed and default is None and not key:
            row[name] = 0 if kind in ("INTEGER", "REAL") else ""
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


@pytest.fixture
def view(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    records, path = tmp_path / FILE, tmp_path / "view.db"
    Store(records).close()
    with closing(sqlite3.connect(records)) as database:
        fill(
            database,
            "hypotheses",
            hypothesis_id=1,
            researcher="codex",
            sentence="Better than on gate-0007.",
            kind="agent",
        )
        fill(database, "candidates", candidate_id=5, hypothesis_id=1, bundle="b" * 64, state="rejected")
        fill(
            database,
            "decisions",
            candidate_id=5,
            verdict="reject",
            stage="gate",
            reason="heldout-0003, audit-0001",
        )
        starts = [("dev-0001", "screen"), ("dev-0002", "gate"), ("gate-0007", "gate"), ("heldout-0003", "heldout")]
        for number, (start, purpose) in enumerate(starts):
            fill(
                database, "trials", edge="yam-1", epoch="e", sequence=number, start_id=start, purpose=purpose,
                bundle="b" * 64, seed=987654321, achieved_start='{"x": 0.123456}', outcome="failure", cause="near",
                detail=f"from {start}", notes='{"policy": "slid"}' if start == "dev-0001" else "sealed",
            )  # fmt: skip
        database.commit()
    write_view(records, path)
    with closing(sqlite3.connect(path)) as made:
        yield made


def test_it_shows_attempts_on_development_starts_and_what_was_decided(view: sqlite3.Connection) -> None:
    rows = view.execute("SELECT candidate_id, start_id, cause, notes, station FROM attempts").fetchall()
    assert rows == [(5, "dev-0001", "near", '{"policy": "slid"}', "yam-1")]
    assert view.execute("SELECT verdict, stage, reason FROM decisions").fetchall() == [
        ("reject", "gate", "(a start), (a start)")
    ]
    assert view.execute("SELECT researcher, sentence, state FROM ideas").fetchall() == [
        ("codex", "Better than on (a start).", "rejected")
    ]


def test_nothing_of_what_candidates_are_judged_on_is_in_the_file(view: sqlite3.Connection) -> None:
    [(path,)] = view.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchall()
    data = Path(path).read_bytes().decode("latin-1")
    assert not [secret for secret in SECRETS if secret in data]


def test_what_is_said_of_it_names_every_column(view: sqlite3.Connection) -> None:
    for table in TABLES:
        columns = [row[1] for row in view.execute(f"PRAGMA table_info({table})")]
        said = ABOUT.partition(f"- {table}: ")[2].partition("\n- ")[0]
        assert all(column in said for column in columns)


def test_an_agent_is_told_of_it_and_finds_it_in_its_cage(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    given = assignment("push_t", "push_t", records=True)
    assert ABOUT in build(given.notes, EMPTY, FREE, Robots())
    run = tmp_path / "run"
    run.mkdir()
    path = shows(tmp_path)(run)[PLACE]
    assert PLACE in ABOUT
    with closing(sqlite3.connect(path)) as made:
        assert made.execute("SELECT COUNT(*) FROM attempts").fetchone() == (0,)
