"""How soon a run came how far: the report, the summary and the views say the same, which is what the rows give."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.evolution.rates import pass_at, wilson_interval
from coordinator.report.measures import Count, robot_use
from coordinator.report.milestones import success_at, time_to, token_use
from coordinator.report.page import key_figures
from coordinator.report.run import load
from coordinator.store import FILE, Store

START_S = 1_700_000_000.0
SEED, BETTER = "a" * 64, "b" * 64


def insert(db: sqlite3.Connection, table: str, **row: Any) -> None:
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def add_trial(db: sqlite3.Connection, number: int, bundle: str, outcome: str, purpose: str = "screen") -> None:
    """Keep a trial of one of two stations, every third one the other's."""
    ended_s = START_S + 6.0 * number
    insert(
        db, "trials", edge="f" if number % 3 == 0 else "e", epoch="e1", sequence=number, content_sha256=f"{number}",
        received_unix_s=ended_s, assignment_id=f"a{number}", lease_id="l", task="push_t", bundle=bundle,
        start_id="dev-1", purpose=purpose,
        seed=1, outcome=outcome, cause="", detail="", progress=0.5, measures="{}", achieved_start="{}", reset_s=10.0,
        reset_tries=1, trial_s=20.0, policy_steps=600, wall_reset_s=2.0, wall_trial_s=4.0,
        started_unix_s=ended_s - 6.0, ended_unix_s=ended_s, station_hash="", calibration_hash="", software="",
        recording="", recording_bytes=0, notes="{}",
    )  # fmt: skip


def add_idea(db: sqlite3.Connection, number: int, bundle: str, researcher: str, minute: float) -> None:
    at_s = START_S + 60.0 * minute
    insert(db, "bundles", bundle=bundle, task="push_t", policy="push_t", params="{}", manifest="{}", archive=b"",
           created_unix_s=at_s)  # fmt: skip
    insert(db, "hypotheses", hypothesis_id=number, researcher=researcher, kind="seed" if number == 1 else "switch",
           sentence="s", falsifier="f", changes="{}", created_unix_s=at_s)  # fmt: skip
    insert(db, "candidates", candidate_id=number, hypothesis_id=number, bundle=bundle, state="accepted",
           parent_candidate_id=None if number == 1 else 1, created_unix_s=at_s)  # fmt: skip
    insert(db, "decisions", candidate_id=number, verdict="accept", stage="gate", reason="", pairs=8, wins=8, losses=0,
           wealth=26.0, candidate_successes=8, candidate_trials=8, incumbent_successes=0, incumbent_trials=8,
           gain_points=100.0, trials_so_far=0, decided_unix_s=at_s)  # fmt: skip


def measured(db: sqlite3.Connection, successes: int, minute: float, complete: int = 1, trials: int = 50) -> None:
    insert(db, "heldout", candidate_id=2, successes=successes, trials=trials, low=0.0, high=1.0, complete=complete,
           ended_unix_s=START_S + 60.0 * minute)  # fmt: skip


