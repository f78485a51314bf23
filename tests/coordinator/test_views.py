"""The views count what plain Python counts, and agree with the report; the search finds what was said."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import sqlite3
import statistics
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from coordinator.report.measures import incumbents, invalid_causes, resets
from coordinator.report.run import Run, load
from coordinator.store import FILE, Store
from edge.records import Outcome
from tests.harness.view_world import APART, MIGRATIONS, NOW_S, add, add_idea, insert, one

ROOT = Path(__file__).parents[2]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database of the newest format with nothing in it."""
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        database.row_factory = sqlite3.Row
        yield database


@pytest.fixture
def example(tmp_path: Path) -> tuple[Run, sqlite3.Connection]:
    """The shipped run, as the report reads it and as a database."""
    shutil.copy(ROOT / "docs" / "example.db", tmp_path / FILE)
    database = sqlite3.connect(tmp_path / FILE)
    database.row_factory = sqlite3.Row
    return load(tmp_path), database


def summaries(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return what triggers keep, but for the row numbers."""
    timeline = "SELECT unix_s, edge, epoch, sequence, decision_id, stage, outcome, incumbent, successes, trials"
    queries = (f"{timeline} FROM timeline ORDER BY place", "SELECT * FROM tallies ORDER BY edge, bundle")
    return [tuple(row) for query in queries for row in db.execute(query)]


def again_from_scratch(db: sqlite3.Connection) -> None:
    """Fill anew, by the statements of the migrations, what triggers keep."""
    first, later = ((MIGRATIONS / name).read_text() for name in ("0003_analysis.sql", "0017_apart.sql"))
    for table in ("timeline", "tallies"):
        db.execute(f"DELETE FROM {table}")
        [fill] = re.findall(rf"^INSERT INTO {table} .*?;$", first, re.MULTILINE | re.DOTALL)
        db.execute(fill)
    [correct] = re.findall(r"^UPDATE timeline .*?;$", later, re.MULTILINE | re.DOTALL)
    db.execute(correct)


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 8), (3, 8), (8, 8), (46, 50), (50, 50), (1, 200)]
)
def test_intervals_are_wilsons(db: sqlite3.Connection, successes: int, trials: int) -> None:
    for number in range(trials):
        add(db, Outcome.SUCCESS if number < successes else Outcome.FAILURE)
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    for view in ("success_by_policy", "success_by_station"):
        row = one(db, f"SELECT * FROM {view}")
        assert (row["successes"], row["trials"]) == (successes, trials)
        assert row["low_percent"] == pytest.approx(100 * interval.low, abs=0.051)
        assert row["high_percent"] == pytest.approx(100 * interval.high, abs=0.051)


def test_a_policy_whose_trials_are_all_invalid_has_no_rate(db: sqlite3.Connection) -> None:
    add(db, Outcome.INVALID)
    row = one(db, "SELECT * FROM success_by_policy")
    assert (row["trials"], row["invalid"], row["percent"], row["low_percent"]) == (0, 1, None, None)


def mantel_haenszel(cells: Mapping[tuple[str, str], tuple[int, int]], edge: str) -> tuple[float, float, float]:
    """Return difference and half width by the sums over policies as Sato (1989) writes them, and the weight."""
    weight = gained = p = q = 0.0
    for bundle in {name for name, _ in cells}:
        k1, n1 = cells.get((bundle, edge), (0, 0))
        rest = [cell for (name, other), cell in cells.items() if name == bundle and other != edge]
        k0, n0 = (sum(column) for column in zip(*rest, strict=True)) if rest else (0, 0)
        if not n1 or not n0:
            continue
        total = n1 + n0
        weight += n1 * n0 / total
        gained += (k1 / n1 - k0 / n0) * n1 * n0 / total
        p += (n1**2 * k0 - n0**2 * k1 + n1 * n0 * (n0 - n1) / 2) / total**2
        q += (k1 * (n0 - k0) + k0 * (n1 - k1)) / (2 * total)
    difference = gained / weight
    return difference, 1.959964 * (difference * p + q) ** 0.5 / weight, weight


@pytest.mark.parametrize("seed", range(5))
def test_a_station_is_compared_with_the_rest_policy_by_policy(db: sqlite3.Connection, seed: int) -> None:
    draw = random.Random(seed)
    cells: dict[tuple[str, str], tuple[int, int]] = {}
    for bundle, edge in itertools.product("abc", ("station-1", "station-2", "station-3")):
        trials = draw.randrange(0, 9)
        successes = draw.randrange(0, trials + 1)
        cells[bundle, edge] = (successes, trials)
        for number in range(trials):
            add(db, Outcome.SUCCESS if number < successes else Outcome.FAILURE, bundle=bundle, edge=edge)
        add(db, Outcome.INVALID, bundle=bundle, edge=edge)
    for row in db.execute("SELECT * FROM success_by_station").fetchall():
        difference, half_width, _ = mantel_haenszel(cells, row["edge"])
        assert row["difference_points"] == pytest.approx(100 * difference, abs=0.051)
        assert row["difference_low"] == pytest.approx(100 * (difference - half_width), abs=0.051)
        assert row["difference_high"] == pytest.approx(100 * (difference + half_width), abs=0.051)


def test_a_station_that_was_given_the_worse_policies_is_not_called_worse(db: sqlite3.Connection) -> None:
    for edge, bad, good in (("station-1", 20, 4), ("station-2", 4, 20)):
        for number in range(bad):
            add(db, Outcome.SUCCESS if number % 4 == 0 else Outcome.FAILURE, bundle="bad", edge=edge)
        for number in range(good):
            add(db, Outcome.FAILURE if number % 4 == 0 else Outcome.SUCCESS, bundle="good", edge=edge)
    first, second = db.execute("SELECT * FROM success_by_station ORDER BY edge").fetchall()
    assert first["percent"] < second["percent"] - 30
    assert first["difference_points"] == second["difference_points"] == 0.0


def test_a_station_with_policies_of_its_own_is_not_compared(db: sqlite3.Connection) -> None:
    add(db, Outcome.SUCCESS, bundle="a", edge="station-1")
    add(db, Outcome.FAILURE, bundle="b", edge="station-2")
    rows = db.execute("SELECT compared, difference_points, difference_low FROM success_by_station").fetchall()
    assert [tuple(row) for row in rows] == [(0, None, None)] * 2


@pytest.mark.parametrize("seed", range(3))
def test_the_timeline_has_every_trial_once_and_the_incumbents_running_success(
    db: sqlite3.Connection, seed: int
) -> None:
    draw = random.Random(seed)
    add(db, bundle="before any decision", received_unix_s=NOW_S - 1)
    add_idea(db, 1, "b1", "accept", NOW_S)
    expected: list[tuple[Any, ...]] = [(NOW_S - 1, "trial", None, 0, 0), (NOW_S, "decision", 1, 0, 0)]
    ruling, won, valid = 1, 0, 0
    for at_s in (NOW_S + 1 + batch for batch in range(30)):
        for _ in range(3):
            bundle, purpose = f"b{draw.randrange(1, ruling + 1)}", draw.choice(("screen", "gate", *APART))
            outcome = draw.choice(list(Outcome))
            add(db, outcome, at_s, bundle=bundle, purpose=purpose)
            if bundle == f"b{ruling}" and purpose not in APART:
                won, valid = won + (outcome is Outcome.SUCCESS), valid + (outcome is not Outcome.INVALID)
            expected.append((at_s, "trial", ruling, won, valid))
        if draw.random() < 0.2:  # it follows from the batch, and bears its time
            ruling, won, valid = ruling + 1, 0, 0
            add_idea(db, ruling, f"b{ruling}", "accept", at_s)
            expected.append((at_s, "decision", ruling, won, valid))
        if draw.random() < 0.2:
            add_idea(db, 100 + round(at_s - NOW_S), f"c{at_s}", "reject", at_s)
            expected.append((at_s, "decision", ruling, won, valid))
    query = "SELECT unix_s, what, incumbent, incumbent_successes, incumbent_trials FROM verdict_timeline"
    assert [tuple(row) for row in db.execute(query)] == expected
    kept_by_triggers = summaries(db)
    again_from_scratch(db)
    assert summaries(db) == kept_by_triggers


def test_the_shares_of_a_stations_time_add_up(db: sqlite3.Connection) -> None:
    times: dict[str, Any] = {"wall_trial_s": 2.0, "wall_reset_s": 1.0, "started_unix_s": NOW_S}
    add(db, **times, ended_unix_s=NOW_S + 4.0)
    add(db, Outcome.INVALID, **times | {"started_unix_s": NOW_S + 16.0, "ended_unix_s": NOW_S + 20.0})
    db.execute("UPDATE trials SET used = 1 WHERE sequence = 1")
    row = one(db, "SELECT * FROM station_utilisation")
    assert (row["wall_s"], row["used"], row["invalid"]) == (20.0, 1, 1)
    shares = [row[f"{name}_percent"] for name in ("used", "unused", "reset", "idle")]
    assert shares == [10.0, 10.0, 10.0, 70.0]


@pytest.mark.parametrize("count", [1, 2, 5, 10, 11])
def test_resets_have_the_median_and_the_ninetieth_percentile(db: sqlite3.Connection, count: int) -> None:
    seconds = [float((7 * number) % 11) for number in range(count)]
    for reset_s in seconds:
        add(db, reset_s=reset_s)
    add(db, reset_tries=0, reset_s=99.0)
    row = one(db, "SELECT * FROM resets_by_station")
    assert (row["resets"], row["median_s"]) == (count, statistics.median(seconds))
    assert row["p90_s"] == sorted(seconds)[-(-9 * count // 10) - 1]
    assert row["longest_s"] == max(seconds)


def test_recordings_to_watch_are_those_of_the_policy_that_rules_one_of_each_cause_first(
    db: sqlite3.Connection,
) -> None:
    add_idea(db, 1, "old", "accept", NOW_S)
    add_idea(db, 2, "new", "accept", NOW_S + 1)
    add(db, bundle="old", recording="r-old")
    for number, (cause, progress) in enumerate([("near", 0.9), ("near", 0.4), ("far", 0.1)]):
        add(db, bundle="new", cause=cause, progress=progress, recording=f"r{number}")
    add(db, Outcome.INVALID, bundle="new", recording="r-invalid")
    add(db, Outcome.SUCCESS, bundle="new", recording="r-success")
    add(db, bundle="new", cause="timeout")  # without a recording
    insert(db, "recordings", sha256="r1", edge="station-1", file="recordings/r1.mcap", bytes=1, received_unix_s=NOW_S)
    rows = db.execute("SELECT recording, of_cause, file FROM recordings_to_watch ORDER BY place").fetchall()
    assert [tuple(row) for row in rows] == [
        ("r1", 2, "recordings/r1.mcap"), ("r2", 1, None), ("r-invalid", 1, None), ("r0", 2, None),
    ]  # fmt: skip


def test_failing_starts_are_those_from_which_the_policy_that_rules_has_failed(db: sqlite3.Connection) -> None:
    add_idea(db, 1, "old", "accept", NOW_S)
    add_idea(db, 2, "new", "accept", NOW_S + 1)
    add_idea(db, 3, "turned down", "reject", NOW_S + 2)
    for bundle, start_id, letters in (
        ("old", "s1", "F"), ("turned down", "s2", "F"), ("new", "s3", "SS"), ("new", "s4", "SFI"), ("new", "s5", "I"),
    ):  # fmt: skip
        for letter in letters:
            add(db, {item.value[0].upper(): item for item in Outcome}[letter], bundle=bundle, start_id=start_id)
    rows = [tuple(row) for row in db.execute("SELECT * FROM failing_starts")]
    assert rows == [("s4", 1, 2, 1, 0.75, "near,undecided")]


def test_what_no_backup_holds_is_told_by_station(db: sqlite3.Connection) -> None:
    for number, edge in enumerate(("station-1", "station-1", "station-2")):
        add(db, edge=edge, received_unix_s=NOW_S + number)
        insert(
            db, "recordings", sha256=f"r{number}", edge=edge, file=f"r{number}", bytes=2_000_000, received_unix_s=NOW_S
        )
    db.execute("UPDATE trials SET replicated = 1 WHERE sequence != 2")
    db.execute("UPDATE recordings SET replicated = 1 WHERE edge = 'station-2'")
    rows = [tuple(row) for row in db.execute("SELECT * FROM backup_state ORDER BY edge")]
    assert rows == [("station-1", 2, 1, NOW_S + 1, 2, 2, 4.0), ("station-2", 1, 0, None, 1, 0, 0.0)]


@pytest.mark.parametrize(
    "view",
    ["success_by_policy", "incumbents", "verdict_timeline", "researcher_cost", "hypothesis_cost", "backup_state"],
)
def test_an_empty_database_gives_no_rows_and_no_error(db: sqlite3.Connection, view: str) -> None:
    assert db.execute(f"SELECT * FROM {view}").fetchall() == []


def test_incumbents_agree_with_the_report(example: tuple[Run, sqlite3.Connection]) -> None:
    run, database = example
    seen = [
        (row["generation"], row["candidate_id"], row["successes"], row["trials"], row["heldout_successes"])
        for row in database.execute("SELECT * FROM incumbents")
    ]
    assert seen == [
        (
            item.generation, item.idea.candidate_id, item.pooled.successes, item.pooled.trials,
            item.heldout and item.heldout.successes,
        )
        for item in incumbents(run)
    ]  # fmt: skip


def test_resets_and_invalid_causes_agree_with_the_report(example: tuple[Run, sqlite3.Connection]) -> None:
    run, database = example
    found = resets(run)
    assert found is not None
    [counted] = database.execute("SELECT SUM(resets), SUM(first_try) FROM resets_by_station").fetchall()
    assert tuple(counted) == (found.first_try.trials, found.first_try.successes)
    causes = database.execute("SELECT cause, SUM(trials) FROM invalid_trials GROUP BY cause").fetchall()
    assert dict(map(tuple, causes)) == dict(invalid_causes(run))
