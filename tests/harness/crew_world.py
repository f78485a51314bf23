"""A journaled campaign on the shipped Push-T policy with agents and without stations."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coordinator.agents.calls import Call, Patience
from coordinator.agents.crew import Crew, Place
from coordinator.agents.hiring import Wanted
from coordinator.agents.ledger import FILE as LEDGER
from coordinator.agents.ledger import read_calls
from coordinator.campaign import Campaign
from coordinator.evolution.ideas import ResearchContext
from coordinator.evolution.lineage import Lineage
from coordinator.evolution.starts import Starts
from coordinator.evolution.workshop import GitWorkshop
from coordinator.journal import Journal, resume
from coordinator.publish.publisher import Publisher
from coordinator.store import FILE, Store
from tests.harness.model_server import ModelServer

ROOT = Path(__file__).parents[2]
MODEL = "claude-haiku-5-5"  # has a price
QUICK = Patience(connect_s=2, silence_s=0.6, retry_after_s=0.1, failures=4)
LONG_S = 60.0  # bound of a wait


class CrewWorld:
    """One run's folder, its campaign, and one crew after another."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(ROOT / "policies/push_t", folder / "policy", ignore=shutil.ignore_patterns("__pycache__"))
        self.folder = folder
        self.store = Store(folder / FILE)
        publisher = Publisher.for_demo(folder / "policy", folder, self.store)
        self.workshop = GitWorkshop(folder / "policy", Lineage(folder / "policies.git"), publisher)
        self.starts = Starts.load("push_t")
        self.now_s = 0.0
        self.journal = Journal.begin(self.make, {"seed": 3}, 0.0, self.store, lambda events, now_s: None)
        self.work_until_wanted()

    def make(self, options: Mapping[str, Any], now_s: float) -> Campaign:
        """Return a fresh campaign."""
        return Campaign(self.workshop, self.starts, options["seed"], stations=2, now_s=now_s)

    def again(self) -> None:
        """Forget the campaign, and have it from its journal."""
        self.journal = resume(self.make, self.store, lambda events, now_s: None)

    def work_until_wanted(self) -> ResearchContext:
        """Hand out work until the campaign wants an idea, and return what it shows; the same where enough wait."""
        for number in range(60):
            if (context := self.journal.wants(self.now_s, "")) is not None:
                return context
            assert self.journal.next_work(f"station-{number % 2 + 1}", self.now_s) is not None
        return self.journal.campaign._book.context("")

    def crew(self, wanted: Wanted, patience: Patience = QUICK) -> Crew:
        """Return the agents of a process."""
        return Crew(wanted, Place("push_t", self.folder, 3, lambda: 5.0), self.store, patience)

    def thought(self, crew: Crew, lane: str = "claude-api-1") -> list[str]:
        """Let an agent think to its end, and return what people are told of it."""
        context = self.work_until_wanted()
        crew.think(lane, context, time.time())
        said: list[str] = []
        until_s = time.monotonic() + LONG_S
        while time.monotonic() < until_s:
            ended = self.state(crew, lane) != "thinking"
            said += crew.take(self.journal, time.time())
            if ended:
                crew.tend(time.time())
                return said
            time.sleep(0.01)
        raise AssertionError("it thinks for ever")

    def state(self, crew: Crew, lane: str = "claude-api-1") -> str:
        """Return how a lane is by the crew's own table."""
        crew.tend(time.time())
        found = self.store.rows("SELECT state FROM lanes WHERE lane = ?", lane)
        return str(found[0][0]) if found else ""

    def calls(self) -> Sequence[Call]:
        """Return the ledger."""
        path = self.folder / LEDGER
        return list(read_calls(path)) if path.exists() else []

    def candidates(self) -> int:
        """Return how many policies there were."""
        return len(self.journal.campaign.candidates)


def environment(server: ModelServer) -> dict[str, str]:
    """Return the variables by which all agents find this server."""
    names = ("ANTHROPIC", "OPENAI", "MOONSHOT")
    keys = {f"{name}_API_KEY": "the-real-key" for name in names}
    return {**keys, **{f"{name}_BASE_URL": server.url for name in names}}
