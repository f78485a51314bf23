"""A campaign on emulated stations of this machine: makes a run folder, starts everything, sums up at the end.

- It ends at the target, at the budget, or when asked to (Ctrl-C); a run that was cut short is readable all the same.
- A run that was killed, interrupted or out of budget goes on by `resume`: the campaign is had again from its journal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from coordinator.agents.crew import Crew, Place
from coordinator.agents.hiring import Wanted, hire
from coordinator.campaign import Campaign
from coordinator.conduct import FINISHED, Conductor, Limits
from coordinator.display import Display
from coordinator.errors import CoordinatorError
from coordinator.evolution.ideas import Proposal, ProposalRefused
from coordinator.evolution.lineage import FOLDER as LINEAGE
from coordinator.evolution.lineage import Lineage
from coordinator.evolution.records import DecisionMade, Event
from coordinator.evolution.starts import Starts, StartsError
from coordinator.evolution.workshop import GitWorkshop
from coordinator.fleet import Fleet, make_stations, point_to, wait_for_stations
from coordinator.journal import Journal, JournalRefused
from coordinator.journal import resume as resume_journal
from coordinator.network import Network, free_endpoint
from coordinator.publish.publisher import Lab, Publisher
from coordinator.research.offline import OfflineResearcher
from coordinator.run_folder import CampaignRefused, Interrupt, check_space, locked, make_folder
from coordinator.scheduling.wear import WearBudget
from coordinator.store import FILE as DATABASE
from coordinator.store import Store, StoreError
from coordinator.summary import FILE as SUMMARY
from coordinator.summary import Observed, summarise, write_summary
from policies.bundle import BundleError
from policies.interface import Value
from policies.space import FILE as SPACE_FILE
from policies.space import PolicySpace, SpaceError, load_space

LOG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"
TARGET, HELDOUT = 46, 50
ROOT_FILE = "root.json"  # in the folder of a run: what its stations trust
OLD_STATIONS_S = 60.0  # for the stations of a coordinator that was killed to end


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
    target: int = TARGET
    heldout: int = HELDOUT
    audit: int = 0
    wear: WearBudget = field(default_factory=WearBudget)
    wanted: Wanted = field(default_factory=Wanted)


def start(plan: Plan, display: Display) -> dict[str, Any]:
    """Run a campaign in a new folder and return its summary, which lies in that folder too.

    Raises:
        CoordinatorError: it could not begin, or something failed on the way; the message says what to do.
    """
    policy, _, _ = _read_task(plan.task)
    hire(plan.wanted)  # so that what cannot run is refused before anything is made
    with Interrupt().watched() as interrupt, locked(plan.runs):
        folder = make_folder(plan.runs, plan.seed)
        with Store(folder / DATABASE) as store, Network(free_endpoint()) as network:
            try:
                _log_to(folder)
                # The policy is copied, so that an edit meanwhile changes no candidate.
                shutil.copytree(policy, folder / "policy", ignore=shutil.ignore_patterns("__pycache__"))
                run = _Run(plan, folder, store, network, Lab.for_demo(folder), display, interrupt)
                store.begin_campaign(_row(plan, folder.name))
                conductor = run.begin()
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)  # nothing has run in it
                raise
            run.conduct(conductor)
        return _sum_up(plan, folder, conductor, display)


def resume(
    folder: Path, display: Display, budget_minutes: float | None = None, no_agents: bool = False
) -> dict[str, Any]:
    """Let the campaign of a run go on where it was, and return its summary.

    Args:
        budget_minutes: of wall time over all its processes; None for what it was begun with.
        no_agents: ask the offline researcher only.

    Raises:
        CoordinatorError: it has reached its target, cannot go on, or something failed on the way.
    """
    if not (folder / DATABASE).is_file():
        raise CampaignRefused(f"{folder} holds no {DATABASE}; give the folder of a run")
    folder = folder.resolve()
    with Interrupt().watched() as interrupt, locked(folder.parent):
        check_space(folder)
        with Store(folder / DATABASE) as store, Network(free_endpoint()) as network:
            _log_to(folder)
            plan = _plan(store, folder, budget_minutes)
            if no_agents:
                plan = _without_agents(plan, store)
            hire(plan.wanted)
            run = _Run(plan, folder, store, network, Lab.of(folder), display, interrupt)
            conductor = run.go_on()
            run.conduct(conductor)
        return _sum_up(plan, folder, conductor, display)


class _Run:
    """What starting and resuming share."""

    def __init__(
        self, plan: Plan, folder: Path, store: Store, network: Network, lab: Lab, display: Display,
        interrupt: Interrupt,
    ) -> None:  # fmt: skip
        self._plan, self._folder, self._store, self._network = plan, folder, store, network
        self._display, self._interrupt = display, interrupt
        self._publisher = Publisher(folder / "policy", lab, store)
        self._lineage = Lineage(folder / LINEAGE)
        self._workshop = GitWorkshop(folder / "policy", self._lineage, self._publisher)
        self._journal: Journal | None = None
        self._elapsed_s: Callable[[], float] = lambda: 0.0

    def begin(self) -> Conductor:
        """Make the campaign and its stations."""
        plan = self._plan
        options = {
            "seed": plan.seed,
            "target": plan.target,
            "heldout": plan.heldout,
            "audit": plan.audit,
            "stations": plan.edges,
            "wear": [plan.wear.play_per_hour, plan.wear.station_minutes],
            "starts": _read_task(plan.task)[2].sha256,
        }
        try:
            self._journal = Journal.begin(self._make, options, time.time(), self._store, self._told)
        except (BundleError, SpaceError, ProposalRefused) as error:
            raise CampaignRefused(f"the policy {plan.task} cannot be published: {error}") from error
        return self._conductor()

    def go_on(self) -> Conductor:
        """Have the campaign again, once the stations of a coordinator that was killed have ended."""
        stations = self._folder / "stations"
        names = [path.name for path in stations.iterdir()] if stations.is_dir() else []
        wait_for_stations(stations, names, OLD_STATIONS_S)
        self._display.say("reading the campaign's journal")
        self._journal = resume_journal(self._make, self._store, self._told)
        if (why := self._journal.campaign.finished) and (self._folder / SUMMARY).is_file():
            raise CampaignRefused(f"the campaign has ended: {FINISHED[why]}; its figures are in {SUMMARY}")
        self._workshop.accepted(self._journal.campaign.incumbent.bundle)
        (self._folder / SUMMARY).unlink(missing_ok=True)  # of a process before; there, it says that this end was told
        with self._store.transaction() as db:
            db.execute("UPDATE campaigns SET ended_unix_s = NULL, ended_why = NULL")
        conductor = self._conductor()
        conductor.restore()
        return conductor

    def conduct(self, conductor: Conductor) -> None:
        """Run the campaign and note why it ended, whatever happens."""
        why = "it failed"
        try:
            why = conductor.go()
        except CoordinatorError as error:
            why = f"it failed: {error}"
            raise
        finally:
            with contextlib.suppress(StoreError):  # a full disk takes this line no more than the others
                self._store.end_campaign(self._folder.name, why, time.time())

    def _make(self, options: Mapping[str, Any], now_s: float) -> Campaign:
        starts = _read_task(self._plan.task)[2]
        if starts.sha256 != options["starts"]:
            raise JournalRefused(f"the initial states of {self._plan.task} are others than when the campaign began")
        return Campaign(
            self._workshop, starts, options["seed"], target=options["target"], heldout=options["heldout"],
            audit=options["audit"], stations=options["stations"], wear=WearBudget(*options["wear"]), now_s=now_s,
        )  # fmt: skip

    def _conductor(self) -> Conductor:
        plan, folder, journal = self._plan, self._folder, self._journal
        assert journal is not None  # both ways here make it
        stations, root = folder / "stations", folder / ROOT_FILE
        root.write_bytes(self._publisher.lab.repository.root())
        names = make_stations(stations, plan.edges, plan.seed, plan.task, self._network.endpoint, root)
        point_to(stations, names, self._network.endpoint)
        fleet = Fleet(stations, names, plan.pace)
        title = f"{plan.task}, {plan.edges} emulated station{'s' * (plan.edges != 1)}, seed {plan.seed}"
        limits = Limits(title, plan.target, 60.0 * plan.budget_minutes, lambda: self._interrupt.count)
        researcher = OfflineResearcher(
            load_space(folder / "policy"), plan.seed, self._key_of, self._lineage.merge_lines
        )
        place = Place(plan.task, folder, plan.seed, lambda: plan.budget_minutes - self._elapsed_s() / 60.0)
        crew = Crew(plan.wanted, place, self._store)
        conductor = Conductor(
            plan.task, folder, journal, researcher if plan.wanted.offline else None, crew, self._publisher,
            self._network, fleet, self._display, limits,
        )  # fmt: skip
        self._elapsed_s = conductor.elapsed_s
        return conductor

    def _key_of(self, changes: Mapping[str, Value], changed_files: Mapping[str, bytes]) -> str | None:
        """Return the key of what a change would make of the incumbent, None where nothing can be made of it."""
        assert self._journal is not None
        incumbent = self._journal.campaign.incumbent.source
        try:
            return self._workshop.draft(incumbent, Proposal("", changes, "", "", changed_files)).key
        except ProposalRefused:
            return None

    def _told(self, events: Sequence[Event], now_unix_s: float) -> None:
        """Show what was decided, and let the incumbent's branch stand on what was accepted."""
        if self._journal is not None and any(
            isinstance(event, DecisionMade) and event.verdict == "accept" for event in events
        ):
            self._workshop.accepted(self._journal.campaign.incumbent.bundle)
        self._display.tell(events, self._elapsed_s())


