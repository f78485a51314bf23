"""`enpire-coord`: what a person types at the coordinator."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from coordinator.campaign_cli import age_s, campaign_app
from coordinator.enrol_cli import enrol_app
from coordinator.errors import CoordinatorError
from coordinator.keys_cli import keys_app
from coordinator.methods_cli import methods
from coordinator.push_cli import push_policy

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Run campaigns on a fleet of stations and read what came out.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(campaign_app, name="campaign")
app.add_typer(keys_app, name="keys")
app.add_typer(enrol_app, name="enrol")
app.command("push-policy")(push_policy)
app.command()(methods)
FAILED = 1
REFUSED = 2
INTERRUPTED = 130


@app.callback()
def enpire_coord() -> None:
    """Run campaigns on a fleet of stations and read what came out."""


@app.command()
def demo(
    edges: Annotated[int, typer.Option(min=1, max=64, help="how many stations to emulate")] = 4,
    task: Annotated[str, typer.Option(help="what they shall learn")] = "push_t",
    seed: Annotated[int, typer.Option(min=0, help="draws the benches' hidden deviations and the campaign")] = 1,
    budget_minutes: Annotated[
        float, typer.Option(min=0.05, help="wall time from the first trial on, after which it ends")
    ] = 8.0,
    pace: Annotated[float, typer.Option(min=0.0, help="emulated time over real time; 0 is as fast as it goes")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as one JSON object")] = False,
    runs: Annotated[Path, typer.Option(help="where the folder of the run is made")] = Path("runs"),
) -> None:
    """Take a fleet of emulated arms from failing to succeeding, and sum up.

    Everything runs on this machine; Ctrl-C ends it in order and leaves a run that can be read.

    Examples:

      enpire-coord demo

      enpire-coord demo --edges 2 --seed 7 --budget-minutes 2 --json
    """
    from coordinator.campaign_cli import run_and_tell
    from coordinator.campaign_run import Plan, start

    plan = Plan(edges, task, seed, budget_minutes, pace, runs, time.time() - age_s())
    run_and_tell(lambda display: start(plan, display), as_json)


@app.command()
def serve(
    run_dir: Annotated[Path, typer.Argument(help="the folder of the lab's run, made if need be")],
    task: Annotated[str, typer.Option(help="what its stations do")] = "push_t",
    listen: Annotated[str, typer.Option(help="tls/HOST:PORT, or tcp/127.0.0.1:PORT for this machine")] = (
        "tls/0.0.0.0:7447"
    ),
    door: Annotated[str, typer.Option(help="where stations without a certificate ask for one")] = "tls/0.0.0.0:7448",
    host: Annotated[list[str], typer.Option(help="a name or address under which stations reach this machine")] = [],  # noqa: B006
    keys: Annotated[Path | None, typer.Option(help="the folder of keys; in the folder of the run without it")] = None,
) -> None:
    """Take in the trials of a lab's stations, carry what they trust, and enrol new ones, until Ctrl-C.

    It may be stopped and started at any time: stations keep what it has not acknowledged.

    Examples:

      enpire-coord keys make lab/keys && enpire-coord serve lab --host 10.0.0.5

      enpire-coord serve lab --listen tcp/127.0.0.1:7447
    """
    from rich.live import Live

    from coordinator.serve import Plan, table
    from coordinator.serve import serve as run_service

    plan = Plan(run_dir, task, listen, door, tuple(host), keys)
    console = Console(stderr=True)
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            run_service(
                plan,
                lambda plan, roster: live.update(table(plan, roster), refresh=True) if console.is_terminal else None,
                console.print,
            )
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR", help="the folder of a run, or of several")],
) -> None:
    """Write the report of a run anew and print where it is.

    Of several runs it writes each report, and beside the first run's folder a page that compares them all:
    comparison.html, success over the stations' own time by number of stations.

    Examples:

      enpire-coord report runs/2026-11-01-120000-seed1

      enpire-coord report runs/2026-11-01-120000-seed1 runs/2026-11-01-123000-seed2
    """
    from coordinator.report.run import ReportError
    from coordinator.report.write import write_reports

    try:
        print(write_reports(run_dirs))
    except (ReportError, OSError) as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None


@app.command()
def schema(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run")],
    as_json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
) -> None:
    """Print every table, view and column of a run's database with what it means.

    Example: enpire-coord schema runs/2026-11-01-120000-seed1
    """
    from coordinator.schema_page import page, read_schema
    from coordinator.store import FILE

    try:
        parts = read_schema(run_dir / FILE)
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None
    print(json.dumps([asdict(part) for part in parts]) if as_json else page(parts).rstrip("\n"))


@app.command()
def backup(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run; its coordinator may be at work")],
    dest: Annotated[Path, typer.Argument(help="the folder of the backup, best on another disk; made if need be")],
    as_json: Annotated[bool, typer.Option("--json", help="print what it holds as one JSON object")] = False,
) -> None:
    """Copy a run's database and recordings, and let stations forget what the copy holds.

    The same folder again takes what is new. To restore one, copy it over an empty run folder.

    Example: enpire-coord backup runs/2026-11-01-120000-seed1 /mnt/backup/seed1
    """
    from rich.progress import Progress

    from coordinator.backup import BackupRefused, make_backup

    try:
        with Progress(console=Console(stderr=True), transient=True) as bars:
            tasks = {what: bars.add_task(what, total=None) for what in ("database", "recordings")}
            made = make_backup(
                run_dir, dest, lambda what, done, total: bars.update(tasks[what], completed=done, total=total)
            )
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED if isinstance(error, BackupRefused) else FAILED) from None
    if as_json:
        print(json.dumps(asdict(made)))
        return
    print(f"{dest} holds {made.trials} trials and {made.recordings} recordings, {made.bytes / 1e6:.1f} MB")
    if made.damaged:
        print(f"{len(made.damaged)} recordings are missing or broken in the run; their stations keep them")
    if made.same_disk:
        print("it lies on the disk of the run, and does not outlive it")


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run")],
    form: Annotated[str, typer.Option("--format", help="parquet or csv: the database; lerobot: a dataset")] = "parquet",
    out: Annotated[Path | None, typer.Option(help="the folder to make; by default in the folder of the run")] = None,
    outcome: Annotated[str, typer.Option(help="success, failure, invalid or all; for lerobot")] = "all",
    policy: Annotated[str, typer.Option(help="how the sha256 of one policy begins; for lerobot")] = "",
    video: Annotated[bool, typer.Option("--video/--no-video", help="with the camera's pictures; for lerobot")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be written")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print what was written as one JSON object")] = False,
) -> None:
    """Write a run for other programs: its tables as Parquet or CSV, or its trials as a LeRobotDataset v3.0.

    Examples:

      enpire-coord export runs/2026-11-01-120000-seed1 --format csv --out tables

      enpire-coord export runs/2026-11-01-120000-seed1 --format lerobot --outcome success --out dataset
    """
    from rich.progress import Progress

    try:
        from coordinator.export.write import Request, describe
        from coordinator.export.write import export as write
    except ModuleNotFoundError as error:
        print(f"enpire-coord: export needs {error.name}: pip install 'enpire[analysis]'", file=sys.stderr)
        raise typer.Exit(REFUSED) from None

    console = Console(stderr=True)
    try:
        with Progress(console=console, disable=not console.is_terminal, transient=True) as bars:
            bar = bars.add_task("writing", total=None)
            told = write(
                Request(run_dir, form, out, outcome, policy.lower(), video),
                lambda done, of: bars.update(bar, completed=done, total=of),
                dry_run,
            )
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        print("enpire-coord: stopped; nothing was exported", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(json.dumps(told))
    else:
        first, *others = describe(told)
        print(first)
        print(*others, sep="\n", end="\n" if others else "", file=sys.stderr)


@app.command()
def replay(
    trial: Annotated[
        str, typer.Argument(help="edge/sequence, edge/epoch/sequence, or how its recording's sha256 begins")
    ],
    run: Annotated[Path | None, typer.Option(help="the folder of a run; the newest in runs/ without it")] = None,
    station: Annotated[Path | None, typer.Option(help="the station's folder, where it is not in the run's")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Feed a trial's recording through control, perception and judge again, and print what differs.

    Exit code 0: the same within tolerance; 1: something differs; 2: it cannot be replayed.

    Example: enpire-coord replay station-1/12
    """
    from coordinator.replay import newest_run
    from coordinator.replay import replay as play

    try:
        code = play(run or newest_run(Path("runs")), trial, station, as_json)
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
