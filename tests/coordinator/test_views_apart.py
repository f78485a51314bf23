"""What chose no policy is pooled with nothing, tokens are counted by kind, and older databases are put right."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.store import FILE, Store
from edge.records import OWN_PURPOSES, Outcome
from tests.harness.view_world import APART, MIGRATIONS, NOW_S, add, add_idea, insert, one


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database of the newest format with nothing in it."""
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        database.row_factory = sqlite3.Row
        yield database


def test_what_chose_no_policy_is_counted_apart_and_invalid_trials_beside(db: sqlite3.Connection) -> None:
    outcomes = {"screen": "FSI", "gate": "FF", "heldout": "SSI", "audit": "SFFI", "check": "S", "bank": "S"}
    outcomes |= dict.fromkeys(OWN_PURPOSES, "SF")
    for purpose, letters in outcomes.items():
        for letter in letters:
            add(db, {item.value[0].upper(): item for item in Outcome}[letter], purpose=purpose)
    rows = db.execute("SELECT starts, successes, trials, invalid FROM success_by_policy ORDER BY starts").fetchall()
    assert [tuple(row) for row in rows] == [
        ("audit", 1, 3, 1), ("check", 1, 1, 0), ("held-out", 2, 2, 1), ("other", 2, 5, 1), ("roll-out", 3, 6, 0),
    ]  # fmt: skip
    rates = db.execute("SELECT starts, successes, trials FROM pass_rates ORDER BY starts").fetchall()
    assert [tuple(row) for row in rates] == [tuple(row)[:3] for row in rows]


@pytest.mark.parametrize("purpose", APART)
def test_what_chose_no_policy_is_in_no_count_of_the_policy_that_rules(db: sqlite3.Connection, purpose: str) -> None:
    add_idea(db, 1, "b1", "accept")
    for name in ("screen", purpose):
        add(db, Outcome.SUCCESS, bundle="b1", purpose=name)
    assert one(db, "SELECT successes, trials FROM incumbents") == {"successes": 1, "trials": 1}
    newest = one(db, "SELECT incumbent_trials FROM verdict_timeline ORDER BY place DESC LIMIT 1")
    assert newest == {"incumbent_trials": 1}


@pytest.mark.parametrize("purpose", ["check", *OWN_PURPOSES])
def test_what_tells_of_a_station_or_of_a_roll_out_is_no_failure_of_the_policy(
    db: sqlite3.Connection, purpose: str
) -> None:
    add_idea(db, 1, "b1", "accept")
    for name in ("screen", purpose):
        add(db, Outcome.FAILURE, bundle="b1", purpose=name, recording=f"of-{name}")
    for view, count in (("failure_modes", "trials"), ("failing_starts", "trials"), ("recordings_to_watch", "of_cause")):
        assert one(db, f"SELECT {count} FROM {view}") == {count: 1}


def test_an_incumbent_has_its_last_complete_audit_and_what_could_not_be_judged(db: sqlite3.Connection) -> None:
    add_idea(db, 1, "b1", "accept")
    common = {"candidate_id": 1, "low": 0.9, "high": 0.99, "ended_unix_s": NOW_S}
    insert(db, "heldout", **common, successes=47, trials=50, complete=1, invalid=2)
    for successes, trials, complete, invalid in ((190, 200, 1, 4), (191, 200, 1, 3), (5, 20, 0, 1)):
        insert(db, "audits", **common, successes=successes, trials=trials, complete=complete, invalid=invalid)
    row = one(db, "SELECT * FROM incumbents")
    assert (row["heldout_successes"], row["heldout_invalid"]) == (47, 2)
    audit = {name: row[f"audit_{name}"] for name in ("successes", "trials", "percent", "low", "high", "invalid")}
    assert audit == {"successes": 191, "trials": 200, "percent": 95.5, "low": 90.0, "high": 99.0, "invalid": 3}


