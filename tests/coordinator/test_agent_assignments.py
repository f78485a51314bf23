"""What agents are told of a task is there for every task, and holds nothing that they must not know."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.agents.assignments import assignment
from coordinator.agents.copies import copied
from coordinator.agents.pack import Robots, build
from coordinator.agents.purse import Left
from coordinator.evolution.ideas import ResearchContext
from coordinator.evolution.starts import LISTS

FREE = Left(None, None, None, None)
EMPTY = ResearchContext({}, (), frozenset(), {}, ())


@pytest.mark.parametrize("task", sorted(LISTS))
def test_every_task_with_starts_has_a_contract_and_no_start_is_in_the_prompt(task: str) -> None:
    given = assignment(task, task)
    prompt = build(given.notes, replace(EMPTY, failures={"near": 3, "missed": 2}), FREE, Robots())
    assert "## The task\n" in prompt
    assert "Success" in given.notes.contract
    assert "own docstring" not in given.notes.contract
    assert given.starts.shape[0] > 1000
    assert not re.search(r"(gate|heldout|audit)-\d", prompt)
    assert copied({"prompt.txt": prompt.encode()}, {}, given.starts) is None


def test_methods_are_shown_that_help_against_the_failures_seen() -> None:
    given = assignment("push_t", "push_t")
    for failures, shown in (({}, False), ({"near": 3}, True)):
        prompt = build(given.notes, replace(EMPTY, failures=failures), FREE, Robots())
        assert ("## Methods that may help" in prompt) is shown
    assert given.notes.methods({"near": 3}) != given.notes.methods({"far": 3})


def test_what_lies_beside_the_policy_is_the_interface_and_the_skills() -> None:
    given = assignment("push_t", "push_t")
    assert {Path(name).parts[1] for name in given.beside} == {
        "__init__.py",
        "interface.py",
        "skills",
        "space_tables.py",
        "space_work.py",
    }


def test_an_unknown_task_is_described_by_its_policy() -> None:
    given = assignment("stacking", "stacking")
    assert "own docstring" in given.notes.contract
    assert given.starts.shape[0] == 0
