"""Brings down what a station may run: signed metadata, the order that stands for it, and bundles.

- Whether a bundle may run is the lab's to say, in signed metadata; the coordinator only carries it.
- A bundle counts as here once it was verified, unpacked and noted in the activation journal, in this order.
- With the lab out of reach everything stays as it was: what was verified before may run until its signature expires.
- Bundles and weights come in parts, for a moment in each turn, so that trials and orders do not wait for them; a cut
  loses nothing. Bundles that wait for some take turns.
- A bundle that is not what it should be is noted as rejected, and never asked for again. Bytes that are another's, as
  they were altered on the way, say nothing about it: it is asked for again after a while.
- The weights that a bundle that waits has or may have here are kept, however long the lab is out of reach; but what
  runs here and was lost has the disk's room first, then what is ordered, and where room lacks the oldest goes that
  comes later or that nobody wants.
- What the disk does not read, take or let go is said, and holds up nothing else.
"""

from __future__ import annotations

import logging
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from edge.activation.journal import ArrowRefused, Journal
from edge.activation.rows import Row
from edge.activation.table import GONE
from edge.trust.client import Grant, NotGranted, Stale, Trust, TrustError, Unreachable
from edge.uplink.orders import Orders
from edge.uplink.room import UNFINISHED, Found, free_and_total_mb, freeable_mb, listed, remove
from edge.uplink.settings import Settings
from edge.uplink.weights import WITHIN_S, Weights
from edge.uplink.weights import NotSupplied as NotSupplied
from edge.uplink.weights import StillComing as StillComing
from policies.bundle import Bundle, BundleError, BundleMalformed, open_bundle, unpack