def test_an_older_database_is_brought_up_with_all_its_trials_and_its_counts_put_right(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as old:
        for script in sorted(MIGRATIONS.glob("*.sql")):
            if int(script.name.split("_")[0]) < 14:
                old.executescript(script.read_text())
        old.execute("PRAGMA user_version = 13")
        old.row_factory = sqlite3.Row
        add_idea(old, 1, "b1", "accept")
        for purpose in ("screen", "audit", "check", "gate", "heldout"):
            add(old, Outcome.SUCCESS, bundle="b1", purpose=purpose)
        add_idea(old, 2, "b2", "accept")
        add(old, Outcome.SUCCESS, bundle="b2", purpose="audit")
        insert(
            old, "token_use", unix_s=NOW_S, researcher="a", model="m", hypothesis_id=2, input_tokens=100,
            output_tokens=10, cached_tokens=40, seconds=60.0,
        )  # fmt: skip
        tables = [row["name"] for row in old.execute("SELECT name FROM pragma_table_list WHERE type = 'table'")]
        before = {name: len(old.execute(f"SELECT * FROM {name}").fetchall()) for name in tables}
        pooled = [row["trials"] for row in old.execute("SELECT trials FROM timeline ORDER BY place")]
    assert pooled == [0, 1, 2, 3, 4, 4, 0, 1]  # with what chose no policy
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as new:
        new.row_factory = sqlite3.Row
        grown = {"schema_comments", "sqlite_schema"}
        after = {name: len(new.execute(f"SELECT * FROM {name}").fetchall()) for name in tables}
        assert {name: after[name] for name in tables if name not in grown} == {
            name: before[name] for name in tables if name not in grown
        }
        counts = new.execute("SELECT successes, trials FROM timeline ORDER BY place").fetchall()
        assert [tuple(row) for row in counts] == [(n, n) for n in (0, 1, 1, 1, 2, 2, 0, 0)]
        cost = one(new, "SELECT fresh_tokens, cached_tokens, tokens, usd FROM hypothesis_cost")
        assert cost == {"fresh_tokens": 60, "cached_tokens": 40, "tokens": 110, "usd": 0.0}


def test_tokens_are_counted_by_researcher_whatever_came_of_them(db: sqlite3.Connection) -> None:
    add_idea(db, 1, "b1", "accept", researcher="a")  # the seed, which nobody's tokens made
    add_idea(db, 2, "b2", "accept", researcher="a", gain_points=25.0)
    add_idea(db, 3, "b3", "reject", researcher="a", gain_points=-10.0)
    for hypothesis_id, tokens in ((2, 1000), (3, 500), (None, 500)):
        insert(
            db, "token_use", unix_s=NOW_S, researcher="a", model="m", hypothesis_id=hypothesis_id,
            input_tokens=tokens, output_tokens=tokens, cached_tokens=tokens // 2, seconds=30.0,
            cache_write_tokens=tokens // 10, reasoning_tokens=7, other_tokens=3, guessed_tokens=1, nano_usd=250_000_000,
        )  # fmt: skip
    insert(
        db, "token_use", unix_s=NOW_S, researcher="b", model="m", hypothesis_id=None, input_tokens=1,
        output_tokens=1, cached_tokens=0, seconds=0.0,
    )  # fmt: skip
    first, second = (dict(row) for row in db.execute("SELECT * FROM researcher_cost ORDER BY researcher"))
    assert (first["ideas"], first["accepted"], first["gain_points"]) == (2, 1, 25.0)
    assert (first["tokens"], first["cached_tokens"], first["model_minutes"]) == (4000, 1000, 1.5)
    assert (first["tokens_per_accept"], first["tokens_per_point"]) == (4000.0, 160.0)
    kinds = ("calls", "fresh_tokens", "cache_write_tokens", "reasoning_tokens", "other_tokens", "guessed_tokens")
    assert [first[name] for name in kinds] == [3, 800, 200, 21, 9, 3]
    assert (first["usd"], first["usd_per_accept"], second["usd_per_accept"]) == (0.75, 0.75, None)
    assert (second["ideas"], second["tokens"], second["tokens_per_accept"]) == (0, 2, None)


def test_each_hypothesis_has_its_cost_and_what_became_of_it(db: sqlite3.Connection) -> None:
    add_idea(db, 1, "b1", "accept", researcher="a")
    add_idea(db, 2, "b2", "reject", researcher="a", gain_points=-10.0)
    add_idea(db, 3, "b3", researcher="a")
    for hypothesis_id in (2, 2, 3, None):
        insert(
            db, "token_use", unix_s=NOW_S, researcher="a", model="m", hypothesis_id=hypothesis_id, input_tokens=100,
            output_tokens=10, cached_tokens=20, seconds=30.0, nano_usd=500_000_000,
        )  # fmt: skip
    query = "SELECT hypothesis_id, verdict, gain_points, calls, tokens, usd, model_minutes FROM hypothesis_cost"
    assert [tuple(row) for row in db.execute(f"{query} ORDER BY hypothesis_id")] == [
        (None, None, None, 1, 110, 0.5, 0.5), (2, "reject", -10.0, 2, 220, 1.0, 1.0),
        (3, "open", None, 1, 110, 0.5, 0.5),
    ]  # fmt: skip


def test_a_call_of_a_model_for_no_hypothesis_that_exists_is_refused(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError):
        insert(
            db, "token_use", unix_s=NOW_S, researcher="a", model="m", hypothesis_id=9, input_tokens=1,
            output_tokens=1, cached_tokens=0, seconds=0.0,
        )  # fmt: skip
