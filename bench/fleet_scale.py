"""64 edges against one coordinator: how soon a trial is acknowledged, and how much of a core the coordinator uses.

Each edge has the real courier, supply, ledger and network session; it seals one trial a second, says its status twice
and asks once whether the lab has signed anything new; its bundle it fetches from there. The edges share a few
processes, and what they keep lies in memory, as 64 edges would not share one disk. The coordinator is
the real store, network and reception on a real disk (tests/harness/desk.py), with work without end and no campaign.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgpack

from coordinator.network import free_endpoint
from edge.ledger import Ledger
from edge.records import Assignment, Outcome, Trial
from edge.status import Status
from edge.uplink.courier import Courier
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.network import TIMEOUT_S, Coordinator, NoAnswer
from edge.uplink.settings import Settings
from edge.uplink.supply import Supply
from edge.wire import parse_key
from edge.wire.targets import TRUST
from policies.manifest import MANIFEST
from tests.harness.lab_folder import TASK, LabFolder, supplied

DESK = Path(__file__).parents[1] / "tests" / "harness" / "desk.py"
EDGES, PROCESSES = 64, 4
TRIAL_PERIOD_S, STATUS_PERIOD_S = 1.0, 0.5
TURN_S = 0.05  # of the uplink's process
WARM_S, MEASURED_S = 15.0, 20.0
MOST_MS, MOST_OF_A_CORE = 50.0, 0.6
LEAST_OF_RATE = 0.95  # of the trials that the edges are to bring, or the other figures say nothing
PATIENCE_S = 30.0
IN_MEMORY = "/dev/shm"
NOTES_BYTES = 1200  # which makes a body of 2 kB
SEED = 4


@dataclass(frozen=True)
class Window:
    """When is measured, by the wall clock of all processes."""

    begins_s: float
    ends_s: float

    def holds(self, unix_s: float) -> bool:
        """Return whether a moment lies in it."""
        return self.begins_s <= unix_s < self.ends_s


@dataclass
class Seen:
    """What an edge saw."""

    sealed: int = 0
    left: int = 0  # never acknowledged
    starved: int = 0  # times that no work was there when a trial should have begun
    unanswered: int = 0
    acked_s: list[float] = field(default_factory=list)  # from sealed to acknowledged, in the window
    answered_s: list[float] = field(default_factory=list)  # from asked to answered, in the window
    asked_trust: int = 0  # for pieces of the lab's repository, in the window
    has_bundle: bool = False


class TimedCoordinator(Coordinator):
    """Notes how long an answer to trials takes, and how often the lab's repository is asked for."""

    def __init__(self, endpoint: str, edge: str, window: Window, seen: Seen) -> None:
        super().__init__(endpoint, edge)
        self._window, self._seen = window, seen

    def ask(
        self, key: str, payload: bytes = b"", attachment: bytes | None = None, timeout_s: float = TIMEOUT_S
    ) -> bytes:
        """Return the coordinator's answer."""
        began_s = time.time()
        topic, counts = parse_key(key)[1], self._window.holds(began_s)
        self._seen.asked_trust += topic == TRUST and counts
        answer = super().ask(key, payload, attachment, timeout_s)
        if topic == "trials" and counts:
            self._seen.answered_s.append(time.time() - began_s)
        return answer


