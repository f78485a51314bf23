"""`campaign agents` and `transcripts` say what is there, keep what is ordered, and refuse what means nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coordinator.agents import orders
from coordinator.agents.transcripts import FOLDER
from coordinator.cli import app
from coordinator.store import FILE, Store

SAID = [
    {"type": "assistant", "message": {"content": [{"type": "text", "text": "Slower pushes might help.\nI will try."}]}},
    {"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "Bash", "input": {"command": "ls"}}]}},
    {"type": "user", "message": {"content": [{"type": "tool_result", "content": "policy.py \u001b[31m"}]}},
    {"type": "result", "is_error": False, "result": "done"},
]
BY_API = {"content": [{"type": "text", "text": "Easing helps."}, {"type": "tool_use", "name": "submit", "input": {}}]}


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["campaign", *words])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with Store(tmp_path / FILE) as store, store.transaction() as db:
        row = ("codex-1", "codex", "gpt", "halted", "the key is refused", 3, 2, 90.0)
        db.execute("INSERT INTO lanes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute(
            "INSERT INTO token_use (unix_s, researcher, model, input_tokens, output_tokens, cached_tokens, seconds,"
            " nano_usd) VALUES (1, 'codex-1', 'gpt', 1000, 100, 0, 1.5, 2500000000)"
        )
    folder = tmp_path / FOLDER
    folder.mkdir()
    lines = [json.dumps(event) for event in SAID]
    (folder / "claude-code-1-0001.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    (folder / "claude-api-1-0001.jsonl").write_text(json.dumps(BY_API) + "\nnot json\n")
    return tmp_path


@pytest.mark.parametrize("command", ["agents", "transcripts"])
def test_every_help_has_examples(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"enpire-coord campaign {command}" in result.output


def test_lanes_are_listed_with_what_they_cost(run: Path) -> None:
    [row] = json.loads(call("agents", str(run), "--json").output)
    assert (row["lane"], row["state"], row["proposals"], row["failures"]) == ("codex-1", "halted", 3, 2)
    assert (row["tokens"], row["usd"], row["thought_minutes"], row["accepted"]) == (1100, 2.5, 1.5, 0)
    assert row["dev_trials"] == 0
    shown = call("agents", str(run)).output
    assert "2.50" in shown
    assert "codex-1 is halted: the key is refused" in shown


def test_orders_are_kept_in_their_order(run: Path) -> None:
    words = (
        "--go",
        "codex-1",
        "--add",
        "kimi:2",
        "--budget-usd",
        "3.5",
        "--budget-tokens",
        "9",
        "--agent-minutes",
        "7",
    )
    assert call("agents", str(run), *words).exit_code == 0
    with Store(run / FILE) as store:
        given = [(order.what, order.about) for order in orders.after(store, 0)]
    assert given == [("go", "codex-1"), ("add", "kimi:2"), ("usd", "3.5"), ("tokens", "9"), ("minutes", "7.0")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pause", "codex-2"], "there is no lane 'codex-2'; there are codex-1"),
        (["--add", "nobody"], "there is no researcher 'nobody'"),
        (["--budget-usd", "nan"], "Invalid value"),
    ],
)
def test_what_means_nothing_is_refused(run: Path, words: list[str], says: str) -> None:
    result = call("agents", str(run), *words)
    assert result.exit_code == 2
    assert says in result.stderr
    with sqlite3.connect(run / FILE) as db:
        assert db.execute("SELECT COUNT(*) FROM lane_orders").fetchone() == (0,)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for command in ("agents", "transcripts"):
        result = call(command, str(tmp_path))
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1


def test_transcripts_are_searched_by_word_and_by_lane(run: Path) -> None:
    whole = [json.loads(line) for line in call("transcripts", str(run), "--json").output.splitlines()]
    assert [line["kind"] for line in whole] == ["says", "does", "says", "does", "got", "done"]
    found = call("transcripts", str(run), "--grep", "HELP").output.splitlines()
    assert found == [
        "claude-api-1-0001:1 says: Easing helps.",
        "claude-code-1-0001:1 says: Slower pushes might help. I will try.",
    ]
    assert len(call("transcripts", str(run), "--lane", "claude-code-1").output.splitlines()) == 4
    assert "\u001b" not in call("transcripts", str(run)).output
    assert call("transcripts", str(run), "--grep", "nowhere").output == ""
