"""Keeps what a trial would be sealed as if the process ended now, and seals it so where the process did end.

- Beside the recording stands `<name>.trial` from the first move to the seal in the ledger. It begins as a crash, with
  the task, the hashes and the versions that the trial began with; the verdict replaces it before the recording is
  sealed.
- The next start seals an open trial as that file says. Without one, as on a full disk, only the ledger's row is known.
- What was recorded is attached either way: the whole recording, else what can be recovered of its `.part`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edge.ledger import DiskFull, Ledger, OpenTrial, Rescued
from edge.records import RecordError, Trial, decode, encode
from edge.trials.recording import RecordingError, sync_folder
from edge.trials.recovery import PART, recover_part

LOG = logging.getLogger("edge.trials")
KEPT = ".trial"
UNFINISHED = ".trial.part"


def recording_path(folder: Path, epoch: str, sequence: int) -> Path:
    """Return where the recording of a station's trial stands."""
    return folder / "recordings" / f"{epoch}-{sequence:06d}.mcap"


def keep(folder: Path, trial: Trial) -> bool:
    """Put on the disk what the trial is to be sealed as, should the process end; return whether the disk took it."""
    path = recording_path(folder, trial.epoch, trial.sequence)
    unfinished = path.with_suffix(UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as out:
            out.write(encode(trial))
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(path.with_suffix(KEPT))
        sync_folder(path.parent)
    except OSError as error:
        LOG.warning("trial %d would count as a crash if the process ended now: %s", trial.sequence, error)
        with suppress(OSError):
            unfinished.unlink()
        return False
    return True


def forget(folder: Path, trial: Trial) -> None:
    """Delete what `keep` wrote of a trial that is sealed; what stays is never read, and gone with the next start."""
    with suppress(OSError):
        recording_path(folder, trial.epoch, trial.sequence).with_suffix(KEPT).unlink()


def forget_all(folder: Path) -> None:
    """Delete everything that `keep` ever wrote; call it when no trial is open."""
    with suppress(OSError):
        for suffix in (KEPT, UNFINISHED):
            for left in (folder / "recordings").glob(f"*{suffix}"):
                left.unlink()


def seal_kept(folder: Path, ledger: Ledger, now_unix_s: float) -> None:
    """Seal the open trials of which `keep` wrote something; those of which nothing can be read stay open.

    Raises:
        LedgerError: one cannot be sealed, `DiskFull` also where its recording cannot be recovered for want of room;
            those before it are sealed, so that the call can be repeated.
    """
    for item in ledger.open_trials():
        trial = _kept(folder, ledger.edge, item)
        if trial is None:
            continue
        rescued = rescue(folder, item)
        trial = replace(trial, ended_unix_s=trial.ended_unix_s or now_unix_s)
        if rescued is None:
            notes = {"recording": "nothing of it was found after the crash", **trial.notes}
            trial = replace(trial, recording="", recording_bytes=0, notes=notes)
        else:
            trial = replace(trial, recording=rescued.sha256, recording_bytes=rescued.size)
        ledger.seal(trial, None if rescued is None else rescued.path)
        LOG.warning("trial %d was left open and is sealed: %s %s", item.sequence, trial.outcome, trial.cause)


def rescue(folder: Path, trial: OpenTrial) -> Rescued | None:
    """Return what a crashed run had recorded of a trial; what cannot be read now is left where it is.

    Raises:
        DiskFull: what is there could be recovered, were there room for it.
    """
    path = recording_path(folder, trial.epoch, trial.sequence)
    try:
        found = path if path.exists() else recover_part(path.with_suffix(PART))
        if found is None:
            return None
        with open(found, "rb") as file:
            return Rescued(found, hashlib.file_digest(file, "sha256").hexdigest(), found.stat().st_size)
    except (RecordingError, OSError) as error:
        cause = error.__cause__ if isinstance(error, RecordingError) else error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"disk full: {error}") from error
        LOG.warning("what was recorded of trial %d stays where it is: %s", trial.sequence, error)
        return None


def _kept(folder: Path, edge: str, item: OpenTrial) -> Trial | None:
    """Return what `keep` wrote of an open trial; what is not of this trial is put aside."""
    path = recording_path(folder, item.epoch, item.sequence).with_suffix(KEPT)
    try:
        trial = decode(Trial, path.read_bytes())
        if (trial.identity, trial.assignment_id, trial.lease_id) == (
            (edge, item.epoch, item.sequence),
            item.assignment.assignment_id,
            item.lease_id,
        ):
            return trial
        problem = f"it is of {trial.identity} on assignment {trial.assignment_id}"
    except FileNotFoundError:
        return None
    except (RecordError, OSError) as error:
        problem = str(error)
    LOG.error("%s is not what trial %d left, which counts as a crash: %s", path, item.sequence, problem)
    with suppress(OSError):
        path.replace(path.with_name(f"{path.name}.torn"))
    return None
