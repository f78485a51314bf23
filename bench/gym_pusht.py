"""From the naive policy to the target in gym-pusht itself: a whole campaign of the offline researcher on its stations.

The environment, its physics and its success rule are gym-pusht's own; initial states are the explicit lists of
`coordinator/evolution/initial_states/gym_pusht.csv`; the researcher sees what stations report of development starts and
what policies note, and policies see observations only. Held-out starts are measured by the campaign itself.
Usage: python bench/gym_pusht.py [--seed 1] [--minutes 10] [--edges 2] [--runs FOLDER]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coordinator.evolution.rates import exact_interval

TARGET, HELDOUT = 95, 100
RATE_HZ = 10.0  # of the environment


def main(arguments: argparse.Namespace) -> None:
    """Run one campaign; the last line is one JSON object with its figures."""
    with tempfile.TemporaryDirectory() as temporary:
        summary = _campaign(arguments, arguments.runs or Path(temporary))
    print(json.dumps(_figures(summary, arguments)))


def _campaign(arguments: argparse.Namespace, runs: Path) -> dict[str, Any]:
    options = {
        "task": "gym_pusht", "edges": arguments.edges, "seed": arguments.seed, "budget-minutes": arguments.minutes,
        "target": TARGET, "heldout": HELDOUT, "runs": runs,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "coordinator", "campaign", "start", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the campaign ended with {done.returncode}; what it said stands above")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _figures(summary: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun, reached = summary["from"], summary["to"] or {"successes": 0, "trials": 0, "starts": "none"}
    return {
        "name": "gym_pusht",
        "seed": arguments.seed,
        "stations": arguments.edges,
        "target": f"{TARGET} of {HELDOUT} held-out",
        "reached": summary["target"]["reached"],
        "minutes_to_target": summary["minutes_to_target"],
        "wall_minutes": summary["wall_minutes"],
        "cpu_minutes": (used.ru_utime + used.ru_stime) / 60.0,
        "seed_policy": _share(begun) if begun else None,
        "last_policy": _share(reached) | {"starts": reached["starts"]},
        "accepted": [item["kind"] for item in summary["accepted"]],
        "episodes": summary["trials"]["total"],
        "station_minutes": summary["station_minutes"],
        "environment_steps": round(summary["station_minutes"] * 60.0 * RATE_HZ),
        "minutes_to_first_accept": summary["minutes_to_first_accept"],
        "tokens": 0,
        "rows": _rows(summary, reached, arguments),
    }


def _rows(summary: dict[str, Any], last: dict[str, Any], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of docs/figures.md."""
    share, minutes = _share(last), summary["minutes_to_target"]
    told = f"{share['successes']}/{share['trials']} (at least {100 * share['low']:.0f} %), {last['starts']} starts"
    where = f"gym-pusht, {arguments.edges} stations, seed {arguments.seed}"
    return [
        {
            "what": f"{where}: the last policy",
            "figure": told,
            "bound": f"at least {TARGET} of {HELDOUT}",
            "holds": bool(summary["target"]["reached"]),
        },
        {
            "what": f"{where}: from the naive policy to that, min",
            "figure": "not reached" if minutes is None else f"{minutes:.2f}",
            "bound": "at most 10",
            "holds": minutes is not None and minutes <= 10.0,
        },
    ]


def _share(rate: dict[str, Any]) -> dict[str, Any]:
    successes, trials = int(rate["successes"]), int(rate["trials"])
    low, high = exact_interval(successes, trials)
    return {"successes": successes, "trials": trials, "low": low, "high": high}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A campaign in gym-pusht from the naive policy to the target.")
    parser.add_argument("--seed", type=int, default=1, help="of the campaign and its researcher")
    parser.add_argument("--minutes", type=float, default=10.0, help="of wall time")
    parser.add_argument("--edges", type=int, default=2, help="stations")
    parser.add_argument("--runs", type=Path, help="keep the run in this folder")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
