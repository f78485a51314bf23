"""How many attempts whole campaigns take on paper: the real campaign and researcher, attempts drawn by a formula.

A campaign of 3,000 attempts takes seconds, so that a change of what is tested, when and how can be compared on many
seeds before it is measured on emulated arms. The worlds are those of `tests/harness/proving_worlds.py`; `hard` is the
pin world in which the last points are many small gains: its rate is .992 x rate ** 1.7.
A campaign is at its target with 96 of 100 held-out starts, see `fleet_scaling.py`.
Usage: python bench/paper_campaigns.py [SEEDS] [MOST_ATTEMPTS]
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from coordinator.campaign import Attempt, Campaign
from coordinator.evolution.evidence import Result
from coordinator.evolution.rates import exact_interval
from coordinator.evolution.starts import Starts
from coordinator.research.offline import OfflineResearcher
from edge.records import Outcome, Trial
from tests.harness.ideal_world import MemoryWorkshop, ask
from tests.harness.proving_ground import Params, World
from tests.harness.proving_worlds import pin_world, push_world

STATIONS, TARGET, HELDOUT = 4, 96, 100


def hard_world() -> World:
    """Return the pin world with its last points made hard."""
    pin = pin_world()

    def rate(params: Params) -> float:
        return float(0.992 * pin.rate(params) ** 1.7)

    def attempt(params: Params, rng: np.random.Generator) -> Result:
        success, seconds = bool(rng.random() < rate(params)), 7.0 + 3.0 * float(rng.random())
        return Result(success, 1.0 if success else 0.05, seconds, "" if success else "missed")

    return replace(pin, attempt=attempt, rate=rate)


WORLDS: dict[str, tuple[str, Callable[[], World]]] = {
    "push": ("push_t", push_world),
    "pin": ("pin_insertion", pin_world),
    "hard": ("pin_insertion", hard_world),
}


@dataclass(frozen=True)
class Run:
    """How a campaign ended."""

    attempts: int
    reached: bool


def run(name: str, most: int, seed: int) -> Run:
    """Run one campaign until it ends or has made `most` attempts."""
    task, make = WORLDS[name]
    world = make()
    workshop = MemoryWorkshop(world.space)
    campaign = Campaign(
        workshop, Starts.load(task), seed, target=TARGET, heldout=HELDOUT, audit=0, stations=STATIONS
    )  # fmt: skip
    researcher, rng = OfflineResearcher(world.space, seed), np.random.default_rng([seed, 5])
    work: list[Iterator[Attempt]] = [iter(()) for _ in range(STATIONS)]
    made, clock_s = 0, 0.0
    while made < most and not campaign.finished:
        clock_s += 0.25
        station = int(rng.integers(STATIONS))  # the one that ends what it does
        attempt = next(work[station], None)
        if attempt is None:
            ask(campaign, researcher, clock_s)
            given = campaign.next_work(f"station-{station}", clock_s)
            work[station] = iter(() if given is None else given.attempts)
        else:
            made += 1
            result = world.attempt(workshop.sources[attempt.bundle].params, rng)
            campaign.record(_trial(attempt, f"station-{station}", made, result), clock_s)
        campaign.drain()
    return Run(made, campaign.finished == "target")


def _trial(attempt: Attempt, edge: str, sequence: int, result: Result) -> Trial:
    return Trial(
        edge=edge, epoch="e", sequence=sequence, assignment_id=attempt.assignment_id, lease_id="l", task="paper",
        bundle=attempt.bundle, start_id=attempt.start_id, purpose=attempt.purpose, seed=attempt.seed,
        outcome=Outcome.SUCCESS if result.success else Outcome.FAILURE, cause=result.cause, detail="",
        progress=result.progress, measures={}, achieved_start={}, reset_s=12.0, reset_tries=1, trial_s=result.seconds,
        policy_steps=1, wall_reset_s=0.0, wall_trial_s=0.0, started_unix_s=0.0, ended_unix_s=0.0, station_hash="",
        calibration_hash="", software="", recording="",
    )  # fmt: skip


def main(seeds: int, most: int) -> None:
    """Run all worlds and print a row each."""
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor() as pool:
        for name in WORLDS:
            runs = list(pool.map(partial(run, name, most), range(1, seeds + 1)))
            reached = sum(item.reached for item in runs)
            low, high = exact_interval(reached, seeds)
            median = statistics.median(item.attempts if item.reached else most + 1 for item in runs)
            told = f"{median:.0f}" if median <= most else f"over {most}"
            row: dict[str, object] = {
                "what": f"world {name}: campaigns at {TARGET} of {HELDOUT} held-out within {most} attempts; median",
                "figure": f"{reached}/{seeds} ({low:.0%} to {high:.0%}); {told}",
                "bound": "",
                "holds": None,
            }
            print(row["what"], row["figure"], sep=": ", flush=True)
            rows.append(row)
    print(json.dumps({"seeds": seeds, "rows": rows}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(sys.argv[2]) if len(sys.argv) > 2 else 3000)
