"""What the journal says, as frozen records: a bundle's row, the standing line, an arrow that was taken."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from edge.activation.gates import Tested
from edge.records import RolloutOrder, order_from_json

NOTHING = Tested(True, "nothing yet", 0, 0.0, 0)


@dataclass(frozen=True)
class Row:
    """One bundle on this edge."""

    bundle: str
    task: str = ""
    role: str = ""  # "released" or "candidates", once verified
    expires_unix_s: float = 0.0
    state: str = "none"
    reason: str = ""
    since_unix_s: float = 0.0
    evidence: Mapping[str, Any] = field(default_factory=dict)  # gate -> what `Ruling.as_map` gives
    watched: Tested = NOTHING  # all that it did in the shadow
    plan: RolloutOrder | None = None  # the order that its canary or probation began under
    baseline: str = ""  # what its canary is compared with
    missing: bool = False
    stop: str = ""  # of a revoked one: "next-trial" or "now"
    denied: str = ""  # why, where this edge has put it on its own list


@dataclass(frozen=True)
class Line:
    """What the edge stands on."""

    active: str = ""
    last_good: str = ""
    floor: int = 0
    order: RolloutOrder | None = None
    closed: str = ""  # what came of an order to roll back
    begun_after: str | None = None  # the newest trial of the active one when it became so; None: not noted yet


@dataclass(frozen=True)
class Change:
    """One arrow that was taken."""

    bundle: str
    origin: str
    event: str
    target: str
    unix_s: float
    reason: str


COLUMNS = (
    "bundle, task, role, expires_unix_s, state, reason, since_unix_s, evidence, shadow_steps, shadow_p99_s,"
    " shadow_breaches, plan, baseline, missing, stop, COALESCE((SELECT why FROM denied WHERE denied.bundle ="
    " bundles.bundle), '')"
)


def read_row(db: sqlite3.Connection, bundle: str) -> Row:
    """Return the row of a bundle; of one that was never heard of, one in the state none."""
    found = db.execute(f"SELECT {COLUMNS} FROM bundles WHERE bundle = ?", (bundle,)).fetchone()
    return Row(bundle) if found is None else as_row(found)


@lru_cache(maxsize=16)
def read_order(text: str) -> RolloutOrder | None:
    """Return the order in a column, None where it is empty; read anew only where it has changed."""
    return order_from_json(text.encode()) if text else None


def as_row(found: tuple[Any, ...]) -> Row:
    """Return the record of one row of `COLUMNS`."""
    task, role, expires_unix_s, state, reason, since_unix_s, evidence, steps, p99_s, breaches = found[1:11]
    plan, baseline, missing, stop, denied = found[11:]
    return Row(
        found[0], task, role, expires_unix_s, state, reason, since_unix_s, json.loads(evidence),
        Tested(True, f"{steps} steps beside the active one", steps, p99_s, breaches),
        read_order(plan), baseline, bool(missing), stop, denied,
    )  # fmt: skip


def read_line(db: sqlite3.Connection) -> Line:
    """Return the standing line."""
    active, last_good, floor, standing, closed, begun_after = db.execute(
        "SELECT active, last_good, floor, standing, closed, begun_after FROM line"
    ).fetchone()
    return Line(active or "", last_good or "", floor, read_order(standing), closed, begun_after)
