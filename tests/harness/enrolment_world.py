"""A run that is served at a time of the test's own, people at its command line, and machines that want to be edges."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coordinator.enrolment import Enrolment
from coordinator.network import Network, Question, free_endpoint
from coordinator.publish.authority import FOLDER, Authority
from coordinator.publish.keys import Keyring
from coordinator.publish.repository import Repository
from coordinator.registrar import Registrar
from coordinator.store import FILE
from coordinator.tickets import make_ticket
from edge.enrol import ask, at_the_door, keep, prepare
from edge.uplink.network import Coordinator, NoAnswer
from edge.wire import key_of
from edge.wire.ticket import Ticket
from edge.wire.tls import Tls

EDGE, OTHER = "arm-01", "arm-02"
LONG_S = 30.0  # bound of a wait; nothing is measured by it


def tls_endpoint() -> str:
    return free_endpoint().replace("tcp/", "tls/")


def answered(ask_: Callable[[], Any]) -> Any:
    """Ask until the coordinator answers, be it with a no."""
    deadline_s = time.monotonic() + LONG_S
    while True:
        try:
            return ask_()
        except NoAnswer:
            assert time.monotonic() < deadline_s, "no answer"


class World:
    """The run, in `folder`; whatever is asked of it but a certificate is answered with `work`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.now_s = folder, folder / "run", time.time()
        self.run.mkdir()
        Repository.create(self.run / "trust", Keyring.for_demo(self.run / "keys"))
        self.authority = Authority(self.run / FOLDER)
        self.endpoint, self.door = tls_endpoint(), tls_endpoint()
        self.people = Enrolment(self.run / FILE)
        self.people.listens(self.endpoint, self.door)
        self.asked: list[str] = []  # keys, of what was answered with work
        self._serving, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> World:
        self._thread.start()
        assert self._serving.wait(LONG_S)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.people.close()

    def _serve(self) -> None:
        with (
            Enrolment(self.run / FILE) as enrolment,
            Network(self.endpoint, self.authority.server([]), enrolment.edges(), door=self.door) as network,
        ):
            registrar = Registrar(enrolment, self.authority)
            self._serving.set()
            while not self._stop.is_set():
                message = network.take(0.02)
                if isinstance(message, Question) and not registrar.took(message, self.now_s):
                    self.asked.append(message.key)
                    message.answer(b"work")
                registrar.tend(network, time.monotonic())

    def ticket(self, edge: str = EDGE, hours: float = 24.0) -> Ticket:
        return make_ticket(self.run, edge, hours, self.now_s)

    def station(self, name: str = EDGE, folder: str = "") -> Path:
        made = self.folder / (folder or name)
        made.mkdir()
        (made / "station.toml").write_text(f'name = "{name}"\n')
        return made

    def come(self, station: Path, ticket: Ticket) -> str | None:
        """Let a station ask for its certificate once."""
        with at_the_door(ticket) as line:
            return answered(lambda: ask(line, prepare(station, ticket)))

    def wait(self, station: Path, ticket: Ticket) -> None:
        """Bring a station to where it waits for a person."""
        assert self.come(station, ticket) is None

    def approve(self, station: Path, ticket: Ticket) -> str:
        """Let a person approve a station that waits, and return its certificate."""
        self.people.approve(ticket.edge, prepare(station, ticket).fingerprint, self.now_s)
        certificate = self.come(station, ticket)
        assert certificate is not None
        keep(station, ticket, certificate)
        return certificate

    def enrol(self, name: str = EDGE, folder: str = "") -> Path:
        """Return a station that has come all the way."""
        station, ticket = self.station(name, folder), self.ticket(name)
        self.wait(station, ticket)
        self.approve(station, ticket)
        return station

    @contextmanager
    def linked(self, station: Path, name: str = EDGE) -> Iterator[Coordinator]:
        """Link a station with what it has, and wait until it is answered."""
        with Coordinator(self.endpoint, name, Tls.of(station / "identity")) as line:
            answered(lambda: line.ask(key_of(name, "lease")))
            yield line

    def states(self) -> list[str]:
        return [row.state for row in reversed(self.people.rows())]
