"""Keeps room on a station's disk: which recordings may go, and a reserve for the ledger.

- What the coordinator has not got is never deleted; a station records less instead, and in the end begins no trial.
- A reserve file holds room for the ledger. It is given up when the ledger finds the disk full, so that the trial at
  hand is sealed, or when not even a mark can be made that would let a recording go; no trial is begun before it stands
  again.
- A recording may go once a backup of the coordinator's holds it, under pressure also a week after the coordinator got
  it; the ledger says which, and is told before a file is deleted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edge.disk import FLOORS, Outlook, Rung, Space, Usage, disk_space, rung_of, tier_of, usage
from edge.ledger import DiskFull, Ledger
from edge.station import RecordingTier, Station

LOG = logging.getLogger("edge.retention")
TRIAL_ROOM_MB = 64.0
MARK_ROOM_MB = 0.1  # some commits of the ledger
PURGED_AT_ONCE = 32  # files a look, each a commit of milliseconds
KEPT_FOR_PEOPLE = 20  # newest recordings that could go, but are in nobody's way
PURGE_EVERY_S, PURGE_PRESSED_EVERY_S = 10.0, 1.0
FORECAST_EVERY_S = 10.0
Written = TypeVar("Written")


class Reserve:
    """A file whose room belongs to the ledger, should the disk be full."""

    def __init__(self, path: Path, size_mb: float) -> None:
        self._path = path
        self.size_mb = size_mb
        self.problem = ""  # why it could not be made

    @property
    def stands(self) -> bool:
        """Whether the file is there and really takes up its room."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return status.st_size == self._bytes and status.st_blocks * 512 >= self._bytes

    def make(self) -> bool:
        """Take up the room, on the disk once this returns; return whether that worked."""
        unfinished = self._path.with_name(self._path.name + ".part")
        try:
            self._path.unlink(missing_ok=True)  # of another size, or with holes
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._bytes)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            unfinished.replace(self._path)
            _sync(self._path.parent)
        except OSError as error:
            self.problem = f"cannot make {self._path}: {error.strerror}"
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            return False
        self.problem = ""
        return True

    def give_up(self) -> bool:
        """Let the ledger have the room; return whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        with suppress(OSError):
            _sync(self._path.parent)
        return True

    @property
    def _bytes(self) -> int:
        return round(self.size_mb * 1e6)


class Retention:
    """Keeps a station's disk, a look at a time."""

    def __init__(
        self,
        station: Station,
        space: Callable[[Path], Space] = disk_space,
        room_mb: float = TRIAL_ROOM_MB,
    ) -> None:
        """Look after the disk of `station`, measured by `space`; a trial needs `room_mb` of it."""
        self._station = station
        self._recordings = station.folder / "recordings"
        self._space = space
        self._room_mb = room_mb
        self._reserve = reserve_of(station)
        self._purged_unix_s = self._forecast_unix_s = float("-inf")
        self._usage = Usage(None, None)
        self.outlook: Outlook | None = None  # what the last look found

    @property
    def tier(self) -> RecordingTier:
        """How much of a trial that begins now is recorded."""
        wanted = self._station.recording
        return wanted if self.outlook is None else tier_of(self.outlook.rung, wanted)

    def look(self, ledger: Ledger, now_unix_s: float) -> Outlook:
        """Delete what may go, make the reserve where it is missing, and say what the disk allows; before each trial.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        before = self.outlook
        self._purge(ledger, now_unix_s)
        free_mb = self._measure().free_mb
        if not self._reserve.stands:
            if free_mb >= self._room_mb + self._reserve.size_mb:
                self._reserve.make()
        elif free_mb < MARK_ROOM_MB and self._reserve.give_up():
            LOG.warning("disk full: the reserve is given to the ledger, so that the uplink can mark what may go")
        if self._usage.trial_mb is None or not 0.0 <= now_unix_s - self._forecast_unix_s < FORECAST_EVERY_S:
            self._forecast_unix_s, self._usage = now_unix_s, usage(self._recordings)
        self.outlook = outlook_of(self._station, self._measure(), self._reserve, self._room_mb, self._usage)
        if before is None or before.rung is not self.outlook.rung:
            LOG.log(logging.INFO if self.outlook.rung is Rung.FULL else logging.WARNING, "%s", self.outlook.sentence)
        return self.outlook

    def insist(self, write: Callable[[], Written], again: Callable[[str], bool]) -> Written:
        """Return what a write to the ledger returns; on a full disk give the reserve up for it, then wait for space.

        Args:
            again: is given the reason, waits a moment and returns whether to try again.

        Raises:
            LedgerError: something else is wrong, or there was no room and nobody wanted to wait any longer.
        """
        said = False
        while True:
            try:
                return write()
            except DiskFull as error:
                if self._reserve.give_up():
                    LOG.warning("disk full: the reserve of %g MB is given to the ledger", self._reserve.size_mb)
                    continue
                if not said:
                    LOG.warning("waiting for room on the disk: %s", error)
                said = True
                if not again(str(error)):
                    raise

    def _measure(self) -> Space:
        return self._space(self._station.folder).at_most(self._station.storage.disk_mb)

    def _purge(self, ledger: Ledger, now_unix_s: float) -> None:
        pressed = self._measure().share < FLOORS[0][0]
        if 0.0 <= now_unix_s - self._purged_unix_s < (PURGE_PRESSED_EVERY_S if pressed else PURGE_EVERY_S):
            return
        self._purged_unix_s = now_unix_s
        try:
            files, freed = purge(self._recordings, ledger, pressed, now_unix_s)
        except OSError as error:  # the station can work all the same
            LOG.warning("cannot delete old recordings in %s: %s", self._recordings, error.strerror)
            return
        except DiskFull:  # the next look tries again; what it finds of the disk is said either way
            self._purged_unix_s = float("-inf")
            if self._reserve.give_up():
                LOG.warning("disk full: the reserve is given to the ledger, so that it can mark what may go")
            return
        if files:
            LOG.info("deleted %d recordings, %.1f MB, which the coordinator keeps", files, freed / 1e6)


def reserve_of(station: Station) -> Reserve:
    """Return the reserve of a station, made or not."""
    return Reserve(station.folder / "reserve.bin", station.storage.reserve_mb)


def outlook_of(station: Station, space: Space, reserve: Reserve, room_mb: float, spent: Usage) -> Outlook:
    """Return what the disk allows; the room that a missing reserve will need counts as taken."""
    space, problem = space.at_most(station.storage.disk_mb), ""
    if not reserve.stands:
        space, problem = replace(space, free_mb=max(space.free_mb - reserve.size_mb, 0.0)), reserve.problem
    rung = Rung.PARKED if problem else rung_of(space, room_mb)
    return Outlook(station.folder, rung, space, room_mb, spent, problem)


def purge(recordings: Path, ledger: Ledger, under_pressure: bool, now_unix_s: float) -> tuple[int, int]:
    """Delete some of the recordings that may go, oldest first; return how many files, and how many bytes.

    Without pressure the newest stay for people to look at. Just before a file is deleted the ledger is asked again, as
    the uplink may meanwhile have learnt that the coordinator lost it, and notes that it goes. It counts as deleted only
    once the folder is synced; one that is missing, because a crash came in between, counts as deleted as well.

    Args:
        recordings: the folder; of the ledger's paths only the names count, so that nothing outside is ever deleted.

    Raises:
        LedgerError: the ledger cannot be used; what was deleted and not marked is marked the next time.
    """
    may_go = ledger.purgeable(under_pressure, now_unix_s)
    if not under_pressure:
        may_go = may_go[: max(len(may_go) - KEPT_FOR_PEOPLE, 0)]
    gone: list[int] = []
    files = freed = 0
    for row, path in may_go:
        if len(gone) == PURGED_AT_ONCE:
            break
        if not ledger.begin_purge(row, under_pressure, now_unix_s):
            continue
        try:
            file = recordings / path.name
            size = file.stat().st_size
            file.unlink()
            files, freed = files + 1, freed + size
        except FileNotFoundError:
            pass
        except OSError as error:
            LOG.warning("cannot delete %s: %s; see who else holds it", file, error.strerror)
            continue
        gone.append(row)
    if gone:
        with suppress(FileNotFoundError):  # the folder is gone with all that was in it
            _sync(recordings)
    for row in gone:
        ledger.purged(row)
    return files, freed


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
