"""Puts recordings on the disk under the hash of their content: all of one is there, or nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from coordinator.errors import CoordinatorError

MOST_BYTES = 256 << 20


class RecordingRefused(CoordinatorError):
    """The bytes are not those that the name promises, or are too many."""


class RecordingNotKept(CoordinatorError):
    """The disk did not take a recording; the station still has it."""


def keep(folder: Path, sha256: str, data: bytes) -> Path:
    """Write a recording and return its path; one that is there already is left alone.

    Raises:
        RecordingRefused: the content has another hash, or is too large.
        RecordingNotKept: it could not be written.
    """
    if len(data) > MOST_BYTES:
        raise RecordingRefused(f"a recording of {len(data)} bytes; at most {MOST_BYTES} are kept")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RecordingRefused("the content does not have the hash that its name promises; send it again")
    path = folder / f"{sha256}.mcap"
    if path.exists():
        return path
    unfinished = path.with_suffix(".part")
    try:
        with open(unfinished, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(path)
        _sync_folder(folder)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RecordingNotKept(f"cannot keep a recording in {folder}: {error.strerror}; free space there") from error
    return path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
