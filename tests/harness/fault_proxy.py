"""A TCP proxy that does to links what real networks do.

Usage: python tests/harness/fault_proxy.py HOST:PORT

It prints the port that it listens on. Each line on standard input says what happens from there on, and is answered,
once it holds, by one JSON line with what was done so far: links taken, bytes carried, by how many sends, and bytes
swallowed. It ends with its input.

- `pass`: bytes go both ways.
- `refuse`: every link is cut and a new one is refused.
- `swallow up|down|both`: bytes to the target, from it or either vanish, and nobody is told. A direction of a link that
  lost some stays dead, also after `pass`: as behind a router that has forgotten it.
- `hold`: bytes wait for `pass`, as on a link whose packets are sent again and again.
- `crumbs`: every byte is sent on its own.
- `delay MS`: every byte comes that much later.
- `after BYTES ...`: one of these, once so many more bytes were carried.
- `count`: what it was.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TextIO

READ_BYTES = 65536
MOST_WAITING = 1 << 20  # bytes in one direction; then nothing more is read
CRUMBS_A_TURN = 4096
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST, as bytes that nobody will read are thrown away
COUNTS = ("links", "carried", "sends", "swallowed")
DIRECTIONS = {"up": ("up",), "down": ("down",), "both": ("up", "down")}


@dataclass(eq=False)
class Direction:
    """Half a link."""

    name: str
    source: socket.socket
    sink: socket.socket
    waiting: deque[tuple[float, memoryview]] = field(default_factory=deque)  # when due, what
    waiting_bytes: int = 0
    ended: bool = False
    dead: bool = False


class Proxy:
    """All links, and what is done to them."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._keeper = _bound(0)  # holds the port while nobody listens on it
        self.port = int(self._keeper.getsockname()[1])
        self._listener: socket.socket | None = None
        self._links: list[tuple[Direction, Direction]] = []
        self._rule, self._argument = "pass", ""
        self.links = self.carried = self.sends = self.swallowed = 0
        self.set("pass")

    def set(self, rule: str, argument: str = "") -> None:
        """Do from here on as `rule` says."""
        self._rule, self._argument = rule, argument
        if rule == "refuse":
            for link in list(self._links):
                self._cut(link)
            if self._listener is not None:
                self._listener.close()
                self._listener = None
        elif self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen()

    def turn(self, also: TextIO) -> bool:
        """Carry what can be carried, waiting a moment for something to do; return whether `also` can be read."""
        halves = [half for link in self._links for half in link]
        now_s = time.monotonic()
        held = self._rule == "hold"
        readable = {half.source: half for half in halves if not half.ended and half.waiting_bytes < MOST_WAITING}
        due = {half.sink: half for half in halves if half.waiting and half.waiting[0][0] <= now_s and not held}
        later_s = [half.waiting[0][0] - now_s for half in halves if half.waiting and half.waiting[0][0] > now_s]
        listening = [self._listener] if self._listener is not None else []
        looked_at: list[TextIO | socket.socket] = [also, *listening, *readable]
        ready, writable, _ = select.select(looked_at, [*due], [], min([0.5, *later_s]))
        for sink in writable:
            self._send(due[sink])
        for source in ready:
            if source in readable:
                self._receive(readable[source], now_s)
            elif source in listening:
                self._take()
        for link in [] if held else list(self._links):
            finished = [half.ended and not half.waiting for half in link]
            if all(finished) or any(end and not half.dead for end, half in zip(finished, link, strict=True)):
                self._cut(link)
        return also in ready

    def _take(self) -> None:
        assert self._listener is not None
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        for side in (near, far):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append((Direction("up", near, far), Direction("down", far, near)))
        self.links += 1

    def _receive(self, half: Direction, now_s: float) -> None:
        try:
            data = half.source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        half.ended = not data
        if self._rule == "swallow" and half.name in DIRECTIONS[self._argument]:
            half.dead = True
        if half.dead:
            self.swallowed += len(data)
        elif data:
            delay_s = float(self._argument) / 1e3 if self._rule == "delay" else 0.0
            half.waiting.append((now_s + delay_s, memoryview(data)))
            half.waiting_bytes += len(data)

    def _send(self, half: Direction) -> None:
        due_s, data = half.waiting.popleft()
        sent = 0
        try:
            if self._rule == "crumbs":
                while sent < min(len(data), CRUMBS_A_TURN):
                    sent += half.sink.send(data[sent : sent + 1])
                    self.sends += 1
            else:
                sent = half.sink.send(data)
                self.sends += 1
        except BlockingIOError:
            pass
        except OSError:  # whoever was to read it is gone
            sent, half.ended = len(data), True
        if sent < len(data):
            half.waiting.appendleft((due_s, data[sent:]))
        half.waiting_bytes -= sent
        self.carried += sent

    def _cut(self, link: tuple[Direction, Direction]) -> None:
        self._links.remove(link)
        for half in link:
            with suppress(OSError):
                if self._rule == "refuse":
                    half.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            half.source.close()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def main(target: str) -> None:
    """Carry until standard input ends."""
    host, _, port = target.rpartition(":")
    proxy = Proxy((host, int(port)))
    print(proxy.port, flush=True)
    asked: list[str] = []  # a rule that waits for its bytes
    from_bytes = 0
    while True:
        if proxy.turn(sys.stdin):
            words = sys.stdin.readline().split()
            if not words:
                return
            from_bytes, asked = (proxy.carried + int(words[1]), words[2:]) if words[0] == "after" else (0, words)
        if asked and proxy.carried >= from_bytes:
            if asked != ["count"]:
                proxy.set(*asked)
            asked = []
            print(json.dumps({name: getattr(proxy, name) for name in COUNTS}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
