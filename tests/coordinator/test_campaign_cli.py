"""`enpire-coord campaign` says what there is and refuses what cannot be, in one line each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli import app
from coordinator.store import FILE, Store

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["start", "resume", "list"])
def test_every_help_has_examples(command: str) -> None:
    result = CliRunner().invoke(app, ["campaign", command, "--help"])
    assert result.exit_code == 0
    assert f"enpire-coord campaign {command}" in result.output


def test_campaigns_are_listed_and_what_is_none_is_passed_over(tmp_path: Path) -> None:
    for name in ("a", "b", "broken"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "docs" / "example.db", tmp_path / "a" / FILE)
    Store(tmp_path / "b" / FILE).close()
    (tmp_path / "broken" / FILE).write_bytes(b"no database" * 100)
    result = CliRunner().invoke(app, ["campaign", "list", str(tmp_path), "--json"])
    [row] = json.loads(result.output)
    assert row["task"] == "push_t"
    assert row["trials"] > 100
    assert row["gains"] > 0
    assert row["folder"] == str(tmp_path / "a")
    told = CliRunner().invoke(app, ["campaign", "list", str(tmp_path)], env={"COLUMNS": "40"}).output
    assert f" {tmp_path / 'a'}  push_t " in told  # whole, to be copied
    assert len(told.splitlines()) == 2
    assert CliRunner().invoke(app, ["campaign", "list", str(tmp_path / "b"), "--json"]).output == "[]\n"


def test_what_cannot_go_on_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    nothing = CliRunner().invoke(app, ["campaign", "resume", str(tmp_path / "run")])
    assert nothing.exit_code == 2
    assert "holds no coordinator.db" in nothing.stderr
    Store(tmp_path / "run" / FILE).close()
    unbegun = CliRunner().invoke(app, ["campaign", "resume", str(tmp_path / "run")])
    assert unbegun.exit_code == 2
    assert "no campaign was begun" in unbegun.stderr


def test_a_target_beyond_the_starts_is_refused(tmp_path: Path) -> None:
    options = ["--target", "26", "--heldout", "25", "--runs", str(tmp_path)]
    result = CliRunner().invoke(app, ["campaign", "start", *options])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
