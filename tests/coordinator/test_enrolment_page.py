"""docs/enrolment.md: its table of who may say what is the one that is enforced, its commands exist with their options.

Usage: python tests/coordinator/test_enrolment_page.py    writes the table anew
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.access import access_control, door_access

PAGE = Path(__file__).parents[2] / "docs" / "enrolment.md"
BEGIN, END = "a test compares the two -->\n", "<!-- end -->"
EDGE, CONSOLE = "<edge>", "console:<user>"
MODULES = {"enpire-coord": "coordinator.cli", "enpire-edge": "edge.cli"}
GROUPS = ("keys", "enrol")  # of enpire-coord, each with commands of its own
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def table() -> str:
    """Return the rules as a table in markdown."""
    lines = ["| who | way | may | keys |", "|---|---|---|---|"]
    for rules in (access_control([EDGE], [CONSOLE]), door_access()):
        known = {rule["id"]: rule for rule in rules["rules"]}
        for policy in rules["policies"]:
            lines += [_line(who, known[name]) for who in policy["subjects"] for name in policy["rules"]]
    return "\n".join(lines) + "\n"


def _line(who: str, rule: Mapping[str, Any]) -> str:
    assert rule["permission"] == "allow"
    way = {"ingress": "says", "egress": "is told"}
    [flow] = rule["flows"]
    keys = ", ".join(f"`{key}`" for key in rule["key_exprs"])
    return f"| `{who}` | {way[flow]} | {', '.join(rule['messages'])} | {keys} |"


def split() -> tuple[str, str, str]:
    """Return the page before, in and after the table."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    written, _, after = rest.partition(END)
    return before + BEGIN, written, END + after


def test_the_page_shows_the_rules_that_are_enforced() -> None:
    assert split()[1] == table(), "python tests/coordinator/test_enrolment_page.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists_with_its_options(command: str) -> None:
    words = shlex.split(command)
    program = Path(words[0]).name
    deep = 3 if program == "enpire-coord" and words[1] in GROUPS else 2
    tool = [sys.executable, "-m", MODULES[program], *words[1:deep], "--help"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert [word for word in words if word.startswith("--") and word not in done.stdout] == []


if __name__ == "__main__":
    before, _, after = split()
    PAGE.write_text(before + table() + after)
