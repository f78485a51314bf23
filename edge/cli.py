"""`enpire-edge`: what a person types at a station."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from calibration.records import CalibrationError

if TYPE_CHECKING:
    from edge.doctor import Patient
    from edge.station import Station

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run and check one station.", rich_markup_mode=None)
CHECK_FAILED, CONFIGURATION_REFUSED = 1, 2
LOOK_S = 0.2
REAL = "real"
# Whatever is no real arm: what it is, and its process.
KINDS = {
    "emulated": ("an emulated station", "edge.emulation"),
    "gymnasium": ("a Gymnasium environment (no arm, so no control and no guard)", "edge.gym_station"),
}


@app.command()
def run(
    folder: Annotated[Path, typer.Argument(help="the station's folder, with station.toml in it")],
    pace: Annotated[float, typer.Option(help="emulated time over real time; 0 is as fast as it goes")] = 0.0,
    confirm_motion: Annotated[bool, typer.Option(help="needed where a real arm will move")] = False,
    mock: Annotated[bool, typer.Option(help="a real station's own process, on emulated motors")] = False,
    read_only: Annotated[bool, typer.Option(help="only show the joints; the motors stay disabled")] = False,
) -> None:
    """Run a station until Ctrl-C, which stows the arm and damps it there.

    An emulated station runs trials, and so does one that is a Gymnasium environment, which has no arm to stow. A real
    one holds its measured pose and follows setpoints.

    Exit code 2: something is wrong that no new start cures, and the last line says what.

    Examples:

      enpire-edge run stations/station-1

      enpire-edge run bench-1 --mock
    """
    from edge.supervisor import supervise

    if (kind := _kind(folder)) != REAL:
        what, module = KINDS[kind]
        if mock or read_only:
            _refuse(f"{folder} is {what}: run it without --mock and --read-only")
        print(
            f"{folder}: {what} runs the trials that its coordinator asks for, until Ctrl-C; its log"
            f" follows here, its trials are in {folder / 'ledger.db'}, what it does now in {folder / 'status.json'}",
            file=sys.stderr,
        )
        logging_setup()
        raise typer.Exit(supervise([_module(module, folder, pace), _module("edge.uplink", folder)]))

    from edge.station import StationError, load_station

    try:
        station = load_station(folder)
    except (StationError, CalibrationError) as error:
        _refuse(str(error))
    logging_setup()
    if read_only:
        raise typer.Exit(_watch(folder, station, mock))
    if not (mock or confirm_motion):
        _refuse("this moves a real arm: clear its space and add --confirm-motion, or try --mock or --read-only first")
    commands = [_module("edge.control", folder, *([_mock_socket(station)] if mock else []))]
    if mock:
        commands.append(_module("edge.emulation.bus", folder, _mock_socket(station)))
    else:
        commands.append(_module("edge.uplink", folder))
    print(
        f"{station.name}: {'emulated motors are' if mock else 'the arm is'} about to be woken where"
        f" {'they stand' if mock else 'it stands'}, and stowed at Ctrl-C; no camera is driven by this version, so no"
        " trials are run",
        file=sys.stderr,
    )
    raise typer.Exit(supervise(commands))


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="the station's folder")],
    confirm_motion: Annotated[bool, typer.Option(help="also enable the arm for a second, to test gravity")] = False,
    mock: Annotated[bool, typer.Option(help="examine emulated motors instead of the real arm")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON list")] = False,
) -> None:
    """Check in order whether a station's arm can be run, and say what to do where it cannot.

    Exit code 0: it can; 1: a check failed. An emulated station is examined on its emulated motors. The last line sums
    up.

    Example: enpire-edge doctor stations/station-1 --confirm-motion
    """
    from edge.doctor import examine
    from edge.finding import FAILED, line_of, verdict_of

    findings = []
    claim = _claim(folder, mock)
    for finding in examine(folder, confirm_motion, _emulated_arm(folder, mock)):
        findings.append(finding)
        if not as_json:
            print(line_of(finding), flush=True)
    claim.close()
    print(json.dumps([asdict(finding) for finding in findings], indent=1) if as_json else verdict_of(findings))
    if any(finding.outcome == FAILED for finding in findings):
        raise typer.Exit(CHECK_FAILED)


@app.command()
def make_stations(
    folder: Annotated[Path, typer.Argument(help="where to put the station folders")],
    count: Annotated[int, typer.Option(min=1, max=64)] = 4,
    seed: Annotated[int, typer.Option(min=0, help="draws each bench's hidden deviations")] = 1,
    task: Annotated[str, typer.Option(help="push_t, pin_insertion, or gym_pusht in its own environment")] = "push_t",
    connect: Annotated[str, typer.Option(help="the coordinator's endpoint")] = "tcp/127.0.0.1:7447",
    trust: Annotated[Path | None, typer.Option(help="the lab's root.json, whose policies may run")] = None,
) -> None:
    """Write the folders of emulated stations and print their names as JSON; existing files are left alone.

    Of a task that is a Gymnasium environment each station is that environment.

    Example: enpire-edge make-stations stations --count 4 --trust root.json
    """
    from edge.emulation.stations import make_stations as write
    from edge.gym_station.stations import ENVIRONMENTS, make_gym_stations
    from edge.station import StationError

    try:
        if task in ENVIRONMENTS:
            print(json.dumps(make_gym_stations(folder, count, task, connect, trust)))
        else:
            print(json.dumps(write(folder, count, seed, task, connect, trust)))
    except StationError as error:
        _refuse(str(error))


@app.command()
def enrol(
    folder: Annotated[Path, typer.Argument(help="the station's folder")],
    ticket_file: Annotated[Path, typer.Argument(help="what enpire-coord enrol ticket wrote")],
) -> None:
    """Let the coordinator know this station: keys are made here, a person there compares six words and approves.

    Waits until then; Ctrl-C stops the wait, and the same command goes on with it.

    Example: enpire-edge enrol bench-1 bench-1.ticket
    """
    from edge.enrol_cli import enrol as go

    raise typer.Exit(go(folder, ticket_file))


@app.command()
def import_bundle(
    folder: Annotated[Path, typer.Argument(help="the station's folder")],
    repository: Annotated[Path, typer.Argument(help="what enpire-coord keys carry wrote, as on a USB stick")],
    bundle: Annotated[list[str], typer.Option(help="a bundle to bring besides what is ordered; its sha256")] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Bring to a station what its lab has signed, without a network: orders, bundles, revocations.

    The station's root of trust must be there. What is on the stick is believed for its signatures alone; a running
    station goes on from it. Exit code 2: refused, and nothing that was trusted before has changed.

    Example: enpire-edge import-bundle bench-1 /media/stick/trust
    """
    from edge.stick import ImportRefused, import_bundles

    try:
        done = import_bundles(folder, repository, bundle)
    except ImportRefused as error:
        _refuse(str(error))
    if as_json:
        print(json.dumps(asdict(done)))
        return
    what = f"order {done.order}: {done.ordered[:12]} is {done.state}" if done.ordered else "no policy is ordered"
    print(f"{what}; {len(done.brought)} more brought; {done.revoked} revoked for good")


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="a station's folder to check as well")] = None,
) -> None:
    """Check that a station can run here, and compile its kernels once so that later starts find them ready.

    Looks at the graphics for the emulated camera and at the station's files.

    Example: enpire-edge check stations/station-1
    """
    module = KINDS["gymnasium" if folder is not None and _kind(folder) == "gymnasium" else "emulated"][1]
    command = [sys.executable, "-m", module, "--check", *([str(folder)] if folder else [])]
    if subprocess.run(command, check=False).returncode != 0:
        raise typer.Exit(CONFIGURATION_REFUSED)
    print("ready")


