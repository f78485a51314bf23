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

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.ledger import Ledger
from edge.records import Assignment, Lease, Trial, decode
from policies import bundle

ROOT = Path(__file__).parents[1]
BOUND = 15.0
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
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    make = [sys.executable, "-m", "edge.cli", "make-stations", str(folder), "--count", "1", "--trust", public.hex()]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    station = folder / "station-1"
    provenance = {"hypothesis": "", "researcher": "bench", "commit": ""}
    data = bundle.build(ROOT / "policies" / "push_t", PARAMS, provenance, None)
    opened = bundle.open_bundle(data, bundle.bundle_id(data))
    bundle.unpack(opened, station / "bundles")
    with Ledger(station / "ledger.db", "station-1") as ledger:
        ledger.add_lease(_lease(opened.id, trials))
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
    return Lease("bench", "push_t", tuple(assignments), time.time() + 3600.0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
