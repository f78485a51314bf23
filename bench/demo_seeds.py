"""How often a demo reaches its target, and what a demo costs: whole demos with different seeds, one after the other.

A seed whose summary lies in the folder already is not run again, so an interrupted measurement goes on where it was:
give a new folder after a change of the code. Kernels are compiled before the first demo, as figures are asked for warm.
Usage: python bench/demo_seeds.py [SEEDS] [FOLDER]    e.g. 10 runs/seeds
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coordinator.evolution.rates import exact_interval

Summary = dict[str, Any]


def main(seeds: int, folder: Path) -> None:
    """Run the demos that are missing and print the figures of all."""
    done = {summary["seed"]: summary for summary in map(_read, sorted(folder.glob("*/summary.json")))}
    if not done:
        subprocess.run([sys.executable, "-m", "edge.cli", "check"], stdout=subprocess.DEVNULL, check=True)
    for seed in range(1, seeds + 1):
        if seed not in done:
            done[seed] = _demo(seed, folder)
        print(f"seed {seed}: {_line(done[seed])}", file=sys.stderr)
    print(json.dumps({"name": "demo_seeds", "rows": _rows([done[seed] for seed in range(1, seeds + 1)])}))


def _read(path: Path) -> Summary:
    summary: Summary = json.loads(path.read_text())
    return summary


def _demo(seed: int, folder: Path) -> Summary:
    command = [sys.executable, "-m", "coordinator", "demo", "--seed", str(seed), "--runs", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the demo with seed {seed} failed, which is a fault to be found: {done.stderr.strip()[-300:]}")
    summary: Summary = json.loads(done.stdout)
    return summary


def _line(summary: Summary) -> str:
    to = summary["to"] or {"successes": 0, "trials": 0}
    return (
        f"{summary['ended_why']} after {summary['wall_minutes']:.1f} min and {summary['trials']['total']} trials,"
        f" {to['successes']}/{to['trials']}"
    )


def _rows(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    n = len(summaries)
    reached = sum(bool(item["target"]["reached"]) for item in summaries)
    seed_won, seed_tried = (sum(item["from"][key] for item in summaries) for key in ("successes", "trials"))
    resets = [item["reset"]["ready_at_first_try"] for item in summaries]
    won, ready = (sum(item[key] for item in resets) for key in ("successes", "trials"))
    broken = sum(sum(item["integrity"].values()) for item in summaries)
    trials = sum(item["trials"]["total"] for item in summaries)
    resets_s = [item["reset"]["median_station_s"] for item in summaries]
    first_trial_s = [item["first_trial_s"] for item in summaries]
    first_gain = [item["minutes_to_first_accept"] for item in summaries]
    target_minutes = [item["minutes_to_target"] for item in summaries if item["minutes_to_target"] is not None]
    station_mb = [max(item["memory"]["stations_peak_mb"].values()) for item in summaries]
    coordinator_mb = [item["memory"]["coordinator_peak_mb"] for item in summaries]
    useful = statistics.median(item["mru"]["useful"] for item in summaries)
    return [
        _row("demos that reached 46 of 50 held-out starts", f"{reached}/{n}", "at least 9 of 10", reached >= 0.9 * n),
        _row("success of the seed policy", _count(seed_won, seed_tried), "at most 10 %", seed_won <= 0.1 * seed_tried),
        _row("first accepted gain, minutes", _spread(first_gain, n), "within 2", _all(first_gain, n, 2.0)),
        _row("target reached, minutes", _spread(target_minutes, n), "", None),
        _row("resets ready at first try", _count(won, ready), "at least 95 %", won >= 0.95 * ready),
        _row("reset, median station time, s", _spread(resets_s, n), "at most 20", max(resets_s) <= 20.0),
        _row("command to first finished trial, s", _spread(first_trial_s, n), "at most 20", max(first_trial_s) <= 20.0),
        _row("memory of an emulated edge, MB", _spread(station_mb, n), "at most 450", max(station_mb) <= 450.0),
        _row("memory of the coordinator, MB", _spread(coordinator_mb, n), "at most 200", max(coordinator_mb) <= 200.0),
        _row("trials lost, doubled, invented, quarantined", f"{broken} of {trials}", "0", broken == 0),
        _row("robots in a trial that entered a decision, share of time", f"{100 * useful:.0f} %", "", None),
    ]


def _row(what: str, figure: str, bound: str, holds: bool | None) -> dict[str, Any]:
    return {"what": what, "figure": figure, "bound": bound, "holds": holds}


def _count(successes: int, trials: int) -> str:
    low, high = exact_interval(successes, trials)
    share = 100 * successes / trials
    return f"{successes}/{trials} = {share:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def _spread(values: Sequence[float | None], runs: int) -> str:
    there = sorted(value for value in values if value is not None)
    if not there:
        return f"in none of {runs}"
    return f"median {statistics.median(there):.1f}, {there[0]:.1f} to {there[-1]:.1f} (n = {len(there)})"


def _all(values: Sequence[float | None], runs: int, bound: float) -> bool:
    return sum(value is not None and value <= bound for value in values) == runs


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, Path(sys.argv[2] if len(sys.argv) > 2 else "runs/seeds"))
