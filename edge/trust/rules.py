"""This lab's own rules about verified metadata, which python-tuf does not know: pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from tuf.api.metadata import Root, Signed, Snapshot, TargetFile, Targets

from edge.trust.errors import ClockSuspect, Stale, Tampered, TrustError
from edge.trust.floor import CLOCK_SLACK_S, Mark
from edge.wire.targets import NEXT_TRIAL, NOW, REVOKED_LIST, ROOT, SHA256, SIGNED_AT, SNAPSHOT, TARGETS, TOP_LEVEL

LATEST_UNIX_S = 1 << 40
File = tuple[bytes, Signed]  # of a role: its bytes and what they say


def top_level(files: Mapping[str, File]) -> tuple[Root, Snapshot, Targets]:
    """Return root, snapshot and targets."""
    root, snapshot, targets = (files[name][1] for name in (ROOT, SNAPSHOT, TARGETS))
    assert isinstance(root, Root)
    assert isinstance(snapshot, Snapshot)
    assert isinstance(targets, Targets)
    return root, snapshot, targets


def check_shape(files: Mapping[str, File]) -> None:
    """Raise unless files are named by the delegated roles alone, each whole and signed by whom targets says.

    Raises:
        Tampered: targets names files, a role delegates further, or the snapshot names another version of it.
    """
    _, snapshot, targets = top_level(files)
    if targets.targets:
        raise Tampered("the role targets names files, which only the roles under it may")
    for name in files.keys() - set(TOP_LEVEL):
        data, signed = files[name]
        listed = snapshot.meta.get(f"{name}.json")
        if listed is None or listed.version != signed.version:
            raise Tampered(f"the snapshot names another version of {name}")
        listed.verify_length_and_hashes(data)
        if isinstance(signed, Targets) and signed.delegations is not None:
            raise Tampered(f"the role {name} lets others sign in its place, which none may")


def marks(files: Mapping[str, File]) -> dict[str, Mark]:
    """Return what the floor keeps of each role."""
    root, _, targets = top_level(files)
    found = {}
    for name, (data, signed) in files.items():
        rule = (root if name in TOP_LEVEL else targets).get_delegated_role(name)
        who = json.dumps([rule.threshold, sorted(rule.keyids)]).encode()
        found[name] = Mark(signed.version, hashlib.sha256(data).hexdigest(), hashlib.sha256(who).hexdigest()[:16])
    return found


def check_time(roles: Mapping[str, Signed], now_unix_s: float) -> dict[str, TrustError]:
    """Return the delegated roles whose time is over, each with why.

    Raises:
        ClockSuspect: something was signed later than it is now.
        Stale: the time of a role is over without which nothing can be believed.
    """
    signed_at = max(_signed_at(name, role) for name, role in roles.items())
    if not now_unix_s >= signed_at - CLOCK_SLACK_S:
        raise ClockSuspect(f"the clock is {signed_at - now_unix_s:.0f} s behind what was signed already; set it right")
    now = datetime.fromtimestamp(now_unix_s, UTC)
    over = {name: _stale(name, role) for name, role in roles.items() if role.is_expired(now)}
    for name in TOP_LEVEL:
        if name in over:
            raise over[name]
    return over


def parse_revoked(data: bytes) -> dict[str, str]:
    """Return every bundle in the list of the revoked ones, and when it must stop.

    Raises:
        Tampered: not such a list.
    """
    try:
        bundles = json.loads(data)["bundles"]
        if all(SHA256.fullmatch(bundle) and when in (NOW, NEXT_TRIAL) for bundle, when in bundles.items()):
            return dict(bundles)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pass
    raise Tampered(f"{REVOKED_LIST} is not a list of bundles")


def check_target(target: TargetFile, most: int) -> None:
    """Raise unless a target is named by its sha256 and has at most `most` bytes.

    Raises:
        Tampered: it is not.
    """
    if "sha256" not in target.hashes or not target.length <= most:
        raise Tampered(f"{target.path} of {target.length} bytes is not named by a sha256 and at most {most} bytes")


def _stale(name: str, role: Signed) -> TrustError:
    return Stale(f"{name} was good until {role.expires:%Y-%m-%d %H:%M} UTC; is the clock right, and who signs it anew?")


def _signed_at(name: str, role: Signed) -> int:
    at = role.unrecognized_fields.get(SIGNED_AT)
    if not (isinstance(at, int) and 0 <= at <= LATEST_UNIX_S):
        raise Tampered(f"{name} does not say when it was signed")
    return at
