"""An emulated coordinator on a loopback that says what a test wants, and a station's courier that asks it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zenoh

from coordinator.network import free_endpoint
from coordinator.publish.repository import Repository
from edge.ledger import Ledger
from edge.records import Assignment, Lease, Outcome, Trial, encode
from edge.trust.folder import FolderFetcher
from edge.uplink.courier import Courier
from edge.uplink.network import Coordinator, NoAnswer
from edge.uplink.settings import Settings
from edge.uplink.supply import Supply
from edge.wire import key_of, parse_key
from edge.wire.targets import NOT_FOUND, PIECE_BYTES, TRUST
from tests.harness.lab_folder import TASK, LabFolder, supplied

NOW_S = 1_700_000_000.0
EDGE = "station-1"
LONG_S = 60.0  # bound of a wait; nothing is measured by it
TRIAL = Trial(
    edge=EDGE, epoch="", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle="b" * 64,
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.SUCCESS, cause="", detail="done", progress=1.0,
    measures={"coverage": 0.97}, achieved_start={}, reset_s=9.0, reset_tries=1, trial_s=20.0, policy_steps=600,
    wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5, station_hash="5" * 64,
    calibration_hash="6" * 64, software="s", recording="",
)  # fmt: skip
NOTHING_KNOWN = {
    "high": 0, "missing": [], "replicated": [], "recordings_lost": [], "recordings_replicated": [],
}  # fmt: skip
Reply = Callable[[bytes], bytes | None]  # None leaves the question open


@dataclass
class Desk:
    """What an emulated coordinator answers, and what it was asked."""

    replies: dict[str, Reply] = field(default_factory=dict)
    repository: Repository | None = None  # whose files are answered with
    unanswered: tuple[str, ...] = ()  # questions about files whose path begins so are left open
    asked: list[tuple[str, bytes, bytes]] = field(default_factory=list)  # key, payload, attachment
    statuses: list[Any] = field(default_factory=list)
    here: threading.Event = field(default_factory=threading.Event)
    away: threading.Event = field(default_factory=threading.Event)
    status_came: threading.Event = field(default_factory=threading.Event)
    trial_came: threading.Event = field(default_factory=threading.Event)

    def answer(self, query: zenoh.Query) -> None:
        """Answer a question."""
        key = str(query.key_expr)
        payload, attachment = (b"" if part is None else part.to_bytes() for part in (query.payload, query.attachment))
        self.asked.append((key, payload, attachment))
        try:
            said = self._say(key, payload, attachment)
        except LookupError as error:
            query.reply_err(str(error.args[0]).encode())
        else:
            if said is not None:
                query.reply(key, said)
        finally:
            query.drop()  # type: ignore[no-untyped-call]
        if key == key_of(EDGE, "trials"):
            self.trial_came.set()

    def _say(self, key: str, payload: bytes, attachment: bytes) -> bytes | None:
        _, topic, name = parse_key(key)
        if topic != TRUST or self.repository is None:
            return self.replies.get(key, refuse("nobody knows"))(payload)
        if name.startswith(self.unanswered):
            return None
        found = self.repository.piece(name, msgpack.unpackb(attachment)["offset"], PIECE_BYTES)
        if found is None:
            raise LookupError(NOT_FOUND)
        return bytes(msgpack.packb({"total": found[0], "data": found[1]}))

    def alive(self, sample: zenoh.Sample) -> None:
        """See a sign of life come or go."""
        (self.here if sample.kind == zenoh.SampleKind.PUT else self.away).set()

    def status(self, sample: zenoh.Sample) -> None:
        """Hear a status."""
        self.statuses.append((str(sample.key_expr), sample.payload.to_bytes()))
        self.status_came.set()

    def keys(self, topic: str) -> list[str]:
        """Return the keys of a topic that were asked for."""
        return [key for key, _, _ in self.asked if key.startswith(key_of(EDGE, topic))]

    def forget(self) -> None:
        """Begin anew."""
        self.replies.clear()
        self.asked.clear()
        self.repository, self.unanswered = None, ()


def refuse(sentence: str) -> Reply:
    """Return the reply that says no."""

    def reply(payload: bytes) -> bytes:
        raise LookupError(sentence)

    return reply


def say(value: object) -> Reply:
    """Return the reply that says always the same."""
    return lambda payload: value if isinstance(value, bytes) else bytes(msgpack.packb(value))


def leases(*items: Lease) -> Reply:
    """Return the reply that hands out work."""
    return say([encode(item) for item in items])


def open_question(payload: bytes) -> None:
    """Leave a question without an answer."""
    return


def lease(*names: str, lease_id: str = "l1", sha256: str = "b" * 64, **values: Any) -> Lease:
    """Return a lease of one assignment a name."""
    items = tuple(Assignment(name, sha256, "dev-1", {"x_m": 0.3}, 7, "screen") for name in names)
    return replace(Lease(lease_id, TASK, items, NOW_S + 600.0), **values)


@contextmanager
def listening(endpoint: str, desk: Desk) -> Iterator[None]:
    """Answer on an endpoint as a coordinator does."""
    config = zenoh.Config()
    for key, value in (
        ("mode", "router"), ("listen/endpoints", [endpoint]), ("scouting/multicast/enabled", False),
        ("scouting/gossip/enabled", False), ("transport/shared_memory/enabled", False),
    ):  # fmt: skip
        config.insert_json5(key, json.dumps(value))
    with zenoh.open(config) as session:
        declared = [
            session.declare_queryable("enpire/**", desk.answer),
            session.liveliness().declare_subscriber(key_of("*", "alive"), desk.alive, history=True),
            session.declare_subscriber(key_of("*", "status"), desk.status),
        ]
        assert declared
        yield


def until_heard(line: Coordinator, desk: Desk) -> None:
    """Wait until questions of the line reach the desk."""
    desk.replies[key_of(EDGE, "hello")] = say(b"hello")
    deadline_s = time.monotonic() + LONG_S
    while time.monotonic() < deadline_s:
        try:
            assert line.ask(key_of(EDGE, "hello")) == b"hello"
        except NoAnswer:
            continue
        desk.asked.clear()
        return
    pytest.fail("the coordinator was not found")


@contextmanager
def connected() -> Iterator[tuple[Desk, Coordinator]]:
    """Open a desk and a station's line to it."""
    desk, endpoint = Desk(), free_endpoint()
    with listening(endpoint, desk), Coordinator(endpoint, EDGE) as line:
        until_heard(line, desk)
        yield desk, line


