"""What a station says about the policies that come into force on it: a part of its status."""

from __future__ import annotations

import json
from typing import Any

from edge.activation.journal import Journal


def describe(journal: Journal) -> dict[str, Any]:
    """Return the number of the newest order, and the state of what it names, of the active one and of the newcomer.

    What this station has put on its own list of what may never run here again is said to be denied.
    """
    line, newcomer = journal.line(), journal.newcomer()
    ordered = "" if line.order is None else line.order.bundle
    names = dict.fromkeys([ordered, line.active, line.last_good, newcomer.bundle if newcomer else ""])
    rows = [journal.row(name) for name in names if name]
    bundles = [
        {
            "bundle": row.bundle,
            "state": "denied" if row.denied else row.state,
            "reason": row.denied or row.reason,
            "gates": json.dumps(row.evidence),
            "since_unix_s": row.since_unix_s,
        }
        for row in rows
    ]
    return {"number": line.floor, "bundles": bundles}
