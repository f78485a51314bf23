"""How long a campaign takes with so many stations, on a virtual clock and in a world that is known.

Usage: python -m tests.harness.station_time [WORLD] [FIRST-LAST SEED] [STATIONS ...]    e.g. two_locks 100-119 1 4 8
"""

from __future__ import annotations

import heapq
import json
import statistics
import sys
from collections import Counter, deque
from dataclasses import dataclass, field, replace

import numpy as np

from coordinator.campaign import Attempt
from tests.harness.ideal_world import Lab, World, ladder, two_locks

STOCK = 2  # attempts that a station holds ahead of the one that it runs
MEAN_S, SPREAD_S = 37.0, 6.0  # of an attempt with its reset
LONGEST_S = 3600.0 * 24.0
WORLDS = {"ladder": (ladder, True), "two_locks": (two_locks, False)}  # and whether progress tells


@dataclass
class Station:
    """One station: what it runs, and what it holds."""

    name: str
    held: deque[Attempt] = field(default_factory=deque)
    busy_s: float = 0.0
    waited_s: float = 0.0


@dataclass(frozen=True)
class Passed:
    """What it took."""

    target_s: float  # wall time to the target
    attempts: int
    by_purpose: Counter[str]
    waited_s: float  # of all stations, for work


def campaign_time(seed: int, stations: int, world_name: str = "ladder") -> Passed:
    """Run a campaign until its target; the stations work side by side, each through what it holds in order."""
    skill, graded = WORLDS[world_name]
    world = World(skill, seed, graded=graded)
    lab = Lab(world, seed, stations=stations)
    fleet = [Station(f"station-{number}") for number in range(1, stations + 1)]
    rng = np.random.default_rng([seed, 0x7173])
    ends = [(0.0, number) for number in range(stations)]
    heapq.heapify(ends)
    running: dict[int, Attempt] = {}
    purposes: Counter[str] = Counter()
    now_s = 0.0
    while lab.campaign.finished is None and now_s < LONGEST_S:
        now_s, number = heapq.heappop(ends)
        station = fleet[number]
        if (ended := running.pop(number, None)) is not None:
            trial = world.run(ended, station.name)
            purposes[ended.purpose] += 1
            lab.campaign.record(replace(trial, ended_unix_s=now_s), now_s)
        lab.campaign.drain()
        if station.held:
            running[number] = station.held.popleft()
        while len(station.held) < STOCK:
            work = lab.next_work(station.name, now_s, len(station.held))
            if work is None:
                break
            station.held.extend(work.attempts)
            if number not in running:
                running[number] = station.held.popleft()
        if number in running:
            lasts_s = max(5.0, float(rng.normal(MEAN_S, SPREAD_S)))
        else:
            lasts_s = 1.0
            station.waited_s += lasts_s
        heapq.heappush(ends, (now_s + lasts_s, number))
    return Passed(now_s, world.sequence, purposes, sum(item.waited_s for item in fleet))


def figures(seeds: range, sizes: list[int], world_name: str = "ladder") -> dict[str, object]:
    """Return medians by number of stations, and the speed-up against the first."""
    found = {size: [campaign_time(seed, size, world_name) for seed in seeds] for size in sizes}
    first = statistics.median(item.target_s for item in found[sizes[0]])
    rows = {}
    for size, passed in found.items():
        median_s = statistics.median(item.target_s for item in passed)
        total: Counter[str] = Counter()
        for item in passed:
            total += item.by_purpose
        rows[size] = {
            "median_minutes": round(median_s / 60.0, 1),
            "speed_up": round(first / median_s, 2),
            "attempts": statistics.median(item.attempts for item in passed),
            "by_purpose": {name: round(count / len(passed)) for name, count in total.most_common()},
            "waited_s": round(statistics.median(item.waited_s for item in passed)),
        }
    return {"world": world_name, "seeds": [seeds[0], seeds[-1]], "stations": rows}


if __name__ == "__main__":
    world_name, span, *sizes = [*sys.argv[1:], *("ladder", "0-19")[len(sys.argv) - 1 :]]
    first_seed, last_seed = map(int, span.split("-"))
    print(
        json.dumps(
            figures(range(first_seed, last_seed + 1), [int(n) for n in sizes] or [1, 4, 8], world_name), indent=1
        )
    )
