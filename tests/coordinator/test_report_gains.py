"""A gain is told by what won it: success, progress between failures, or time between successes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.report import gains
from coordinator.report.run import load
from coordinator.report.write import write_report
from coordinator.store import FILE, Store
from tests.harness.run_world import STARTED_S, add_idea, add_trial, insert

SEED, NEW = "a" * 64, "b" * 64
Half = tuple[str, float]  # outcome and progress


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A campaign whose second idea was accepted at the gate."""
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        insert(
            database, "campaigns", campaign_id="c", task="push_t", seed=7, stations=1, target_successes=46,
            target_trials=50, budget_minutes=10.0, started_unix_s=STARTED_S, ended_unix_s=STARTED_S + 600.0,
        )  # fmt: skip
        add_idea(database, 1, None, SEED, "accept", 0.0)
        add_idea(database, 2, 1, NEW, "accept", 1.0)
        yield database


def decide(db: sqlite3.Connection, pairs: Sequence[tuple[Half, Half]], wins: int, gain_points: float) -> None:
    """Keep pairs of the candidate's attempt and the incumbent's, and what was decided by them."""
    for number, halves in enumerate(pairs):
        for candidate_id, (outcome, progress) in zip((2, 1), halves, strict=True):
            attempt(db, number, candidate_id, outcome, progress)
    db.execute("UPDATE decisions SET pairs = ?, wins = ?, losses = 0, gain_points = ?", (len(pairs), wins, gain_points))


def attempt(db: sqlite3.Connection, pair: int, candidate_id: int, outcome: str, progress: float, used: int = 1) -> None:
    sequence = 1 + db.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
    bundle = NEW if candidate_id == 2 else SEED
    insert(
        db, "assignments", assignment_id=f"yam-1-{sequence}", candidate_id=candidate_id, bundle=bundle, start_id="gate",
        start="{}", seed=1, purpose="gate", pair_id=f"pair-{pair:04d}", state="done",
    )  # fmt: skip
    add_trial(db, sequence, bundle, outcome, purpose="gate", progress=progress, used=used)


F, S = "failure", "success"
CASES = {
    "success": ([((S, 1.0), (F, 0.5))] * 4, 4, 100.0, "+100 points", "+100 points"),
    "progress": (
        [((S, 1.0), (F, 0.4))] + [((F, 0.9), (F, 0.4))] * 5 + [((F, 0.4), (F, 0.4))], 6, 100 / 7,
        "+44 points of progress", "+14 points of success, +44 of progress (wins: 1 by success, 5 by progress)",
    ),
    "some progress": (
        [((S, 1.0), (F, 0.5))] * 5 + [((F, 0.6), (F, 0.5))] * 3, 8, 62.5,
        "+62 points", "+62 points of success, +35 of progress (wins: 5 by success, 3 by progress)",
    ),
    "time": ([((S, 1.0), (S, 1.0))] * 6, 6, 0.0, "+0 points", "+0 points (wins: 6 by time)"),
    "too little progress": ([((F, 0.54), (F, 0.5))] * 2 + [((S, 1.0), (F, 0.5))], 1, 33.3, "+33 points", "+33 points"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_gain_is_told_by_what_won_the_pairs(db: sqlite3.Connection, tmp_path: Path, case: str) -> None:
    pairs, wins, gain_points, label, words = CASES[case]
    decide(db, pairs, wins, gain_points)
    run = load(tmp_path)
    idea = run.idea(2)
    assert idea.decision is not None
    assert gains.points(run, idea, idea.decision) == label
    assert gains.words(run, idea, idea.decision) == words
    page = write_report(tmp_path).read_text()
    assert f"<td>{words}</td>" in page
    assert f"{words}, one of 1 tried" in page


def test_only_the_pairs_that_decided_count_and_of_a_repeated_attempt_the_one_that_was_used(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    attempt(db, 0, 2, "invalid", 0.0, used=0)
    decide(db, [((F, 0.9), (F, 0.4))] * 3, 3, 0.0)
    attempt(db, 7, 2, F, 0.0)
    attempt(db, 7, 1, S, 1.0)
    attempt(db, 8, 2, F, 0.0)
    run = load(tmp_path)
    shown = gains.gain(run, run.idea(2))
    assert shown is not None
    assert (shown.by_progress, shown.by_success) == (3, 0)
    assert shown.progress_points == pytest.approx(50.0)


def test_without_all_its_pairs_a_gain_is_that_of_success(db: sqlite3.Connection, tmp_path: Path) -> None:
    decide(db, [((F, 0.9), (F, 0.4))] * 3, 3, 0.0)
    db.execute("DELETE FROM trials WHERE sequence = 1")
    run = load(tmp_path)
    idea = run.idea(2)
    assert idea.decision is not None
    assert gains.gain(run, idea) is None
    assert gains.words(run, idea, idea.decision) == "+0 points"
