"""How many times faster than real time one emulated station runs trials on one core.

It counts from the beginning of a reset to the verdict: CAN bytes, control, guard, the policy in its own process,
pictures and what is recorded of them; not the milliseconds in which the ledger and the recording reach the disk.
Usage: python bench/emulation_speed.py [TRIALS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edge.emulation.stations import make_stations
from edge.ledger import Ledger
from edge.records import Assignment, Lease, Trial, decode
from edge.trust.folder import FolderFetcher
from edge.uplink.settings import read_settings
from tests.harness.lab_folder import TASK, LabFolder, supplied

BOUND = 15.0
SEED = 1
NOBODY = "tcp/127.0.0.1:1"  # the station works without its uplink
STARTS = [(0.30, -0.08, 1.0), (0.36, 0.09, -2.0), (0.28, 0.05, 3.0), (0.35, -0.04, -0.5)]
# A capable configuration, so that trials are as long and as careful as those of a good policy.
PARAMS = {
    "choose_by_model": True,
    "ease_motion": True,
    "close_encoder_loop": True,
    "fine_last_pushes": True,
    "most_pushes": 25.0,
    "push_speed_m_s": 0.08,
    "travel_speed_m_s": 0.6,
}


def main(trials: int) -> None:
    """Run the trials on one core and print the figures."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the station and its policy inherit it
    with tempfile.TemporaryDirectory() as folder:
        done = _run(Path(folder), trials)
    speeds = [(trial.reset_s + trial.trial_s) / (trial.wall_reset_s + trial.wall_trial_s) for trial in done]
    speeds = sorted(speeds[1:])  # the first loads compiled code
    median = speeds[len(speeds) // 2]
    station_s = sum(trial.reset_s + trial.trial_s for trial in done) / len(done)
    row = {
        "what": "emulated station on one core, times real time",
        "figure": f"median {median:.1f}, lowest {speeds[0]:.1f} of {len(speeds)} trials of {station_s:.0f} s",
        "bound": f"at least {BOUND:g}",
        "holds": median >= BOUND,
    }
    print(json.dumps({"name": "emulation_speed", "rows": [row]}))


def _run(folder: Path, trials: int) -> list[Trial]:
    lab = LabFolder(folder / "lab", params=PARAMS)
    [name] = make_stations(folder, 1, SEED, TASK, NOBODY, lab.root)
    station = folder / name
    with supplied(read_settings(station), FolderFetcher(lab.repository.folder)) as supply:
        supply.bring(lab.bundle)
    with Ledger(station / "ledger.db", name) as ledger:
        ledger.add_lease(_lease(lab.bundle, trials))
        process = subprocess.Popen([sys.executable, "-m", "edge.emulation", str(station)])
        try:
            while len(ledger.unacked(trials)) < trials and process.poll() is None:
                print(f"\r{len(ledger.unacked(trials))} of {trials} trials", end="", file=sys.stderr)
                time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
        print(file=sys.stderr)
        return [decode(Trial, sealed.body) for sealed in ledger.unacked(trials)]


def _lease(bundle_id: str, trials: int) -> Lease:
    assignments = []
    for number in range(trials):
        x_m, y_m, yaw_rad = STARTS[number % len(STARTS)]
        start = {"x_m": x_m, "y_m": y_m, "yaw_rad": yaw_rad}
        assignments.append(Assignment(f"a{number}", bundle_id, f"s{number % len(STARTS)}", start, number, "play"))
    return Lease("bench", TASK, tuple(assignments), time.time() + 3600.0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