class Edge:
    """A station without an arm, and its uplink, in one thread."""

    def __init__(
        self, settings: Settings, ledger: Ledger, coordinator: Coordinator, supply: Supply, window: Window, seen: Seen
    ) -> None:
        self._ledger, self._coordinator, self._window, self._seen = ledger, coordinator, window, seen
        self._courier = Courier(settings, ledger, coordinator, supply, "s")
        self._rng = random.Random(f"{SEED} {ledger.edge}")
        self._under_way: tuple[Assignment, str, tuple[str, int]] | None = None
        self._sealed_s: deque[float] = deque()  # of what is not acknowledged, oldest first

    def work(self) -> None:
        """Work until the window ends, then send what is left."""
        turn_s = time.time()
        trial_s, status_s = (turn_s + self._rng.random() * period_s for period_s in (TRIAL_PERIOD_S, STATUS_PERIOD_S))
        while (now_s := time.time()) < self._window.ends_s:
            if now_s >= trial_s:
                self._end_trial(now_s)
                self._begin_trial(now_s)
                trial_s += TRIAL_PERIOD_S
            if now_s >= status_s:
                self._say_status(now_s)
                status_s += STATUS_PERIOD_S
            if now_s >= turn_s:
                turn_s = self._turn() + TURN_S
            time.sleep(max(0.0, min(trial_s, status_s, turn_s) - time.time()))
        while self._sealed_s and time.time() < self._window.ends_s + PATIENCE_S:
            self._turn()
        self._seen.left = len(self._sealed_s)

    def _turn(self) -> float:
        """Let the courier do what is due; return when it was done."""
        try:
            self._courier.turn(time.time())
        except NoAnswer:
            self._seen.unanswered += 1
        now_s = time.time()
        left = len(self._ledger.unacked(len(self._sealed_s))) if self._sealed_s else 0
        while len(self._sealed_s) > left:
            sealed_s = self._sealed_s.popleft()
            if self._window.holds(sealed_s):
                self._seen.acked_s.append(now_s - sealed_s)
        return now_s

    def _begin_trial(self, now_s: float) -> None:
        found = self._ledger.next_assignment(now_s)
        if found is not None:
            self._under_way = (*found, self._ledger.open_trial(*found, now_s))
        elif self._window.holds(now_s):
            self._seen.starved += 1

    def _end_trial(self, now_s: float) -> None:
        if self._under_way is None:
            return
        (assignment, lease_id, (epoch, sequence)), self._under_way = self._under_way, None
        self._ledger.seal(
            Trial(
                edge=self._ledger.edge, epoch=epoch, sequence=sequence, assignment_id=assignment.assignment_id,
                lease_id=lease_id, task=TASK, bundle=assignment.bundle, start_id=assignment.start_id,
                purpose=assignment.purpose, seed=assignment.seed, outcome=Outcome.SUCCESS, cause="", detail="done",
                progress=1.0,
                measures={"coverage": self._rng.random()}, achieved_start={}, reset_s=9.0, reset_tries=1, trial_s=20.0,
                policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=now_s, ended_unix_s=now_s,
                station_hash="5" * 64, calibration_hash="6" * 64, software="s", recording="",
                notes={"log": self._rng.randbytes(NOTES_BYTES // 2).hex()},
            ),
            None,
        )  # fmt: skip
        self._seen.sealed += 1
        self._sealed_s.append(time.time())

    def _say_status(self, now_s: float) -> None:
        bundle = self._under_way[0].bundle if self._under_way else ""
        status = Status(self._ledger.edge, "trial", "", bundle, "dev-0001", self._seen.sealed, now_s, now_s, 300.0)
        self._coordinator.publish_status(msgpack.packb(asdict(status) | {"refusal": ""}))


def run_edge(folder: Path, endpoint: str, window: Window) -> Seen:
    """Run one edge."""
    seen = Seen()
    settings = Settings(folder, folder.name, TASK, endpoint, "5" * 64, "6" * 64)
    with (
        Ledger(settings.ledger_path, folder.name) as ledger,
        TimedCoordinator(endpoint, folder.name, window, seen) as coordinator,
        supplied(settings, ZenohFetcher(coordinator, folder.name)) as supply,
    ):
        Edge(settings, ledger, coordinator, supply, window, seen).work()
    seen.has_bundle = any(settings.bundles.glob(f"*/{MANIFEST}"))
    return seen


def run_edges(folders: Sequence[Path], endpoint: str, window: Window) -> list[Seen]:
    """Run some edges, a thread each."""
    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(lambda folder: run_edge(folder, endpoint, window), folders))


def cpu_s(pid: int) -> float:
    """Return how much time of a core a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def desk(endpoint: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a coordinator."""
    command = [sys.executable, str(DESK), endpoint, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the coordinator did not start"
            yield process
        finally:
            process.kill()


def measure(endpoint: str, pid: int, folder: Path) -> tuple[list[Seen], float]:
    """Return what every edge saw, and how much of a core the coordinator used in the window."""
    folders = [folder / f"edge-{number}" for number in range(EDGES)]
    begins_s = time.time() + WARM_S
    window = Window(begins_s, begins_s + MEASURED_S)
    print(f"{EDGES} edges, {WARM_S + MEASURED_S:.0f} s ...", file=sys.stderr)
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(run_edges, folders[n::PROCESSES], endpoint, window) for n in range(PROCESSES)]
        time.sleep(max(0.0, window.begins_s - time.time()))
        before_s, at_s = cpu_s(pid), time.time()
        time.sleep(max(0.0, window.ends_s - time.time()))
        used = (cpu_s(pid) - before_s) / (time.time() - at_s)
        return [seen for future in running for seen in future.result()], used


def main() -> None:
    """Print the figures; the last line is one JSON object."""
    with ExitStack() as stack:
        on_disk = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        in_memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY)))
        endpoint = free_endpoint()
        lab = LabFolder(on_disk / "desk")
        for number in range(EDGES):
            lab.admit(in_memory / f"edge-{number}")
        process = stack.enter_context(desk(endpoint, on_disk / "desk"))
        seen, used = measure(endpoint, process.pid, in_memory)
        process.terminate()
        said, _ = process.communicate()
    print(json.dumps({"name": "fleet_scale", "rows": make_rows(seen, used, json.loads(said))}))


