"""The only address that an agent can reach: a socket that passes its questions on to the model, counted and paid for.

- It holds the key; the agent has a placeholder. One proxy serves one lane.
- Before a call its highest price is set aside, or the call is refused with a sentence. After it the row of the ledger
  is written before the last byte of the answer goes on, so that no paid answer is ever missing from the ledger.
- An agent that is killed while it listens, and an answer that breaks off, are booked with what was said and a guess of
  the rest, apart from each other.
- What is asked of the lab itself goes through it too, where there is somebody to answer; it costs nothing.
- `fault` says why nobody should go on asking: a refused key, a vendor that fails again and again, a ledger that fails.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from coordinator.agents.asks import Ask, AskRefused
from coordinator.agents.calls import Book, Call, Patience, Provider
from coordinator.agents.exchange import Handler
from coordinator.agents.prices import FREE, Price, Prices
from coordinator.agents.purse import Purse

LOG = logging.getLogger(__name__)
SETTLE_S = 5.0  # for calls in the air to be booked when the proxy ends


class ModelProxy:
    """A lane's way to its model."""

    def __init__(
        self,
        path: Path,
        lane: str,
        provider: Provider,
        purse: Purse,
        prices: Prices,
        book: Book,
        patience: Patience | None = None,
    ) -> None:
        """Prepare to listen on a unix socket at `path`; `book` must have kept a row for good when it returns."""
        self.path, self.lane, self.provider, self.purse = path, lane, provider, purse
        self.patience = patience or Patience()
        self.fault: str | None = None
        self.heard_s = time.monotonic()  # when anything last went through
        self.lab: Callable[[bytes], str] | None = None  # what answers for the lab
        self._prices, self._book = prices, book
        self._lock = threading.Lock()
        self._failures = 0
        self.hung_up = False
        self._in_air: dict[object, socket.socket | None] = {}
        self._server: _Server | None = None

    def __enter__(self) -> ModelProxy:
        self.path.unlink(missing_ok=True)
        self._server = _Server(self)
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"proxy {self.lane}", daemon=True
        ).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.shutdown()
        self.hang_up()
        self._server.server_close()
        self.path.unlink(missing_ok=True)

    def alive(self) -> None:
        """Note that the agent waits for something: that is no silence."""
        self.heard_s = time.monotonic()

    def hang_up(self) -> None:
        """End the calls that are in the air, and wait until they are booked: nobody listens to them any more."""
        self.hung_up = True
        until_s = time.monotonic() + SETTLE_S
        while self._shut_all():
            if time.monotonic() > until_s:
                LOG.warning("%s: a call was still in the air when nobody listened any more", self.lane)
                break
            time.sleep(0.01)
        self.hung_up = False

    def price(self, model: str) -> Price:
        """Return what a model costs.

        Raises:
            AskRefused: its price is unknown and there is a budget in money.
        """
        price = self._prices.of(model, datetime.now(UTC).date())
        if price is None and self.purse.left(time.monotonic()).nano_usd is not None:
            raise AskRefused(
                f"no price is known for {model!r:.80}, so no budget in money can be kept; add it to a prices.toml"
            )
        return price or FREE

    def in_air(self, call: object, line: socket.socket | None) -> None:
        """Note a call that is on its way, and the line that it is on."""
        with self._lock:
            self._in_air[call] = line

    def landed(self, call: object) -> None:
        """Note that it is over and booked."""
        with self._lock:
            self._in_air.pop(call, None)

    def keep(self, ask: Ask, call: Call) -> None:
        """Write a call's row.

        Raises:
            Exception: whatever the ledger raises; nothing more is sent on then.
        """
        try:
            self._book(call)
        except Exception:
            self.fault = "the ledger of tokens cannot be written"
            raise
        finally:
            LOG.info("%s: %s %s, %d tokens, %s", self.lane, ask.model, call.status, call.told.total, call.ended)

    def _shut_all(self) -> bool:
        """Shut every open line; return whether a call is in the air still."""
        with self._lock:
            for line in self._in_air.values():
                if line is not None:
                    with contextlib.suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)
            return bool(self._in_air)

    def answered(self, status: int) -> None:
        """Note how the vendor answered, 0 for not at all, and give up where it is in vain to go on."""
        with self._lock:
            self._failures = 0 if 0 < status < 400 else self._failures + 1
            if status in (401, 403):
                self.fault = f"the model's vendor refuses the key ({status})"
            elif status == 402:
                self.fault = "the account at the model's vendor is empty (402)"
            elif self._failures >= self.patience.failures:
                how = f"the last time with {status}" if status else "the last time without an answer"
                self.fault = f"the model's vendor failed {self._failures} times in a row, {how}"


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32
    most_at_once = 64  # connections; an agent has a handful

    def __init__(self, proxy: ModelProxy) -> None:
        self.proxy = proxy
        self._free = threading.BoundedSemaphore(self.most_at_once)
        super().__init__(str(proxy.path), Handler)
        proxy.path.chmod(0o600)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Return whether one more connection is served; one too many is closed."""
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        LOG.debug("%s: a connection of the agent's ended early", self.proxy.lane, exc_info=True)
