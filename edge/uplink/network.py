"""The coordinator as the uplink sees it: questions that are answered or not, a status line and a sign of life.

- A question without an answer is a failure, never a "no": zenoh returns nothing at once while a link is down.
- The session is a peer that listens nowhere and looks for nobody; it opens without the coordinator and finds it later.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import zenoh

from edge.records import EDGE_NAME
from edge.uplink.settings import UplinkError
from edge.wire import ALIVE, MOST_BYTES, STATUS, key_of, parse_key
from edge.wire.tls import Tls, connecting

LOG = logging.getLogger("edge.uplink")
CONFIG: dict[str, Any] = {
    "mode": "peer",
    "listen/endpoints": [],
    "scouting/multicast/enabled": False,
    "scouting/gossip/enabled": False,
    "connect/retry": {"period_init_ms": 50, "period_max_ms": 200, "period_increase_factor": 1.5},
    "transport/shared_memory/enabled": False,  # a killed process leaves its segments behind
    # A link that is dead without saying so is given up after 3 s, here and there, and so is one that does not open.
    "transport/link/tx/lease": 3000,
    "transport/unicast/open_timeout": 3000,
    "transport/link/rx/max_message_size": MOST_BYTES,
}
TIMEOUT_S = 3.0
FIRST_DOUBT_S, LONGEST_DOUBT_S = 10.0, 600.0
BULK = "blob"  # the topic


class NoAnswer(UplinkError):
    """The coordinator is not there, or did not answer in time."""


class Refused(UplinkError):
    """The coordinator answered, and the answer is no."""


class Line:
    """A zenoh session to the coordinator, to ask through."""

    def __init__(self, endpoint: str, settings: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        """Open the session, whether the coordinator is there or not.

        Args:
            settings: what zenoh is told besides, see `edge.wire.tls`.
            clock: whose seconds say when a session has been of no use for too long.

        Raises:
            UplinkError: the endpoint is not one.
        """
        self.endpoint = endpoint
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()  # of what `_open` sets
        self._hear()
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the session, for good."""
        with self._lock:
            self._doubt_at_s = math.inf
            self._session.close()  # type: ignore[no-untyped-call]

    def ask(
        self, key: str, payload: bytes = b"", attachment: bytes | None = None, timeout_s: float = TIMEOUT_S
    ) -> bytes:
        """Return the coordinator's answer to a question under `key`, see `edge.wire.key_of`.

        Raises:
            NoAnswer: none came.
            Refused: it was an error, whose text is the message.
        """
        # Each priority has a queue of its own: nothing waits behind a recording.
        priority = zenoh.Priority.BACKGROUND if parse_key(key)[1] == BULK else zenoh.Priority.DATA
        try:
            for reply in self._session.get(
                key, payload=payload, attachment=attachment, timeout=timeout_s, priority=priority
            ):
                text = "" if reply.err is None else reply.err.payload.to_bytes().decode(errors="replace")
                if text == "Timeout":  # zenoh's own, from this side
                    break
                self._hear()
                if reply.ok is not None:
                    return reply.ok.payload.to_bytes()
                raise Refused(text)
        except zenoh.ZError as error:
            self._doubt()
            raise NoAnswer(f"no answer to {key}: {error}") from error
        self._doubt()
        raise NoAnswer(f"no answer to {key}")

    def _hear(self) -> None:
        self._patience_s = FIRST_DOUBT_S
        self._doubt_at_s = self._clock() + FIRST_DOUBT_S

    def _doubt(self) -> None:
        """Open the session anew where it has been of no use for long, and rarer each time that this is of no use.

        - A link that is made while the coordinator closes its end for a new one, as it does for a new edge, can be left
          alive with nobody behind it.
        - A session whose link comes and goes can be left without one for minutes, although the coordinator is there.
        """
        with self._lock:
            now_s = self._clock()
            if now_s < self._doubt_at_s:
                return
            if list(self._session.info.routers_zid()):
                LOG.warning("linked to %s without an answer for %.0f s; linking anew", self.endpoint, self._patience_s)
            self._patience_s = min(2.0 * self._patience_s, LONGEST_DOUBT_S)  # zenoh keeps 14 kB of each session
            self._doubt_at_s = now_s + self._patience_s
            try:
                self._session.close()  # type: ignore[no-untyped-call]
                self._open()
            except (zenoh.ZError, UplinkError) as error:
                LOG.warning("cannot open a session to %s anew; it is tried again later: %s", self.endpoint, error)
                with suppress(zenoh.ZError):  # half open it would only look alive
                    self._session.close()  # type: ignore[no-untyped-call]

    def _open(self) -> None:
        config = zenoh.Config()
        try:
            for key, value in {**CONFIG, **self._settings, "connect/endpoints": [self.endpoint]}.items():
                config.insert_json5(key, json.dumps(value))
            self._session = zenoh.open(config)
        except zenoh.ZError as error:
            raise UplinkError(
                f"cannot use the coordinator's endpoint {self.endpoint!r}; in station.toml, write it as tcp/HOST:PORT "
                f"or tls/HOST:PORT ({' '.join(str(error).split())})"
            ) from error


class Coordinator(Line):
    """The line of a station: it shows that the station is there, and says what it does."""

    def __init__(self, endpoint: str, edge: str, tls: Tls | None = None) -> None:
        """Open the session and raise the sign of life of `edge`; an endpoint tls/HOST:PORT wants `tls`.

        Raises:
            UplinkError: the endpoint is not one, or `edge` is not a name.
        """
        if not EDGE_NAME.fullmatch(edge):
            raise UplinkError(f"{edge!r} is not a name for an edge; in station.toml, use only letters, digits, - and _")
        self._edge = edge
        super().__init__(endpoint, {} if tls is None else connecting(tls.authority, tls))

    def publish_status(self, payload: bytes) -> None:
        """Send a status to whoever listens; it is lost where nobody does."""
        with self._lock, suppress(zenoh.ZError):  # as where the session could not be opened anew
            self._status.put(payload)

    def _open(self) -> None:
        super()._open()
        self._alive = self._session.liveliness().declare_token(key_of(self._edge, ALIVE))
        self._status = self._session.declare_publisher(
            key_of(self._edge, STATUS),
            congestion_control=zenoh.CongestionControl.DROP,
            priority=zenoh.Priority.INTERACTIVE_HIGH,
        )
