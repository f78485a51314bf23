"""A short demo from end to end: trials flow through every room, none is lost, and what is left can be read.

Whether it reaches its target is no test: that takes minutes and is measured by `bench/demo_seeds.py`.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.report.run import load

pytestmark = pytest.mark.demo
STATIONS = 4
BUDGET_MINUTES = 2
LONG_S = 900.0  # bound of a wait for real processes; nothing is measured by it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    options = ["--edges", str(STATIONS), "--budget-minutes", str(BUDGET_MINUTES), "--seed", "11", "--runs", str(runs)]
    command = [sys.executable, "-m", "coordinator", "demo", *options, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=LONG_S)
    assert done.returncode == 0
    [made] = [path for path in runs.iterdir() if path.is_dir()]
    assert json.loads(done.stdout) == json.loads((made / "summary.json").read_text())
    return made


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return figures


@pytest.fixture
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{(folder / 'coordinator.db').as_uri()}?mode=ro", uri=True)) as opened:
        yield opened


def test_every_station_brought_trials_and_none_was_lost(summary: dict[str, Any], database: sqlite3.Connection) -> None:
    assert summary["integrity"] == dict.fromkeys(summary["integrity"], 0)
    by_station = dict(database.execute("SELECT edge, COUNT(*) FROM trials GROUP BY edge").fetchall())
    assert len(by_station) == STATIONS
    assert sum(by_station.values()) == summary["trials"]["total"]
    assert summary["trials"]["valid"] > STATIONS


def test_stations_begin_together(database: sqlite3.Connection) -> None:
    begun = "SELECT edge, MIN(started_unix_s) FROM trials GROUP BY edge ORDER BY edge"
    from_s = min(began_s for edge, began_s in database.execute(begun) if edge != "station-1")
    ahead = "SELECT COUNT(*) FROM trials WHERE edge = 'station-1' AND ended_unix_s < ?"
    [[count]] = database.execute(ahead, (from_s,))
    assert 1 <= count <= 2  # the one by which it compiled for all, and one while the others fetch their first policy


def test_every_trial_names_what_it_needs_to_be_believed(database: sqlite3.Connection) -> None:
    names = "bundle, calibration_hash, station_hash, software, seed, start_id, recording"
    unknown = " OR ".join(f"{name} IS NULL OR {name} = ''" for name in names.split(", "))
    assert database.execute(f"SELECT COUNT(*) FROM trials WHERE outcome != 'invalid' AND ({unknown})").fetchone() == (
        0,
    )
    unsigned = "SELECT COUNT(*) FROM trials WHERE bundle NOT IN (SELECT bundle FROM bundles)"
    assert database.execute(unsigned).fetchone() == (0,)


def test_ideas_were_tested_and_decided_by_evidence(summary: dict[str, Any], database: sqlite3.Connection) -> None:
    assert summary["ideas"]["tried"] >= 1
    assert summary["from"]["trials"] >= 1
    undecided = "SELECT COUNT(*) FROM decisions WHERE verdict = 'accept' AND stage = 'gate' AND wealth < 20"
    assert database.execute(undecided).fetchone() == (0,)


def test_the_arm_resets_its_scene(summary: dict[str, Any]) -> None:
    ready = summary["reset"]["ready_at_first_try"]
    assert ready["successes"] >= 0.95 * ready["trials"]


def test_the_report_stands_alone_and_recordings_are_where_the_database_says(
    folder: Path, database: sqlite3.Connection
) -> None:
    page = (folder / "report.html").read_text()
    assert "<img" in page or "<svg" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    files = [row[0] for row in database.execute("SELECT file FROM recordings")]
    assert files
    assert [name for name in files if not (folder / name).is_file()] == []
    assert len(load(folder).trials) > 0
