"""Stations at work behind bad links: what of their trials arrives, and how long after a fault all of it has.

Usage: python tests/harness/outages.py [CASE ...]    all cases without a name

Each case is a station's folder with finished trials and recordings, the real uplink as a process and a link of its own
through `fault_proxy.py`; all share one coordinator, `desk.py`. The fault comes amid the transfer, and more trials are
sealed while it lasts. The last line on standard output is JSON: what became of each case, and what the desk counted.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from coordinator.network import free_endpoint
from coordinator.store import FILE
from edge.emulation.stations import make_stations
from edge.ledger import Ledger
from edge.records import Assignment, Lease, Outcome, Trial, content_hash
from tests.harness.lab_folder import TASK, LabFolder

HERE = Path(__file__).parent
MB = 1_000_000
FIRST_TRIALS, FIRST_RECORDINGS = 40, 5
SEAL_EVERY_S = 0.25
LOOK_EVERY_S = 0.05
MOST_TRIALS = 200
PATIENCE_S = 240.0  # bound of a wait; nothing is measured by it
SEED = 4


@dataclass(frozen=True)
class Case:
    """A fault, and when it comes."""

    name: str
    fault: str  # as fault_proxy.py reads it
    after_bytes: int  # carried before it comes
    outage_s: float  # 0: the link is like that all the time
    parts: int = 1  # in which the outage comes and goes
    recording_bytes: int = 3 * MB


CASES = (
    Case("refused", "refuse", 20_000, 10.0),
    Case("refused amid a recording", "refuse", 5 * MB, 2.0),
    Case("half open, up", "swallow up", 5 * MB, 10.0),
    Case("half open, down", "swallow down", 5 * MB, 10.0),
    Case("half open, both ways", "swallow both", 20_000, 10.0),
    Case("half open for a moment", "swallow both", 5 * MB, 1.0),
    Case("frozen", "hold", 5 * MB, 10.0),
    Case("flapping", "refuse", 1 * MB, 4.0, parts=10),
    Case("single bytes", "crumbs", 0, 0.0, recording_bytes=200_000),
    Case("far away", "delay 100", 0, 0.0),
)


class Station:
    """A ledger that trials come into, as a station leaves them."""

    def __init__(self, folder: Path, bundle: str) -> None:
        self._folder, self.name = folder, folder.name
        self._rng = random.Random(f"{SEED} {self.name}")
        self._ledger = Ledger(folder / "ledger.db", self.name)
        names = [f"{self.name}-{number}" for number in range(MOST_TRIALS)]
        work = tuple(Assignment(name, bundle, "dev-1", {"x_m": 0.3}, 0, "play") for name in names)
        self._ledger.add_lease(Lease(f"lease-{self.name}", TASK, work, time.time() + 3600.0))
        self.sealed: dict[tuple[str, int], str] = {}  # content hash by epoch and sequence
        self.recordings: list[str] = []

    def __enter__(self) -> Station:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ledger.close()

    def seal(self, recording_bytes: int = 0) -> None:
        """Begin and end a trial."""
        now_s = time.time()
        found = self._ledger.next_assignment(now_s)
        assert found is not None, "no more work"
        epoch, sequence = self._ledger.open_trial(*found, now_s)
        path, sha256 = None, ""
        if recording_bytes:
            data = self._rng.randbytes(recording_bytes)
            sha256 = hashlib.sha256(data).hexdigest()
            path = self._folder / f"{sequence}.mcap"
            path.write_bytes(data)
            self.recordings.append(sha256)
        trial = Trial(
            edge=self.name, epoch=epoch, sequence=sequence, assignment_id=found[0].assignment_id, lease_id=found[1],
            task=TASK, bundle=found[0].bundle, start_id="dev-1", purpose="play", seed=0, outcome=Outcome.SUCCESS,
            cause="", detail="done", progress=1.0, measures={"coverage": self._rng.random()}, achieved_start={},
            reset_s=9.0, reset_tries=1, trial_s=20.0, policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0,
            started_unix_s=now_s, ended_unix_s=now_s, station_hash="5" * 64, calibration_hash="6" * 64, software="s",
            recording=sha256,
            recording_bytes=recording_bytes, notes={"log": self._rng.randbytes(600).hex()},
        )  # fmt: skip
        self._ledger.seal(trial, path)
        self.sealed[epoch, sequence] = content_hash(trial)

    def seal_for(self, duration_s: float) -> None:
        """Seal a trial now and then."""
        until_s = time.monotonic() + duration_s
        while (left_s := until_s - time.monotonic()) > 0.0:
            self.seal()
            time.sleep(min(left_s, SEAL_EVERY_S))

    def waiting(self) -> int:
        """Return how many trials and recordings are not acknowledged."""
        return len(self._ledger.unacked(MOST_TRIALS)) + len(self._ledger.unsent_recordings(MOST_TRIALS))


class Link:
    """The proxy of one station."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout
        self.port = int(self._from.readline())

    def say(self, rule: str) -> dict[str, int]:
        """Set a rule and return what was done up to the moment that it holds."""
        print(rule, file=self._to, flush=True)
        done: dict[str, int] = json.loads(self._from.readline())
        return done


