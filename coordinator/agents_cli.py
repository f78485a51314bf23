"""`enpire-coord campaign agents` and `transcripts`: the agents of a campaign while it runs, and what they said."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from coordinator.errors import CoordinatorError
from coordinator.whole_table import print_whole

if TYPE_CHECKING:
    from coordinator.store import Store

REFUSED = 2
LONGEST = 160  # characters of a line of a transcript that are shown
LANES = """
SELECT lane, kind, model, state, why, proposals, failures, thought_s / 60,
       (SELECT COALESCE(SUM(input_tokens + output_tokens), 0) FROM token_use WHERE researcher = lane),
       (SELECT COALESCE(SUM(nano_usd), 0) / 1e9 FROM token_use WHERE researcher = lane),
       (SELECT COUNT(*) FROM decisions JOIN candidates USING (candidate_id) JOIN hypotheses USING (hypothesis_id)
        WHERE researcher = lane AND verdict = 'accept' AND stage = 'gate'),
       (SELECT COALESCE(SUM(attempts), 0) FROM plays WHERE researcher = lane)
FROM lanes ORDER BY kind, LENGTH(lane), lane
"""
NAMES = (
    "lane", "kind", "model", "state", "why", "proposals", "failures", "thought_minutes", "tokens", "usd", "accepted",
    "dev_trials",
)  # fmt: skip


def agents(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run, which may be running")],
    pause: Annotated[list[str], typer.Option(help="a lane that shall think no more for now")] = [],  # noqa: B006
    go: Annotated[list[str], typer.Option(help="a lane that may think again")] = [],  # noqa: B006
    stop: Annotated[list[str], typer.Option(help="a lane to be closed for good")] = [],  # noqa: B006
    add: Annotated[list[str], typer.Option(help="an agent to hire: NAME or NAME:COUNT")] = [],  # noqa: B006
    budget_usd: Annotated[float | None, typer.Option(min=0.0, help="the new one, for all lanes and all time")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="the new one, for all lanes and all time")] = None,
    agent_minutes: Annotated[
        float | None, typer.Option(min=0.0, help="the new one, for all lanes and all time")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the lanes as one JSON list")] = False,
) -> None:
    """Show the agents of a campaign, and tell it what to do with them.

    A running campaign obeys within a second or so and says so on its own screen; one that does not run obeys when it is
    resumed. Keys for agents that are added come from the environment of the campaign's process.

    Examples:

      enpire-coord campaign agents runs/2026-11-01-120000-seed1

      enpire-coord campaign agents runs/2026-11-01-120000-seed1 --pause codex-1 --add claude-code:2 --budget-usd 30
    """
    from coordinator.agents import orders

    wanted = [("pause", lane) for lane in pause] + [("go", lane) for lane in go] + [("stop", lane) for lane in stop]
    wanted += [(orders.ADD, name) for name in add]
    budgets = (("usd", budget_usd), ("tokens", budget_tokens), ("minutes", agent_minutes))
    wanted += [(what, str(amount)) for what, amount in budgets if amount is not None]
    with _refusals(), _opened(run_dir) as store:
        for what, about in wanted:
            orders.give(store, what, about)
        found = [dict(zip(NAMES, row, strict=True)) for row in store.rows(LANES)]
    if as_json:
        print(json.dumps(found))
        return
    for what, about in wanted:
        print(f"ordered: {what} {about}")
    _show(found)


def transcripts(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run")],
    grep: Annotated[str, typer.Option(help="only lines in which this stands, whatever its case")] = "",
    lane: Annotated[str, typer.Option(help="of one lane only")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print each line whole, as a JSON object")] = False,
) -> None:
    """Print what the agents of a campaign said and did, and what their tools answered.

    Examples:

      enpire-coord campaign transcripts runs/2026-11-01-120000-seed1 --grep push_speed

      enpire-coord campaign transcripts runs/2026-11-01-120000-seed1 --lane claude-code-1 --json
    """
    from coordinator.agents.transcripts import FOLDER, search

    if not (run_dir / FOLDER).is_dir():
        print(f"enpire-coord: no agent has said anything in {run_dir}", file=sys.stderr)
        raise typer.Exit(REFUSED)
    for line in search(run_dir, grep, lane):
        if as_json:
            print(json.dumps(vars(line)))
        else:
            print(f"{line.transcript}:{line.number} {line.kind}: {_excerpt(line.text, grep)}")


def _show(found: list[dict[str, Any]]) -> None:
    names = ("lane", "model", "state", "brought", "accepted", "failed", "tried", "minutes", "tokens", "dollars")
    table = Table(*names, box=None)
    for row in found:
        counts = (str(row["proposals"]), str(row["accepted"]), str(row["failures"]), str(row["dev_trials"]))
        costs = (f"{row['thought_minutes']:.1f}", str(row["tokens"]), f"{row['usd']:.2f}")
        table.add_row(row["lane"], row["model"], row["state"], *counts, *costs)
    if found:
        print_whole(table)
    else:
        print("no agent was asked in this run")
    for row in found:
        if row["why"]:
            print(f"{row['lane']} is {row['state']}: {row['why']}")


def _excerpt(text: str, word: str) -> str:
    """Return one printable line of a text, around the word."""
    flat = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    at = max(0, flat.casefold().find(word.casefold()) - LONGEST // 2)
    return flat[at : at + LONGEST]


@contextmanager
def _opened(run_dir: Path) -> Iterator[Store]:
    from coordinator.run_folder import CampaignRefused
    from coordinator.store import FILE, Store

    if not (run_dir / FILE).is_file():
        raise CampaignRefused(f"{run_dir} holds no {FILE}; give the folder of a run")
    store = Store(run_dir / FILE)
    try:
        yield store
    finally:
        store.leave()


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None
