"""Brings down what a station may run: signed metadata, the order that stands for it, and bundles.

- Whether a bundle may run is the lab's to say, in signed metadata; the coordinator only carries it.
- A bundle counts as here once it was verified, unpacked and noted in the activation journal, in this order.
- With the lab out of reach everything stays as it was: what was verified before may run until its signature expires.
- Weights come in parts, for a moment in each turn, so that trials and orders do not wait for them; a cut loses nothing.
- A bundle that is not what it should be is noted as rejected, and never asked for again. Bytes that are another's, as
  they were altered on the way, say nothing about it: it is asked for again after a while.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from edge.activation.journal import ArrowRefused, Journal, OrderRefused
from edge.records import RecordError, order_from_json
from edge.trust.client import Grant, NotGranted, Stale, Tampered, Trust, TrustError, Unreachable
from edge.trust.parts import arrived
from edge.uplink.settings import Settings, UplinkError
from policies.bundle import Bundle, BundleError, BundleMalformed, open_bundle, unpack
from policies.space import Weight

LOG = logging.getLogger("edge.uplink")
REFRESH_EVERY_S = 1.0
BUNDLES_KEPT = 64  # as many candidates as a lab names at a time
UNUSED_S = 86_400.0  # after which weights that no bundle links to go
WEIGHTS_PART_BYTES = 1 << 20
WEIGHTS_WITHIN_S = 0.2  # in each turn: nothing else is sent or heard while they come
FREE_SHARE = 0.05  # of the disk, below which a station begins no trial (edge.disk)
AFTER_TAMPERED_S = 30.0
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class NotSupplied(UplinkError):
    """A bundle that cannot be had; one line that says why."""


class StillComing(NotSupplied):
    """A bundle that waits for its weights, which are on their way."""


def free_and_total_mb(folder: Path) -> tuple[float, float]:
    """Return what is free of the disk that holds a folder and how large that is, as its user sees it."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize / 1e6, (disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize / 1e6


