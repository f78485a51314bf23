"""Takes recordings piece by piece and keeps each under the hash of its content: all of one is there, or nothing.

A piece says where it belongs; one that does not fit is passed over, and the answer says from where to go on. So a
transfer that broke off, on whichever side, is resumed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from coordinator.errors import CoordinatorError

MOST_BYTES = 256 << 20
SUFFIX = ".mcap"


class BlobRefused(CoordinatorError):
    """The bytes are not those that the name promises, or are too many."""


class BlobNotKept(CoordinatorError):
    """The disk did not take a recording; the station still has it."""


class Blobs:
    """A folder of recordings, finished and unfinished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Return where a recording stands once it is whole."""
        return self._folder / f"{sha256}{SUFFIX}"

    def take(self, sha256: str, size: int, offset: int, piece: bytes) -> int:
        """Take the bytes from `offset` on and return how many are here; `size` once the whole is on the disk.

        Raises:
            BlobRefused: too large, more than `size`, or the whole has another hash and is dropped.
            BlobNotKept: it could not be written.
        """
        if not 0 < size <= MOST_BYTES:
            raise BlobRefused(f"a recording of {size} bytes; 1 to {MOST_BYTES} are kept")
        unfinished = self.path(sha256).with_suffix(".part")
        try:
            if self.path(sha256).exists():
                self._sync_folder()  # whoever renamed it may have been killed before this
                return size
            here = unfinished.stat().st_size if unfinished.exists() else 0
            if here < size:
                if offset != here or not piece:
                    return here
                if here + len(piece) > size:
                    raise BlobRefused(f"more than the {size} bytes that were promised")
                with open(unfinished, "ab") as out:
                    out.write(piece)
                if here + len(piece) < size:
                    return here + len(piece)
            self._finish(unfinished, sha256)  # also where whoever wrote the last piece was killed before this
        except OSError as error:
            raise BlobNotKept(
                f"cannot keep a recording in {self._folder}: {error.strerror}; free space there"
            ) from error
        return size

    def _finish(self, unfinished: Path, sha256: str) -> None:
        with open(unfinished, "rb") as whole:
            os.fsync(whole.fileno())
            found = hashlib.file_digest(whole, "sha256").hexdigest()
        if found != sha256:
            unfinished.unlink()
            raise BlobRefused("the content does not have the hash that its name promises; send it again")
        unfinished.rename(self.path(sha256))
        self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
