"""The coordinator's end of the network: what stations ask and say, as plain values in one queue.

- zenoh's own threads only put into the queue; whoever calls `take` answers, one question at a time. A slow callback
  would hold up every other subscription of the session.
- A question that is dropped is seen by the station as no answer: it keeps what it has and asks again.
"""

from __future__ import annotations

import json
import logging
import queue
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import zenoh

from coordinator.errors import CoordinatorError
from edge.wire import ALIVE, STATUS, key_of, parse_key

LOG = logging.getLogger("coordinator.network")
QUESTIONS = ("lease", "trials", "reconcile", "renew", "bundle/*", "blob/*", "trust/**")  # topics
MOST_WAITING_STATUSES = 1000
CONFIG: dict[str, Any] = {
    "mode": "router",
    "scouting/multicast/enabled": False,
    "scouting/gossip/enabled": False,
    "transport/shared_memory/enabled": False,  # a killed process leaves its segments behind
    "transport/link/tx/lease": 3000,  # ms; a station gives a link up after so long without a sign of life from here
    "transport/unicast/accept_timeout": 3000,
}


@dataclass(frozen=True)
class Tls:
    """PEM files with which both ends prove who they are."""

    authority: Path  # whose certificates are believed
    certificate: Path
    key: Path


class NetworkError(CoordinatorError):
    """The endpoint cannot be listened on."""


class Question:
    """Something that a station asked; it gets one answer, one no, or neither.

    `edge` is who may ask under its key, `topic` one of QUESTIONS, `name` what follows the topic: the sha256 of a bundle
    or of a recording, the path of a file.
    """

    def __init__(self, query: zenoh.Query) -> None:
        self._query: zenoh.Query | None = query
        self.key = str(query.key_expr)
        self.edge, self.topic, self.name = parse_key(self.key)
        self.payload = b"" if query.payload is None else query.payload.to_bytes()
        self.attachment = b"" if query.attachment is None else query.attachment.to_bytes()

    def answer(self, payload: bytes) -> None:
        """Send the answer, unless there was one before."""
        self._finish(lambda query: query.reply(self.key, payload))

    def refuse(self, sentence: str) -> None:
        """Say no and why, unless there was an answer before."""
        self._finish(lambda query: query.reply_err(sentence.encode()))

    def drop(self) -> None:
        """Leave it without an answer, unless there was one before."""
        self._finish(lambda query: None)

    def _finish(self, reply: Callable[[zenoh.Query], None]) -> None:
        query, self._query = self._query, None
        if query is None:
            return
        try:
            reply(query)
        except zenoh.ZError:
            LOG.info("the station that asked for %s has left; it will ask again", self.key)
        finally:
            query.drop()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class StatusSaid:
    """What a station says that it does, as it came."""

    edge: str
    payload: bytes


@dataclass(frozen=True)
class Presence:
    """A station's uplink came or went."""

    edge: str
    here: bool


Message = Question | StatusSaid | Presence


def free_endpoint() -> str:
    """Return a loopback endpoint that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{probe.getsockname()[1]}"


class Network:
    """A zenoh router inside this process."""

    def __init__(self, endpoint: str, tls: Tls | None = None) -> None:
        """Listen on `endpoint`, e.g. tcp/127.0.0.1:7447; tls/HOST:PORT wants `tls` and lets in nobody without one.

        Raises:
            NetworkError: it is taken, or is no endpoint.
        """
        config = zenoh.Config()
        for key, value in {**CONFIG, **_tls_config(tls), "listen/endpoints": [endpoint]}.items():
            config.insert_json5(key, json.dumps(value))
        try:
            self._session = zenoh.open(config)
        except zenoh.ZError as error:
            raise NetworkError(f"cannot listen on {endpoint}: {str(error).splitlines()[0]}; choose another") from error
        self.endpoint = endpoint
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._declared = [
            self._session.declare_subscriber(key_of("*", STATUS), self._status),
            self._session.liveliness().declare_subscriber(key_of("*", ALIVE), self._presence, history=True),
            *(self._session.declare_queryable(key_of("*", topic), self._question) for topic in QUESTIONS),
        ]

    def __enter__(self) -> Network:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; questions that nobody took stay without an answer."""
        self._session.close()  # type: ignore[no-untyped-call]

    def take(self, timeout_s: float) -> Message | None:
        """Return the oldest message, or None when none came within `timeout_s`."""
        try:
            return self._queue.get(timeout=timeout_s) if timeout_s > 0.0 else self._queue.get_nowait()
        except queue.Empty:
            return None

    # Called by zenoh's threads: enqueue, nothing else.

    def _question(self, query: zenoh.Query) -> None:
        try:
            self._queue.put(Question(query))
        except ValueError:  # asks under no edge's key, e.g. under all of them at once
            query.drop()  # type: ignore[no-untyped-call]

    def _status(self, sample: zenoh.Sample) -> None:
        # A status is worth nothing once the next one is there.
        if self._queue.qsize() < MOST_WAITING_STATUSES and (edge := _edge_of(sample)):
            self._queue.put(StatusSaid(edge, sample.payload.to_bytes()))

    def _presence(self, sample: zenoh.Sample) -> None:
        if edge := _edge_of(sample):
            self._queue.put(Presence(edge, sample.kind == zenoh.SampleKind.PUT))


def _edge_of(sample: zenoh.Sample) -> str:
    """Return whose key a sample came under, empty where it is nobody's."""
    try:
        return parse_key(str(sample.key_expr))[0]
    except ValueError:
        return ""


def _tls_config(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    prefix = "transport/link/tls"
    return {
        f"{prefix}/root_ca_certificate": str(tls.authority),
        f"{prefix}/enable_mtls": True,
        f"{prefix}/listen_certificate": str(tls.certificate),
        f"{prefix}/listen_private_key": str(tls.key),
    }
