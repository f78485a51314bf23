"""A large file that comes in parts: what has come lies in a `.part` file, and the next part begins where it ends.

- A cut at any byte loses nothing but what the disk had not taken yet.
- The file gets its name only once all of it has the hash that was signed; before that nothing may use it.
- What turns out to be other bytes is deleted, and begins anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from tuf.api.exceptions import DownloadLengthMismatchError, LengthOrHashMismatchError
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from edge.trust.errors import TrustError
from edge.trust.floor import sync_folder

REFRESH_S = 20.0
LEAST_BYTES_PER_S = 16 << 10


@runtime_checkable
class Resuming(Protocol):
    """A fetcher that can begin in the middle of a file."""

    def fetch_from(self, url: str, offset: int) -> Iterator[bytes]:
        """Yield what is under `url` from a byte on."""
        ...


def rest_of(fetcher: FetcherInterface, url: str, offset: int) -> Iterator[bytes]:
    """Yield what is under `url` from a byte on; of a fetcher that cannot begin there what comes before is dropped."""
    if isinstance(fetcher, Resuming):
        yield from fetcher.fetch_from(url, offset)
        return
    for chunk in fetcher.fetch(url):
        if offset < len(chunk):
            yield chunk[offset:]
        offset = max(offset - len(chunk), 0)


def longest_s(length: int) -> float:
    """Return how long so many bytes may take: as at the least rate that is borne, and a refresh."""
    return REFRESH_S + length / LEAST_BYTES_PER_S


def part_of(final: Path) -> Path:
    """Return where a file lies that has not come whole yet."""
    return final.with_name(f".{final.name}.part")


def arrived(final: Path) -> int:
    """Return how many bytes of a file are here."""
    for path in (final, part_of(final)):
        if path.exists():
            return path.stat().st_size
    return 0


def append(part: Path, chunks: Iterator[bytes], missing: int, most: int) -> int:
    """Add what comes to a file, some `most` bytes or all that is `missing`; return how many are missing then.

    What has come before a failure stays, unless the file has another length than was signed.

    Raises:
        DownloadLengthMismatchError: it ends too early or not where it should.
        TrustError: the disk does not take it.
    """
    got = 0
    try:
        with open(part, "ab") as file:
            try:
                while got < min(most, missing):
                    chunk = next(chunks, b"")
                    if not chunk:
                        raise DownloadLengthMismatchError(f"{part.name} ends {missing - got} bytes too early")
                    file.write(chunk)
                    got += len(chunk)
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
    part.replace(final)
    sync_folder(final.parent)


def verify(target: TargetFile, path: Path) -> None:
    """Raise unless a file has the bytes that were signed.

    Raises:
        LengthOrHashMismatchError: it has not.
    """
    with open(path, "rb") as file:
        target.verify_length_and_hashes(file)
