"""How much sooner more stations reach a target: whole campaigns from the naive policy, by number of stations and seed.

- Time is the stations' own clock: the most that any station's resets and trials took until the target was measured.
  Emulation runs as fast as it can, so wall time says nothing; waiting and thinking, which cost emulated stations no
  time of that clock, are not in it.
- The target is 96 of 100 held-out starts: the least of 100 whose exact 95 % interval lies above 90 %. Of 50 it would be
  50, which a policy of 98 % misses two times in three; 200 would double what the measurement itself takes.
- Runs are appended to FILE, a JSON object a line, so an interrupted bench goes on where it was. Give a new file after a
  change of the code. `python -m coordinator.report.scaling OUT.html FILE` draws what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator.evolution.rates import exact_interval
from coordinator.report.scaling import PAPER_HOURS, read_runs

EXAMPLES = """examples:
  python bench/fleet_scaling.py --out runs/push_t.jsonl
  python bench/fleet_scaling.py --task pin_insertion --stations 4 --out runs/pin.jsonl
  python bench/fleet_scaling.py --stations 2 --seeds 1 --target 1 --heldout 1 --audit 0 --budget-minutes 1 --out x.jsonl
"""
TARGET, HELDOUT = 96, 100
LEAST_SPEED_UP, LEAST_AUDIT = 5.0, 0.97
LEAST_PIN_REACHED = 0.8  # of the seeds, with pin insertion on four stations
MOST_PIN_SEED = 0.25  # of its attempts that the policy succeeds in which ships
KEPT = (
    "task", "seed", "stations", "ended_why", "wall_minutes", "target", "from", "to", "audit", "accepted", "ideas",
    "trials", "mru", "mtu", "to_target", "climb", "clock_minutes", "integrity",
)  # fmt: skip
Run = Mapping[str, Any]


class BenchFailed(Exception):
    """A campaign failed, which is a fault to be found; the message is the last it said."""


def run_campaign(arguments: argparse.Namespace, stations: int, seed: int) -> dict[str, Any]:
    """Run one campaign to its end and return its figures.

    Raises:
        BenchFailed: it ended with another exit code than 0.
    """
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or Path(temporary)
        command = [
            sys.executable, "-m", "coordinator", "campaign", "start", "--task", arguments.task, "--edges",
            str(stations), "--seed", str(seed), "--target", str(arguments.target), "--heldout", str(arguments.heldout),
            "--audit", str(arguments.audit), "--budget-minutes", str(arguments.budget_minutes), "--runs", str(runs),
            "--json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchFailed(f"{stations} stations, seed {seed}: {done.stderr.strip()[-300:] or 'it said nothing'}")
    summary: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        **{name: summary.get(name) for name in KEPT},
        "asked": asked(arguments, stations, seed),
    }


def asked(arguments: argparse.Namespace, stations: int, seed: int) -> dict[str, Any]:
    """Return what tells one campaign from another."""
    names = ("task", "target", "heldout", "audit", "budget_minutes")
    return {**{name: getattr(arguments, name) for name in names}, "stations": stations, "seed": seed}


def run_missing(arguments: argparse.Namespace) -> list[Run]:
    """Run the campaigns that the file does not hold, and return the figures of all that were asked for."""
    done = {json.dumps(run["asked"], sort_keys=True): run for run in read_runs(arguments.out)}
    wanted = [(stations, seed) for seed in arguments.seeds for stations in arguments.stations]
    found: list[Run] = []
    for number, (stations, seed) in enumerate(wanted, start=1):
        key = json.dumps(asked(arguments, stations, seed), sort_keys=True)
        if key not in done:
            print(f"{number} of {len(wanted)}: {stations} stations, seed {seed} ...", file=sys.stderr, flush=True)
            done[key] = run_campaign(arguments, stations, seed)
            with open(arguments.out, "a") as out:
                out.write(json.dumps(done[key]) + "\n")
        found.append(done[key])
        print(f"  {_line(done[key])}", file=sys.stderr)
    return found


def _line(run: Run) -> str:
    to, reached = run["to"] or {"successes": 0, "trials": 0}, run["to_target"]
    when = f"after {reached['clock_minutes'] / 60:.2f} station-h" if reached else "not reached"
    return f"{run['ended_why']}: target {when}, {to['successes']}/{to['trials']} on {to.get('starts', 'no')} starts"


def hours_to_target(runs: Sequence[Run]) -> list[float]:
    """Return the station-time to the target of the runs that reached it, sorted, in hours."""
    return sorted(run["to_target"]["clock_minutes"] / 60.0 for run in runs if run["to_target"])


def pooled(runs: Sequence[Run], what: str) -> tuple[int, int]:
    """Return the successes and trials of `to`, on held-out starts only, or `audit`, over all runs that have it."""
    measured = [run[what] for run in runs if run[what] and run[what].get("starts", "held-out") == "held-out"]
    counts = [(count["successes"], count["trials"]) for count in measured]
    return sum(k for k, _ in counts), sum(n for _, n in counts)


def seed_policy(runs: Sequence[Run]) -> tuple[int, int]:
    """Return the successes and trials of the policy that ships, on the starts on which it was compared with others."""
    counts = [(run["from"]["successes"], run["from"]["trials"]) for run in runs if run["from"]]
    return sum(k for k, _ in counts), sum(n for _, n in counts)


def speed_up(runs: Sequence[Run], stations: int) -> float | None:
    """Return the median time of one station over that of so many; None where either is not there or censored.

    A median is over all seeds: one that did not reach the target counts as later than every one that did.
    """
    one, many = (median_hours([run for run in runs if run["stations"] == count]) for count in (1, stations))
    return one / many if one and many else None


def median_hours(runs: Sequence[Run]) -> float | None:
    """Return the median station-time to the target, None where half of the runs or more did not reach it."""
    hours = hours_to_target(runs) + [float("inf")] * sum(not run["to_target"] for run in runs)
    middle = statistics.median(hours) if hours else float("inf")
    return middle if middle < float("inf") else None


def summarise(runs: Sequence[Run], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures by number of stations, and the rows for docs/figures.md."""
    by_stations = {count: [run for run in runs if run["stations"] == count] for count in arguments.stations}
    told = {str(count): _figures(some, arguments.task, count) for count, some in by_stations.items()}
    return {
        "name": "fleet_scaling", "task": arguments.task, "seeds": arguments.seeds,
        "target": [arguments.target, arguments.heldout], "by_stations": told,
        "speed_up_at_8": speed_up(runs, 8), "paper_speed_up_at_8": _paper_speed_up(arguments.task),
        "audit": list(pooled(runs, "audit")), "rows": list(_rows(runs, by_stations, arguments)),
    }  # fmt: skip