LOG = logging.getLogger("edge.uplink")
REFRESH_EVERY_S = 1.0
BUNDLES_KEPT = 64  # as many candidates as a lab names at a time
DAY_S = 86_400.0
# After which go a folder that was left unfinished, and weights and archives that nothing is known to wait for.
UNUSED_S, UNFINISHED_S = DAY_S, 14 * DAY_S
FREE_SHARE = 0.05  # of the disk, below which a station begins no trial (edge.disk)
ORDER = "order"  # among what was said, what was about it
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


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
        Each turn fetches parts of bundles and weights for `weights_within_s`, one part at least.
        """
        self._settings, self._trust, self._journal, self._clock = settings, trust, journal, clock
        self._weights, self._space = Weights(trust, settings.weights, clock, weights_within_s), space
        self._refresh_at_s = float("-inf")
        self._whole: dict[str, Bundle] = {}  # bundles that wait for their weights
        self._coming: dict[str, str] = {}  # bundles that are on their way, or their weights -> task; the next one first
        self._orders = Orders(trust, journal, settings.name, clock, lambda sentence: self._refuse(sentence, ORDER))
        self._said: dict[str, str] = {}  # bundle or ORDER -> what was refused about it last; under "" of all else
        self.refusal = ""  # the newest thing that was refused, for the status
        self._lacking: set[str] = set()  # bundles that lacked room when it was last looked
        self._hopeless: set[str] = set()  # those that this disk cannot hold, whatever goes

    @property
    def lacks_room(self) -> bool:
        """Whether a bundle does; `prune` makes it some."""
        return bool(self._lacking)

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
                self._orders.take_back()
            self._orders.take()
        except Unreachable:
            raise
        except (TrustError, OSError) as error:
            self._refuse(str(error))
        for bundle, task in self._journal.wanted().items():
            try:
                self._have(task, bundle)
            except NotSupplied as error:
                self._refuse(str(error), bundle)
            except Unreachable as error:  # about this bundle alone, as the lab has just said what it wants
                self._refuse(f"bundle {bundle[:12]}: {error}", bundle)

    def _go_on(self) -> None:
        """Fetch more of a bundle that is on its way, or of the weights that it waits for."""
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
        here = False
        try:
            here = self._is_here(row)
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
        except (TrustError, BundleError, ArrowRefused, OSError) as error:
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
        if bundle not in self._whole:
            self._whole[bundle] = self._open(task, bundle)  # should its weights not come at once
            self._weights.doubt(self._whole[bundle])  # as it may have been here, and its files were found damaged
        opened = self._whole[bundle]
        self._check_sizes(opened)
        self._check_room(opened)
        self._weights.fetch(opened)
        # What lies there was never verified, or is damaged; `unpack` would leave it.
        remove(self._settings.bundles / bundle)
        unpack(opened, self._settings.bundles, self._settings.weights)
        self._forget(bundle)

    def _forget(self, *bundles: str) -> None:
        """Remember nothing more of bundles that no longer wait."""
        for bundle in bundles:
            self._whole.pop(bundle, None)
            self._coming.pop(bundle, None)
        self._weights.forget_but(self._wanted_weights(self._whole))

    def _wanted_weights(self, bundles: Iterable[str]) -> set[Path]:
        """Return where weights lie that bundles wait for, whole or in part."""
        return {path for bundle in bundles for path in self._weights.paths(self._whole[bundle])}

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
        """Raise NotSupplied where what is missing of its weights would take what trials need of the disk.

        What is missing of those that have the room first is taken off.
        """
        missing_mb = self._weights.missing_mb(opened)
        if not missing_mb:
            return
        room_mb = self._room_mb() - sum(map(self._weights.missing_mb, self._before(opened.id)))
        if not missing_mb <= room_mb:
            self._lacking.add(opened.id)
            raise NotSupplied(
                f"bundle {opened.id[:12]} needs {missing_mb:.1f} MB more for weights, and the disk has "
                f"{max(room_mb, 0.0):.1f} MB beside what trials need; free some on {self._settings.folder}"
            )

    def _before(self, bundle: str) -> list[Bundle]:
        """Return what waits and has room before a bundle: what runs here and was lost, then what is ordered."""
        wanted = list(self._journal.wanted())  # in this order
        before = wanted[: wanted.index(bundle)] if bundle in wanted else wanted
        return [self._whole[name] for name in before if name in self._whole and name not in self._hopeless]

    def _room_mb(self) -> float:
        """Return what is free of the disk beside what trials need."""
        free_mb, total_mb = self._space(self._settings.folder)
        return free_mb - max(self._settings.reserve_mb, FREE_SHARE * min(total_mb, self._settings.disk_mb))

    def prune(self, needed: Collection[str]) -> list[str]:
        """Delete what was brought here and serves nothing any more; return the bundles that went.

        What is active or may become so stays, what is `needed` for leased trials, and the newest of the rest, unless
        what is to come lacks room. What a disk does not let go is said and stays.
        """
        keep = {*needed, *self._journal.pinned(), *self._journal.wanted()}
        gone: list[str] = []
        try:
            gone += [path.name for path, _ in self._spare(keep)[:-BUNDLES_KEPT] if self._delete(path)]
            self._prune_files()
            if self._lacking:
                lacking, self._lacking = self._lacking, set()
                gone += self._make_room(lacking, keep)
        except OSError as error:
            self._refuse(f"cannot tidy up: {error}")
        return gone

    def _spare(self, keep: Collection[str]) -> list[Found]:
        """Return the folders of unpacked bundles that need not be kept, the oldest first."""
        found = [item for item in listed(self._settings.bundles) if SHA256.fullmatch(item[0].name)]
        return sorted((item for item in found if item[0].name not in keep), key=_written_unix_s)

    def _prune_files(self) -> None:
        """Delete what was left unfinished, and the weights that no bundle links to or waits for, some time after."""
        self._forget(*[bundle for bundle, opened in self._whole.items() if not self._may_come(opened)])
        wanted = self._journal.wanted()
        self._said = {
            bundle: said for bundle, said in self._said.items() if bundle in ("", ORDER, *self._whole, *wanted)
        }
        now_unix_s = time.time()
        for path, status in listed(self._settings.bundles):
            if path.name.startswith(UNFINISHED) and now_unix_s - status.st_mtime > UNUSED_S:
                self._delete(path)
        for path, status in [*self._unlinked(self._wanted_weights(self._whole)), *listed(self._weights.archives)]:
            if now_unix_s - status.st_mtime > UNFINISHED_S:
                self._delete(path)

    def _unlinked(self, kept: Collection[Path]) -> list[Found]:
        """Return the weights, whole or in part, that no bundle links to, but for those that are kept.

        None while it is not known yet what a bundle wants that may want them.
        """
        if self._unsure():
            return []
        return [
            (path, status)
            for path, status in listed(self._settings.weights)
            if path not in kept and status.st_nlink == 1 and stat.S_ISREG(status.st_mode)
        ]

    def _unsure(self) -> bool:
        """Return whether it is not known yet what a bundle wants that was ordered lately, or runs here and was lost."""
        line, unknown = self._journal.line(), (bundle for bundle in self._journal.wanted() if bundle not in self._whole)
        for row in map(self._journal.row, unknown):
            lately = self._journal.clock() - row.since_unix_s <= UNFINISHED_S
            if (lately or row.bundle in (line.active, line.last_good)) and not self._is_here(row):
                return True
        return False

    def _make_room(self, lacking: Collection[str], keep: Collection[str]) -> list[str]:
        """Make room for the bundles that are wanted, and for others that lack it; return the bundles that went.

        Nothing goes while it is not known what a bundle wants, as that could be the very weights that would have to go.
        """
        if self._unsure():
            return []
        self._hopeless = set()
        wanted = self._journal.wanted()
        waiting = [name for name in (*wanted, *sorted(set(lacking) - set(wanted))) if name in self._whole]
        return [gone for name in waiting for gone in self._make_room_for(self._whole[name], keep)]

    def _make_room_for(self, opened: Bundle, keep: Collection[str]) -> list[str]:
        """Delete the oldest that may go until a bundle has room; return the bundles that went.

        For one that is wanted that is whatever others, which come later or were leased, have here of their weights.
        Where all of that would be too little nothing is deleted, and no room is kept for it any more.
        """
        first = [*self._before(opened.id), opened]
        missing_mb = sum(map(self._weights.missing_mb, first))
        kept = self._wanted_weights([one.id for one in first] if opened.id in self._journal.wanted() else self._whole)
        tried: dict[Path, bool] = {}  # whether it is gone
        while not missing_mb <= (room_mb := self._room_mb()):
            files = [item for item in self._unlinked(kept) if item[0] not in tried]
            folders = [item for item in self._spare(keep) if item[0] not in tried]
            if not missing_mb <= room_mb + freeable_mb(files, folders, kept):
                self._hopeless.add(opened.id)
                break
            oldest, _ = min(files + folders, key=_written_unix_s)
            tried[oldest] = self._delete(oldest)
        return [path.name for path, gone in tried.items() if gone and path.parent == self._settings.bundles]

    def _delete(self, path: Path) -> bool:
        """Delete a file or a folder and return whether it is gone; where the disk does not let it go, say so."""
        try:
            remove(path)
        except OSError as error:
            self._refuse(f"cannot delete {path}: {error.strerror}")
            return False
        return True

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
        data = self._weights.archive(task, bundle)
        self._journal.fetched(bundle)
        try:
            opened = open_bundle(data, bundle)
            if opened.manifest.task != task:
                raise BundleMalformed(f"it is for the task {opened.manifest.task!r}, not {task!r}")
        except BundleMalformed as error:
            self._journal.rejected(bundle, str(error))
            raise
        return opened

    def _refuse(self, sentence: str, bundle: str = "") -> None:
        if sentence != self._said.get(bundle):  # the same one again says nothing new
            LOG.warning("%s", sentence)
        self.refusal = self._said[bundle] = sentence


def _written_unix_s(found: Found) -> float:
    return found[1].st_mtime
