"""Writes down what a new edge must be given: name, secret, where the coordinator is, whom to believe, what is past."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from coordinator.enrolment import Enrolment, EnrolmentRefused, database_of
from coordinator.publish.authority import FOLDER as AUTHORITY_FOLDER
from coordinator.publish.authority import Authority
from coordinator.publish.publisher import FOLDER as TRUST_FOLDER
from coordinator.publish.repository import Repository
from coordinator.publish.stations import newest_number
from coordinator.store import FILE
from edge.records import RecordError
from edge.wire.ticket import Ticket

HOUR_S = 3600.0
TLS = "tls/"


def make_ticket(run: Path, edge: str, hours: float, now_unix_s: float, endpoint: str = "", door: str = "") -> Ticket:
    """Return a new ticket for an edge of a run.

    Args:
        endpoint: how the edge reaches the coordinator, e.g. tls/lab.example:7447; empty for what the coordinator said
            when it was served last.
        door: the same for who has no certificate; empty for what the coordinator said, or the next port.

    Raises:
        CoordinatorError: nobody knows where the coordinator is, or the run has no keys yet.
    """
    repository = Repository.open(run / TRUST_FOLDER)
    authority = Authority(run / AUTHORITY_FOLDER).file.read_text()
    with Enrolment(database_of(run)) as enrolment:
        known = enrolment.endpoints()
        if not endpoint and known is None:
            raise EnrolmentRefused(f"nobody has served {run} yet; say --endpoint tls/HOST:PORT as the edge reaches it")
        if endpoint:
            found = (endpoint, door or next_port(endpoint))
        else:
            assert known is not None
            found = (known[0], door or known[1])
        for item in found:
            _check(item)
        number = _newest_number(run, repository, edge)
        secret = enrolment.ticket(edge, hours, now_unix_s).hex()
    return Ticket(edge, secret, now_unix_s + hours * HOUR_S, *found, authority, repository.root().decode(), number)


def next_port(endpoint: str) -> str:
    """Return the endpoint one port further, which is the door where nothing else is said.

    Raises:
        EnrolmentRefused: it is no tls endpoint.
    """
    _check(endpoint)
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + 1}"


def _newest_number(run: Path, repository: Repository, edge: str) -> int:
    """Return the number of the newest order for an edge, as far as the run knows.

    Raises:
        EnrolmentRefused: it cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"file:{run / FILE}?mode=ro", uri=True)) as db:
            return newest_number(db, edge, repository.order(edge))
    except (RecordError, sqlite3.Error) as error:
        raise EnrolmentRefused(f"the orders for {edge} in {run} cannot be read: {error}") from error


def _check(endpoint: str) -> None:
    host, _, port = endpoint.removeprefix(TLS).rpartition(":")
    if not (endpoint.startswith(TLS) and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise EnrolmentRefused(f"{endpoint!r} is not an endpoint for edges; write it as tls/HOST:PORT")
