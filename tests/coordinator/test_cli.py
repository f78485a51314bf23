"""The command refuses in one line; a demo loses nothing, not even when a station is killed or it is interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "example.db"
COMMAND = [sys.executable, "-m", "coordinator"]
LONG_S = 240.0  # bound of a wait for real processes; nothing is measured by it


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=LONG_S)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["report", "--help"]])
def test_help_shows_how(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "enpire-coord" in done.stdout or "demo" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--task", "knitting"], "push_t"),
        (["demo", "--task", "../x"], "no task"),
        (["demo", "--edges", "0"], "edges"),
        (["demo", "--budget-minutes", "0"], "budget"),
        (["demo", "--runs", "/dev/null"], "--runs"),
        (["report", "/nowhere"], "coordinator.db"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(tmp_path: Path, arguments: list[str], said: str) -> None:
    if arguments[0] == "demo" and "--runs" not in arguments:
        arguments = [*arguments, "--runs", str(tmp_path)]
    done = run(*arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_several_runs_get_their_reports_and_a_page_that_compares_them(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(EXAMPLE, folder / "coordinator.db")
    done = run("report", *map(str, folders))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'comparison.html'}\n")
    assert all((folder / "report.html").stat().st_size > 0 for folder in folders)
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()


def test_a_second_campaign_at_the_same_time_is_refused_in_one_line(tmp_path: Path) -> None:
    with open(tmp_path / "demo.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        done = run("demo", "--runs", str(tmp_path))
    assert done.returncode == 2
    assert "another campaign" in done.stderr
    assert "4711" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_station_that_is_killed_is_started_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        wait_for(lambda: trials(tmp_path, "station-1") >= 2, process)
        for victim in processes_of(tmp_path, "station-1"):
            os.kill(victim, signal.SIGKILL)
        before = trials(tmp_path, "station-1")
        wait_for(lambda: trials(tmp_path, "station-1") >= before + 2, process)
        sessions = sessions_of(tmp_path)
        process.send_signal(signal.SIGINT)
        summary = finish(process, 130)
    assert summary["ended_why"] == "it was interrupted"
    assert summary["integrity"] == dict.fromkeys(summary["integrity"], 0)
    assert summary["trials"]["total"] == trials(tmp_path, "station-1") + trials(tmp_path, "station-2")
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (folder / "report.html").stat().st_size > 0
    assert len(sessions) == 2
    assert still_in(sessions) == []


def test_no_station_outlives_a_killed_coordinator(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        wait_for(lambda: trials(tmp_path, "station-1") >= 1 and len(sessions_of(tmp_path)) == 2, process)
        sessions = sessions_of(tmp_path)
        process.kill()
        process.wait()
        wait_for(lambda: still_in(sessions) == [], None)


@contextmanager
def demo(runs: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo of two stations with more time than any test needs."""
    options = ["--edges", "2", "--seed", "5", "--budget-minutes", "30", "--json", "--runs", str(runs)]
    process = subprocess.Popen([*COMMAND, "demo", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for left in still_in(sessions_of(runs)):
            os.kill(left, signal.SIGKILL)


def finish(process: subprocess.Popen[str], code: int) -> dict[str, Any]:
    """Wait for the end of a demo and return what it printed."""
    out, err = process.communicate(timeout=LONG_S)
    assert process.returncode == code, err
    summary: dict[str, Any] = json.loads(out)
    return summary


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not happened():
        assert time.monotonic() < deadline_s, "it did not happen"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the demo ended: {process.communicate()[1]}")
        time.sleep(0.1)


def trials(runs: Path, edge: str) -> int:
    """Return how many trials of a station the coordinator has kept."""
    for path in runs.glob("*/coordinator.db"):
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone():
                return int(database.execute("SELECT COUNT(*) FROM trials WHERE edge = ?", (edge,)).fetchone()[0])
    return 0


def processes_of(runs: Path, station: str) -> list[int]:
    """Return the processes whose command line names that station of a run, or any station for an empty name."""
    named = f"/stations/{station}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(runs).encode() in command and named in command and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def sessions_of(runs: Path) -> set[int]:
    """Return the sessions of a run's stations; the policy's process, which names no station, is in them too."""
    return {os.getsid(number) for number in processes_of(runs, "")}


def still_in(sessions: set[int]) -> list[int]:
    """Return the processes of some sessions, but for those that only wait to be reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and fields[0] != "Z" and int(fields[3]) in sessions:
            found.append(int(entry.name))
    return found
