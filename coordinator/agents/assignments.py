"""What an agent is assigned for a task: its contract, what it may read beside the policy, methods that may help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files

import numpy as np

from coordinator.agents.admission import coordinates
from coordinator.agents.coding_agent import Assignment
from coordinator.agents.pack import Robots, TaskNotes
from coordinator.agents.shelf import ABOUT, ABOUT_DEV_TRIALS
from coordinator.evolution.starts import Starts, StartsError
from coordinator.research.literature import cards_for

CARDS = 4
BESIDE_SKILLS = ("space_work", "space_tables")  # what skills import


def assignment(
    task: str,
    policy: str,
    robots: Callable[[], Robots] = Robots,
    starts: Starts | None = None,
    records: bool = False,
    dev_trials: bool = False,
) -> Assignment:
    """Return what an agent works on.

    Args:
        starts: the lists that are used where they are not those that ship for the task.
        records: whether the agent finds the lab's records in its cage (see `shelf`), so that it is told.
        dev_trials: whether it may have its unfinished change tried from there too.
    """

    def methods(failures: Mapping[str, float]) -> list[tuple[str, str]]:
        return [(card.name, card.text) for card in cards_for(failures, task, CARDS)]

    about = "\n\n".join([ABOUT, *([ABOUT_DEV_TRIALS] if dev_trials else [])]) if records else ""
    return Assignment(
        TaskNotes(policy, contract(task), methods, about),
        _beside(),
        _coordinates(task, starts),
        robots,
    )


def contract(task: str) -> str:
    """Return what a policy for the task must achieve; where nothing is written, that the policy itself says it."""
    path = files("coordinator") / "agents" / "contracts" / f"{task}.md"
    return (
        path.read_text()
        if path.is_file()
        else f"The task is `{task}`; the policy's own docstring says what it must do."
    )


def _coordinates(task: str, starts: Starts | None) -> np.ndarray:
    try:
        return coordinates(starts or Starts.load(task))
    except StartsError:
        return np.zeros((0, 3))


def _beside() -> dict[str, bytes]:
    """Return the files that an agent may read beside the policy, by path in its work tree."""
    interface = (files("policies") / "interface.py").read_bytes()
    skills = {
        f"policies/skills/{path.name}": path.read_bytes()
        for path in (files("policies") / "skills").iterdir()
        if path.name.endswith(".py")
    }
    more = {f"policies/{name}.py": (files("policies") / f"{name}.py").read_bytes() for name in BESIDE_SKILLS}
    return {"policies/__init__.py": b"", "policies/interface.py": interface, **more, **skills}
