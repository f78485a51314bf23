"""Replays one recorded trial: through control, through perception and before the judge, and says what differs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from calibration.records import CalibrationError
from edge.replay.control import replay_control
from edge.replay.display import print_summary
from edge.replay.perception import replay_perception
from edge.replay.recorded import Recorded, ReplayError, read_recording
from edge.replay.result import Replay
from edge.replay.verdict import replay_verdict
from edge.station import Station, StationError, load_station

PARTS = ("control", "perception", "verdict")
SAME, DIFFERS, UNUSABLE = 0, 1, 2
OLDER = "it is older than the events of trial, stages and faults: what stopped the arm then is not known"


def replay(recording: Path, station_dir: Path, say: Callable[[str], None] = lambda part: None) -> Replay:
    """Replay a recording on the files of a station; `say` is told of each part as it begins.

    Raises:
        ReplayError: not a recording, or one of which nothing can be replayed.
        StationError, CalibrationError: the station's files cannot be used.
    """
    station, recorded = load_station(station_dir), read_recording(recording)
    if station.gym is not None:
        raise ReplayError(f"{station_dir} is a Gymnasium environment: without arm and camera nothing can be replayed")
    say("control")
    control = replay_control(station, recorded)
    say("perception")
    perception = replay_perception(station, recorded)
    say("verdict")
    verdict = replay_verdict(station, recorded)
    found = zip(PARTS, (control, perception, verdict), strict=True)
    lacks = [f"no replay of {name}: {part}" for name, part in found if isinstance(part, str)]
    if len(lacks) == len(PARTS):
        raise ReplayError(f"{recording}: {'; '.join(lacks)}; give another recording")
    return Replay(
        trial=recorded.trial,
        control=None if isinstance(control, str) else control,
        perception=None if isinstance(perception, str) else perception,
        verdict=None if isinstance(verdict, str) else verdict,
        lacks=(*lacks, *([] if recorded.trial else [OLDER])),
        notes=_notes(station, recorded),
    )


def _notes(station: Station, recorded: Recorded) -> tuple[str, ...]:
    cut = recorded.event("cut")
    notes = [] if cut is None else [cut.text]
    for event in recorded.events:
        if event.kind == "fault":
            notes.append(f"the arm was stopped at {(event.time_ns - recorded.start_ns) * 1e-9:.2f} s: {event.text}")
    for name, here in (("station", station.station_hash), ("calibration", station.calibration_hash)):
        then = str(recorded.trial.get(f"{name}_hash", here))
        if then != here:
            notes.append(f"{name}.toml is another one than in the trial: {here[:12]} here, {then[:12]} then")
    return tuple(notes)


def _progress(quiet: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=quiet or not console.is_terminal)


def main(arguments: Sequence[str]) -> int:
    """Replay what the command line names and print it: 0 all as it was, 1 something differs, 2 unusable files."""
    parser = argparse.ArgumentParser(prog="python -m edge.replay", description="Replay one recorded trial.")
    parser.add_argument("recording", type=Path, help="an .mcap")
    parser.add_argument("station_dir", type=Path, help="the folder of the station that recorded it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(arguments)
    try:
        with _progress(asked.json) as progress:
            task = progress.add_task("reading", total=len(PARTS) + 1)
            result = replay(
                asked.recording,
                asked.station_dir,
                lambda part: progress.update(task, advance=1, description=part),
            )
    except (ReplayError, StationError, CalibrationError) as error:
        print(f"edge.replay: {error}", file=sys.stderr)
        return UNUSABLE
    if asked.json:
        print(json.dumps(result.as_map()))
    else:
        print_summary(Console(), result)
    return SAME if result.same else DIFFERS