def make_rows(seen: Sequence[Seen], used: float, counted: Mapping[str, int]) -> list[dict[str, object]]:
    """Return the figures; `used` is the coordinator's part of a core, `counted` what became of trials there."""
    acked_ms = [1e3 * taken_s for edge in seen for taken_s in edge.acked_s]
    answered_ms = [1e3 * taken_s for edge in seen for taken_s in edge.answered_s]
    per_s, least_per_s = len(acked_ms) / MEASURED_S, LEAST_OF_RATE * EDGES / TRIAL_PERIOD_S
    p50_ms = statistics.median(acked_ms)
    sealed = sum(edge.sealed for edge in seen)
    lost = max(sealed - counted["new"], sum(edge.left for edge in seen))
    asked_trust, starving = sum(edge.asked_trust for edge in seen), sum(not edge.has_bundle for edge in seen)
    wrong = max(counted["new"] - sealed, 0) + counted["conflict"] + counted["refused"]
    return [
        _row(
            f"trials per second of {EDGES} edges", f"{per_s:.1f}", f"at least {least_per_s:.0f}", per_s >= least_per_s
        ),
        _row("from sealed to acknowledged, p50 ms", f"{p50_ms:.1f}", f"at most {MOST_MS:g}", p50_ms <= MOST_MS),
        _row("from sealed to acknowledged, p95 ms", f"{statistics.quantiles(acked_ms, n=20)[-1]:.1f}"),
        _row("from asked to answered, p50 ms", f"{statistics.median(answered_ms):.1f}"),
        _row(
            "coordinator's processor time, cores", f"{used:.2f}", f"at most {MOST_OF_A_CORE:g}", used <= MOST_OF_A_CORE
        ),
        _row(f"trials lost of {sealed}", f"{lost}", "0", lost == 0),
        _row("trials doubled or invented", f"{wrong}", "0", wrong == 0),
        _row("questions about the lab's repository per second", f"{asked_trust / MEASURED_S:.0f}"),
        _row("edges without the bundle of their work", f"{starving}", "0", starving == 0),
        _row("questions without an answer", f"{sum(edge.unanswered for edge in seen)}"),
        _row("times that an edge had no work", f"{sum(edge.starved for edge in seen)}"),
    ]


def _row(what: str, figure: str, bound: str = "", holds: bool | None = None) -> dict[str, object]:
    return {"what": what, "figure": figure, "bound": bound, "holds": holds}


if __name__ == "__main__":
    main()
