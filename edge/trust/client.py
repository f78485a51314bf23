"""What a station may run, on whose word, and since when no longer: python-tuf with a memory that outlives its cache.

- python-tuf verifies; its cache in `metadata/` only saves fetching, and is verified anew each time. Nothing in it
  counts before the floor has been raised to it.
- A refresh that fails changes nothing: this object goes on with what it verified before.
- No answer is never a "no". What is refused is said as `Tampered`, with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import (
    DownloadError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge.records import EDGE_NAME
from edge.trust.bounded import Bounded
from edge.trust.errors import ClockSuspect, NotGranted, Stale, Tampered, TrustError, Unreachable
from edge.trust.floor import CLOCK_SLACK_S, FILE, NEXT_TRIAL, NOW, Floor, Mark, read_floor, sync_folder, write_floor

__all__ = ["ClockSuspect", "Grant", "NotGranted", "Stale", "Tampered", "Trust", "TrustError", "Unreachable"]

CONFIG = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=8,
    root_max_length=64 << 10,
    timestamp_max_length=8 << 10,
    snapshot_max_length=64 << 10,
    targets_max_length=1 << 20,
    app_user_agent="enpire",
)
METADATA, TARGETS, CACHE, BUNDLES = "metadata/", "targets/", "metadata", "bundles"
REFRESH_S = 20.0
LEAST_BYTES_PER_S = 16 << 10  # a target may take as long as at this rate, and REFRESH_S
MOST_BUNDLE_BYTES, MOST_ORDER_BYTES, MOST_LIST_BYTES = 4 << 20, 64 << 10, 1 << 20
MOST_WEIGHT_BYTES = 8 << 30
TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
RELEASED, CANDIDATES, WEIGHTS = "released", "candidates", "weights"
ASSIGNMENTS, REVOKED, OVERRIDES = "assignments", "revoked", "overrides"
REVOKED_LIST = "revoked/list.json"
# A path of each role, to load it by.
PROBES = {
    RELEASED: "policies/-/-",
    CANDIDATES: "candidates/-/-",
    WEIGHTS: "weights/-",
    ASSIGNMENTS: "assign/-",
    REVOKED: REVOKED_LIST,
    OVERRIDES: "overrides/-",
}
GRANTING = {RELEASED: "policies/{task}/{bundle}.tar.zst", CANDIDATES: "candidates/{task}/{bundle}.tar.zst"}
SIGNED_AT = "signed_unix_s"
LATEST_UNIX_S = 1 << 40
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
TASK = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Grant:
    """On whose word a bundle may run."""

    bundle: str
    task: str
    role: str  # "released", or "candidates": only in leased trials, with a reduced envelope
    expires_unix_s: float


@dataclass(frozen=True)
class _Verified:
    """What the newest good refresh has found."""

    updater: Updater
    roles: Mapping[str, Signed]
    refused: Mapping[str, TrustError]  # roles that cannot be used now, while others can


class Trust:
    """One station's trust in its lab."""

    def __init__(
        self,
        folder: Path,
        fetcher: FetcherInterface,
        clock: Callable[[], float] = time.time,
        *,
        second: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Believe the root in `folder`/root.json, and what it leads to through `fetcher`.

        `second` is where the other copy of the floor lies, best on another partition; beside `folder` without it.
        """
        self._folder = folder
        self._copies = (folder / FILE, (second or folder.parent) / FILE)
        self._fetcher = Bounded(fetcher, folder, monotonic)
        self._clock = clock
        self._verified: _Verified | None = None
        self._parsed: dict[str, tuple[bytes, Signed]] = {}  # role -> file and what it says
        self._files: dict[str, bytes] = {}  # sha256 -> small targets

    def refresh(self) -> None:
        """Learn what the lab says now; one process at a time.

        Raises:
            Unreachable: no answer.
            Tampered: metadata that may not be believed; `Stale` where it is only too old.
            ClockSuspect: the clock cannot be right.
            TrustError: this station's own files cannot be used.
        """
        with self._locked(), _told():
            floor = self._read_floor()
            now_unix_s = self._clock()
            floor.check_clock(now_unix_s)
            self._fetcher.allow(REFRESH_S)
            updater = self._updater()
            updater.refresh()
            verified = self._examine(updater, _load_delegated(updater), now_unix_s)
            listed = self._revocations(verified)
            raised = floor.raised(self._marks(verified), listed, now_unix_s)
            if raised is not floor:
                write_floor(self._copies, raised)
            self._verified = verified

    def grant(self, task: str, bundle: str) -> Grant:
        """Return on whose word a bundle may run: people's where they have released it.

        Raises:
            NotGranted: on nobody's.
            Tampered, ClockSuspect: what this station knows is too old, or its clock is.
        """
        return self._granted(task, bundle)[0]

    def bundle(self, task: str, bundle: str) -> tuple[Grant, bytes]:
        """Return a bundle that the lab names, and on whose word.

        Raises:
            NotGranted: nobody names it.
            Unreachable: no answer.
            Tampered: other bytes than were signed; or, as ClockSuspect, what this station knows is too old.
        """
        grant, target = self._granted(task, bundle)
        data = self._fetch(target, MOST_BUNDLE_BYTES)
        if hashlib.sha256(data).hexdigest() != bundle:
            raise Tampered(f"{target.path} is signed for other bytes than its name says")
        return grant, data

    def weights(self, sha256: str, into: Path) -> Path:
        """Fetch a file of weights to `into`/<sha256> unless it is there, and return that; whole or not at all.

        Raises: as `bundle`.
        """
        final = into / sha256
        if not SHA256.fullmatch(sha256):
            raise NotGranted(f"{sha256!r:.80} is not a sha256")
        target = self._target(WEIGHTS, f"weights/{sha256}")
        if target is None or target.hashes.get("sha256") != sha256:
            raise NotGranted(f"no role names weights {sha256[:12]}")
        with self._locked(), _told():
            into.mkdir(parents=True, exist_ok=True)
            if final.exists():
                with open(final, "rb") as file:
                    target.verify_length_and_hashes(file)
                return final
            _check_length(target, MOST_WEIGHT_BYTES)
            self._fetcher.allow(REFRESH_S + target.length / LEAST_BYTES_PER_S)
            unfinished = into / f".{sha256}"
            self._current().updater.download_target(target, str(unfinished))
            with open(unfinished, "rb") as file:
                target.verify_length_and_hashes(file)
                os.fsync(file.fileno())
            unfinished.replace(final)
            sync_folder(into)
        return final

    def order(self, edge: str) -> bytes | None:
        """Return the JSON that tells `edge` what to run, None where there is none.

        Raises: as `bundle`.
        """
        if not EDGE_NAME.fullmatch(edge):
            raise NotGranted(f"{edge!r:.80} is not the name of an edge")
        target = self._target(ASSIGNMENTS, f"assign/{edge}.json")
        return None if target is None else self._fetch_small(target, MOST_ORDER_BYTES)

    def revoked(self) -> Mapping[str, str]:
        """Return every bundle that was ever revoked, and whether it must stop "now" or by the "next-trial".

        Known without a network, and after a restart.
        """
        floor = read_floor(self._copies)
        return {} if floor is None else floor.revoked

    def overridden(self, bundle: str) -> bool:
        """Return whether two people have let a bundle become active without the evidence of a canary."""
        if not SHA256.fullmatch(bundle):
            return False
        try:
            return self._target(OVERRIDES, f"overrides/{bundle}.json") is not None
        except Stale:
            return False

    def _updater(self) -> Updater:
        cache = self._folder / CACHE
        cache.mkdir(exist_ok=True)
        path = self._folder / "root.json"
        try:
            root = path.read_bytes()
        except FileNotFoundError:
            raise TrustError(
                f"this station trusts nobody yet ({path} is missing); enrol it: enpire-edge enrol"
            ) from None
        return Updater(str(cache), METADATA, None, TARGETS, self._fetcher, CONFIG, bootstrap=root)

    def _read_floor(self) -> Floor:
        floor = read_floor(self._copies)
        if floor is not None:
            return floor
        used = [self._folder / CACHE / "timestamp.json", self._folder.parent / BUNDLES]
        if found := [path for path in used if path.is_file() or (path.is_dir() and any(path.iterdir()))]:
            raise Tampered(
                f"both copies of the version floor are lost ({', '.join(map(str, self._copies))}), so that an old "
                f"repository would be believed; look why, then move {found[0]} away to begin anew"
            )
        # Before anything is in the cache, so that a cut between the two does not look like a loss.
        return write_floor(self._copies, Floor())

    def _examine(self, updater: Updater, refused: dict[str, TrustError], now_unix_s: float) -> _Verified:
        """Return what python-tuf has verified, after the rules of this lab that it does not know."""
        roles = {name: self._read_role(name) for name in TOP_LEVEL}
        if self._fetcher.newest[f"{METADATA}timestamp.json"] != self._parsed["timestamp"][0]:
            raise Tampered(f"two timestamps of version {roles['timestamp'].version}; somebody signs two")
        targets, snapshot = roles["targets"], roles["snapshot"]
        assert isinstance(targets, Targets)
        assert isinstance(snapshot, Snapshot)
        if targets.targets:
            raise Tampered("the role targets names files, which only the roles under it may")
        for name in _delegated(targets):
            if name in refused:
                continue
            roles[name] = self._read_role(name)
            if (listed := snapshot.meta.get(f"{name}.json")) is None:
                raise Tampered(f"the snapshot does not name {name}")
            listed.verify_length_and_hashes(self._parsed[name][0])
            if roles[name].delegations is not None:
                raise Tampered(f"the role {name} lets others sign in its place, which none may")
        _check_time(roles, refused, now_unix_s)
        return _Verified(updater, roles, refused)

    def _read_role(self, name: str) -> Any:
        data = (self._folder / CACHE / f"{name}.json").read_bytes()
        if name not in self._parsed or self._parsed[name][0] != data:
            signed: Signed = Metadata[Any].from_bytes(data).signed
            self._parsed[name] = data, signed
        return self._parsed[name][1]

    def _marks(self, verified: _Verified) -> dict[str, Mark]:
        root, targets = verified.roles["root"], verified.roles["targets"]
        assert isinstance(root, Root)
        assert isinstance(targets, Targets)
        marks = {}
        for name, signed in verified.roles.items():
            rule = (root if name in TOP_LEVEL else targets).get_delegated_role(name)
            who = json.dumps([rule.threshold, sorted(rule.keyids)]).encode()
            sha256 = hashlib.sha256(self._parsed[name][0]).hexdigest()
            marks[name] = Mark(signed.version, sha256, hashlib.sha256(who).hexdigest()[:16])
        return marks

    def _revocations(self, verified: _Verified) -> dict[str, str]:
        if REVOKED in verified.refused:
            raise verified.refused[REVOKED]
        target = verified.updater.get_targetinfo(REVOKED_LIST) if REVOKED in verified.roles else None
        if target is None:
            raise Tampered(f"the repository has no {REVOKED_LIST}, without which nothing can be stopped")
        try:
            bundles = json.loads(self._fetch_small(target, MOST_LIST_BYTES))["bundles"]
            if all(SHA256.fullmatch(bundle) and when in (NOW, NEXT_TRIAL) for bundle, when in bundles.items()):
                return dict(bundles)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            pass
        raise Tampered(f"{REVOKED_LIST} is not a list of bundles")

    def _granted(self, task: str, bundle: str) -> tuple[Grant, TargetFile]:
        if not (TASK.fullmatch(task) and SHA256.fullmatch(bundle)):
            raise NotGranted(f"{bundle!r:.80} for {task!r:.80} is not the name of a bundle")
        why: TrustError = NotGranted(f"no role names bundle {bundle[:12]} for {task}")
        for role, pattern in GRANTING.items():
            try:
                target = self._target(role, pattern.format(task=task, bundle=bundle))
            except Stale as error:
                why = error
                continue
            if target is not None:
                expires_unix_s = self._current().roles[role].expires.timestamp()
                return Grant(bundle, task, role, expires_unix_s), target
        raise why

    def _target(self, role: str, path: str) -> TargetFile | None:
        verified = self._current()
        if role in verified.refused:
            raise verified.refused[role]
        if role not in verified.roles:
            return None
        with _told():
            return verified.updater.get_targetinfo(path)

    def _current(self) -> _Verified:
        """Return what was verified, if it may still be believed."""
        if self._verified is None:
            self.refresh()
        assert self._verified is not None
        now_unix_s = self._clock()
        floor = read_floor(self._copies)
        if floor is not None:
            floor.check_clock(now_unix_s)
        _check_time(self._verified.roles, {}, now_unix_s)
        return self._verified

    def _fetch(self, target: TargetFile, most: int) -> bytes:
        with _told():
            _check_length(target, most)
            self._fetcher.allow(REFRESH_S + target.length / LEAST_BYTES_PER_S)
            [path] = target.get_prefixed_paths()
            data = self._fetcher.download_bytes(f"{TARGETS}{path}", target.length)
            target.verify_length_and_hashes(data)
        return data

    def _fetch_small(self, target: TargetFile, most: int) -> bytes:
        sha256 = target.hashes["sha256"]
        if sha256 not in self._files:
            self._files[sha256] = self._fetch(target, most)
        return self._files[sha256]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = open(self._folder / ".lock", "ab")  # noqa: SIM115
        except OSError as error:
            raise TrustError(f"cannot use {self._folder}: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _load_delegated(updater: Updater) -> dict[str, TrustError]:
    """Load every role; return those that are too old, of which the caller may still use others."""
    refused: dict[str, TrustError] = {}
    for role, path in PROBES.items():
        try:
            updater.get_targetinfo(path)
        except ExpiredMetadataError as error:
            refused[role] = Stale(f"{error}; sign it anew: enpire-coord keys renew")
    return refused


def _delegated(targets: Targets) -> list[str]:
    roles = targets.delegations.roles if targets.delegations else None
    return [name for name in roles or {} if name in PROBES]


def _check_time(roles: Mapping[str, Signed], refused: dict[str, TrustError], now_unix_s: float) -> None:
    """Note in `refused` the roles whose time is over by this station's clock.

    Raises:
        ClockSuspect: something was signed later than it is now.
        Stale: without this role, nothing can be believed.
    """
    now = datetime.fromtimestamp(now_unix_s, UTC)
    signed_at = max(_signed_at(name, role) for name, role in roles.items())
    if not now_unix_s >= signed_at - CLOCK_SLACK_S:
        raise ClockSuspect(f"the clock is {signed_at - now_unix_s:.0f} s behind what was signed already; set it right")
    for name, role in roles.items():
        if role.is_expired(now):
            over = Stale(f"{name} was good until {role.expires:%Y-%m-%d %H:%M} UTC; is the clock right, who renews it?")
            if name in TOP_LEVEL:
                raise over
            refused[name] = over


def _signed_at(name: str, role: Signed) -> int:
    at = role.unrecognized_fields.get(SIGNED_AT)
    if not (isinstance(at, int) and 0 <= at <= LATEST_UNIX_S):
        raise Tampered(f"{name} does not say when it was signed")
    return at


def _check_length(target: TargetFile, most: int) -> None:
    if not target.length <= most:
        raise Tampered(f"{target.path} has {target.length} bytes; at most {most} are allowed")


@contextmanager
def _told() -> Iterator[None]:
    """Say in this package's words why python-tuf refuses."""
    try:
        yield
    except TrustError:
        raise
    except ExpiredMetadataError as error:
        raise Stale(f"{error}; is the clock right, and does the coordinator run?") from error
    except (RepositoryError, DownloadLengthMismatchError, LengthOrHashMismatchError) as error:
        raise Tampered(_line(error)) from error
    except DownloadError as error:
        raise Unreachable(_line(error)) from error
    except OSError as error:
        raise TrustError(f"cannot use {error.filename}: {error.strerror}") from error


def _line(error: Exception) -> str:
    """Return one line with the first cause: python-tuf's own message may only say that something failed."""
    cause = error.__cause__
    return " ".join(f"{error} ({cause})".split() if cause else str(error).split())[:300]
