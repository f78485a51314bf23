"""A fleet says why a station refused, starts a killed one again and leaves no process behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.fleet import Fleet, make_stations, wait_after

LONG_S = 120.0  # bound of a wait for real processes; nothing is measured by it
NOBODY = "tcp/127.0.0.1:1"


def root(folder: Path) -> Path:
    """Return a root of trust, which no station gets to use here."""
    path = folder / "root.json"
    path.write_text("{}")
    return path


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, make_stations(tmp_path, 1, 1, "push_t", NOBODY, root(tmp_path)), 0.0)
    yield made
    made.kill()


def wait_for(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not happened():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


def test_a_station_with_wrong_files_is_not_started_again_and_says_why(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "station-1" / "station.toml"
    path.write_text(path.read_text().replace("velocity_rad_s", "velocity_deg_s"))
    fleet.start()
    happened: list[tuple[str, str]] = []
    wait_for(lambda: bool(happened.extend(fleet.tend()) or happened))
    [(name, sentence)] = happened
    assert (name, fleet.hopeless) == ("station-1", True)
    assert "velocity_deg_s" in sentence
    assert "Traceback" not in (tmp_path / "station-1" / "log.txt").read_text()


def test_a_killed_station_is_started_again_and_stops_when_asked(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start()
    log = tmp_path / "station-1" / "log.txt"
    wait_for(lambda: "no coordinator" in log.read_text())
    [supervisor] = [pid for pid in children_of(os.getpid()) if b"station-1" in command_of(pid)]
    os.kill(supervisor, signal.SIGKILL)
    happened: list[tuple[str, str]] = []
    wait_for(lambda: bool(happened.extend(fleet.tend()) or happened))
    assert "SIGKILL" in happened[0][1]
    wait_for(lambda: fleet.tend() == [] and fleet.running)
    wait_for(lambda: log.read_text().count("no coordinator") >= 2)
    fleet.ask_stop()
    wait_for(lambda: not fleet.running)
    assert fleet.tend() == []


def test_the_first_station_goes_ahead_and_the_others_follow(tmp_path: Path) -> None:
    made = Fleet(tmp_path, make_stations(tmp_path, 3, 1, "push_t", NOBODY, root(tmp_path)), 0.0)
    logs = [tmp_path / name / "log.txt" for name in made.names]
    try:
        made.start()
        assert made.tend() == []
        assert [log.exists() for log in logs] == [True, False, False]
        made.start_rest()
        assert made.tend() == []
        assert all(log.exists() for log in logs)
        assert len(children_of(os.getpid())) == 3
    finally:
        made.kill()


def children_of(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_station_that_fails_all_night_is_started_again_all_night() -> None:
    assert [wait_after(ends) for ends in (1, 2, 3, 50, 10_000)] == [0.5, 1.0, 2.0, 20.0, 20.0]
