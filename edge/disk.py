"""How full a station's disk is, what it still does then, and for how many trials the rest will do.

- A ladder of rungs by the share of the disk that is free. It only ever records less, or waits.
- The forecast goes by what the last recordings took.
"""

from __future__ import annotations

import os
import statistics
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from edge.station import RecordingTier

LOW_HZ = 5.0
FORECAST_FROM = 20  # recordings
ROW_MB = 0.02  # what a trial takes of the ledger and its log


class Rung(StrEnum):
    """What a station still does."""

    FULL = "full"  # records as station.toml says
    SMALL = "small"  # takes smaller pictures
    LOW = "low"  # keeps the ledger, and of the recording all but the pictures, with joints at LOW_HZ
    PARKED = "parked"  # begins no trial


FLOORS = ((0.20, Rung.FULL), (0.10, Rung.SMALL), (0.05, Rung.LOW))  # the least free share for each


@dataclass(frozen=True)
class Space:
    """The disk under a folder, as its user sees it, or the part of it that counts."""

    free_mb: float
    total_mb: float

    def at_most(self, disk_mb: float) -> Space:
        """Return the space where no more than that of a disk counts."""
        return Space(self.free_mb, min(self.total_mb, disk_mb))

    @property
    def share(self) -> float:
        """What is free, in [0, 1]; nothing where the disk does not tell its size."""
        return min(self.free_mb / self.total_mb, 1.0) if self.total_mb > 0 else 0.0


def disk_space(folder: Path) -> Space:
    """Return the space of the disk that holds `folder`, without what only root may use."""
    disk = os.statvfs(folder)
    used = disk.f_blocks - disk.f_bfree
    return Space(disk.f_bavail * disk.f_frsize / 1e6, (used + disk.f_bavail) * disk.f_frsize / 1e6)


def rung_of(space: Space, room_mb: float) -> Rung:
    """Return the rung for a disk on which a trial needs `room_mb`."""
    if space.free_mb >= room_mb:
        for floor, rung in FLOORS:
            if space.share >= floor:
                return rung
    return Rung.PARKED


def tier_of(rung: Rung, wanted: RecordingTier) -> RecordingTier:
    """Return how much of a trial is recorded on that rung: as much as wanted, or less."""
    if rung is Rung.FULL:
        return wanted
    if rung is Rung.SMALL:
        return replace(wanted, camera="small") if wanted.camera == "full" else wanted
    return replace(wanted, joint_hz=min(wanted.joint_hz, LOW_HZ), camera="none")


@dataclass(frozen=True)
class Usage:
    """What the last trials took; None where there were too few to tell."""

    trial_mb: float | None
    period_s: float | None  # from one trial to the next


def usage(recordings: Path) -> Usage:
    """Return what the newest recordings in a folder took."""
    found = []
    with suppress(OSError), os.scandir(recordings) as entries:
        for entry in entries:
            if entry.name.endswith(".mcap"):
                with suppress(OSError):  # it has just been deleted
                    status = entry.stat()
                    found.append((status.st_mtime, status.st_size))
    found = sorted(found)[-FORECAST_FROM:]
    if not found:
        return Usage(None, None)
    gaps_s = [later[0] - earlier[0] for earlier, later in pairwise(found)]
    trial_mb = statistics.mean(size for _, size in found) / 1e6 + ROW_MB
    return Usage(trial_mb, statistics.median(gaps_s) if gaps_s else None)


@dataclass(frozen=True)
class Outlook:
    """What the disk allows a station now, and for how long."""

    folder: Path
    rung: Rung
    space: Space  # less what the reserve still needs
    room_mb: float  # what must be free for a trial to begin
    usage: Usage
    problem: str = ""  # why there is no reserve although it would fit

    @property
    def trials_left(self) -> int | None:
        """How many trials like the last ones can be begun; None where there were none."""
        if self.rung is Rung.PARKED:
            return 0
        if self.usage.trial_mb is None:
            return None
        return 1 + int((self.space.free_mb - self.floor_mb) / self.usage.trial_mb)

    @property
    def hours_left(self) -> float | None:
        """How long that takes at the pace of the last trials."""
        if self.trials_left is None or self.usage.period_s is None:
            return None
        return self.trials_left * self.usage.period_s / 3600

    @property
    def floor_mb(self) -> float:
        """What must be free for a trial to begin, by share and by size."""
        return max(self.room_mb, FLOORS[-1][0] * self.space.total_mb)

    @property
    def sentence(self) -> str:
        """What a person wants to know, with the remedy where no trial is begun."""
        return f"{self.finding}; {self.remedy}" if self.rung is Rung.PARKED else self.finding

    @property
    def finding(self) -> str:
        """How full the disk is and what follows from it."""
        if self.problem:
            return f"no trial is begun without a reserve for the ledger, and nothing was lost: {self.problem}"
        free = f"{_amount(self.space.free_mb)} free, {self.space.share:.0%} of what counts of the disk"
        if self.rung is Rung.PARKED:
            missing = _amount(self.floor_mb - self.space.free_mb)
            return f"disk nearly full, no trial is begun and nothing was lost: {free}, a trial wants {missing} more"
        return f"{free}; recording {self.rung}; {self._forecast()}"

    @property
    def remedy(self) -> str:
        """What to do about it, empty where nothing is wrong."""
        if self.problem:
            return f"let this user write to {self.folder}, or lift its quota"
        if self.rung is Rung.FULL:
            return ""
        return f"free space on {self.folder}, or let the coordinator take the recordings and back them up"

    def _forecast(self) -> str:
        if self.trials_left is None:
            return "no trial was recorded yet that could tell for how long"
        hours = "" if self.hours_left is None else f", {_hours(self.hours_left)}"
        return f"room for {self.trials_left} trials like the last ones{hours}"


def _amount(mb: float) -> str:
    if mb >= 1000:
        return f"{mb / 1000:.1f} GB"
    return f"{mb:.0f} MB" if mb >= 10 else f"{mb:.1f} MB"


def _hours(hours: float) -> str:
    return f"{hours:.0f} h" if hours >= 2 else f"{hours * 60:.0f} min"