@contextmanager
def running(*command: object, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program of Python's until the block ends."""
    with (
        open(log, "w") as errors,
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def run(case: Case, folder: Path, endpoint: str, bundle: str) -> tuple[Station, dict[str, float]]:
    """Take a station through its case and return it with what was measured.

    `drained_s` is from the beginning of the fault until the ledger says that all is acknowledged; `waiting` is how much
    is not, where that takes longer than PATIENCE_S.
    """
    with running(HERE / "fault_proxy.py", endpoint.removeprefix("tcp/"), log=folder / "proxy.log") as proxy:
        link = Link(proxy)
        file = folder / "station.toml"
        file.write_text(file.read_text().replace(endpoint, f"tcp/127.0.0.1:{link.port}"))
        with Station(folder, bundle) as station:
            for number in range(FIRST_TRIALS):
                station.seal(case.recording_bytes if number < FIRST_RECORDINGS else 0)
            if not case.outage_s:
                link.say(case.fault)
            with running("-m", "edge.uplink", folder, log=folder / "uplink.log") as uplink:
                began_s = time.monotonic()
                if case.outage_s:
                    link.say(f"after {case.after_bytes} {case.fault}")
                    began_s = time.monotonic()
                    suffer(case, station, link)
                while (waiting := station.waiting()) and time.monotonic() - began_s < PATIENCE_S:
                    time.sleep(LOOK_EVERY_S)
                drained_s = time.monotonic() - began_s
                done = link.say("count")
                uplink.terminate()
                uplink.wait(PATIENCE_S)
    if waiting:
        print(f"{case.name}: {waiting} wait\n{(folder / 'uplink.log').read_text()}", file=sys.stderr)
    return station, {"outage_s": case.outage_s, "drained_s": drained_s, "waiting": waiting, **done}


def suffer(case: Case, station: Station, link: Link) -> None:
    """Work on through an outage that has just begun, to its end."""
    slots = 2 * case.parts - 1
    for slot in range(slots):
        if slot:
            link.say("pass" if slot % 2 else case.fault)
        station.seal_for(case.outage_s / slots)
    link.say("pass")


def check(folder: Path, station: Station) -> dict[str, int]:
    """Compare what a station sealed with what the coordinator keeps of it."""
    db = sqlite3.connect(folder / FILE)
    rows = db.execute(
        "SELECT epoch, sequence, content_sha256, assignment_id FROM trials WHERE edge = ?", (station.name,)
    ).fetchall()
    (quarantined,) = db.execute("SELECT COUNT(*) FROM quarantine WHERE edge = ?", (station.name,)).fetchone()
    noted = {name for (name,) in db.execute("SELECT sha256 FROM recordings WHERE edge = ?", (station.name,))}
    db.close()
    kept, sealed = {row[:3] for row in rows}, {(*name, sha256) for name, sha256 in station.sealed.items()}
    files = [folder / "recordings" / f"{name}.mcap" for name in station.recordings if name in noted]
    whole = [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() == path.stem]
    return {
        "sealed": len(sealed),
        "lost": len(sealed - kept),
        "doubled": len(rows) - len({row[3] for row in rows}),
        "invented": len(kept - sealed) + quarantined,
        "recordings": len(station.recordings),
        "recordings_lost": len(station.recordings) - len(whole),
    }


def main(names: list[str]) -> None:
    """Run the named cases side by side, or all."""
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        sys.exit(f"no case {', '.join(sorted(unknown))}; known: {', '.join(case.name for case in CASES)}")
    cases = [case for case in CASES if not names or case.name in names]
    with tempfile.TemporaryDirectory() as temporary:
        folder, endpoint = Path(temporary), free_endpoint()
        lab = LabFolder(folder / "desk")
        stations = make_stations(folder, len(cases), SEED, TASK, endpoint, lab.root)
        with running(HERE / "desk.py", endpoint, folder / "desk", log=folder / "desk.log") as desk:
            assert desk.stdout is not None
            desk.stdout.readline()  # it listens
            with ThreadPoolExecutor(len(cases)) as pool:
                ran = list(pool.map(lambda case, name: run(case, folder / name, endpoint, lab.bundle), cases, stations))
            desk.terminate()
            counted = json.loads(desk.stdout.readline())
        became = {
            case.name: {**measured, **check(folder / "desk", station)}
            for case, (station, measured) in zip(cases, ran, strict=True)
        }
    print(json.dumps({"cases": became, "desk": counted}))


if __name__ == "__main__":
    main(sys.argv[1:])
