"""The page's ledger of language models adds up, and stands only where one was called."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.report.ledger import NO_TOKENS, dollars
from coordinator.report.milestones import token_use
from coordinator.report.page import key_figures
from coordinator.report.run import load
from coordinator.report.write import write_report
from coordinator.store import FILE, Store
from tests.harness.run_world import STARTED_S, add_idea, add_trial, insert

BUNDLES = [letter * 64 for letter in "abcd"]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Ten minutes: a seed, an accepted idea of `claude-1`, a rejected one of `codex-1` and an accepted offline one."""
    Store(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        insert(
            database, "campaigns", campaign_id="c", task="push_t", seed=7, stations=1, target_successes=46,
            target_trials=50, budget_minutes=10.0, started_unix_s=STARTED_S, ended_unix_s=STARTED_S + 600.0,
        )  # fmt: skip
        for number, (bundle, verdict, who) in enumerate(
            zip(
                BUNDLES,
                ("accept", "accept", "reject", "accept"),
                ("seed", "claude-1", "codex-1", "offline"),
                strict=True,
            ),
            start=1,
        ):
            add_idea(database, number, None if number == 1 else 1, bundle, verdict, float(number))
            database.execute("UPDATE hypotheses SET researcher = ? WHERE hypothesis_id = ?", (who, number))
            add_trial(database, number, bundle, "success")
        yield database


def call(db: sqlite3.Connection, lane: str, hypothesis_id: int | None, nano_usd: int = 250_000_000) -> None:
    """Keep a call of 1000 tokens: 300 fresh, 400 read, 100 written, 120 said, 70 thought, 10 other; 50 guessed."""
    insert(
        db, "token_use", unix_s=STARTED_S + 60.0, researcher=lane, model="m", hypothesis_id=hypothesis_id,
        input_tokens=800, cached_tokens=400, cache_write_tokens=100, output_tokens=200, reasoning_tokens=70,
        other_tokens=10, guessed_tokens=50, nano_usd=nano_usd, seconds=30.0,
    )  # fmt: skip


def cells(page: str, first: str) -> list[list[str]]:
    """Return the rows of the page's tables that begin with this cell, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    texts = [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)] for row in rows]
    return [row for row in texts if row and row[0] == first]


def test_tokens_are_told_by_kind_by_lane_and_by_hypothesis(db: sqlite3.Connection, tmp_path: Path) -> None:
    for lane, hypothesis_id in (("claude-1", 2), ("claude-1", 2), ("claude-1", None), ("codex-1", 3)):
        call(db, lane, hypothesis_id)
    page = write_report(tmp_path).read_text()
    assert cells(page, "claude-1") == [
        ["claude-1", "m", "3", "900", "1,200", "300", "360", "210", "30", "$0.7500", "1.5 min"],
        ["claude-1", "1", "1", "3,000", "300", "3,000", "$0.7500", "$0.7500"],
    ]
    assert cells(page, "codex-1")[1] == ["codex-1", "1", "0", "1,000", "100", "none", "$0.2500", "none"]
    assert cells(page, "all") == [
        ["all", "", "4", "1,200", "1,600", "400", "480", "280", "40", "$1.00", "2.0 min"],
    ]  # fmt: skip
    by_hypothesis = [row for row in (*cells(page, "2"), *cells(page, "3"), *cells(page, "")) if len(row) == 8]
    assert [row[2:4] + row[5:] for row in by_hypothesis] == [
        ["claude-1", "accept", "2", "2,000", "$0.5000"],
        ["codex-1", "reject", "1", "1,000", "$0.2500"],
        ["claude-1", "", "1", "1,000", "$0.2500"],
    ]
    assert "5.0 % of all tokens are guessed" in page
    assert "4,000 tokens in and out, 400 a minute; $1.00; 4,000 tokens and $1.00 for each accepted idea" in page


def test_ideas_that_cost_no_tokens_make_no_others_cheaper(db: sqlite3.Connection, tmp_path: Path) -> None:
    call(db, "claude-1", 2)
    use = token_use(load(tmp_path))
    assert (use.tokens, use.per_accept, use.usd, use.usd_per_accept) == (1000, 1000.0, 0.25, 0.25)
    db.execute("UPDATE token_use SET researcher = 'codex-1', hypothesis_id = 3")
    use = token_use(load(tmp_path))
    assert (use.per_accept, use.usd_per_accept) == (None, None)
    assert "no idea of a language model was accepted" in write_report(tmp_path).read_text()


def test_without_a_language_model_there_is_no_ledger(db: sqlite3.Connection, tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text()
    assert NO_TOKENS in page
    assert "Tokens by kind" not in page
    assert not any("token" in name or "language" in name for name, _ in key_figures(load(tmp_path)))


@pytest.mark.parametrize(
    ("usd", "said"), [(0.0, "$0.00"), (0.0004, "$0.0004"), (0.25, "$0.2500"), (1.0, "$1.00"), (1234.5, "$1,234.50")]
)
def test_a_small_amount_is_not_nothing(usd: float, said: str) -> None:
    assert dollars(usd) == said


def test_what_could_not_be_judged_is_told_beside_its_count(db: sqlite3.Connection, tmp_path: Path) -> None:
    measured = {"candidate_id": 4, "low": 0.0, "high": 1.0, "complete": 1, "ended_unix_s": STARTED_S + 590.0}
    insert(db, "heldout", **measured, successes=47, trials=50, invalid=2)
    insert(db, "audits", **measured, successes=190, trials=200, invalid=3)
    figures = dict(key_figures(load(tmp_path)))
    assert figures["success of the incumbent, held-out starts"].endswith(", 2 of the failures could not be judged")
    assert figures["success of the last incumbent, audit starts"].endswith(", 3 of the failures could not be judged")
    for table in ("heldout", "audits"):
        db.execute(f"UPDATE {table} SET invalid = 0")
    assert "could not be judged" not in write_report(tmp_path).read_text()
