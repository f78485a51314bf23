"""The lab's TUF repository as both ends name it: its roles, the paths of what they vouch for, and how files travel."""

from __future__ import annotations

import re

TRUST = "trust"  # the topic under which an edge asks for a file of the repository
PIECE_BYTES = 32 << 10  # of a file in one answer: it comes within a question's time on the slowest link that is borne
MOST_PIECE_BYTES = 256 << 10  # that a station takes in one answer, of a coordinator of another version
NOT_FOUND = "404"  # the only answer that says that a file does not exist

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
TOP_LEVEL = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
RELEASED, CANDIDATES, WEIGHTS = "released", "candidates", "weights"
ASSIGNMENTS, REVOKED, OVERRIDES = "assignments", "revoked", "overrides"

REVOKED_LIST = "revoked/list.json"
NOW, NEXT_TRIAL = "now", "next-trial"  # when a revoked bundle must stop
SIGNED_AT = "signed_unix_s"  # in all metadata, so that a station knows how late it must be by now

FOLDER_OF = {RELEASED: "policies", CANDIDATES: "candidates"}
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
TASK = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)


def bundle_path(role: str, task: str, bundle: str) -> str:
    """Return the target path of a bundle that people have released, or that may only be tried."""
    return f"{FOLDER_OF[role]}/{task}/{bundle}.tar.zst"


def weights_path(sha256: str) -> str:
    """Return the target path of a file of weights."""
    return f"weights/{sha256}"


def order_path(edge: str) -> str:
    """Return the target path of what an edge is told to run."""
    return f"assign/{edge}.json"


def override_path(bundle: str) -> str:
    """Return the target path of the leave to skip a bundle's canary."""
    return f"overrides/{bundle}.json"


_PLACEHOLDER = "-"
# A path of each role, which python-tuf loads it by.
PROBES = {
    RELEASED: bundle_path(RELEASED, _PLACEHOLDER, _PLACEHOLDER),
    CANDIDATES: bundle_path(CANDIDATES, _PLACEHOLDER, _PLACEHOLDER),
    WEIGHTS: weights_path(_PLACEHOLDER),
    ASSIGNMENTS: order_path(_PLACEHOLDER),
    REVOKED: REVOKED_LIST,
    OVERRIDES: override_path(_PLACEHOLDER),
}
