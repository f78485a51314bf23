"""`enpire-edge`: what a person types at a station."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from calibration.records import CalibrationError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run and check one station.", rich_markup_mode=None)
CONFIGURATION_REFUSED = 2


@app.command()
def run(
    folder: Annotated[Path, typer.Argument(help="the station's folder, with station.toml in it")],
    pace: Annotated[float, typer.Option(help="emulated time over real time; 0 is as fast as it goes")] = 0.0,
) -> None:
    """Run a station until Ctrl-C: its trials in one process, its uplink in another.

    Example: enpire-edge run stations/station-1
    """
    from edge.station import StationError, load_station
    from edge.supervisor import supervise

    try:
        station = load_station(folder)
    except (StationError, CalibrationError) as error:
        _refuse(str(error))
    if station.emulation is None:
        _refuse(f"{folder} is not an emulated station; hardware stations cannot be run by this version")
    logging_setup()
    commands = [
        [sys.executable, "-m", "edge.emulation", str(folder), str(pace)],
        [sys.executable, "-m", "edge.uplink", str(folder)],
    ]
    raise typer.Exit(supervise(commands))


@app.command()
def make_stations(
    folder: Annotated[Path, typer.Argument(help="where to put the station folders")],
    count: Annotated[int, typer.Option(min=1, max=64)] = 4,
    seed: Annotated[int, typer.Option(min=0, help="draws each bench's hidden deviations")] = 1,
    task: Annotated[str, typer.Option()] = "push_t",
    connect: Annotated[str, typer.Option(help="the coordinator's endpoint")] = "tcp/127.0.0.1:7447",
    trust: Annotated[list[str] | None, typer.Option(help="a public key, hex, whose bundles may run")] = None,
) -> None:
    """Write the folders of emulated stations and print their names as JSON; existing files are left alone.

    Example: enpire-edge make-stations stations --count 4 --trust 3b6a...
    """
    from edge.emulation.stations import make_stations as write

    print(json.dumps(write(folder, count, seed, task, connect, trust or [])))


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="a station's folder to check as well")] = None,
) -> None:
    """Check that a station can run here, and compile its kernels once so that later starts find them ready.

    Looks at the graphics for the emulated camera and at the station's files.

    Example: enpire-edge check stations/station-1
    """
    command = [sys.executable, "-m", "edge.emulation", "--check", *([str(folder)] if folder else [])]
    if subprocess.run(command, check=False).returncode != 0:
        raise typer.Exit(CONFIGURATION_REFUSED)
    print("ready")


def logging_setup() -> None:
    """One line an event, on standard error."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")


def _refuse(sentence: str) -> None:
    print(f"enpire-edge: {sentence}", file=sys.stderr)
    raise typer.Exit(CONFIGURATION_REFUSED)


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
