"""A station's process without an arm: it runs what is in its ledger as fast as it comes, and may be killed any time.

Usage: python tests/harness/worker.py FOLDER --trials N [--seed S]

- FOLDER is a station's: station.toml, calibration.toml, its ledger. It ends with 0 once N trials are sealed.
- Each trial leaves a recording of random bytes; a few are larger than a piece of the uplink's.
- FOLDER/worker.log is its own account of what it did, written before and after each commit: `begin ASSIGNMENT`,
  `opened EPOCH NUMBER`, `seal EPOCH NUMBER SHA256`, `sealed EPOCH NUMBER SHA256`. What it says is never taken back.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
from pathlib import Path

from edge import software
from edge.ledger import Ledger
from edge.records import Assignment, Outcome, Trial, content_hash
from edge.uplink.settings import Settings, read_settings

LOG = "worker.log"
WAIT_S = 0.01
LARGE_ONE_IN = 200
SMALL_BYTES, LARGE_BYTES = (1, 4_000), (1_200_000, 2_400_000)


class Worker:
    """The trials of one station."""

    def __init__(self, settings: Settings, ledger: Ledger, seed: int) -> None:
        self._settings = settings
        self._ledger = ledger
        self._seed = seed
        self._recordings = settings.folder / "recordings"
        self._recordings.mkdir(exist_ok=True)
        self._log = os.open(settings.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def recover(self) -> None:
        """Seal what the worker before this one left open."""
        self._ledger.recover(
            time.time(),
            task=self._settings.task,
            station_hash=self._settings.station_hash,
            calibration_hash=self._settings.calibration_hash,
            software=software.versions(),
        )

    def run(self, assignment: Assignment, lease_id: str) -> int:
        """Run one trial and return its number."""
        began_unix_s = time.time()
        self._say(f"begin {assignment.assignment_id}")
        epoch, sequence = self._ledger.open_trial(assignment, lease_id, began_unix_s)
        self._say(f"opened {epoch} {sequence}")
        draw = random.Random(f"{self._seed} {self._ledger.edge} {sequence}")
        path, recording, size = self._record(draw, f"{epoch}-{sequence}")
        trial = self._trial(assignment, lease_id, epoch, sequence, began_unix_s, recording, size)
        named = f"{epoch} {sequence} {content_hash(trial)}"
        self._say(f"seal {named}")
        self._ledger.seal(trial, path)
        self._say(f"sealed {named}")
        return sequence

    def _record(self, draw: random.Random, name: str) -> tuple[Path, str, int]:
        """Leave a recording, whole or not at all; return where, its sha256 and size."""
        data = draw.randbytes(draw.randint(*(SMALL_BYTES if draw.randrange(LARGE_ONE_IN) else LARGE_BYTES)))
        path = self._recordings / f"{name}.mcap"
        unfinished = path.with_suffix(".part")
        with open(unfinished, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(path)
        return path, hashlib.sha256(data).hexdigest(), len(data)

    def _trial(
        self, assignment: Assignment, lease_id: str, epoch: str, sequence: int, began_unix_s: float, recording: str,
        size: int,
    ) -> Trial:  # fmt: skip
        return Trial(
            edge=self._ledger.edge, epoch=epoch, sequence=sequence, assignment_id=assignment.assignment_id,
            lease_id=lease_id, task=self._settings.task, bundle=assignment.bundle, start_id=assignment.start_id,
            purpose=assignment.purpose, seed=assignment.seed, outcome=Outcome.SUCCESS, cause="", detail="done",
            progress=1.0, measures={"coverage": 0.97}, achieved_start=assignment.start, reset_s=9.0, reset_tries=1,
            trial_s=20.0, policy_steps=600, wall_reset_s=0.0, wall_trial_s=0.0, started_unix_s=began_unix_s,
            ended_unix_s=time.time(), station_hash=self._settings.station_hash,
            calibration_hash=self._settings.calibration_hash, software=software.versions(), recording=recording,
            recording_bytes=size,
        )  # fmt: skip

    def _say(self, line: str) -> None:
        os.write(self._log, f"{line}\n".encode())


def main(arguments: list[str]) -> None:
    """Run trials until there are enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, required=True, help="in the ledger, crashed ones too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    settings = read_settings(options.folder)
    with Ledger(settings.ledger_path, settings.name) as ledger:
        worker = Worker(settings, ledger, options.seed)
        worker.recover()
        last = ledger.held()[-1].last
        while last < options.trials:
            found = ledger.next_assignment(time.time())
            if found is None:
                time.sleep(WAIT_S)
            else:
                last = worker.run(*found)


if __name__ == "__main__":
    main(sys.argv[1:])
