"""A large file that comes in parts: what has come lies in a `.part` file, and the next part begins where it ends.

- A cut at any byte loses nothing but what the disk had not taken yet.
- The file gets its name only once all of it has the hash that was signed; before that nothing may use it.
- What turns out to be other bytes is deleted, and begins anew; so is a finished file that was damaged since, and what
  the disk cannot read any more.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tuf.api.exceptions import DownloadLengthMismatchError, LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edge.trust.bounded import TARGETS_URL, Bounded
from edge.trust.errors import TrustError
from edge.trust.floor import sync_folder

LOG = logging.getLogger("edge.trust")
REFRESH_S = 20.0
LEAST_BYTES_PER_S = 16 << 10


def longest_s(length: int) -> float:
    """Return how long so many bytes may take: as at the least rate that is borne, and a refresh."""
    return REFRESH_S + length / LEAST_BYTES_PER_S


def part_of(final: Path) -> Path:
    """Return where a file lies that has not come whole yet."""
    return final.with_name(f".{final.name}.part")


def arrived(final: Path) -> int:
    """Return how many bytes of a file are here."""
    for path in (final, part_of(final)):
        with suppress(FileNotFoundError):
            return path.stat().st_size
    return 0


def go_on(target: TargetFile, final: Path, fetcher: Bounded, most: int, time_is_up: Callable[[], bool]) -> int:
    """Add some `most` bytes to what has come of a file; return how many are missing then, 0 once it has its name.

    One that has its name and other bytes than were signed, as a disk may damage it, is deleted and begins anew.

    Raises: as `append` and `finish`.
    """
    if final.exists():
        try:
            verify(target, final)
            return 0
        except LengthOrHashMismatchError as error:
            LOG.warning("%s is damaged, and comes anew: %s", final, error)
            final.unlink(missing_ok=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    here = arrived(final)
    missing = max(target.length - here, 0)
    if missing or not target.length:
        fetcher.allow(longest_s(min(missing, most)))
        chunks = fetcher.fetch_from(f"{TARGETS_URL}{target.get_prefixed_paths()[0]}", here, missing)
        missing = append(part_of(final), chunks, missing, most, time_is_up)
    if not missing:
        finish(target, final)
    return missing


def append(part: Path, chunks: Iterator[bytes], missing: int, most: int, time_is_up: Callable[[], bool]) -> int:
    """Add what comes to a file, some `most` bytes or all that is `missing`; return how many are missing then.

    It ends early, but not before something came, once the time is up. What has come before a failure stays, unless
    more comes than was signed: a copy that ends too early may have been cut short.

    Raises:
        DownloadLengthMismatchError: it ends too early or not where it should.
        TrustError: the disk does not take it.
    """
    got, ended = 0, False
    try:
        with open(part, "ab") as file:
            try:
                while got < min(most, missing) and not (ended or (got and time_is_up())):
                    chunk = next(chunks, b"")
                    file.write(chunk)
                    got += len(chunk)
                    ended = not chunk
                if got >= missing:
                    next(chunks, b"")  # raises where more comes than was signed
            finally:
                file.flush()
                os.fsync(file.fileno())
    except DownloadLengthMismatchError:
        part.unlink()  # whoever says another length than was signed has hardly sent the right bytes before
        raise
    except OSError as error:
        raise TrustError(f"{part.parent} does not take {part.name}: {error.strerror}; free some of the disk") from error
    if ended:
        raise DownloadLengthMismatchError(f"{part.name} ends {missing - got} bytes too early")
    return missing - got


def finish(target: TargetFile, final: Path) -> None:
    """Give a file that has come whole its name, for good once this returns.

    Raises:
        LengthOrHashMismatchError: it has other bytes than were signed, and is deleted.
    """
    part = part_of(final)
    try:
        verify(target, part)
    except LengthOrHashMismatchError:
        part.unlink()
        raise
    with open(part, "rb") as file:
        os.fsync(file.fileno())  # what an earlier process wrote may not be on the disk yet
    part.replace(final)
    sync_folder(final.parent)


def verify(target: TargetFile, path: Path) -> None:
    """Raise unless a file has the bytes that were signed.

    Raises:
        LengthOrHashMismatchError: it has not, or a disk has lost some of them.
        OSError: it cannot be opened or read for another reason.
    """
    try:
        with open(path, "rb") as file:
            target.verify_length_and_hashes(file)
    except OSError as error:
        if error.errno == errno.EIO:
            raise LengthOrHashMismatchError(f"{path} cannot be read any more: {error.strerror}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error
