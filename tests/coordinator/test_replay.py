"""A trial is found by what a person types, its recording and station by the trial; the robot's own code replays it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from coordinator.replay import ReplayRefused, find_trial, newest_run, replay
from coordinator.store import Store
from edge.emulation.stations import make_stations
from edge.messages import Setpoint
from edge.trials.recording import Recording
from policies.interface import Observation

PERIOD_NS = 33_333_333
POSE = np.array([0.0, 1.114, 0.948, -1.406, 0.0, 0.0])
EPOCH = "0123456789abcdef"


def record(path: Path) -> str:
    """Record an arm that holds still, as every station records, and return the sha256."""
    seen = Observation(0.0, POSE, np.zeros(6), np.zeros(6), np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]), 0.0)
    with Recording(path) as recording:
        recording.event(0, "trial", "{}")
        for number in range(30):
            recording.joints(number * PERIOD_NS, seen)
            recording.setpoint(number * PERIOD_NS, Setpoint(POSE, 0.0, 0))
        recording.joints(30 * PERIOD_NS, seen)
        return recording.seal()[0]


def add(run: Path, edge: str, epoch: str, sequence: int, recording: str, station: Path) -> None:
    """Put a trial into the run's database, everything that a replay does not ask for left blank."""
    hashes = [
        hashlib.sha256((station / f"{name}.toml").read_bytes()).hexdigest() for name in ("station", "calibration")
    ]
    known = {"edge": edge, "epoch": epoch, "sequence": sequence, "recording": recording}
    known |= dict(zip(("station_hash", "calibration_hash"), hashes, strict=True))
    database = sqlite3.connect(run / "coordinator.db")
    with database:
        wanted = [row[1] for row in database.execute("PRAGMA table_info(trials)") if row[3] and row[4] is None]
        row = {name: known.get(name, "") for name in wanted}
        database.execute(
            f"INSERT INTO trials ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
        )
    database.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one emulated station with one recorded trial, 7, and one without a recording, 8."""
    folder = tmp_path / "runs" / "2026-11-01-120000-seed1"
    (folder / "recordings").mkdir(parents=True)
    make_stations(folder / "stations", 1, 1, "push_t", "tcp/127.0.0.1:1")
    Store(folder / "coordinator.db").close()
    sha256 = record(folder / "new.mcap")
    (folder / "new.mcap").rename(folder / "recordings" / f"{sha256}.mcap")
    add(folder, "station-1", EPOCH, 7, sha256, folder / "stations" / "station-1")
    add(folder, "station-1", EPOCH, 8, "", folder / "stations" / "station-1")
    return folder


def recording_of(run: Path) -> str:
    [path] = (run / "recordings").iterdir()
    return path.stem


def test_a_trial_is_replayed_by_the_robot_s_own_code(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert replay(run, "station-1/7", None, as_json=True) == 0
    printed = capfd.readouterr()
    said = json.loads(printed.out)
    assert (said["same"], said["control"]["same"], said["verdict"]) == (True, True, None)
    assert printed.err == ""


def test_a_summary_is_for_people(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert replay(run, "station-1/7", None, as_json=False) == 0
    assert "All is as it was" in capfd.readouterr().out


def test_what_differs_is_in_the_exit_code_and_another_station_is_named(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_stations(tmp_path / "others", 1, 1, "push_t", "tcp/127.0.0.1:1")
    other = tmp_path / "others" / "station-1"
    text = (other / "station.toml").read_text()
    (other / "station.toml").write_text(text.replace("lower_rad = [-2.6, 0.0", "lower_rad = [-2.6, 2.0"))
    assert replay(run, "station-1/7", other, as_json=True) == 1
    printed = capfd.readouterr()
    assert json.loads(printed.out)["same"] is False
    [line] = printed.err.splitlines()
    assert str(other / "station.toml") in line
    assert "is not what trial station-1/0123456789abcdef/7 was run with" in line


@pytest.mark.parametrize("name", ["station-1/7", f"station-1/{EPOCH}/7", "first six", "all", "upper case"])
def test_a_trial_has_several_names(run: Path, name: str) -> None:
    sha256 = recording_of(run)
    typed = {"first six": sha256[:6], "all": sha256, "upper case": sha256[:9].upper()}.get(name, name)
    found = find_trial(run, typed)
    assert (found.edge, found.epoch, found.sequence, found.recording) == ("station-1", EPOCH, 7, sha256)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("station-1/9", "no trial station-1/9"),
        ("station-2/7", "no trial"),
        (f"station-1/{EPOCH[::-1]}/7", "no trial"),
        ("ffffff", "no trial ffffff"),
        ("fffff", "names no trial"),
        ("", "names no trial"),
        ("station-1/-7", "names no trial"),
        ("station-1/٧", "names no trial"),
        ("station-1/" + "9" * 30, "names no trial"),
        ("../../etc/7", "names no trial"),
        ("station-1/7; DROP TABLE trials", "names no trial"),
        ("station-1/8", "has no recording"),
    ],
)
def test_what_names_no_recorded_trial_is_refused_in_one_line(run: Path, name: str, why: str) -> None:
    with pytest.raises(ReplayRefused, match=why) as caught:
        replay(run, name, None, as_json=False)
    assert "\n" not in str(caught.value)


def test_a_number_that_two_ledgers_gave_is_asked_for_in_full(run: Path) -> None:
    add(run, "station-1", "fedcba9876543210", 7, "f" * 64, run / "stations" / "station-1")
    with pytest.raises(ReplayRefused, match=r"not one trial but station-1/0123456789abcdef/7, station-1/fedcba"):
        find_trial(run, "station-1/7")
    assert find_trial(run, "station-1/fedcba9876543210/7").recording == "f" * 64


def test_a_recording_that_has_not_come_is_named(run: Path) -> None:
    (run / "recordings" / f"{recording_of(run)}.mcap").unlink()
    with pytest.raises(ReplayRefused, match="has not come from its station"):
        replay(run, "station-1/7", None, as_json=False)


def test_a_real_station_is_asked_for(run: Path) -> None:
    (run / "stations").rename(run / "elsewhere")
    with pytest.raises(ReplayRefused, match="name the folder of station station-1 with --station"):
        replay(run, "station-1/7", None, as_json=False)


def test_a_damaged_recording_is_the_robot_s_to_refuse(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (run / "recordings" / f"{recording_of(run)}.mcap").write_bytes(b"nothing")
    assert replay(run, "station-1/7", None, as_json=True) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("edge.replay: ")


@pytest.mark.parametrize("content", [None, b"no database"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "coordinator.db").write_bytes(content)
    with pytest.raises(ReplayRefused):
        find_trial(tmp_path, "station-1/7")


def test_the_newest_run_is_found_and_none_is_said(run: Path, tmp_path: Path) -> None:
    older = run.with_name("2026-10-31-235959-seed9")
    older.mkdir()
    Store(older / "coordinator.db").close()
    run.with_name("2026-12-24-180000-seed1").mkdir()  # begun, and no database yet
    assert newest_run(tmp_path / "runs") == run
    with pytest.raises(ReplayRefused, match="name the folder of one with --run"):
        newest_run(tmp_path / "nowhere")
