"""Fetches the lab's TUF repository from the coordinator, a piece a question.

A missing file is the error reply "404" and nothing else: no answer says nothing, or a short cut of the network would
read as "there is no newer root" and stop the rotation of keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edge.uplink.network import Coordinator, NoAnswer, Refused
from edge.wire import key_of
from edge.wire.targets import MOST_PIECE_BYTES, NOT_FOUND, TRUST


class ZenohFetcher(FetcherInterface):
    """Asks the coordinator under this edge's own key."""

    def __init__(self, coordinator: Coordinator, edge: str) -> None:
        """Ask `coordinator` as `edge`."""
        self._coordinator = coordinator
        self._edge = edge

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.fetch_from(url, 0)

    def fetch_from(self, url: str, offset: int) -> Iterator[bytes]:
        """Yield a file from a byte on."""
        while True:
            total, data = self._piece(url, offset)
            if data:
                yield data
            offset += len(data)
            if offset >= total:
                return
            if not data:
                raise DownloadError(f"the coordinator stopped in the middle of {url}")

    def _piece(self, url: str, offset: int) -> tuple[int, bytes]:
        # Raised from inside the generator, so nothing turns other exceptions into these.
        attachment = msgpack.packb({"offset": offset})
        try:
            answer = self._coordinator.ask(key_of(self._edge, f"{TRUST}/{url}"), attachment=attachment)
            piece = msgpack.unpackb(answer)
            total, data = piece["total"], piece["data"]
        except NoAnswer as error:
            raise DownloadError(str(error)) from error
        except Refused as error:
            if str(error) == NOT_FOUND:
                raise DownloadHTTPError(f"{url} is not in the repository", int(NOT_FOUND)) from error
            raise DownloadError(f"the coordinator refused {url}: {error}") from error
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise DownloadError(f"not an answer to {url}: {error!r:.80}") from error
        if not (isinstance(total, int) and isinstance(data, bytes) and len(data) <= MOST_PIECE_BYTES):
            raise DownloadError(f"not a piece of {url}")
        return total, data
