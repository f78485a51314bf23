"""Shows each station on its way with a policy, from the run's database, until all have come through or gone back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from coordinator.errors import CoordinatorError
from coordinator.rollouts import ENDED, FOR_GOOD, Rollout, reached
from coordinator.store import FILE

if TYPE_CHECKING:
    from coordinator.publish.push import Pushed

LOOK_S = 0.25
# The gate that a policy in this state is at.
GATE_OF = {
    "verified": "self-test", "staged": "self-test", "shadow": "shadow", "canary": "canary", "probation": "probation",
    "active": "probation",
}  # fmt: skip
WAITING = "has not said anything yet"


@dataclass(frozen=True)
class Seen:
    """How far a policy has come on one station."""

    state: str
    reason: str
    gates: Mapping[str, Any]
    ended: bool  # it goes no further under this order
    good: bool  # it has come as far as was ordered


class WatchFailed(CoordinatorError):
    """The database of the run cannot be read."""


def follow(run: Path, done: Pushed, timeout_s: float, console: Console) -> dict[str, Seen]:
    """Show the stations until all have ended, or for so long; return how far each has come.

    Raises:
        WatchFailed: the database cannot be read.
    """
    until_s = time.monotonic() + timeout_s if timeout_s else float("inf")
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        while True:
            seen = look(run, done)
            live.update(table(done, seen))
            if all(item.ended for item in seen.values()) or time.monotonic() >= until_s:
                return seen
            time.sleep(LOOK_S)


def look(run: Path, done: Pushed) -> dict[str, Seen]:
    """Return how far the policy has come on each station.

    Raises:
        WatchFailed: the database cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"file:{run / FILE}?mode=ro", uri=True)) as db:
            rows = db.execute(
                "SELECT edge, bundle, number, state, reason, gates, since_unix_s FROM rollouts WHERE bundle = ?",
                (done.bundle,),
            ).fetchall()
    except sqlite3.Error as error:
        raise WatchFailed(f"cannot read {run / FILE}: {error}") from error
    said = {row[0]: Rollout(*row) for row in rows}
    return {edge: _seen(done, edge, said.get(edge)) for edge in done.edges}


def table(done: Pushed, seen: Mapping[str, Seen]) -> Table:
    """Return the stations as a table: where each is, and its gate's values beside their thresholds."""
    made = Table(title=f"{done.bundle[:12]} up to {done.stage}", title_justify="left", box=None, pad_edge=False)
    for name in ("station", "state", "gate"):
        made.add_column(name, overflow="fold")
    for edge, item in seen.items():
        made.add_row(edge, item.state, describe(item) or item.reason)
    return made


def said(item: Seen) -> str:
    """Return what a station says about the stage that a policy is in: its gate's sentence, else why it is there."""
    ruling = item.gates.get(GATE_OF.get(item.state, ""))
    note = str(ruling.get("note", "")) if isinstance(ruling, dict) and item.state not in ENDED else ""
    values = describe(item)
    return f"{note} ({values})" if note and values and note != values else note or item.reason


def describe(item: Seen) -> str:
    """Return the values of the gate that a policy is at, each beside its threshold; empty where it is at none."""
    ruling = item.gates.get(GATE_OF.get(item.state, ""))
    if item.state in ENDED or not isinstance(ruling, dict):
        return ""
    return ", ".join(map(_gauge, ruling.get("gauges", ()))) or str(ruling.get("note", ""))


def _seen(done: Pushed, edge: str, said: Rollout | None) -> Seen:
    if said is not None and said.state in FOR_GOOD:
        return Seen(said.state, said.reason, said.rulings, True, False)
    if said is None or said.number < done.numbers[edge]:
        return Seen("ordered", WAITING, {}, False, False)
    if said.number > done.numbers[edge]:
        return Seen(said.state, f"order {said.number} came after this one", said.rulings, True, False)
    good = reached(said.state, done.stage)
    # A stage that was ordered as the last one ends when its gate has passed, or when the station goes back.
    gate = said.rulings.get(done.stage, {})
    through = good and (done.stage == "active" or said.state != done.stage or gate.get("call") == "pass")
    return Seen(said.state, said.reason, said.rulings, through or said.state in ENDED, good)


def _gauge(raw: Mapping[str, Any]) -> str:
    mark = "+" if raw.get("holds") else "-"
    return f"{mark} {raw.get('name')} {_short(raw.get('value'))} ({raw.get('rule')} {_short(raw.get('threshold'))})"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
