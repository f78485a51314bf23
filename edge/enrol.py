"""Makes a station one that its coordinator knows: keys made here, a certificate against a one-time ticket.

- Neither private key leaves the station, and nothing else of the station is changed.
- The ticket's file pins the coordinator, so nobody else can take the request or give the certificate. It also says from
  which number on orders are followed.
- Whatever interrupts it, it goes on when run again: the keys are on the disk before they are shown to anybody.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgpack

from edge.activation.journal import ActivationError, Journal
from edge.identity import (
    PUBLIC_FILE,
    IdentityError,
    check_certificate,
    load_or_make_key,
    write_whole,
)
from edge.ledger_file import LedgerError, LedgerFile
from edge.uplink.network import Line, NoAnswer, Refused
from edge.wire import ENROL, key_of
from edge.wire.enrolment import Request, make_request, pack
from edge.wire.ticket import Ticket, TicketRefused, parse_ticket
from edge.wire.tls import IDENTITY_FOLDER, Tls, connecting

ROOT_FILE, JOURNAL_FILE = Path("trust") / "root.json", "activation.db"


class EnrolRefused(Exception):
    """This station cannot be enrolled with this ticket; the message is one line that says why."""


def read_ticket(path: Path) -> Ticket:
    """Return the ticket in a file.

    Raises:
        EnrolRefused: there is none in it.
    """
    try:
        return parse_ticket(path.read_text())
    except OSError as error:
        raise EnrolRefused(f"cannot read {path}: {error.strerror}") from error
    except (TicketRefused, UnicodeDecodeError) as error:
        raise EnrolRefused(f"{path}: {error}") from error


def prepare(station: Path, ticket: Ticket) -> Request:
    """Return what the station in this folder asks with, its keys made now where there are none.

    Raises:
        EnrolRefused: no station, another one than the ticket's, or keys that cannot be used.
    """
    name = _name_of(station)
    if name != ticket.edge:
        raise EnrolRefused(f"the ticket is for {ticket.edge!r}, but {station} is {name!r}; take the one for {name!r}")
    try:
        key = load_or_make_key(Tls.of(station / IDENTITY_FOLDER).key)
        ledger = LedgerFile(station / "ledger.db", name)
        ledger.db.close()
    except (IdentityError, LedgerError) as error:
        raise EnrolRefused(str(error)) from error
    return make_request(name, bytes.fromhex(ticket.secret), key, ledger.key)


@contextmanager
def at_the_door(ticket: Ticket) -> Iterator[Line]:
    """Open a line to where certificates are asked for; it believes nobody but the ticket's coordinator.

    Raises:
        UplinkError: the ticket's endpoint is not one.
    """
    with NamedTemporaryFile("w", suffix=".pem") as authority:  # zenoh reads it whenever it links
        authority.write(ticket.authority)
        authority.flush()
        with Line(ticket.door, connecting(Path(authority.name), None)) as line:
            yield line


def ask(line: Line, request: Request) -> str | None:
    """Return the certificate, None while a person has not approved it.

    Raises:
        NoAnswer: the coordinator is not there.
        EnrolRefused: the answer is no.
    """
    try:
        answer = msgpack.unpackb(line.ask(key_of(request.edge, ENROL), pack(request)))
    except Refused as error:
        raise EnrolRefused(f"the coordinator refuses: {error}") from error
    except (ValueError, msgpack.UnpackException) as error:
        raise NoAnswer("an answer that is not msgpack") from error
    match answer:
        case {"state": "waiting"}:
            return None
        case {"state": "approved", "certificate": str(certificate)}:
            return certificate
    raise NoAnswer("an answer that says neither wait nor yes")


def wait(line: Line, request: Request, pause: Callable[[], None], say: Callable[[str], None]) -> str:
    """Ask until there is a certificate and return it.

    Args:
        pause: waits until it is time to ask again.
        say: is told how things stand, each time.

    Raises:
        EnrolRefused: the answer is no.
    """
    while True:
        try:
            certificate = ask(line, request)
        except NoAnswer:
            say(f"no coordinator at {line.endpoint} yet; asking again")
        else:
            if certificate is not None:
                return certificate
            say("waiting for a person to approve it")
        pause()


def keep(station: Path, ticket: Ticket, certificate: str) -> list[Path]:
    """Write what makes the station known and return the files; a root of trust that is there already stays.

    Raises:
        EnrolRefused: the certificate is not the authority's for this station, or the disk does not take it.
    """
    own, root = Tls.of(station / IDENTITY_FOLDER), station / ROOT_FILE
    try:
        pem = check_certificate(certificate, ticket.authority.encode(), ticket.edge, load_or_make_key(own.key))
        written = [own.authority, own.certificate]
        write_whole(own.authority, ticket.authority.encode(), PUBLIC_FILE)
        if not root.exists():
            root.parent.mkdir(parents=True, exist_ok=True)
            write_whole(root, ticket.root.encode(), PUBLIC_FILE)
            written.append(root)
        _begin_counting(station, ticket)
        write_whole(own.certificate, pem, PUBLIC_FILE)
    except ActivationError as error:
        raise EnrolRefused(str(error)) from error
    except OSError as error:
        raise EnrolRefused(f"cannot write {own.certificate.parent}: {error.strerror}") from error
    except IdentityError as error:
        raise EnrolRefused(str(error)) from error
    return written


def _begin_counting(station: Path, ticket: Ticket) -> None:
    """Tell the station how far the coordinator has counted its orders, so that it takes the newest and none before.

    A station that was set up anew would refuse an order far above none as an attempt to use its numbers up. The number
    comes by the hand that brought the ticket, as the root does, never over the network.
    """
    if ticket.order > 1:
        with Journal(station / JOURNAL_FILE) as journal:
            journal.begin(ticket.order - 1)


def endpoint_of(station: Path) -> str:
    """Return where a station looks for its coordinator, empty where its file does not say."""
    try:
        return str(tomllib.loads((station / "station.toml").read_text())["coordinator"]["endpoint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _name_of(station: Path) -> str:
    path = station / "station.toml"
    try:
        return str(tomllib.loads(path.read_text())["name"])
    except OSError as error:
        raise EnrolRefused(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError) as error:
        raise EnrolRefused(f"{path} does not name the station") from error
