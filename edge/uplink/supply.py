"""Brings down what a station may run: signed metadata, the order that stands for it, and bundles.

- Whether a bundle may run is the lab's to say, in signed metadata; the coordinator only carries it.
- A bundle counts as here once it was verified, unpacked and noted in the activation journal, in this order.
- With the lab out of reach everything stays as it was: what was verified before may run until its signature expires.
- Weights come in parts, for a moment in each turn, so that trials and orders do not wait for them; a cut loses nothing.
  Bundles that wait for some take turns.
- A bundle that is not what it should be is noted as rejected, and never asked for again. Bytes that are another's, as
  they were altered on the way, say nothing about it: it is asked for again after a while.
- What a bundle that waits has or may have here is kept, however long the lab is out of reach.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from edge.activation.journal import ArrowRefused, Journal, OrderRefused
from edge.activation.rows import Row
from edge.activation.table import GONE
from edge.records import RecordError, order_from_json
from edge.trust.client import Grant, NotGranted, Stale, Tampered, Trust, TrustError, Unreachable
from edge.trust.parts import part_of
from edge.uplink.settings import Settings
from edge.uplink.weights import AFTER_TAMPERED_S, WITHIN_S, Weights
from edge.uplink.weights import NotSupplied as NotSupplied
from edge.uplink.weights import StillComing as StillComing
from policies.bundle import Bundle, BundleError, BundleMalformed, open_bundle, unpack

LOG = logging.getLogger("edge.uplink")
REFRESH_EVERY_S = 1.0
BUNDLES_KEPT = 64  # as many candidates as a lab names at a time
DAY_S = 86_400.0
UNUSED_S, UNFINISHED_S = DAY_S, 14 * DAY_S  # after which weights go that no bundle links to, and that have not all come
FREE_SHARE = 0.05  # of the disk, below which a station begins no trial (edge.disk)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


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
        weights_within_s: float = WITHIN_S,
        space: Callable[[Path], tuple[float, float]] = free_and_total_mb,
    ) -> None:
        """Bring what `trust` grants into the station's folder, and note it in `journal`.

        When to ask goes by `clock`, in seconds from anywhere; whether a signature still holds, by the journal's.
        Each turn fetches parts of weights for `weights_within_s`, one part at least.
        """
        self._settings, self._trust, self._journal, self._clock = settings, trust, journal, clock
        self._weights, self._space = Weights(trust, settings.weights, clock, weights_within_s), space
        self._refresh_at_s = float("-inf")
        self._whole: dict[str, Bundle] = {}  # bundles that wait for their weights
        self._coming: dict[str, str] = {}  # bundles whose weights are on their way -> task; the next one first
        self._order = b""  # the newest that was looked at
        self._tampered: dict[str, tuple[float, str]] = {}  # bundle -> when to ask again, by the clock, and why not now
        self._said: dict[str, str] = {}  # bundle -> what was refused about it last, under "" of everything else
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
                self._refuse(str(error), bundle)
            except Unreachable as error:  # about this bundle alone, as the lab has just said what it wants
                self._refuse(f"bundle {bundle[:12]}: {error}", bundle)

    def _go_on(self) -> None:
        """Fetch more of the weights that a bundle waits for."""
        for bundle, task in list(self._coming.items())[:1]:
            try:
                self._have(task, bundle)
                self._coming.pop(bundle, None)
            except StillComing as error:
                self._coming[bundle] = self._coming.pop(bundle)  # now it is the others' turn
                self._refuse(str(error), bundle)
            except NotSupplied as error:
                self._coming.pop(bundle, None)
                self._refuse(str(error), bundle)

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
        if row.state in GONE or row.denied:
            raise NotSupplied(f"bundle {bundle[:12]} is {row.state}: {row.denied or row.reason}")
        here = self._is_here(row)
        try:
            grant = self._grant(task, bundle)
            if not here:
                self._fetch(task, bundle)
            self._journal.verified(bundle, grant.role, grant.expires_unix_s, task)
            self._said.pop(bundle, None)
        except StillComing:
            self._coming[bundle] = task
            raise
        except Unreachable:
            if not (here and self._journal.clock() < row.expires_unix_s):
                raise
        except (TrustError, BundleError, ArrowRefused) as error:
            raise NotSupplied(f"bundle {bundle[:12]}: {error}") from error

    def _is_here(self, row: Row) -> bool:
        return bool(row.role) and not row.missing and (self._settings.bundles / row.bundle).is_dir()

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
        self._check_sizes(opened)
        self._check_room(opened)
        self._weights.fetch(opened)
        # What lies there was never verified, or is damaged; `unpack` would leave it.
        shutil.rmtree(self._settings.bundles / bundle, ignore_errors=True)
        unpack(opened, self._settings.bundles, self._settings.weights)
        self._forget(bundle)

    def _forget(self, *bundles: str) -> None:
        """Remember nothing more of bundles that no longer wait."""
        for bundle in bundles:
            self._whole.pop(bundle, None)
            self._coming.pop(bundle, None)
        self._weights.forget_but(self._wanted_weights())

    def _wanted_weights(self) -> set[str]:
        return {weight.sha256 for opened in self._whole.values() for weight in opened.manifest.weights.values()}

    def _check_sizes(self, opened: Bundle) -> None:
        """Raise unless all of a bundle's weights are as large as it says, by which the disk's room is judged.

        Raises:
            BundleMalformed: one is not, and the bundle is rejected.
            TrustError: as `Trust.weights_bytes`.
        """
        for name, weight in opened.manifest.weights.items():
            signed_bytes = self._trust.weights_bytes(weight.sha256)
            if weight.size_bytes != signed_bytes:
                why = f"it says that {name} has {weight.size_bytes} bytes, and {signed_bytes} were signed"
                self._journal.rejected(opened.id, why)
                self._forget(opened.id)
                raise BundleMalformed(why)

    def _check_room(self, opened: Bundle) -> None:
        """Raise NotSupplied where what is missing of its weights would take what trials need of the disk."""
        missing_mb = self._weights.missing_mb(opened)
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
        found = {path.name: status for path, status in _listed(self._settings.bundles) if SHA256.fullmatch(path.name)}
        spare = sorted((name for name in found if name not in keep), key=lambda name: found[name].st_mtime)
        gone = spare[: max(len(spare) - BUNDLES_KEPT, 0)]
        for name in gone:
            shutil.rmtree(self._settings.bundles / name, ignore_errors=True)
        self._prune_weights()
        return gone

    def _prune_weights(self) -> None:
        """Delete the weights that no bundle links to or waits for, some time after they came."""
        self._forget(*[bundle for bundle, opened in self._whole.items() if not self._may_come(opened)])
        wanted = self._journal.wanted()
        self._said = {bundle: said for bundle, said in self._said.items() if bundle in ("", *self._whole, *wanted)}
        if any(bundle not in self._whole and not self._is_here(self._journal.row(bundle)) for bundle in wanted):
            return  # which weights that wants is known once it has come
        kept = {self._settings.weights / sha256 for sha256 in self._wanted_weights()}
        kept |= {part_of(path) for path in kept}
        for path, status in _listed(self._settings.weights):
            longest_s = UNUSED_S if SHA256.fullmatch(path.name) else UNFINISHED_S
            old = time.time() - status.st_mtime > longest_s
            if old and path not in kept and status.st_nlink == 1 and stat.S_ISREG(status.st_mode):
                path.unlink(missing_ok=True)

    def _may_come(self, opened: Bundle) -> bool:
        """Return whether what is known here of the lab's word still names a bundle that waits."""
        if self._journal.row(opened.id).state in GONE:
            return False
        try:
            self._trust.grant(opened.manifest.task, opened.id)
        except NotGranted:
            return False
        except TrustError:  # too old, or not to be had just now: nobody has taken it back
            pass
        return True

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

    def _refuse(self, sentence: str, bundle: str = "") -> None:
        if sentence != self._said.get(bundle):  # the same one again says nothing new
            LOG.warning("%s", sentence)
        self.refusal = self._said[bundle] = sentence


def _listed(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Return what lies in a folder; none where that is missing, nor what goes while it is looked at."""
    found = []
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                found.append((path, path.lstat()))
    return found
