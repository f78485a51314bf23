"""`enpire-coord enrol`: tickets for new edges, and what a person decides on the machines that come with them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coordinator.access import is_console
from coordinator.errors import CoordinatorError
from edge.wire.ticket import TicketRefused, parse_ticket

enrol_app = typer.Typer(
    no_args_is_help=True,
    help="Enrol edges: tickets, approval by six words, revocation.",
    rich_markup_mode=None,
)
REFUSED = 2
PRIVATE_FILE = 0o600
Run = Annotated[Path, typer.Argument(help="the folder of a run; its coordinator may be at work")]
Edge = Annotated[str, typer.Argument(help="the name of the edge, as in its station.toml")]


@enrol_app.command()
def ticket(
    run_dir: Run,
    edge: Edge,
    hours: Annotated[float, typer.Option(help="for how long a machine may come with it")] = 24.0,
    out: Annotated[Path | None, typer.Option(help="the file to write; by default EDGE.ticket")] = None,
    endpoint: Annotated[str, typer.Option(help="tls/HOST:PORT under which the edge reaches the coordinator")] = "",
    door: Annotated[str, typer.Option(help="the same for who has no certificate yet; by default the next port")] = "",
) -> None:
    """Write a one-time ticket to carry to a new edge; an unused one for the same edge is good no more.

    Example: enpire-coord enrol ticket runs/lab arm-03 --endpoint tls/lab.example:7447
    """
    from coordinator.tickets import make_ticket

    path = out or Path(f"{edge}.ticket")
    with _explained():
        _check_free(path)
        made = make_ticket(run_dir, edge, hours, time.time(), endpoint, door)
        _write_private(path, made.to_text())
    print(path)
    print(f"carry it to {edge} and run there: enpire-edge enrol STATION_DIR {path.name}", file=sys.stderr)


@enrol_app.command()
def console(
    run_dir: Run,
    user: Annotated[str, typer.Argument(help="the person's name; the certificate is for console:USER")],
    days: Annotated[float, typer.Option(help="for how long it is good; it is not renewed")] = 30.0,
    out: Annotated[Path | None, typer.Option(help="the folder to write; by default USER.console")] = None,
) -> None:
    """Let a person's console listen to all stations, and say nothing; `enrol revoke RUN console:USER` ends it at once.

    Example: enpire-coord enrol console runs/lab ann
    """
    from coordinator.consoles import enrol_console

    folder = out or Path(f"{user}.console")
    with _explained():
        tls, endpoint = enrol_console(run_dir, user, folder, days, time.time())
    print(tls.authority, tls.certificate, tls.key, sep="\n")
    print(f"it may listen at {endpoint or 'the coordinator, once that is served with certificates'}", file=sys.stderr)


@enrol_app.command(name="list")
def list_(
    run_dir: Run,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON list")] = False,
) -> None:
    """List tickets, machines that wait, and enrolled edges, newest first.

    Example: enpire-coord enrol list runs/lab
    """
    from coordinator.enrolment import Enrolment, database_of

    with _explained(), Enrolment(database_of(run_dir)) as enrolment:
        rows = enrolment.rows()
    if as_json:
        print(json.dumps([{key: value for key, value in asdict(row).items() if key != "certificate"} for row in rows]))
        return
    for row in rows:
        since_unix_s = row.decided_unix_s or row.asked_unix_s or row.made_unix_s
        until_unix_s = row.certificate_until_unix_s or row.ticket_until_unix_s
        what = "certificate" if row.certificate else "ticket"
        print(f"{row.edge:16} {row.state:9} since {_local(since_unix_s)}, {what} until {_local(until_unix_s)}")
        if row.fingerprint:
            print(f"{'':16} {row.fingerprint}")


@enrol_app.command()
def approve(
    run_dir: Run,
    edge: Edge,
    fingerprint: Annotated[str, typer.Option(help="the six words that the edge itself shows")],
) -> None:
    """Let the machine that waits be this edge, once its six words are the ones that the edge shows.

    Example: enpire-coord enrol approve runs/lab arm-03 --fingerprint "olive tunnel comet badge river walnut"
    """
    from coordinator.enrolment import Enrolment, database_of

    with _explained(), Enrolment(database_of(run_dir)) as enrolment:
        enrolment.approve(edge, fingerprint, time.time())
    print(f"{edge} is approved; it gets its certificate when it asks again")


@enrol_app.command()
def deny(run_dir: Run, edge: Edge) -> None:
    """Turn away what waits to be this edge.

    Example: enpire-coord enrol deny runs/lab arm-03
    """
    from coordinator.enrolment import Enrolment, database_of

    with _explained(), Enrolment(database_of(run_dir)) as enrolment:
        count = enrolment.deny(edge, time.time())
    print(f"{edge}: {count} turned away")


@enrol_app.command()
def revoke(run_dir: Run, edge: Edge) -> None:
    """Take its name from an edge at once: it is answered nothing, and its trials count as nobody's.

    A console is named console:USER.

    Example: enpire-coord enrol revoke runs/lab arm-03
    """
    from coordinator.enrolment import Enrolment, database_of

    with _explained(), Enrolment(database_of(run_dir)) as enrolment:
        enrolment.revoke(edge, time.time())
    again = "enrol it again" if is_console(edge) else "make a new ticket for it"
    print(f"{edge} is revoked; to take it back once its certificate has ended, {again}")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None
    except OSError as error:
        print(f"enpire-coord: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None


def _check_free(path: Path) -> None:
    """Check that a file is not there, or is a ticket, which a newer one may replace.

    Raises:
        CoordinatorError: something else is there.
    """
    if path.exists():
        try:
            parse_ticket(path.read_text())
        except (TicketRefused, UnicodeDecodeError) as error:
            raise CoordinatorError(f"{path} is there already and is no ticket; give another --out") from error


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with open(descriptor, "w") as out:
        out.write(text)


def _local(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
