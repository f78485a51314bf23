"""Runs are compared by the stations' own time, beside the paper's, from folders and from files of the bench."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.report.milestones import climb, to_target
from coordinator.report.run import NotARunError, load
from coordinator.report.scaling import PAPER_HOURS, NoRunsError, draw, main, read_runs, runs_of, write
from coordinator.report.style import DARK, LIGHT, png
from coordinator.store import FILE, Store
from tests.harness.run_world import STARTED_S, add_idea, add_trial, insert

SEED, BETTER = "a" * 64, "b" * 64


def of_bench(stations: int, minutes: float | None, task: str = "push_t") -> dict[str, Any]:
    step = {"clock_minutes": 0.0, "percent": 10.0, "low_percent": 2.0, "high_percent": 30.0}
    reached = None if minutes is None else {"clock_minutes": minutes}
    return {"task": task, "stations": stations, "seed": 1, "to_target": reached, "climb": [step]}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two stations: ten trials of 30 s each of the seed, then an accepted idea, and a target met after the last."""
    folder = tmp_path / "run"
    folder.mkdir()
    Store(folder / FILE).close()
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as database:
        insert(
            database, "campaigns", campaign_id="c", task="push_t", seed=7, stations=2, target_successes=2,
            target_trials=2, budget_minutes=30.0, started_unix_s=STARTED_S, ended_unix_s=STARTED_S + 600.0,
        )  # fmt: skip
        add_idea(database, 1, None, SEED, "accept", 0.0)
        add_idea(database, 2, 1, BETTER, "accept", 1.0)
        for sequence in range(20):
            edge = "yam-1" if sequence % 4 else "yam-2"  # yam-1 has three of four
            add_trial(database, sequence, SEED if sequence < 10 else BETTER, "success", edge=edge)
        insert(database, "heldout", candidate_id=2, successes=2, trials=2, low=0.0, high=1.0, complete=1,
               ended_unix_s=STARTED_S + 590.0)  # fmt: skip
    return folder


def test_station_time_is_that_of_the_station_that_had_most_of_it(run_dir: Path) -> None:
    run = load(run_dir)
    reached = to_target(run)
    assert reached is not None
    assert reached.station_minutes == pytest.approx(20 * 30.0 / 60.0)
    assert reached.clock_minutes == pytest.approx(15 * 30.0 / 60.0)
    assert [step["percent"] for step in climb(run)] == [100.0, 100.0]
    assert climb(run)[0]["clock_minutes"] == 0.0 < climb(run)[1]["clock_minutes"] < reached.clock_minutes


def test_a_target_that_was_not_met_is_no_time(run_dir: Path) -> None:
    with closing(sqlite3.connect(run_dir / FILE, isolation_level=None)) as database:
        database.execute("UPDATE heldout SET complete = 0")
    assert to_target(load(run_dir)) is None


def test_a_page_compares_folders_and_files_beside_the_paper_and_reaches_for_nothing(run_dir: Path) -> None:
    bench = run_dir.parent / "bench.jsonl"
    bench.write_text("".join(json.dumps(of_bench(count, 60.0 / count)) + "\n" for count in (1, 4, 8)) + '{"torn')
    text = write(run_dir.parent / "out.html", [run_dir, bench]).read_text()
    for expected in ("4 runs compared", "0.12 h", "4.7 h", "3.12 h", "1.98 h", "10 % (2–30 %)"):
        assert expected in text
    assert "://" not in text
    assert all(source.startswith("data:image/") for source in re.findall(r'(?:src|srcset)="([^"]*)"', text))


@pytest.mark.parametrize("minutes", [None, 30.0])
@pytest.mark.parametrize("task", ["push_t", "gym_pusht"])
def test_any_runs_can_be_drawn(minutes: float | None, task: str) -> None:
    for theme in (LIGHT, DARK):
        assert png(draw([of_bench(1, minutes, task), of_bench(8, minutes, task)], theme)).startswith(b"\x89PNG")


def test_what_holds_no_runs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_runs(tmp_path / "none.jsonl") == []
    with pytest.raises(NoRunsError, match=r"none\.jsonl"):
        runs_of(tmp_path / "none.jsonl")
    with pytest.raises(NotARunError):
        runs_of(tmp_path)
    assert main([str(tmp_path / "out.html"), str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_paper_is_quoted_by_hours_that_fall_with_the_robots() -> None:
    for hours in PAPER_HOURS.values():
        assert list(hours.values()) == sorted(hours.values(), reverse=True)
    assert (PAPER_HOURS["push_t"][1], PAPER_HOURS["push_t"][8]) == (4.70, 1.98)


def test_tasks_are_compared_apart(tmp_path: Path) -> None:
    for task in ("push_t", "pin_insertion"):
        (tmp_path / f"{task}.jsonl").write_text(json.dumps(of_bench(4, 60.0, task)) + "\n")
    out = write(tmp_path / "out.html", [tmp_path / "push_t.jsonl", tmp_path / "pin_insertion.jsonl"])
    text = out.read_text()
    assert text.count("<picture>") == text.count("<h2>") == 2
    assert "pin_insertion, push_t: 2 runs compared" in text


@pytest.mark.parametrize(("minutes", "panels"), [(None, 1), (60.0, 2)])
def test_no_panel_is_empty(minutes: float | None, panels: int) -> None:
    assert len(draw([of_bench(4, minutes)], LIGHT).axes) == panels


def test_a_curve_goes_on_to_the_end_of_its_run_where_the_target_was_not_met(run_dir: Path) -> None:
    with closing(sqlite3.connect(run_dir / FILE, isolation_level=None)) as database:
        database.execute("DELETE FROM heldout")
    [run] = runs_of(run_dir)
    assert run["to_target"] is None
    assert run["clock_minutes"] == pytest.approx(15 * 30.0 / 60.0)
    [curve, *_] = draw([run], LIGHT).axes[0].lines
    assert np.asarray(curve.get_xdata())[-1] == pytest.approx(run["clock_minutes"] / 60.0)
