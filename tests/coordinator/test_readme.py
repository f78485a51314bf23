"""The README's commands exist, and what it links to is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
MODULES = {"enpire-coord": "coordinator.cli", "enpire-edge": "edge.cli"}
GROUPS = ("campaign",)  # commands with commands of their own, whose options the README names


def test_the_two_commands_are_there() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists_with_its_options(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    subcommand = words[1:3] if words[1] in GROUPS else words[1:2]
    options = [word for word in words[2:] if word.startswith("--")]
    tool = [sys.executable, "-m", MODULES[Path(words[0]).name], *subcommand, "--help"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert [option for option in options if option not in done.stdout] == []


@pytest.mark.parametrize("target", [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link])
def test_what_is_linked_to_is_there(target: str) -> None:
    assert (ROOT / target).is_file()


def test_the_tree_names_every_folder_with_code() -> None:
    named = set(re.findall(r"^\| `(\w+)/` ", README, re.MULTILINE))
    there = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))} | {"docs", "tests"}
    assert there == named
