"""Serves a lab's stations for as long as it runs: takes in their trials, carries what they trust, and enrols new ones.

- Who may talk is held by certificates, but for a lab on one machine (`tcp/127.0.0.1`).
- It hands out no work of its own: stations run what `push-policy` orders, and go on without it.
- It may be killed at any time; nothing that it acknowledged is lost, and stations keep what it did not.
"""

from __future__ import annotations

import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

from rich.table import Table

from coordinator.enrolment import Enrolment
from coordinator.errors import CoordinatorError
from coordinator.network import Network, Question
from coordinator.publish.authority import FOLDER as AUTHORITY
from coordinator.publish.authority import Authority
from coordinator.publish.publisher import Lab
from coordinator.reception import NESTED, Desk, Reception
from coordinator.registrar import Registrar
from coordinator.rollouts import STATES
from coordinator.roster import Roster, StationView
from coordinator.store import FILE, Store

LOG = logging.getLogger("coordinator.serve")
ENDPOINT = re.compile(r"(?P<kind>tcp|tls)/(?P<host>[^/\s]+):(?P<port>[0-9]{1,5})", re.ASCII)
ROOT_FILE, LOG_FILE = "root.json", "coordinator.log"
LOG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"
TURN_S, TEND_EVERY_S, SHOW_EVERY_S = 0.1, 1.0, 0.5
MOST_AT_ONCE = 64
ANYWHERE = ("0.0.0.0", "[::]")


class ServeRefused(CoordinatorError):
    """What was asked for cannot be served."""


@dataclass(frozen=True)
class Plan:
    """What to serve, and where."""

    run: Path
    task: str
    listen: str
    door: str
    hosts: tuple[str, ...]  # names under which stations reach this machine
    keys: Path | None


class Service:
    """One coordinator's loop."""

    def __init__(
        self, task: str, run: Path, store: Store, lab: Lab, network: Network, registrar: Registrar | None = None
    ) -> None:
        self.roster = Roster(())
        desk = Desk(lambda edge, now, ahead: (), lambda trial, now: None, lambda assignment, now: None)
        self._reception = Reception(task, store, lab.repository, self.roster, desk, run)
        self._lab, self._network, self._registrar = lab, network, registrar
        self._tend_at_s = 0.0

    def turn(self) -> None:
        """Answer what has come, and do what is due.

        Raises:
            CoordinatorError: the disk or the network fails; stations keep what was not acknowledged.
        """
        message = self._network.take(TURN_S)
        for _ in range(MOST_AT_ONCE):
            if message is None:
                break
            if not (isinstance(message, Question) and self._took(message)):
                self._reception.handle(message, time.time())
            message = self._network.take(0.0)
        if time.monotonic() >= self._tend_at_s:
            self._tend_at_s = time.monotonic() + TEND_EVERY_S
            self._reception.tend(time.time())
            self._lab.renew()
            if self._registrar is not None:
                self._registrar.tend(self._network, time.monotonic())

    def _took(self, question: Question) -> bool:
        """Return whether a question was the registrar's, who has answered it then."""
        try:
            return self._registrar is not None and self._registrar.took(question, time.time())
        except RecursionError:
            LOG.warning("%s refused: %s", question.key, NESTED)
            return True


def serve(plan: Plan, show: Callable[[Plan, Roster], None], say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        CoordinatorError: it cannot begin; a failure later on is said, and served on after a moment.
    """
    stop = threading.Event()
    with opened(plan) as service, _heeding(stop):
        logging.basicConfig(filename=plan.run / LOG_FILE, level=logging.INFO, format=LOG_FORMAT)
        logging.getLogger("tuf").setLevel(logging.WARNING)  # it tells of each key that need not have signed
        door = f", the door at {plan.door}" if plan.listen.startswith("tls") else ""
        say(f"serving {plan.task} at {plan.listen}{door}")
        shown_at_s = 0.0
        while not stop.is_set():
            try:
                service.turn()
            except (CoordinatorError, OSError) as error:  # a full disk, say
                say(str(error))
                stop.wait(1.0)
            if time.monotonic() >= shown_at_s:
                shown_at_s = time.monotonic() + SHOW_EVERY_S
                show(plan, service.roster)


@contextmanager
def opened(plan: Plan) -> Iterator[Service]:
    """Open all that is needed to serve.

    Raises:
        CoordinatorError: a key, the repository, the database or the endpoint cannot be used.
    """
    secure = _check(plan)
    with ExitStack() as stack:
        _make(plan.run)
        lab = Lab.of(plan.run, plan.keys)
        (plan.run / ROOT_FILE).write_bytes(lab.repository.root())
        store = stack.enter_context(Store(plan.run / FILE))
        if not secure:
            network = stack.enter_context(Network(plan.listen))
            yield Service(plan.task, plan.run, store, lab, network)
            return
        authority = Authority(plan.run / AUTHORITY)
        enrolment = stack.enter_context(Enrolment(plan.run / FILE))
        network = stack.enter_context(
            Network(plan.listen, authority.server(plan.hosts), enrolment.edges(), door=plan.door)
        )
        enrolment.listens(_reachable(plan.listen, plan.hosts), _reachable(plan.door, plan.hosts))
        yield Service(plan.task, plan.run, store, lab, network, Registrar(enrolment, authority, plan.hosts))


def table(plan: Plan, roster: Roster) -> Table:
    """Return the stations as a table: what each does, and which policies are on their way there."""
    made = Table(title=f"{plan.task} at {plan.listen}", title_justify="left", box=None, pad_edge=False)
    for name in ("station", "state", "trials", "success", "active", "on its way"):
        made.add_column(name)
    for view in roster.stations:
        made.add_row(*row(view))
    return made


def row(view: StationView) -> tuple[str, ...]:
    """Return one station's line."""
    by_state = {item.state: item.bundle[:12] for item in view.rollouts.values()}
    coming = next((f"{by_state[state]} {state}" for state in STATES[1:8] if state in by_state), "")
    won = f"{view.successes}/{view.trials}" if view.trials else ""
    state = view.state if view.here else "away"
    return view.edge, state, str(view.trials + view.invalid), won, by_state.get("active", ""), coming


def _check(plan: Plan) -> bool:
    """Return whether certificates hold who may talk.

    Raises:
        ServeRefused: no endpoints, or one without certificates that others can reach.
    """
    found = ENDPOINT.fullmatch(plan.listen)
    if found is None:
        raise ServeRefused(f"{plan.listen!r} is no endpoint; write it as tls/HOST:PORT")
    if found["kind"] == "tls":
        door = ENDPOINT.fullmatch(plan.door)
        if door is None or door["kind"] != "tls":
            raise ServeRefused(f"{plan.door!r} is no door; write it as tls/HOST:PORT, with a port of its own")
        return True
    if not _on_this_machine(found["host"]):
        raise ServeRefused(
            f"{plan.listen}: others could speak for any station; listen on tls/..., or for this machine tcp/127.0.0.1"
        )
    return False


def _on_this_machine(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _reachable(endpoint: str, hosts: tuple[str, ...]) -> str:
    """Return the endpoint as stations reach it: a name of this machine in the place of `anywhere`."""
    found = ENDPOINT.fullmatch(endpoint)
    assert found is not None
    host = (hosts[0] if hosts else socket.gethostname()) if found["host"] in ANYWHERE else found["host"]
    return f"{found['kind']}/{host}:{found['port']}"


def _make(run: Path) -> None:
    try:
        (run / "recordings").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServeRefused(f"cannot use {run}: {error.strerror}") from error


@contextmanager
def _heeding(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the serving in order."""

    def heed(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
