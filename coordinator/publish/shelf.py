"""The public files of a TUF repository on disk: written so that a cut leaves the old state or the new one.

A file becomes visible under its name only when all of it is on the disk; what points to others is written last.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coordinator.publish.keys import sync_folder

LOCK = ".lock"
# metadata/7.snapshot.json, targets/policies/push_t/<hash>.<name>: never a hidden file, a folder above or a link.
PUBLIC = re.compile(r"(metadata|targets)(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}){1,4}", re.ASCII)


class Shelf:
    """The folder of one repository."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is touched."""
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LOCK, "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write these files, and return when all would outlast a power cut.

        All of them are on the disk before the first gets its name, so that they appear next to at once, in this order.
        """
        finals = [self.folder / path for path in files]
        for final, data in zip(finals, files.values(), strict=True):
            final.parent.mkdir(parents=True, exist_ok=True)
            with open(_unfinished(final), "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        for final in finals:
            _unfinished(final).replace(final)
        for folder in {final.parent for final in finals}:
            sync_folder(folder)

    def stamp(self, path: str) -> tuple[int, int, int] | None:
        """Return what tells one writing of a file from the next, None where there is no such file."""
        try:
            found = (self.folder / path).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def piece(self, path: str, offset: int = 0, most: int | None = None) -> tuple[int, bytes] | None:
        """Return the size of a public file and at most `most` of its bytes from `offset` on; None where there is none.

        Of an offset beyond the file's end the bytes are none.

        Raises:
            OSError: it cannot be read.
        """
        if not PUBLIC.fullmatch(path) or offset < 0:
            return None
        try:
            descriptor = os.open(self.folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # the last one is a link
                return None
            raise
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            return None
        with open(descriptor, "rb") as file:
            file.seek(min(offset, found.st_size))  # the system refuses numbers that no file can have
            return found.st_size, file.read() if most is None else file.read(most)

    def forget(self, keep: Collection[str], before_unix_s: float) -> int:
        """Delete public files that are not in `keep` and were written before a time; return how many.

        Files that were replaced a moment ago stay, as a station may be between asking for one and for the next.
        """
        gone = 0
        for top in ("metadata", "targets"):
            for path in (self.folder / top).rglob("*"):
                name = path.relative_to(self.folder).as_posix()
                if name not in keep and path.is_file() and path.stat().st_mtime < before_unix_s:
                    path.unlink()
                    gone += 1
        return gone


def _unfinished(path: Path) -> Path:
    return path.with_name(f".unfinished-{path.name}")
