"""A lane for an agent in tests: a scripted vendor, the shipped Push-T policy, and a change that a person would make."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from coordinator.agents import clients, watch
from coordinator.agents.calls import Call, Patience, Provider
from coordinator.agents.coding_agent import Assignment, CodingAgent, Model
from coordinator.agents.pack import TaskNotes
from coordinator.agents.prices import Price, Prices
from coordinator.agents.purse import Budget, Purse
from coordinator.evolution.ideas import ResearchContext
from policies.space import parse_space
from tests.harness.model_server import MODEL, ModelServer, Step

ROOT = Path(__file__).parents[2]
POLICY = "policies/push_t"
FILES = {path.name: path.read_bytes() for path in sorted((ROOT / POLICY).iterdir()) if path.suffix in (".py", ".toml")}
BESIDE = {"policies/interface.py": (ROOT / "policies/interface.py").read_bytes()}
PRICES = Prices((Price(MODEL, date(2026, 1, 1), 3000, 300, 3750, 6000, 15000),))
SENTENCE = "Pushing at half the speed keeps the T from sliding past the goal."
HYPOTHESIS = json.dumps({"sentence": SENTENCE, "falsifier": "No more wins than losses pair by pair on fresh starts."})
SLOWER = FILES["policy.toml"].decode().replace("default = 0.20", "default = 0.10", 1)
# Clients that need it read a file before they change it; all take absolute paths.
GOOD = (
    Step("read", f"/repo/{POLICY}/policy.toml"),
    Step("write", f"/repo/{POLICY}/policy.toml", SLOWER),
    Step("write", "/repo/hypothesis.json", HYPOTHESIS),
)
QUICK = Patience(connect_s=2, silence_s=2, retry_after_s=0.2, failures=4)
LIMITS = watch.Watch(wall_s=60, silence_s=20)


@dataclass
class Lane:
    """An agent and what it has cost."""

    agent: CodingAgent
    purse: Purse
    rows: list[Call] = field(default_factory=list)


def context() -> ResearchContext:
    space = parse_space(FILES["policy.toml"])
    return ResearchContext(space.defaults(), (), frozenset(), {"near": 3}, (), FILES)


def assignment() -> Assignment:
    return Assignment(TaskNotes("push_t", "Push the T to its goal.", lambda failures: ()), BESIDE, np.zeros((0, 3)))


def model(server: ModelServer, rows: list[Call], budget: Budget | None = None, patience: Patience = QUICK) -> Model:
    purse = Purse(budget or Budget(), time.monotonic())
    return Model(MODEL, Provider(server.url, "the-real-key"), purse, PRICES, rows.append, patience)


def lane(
    server: ModelServer,
    client: clients.Client,
    programs: dict[str, Path],
    folder: Path,
    budget: Budget | None = None,
    patience: Patience = QUICK,
    limits: watch.Watch = LIMITS,
    shows: Callable[[Path], Mapping[str, Path]] | None = None,
) -> Lane:
    rows: list[Call] = []
    asked = model(server, rows, budget, patience)
    agent = CodingAgent(client.name, client, programs, asked, assignment(), folder, limits, shows=shows)
    return Lane(agent, asked.purse, rows)


def script(*steps: Step) -> Sequence[Step]:
    return steps
