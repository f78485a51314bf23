"""The coordinator's end of the network: what stations ask and say, as plain values in one queue.

- zenoh's own threads only put into the queue; whoever calls `take` answers, one question at a time. A slow callback
  would hold up every other subscription of the session.
- Of each edge only so much may wait; what it asks beyond that is dropped.
- A question that is dropped is seen by the station as no answer: it keeps what it has and asks again.
- With certificates everybody is held to what `coordinator.access` allows. Without, whoever reaches the endpoint may say
  anything: that is for stations on this machine.
- The door is a second endpoint for those who have no certificate yet; what they ask comes out of the same queue.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import zenoh

from coordinator.access import QUESTIONS, access_control, door_access, door_size_limits, is_console, size_limits
from coordinator.errors import CoordinatorError
from coordinator.waiting import Waiting
from edge.wire import ALIVE, ENROL, MOST_BYTES, STATUS, key_of, parse_key
from edge.wire.tls import Tls, listening

LOG = logging.getLogger("coordinator.network")
MOST_WAITING_STATUSES = 1000
MOST_WAITING_AT_THE_DOOR = 32
CONFIG: dict[str, Any] = {
    "mode": "router",
    "scouting/multicast/enabled": False,
    "scouting/gossip/enabled": False,
    "transport/shared_memory/enabled": False,  # a killed process leaves its segments behind
    "transport/link/tx/lease": 3000,  # ms; a station gives a link up after so long without a sign of life from here
    "transport/unicast/accept_timeout": 3000,
    "transport/link/rx/max_message_size": MOST_BYTES,
    "scouting/delay": 0,  # nobody is looked for
}
DOOR_CONFIG: dict[str, Any] = {
    **CONFIG,
    "transport/unicast/max_sessions": 32,
    "transport/link/rx/max_message_size": 64 << 10,
}


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

    @property
    def size(self) -> int:
        """How many bytes it says."""
        return len(self.payload) + len(self.attachment)

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
    """A zenoh router inside this process, and a second one for the door."""

    def __init__(
        self,
        endpoint: str,
        tls: Tls | None = None,
        edges: Collection[str] = (),
        consoles: Collection[str] = (),
        door: str | None = None,
    ) -> None:
        """Listen on `endpoint`, e.g. tcp/127.0.0.1:7447; tls/HOST:PORT wants `tls` and lets in nobody without one.

        Args:
            edges: the common names of the stations that may talk; with `tls` all others are denied everything.
            consoles: the common names, such as console:ann, of who may listen to all stations.
            door: the tls endpoint at which those ask who have no certificate.

        Raises:
            NetworkError: it is taken, or is no endpoint.
        """
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._waiting = Waiting()
        self._at_the_door: queue.Queue[Question] = queue.Queue(MOST_WAITING_AT_THE_DOOR)
        self._tls, self._edges, self._consoles = tls, frozenset(edges), frozenset(consoles)
        self.endpoint, self.door = endpoint, door
        self._shown = b""
        self._shown = self._newest_certificate()
        self._session = self._open(self._edges)
        self._door_session: zenoh.Session | None = None
        if door is not None:
            assert tls is not None, "a door is a tls endpoint"
            try:
                self._door_session = self._open_door(door, tls)
            except NetworkError:
                self.close()
                raise

    def __enter__(self) -> Network:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; questions that nobody took stay without an answer."""
        self._session.close()  # type: ignore[no-untyped-call]
        if self._door_session is not None:
            self._door_session.close()  # type: ignore[no-untyped-call]

    def admit(self, edges: Collection[str]) -> None:
        """Let just these stations talk from now on, and show the certificate that is there now.

        zenoh reads both when a session opens, so a change closes all links; stations come back by themselves,
        and what they were asking is asked again.

        Raises:
            NetworkError: the endpoint is taken meanwhile.
        """
        before, wanted = self._edges, frozenset(edges)
        newest = self._newest_certificate()
        if wanted == before and newest == self._shown:
            return
        self._session.close()  # type: ignore[no-untyped-call]
        self._session = self._open(wanted)
        if newest != self._shown and self.door is not None and self._tls is not None:
            if self._door_session is not None:
                self._door_session.close()  # type: ignore[no-untyped-call]
            self._door_session = self._open_door(self.door, self._tls)
            LOG.info("a new certificate is shown at %s and %s", self.endpoint, self.door)
        self._edges, self._shown = wanted, newest  # not before: where opening fails it is tried again
        for edge in itertools.filterfalse(is_console, before - wanted):
            self._queue.put(Presence(edge, False))

    def _newest_certificate(self) -> bytes:
        """Return the certificate to show: the one that is shown already while a new one is not there whole."""
        try:
            return b"" if self._tls is None else self._tls.certificate.read_bytes()
        except OSError:
            return self._shown

    def take(self, timeout_s: float) -> Message | None:
        """Return the oldest message, or None when none came within `timeout_s`."""
        try:
            message = self._queue.get(timeout=timeout_s) if timeout_s > 0.0 else self._queue.get_nowait()
        except queue.Empty:
            return self._take_at_the_door()
        if isinstance(message, Question) and self._waiting.leave(message.edge, message.size):
            LOG.warning("%s asked more than may wait; some of it was dropped, it will ask again", message.edge)
        return message

    def _take_at_the_door(self) -> Message | None:
        """Return who waits there: strangers come after everybody else."""
        try:
            return self._at_the_door.get_nowait()
        except queue.Empty:
            return None

    def _open(self, edges: Collection[str]) -> zenoh.Session:
        guarded = {}
        if self._tls is not None:
            rules = access_control(edges, self._consoles)
            guarded = {**listening(self._tls), "access_control": rules, "low_pass_filter": size_limits()}
        session = _open_session({**CONFIG, **guarded, "listen/endpoints": [self.endpoint]})
        self._declared = [
            session.declare_subscriber(key_of("*", STATUS), self._status),
            session.liveliness().declare_subscriber(key_of("*", ALIVE), self._presence, history=True),
            *(session.declare_queryable(key_of("*", topic), self._question) for topic in QUESTIONS),
        ]
        return session

    def _open_door(self, endpoint: str, tls: Tls) -> zenoh.Session:
        guarded = {**listening(tls, mutual=False), "access_control": door_access()}
        session = _open_session({
            **DOOR_CONFIG, **guarded, "low_pass_filter": door_size_limits(), "listen/endpoints": [endpoint],
        })  # fmt: skip
        self._knocking = session.declare_queryable(key_of("*", ENROL), self._knock)
        return session

    # Called by zenoh's threads: enqueue, nothing else.

    def _question(self, query: zenoh.Query) -> None:
        try:
            question = Question(query)
        except ValueError:  # asks under no edge's key, e.g. under all of them at once
            query.drop()  # type: ignore[no-untyped-call]
            return
        if self._waiting.enter(question.edge, question.size):
            self._queue.put(question)
        else:
            question.drop()

    def _knock(self, query: zenoh.Query) -> None:
        try:
            self._at_the_door.put_nowait(Question(query))
        except (ValueError, queue.Full):  # strangers cannot fill this machine's memory
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


def _open_session(values: Mapping[str, Any]) -> zenoh.Session:
    """Open a session.

    Raises:
        NetworkError: its endpoint is taken, or is none.
    """
    config = zenoh.Config()
    for key, value in values.items():
        config.insert_json5(key, json.dumps(value))
    try:
        return zenoh.open(config)
    except zenoh.ZError as error:
        [endpoint] = values["listen/endpoints"]
        raise NetworkError(f"cannot listen on {endpoint}: {str(error).splitlines()[0]}; choose another") from error
