"""A fetcher around another that ends: at a number of bytes, at a deadline, and with python-tuf's own exceptions.

python-tuf bounds the bytes of each file but not the time, in which a byte now and then keeps a refresh going for ever;
and where a snapshot says how long a role is, it bounds that by nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from tuf.api.exceptions import DownloadError, DownloadLengthMismatchError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

METADATA_URL, TARGETS_URL = "metadata/", "targets/"


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


class Bounded(FetcherInterface):
    """Another fetcher, with limits."""

    def __init__(
        self, inner: FetcherInterface, folder: Path, most_metadata_bytes: int, monotonic: Callable[[], float]
    ) -> None:
        """Fetch by `inner`; what is large lies in `folder` meanwhile."""
        self._inner = inner
        self._folder = folder
        self._most_metadata_bytes = most_metadata_bytes
        self._monotonic = monotonic
        self._deadline_s = float("-inf")
        self.newest: dict[str, bytes] = {}  # url -> what came under it, of metadata

    def allow(self, seconds: float) -> None:
        """Let everything that is fetched from now on take `seconds` altogether."""
        self._deadline_s = self._monotonic() + seconds
        self.newest.clear()

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """Yield a temporary file of what is under `url`, at most `max_length` bytes."""
        # On the partition of the final place, as the machine's own may be small, or memory.
        with tempfile.TemporaryFile(dir=self._folder) as file:
            for chunk in self._limited(url, max_length):
                file.write(chunk)
            file.seek(0)
            yield file

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return what is under `url`, at most `max_length` bytes."""
        data = self.newest[url] = b"".join(self._limited(url, max_length))
        return data

    def fetch_from(self, url: str, offset: int, max_length: int) -> Iterator[bytes]:
        """Yield what is under `url` from a byte on, at most `max_length` bytes."""
        return self._at_most(url, self._checked(url, lambda: rest_of(self._inner, url, offset)), max_length)

    def _limited(self, url: str, max_length: int) -> Iterator[bytes]:
        if url.startswith(METADATA_URL):
            max_length = min(max_length, self._most_metadata_bytes)
        return self._at_most(url, self.fetch(url), max_length)

    def _at_most(self, url: str, chunks: Iterator[bytes], max_length: int) -> Iterator[bytes]:
        length = 0
        for chunk in chunks:
            length += len(chunk)
            if not length <= max_length:
                raise DownloadLengthMismatchError(f"{url} has more than the {max_length} bytes that it may have")
            yield chunk

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._checked(url, lambda: self._inner.fetch(url))

    def _checked(self, url: str, fetch: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        try:
            self._check_time(url)
            for chunk in fetch():
                self._check_time(url)
                yield chunk
        except DownloadError:
            raise
        except Exception as error:  # a fetcher may raise anything, and none of it says that a file does not exist
            raise DownloadError(f"cannot fetch {url}: {error!r:.80}") from error

    def _check_time(self, url: str) -> None:
        if not self._monotonic() <= self._deadline_s:
            raise SlowRetrievalError(f"{url} takes too long")
