"""Server-sent events, cut out of bytes as these come, so that a proxy can send them on unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LONGEST_EVENT = 4 << 20  # bytes; what has no end by then goes on unread
END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass
class Events:
    """What has come of a stream and is not yet a whole event."""

    waiting: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str]]:
        """Yield each event that is now whole: its bytes as they came, and its data lines joined."""
        self.waiting += data
        while found := END.search(self.waiting):
            yield self._take(found.end())
        if len(self.waiting) > LONGEST_EVENT:
            yield self._take(len(self.waiting))

    def rest(self) -> bytes:
        """Return what was left when the stream ended."""
        left = bytes(self.waiting)
        self.waiting.clear()
        return left

    def _take(self, size: int) -> tuple[bytes, str]:
        raw = bytes(self.waiting[:size])
        del self.waiting[:size]
        lines = raw.decode("utf-8", "replace").splitlines()
        return raw, "\n".join(line[5:].strip() for line in lines if line.startswith("data:"))
