"""`enpire-coord campaign`: starts campaigns, lets them go on after a kill, and lists them."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coordinator.agents_cli import agents, transcripts
from coordinator.errors import CoordinatorError
from coordinator.whole_table import print_whole

if TYPE_CHECKING:
    from coordinator.display import Display

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
DATABASE = "coordinator.db"
CAMPAIGNS = """
SELECT campaign_id, task, seed, stations, COALESCE(ended_why, ''), started_unix_s, budget_minutes,
       (SELECT COUNT(*) FROM trials),
       (SELECT COUNT(*) FROM decisions WHERE verdict = 'accept' AND stage = 'gate')
FROM campaigns
"""
MEASURED = "SELECT successes, trials FROM heldout WHERE complete = 1 ORDER BY heldout_id DESC LIMIT 1"
RAN = "SELECT COALESCE(SUM(ran_s), 0) / 60 FROM campaign_sessions"
campaign_app = typer.Typer(
    no_args_is_help=True, help="Start campaigns, let them go on, list them.", rich_markup_mode=None
)
campaign_app.command("agents")(agents)
campaign_app.command("transcripts")(transcripts)


@campaign_app.command("start")
def start_campaign(
    task: Annotated[str, typer.Option(help="what the stations shall learn")] = "push_t",
    edges: Annotated[int, typer.Option(min=1, max=64, help="how many stations to emulate")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="draws the benches' hidden deviations and the campaign")] = 1,
    budget_minutes: Annotated[
        float, typer.Option(min=0.05, help="wall time from the first trial on, after which it ends")
    ] = 8.0,
    pace: Annotated[float, typer.Option(min=0.0, help="emulated time over real time; 0 is as fast as it goes")] = 0.0,
    target: Annotated[int, typer.Option(min=1, max=200, help="successes on held-out starts that end it")] = 46,
    heldout: Annotated[int, typer.Option(min=1, max=200, help="of so many")] = 50,
    audit: Annotated[
        int, typer.Option(min=0, max=200, help="starts that chose nothing, to measure the last policy on after that")
    ] = 50,
    play_per_hour: Annotated[
        int, typer.Option(min=0, help="of a station, attempts that no test waits for; 0 for no bound")
    ] = 0,
    station_minutes: Annotated[
        float, typer.Option(min=0.0, help="of a station, after which it rests rather than plays; 0 for no bound")
    ] = 0.0,
    researcher: Annotated[
        list[str], typer.Option(help="who proposes: offline, claude-api, claude-code, codex or kimi; or NAME:COUNT")
    ] = [],  # noqa: B006
    no_offline: Annotated[bool, typer.Option("--no-offline", help="ask the agents only")] = False,
    model: Annotated[list[str], typer.Option(help="of all agents, or NAME=MODEL of one")] = [],  # noqa: B006
    budget_usd: Annotated[float | None, typer.Option(min=0.0, help="for the models of all agents together")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="of all agents together, in and out")] = None,
    agent_minutes: Annotated[
        float | None, typer.Option(min=0.0, help="that all agents together may think, in wall time of each")
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="a table of prices of models; the one that ships without")] = None,
    dev_trials: Annotated[
        int, typer.Option(min=0, max=64, help="attempts of an unfinished change that an agent may ask for, a proposal")
    ] = 4,
    unsafe_agent: Annotated[
        bool, typer.Option("--unsafe-agent", help="run agents without a cage; what they find proves nothing then")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as one JSON object")] = False,
    runs: Annotated[Path, typer.Option(help="where the folder of the run is made")] = Path("runs"),
) -> None:
    """Take a fleet of emulated arms from failing to succeeding, and sum up.

    Everything but an agent's model runs on this machine; Ctrl-C ends it in order, and `campaign resume` lets it go on.
    Agents need the key of their model's vendor: ANTHROPIC_API_KEY, OPENAI_API_KEY or MOONSHOT_API_KEY, and reach it at
    the matching ..._BASE_URL. The offline researcher needs none and is asked too, unless --no-offline is said.

    Examples:

      enpire-coord campaign start --budget-minutes 30 --audit 200

      enpire-coord campaign start --edges 2 --seed 7 --target 24 --heldout 25 --json

      enpire-coord campaign start --researcher claude-code:2 --researcher codex --budget-usd 20
    """
    from coordinator.agents.hiring import Wanted
    from coordinator.campaign_run import Plan, start
    from coordinator.scheduling.wear import WearBudget

    if target > heldout:
        print(f"enpire-coord: --target {target} is more than --heldout {heldout}", file=sys.stderr)
        raise typer.Exit(REFUSED)
    wear = WearBudget(play_per_hour, station_minutes)
    began_unix_s = time.time() - age_s()
    wanted = Wanted(
        tuple(researcher), not no_offline, tuple(model), str(prices.resolve()) if prices else "", budget_usd,
        budget_tokens, agent_minutes, unsafe_agent, dev_trials,
    )  # fmt: skip
    plan = Plan(edges, task, seed, budget_minutes, pace, runs, began_unix_s, target, heldout, audit, wear, wanted)
    run_and_tell(lambda display: start(plan, display), as_json)


@campaign_app.command("resume")
def resume_campaign(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run that was killed or ended early")],
    budget_minutes: Annotated[
        float | None, typer.Option(min=0.05, help="wall time over all its processes; as it was begun without it")
    ] = None,
    no_agents: Annotated[
        bool, typer.Option("--no-agents", help="ask the offline researcher only, from now on")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as one JSON object")] = False,
) -> None:
    """Let a campaign go on where it was: nothing is lost, and nothing is decided twice.

    Its agents go on too, with what is left of their budgets, and need the keys of their vendors again.

    Examples:

      enpire-coord campaign resume runs/2026-11-01-120000-seed1

      enpire-coord campaign resume runs/2026-11-01-120000-seed1 --budget-minutes 60 --no-agents
    """
    from coordinator.campaign_run import resume

    run_and_tell(lambda display: resume(run_dir, display, budget_minutes, no_agents), as_json)


@campaign_app.command("list")
def list_campaigns(
    runs: Annotated[Path, typer.Argument(help="the folder of runs")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="print them as one JSON list")] = False,
) -> None:
    """List the campaigns of a folder, the newest last.

    Examples:

      enpire-coord campaign list

      enpire-coord campaign list runs --json
    """
    found = [row for path in sorted(runs.glob(f"*/{DATABASE}")) if (row := _read(path)) is not None]
    if as_json:
        print(json.dumps(found))
        return
    table = Table("run", "task", "stations", "trials", "gains", "held-out", "minutes", "ended", box=None)
    for row in found:
        held = "" if row["heldout_trials"] is None else f"{row['heldout_successes']}/{row['heldout_trials']}"
        minutes = f"{row['ran_minutes']:.1f} of {row['budget_minutes']:g}"
        cells = (row["task"], str(row["stations"]), str(row["trials"]), str(row["gains"]), held, minutes)
        table.add_row(row["folder"], *cells, row["ended_why"] or "no: it runs, or was killed")
    if found:
        print_whole(table)
    else:
        print(f"no campaign in {runs}")


def run_and_tell(run: Callable[[Display], dict[str, Any]], as_json: bool) -> None:
    """Run a campaign before the eyes of a person, print what came out, and exit."""
    from coordinator.conduct import INTERRUPTED as WAS_INTERRUPTED
    from coordinator.display import Display
    from coordinator.farewell import print_farewell
    from coordinator.fleet import FleetError
    from coordinator.journal import JournalRefused
    from coordinator.run_folder import CampaignRefused

    try:
        with Display(Console(stderr=True)) as display:
            summary = run(display)
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        refused = isinstance(error, CampaignRefused | FleetError | JournalRefused)
        raise typer.Exit(REFUSED if refused else FAILED) from None
    if as_json:
        print(json.dumps(summary))
    else:
        print_farewell(Console(), summary)
    raise typer.Exit(INTERRUPTED if summary["ended_why"] == WAS_INTERRUPTED else 0)


def age_s() -> float:
    """Return how long ago this process was started: field 22 of /proc/self/stat, in clock ticks since the boot."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started_s = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - started_s


def _read(path: Path) -> dict[str, Any] | None:
    """Return a run's campaign in a few words; None where the database holds none that can be read."""
    names = ("run", "task", "seed", "stations", "ended_why", "started_unix_s", "budget_minutes", "trials", "gains")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            found = db.execute(CAMPAIGNS).fetchone()
            held = db.execute(MEASURED).fetchone() or (None, None)
            ran = db.execute(RAN).fetchone()[0]
    except sqlite3.Error:
        return None
    if found is None:
        return None
    more = {"heldout_successes": held[0], "heldout_trials": held[1], "ran_minutes": ran}
    return {**dict(zip(names, found, strict=True)), **more, "folder": str(path.parent)}
