"""Finds the recording and the station of a trial and has the robot's own code replay it, in a process of its own."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import CoordinatorError
from edge.records import EDGE_NAME

DATABASE = "coordinator.db"
EDGE = (sys.executable, "-m", "edge.replay")
BY_NUMBER = re.compile(
    rf"(?P<edge>{EDGE_NAME.pattern})/(?:(?P<epoch>[0-9A-Za-z]+)/)?(?P<sequence>[0-9]{{1,18}})", re.ASCII
)
BY_RECORDING = re.compile(r"[0-9a-f]{6,64}", re.ASCII)
COLUMNS = "SELECT edge, epoch, sequence, station_hash, calibration_hash, recording FROM trials"


class ReplayRefused(CoordinatorError):
    """There is no such trial, or nothing to replay it from."""


@dataclass(frozen=True)
class RecordedTrial:
    """What the database says about a trial that is to be replayed."""

    edge: str
    epoch: str
    sequence: int
    station_hash: str
    calibration_hash: str
    recording: str  # sha256, empty where there is none

    @property
    def name(self) -> str:
        """What a person types to have it."""
        return f"{self.edge}/{self.epoch}/{self.sequence}"


def replay(run_dir: Path, trial: str, station_dir: Path | None, as_json: bool) -> int:
    """Replay a trial of a run, let it print what it finds, and return its exit code: 0 same, 1 differs, 2 unusable.

    Args:
        trial: `edge/sequence`, `edge/epoch/sequence`, or how the sha256 of its recording begins.
        station_dir: the station's folder; that of an emulated station of the run where None.

    Raises:
        ReplayRefused: no such run or trial, more than one, or no recording or station.
    """
    found = find_trial(run_dir, trial)
    if not found.recording:
        raise ReplayRefused(f"trial {found.name} has no recording: replay another one")
    recording = run_dir / "recordings" / f"{found.recording}.mcap"
    if not recording.is_file():
        raise ReplayRefused(f"the recording of {found.name} has not come from its station: no {recording}")
    station = station_dir or run_dir / "stations" / found.edge
    if not (station / "station.toml").is_file():
        raise ReplayRefused(f"no station.toml in {station}: name the folder of station {found.edge} with --station")
    for line in _strangers(found, station):
        print(f"enpire-coord: {line}", file=sys.stderr, flush=True)
    command = [*EDGE, str(recording), str(station), *(["--json"] if as_json else [])]
    return subprocess.run(command, check=False).returncode


def newest_run(runs: Path) -> Path:
    """Return the folder of the run that was begun last.

    Raises:
        ReplayRefused: there is none.
    """
    found = [path.parent for path in runs.glob(f"*/{DATABASE}")]
    if not found:
        raise ReplayRefused(f"no run in {runs}: name the folder of one with --run")
    return max(found, key=lambda folder: folder.name)


def find_trial(run_dir: Path, trial: str) -> RecordedTrial:
    """Return the one trial of a run that is meant.

    Raises:
        ReplayRefused: no run there, none meant or more than one.
    """
    path = run_dir / DATABASE
    if not path.is_file():
        raise ReplayRefused(f"{run_dir} holds no {DATABASE}; give the folder of a run, such as runs/<id>")
    query, values = _query(trial)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = [RecordedTrial(*row) for row in database.execute(query, values)]
    except sqlite3.Error as error:
        raise ReplayRefused(f"{path} cannot be read as the database of a run: {error}") from error
    if not found:
        raise ReplayRefused(f"no trial {trial} in {path}: `SELECT edge, epoch, sequence FROM trials` lists them")
    if len(found) > 1:
        raise ReplayRefused(
            f"{trial} is not one trial but {', '.join(item.name for item in found[:4])}: name one in full"
        )
    return found[0]


def _query(trial: str) -> tuple[str, tuple[str | int, ...]]:
    """Return the query for what a person typed.

    Raises:
        ReplayRefused: it names nothing.
    """
    if number := BY_NUMBER.fullmatch(trial):
        edge, epoch, sequence = number["edge"], number["epoch"], int(number["sequence"])
        if epoch is None:
            return f"{COLUMNS} WHERE edge = ? AND sequence = ?", (edge, sequence)
        return f"{COLUMNS} WHERE edge = ? AND epoch = ? AND sequence = ?", (edge, epoch, sequence)
    if BY_RECORDING.fullmatch(trial.lower()):
        return f"{COLUMNS} WHERE substr(recording, 1, ?) = ?", (len(trial), trial.lower())
    raise ReplayRefused(
        f"{trial!r} names no trial: wants edge/sequence, edge/epoch/sequence, or six or more digits of its recording"
    )


def _strangers(trial: RecordedTrial, station: Path) -> list[str]:
    """Return a line for each file of the station that is another one than the trial was run with."""
    lines = []
    for name, then in (("station.toml", trial.station_hash), ("calibration.toml", trial.calibration_hash)):
        path = station / name
        here = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if here != then:
            lines.append(f"{path} is not what trial {trial.name} was run with: {here[:12]} here, {then[:12]} then")
    return lines
