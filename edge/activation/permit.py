"""Whether a bundle may run an attempt now, and within which envelope."""

from __future__ import annotations

from dataclasses import dataclass

from edge.activation.rows import Line, Row
from edge.activation.table import GONE, UNKNOWN
from edge.records import CANARY, PROBATION


@dataclass(frozen=True)
class Permit:
    """Whether an attempt may begin."""

    allowed: bool
    why: str  # one sentence
    full_envelope: bool  # as wide as site, arm and bundle allow; else the reduced one


def permit(row: Row, line: Line, purpose: str, now_unix_s: float) -> Permit:
    """Say whether a bundle may run an attempt with a purpose.

    - The active and the last good one go on when their release expires: an edge that reaches nobody keeps its policy,
      and lives on leases that end by themselves.
    - Both sides of a canary run within the reduced envelope, as they are compared.
    """
    standing = row.bundle != "" and row.bundle in (line.active, line.last_good)
    if row.denied or row.state in GONE:
        return Permit(False, f"{row.state}: {row.denied or row.reason}", False)
    if row.role == "" or (row.state in UNKNOWN and not standing):
        return Permit(False, f"{row.state}: nobody has verified it here", False)
    if row.missing:
        return Permit(False, "its files are gone or damaged, and are fetched anew", False)
    if not (standing or now_unix_s < row.expires_unix_s):
        return Permit(False, f"what {row.role} signed has expired", False)
    if purpose == CANARY:
        takes_part = row.state == "canary" or row.bundle == line.active
        return Permit(takes_part, "a side of the canary" if takes_part else f"{row.state}: its canary is over", False)
    if purpose == PROBATION and row.state != "probation":
        return Permit(False, f"{row.state}: its probation is over", False)
    full = row.role == "released" and (standing or row.state == "probation")
    return Permit(True, f"{row.state}, signed by {row.role}", full)
