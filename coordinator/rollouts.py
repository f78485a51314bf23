"""What a station says about the policies that come into force on it.

It is said twice a second and kept when it has changed. What makes no sense is passed over, as the next status comes
soon; nothing is decided by it here: every station passes its own gates.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.records import MOST_NUMBER

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# As edge.activation.table has them, and `denied`: on the station's own list of what may never run there again.
STATES = (
    "none", "offered", "fetched", "verified", "staged", "shadow", "canary", "probation", "active", "superseded",
    "rolled_back", "revoked", "rejected", "denied",
)  # fmt: skip
ON_THE_WAY = ("none", "offered", "fetched", "verified", "staged", "shadow", "canary", "probation")
STAGES = ("shadow", "canary", "active")
ENDED = ("rolled_back", "revoked", "rejected", "denied")
FOR_GOOD = ("revoked", "rejected", "denied")  # no order brings it back
MOST_BUNDLES, MOST_GATES_BYTES, MOST_REASON = 8, 16 << 10, 400


@dataclass(frozen=True)
class Rollout:
    """One policy on one station."""

    edge: str
    bundle: str
    number: int  # of the order that the station follows
    state: str  # one of STATES
    reason: str
    gates: str  # JSON object
    since_unix_s: float

    @property
    def rulings(self) -> Mapping[str, Any]:
        """What each gate said last."""
        return dict(json.loads(self.gates))


def read_rollouts(edge: str, said: Any) -> list[Rollout]:
    """Return what a station's status says of its policies; empty where it says nothing that makes sense."""
    match said:
        case {"number": int(number), "bundles": [*bundles]} if (
            len(bundles) <= MOST_BUNDLES and 0 <= number <= MOST_NUMBER
        ):
            read = [_read(edge, number, item) for item in bundles]
            return [item for item in read if item is not None]
    return []


def reached(state: str, stage: str) -> bool:
    """Return whether a policy in `state` has come as far as an order up to `stage` lets it."""
    wanted = {"shadow": "shadow", "canary": "canary", "active": "active"}[stage]
    return state in STATES and STATES.index(wanted) <= STATES.index(state) <= STATES.index("active")


def _read(edge: str, number: int, item: Any) -> Rollout | None:
    match item:
        case {
            "bundle": str(bundle), "state": str(state), "reason": str(reason), "gates": str(gates),
            "since_unix_s": float(since_unix_s),
        } if SHA256.fullmatch(bundle) and state in STATES and len(gates) <= MOST_GATES_BYTES:  # fmt: skip
            if not math.isfinite(since_unix_s):
                return None
        case _:
            return None
    try:
        if not isinstance(json.loads(gates), dict):
            return None
    except (ValueError, RecursionError):
        return None
    return Rollout(edge, bundle, number, state, reason[:MOST_REASON], gates, since_unix_s)