def test_the_time_in_which_a_killed_coordinator_was_gone_is_no_time_of_the_run(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        add_idea(db, 1, SEED, "seed", 0.0)
        for number in (1, 2, 602, 603):  # the third began an hour after the second
            add_trial(db, number, SEED, "success")
        measured(db, 46, 60.4)
        for began_s in (START_S, START_S + 3_606.0, START_S + 3_612.0):
            insert(db, "campaign_sessions", began_unix_s=began_s, ran_s=6.0)
        db.commit()
    run = load(tmp_path)
    assert [item.end_minute for item in run.trials] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert run.heldout[0].minute == pytest.approx(60.4 - 3_594.0 / 60.0)
    assert run.minutes == pytest.approx(run.heldout[0].minute)


def test_a_trial_that_a_power_cut_broke_off_makes_no_run_time_of_the_night_until_it_is_sealed(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        add_idea(db, 1, SEED, "seed", 0.0)
        for number in (1, 2, 603):
            add_trial(db, number, SEED, "success")
        add_trial(db, 601, SEED, "invalid")
        broken_off = "UPDATE trials SET started_unix_s = ?, wall_reset_s = 0, wall_trial_s = 0 WHERE sequence = 601"
        db.execute(broken_off, (START_S + 12.0,))
        for began_s in (START_S, START_S + 3_600.0):
            insert(db, "campaign_sessions", began_unix_s=began_s, ran_s=6.0)
        db.commit()
    run = load(tmp_path)
    assert run.minutes == pytest.approx(30.0 / 60.0)
    assert max(item.end_minute for item in run.trials) == pytest.approx(run.minutes)


def test_a_coordinator_that_is_killed_again_before_anything_happened_was_gone_once(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        add_idea(db, 1, SEED, "seed", 0.0)
        for number in (1, 1_201):  # the second ends two hours later
            add_trial(db, number, SEED, "success")
        for began_s in (START_S, START_S + 3_600.0, START_S + 7_200.0):
            insert(db, "campaign_sessions", began_unix_s=began_s, ran_s=6.0)
        db.commit()
    assert [item.end_minute for item in load(tmp_path).trials] == pytest.approx([0.1, 0.2])


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Twenty minutes: 60 trials of the seed, 140 of what a language model found after minute five."""
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        database.row_factory = sqlite3.Row
        insert(database, "campaigns", campaign_id="c", task="push_t", seed=7, stations=1, target_successes=46,
               target_trials=50, budget_minutes=30.0, started_unix_s=START_S,
               ended_unix_s=START_S + 1200.0)  # fmt: skip
        add_idea(database, 1, SEED, "offline", 0.0)
        add_idea(database, 2, BETTER, "claude", 5.0)
        for number in range(1, 201):
            add_trial(database, number, SEED if number <= 60 else BETTER, "success" if number % 4 else "failure")
        for minute, tokens in ((1.0, 3000), (15.0, 5000)):
            insert(database, "token_use", unix_s=START_S + 60.0 * minute, researcher="claude", model="m",
                   input_tokens=tokens, output_tokens=500, cached_tokens=0, seconds=9.0)  # fmt: skip
        yield database


def test_a_share_is_reached_by_a_complete_measurement_only(db: sqlite3.Connection, tmp_path: Path) -> None:
    assert time_to(load(tmp_path), 0.95) is None
    measured(db, 10, 8.0, complete=0, trials=10)
    measured(db, 47, 9.0)
    measured(db, 48, 12.0)
    measured(db, 50, 18.0)
    first, second = (time_to(load(tmp_path), share) for share in (0.95, 0.99))
    assert first is not None
    assert second is not None
    assert (first.minute, first.trials, first.tokens, first.success) == (12.0, 120, 3500, Count(48, 50))
    assert first.station_minutes == pytest.approx(120 * 30 / 60)
    assert (second.minute, second.tokens, second.success) == (18.0, 9000, Count(50, 50))


def test_after_so_many_trials_the_policy_counts_that_ruled_then(db: sqlite3.Connection, tmp_path: Path) -> None:
    run = load(tmp_path)
    early, late = success_at(run, 40), success_at(run, 128)
    assert early is not None
    assert late is not None
    assert early.success == Count(45, 60)
    assert (late.success, late.trials) == (Count(105, 140), 128)
    assert late.minute == pytest.approx(12.8)
    assert success_at(run, 201) is None


def test_the_view_says_what_the_report_says(db: sqlite3.Connection, tmp_path: Path) -> None:
    measured(db, 48, 12.0)
    run = load(tmp_path)
    rows = {row["what"]: row for row in db.execute("SELECT * FROM milestones")}
    assert set(rows) == {"95 % on held-out starts", "after 128 trials"}
    for name, expected in (("95 % on held-out starts", time_to(run, 0.95)), ("after 128 trials", success_at(run))):
        assert expected is not None
        row, success = rows[name], expected.success
        assert (row["trials"], row["tokens"]) == (expected.trials, expected.tokens)
        assert (row["minute"], row["station_minutes"], row["clock_minutes"]) == pytest.approx(
            (expected.minute, expected.station_minutes, expected.clock_minutes), abs=0.051
        )
        assert row["clock_minutes"] < row["station_minutes"]
        assert (row["successes"], row["valid_trials"], row["starts"]) == (success.successes, success.trials, "held-out")
        low, high = wilson_interval(success.successes, success.trials)
        assert (row["low_percent"], row["high_percent"]) == pytest.approx((100 * low, 100 * high), abs=0.051)


def test_tokens_are_told_by_minute_and_by_gain_and_agents_have_their_share_of_the_robots(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    run = load(tmp_path)
    use, robots = token_use(run), robot_use(run)
    assert (use.tokens, use.per_minute, use.per_accept) == (9000, 450.0, 9000.0)
    assert robots.agents == robots.candidates == pytest.approx(140 * 4.0 / 2400.0)
    assert "450 a minute" in dict(key_figures(run))["tokens (MTU)"]


@pytest.mark.parametrize(("successes", "failures"), [(0, 8), (1, 7), (3, 9), (5, 7), (0, 1), (12, 0), (1, 30)])
def test_pass_rates_are_the_unbiased_ones(tmp_path: Path, successes: int, failures: int) -> None:
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        for number in range(successes + failures):
            outcome = "success" if number < successes else "failure"
            add_trial(database, number + 1, BETTER, outcome, purpose="heldout")
        [row] = database.execute("SELECT starts, pass_1, pass_8 FROM pass_rates").fetchall()
    expected = [pass_at(attempts, successes, successes + failures) for attempts in (1, 8)]
    percent = [None if rate is None else pytest.approx(100 * rate, abs=0.051) for rate in expected]
    assert list(row) == ["held-out", *percent]
