"""The documented questions run on the shipped example and print what the page shows; the views count right.

Usage: python tests/coordinator/test_analysis.py    prints the outputs in docs/analysis.md anew; review the difference
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlite_utils.cli import cli

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "analysis.md"
EXAMPLE = ROOT / "docs" / "example.db"
MIGRATIONS = ROOT / "coordinator" / "migrations"
QUESTION = re.compile(
    r"^## (?P<title>\d+\. [^\n]*)\n\n```sh\n(?P<command>.*?)```\n\n(```\n(?P<output>.*?)```\n\n)?",
    re.MULTILINE | re.DOTALL,
)
QUESTIONS = [match.groupdict() for match in QUESTION.finditer(PAGE.read_text())]


def printed(command: str) -> str:
    """Return what a command of the page prints when it is typed in the root of the repository."""
    program, *words = shlex.split(command)
    assert program == ".venv/bin/sqlite-utils"
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.splitlines()) + "\n"


def data_rows(output: str) -> list[str]:
    return output.splitlines()[2:]  # under the names and the rule


def test_there_are_twelve_questions() -> None:
    assert [question["title"].partition(".")[0] for question in QUESTIONS] == [f"{n}" for n in range(1, 13)]


@pytest.mark.parametrize("question", QUESTIONS, ids=[question["title"] for question in QUESTIONS])
def test_a_question_prints_what_the_page_shows(question: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    output = printed(question["command"])
    assert output == question["output"], "run python tests/coordinator/test_analysis.py and review the difference"
    assert data_rows(output)


def test_asking_leaves_the_example_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    before = EXAMPLE.read_bytes()
    for question in QUESTIONS:
        printed(question["command"])
    assert EXAMPLE.read_bytes() == before
    assert sorted(path.name for path in EXAMPLE.parent.glob("example.db*")) == ["example.db"]


def test_the_example_is_small_whole_and_of_the_newest_format() -> None:
    assert EXAMPLE.stat().st_size < 1.5e6
    newest = max(int(path.name.split("_")[0]) for path in MIGRATIONS.glob("*.sql"))
    with closing(sqlite3.connect(f"{EXAMPLE.as_uri()}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (newest,)
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("SELECT SUM(LENGTH(archive)) FROM bundles").fetchone() == (0,)


def refresh() -> None:
    """Write the page with the outputs of today."""

    def answered(match: re.Match[str]) -> str:
        head = f"## {match['title']}\n\n```sh\n{match['command']}```\n\n"
        return f"{head}```\n{printed(match['command'])}```\n\n"

    PAGE.write_text(QUESTION.sub(answered, PAGE.read_text()))


if __name__ == "__main__":
    os.chdir(ROOT)
    refresh()