def logging_setup() -> None:
    """One line an event, on standard error."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def _kind(folder: Path) -> str:
    """Return which of KINDS a station's file asks for and no real arm, else REAL; whatever else is wrong with it.

    Its own process checks the rest. To load the station here would keep the kernels' compiler in memory for as long as
    the station runs. A file that asks for both is loaded here, to be refused before a process is started.
    """
    try:
        asked = tomllib.loads((folder / "station.toml").read_text())
    except (OSError, ValueError):  # who loads it says why
        return REAL
    if "can" in asked:
        return REAL
    return "emulated" if "emulation" in asked else "gymnasium" if "station" in asked else REAL


def _mock_socket(station: Station) -> Path:
    """Where the emulated motors of a real station answer: a short path, in RAM where there is such a place."""
    from edge.slots import slots_path

    return slots_path(station.name).with_suffix(".bus")


def _emulated_arm(folder: Path, mock: bool) -> Callable[[Station], Patient] | None:
    """Return what makes the emulated arm to examine, None where the station has a real one."""
    from edge.station import StationError, load_station

    try:
        emulation = load_station(folder).emulation
    except (StationError, CalibrationError):
        return None  # the doctor says why
    if emulation is None and not mock:
        return None
    from edge.emulation.patient import EmulatedArm

    return EmulatedArm


def _claim(folder: Path, mock: bool) -> ExitStack:
    """Keep other processes from a real arm until closed."""
    from edge.slots import ArmTaken, claim_arm
    from edge.station import StationError, load_station

    claim = ExitStack()
    try:
        station = load_station(folder)
        if station.can is not None and not mock:
            claim.enter_context(claim_arm(station.name, station.folder))
    except (StationError, CalibrationError):
        pass  # the doctor says why
    except ArmTaken as error:
        _refuse(str(error))
    return claim


def _watch(folder: Path, station: Station, mock: bool) -> int:
    """Show the joints until Ctrl-C; no motor is enabled."""
    from rich.live import Live

    from edge.control.process import motors_of, open_bus
    from edge.doctor import RealArm, read_feedback
    from edge.readout import table
    from firmware_bridge.frames import BridgeError

    # Not as an exception: one that is raised in a callback of a library is lost, and nothing ends then.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop.set())
    emulated = _emulated_arm(folder, mock)
    assert station.can is not None
    try:
        patient: Patient = emulated(station) if emulated is not None else RealArm(open_bus(station.can))
        with _claim(folder, mock), Live(refresh_per_second=5) as live:
            while not stop.is_set():
                live.update(table(station, read_feedback(patient, motors_of(station))))
                stop.wait(LOOK_S)
    except BridgeError as error:
        _refuse(str(error))
    return 0


def _refuse(sentence: str) -> NoReturn:
    print(f"enpire-edge: {sentence}", file=sys.stderr)
    raise typer.Exit(CONFIGURATION_REFUSED)


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
