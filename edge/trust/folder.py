"""Fetches a repository from a folder: a USB stick, a share or a run's own `trust/`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

CHUNK_BYTES = 256 << 10
TIMESTAMP = "metadata/timestamp.json"
NOT_FOUND = 404


class FolderFetcher(FetcherInterface):
    """Reads plain files below one folder."""

    def __init__(self, folder: Path) -> None:
        """Read below `folder`, which holds `metadata/` and `targets/`."""
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.fetch_from(url, 0)

    def fetch_from(self, url: str, offset: int) -> Iterator[bytes]:
        """Yield a file from a byte on."""
        try:
            yield from self._read(url, offset)
        except FileNotFoundError:
            # A stick that was pulled out has no files either, which says nothing about the repository.
            if not (self._folder / TIMESTAMP).is_file():
                raise DownloadError(f"there is no repository in {self._folder}") from None
            raise DownloadHTTPError(f"{url} is not in {self._folder}", NOT_FOUND) from None
        except OSError as error:
            raise DownloadError(f"cannot read {url} in {self._folder}: {error.strerror}") from error

    def _read(self, url: str, offset: int) -> Iterator[bytes]:
        if any(part in ("", ".", "..") for part in url.split("/")):
            raise DownloadError(f"{url!r} is not a file of a repository")
        descriptor = os.open(self._folder / url, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DownloadError(f"{url} in {self._folder} is not a plain file")
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