def _row(plan: Plan, campaign_id: str) -> dict[str, Any]:
    return {
        "campaign_id": campaign_id,
        "task": plan.task,
        "seed": plan.seed,
        "stations": plan.edges,
        "target_successes": plan.target,
        "target_trials": plan.heldout,
        "budget_minutes": plan.budget_minutes,
        "started_unix_s": time.time(),
        "options": {"pace": plan.pace, "audit": plan.audit, "agents": plan.wanted.to_json()},
    }


def _plan(store: Store, folder: Path, budget_minutes: float | None) -> Plan:
    """Return what a run was begun with.

    Raises:
        CampaignRefused: nothing was begun there.
    """
    names = "stations, task, seed, budget_minutes, target_successes, target_trials, options, started_unix_s"
    found = store.rows(f"SELECT {names} FROM campaigns")
    if not found:
        raise CampaignRefused(f"no campaign was begun in {folder}; start one")
    edges, task, seed, budget, target, heldout, options, began_unix_s = found[0]
    more = json.loads(options)
    if budget_minutes is not None:
        budget = budget_minutes
        with store.transaction() as db:
            db.execute("UPDATE campaigns SET budget_minutes = ?", (budget,))
    return Plan(
        edges, task, seed, budget, more.get("pace", 0.0), folder.parent, began_unix_s, target, heldout,
        more.get("audit", 0), wanted=Wanted(**more.get("agents", {})),
    )  # fmt: skip


