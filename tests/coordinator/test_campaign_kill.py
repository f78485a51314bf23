"""A campaign of real processes is killed again and again, and goes on each time: nothing lost, nothing twice."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.summary import check_integrity

pytestmark = pytest.mark.demo
SEED = 11
KILLS = 3
LONG_S = 900.0  # bound of a wait for real processes; nothing is measured by it
COORDINATOR = (sys.executable, "-m", "coordinator", "campaign")


def rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"{(folder / 'coordinator.db').as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def count(folder: Path, table: str) -> int:
    try:
        return int(rows(folder, f"SELECT COUNT(*) FROM {table}")[0][0])
    except sqlite3.OperationalError:  # it is being made
        return 0


def ran_s(folder: Path) -> float:
    return float(rows(folder, "SELECT COALESCE(SUM(ran_s), 0) FROM campaign_sessions")[0][0])


def kill_after(process: subprocess.Popen[bytes], folder: Path, trials: int) -> None:
    """Kill a coordinator once so many trials are kept."""
    deadline_s = time.monotonic() + LONG_S
    while count(folder, "trials") < trials:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_campaign_that_is_killed_loses_nothing_and_decides_nothing_twice(tmp_path: Path) -> None:
    draw = random.Random(SEED)
    options = ["--edges", "2", "--seed", str(SEED), "--budget-minutes", "30", "--runs", str(tmp_path)]
    process = subprocess.Popen([*COORDINATOR, "start", *options], stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + LONG_S
    while not (made := [path.parent for path in tmp_path.glob("*/coordinator.db")]):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    [folder] = made
    budgets, decided = [], []
    for _ in range(KILLS):
        kill_after(process, folder, count(folder, "trials") + draw.randrange(4, 16))
        assert not (folder / "summary.json").exists(), "of an end that was not this one"
        (folder / "summary.json").write_text("{}")  # as one leaves it that was interrupted
        time.sleep(draw.uniform(0.0, 0.5))
        budgets.append(ran_s(folder))
        decided.append(rows(folder, "SELECT * FROM decisions ORDER BY decision_id"))
        process = subprocess.Popen([*COORDINATOR, "resume", str(folder)], stderr=subprocess.DEVNULL)
    before = count(folder, "trials")
    while count(folder, "trials") < before + 6:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(LONG_S) == 130
    check(folder, budgets, decided)


def check(folder: Path, budgets: list[float], decided: list[list[Any]]) -> None:
    """Check by the database that the processes together were one campaign."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["integrity"] == dict.fromkeys(summary["integrity"], 0)
    assert check_integrity(folder / "coordinator.db", {}).doubled == 0
    kept = {json.dumps(list(row)) for row in rows(folder, "SELECT edge, epoch, sequence FROM trials")}
    recorded = [
        json.dumps(json.loads(text)["trial"])
        for (text,) in rows(folder, "SELECT payload FROM campaign_log WHERE call = 'record'")
    ]
    assert len(recorded) == len(set(recorded))
    assert set(recorded) == kept
    numbers = [row[0] for row in rows(folder, "SELECT seq FROM campaign_log ORDER BY seq")]
    assert numbers == list(range(1, len(numbers) + 1))
    final = rows(folder, "SELECT * FROM decisions ORDER BY decision_id")
    assert all(final[: len(earlier)] == earlier for earlier in decided)
    assert len({row[1] for row in final}) == len(final)
    assert len(rows(folder, "SELECT * FROM campaign_sessions")) == KILLS + 1
    assert sorted([*budgets, ran_s(folder)]) == [*budgets, ran_s(folder)]
    assert ran_s(folder) > 0.0
    unheld = "SELECT COUNT(*) FROM trials WHERE assignment_id NOT IN (SELECT assignment_id FROM assignments)"
    assert rows(folder, unheld) == [(0,)]


def test_a_campaign_that_was_killed_at_its_very_end_is_summed_up_by_the_next_process(tmp_path: Path) -> None:
    options = ["--edges", "2", "--seed", str(SEED), "--budget-minutes", "30", "--runs", str(tmp_path)]
    target = ["--target", "1", "--heldout", "1", "--audit", "2"]
    process = subprocess.Popen([*COORDINATOR, "start", *options, *target], stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + LONG_S
    while not (made := [path.parent for path in tmp_path.glob("*/coordinator.db")]):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    [folder] = made
    while not (count(folder, "audits") and rows(folder, "SELECT complete FROM audits")[0][0]):
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    if (folder / "summary.json").is_file():
        pytest.fail("it was killed too late to say anything")
    command = [*COORDINATOR, "resume", ".", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rows(folder, "SELECT ended_why FROM campaigns") == [("the target was reached",)]
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert summary["ended_why"] == "the target was reached"
    assert (summary["integrity"]["lost"], summary["integrity"]["at_stations"]) == (0, 0)
    again = subprocess.run([*COORDINATOR, "resume", str(folder)], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "the campaign has ended" in again.stderr
