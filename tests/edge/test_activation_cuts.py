"""Wherever a process ends, by SIGKILL or by a power cut, an edge has the old policy or the new one: every arrow, every
moment.

tests/harness/activation_cutter.py does it and says how; half a minute of one core for all of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.activation.table import ARROWS
from tests.harness.activation_cases import CASES
from tests.harness.activation_cutter import MOMENTS

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")  # a SIGKILL leaves what was written, and the cut power is simulated: no disk is needed
Ask = Callable[..., dict[str, Any]]
COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Return how to have one arrow cut at one moment."""
    script = ROOT / "tests" / "harness" / "activation_cutter.py"
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        command = [sys.executable, str(script), folder]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cutter:

            def question(name: str, how: str, moment: str, **more: str) -> dict[str, Any]:
                assert cutter.stdin is not None
                assert cutter.stdout is not None
                cutter.stdin.write(json.dumps({"name": name, "how": how, "moment": moment, **more}) + "\n")
                cutter.stdin.flush()
                line = cutter.stdout.readline()
                assert line, "the cutter itself ended"
                answer: dict[str, Any] = json.loads(line)
                return answer

            yield question
            assert cutter.stdin is not None
            cutter.stdin.close()


def test_there_is_a_case_for_every_arrow() -> None:
    assert list(CASES.values()) == list(ARROWS)
    assert 2 * len(CASES) * len(MOMENTS) >= 100


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment_an_edge_has_the_old_policy_or_the_new_one(ask: Ask, name: str, moment: str) -> None:
    answer = ask(name, "kill", moment)
    assert answer == {"cuts": 1, "wrong": []}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", CASES)
def test_without_power_at_any_moment_an_edge_has_the_old_policy_or_the_new_one(
    ask: Ask, name: str, moment: str
) -> None:
    pytest.importorskip("apsw", reason="only the standard module, which takes no disk of one's own")
    answer = ask(name, "power", moment)
    COUNTS[moment] += answer["cuts"]
    assert answer["wrong"] == []


def test_the_power_was_cut_inside_commits_and_not_only_around_them(ask: Ask) -> None:
    pytest.importorskip("apsw", reason="only the standard module, which takes no disk of one's own")
    if not COUNTS:  # run alone
        COUNTS["before commit"] = sum(ask(name, "power", "before commit")["cuts"] for name in list(CASES)[:8])
    assert COUNTS["before commit"] >= 8


@pytest.mark.parametrize("name", ["probation-accept", "active-fault"])
def test_a_disk_that_is_not_synced_is_found_out(ask: Ask, name: str) -> None:
    pytest.importorskip("apsw", reason="only the standard module, which takes no disk of one's own")
    answer = ask(name, "power", "after commit", synchronous="NORMAL")
    assert any("neither old nor new" in problem for problem in answer["wrong"])
