"""What a station is doing right now, left in a small file for the uplink and for `doctor`.

The file is replaced whole and never synced: it is worth nothing after a power cut, and a reader never sees half of it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

STATES = ("starting", "reset", "trial", "waiting", "stopped", "fault")


class StatusError(Exception):
    """The status file is there and is not one."""


@dataclass(frozen=True)
class Status:
    """One station at one moment."""

    edge: str
    state: str  # one of STATES
    detail: str  # one sentence for a person
    bundle: str  # of the trial at hand, empty between trials
    start_id: str
    sequence: int  # of the trial at hand or of the last one
    station_time_s: float
    wall_unix_s: float
    memory_mb: float  # of the writer
    free_mb: float | None = None  # of the station's disk; None before the first look
    rung: str = ""  # one of edge.disk.Rung, empty before the first look
    trials_left: int | None = None  # that the disk has room for; None where no trial tells


def write_status(path: Path, status: Status) -> None:
    """Replace the status at `path`.

    Raises:
        OSError: the disk does not take it; the status before it stays.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(json.dumps(asdict(status)))
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def read_status(path: Path) -> Status | None:
    """Return the status at `path`, or None where none was written yet.

    Raises:
        StatusError: the file is not a status.
    """
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StatusError(f"{path} is not a status; delete it") from error
    if not isinstance(raw, dict) or set(raw) != {item.name for item in fields(Status)}:
        raise StatusError(f"{path} is not a status of this version; delete it")
    return Status(**raw)