def _without_agents(plan: Plan, store: Store) -> Plan:
    """Return the plan with the offline researcher only, and let it stay so."""
    wanted = Wanted()
    with store.transaction() as db:
        db.execute(
            "UPDATE campaigns SET options = json_set(options, '$.agents', json(?))", (json.dumps(wanted.to_json()),)
        )
        db.execute("DELETE FROM lane_orders")
    return replace(plan, wanted=wanted)


def _read_task(task: str) -> tuple[Path, PolicySpace, Starts]:
    """Return the policy folder of a task, what may be varied in it, and the task's initial states."""
    policies = Path(str(files("policies")))
    known = sorted(path.parent.name for path in policies.glob(f"*/{SPACE_FILE}"))
    if task not in known:
        raise CampaignRefused(f"no task {task!r}; known: {', '.join(known)}")
    try:
        return policies / task, load_space(policies / task), Starts.load(task)
    except (SpaceError, StartsError) as error:
        raise CampaignRefused(str(error)) from error


def _log_to(folder: Path) -> None:
    logging.basicConfig(filename=folder / "coordinator.log", level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("tuf").setLevel(logging.WARNING)  # it tells of each key that need not have signed


def _sum_up(plan: Plan, folder: Path, conductor: Conductor, display: Display) -> dict[str, Any]:
    stations = conductor.roster.stations
    observed = Observed(
        began_unix_s=plan.began_unix_s,
        pace=plan.pace,
        station_peak_mb={item.edge: item.peak_memory_mb for item in stations},
        coordinator_peak_mb=_peak_memory_mb(),
        begun={item.edge: item.last_sequence for item in stations},
    )
    summary = summarise(folder, observed)
    write_summary(folder, summary)
    _report(folder, display)
    return summary


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