class Supply:
    """One station's supply."""

    def __init__(
        self,
        settings: Settings,
        trust: Trust,
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
        *,
        weights_within_s: float = WEIGHTS_WITHIN_S,
        space: Callable[[Path], tuple[float, float]] = free_and_total_mb,
    ) -> None:
        """Bring what `trust` grants into the station's folder, and note it in `journal`.

        When to ask goes by `clock`, in seconds from anywhere; whether a signature still holds, by the journal's.
        Each turn fetches parts of weights for `weights_within_s`, one part at least.
        """
        self._settings, self._trust, self._journal, self._clock = settings, trust, journal, clock
        self._weights_within_s, self._space = weights_within_s, space
        self._refresh_at_s = float("-inf")
        self._whole: dict[str, Bundle] = {}  # bundles that wait for their weights
        self._coming: dict[str, str] = {}  # bundles whose weights are on their way -> task
        self._order = b""  # the newest that was looked at
        self._tampered: dict[str, tuple[float, str]] = {}  # bundle -> when to ask again, by the clock, and why not now
        self.refusal = ""  # the newest thing that was refused, for the status

    def turn(self) -> None:
        """Learn what the lab says, where that is due, and follow it.

        Raises:
            Unreachable: no answer; nothing has changed.
            ActivationError: the journal cannot be written.
        """
        if self._clock() < self._refresh_at_s:
            self._go_on()
            return
        self._refresh_at_s = self._clock() + REFRESH_EVERY_S
        try:
            try:
                self._trust.refresh()
            finally:  # what was once revoked is known without an answer
                self._take_back()
            self._take_order()
        except Unreachable:
            raise
        except TrustError as error:
            self._refuse(str(error))
        for bundle, task in self._journal.wanted().items():
            try:
                self._have(task, bundle)
            except NotSupplied as error:
                self._refuse(str(error))

    def _go_on(self) -> None:
        """Fetch more of the weights that a bundle waits for."""
        for bundle, task in list(self._coming.items())[:1]:
            try:
                self._have(task, bundle)
                del self._coming[bundle]
            except StillComing as error:
                self._refuse(str(error))
            except NotSupplied as error:
                del self._coming[bundle]
                self._refuse(str(error))

    def bring(self, bundle: str) -> None:
        """Have a bundle here, verified and unpacked.

        Raises:
            NotSupplied: it may not run here, or is not what it should be.
            Unreachable: no answer; it can be tried again.
            ActivationError: the journal cannot be written.
        """
        if not SHA256.fullmatch(bundle):
            raise NotSupplied(f"{bundle!r:.80} is not the name of a bundle")
        self._have(self._settings.task, bundle)

    # -----------------------------------------------------------------------------------------------------------------

    def _have(self, task: str, bundle: str) -> None:
        row = self._journal.row(bundle)
        if row.state in ("rejected", "revoked") or row.denied:
            raise NotSupplied(f"bundle {bundle[:12]} is {row.state}: {row.denied or row.reason}")
        here = bool(row.role) and not row.missing and (self._settings.bundles / bundle).is_dir()
        try:
            grant = self._grant(task, bundle)
            if not here:
                self._fetch(task, bundle)
            self._journal.verified(bundle, grant.role, grant.expires_unix_s, task)
        except StillComing:
            self._coming[bundle] = task
            raise
        except Unreachable:
            if not (here and self._journal.clock() < row.expires_unix_s):
                raise
        except (TrustError, BundleError, ArrowRefused) as error:
            raise NotSupplied(f"bundle {bundle[:12]}: {error}") from error

    def _grant(self, task: str, bundle: str) -> Grant:
        """Return on whose word a bundle may run, asking the lab where nothing that is known here names it."""
        try:
            return self._trust.grant(task, bundle)
        except (NotGranted, Stale):
            self._trust.refresh()
            return self._trust.grant(task, bundle)

    def _fetch(self, task: str, bundle: str) -> None:
        opened = self._whole.get(bundle) or self._open(task, bundle)
        self._whole[bundle] = opened  # should its weights not come at once
        self._check_room(opened)
        for weight in opened.manifest.weights.values():
            self._fetch_weights(opened, weight)
        # What lies there was never verified, or is damaged; `unpack` would leave it.
        shutil.rmtree(self._settings.bundles / bundle, ignore_errors=True)
        unpack(opened, self._settings.bundles, self._settings.weights)
        del self._whole[bundle]

    def _fetch_weights(self, opened: Bundle, weight: Weight) -> None:
        """Have a file of weights here, or some more of it.

        Raises:
            StillComing: it is not whole yet.
        """
        again_s, why = self._tampered.get(weight.sha256, (float("-inf"), ""))
        if self._clock() < again_s:
            raise Tampered(why)
        until_s = self._clock() + self._weights_within_s
        try:
            while missing := self._trust.more_weights(weight.sha256, self._settings.weights, WEIGHTS_PART_BYTES):
                if not self._clock() < until_s:
                    share = 1.0 - missing / weight.size_bytes
                    raise StillComing(
                        f"bundle {opened.id[:12]} waits for its weights: {math.floor(10 * share)} tenths of "
                        f"{weight.size_bytes / 1e6:.1f} MB are here"
                    )
        except Tampered as error:
            self._tampered[weight.sha256] = self._clock() + AFTER_TAMPERED_S, str(error)
            raise

    def _check_room(self, opened: Bundle) -> None:
        """Raise NotSupplied where what is missing of its weights would take what trials need of the disk."""
        weights = opened.manifest.weights.values()
        folder = self._settings.weights
        missing_mb = sum(max(item.size_bytes - arrived(folder / item.sha256), 0) for item in weights) / 1e6
        if not missing_mb:
            return
        free_mb, total_mb = self._space(self._settings.folder)
        room_mb = free_mb - max(self._settings.reserve_mb, FREE_SHARE * min(total_mb, self._settings.disk_mb))
        if not missing_mb <= room_mb:
            raise NotSupplied(
                f"bundle {opened.id[:12]} needs {missing_mb:.1f} MB more for weights, and the disk has "
                f"{max(room_mb, 0.0):.1f} MB beside what trials need; free some on {self._settings.folder}"
            )

    def prune(self, needed: Collection[str]) -> list[str]:
        """Delete what was unpacked and serves nothing any more; return the bundles that went.

        What is active or may become so stays, what is `needed` for leased trials, and the newest of the rest.
        """
        keep = {*needed, *self._journal.pinned(), *self._journal.wanted()}
        bundles = self._settings.bundles
        found = [path for path in bundles.iterdir() if SHA256.fullmatch(path.name)] if bundles.is_dir() else []
        spare = sorted((path for path in found if path.name not in keep), key=lambda path: path.stat().st_mtime)
        gone = spare[: max(len(spare) - BUNDLES_KEPT, 0)]
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)
        weights = self._settings.weights
        for path in weights.iterdir() if weights.is_dir() else ():
            if path.stat().st_nlink == 1 and time.time() - path.stat().st_mtime > UNUSED_S:  # no bundle links to it
                path.unlink(missing_ok=True)
        return [path.name for path in gone]

    def _open(self, task: str, bundle: str) -> Bundle:
        data = self._download(task, bundle)
        self._journal.fetched(bundle)
        try:
            opened = open_bundle(data, bundle)
            if opened.manifest.task != task:
                raise BundleMalformed(f"it is for the task {opened.manifest.task!r}, not {task!r}")
        except BundleMalformed as error:
            self._journal.rejected(bundle, str(error))
            raise
        return opened

    def _download(self, task: str, bundle: str) -> bytes:
        again_s, why = self._tampered.get(bundle, (float("-inf"), ""))
        if self._clock() < again_s:
            raise Tampered(why)
        try:
            return self._trust.bundle(task, bundle)[1]
        except Tampered as error:
            self._tampered[bundle] = self._clock() + AFTER_TAMPERED_S, str(error)
            raise

    def _take_back(self) -> None:
        known = self._journal.revoked()
        for bundle, when in self._trust.revoked().items():
            if known.get(bundle) not in (when, "now"):
                self._journal.revoke(bundle, when)

    def _take_order(self) -> None:
        """Offer the journal the order that stands; one that it refuses is looked at once."""
        standing = self._journal.line().order
        if standing is not None:
            self._settle_override(standing.bundle)
        data = self._trust.order(self._settings.name)
        if data is None:
            return
        try:
            order = order_from_json(data)
            self._settle_override(order.bundle)
            if data == self._order:
                return
            if self._journal.offer(order):
                LOG.info("order %d: %s %s", order.number, order.stage, order.bundle[:12])
        except (RecordError, OrderRefused) as error:
            self._refuse(str(error))
        self._order = data

    def _settle_override(self, bundle: str) -> None:
        """Have the journal know whether two people let a bundle do without a canary now; what they sign expires."""
        allowed = self._trust.overridden(bundle)
        if allowed != self._journal.overridden(bundle):
            self._journal.override(bundle, allowed)

    def _refuse(self, sentence: str) -> None:
        if sentence != self.refusal:  # the same one again says nothing new
            LOG.warning("%s", sentence)
        self.refusal = sentence