@dataclass
class Here:
    """A station that carries what it has to a desk; its bundles come from a lab's folder, past the desk."""

    desk: Desk
    settings: Settings
    ledger: Ledger
    line: Coordinator
    supply: Supply
    courier: Courier
    clock_s: list[float]  # what the courier's clock shows, steadily

    def pass_time(self, dt_s: float) -> None:
        """Let the courier's clock go on."""
        self.clock_s[0] += dt_s

    def unacked(self) -> list[bytes]:
        """Return the bodies of the trials that were not named as kept."""
        return [sealed.body for sealed in self.ledger.unacked(99)]

    def seal(self, count: int, recording: bytes = b"") -> list[Trial]:
        """Put finished trials into the ledger, each with a recording of its own where there is one."""
        names = [f"t{time.monotonic_ns()}-{number}" for number in range(count)]
        self.ledger.add_lease(lease(*names, lease_id=names[0]))
        trials = []
        for name in names:
            found = self.ledger.next_assignment(NOW_S)
            assert found is not None
            _, sequence = self.ledger.open_trial(*found, NOW_S)
            data = recording and recording + name.encode()
            path = self.settings.folder / f"{name}.mcap" if data else None
            if path is not None:
                path.write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest() if data else ""
            trial = replace(TRIAL, epoch=self.ledger.epoch, sequence=sequence, assignment_id=name, recording=sha256)
            self.ledger.seal(trial, path)
            trials.append(trial)
        return trials


@contextmanager
def carrying(line: tuple[Desk, Coordinator], lab: LabFolder, folder: Path) -> Iterator[Here]:
    """Make a station in a folder; its desk says nothing yet."""
    desk, coordinator = line
    desk.forget()
    lab.admit(folder)
    settings = Settings(folder, EDGE, TASK, coordinator.endpoint, "5" * 64, "6" * 64)
    with (
        Ledger(settings.ledger_path, EDGE) as ledger,
        supplied(settings, FolderFetcher(lab.repository.folder)) as supply,
    ):
        clock_s = [0.0]
        courier = Courier(settings, ledger, coordinator, supply, "s", lambda: clock_s[0])
        yield Here(desk, settings, ledger, coordinator, supply, courier, clock_s)
