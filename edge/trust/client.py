"""What a station may run, on whose word, and since when no longer: python-tuf with a memory that outlives its cache.

- python-tuf verifies; its cache in `metadata/` only saves fetching, and is verified anew each time. Nothing in it
  counts before the floor has been raised to it.
- A refresh that fails changes nothing: this object goes on with what it verified before.
- No answer is never a "no". What is refused is said as `Tampered`, with the reason.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge.records import EDGE_NAME
from edge.trust.bounded import METADATA_URL, TARGETS_URL, Bounded
from edge.trust.errors import ClockSuspect, NotGranted, Stale, Tampered, TrustError, Unreachable, told
from edge.trust.floor import FILE, Floor, mend_floor, read_floor, write_floor
from edge.trust.parts import REFRESH_S, go_on, longest_s
from edge.trust.rules import File, check_shape, check_target, check_time, marks, parse_revoked, top_level
from edge.wire.targets import (
    ASSIGNMENTS,
    CANDIDATES,
    NOT_FOUND,
    OVERRIDES,
    PROBES,
    RELEASED,
    REVOKED,
    REVOKED_LIST,
    ROOT,
    SHA256,
    SNAPSHOT,
    TARGETS,
    TASK,
    TIMESTAMP,
    TOP_LEVEL,
    WEIGHTS,
    bundle_path,
    order_path,
    override_path,
    weights_path,
)

__all__ = ["ClockSuspect", "Grant", "NotGranted", "Stale", "Tampered", "Trust", "TrustError", "Unreachable"]

CONFIG = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=8,
    root_max_length=64 << 10,
    timestamp_max_length=8 << 10,
    snapshot_max_length=64 << 10,
    targets_max_length=1 << 20,
)
ROOT_FILE, CACHE, BUNDLES = "root.json", "metadata", "bundles"
MOST_ORDER_BYTES, MOST_LIST_BYTES, MOST_BUNDLE_BYTES, MOST_WEIGHT_BYTES = 64 << 10, 1 << 20, 4 << 20, 8 << 30


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
    files: Mapping[str, File]
    refused: Mapping[str, TrustError]  # roles that python-tuf found too old, while others are not


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
        self._fetcher = Bounded(fetcher, folder, CONFIG.targets_max_length, monotonic)
        self._clock = clock
        self._verified: _Verified | None = None
        self._parsed: dict[str, File] = {}  # role -> its newest file
        self._small: dict[str, tuple[str, bytes]] = {}  # path -> sha256 and content of an order or a list

    def refresh(self) -> None:
        """Learn what the lab says now; one process at a time.

        Raises:
            Unreachable: no answer.
            Tampered: metadata that may not be believed; `Stale` where it is only too old.
            ClockSuspect: the clock cannot be right.
            TrustError: this station's own files cannot be used.
        """
        with self._locked(), told():
            floor = self._read_floor()
            if not floor.count:  # before anything is in the cache, so that a cut in between does not look like a loss
                floor = write_floor(self._copies[:1], floor)
            mend_floor(self._copies, floor)
            now_unix_s = self._clock()
            floor.check_clock(now_unix_s)
            self._fetcher.allow(REFRESH_S)
            if (known := self._unchanged()) is not None:
                self._believe(known, floor, now_unix_s)
                return
            try:
                self._believe(self._refreshed(), floor, now_unix_s)
            except Exception:
                self._forget()
                raise

    def grant(self, task: str, bundle: str) -> Grant:
        """Return on whose word a bundle may run: people's where they have released it.

        Raises:
            NotGranted: on nobody's.
            Tampered, ClockSuspect: what this station knows is too old, or its clock is wrong.
        """
        return self._granted(task, bundle)[0]

    def bundle(self, task: str, bundle: str) -> tuple[Grant, bytes]:
        """Return on whose word a bundle may run, and its verified bytes.

        Raises:
            NotGranted: on nobody's.
            Unreachable: no answer.
            Tampered: not the bytes that were signed; `Stale` where what this station knows is too old.
            ClockSuspect: the clock cannot be right.
        """
        grant, target = self._bundle_target(task, bundle)
        return grant, self._fetch(target, MOST_BUNDLE_BYTES)

    def more_of_bundle(self, task: str, bundle: str, into: Path, most: int, time_is_up: Callable[[], bool]) -> int:
        """Fetch some `most` more bytes of a bundle to `into`/<bundle>; as `more_weights`."""
        return self._more(self._bundle_target(task, bundle)[1], into / bundle, most, time_is_up)

    def weights(self, sha256: str, into: Path) -> Path:
        """Fetch a file of weights to `into`/<sha256> unless it is there, and return that.

        Raises: as `bundle`.
        """
        while self.more_weights(sha256, into, MOST_WEIGHT_BYTES):
            pass
        return into / sha256

    def weights_bytes(self, sha256: str) -> int:
        """Return how many bytes a file of weights has, as was signed.

        Raises: as `grant`.
        """
        return self._weights_target(sha256).length

    def more_weights(self, sha256: str, into: Path, most: int, time_is_up: Callable[[], bool] = lambda: False) -> int:
        """Fetch some `most` more bytes of a file of weights; return how many are missing then, 0 once it has its name.

        What has come lies beside it and is gone on from, also after a restart. Once `time_is_up` no more is waited for.

        Raises: as `bundle`.
        """
        return self._more(self._weights_target(sha256), into / sha256, most, time_is_up)

    def order(self, edge: str) -> bytes | None:
        """Return the JSON that tells `edge` what to run, None where there is none.

        Raises: as `bundle`.
        """
        if not EDGE_NAME.fullmatch(edge):
            raise NotGranted(f"{edge!r:.80} is not the name of an edge")
        target = self._target(ASSIGNMENTS, order_path(edge))
        return None if target is None else self._fetch_small(target, MOST_ORDER_BYTES)

    def revoked(self) -> Mapping[str, str]:
        """Return every bundle that was ever revoked, and whether it must stop "now" or by the "next-trial".

        Known without a network, and after a restart.

        Raises:
            Tampered: both copies of the floor are lost.
            TrustError: it cannot be read.
        """
        return self._read_floor().revoked

    def overridden(self, bundle: str) -> bool:
        """Return whether two people have let a bundle become active without the evidence of a canary.

        Raises: as `grant`, but for NotGranted.
        """
        try:
            return SHA256.fullmatch(bundle) is not None and self._target(OVERRIDES, override_path(bundle)) is not None
        except Stale:
            return False

    def _read_floor(self) -> Floor:
        """Return the floor; an empty one where this station has not trusted anything yet.

        Raises:
            Tampered: it has, and the floor is lost.
        """
        floor = read_floor(self._copies)
        if floor is not None:
            return floor
        used = [self._folder / CACHE / f"{TARGETS}.json", self._folder.parent / BUNDLES]
        if found := [path for path in used if path.is_file() or (path.is_dir() and any(path.iterdir()))]:
            raise Tampered(
                f"both copies of the version floor are lost ({', '.join(map(str, self._copies))}), so that an old "
                f"repository would be believed; look why, then move {' and '.join(map(str, found))} away to begin anew"
            )
        return Floor()

    def _unchanged(self) -> _Verified | None:
        """Return what is known already where the lab says the same: no newer root, and the very same timestamp."""
        if self._verified is None:
            return None
        timestamp, root = self._verified.files[TIMESTAMP][0], self._verified.files[ROOT][1]
        try:
            self._fetcher.download_bytes(f"{METADATA_URL}{root.version + 1}.{ROOT}.json", CONFIG.root_max_length)
        except DownloadHTTPError as error:
            if error.status_code != int(NOT_FOUND):
                raise
            url = f"{METADATA_URL}{TIMESTAMP}.json"
            if self._fetcher.download_bytes(url, CONFIG.timestamp_max_length) == timestamp:
                return self._verified
        return None

    def _refreshed(self) -> _Verified:
        updater = self._updater()
        updater.refresh()
        return self._examine(updater, _load_delegated(updater))

    def _believe(self, verified: _Verified, floor: Floor, now_unix_s: float) -> None:
        """Raise the floor to what was verified, and go on with it."""
        over = {**verified.refused, **check_time(_roles(verified), now_unix_s)}
        raised = floor.raised(marks(verified.files), self._revocations(verified, over), now_unix_s)
        if raised is not floor:
            write_floor(self._copies, raised)
        self._verified = verified

    def _forget(self) -> None:
        """Take out of the cache what may have come with something that was refused.

        Else python-tuf would hold the next answer against it: one timestamp of version 2,000,000,000 whose snapshot is
        refused would be the newest there ever was. What may not go back is for the floor to know.
        """
        for name in (TIMESTAMP, SNAPSHOT):
            (self._folder / CACHE / f"{name}.json").unlink(missing_ok=True)

    def _updater(self) -> Updater:
        cache, path = self._folder / CACHE, self._folder / ROOT_FILE
        cache.mkdir(exist_ok=True)
        try:
            root = path.read_bytes()
        except FileNotFoundError:
            raise TrustError(f"this station trusts nobody, as {path} is missing; enrol it: enpire-edge enrol") from None
        return Updater(str(cache), METADATA_URL, None, TARGETS_URL, self._fetcher, CONFIG, bootstrap=root)

    def _examine(self, updater: Updater, refused: Mapping[str, TrustError]) -> _Verified:
        """Return what python-tuf has verified, if it also keeps this lab's rules."""
        files = {name: self._read_role(name) for name in TOP_LEVEL}
        timestamp, signed = files[TIMESTAMP]
        if self._fetcher.newest[f"{METADATA_URL}{TIMESTAMP}.json"] != timestamp:
            raise Tampered(f"there are two timestamps of version {signed.version}; somebody signs two")
        _, _, targets = top_level(files)
        delegated = targets.delegations.roles if targets.delegations else None
        for name in PROBES:
            if name in (delegated or {}) and name not in refused:
                files[name] = self._read_role(name)
        check_shape(files)
        return _Verified(updater, files, refused)

    def _read_role(self, name: str) -> File:
        """Return a role from python-tuf's cache, where what it has just verified lies as it came."""
        data = (self._folder / CACHE / f"{name}.json").read_bytes()
        if name not in self._parsed or self._parsed[name][0] != data:
            self._parsed[name] = data, Metadata[Any].from_bytes(data).signed
        return self._parsed[name]

    def _revocations(self, verified: _Verified, over: Mapping[str, TrustError]) -> dict[str, str]:
        if REVOKED in over:
            raise over[REVOKED]
        target = verified.updater.get_targetinfo(REVOKED_LIST)
        if target is None:
            raise Tampered(f"the repository has no {REVOKED_LIST}, without which nothing can be stopped")
        return parse_revoked(self._fetch_small(target, MOST_LIST_BYTES))

    def _granted(self, task: str, bundle: str) -> tuple[Grant, TargetFile]:
        if not (TASK.fullmatch(task) and SHA256.fullmatch(bundle)):
            raise NotGranted(f"{bundle!r:.80} for {task!r:.80} is not the name of a bundle")
        why: TrustError = NotGranted(f"no role names bundle {bundle[:12]} for {task}")
        for role in (RELEASED, CANDIDATES):
            try:
                target = self._target(role, bundle_path(role, task, bundle))
            except Stale as error:
                why = error
                continue
            if target is not None:
                _, signed = self._current().files[role]
                return Grant(bundle, task, role, signed.expires.timestamp()), target
        raise why

    def _bundle_target(self, task: str, bundle: str) -> tuple[Grant, TargetFile]:
        grant, target = self._granted(task, bundle)
        check_target(target, MOST_BUNDLE_BYTES)
        if target.hashes["sha256"] != bundle:
            raise Tampered(f"{target.path} is signed for other bytes than its name says")
        return grant, target

    def _weights_target(self, sha256: str) -> TargetFile:
        target = self._target(WEIGHTS, weights_path(sha256)) if SHA256.fullmatch(sha256) else None
        if target is None or target.hashes.get("sha256") != sha256:
            raise NotGranted(f"no role names weights {sha256:.12}")
        check_target(target, MOST_WEIGHT_BYTES)
        return target

    def _target(self, role: str, path: str) -> TargetFile | None:
        verified = self._current()
        over = {**verified.refused, **check_time(_roles(verified), self._clock())}
        if role in over:
            raise over[role]
        with told():
            return verified.updater.get_targetinfo(path) if role in verified.files else None

    def _current(self) -> _Verified:
        """Return what was verified last."""
        if self._verified is None:
            self.refresh()
        assert self._verified is not None
        return self._verified

    def _more(self, target: TargetFile, final: Path, most: int, time_is_up: Callable[[], bool]) -> int:
        with self._locked(), told():
            return go_on(target, final, self._fetcher, most, time_is_up)

    def _fetch(self, target: TargetFile, most: int) -> bytes:
        check_target(target, most)
        with told():
            self._fetcher.allow(longest_s(target.length))
            url = f"{TARGETS_URL}{target.get_prefixed_paths()[0]}"
            data = self._fetcher.download_bytes(url, target.length)
            target.verify_length_and_hashes(data)
        return data

    def _fetch_small(self, target: TargetFile, most: int) -> bytes:
        check_target(target, most)
        sha256, data = self._small.get(target.path, ("", b""))
        if sha256 != target.hashes["sha256"]:
            data = self._fetch(target, most)
            self._small[target.path] = target.hashes["sha256"], data
        return data

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = open(self._folder / ".lock", "ab")  # noqa: SIM115
        except OSError as error:
            raise TrustError(f"cannot use {self._folder}: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _load_delegated(updater: Updater) -> dict[str, TrustError]:
    """Load every role; return those that are too old, without which a station may still use the others."""
    refused: dict[str, TrustError] = {}
    for role, path in PROBES.items():
        try:
            with told():
                updater.get_targetinfo(path)
        except Stale as error:
            refused[role] = error
    return refused


def _roles(verified: _Verified) -> dict[str, Any]:
    return {name: signed for name, (_, signed) in verified.files.items()}
