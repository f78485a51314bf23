"""A station's status file, kept fresh while the station works, and the opening of what its work is noted in."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge.activation.journal import ActivationError, Journal
from edge.records import Assignment
from edge.retention import Retention
from edge.station import Station
from edge.status import Status, write_status

BEAT_S = 0.5


class Board:
    """The station's status file; `now_s` is the station's time."""

    def __init__(self, station: Station, now_s: Callable[[], float], retention: Retention) -> None:
        self._station = station
        self._now_s = now_s
        self._retention = retention
        self._said: tuple[str, str, Assignment | None, int] = ("starting", "", None, 0)
        self._written_s = 0.0

    def say(self, state: str, detail: str, assignment: Assignment | None, sequence: int) -> None:
        """Note a state; write it at once when it is another one than before."""
        changed = (state, detail) != self._said[:2]
        self._said = (state, detail, assignment, sequence or self._said[3])
        if changed:
            self._write()

    def beat(self) -> None:
        """Write again when the last time is a while ago."""
        if time.monotonic() - self._written_s > BEAT_S:
            self._write()

    def _write(self) -> None:
        self._written_s = time.monotonic()
        state, detail, assignment, sequence = self._said
        outlook = self._retention.outlook
        status = Status(
            edge=self._station.name,
            state=state,
            detail=detail,
            bundle="" if assignment is None else assignment.bundle,
            start_id="" if assignment is None else assignment.start_id,
            sequence=sequence,
            station_time_s=self._now_s(),
            wall_unix_s=time.time(),
            memory_mb=0.0,  # the uplink measures all of the station's processes
            free_mb=None if outlook is None else outlook.space.free_mb,
            rung="" if outlook is None else outlook.rung,
            trials_left=None if outlook is None else outlook.trials_left,
        )
        with suppress(OSError):  # a full disk; the next status says more than this one
            write_status(self._station.folder / "status.json", status)


def open_journal(folder: Path, again: Callable[[str], bool]) -> Journal:
    """Open the journal of what may run here, waiting where the disk has no room for it.

    Raises:
        ActivationError: it cannot be opened, and `again` says that a stop came.
    """
    while True:
        try:
            return Journal(folder / "activation.db")
        except ActivationError as error:
            if not again(str(error)):
                raise
