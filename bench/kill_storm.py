"""Kills stations, uplinks and the coordinator while they work, then counts what was lost, doubled or invented.

Stations without an arm (each a worker and a real uplink) and one coordinator work over loopback. A seeded executioner
sends SIGKILL at random moments, a third of the times to the coordinator, and starts anew what it killed. Once all
trials are sealed and drained, `tests/harness/accounts.py` compares the ledgers, the coordinator's database and what
each worker wrote into a log of its own before and after each commit.
Usage: python bench/kill_storm.py [--trials 12000] [--kills 120] [--edges 4] [--seed 1] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edge.activation.journal import Journal
from edge.emulation.stations import make_stations
from edge.ledger import Ledger
from policies.bundle import BundleError, read_unpacked
from tests.harness.accounts import (
    broken_links,
    missing_recordings,
    quarantined,
    read_accounts,
    torn_recordings,
)
from tests.harness.lab_folder import TASK, LabFolder

HARNESS = Path(__file__).parents[1] / "tests" / "harness"
AT_ONCE = 32  # attempts in a lease, so that stations have work while the coordinator is down
PORTS = range(20_000, 32_000)  # below those that the system gives to connections while the coordinator is down
LONGEST_PAUSE_S = 0.05  # between the trial that a kill waits for and the kill
TURN_S = 0.02
LONGEST_WAIT_S = 180.0
END_WITHIN_S = 30.0
LEAST_KILLS = 100


@dataclass
class Member:
    """One process of the storm."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)
    kills: int = 0
    falls: int = 0  # times that it ended by itself although it should not

    def start(self) -> None:
        """Start it, or start it anew."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    @property
    def done(self) -> bool:
        """Whether it has ended as it should."""
        return self.process.poll() == 0

    def kill(self) -> None:
        """Kill it and start it anew."""
        self.process.kill()
        status = self.process.wait()
        self.kills += status == -signal.SIGKILL
        self.falls += status not in (-signal.SIGKILL, 0)
        self.start()

    def tend(self) -> None:
        """Start it anew where it has fallen."""
        if self.process.poll() not in (None, 0):
            self.falls += 1
            self.start()

    def stop(self) -> None:
        """End it in order."""
        self.process.terminate()
        self.process.wait(END_WITHIN_S)


class Storm:
    """All the processes, and their executioner."""

    def __init__(self, folder: Path, edges: int, trials: int, kills: int, seed: int) -> None:
        self._draw = random.Random(seed)
        self._folder = folder
        endpoint = f"tcp/127.0.0.1:{_free_port(self._draw)}"
        folder.mkdir(exist_ok=True)
        self.lab = LabFolder(folder)
        self.edges = make_stations(folder, edges, seed, TASK, endpoint, self.lab.root)
        self.desk = self._member("desk", HARNESS / "desk.py", endpoint, folder, "--at-once", AT_ONCE)
        self._workers, self._uplinks = [], []
        for number, edge in enumerate(self.edges):
            share = trials * (number + 1) // edges - trials * number // edges
            worker = HARNESS / "worker.py", folder / edge, "--trials", share, "--seed", seed
            self._workers.append(self._member(f"{edge}.worker", *worker))
            self._uplinks.append(self._member(f"{edge}.uplink", "-m", "edge.uplink", folder / edge))
        self.members = [self.desk, *self._workers, *self._uplinks]
        # A worker that is killed may leave out a line of its log, so no point lies in the last trials.
        self._points = sorted(self._draw.sample(range(trials - kills), kills))
        self._opened, self._read = 0, dict.fromkeys(self.edges, 0)

    def rage(self) -> None:
        """Let all work and kill them until every trial is sealed and drained.

        Raises:
            TimeoutError: the work stands still, or is not drained.
        """
        started: list[Member] = []
        try:
            for member in self.members:
                member.start()
                started.append(member)
            self._execute()
            self._drain()
            for member in (*self._uplinks, self.desk):
                member.stop()
        finally:
            for member in started:
                member.process.kill()
                member.process.wait()

    def _execute(self) -> None:
        for number, (point, victim) in enumerate(zip(self._points, self._victims(), strict=True), start=1):
            self._wait(partial(self._has_opened, point))
            time.sleep(self._draw.uniform(0.0, LONGEST_PAUSE_S))
            if victim.done:  # a worker with nothing left to do
                victim = self._uplinks[self._workers.index(victim)]
            victim.kill()
            print(f"kill {number} of {len(self._points)}, after {point} trials: {victim.name}", file=sys.stderr)

    def _victims(self) -> list[Member]:
        """Return whom to kill, in order: a third of the times the coordinator."""
        at_least_a_third = -(-len(self._points) // 3)
        others = self.members[1:]
        victims = [others[number % len(others)] for number in range(len(self._points) - at_least_a_third)]
        victims += [self.desk] * at_least_a_third
        self._draw.shuffle(victims)
        return victims

    def _drain(self) -> None:
        self._wait(lambda: all(worker.done for worker in self._workers))
        print("every trial is sealed; draining", file=sys.stderr)
        self._wait(lambda: all(map(self._drained, self.edges)))

    def _drained(self, edge: str) -> bool:
        with Ledger(self._folder / edge / "ledger.db", edge) as ledger:
            return not (ledger.unacked(1) or ledger.unsent_recordings(1))

    def _has_opened(self, trials: int) -> bool:
        """Return whether so many trials were opened, as the workers say."""
        for edge, offset in self._read.items():
            path = self._folder / edge / "worker.log"
            if path.exists():
                with open(path, "rb") as log:
                    log.seek(offset)
                    new = log.read()
                self._read[edge] += len(new)
                self._opened += new.count(b"opened ")
        return self._opened >= trials

    def _wait(self, until: Callable[[], bool]) -> None:
        """Wait for something, starting anew whoever falls meanwhile."""
        deadline_s = time.monotonic() + LONGEST_WAIT_S
        while not until():
            if not time.monotonic() <= deadline_s:
                raise TimeoutError(f"nothing came about for {LONGEST_WAIT_S:.0f} s; read the logs in {self._folder}")
            for member in self.members:
                member.tend()
            time.sleep(TURN_S)

    def _member(self, name: str, *command: object) -> Member:
        return Member(name, [sys.executable, *map(str, command)], self._folder / f"{name}.log")


def _free_port(draw: random.Random) -> int:
    while True:
        port = draw.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _is_supplied(station: Path, bundle: str) -> bool:
    """Return whether a bundle is on a station and its journal says so."""
    with Journal(station / "activation.db") as journal:
        if journal.row(bundle).state != "verified":
            return False
    try:
        return read_unpacked(station / "bundles" / bundle).task == TASK
    except BundleError:
        return False


def judge(folder: Path, storm: Storm, trials: int, least_kills: int, wall_s: float) -> list[dict[str, Any]]:
    """Return the rows of the figure."""
    said = read_accounts(folder, storm.edges)
    kills = sum(member.kills for member in storm.members)
    resent = sum(int(line.split()[1]) for line in (folder / "ingested.log").read_text().splitlines())
    zeros = {
        "lost: sealed on a station, not in the coordinator's database": said.lost,
        "lost by the workers' own logs: opened, or sealed with this content, and not in the database": said.forgotten,
        "doubled: attempts that are in the database twice": said.doubled,
        "invented: in the database but in no ledger, or in no worker's log, or with other content": said.invented,
        "trials still open in a ledger, refused, or in quarantine": (
            said.left_open + said.refused + quarantined(folder)
        ),
        "links of the chains that do not hold, or are not signed": broken_links(folder),
        "recordings that do not hash to their names": torn_recordings(folder),
        "recordings that are missing after draining": missing_recordings(folder),
        "stations without the lab's bundle, verified and whole": (
            len(storm.edges) - sum(_is_supplied(folder / edge, storm.lab.bundle) for edge in storm.edges)
        ),
        "processes that ended by themselves": sum(member.falls for member in storm.members),
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "what": f"trials in the database of {len(storm.edges)} stations after a storm of SIGKILL",
            "figure": f"{len(said.database)} in {wall_s:.0f} s",
            "bound": f"{trials}",
            "holds": len(said.database) == trials,
        },
        {
            "what": "SIGKILLs to stations, uplinks and the coordinator",
            "figure": f"{kills}, {storm.desk.kills} of them to the coordinator",
            "bound": f"at least {least_kills}, a third of them to the coordinator",
            "holds": kills >= least_kills and 3 * storm.desk.kills >= kills,
        },
    ]
    rows += [
        {"what": what, "figure": f"{count}", "bound": "0", "holds": count == 0} for what, count in zeros.items()
    ]  # fmt: skip
    for what, figure in (
        ("trials that came again and changed nothing", f"at least {resent}"),
        ("trials that a kill left open, kept as invalid(crash)", f"{len(said.crashed)}"),
    ):
        rows.append({"what": what, "figure": figure, "bound": "", "holds": None})
    return rows


def main(arguments: list[str]) -> None:
    """Print what a storm left; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=12_000)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--edges", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="a new folder to keep everything in")
    options = parser.parse_args(arguments)
    if options.trials < 2 * options.kills:
        parser.error(f"{options.kills} kills need at least {2 * options.kills} trials")
    if options.folder and options.folder.exists():
        parser.error(f"{options.folder} is there already; name a new folder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        began_s = time.monotonic()
        storm = Storm(folder, options.edges, options.trials, options.kills, options.seed)
        storm.rage()
        least_kills = min(options.kills, LEAST_KILLS)
        rows = judge(folder, storm, options.trials, least_kills, time.monotonic() - began_s)
    print(json.dumps({"name": "kill_storm", "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
