"""How fast trials and recordings become durable at the coordinator, over loopback, both ends with certificates.

The coordinator is a process of its own (tests/harness/desk.py); the real courier sends out of a real ledger. A trial or
recording counts once both disks have it: the coordinator's before it answers, then the mark in the ledger. Bodies have
2 kB, recordings 1 MB.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from coordinator.network import free_endpoint
from edge.ledger import Ledger
from edge.records import Assignment, Lease, Outcome, Trial, encode
from edge.uplink.courier import BATCH, Courier
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.network import Coordinator, NoAnswer
from edge.uplink.settings import Settings
from edge.uplink.supply import Supply
from edge.wire.tls import Tls
from tests.harness.lab_folder import TASK, LabFolder, supplied

HARNESS = Path(__file__).parents[1] / "tests" / "harness"
EDGE = "station-1"
BODY_BYTES = 2000
RECORDING_BYTES = 1_000_000
BACKLOG, SINGLE_TRIALS, RECORDINGS = 2048, 500, 200
LEAST_PER_S, LEAST_MB_S = 400.0, 60.0
PATIENCE_S = 30.0
SEED = 4
TRIAL = Trial(
    edge=EDGE, epoch="", sequence=1, assignment_id="", lease_id="", task=TASK, bundle="", start_id="dev-0001",
    purpose="play", seed=0, outcome=Outcome.SUCCESS, cause="", detail="done", progress=1.0,
    measures={"coverage": 0.97}, achieved_start={}, reset_s=9.0, reset_tries=1, trial_s=20.0, policy_steps=600,
    wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=1.7e9, ended_unix_s=1.7e9, station_hash="5" * 64,
    calibration_hash="6" * 64, software="s", recording="",
)  # fmt: skip


class Station:
    """A ledger with trials, and the courier that sends them."""

    def __init__(
        self, settings: Settings, ledger: Ledger, coordinator: Coordinator, supply: Supply, bundle: str
    ) -> None:
        self._folder, self.ledger, self._rng = settings.folder, ledger, random.Random(SEED)
        self.courier = Courier(settings, self.ledger, coordinator, supply, "s")
        count = BACKLOG + SINGLE_TRIALS + RECORDINGS
        work = tuple(Assignment(f"a{number}", bundle, "dev-0001", {"x_m": 0.3}, 0, "play") for number in range(count))
        self.ledger.add_lease(Lease("l1", TASK, work, time.time() + 3600.0))

    def seal(self, recording: bytes = b"") -> None:
        """Begin and end a trial."""
        now_s = time.time()
        found = self.ledger.next_assignment(now_s)
        assert found is not None, "no more work"
        epoch, sequence = self.ledger.open_trial(*found, now_s)
        sha256 = hashlib.sha256(recording).hexdigest() if recording else ""
        trial = replace(
            TRIAL, epoch=epoch, sequence=sequence, assignment_id=found[0].assignment_id, lease_id=found[1],
            bundle=found[0].bundle, recording=sha256, recording_bytes=len(recording),
        )  # fmt: skip
        lacking = BODY_BYTES - len(encode(trial))
        trial = replace(trial, notes={"log": self._rng.randbytes(lacking // 2).hex()})
        path = self._folder / f"{sequence}.mcap" if recording else None
        if path is not None:
            with open(path, "wb") as file:  # on the disk, as a station's recordings are before they are sent
                file.write(recording)
                file.flush()
                os.fsync(file.fileno())
        self.ledger.seal(trial, path)

    def drain(self) -> float:
        """Send everything there is and return how long that took, in seconds."""
        began_s = time.monotonic()
        while self.courier.send_trials(time.time()):
            pass
        while self.courier.send_piece(time.time()):
            pass
        taken_s = time.monotonic() - began_s
        assert not self.ledger.unacked(1), self.courier.refusal
        assert not self.ledger.unsent_recordings(1), self.courier.refusal
        return taken_s


@contextmanager
def desk(endpoint: str, folder: Path, authority: Path) -> Iterator[None]:
    """Run a coordinator."""
    options = ["--authority", str(authority), "--edges", EDGE]
    command = [sys.executable, str(HARNESS / "desk.py"), endpoint, str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the coordinator did not start"
            yield
        finally:
            process.terminate()
            process.communicate()  # its last words


def wait_for(courier: Courier) -> None:
    """Wait until the coordinator answers."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return courier.compare()
        except NoAnswer:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def measure(station: Station) -> list[dict[str, object]]:
    """Return the figures as rows."""
    tell(f"sealing {BACKLOG} trials")
    for _ in range(BACKLOG):
        station.seal()
    tell("sending them")
    backlog_per_s = BACKLOG / station.drain()
    tell(f"sealing and sending {SINGLE_TRIALS} trials one by one")
    singles_s = []
    for _ in range(SINGLE_TRIALS):
        station.seal()
        singles_s.append(station.drain())
    tell(f"sealing and sending {RECORDINGS} recordings")
    noise = random.Random(SEED)
    for _ in range(RECORDINGS):
        station.seal(noise.randbytes(RECORDING_BYTES))
    while station.courier.send_trials(time.time()):
        pass
    recordings_mb_s = RECORDINGS * RECORDING_BYTES / 1e6 / station.drain()
    return [
        _row(f"trials per second, {BATCH} a batch, durable at both ends", backlog_per_s, LEAST_PER_S),
        _row("trials per second, one a batch", SINGLE_TRIALS / sum(singles_s), None),
        _row("one trial from sealed to acknowledged, median ms", 1e3 * statistics.median(singles_s), None),
        _row("recordings of 1 MB, MB per second, durable at both ends", recordings_mb_s, LEAST_MB_S),
    ]


def main() -> None:
    """Print the figures; the last line is one JSON object."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, endpoint = Path(temporary), free_endpoint().replace("tcp/", "tls/")
        authority = folder / "authority"
        subprocess.run([sys.executable, str(HARNESS / "certificates.py"), str(authority), EDGE], check=True)
        lab, settings = LabFolder(folder / "desk"), Settings(folder / EDGE, EDGE, TASK, endpoint, "5" * 64, "6" * 64)
        lab.admit(settings.folder)
        with (
            desk(endpoint, folder / "desk", authority),
            Coordinator(endpoint, EDGE, Tls.of(authority / EDGE)) as coordinator,
            supplied(settings, ZenohFetcher(coordinator, EDGE)) as supply,
            Ledger(settings.ledger_path, EDGE) as ledger,
        ):
            station = Station(settings, ledger, coordinator, supply, lab.bundle)
            wait_for(station.courier)
            rows = measure(station)
    print(json.dumps({"name": "ingest_rate", "rows": rows}))


def tell(sentence: str) -> None:
    """Say what goes on."""
    print(f"{sentence} ...", file=sys.stderr)


def _row(what: str, value: float, least: float | None) -> dict[str, object]:
    bound = "" if least is None else f"at least {least:g}"
    return {"what": what, "figure": f"{value:.1f}", "bound": bound, "holds": None if least is None else value >= least}


if __name__ == "__main__":
    main()
