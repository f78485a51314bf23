"""A whole campaign on emulated stations of this machine: makes a run folder, starts everything, sums up at the end.

It ends at the target, at the budget, or when asked to (Ctrl-C); a run that was cut short is readable all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from coordinator.campaign import Campaign
from coordinator.conduct import Conductor, Limits
from coordinator.display import Display
from coordinator.errors import CoordinatorError
from coordinator.evolution.starts import Starts, StartsError
from coordinator.fleet import Fleet, make_stations
from coordinator.network import Network, free_endpoint
from coordinator.publish.publisher import Publisher
from coordinator.research.offline import OfflineResearcher
from coordinator.store import FILE as DATABASE
from coordinator.store import Store, StoreError
from coordinator.summary import Observed, summarise, write_summary
from policies.bundle import BundleError
from policies.space import FILE as SPACE_FILE
from policies.space import PolicySpace, SpaceError, load_space

LOG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"
ASKED_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TARGET, HELDOUT = 46, 50
LOCK = "demo.lock"
ROOT_FILE = "root.json"  # in the folder of a run: what its stations trust
LEAST_FREE_MB = 1024  # a run writes about half of that


class DemoRefused(CoordinatorError):
    """The demo cannot begin here."""


@dataclass(frozen=True)
class Plan:
    """What was asked for."""

    edges: int
    task: str
    seed: int
    budget_minutes: float
    pace: float
    runs: Path
    began_unix_s: float  # when the command was typed


@dataclass
class Interrupt:
    """How often the user asked to stop."""

    count: int = 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Interrupt]:
        """Count SIGINT, SIGTERM and SIGHUP instead of dying of them."""
        before = {number: signal.signal(number, self._came) for number in ASKED_TO_STOP}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def run_demo(plan: Plan, display: Display) -> dict[str, Any]:
    """Run a campaign and return its summary, which lies in the run folder too.

    Raises:
        CoordinatorError: it could not begin, or something failed on the way; the message says what to do.
    """
    with Interrupt().watched() as interrupt, _locked(plan.runs):
        folder = _make_folder(plan)
        with Store(folder / DATABASE) as store, Network(free_endpoint()) as network:
            try:
                logging.basicConfig(filename=folder / "coordinator.log", level=logging.INFO, format=LOG_FORMAT)
                logging.getLogger("tuf").setLevel(logging.WARNING)  # it tells of each key that need not have signed
                campaign, publisher, fleet = _prepare(plan, folder, store, network)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)  # nothing has run in it
                raise
            conductor = _conductor(plan, folder, campaign, publisher, network, fleet, display, interrupt)
            _conduct(plan, folder.name, conductor, store)
        summary = summarise(folder, _observed(plan, conductor))
        write_summary(folder, summary)
        _report(folder, display)
        return summary


def _prepare(plan: Plan, folder: Path, store: Store, network: Network) -> tuple[Campaign, Publisher, Fleet]:
    """Make keys, stations and the campaign; the policy is copied, so that an edit meanwhile changes no candidate."""
    policy, space, starts = _read_task(plan.task)
    copy = shutil.copytree(policy, folder / "policy", ignore=shutil.ignore_patterns("__pycache__"))
    publisher = Publisher.for_demo(copy, folder, store)
    try:
        campaign = Campaign(
            space, starts, OfflineResearcher(space, plan.seed), publisher.publish, plan.seed,
            target=TARGET, heldout=HELDOUT, stations=plan.edges, now_s=time.time(),
        )  # fmt: skip
    except (BundleError, SpaceError) as error:
        raise DemoRefused(f"the policy {plan.task} cannot be published: {error}") from error
    stations = folder / "stations"
    root = folder / ROOT_FILE
    root.write_bytes(publisher.lab.repository.root())
    names = make_stations(stations, plan.edges, plan.seed, plan.task, network.endpoint, root)
    return campaign, publisher, Fleet(stations, names, plan.pace)


def _conductor(
    plan: Plan, folder: Path, campaign: Campaign, publisher: Publisher, network: Network, fleet: Fleet,
    display: Display, interrupt: Interrupt,
) -> Conductor:  # fmt: skip
    title = f"{plan.task}, {plan.edges} emulated station{'s' * (plan.edges != 1)}, seed {plan.seed}"
    limits = Limits(title, TARGET, 60.0 * plan.budget_minutes, lambda: interrupt.count)
    return Conductor(plan.task, folder, campaign, publisher, network, fleet, display, limits)


def _conduct(plan: Plan, campaign_id: str, conductor: Conductor, store: Store) -> None:
    """Run the campaign and note why it ended, whatever happens."""
    store.begin_campaign(
        {
            "campaign_id": campaign_id,
            "task": plan.task,
            "seed": plan.seed,
            "stations": plan.edges,
            "target_successes": TARGET,
            "target_trials": HELDOUT,
            "budget_minutes": plan.budget_minutes,
            "started_unix_s": time.time(),
        }
    )
    why = "it failed"
    try:
        why = conductor.go()
    except CoordinatorError as error:
        why = f"it failed: {error}"
        raise
    finally:
        with contextlib.suppress(StoreError):  # a full disk takes this line no more than the others
            store.end_campaign(campaign_id, why, time.time())


def _read_task(task: str) -> tuple[Path, PolicySpace, Starts]:
    """Return the policy folder of a task, what may be varied in it, and the task's initial states."""
    policies = Path(str(files("policies")))
    known = sorted(path.parent.name for path in policies.glob(f"*/{SPACE_FILE}"))
    if task not in known:
        raise DemoRefused(f"no task {task!r}; known: {', '.join(known)}")
    try:
        return policies / task, load_space(policies / task), Starts.load(task)
    except (SpaceError, StartsError) as error:
        raise DemoRefused(str(error)) from error


def _make_folder(plan: Plan) -> Path:
    """Return a new run folder, named by the time and the seed."""
    free_mb = shutil.disk_usage(plan.runs).free / 1e6
    if not free_mb >= LEAST_FREE_MB:
        raise DemoRefused(f"{free_mb:.0f} MB free at {plan.runs}; a run needs {LEAST_FREE_MB} MB, free some first")
    folder = plan.runs / f"{datetime.now():%Y-%m-%d-%H%M%S}-seed{plan.seed}"
    try:
        (folder / "recordings").mkdir(parents=True)
    except OSError as error:
        raise DemoRefused(f"cannot make the run folder {folder}: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def _locked(runs: Path) -> Iterator[None]:
    """Hold the folder of runs: two demos on one machine would measure each other."""
    with _open_lock(runs) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise DemoRefused(
                f"another demo runs in {runs} (process {lock.read().strip()}); wait for it, or give another --runs"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _open_lock(runs: Path) -> TextIO:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        return open(runs / LOCK, "a+")
    except OSError as error:
        raise DemoRefused(f"cannot use {runs} for runs: {error.strerror}; give another folder by --runs") from error


def _observed(plan: Plan, conductor: Conductor) -> Observed:
    stations = conductor.roster.stations
    return Observed(
        began_unix_s=plan.began_unix_s,
        pace=plan.pace,
        station_peak_mb={item.edge: item.peak_memory_mb for item in stations},
        coordinator_peak_mb=_peak_memory_mb(),
        begun={item.edge: item.last_sequence for item in stations},
    )


def _peak_memory_mb() -> float:
    """Return the most that this process has held in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e6


def _report(folder: Path, display: Display) -> None:
    """Write the report in a process of its own, whose plotting library would double the memory of this one."""
    display.say("writing the report")
    command = [sys.executable, "-m", "coordinator.report", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        display.say(f"no report: {last}; try enpire-coord report {folder}", "red")