def _figures(runs: Sequence[Run], task: str, stations: int) -> dict[str, Any]:
    hours = hours_to_target(runs)
    return {
        "runs": len(runs), "reached": len(hours), "median_hours": median_hours(runs), "hours": hours,
        "paper_hours": PAPER_HOURS.get(task, {}).get(stations), "heldout": list(pooled(runs, "to")),
        "audit": list(pooled(runs, "audit")), "accepted": [len(run["accepted"]) for run in runs],
        "tried": [run["ideas"]["tried"] for run in runs],
    }  # fmt: skip


def _paper_speed_up(task: str) -> float | None:
    hours = PAPER_HOURS.get(task, {})
    return hours[1] / hours[8] if {1, 8} <= hours.keys() else None


def _rows(
    runs: Sequence[Run], by_stations: Mapping[int, Sequence[Run]], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    where = f"{arguments.task}, {arguments.target} of {arguments.heldout} held-out starts"
    rows = []
    won, tried = seed_policy(runs)
    if arguments.task == "pin_insertion" and tried:
        bound = f"at most {100 * MOST_PIN_SEED:.0f} %"
        rows.append(
            _row(f"{arguments.task}, the seed policy", count_text(won, tried), bound, won <= MOST_PIN_SEED * tried)
        )
    for count, some in by_stations.items():
        least = 4 if arguments.task == "pin_insertion" and count == 4 else None
        reached, paper = len(hours_to_target(some)), PAPER_HOURS.get(arguments.task, {}).get(count)
        beside = f"; the paper {paper:g} h" if paper else ""
        enough = None if least is None else reached >= LEAST_PIN_REACHED * len(some)
        bound = "" if least is None else f"reached by {100 * LEAST_PIN_REACHED:.0f} % of the seeds"
        rows.append(
            _row(f"{where}, {count} stations, station-time without waiting", f"{_spread(some)}{beside}", bound, enough)
        )
    eight = speed_up(runs, 8)
    if eight is not None:
        bound = f"at least {LEAST_SPEED_UP:g}"
        rows.append(_row(f"{where}, speed-up with 8 stations", f"{eight:.1f}", bound, eight >= LEAST_SPEED_UP))
    won, tried = pooled(runs, "audit")
    if tried:
        bound = f"at least {100 * LEAST_AUDIT:.0f} %"
        audited = f"{sum(bool(run['audit']) for run in runs)} of {len(runs)} runs, those that reached it"
        rows.append(
            _row(f"{where}, then audit starts, {audited}", count_text(won, tried), bound, won >= LEAST_AUDIT * tried)
        )
    return rows


def _row(what: str, figure: str, bound: str, holds: bool | None) -> dict[str, Any]:
    return {"what": what, "figure": figure, "bound": bound, "holds": holds}


def _spread(runs: Sequence[Run]) -> str:
    hours, middle = hours_to_target(runs), median_hours(runs)
    if not hours:
        return f"reached by none of {len(runs)}"
    first = "no median" if middle is None else f"median {middle:.2f} h"
    return f"{first}, {hours[0]:.2f} to {hours[-1]:.2f} h ({len(hours)} of {len(runs)} reached it)"


def count_text(successes: int, trials: int) -> str:
    """Return k/n with its exact 95 % interval."""
    if not trials:
        return "not measured"
    low, high = exact_interval(successes, trials)
    return f"{successes}/{trials} = {100 * successes / trials:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


def print_table(told: Mapping[str, Any], console: Console) -> None:
    """Print a row a number of stations, the paper's figure beside ours."""
    title = f"{told['task']}, {told['target'][0]} of {told['target'][1]} held-out starts, seeds {told['seeds']}"
    table = Table("stations", "reached", "median h", "range h", "paper h", "held-out", "audit", "accepted", title=title)
    for count, row in told["by_stations"].items():
        hours, middle, paper = row["hours"], row["median_hours"], row["paper_hours"]
        table.add_row(
            count, f"{row['reached']}/{row['runs']}", "–" if middle is None else f"{middle:.2f}",
            f"{hours[0]:.2f}–{hours[-1]:.2f}" if hours else "–", "–" if paper is None else f"{paper:g}",
            count_text(*row["heldout"]), count_text(*row["audit"]),
            ", ".join(f"{won}/{tried}" for won, tried in zip(row["accepted"], row["tried"], strict=True)),
        )  # fmt: skip
    console.print(table)


def main() -> int:
    """Run what is missing and print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="push_t", help="push_t or pin_insertion (push_t)")
    parser.add_argument("--stations", type=int, nargs="+", default=[1, 4, 8], help="(1 4 8)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="(1 2 3 4 5)")
    parser.add_argument("--target", type=int, default=TARGET, help=f"successes on held-out starts ({TARGET})")
    parser.add_argument("--heldout", type=int, default=HELDOUT, help=f"of so many ({HELDOUT})")
    parser.add_argument("--audit", type=int, default=200, help="audit starts to measure the last policy on (200)")
    parser.add_argument("--budget-minutes", type=float, default=60.0, help="wall time of one campaign (60)")
    parser.add_argument("--out", type=Path, default=Path("runs/fleet_scaling.jsonl"), help="what is done, kept")
    parser.add_argument("--runs", type=Path, help="a folder to keep the runs in; without it, they are deleted")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        told = summarise(run_missing(arguments), arguments)
    except BenchFailed as error:
        print(f"fleet_scaling: {error}", file=sys.stderr)
        return 1
    print_table(told, Console(stderr=True, width=160))
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
