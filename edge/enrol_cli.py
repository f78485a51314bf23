"""What `enpire-edge enrol` shows while a person at the coordinator compares and approves."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console

from edge.enrol import EnrolRefused, at_the_door, endpoint_of, keep, prepare, read_ticket, wait
from edge.uplink.settings import UplinkError
from edge.wire.ticket import Ticket

ASK_EVERY_S = 2.0
DONE, REFUSED, INTERRUPTED = 0, 2, 130


def enrol(station: Path, ticket_file: Path) -> int:
    """Enrol a station and return the command's exit code: 0 done, 2 refused, 130 interrupted."""
    console = Console(stderr=True)
    try:
        ticket = read_ticket(ticket_file)
        certificate = _wait(station, ticket, console)
        for path in keep(station, ticket, certificate):
            print(path)
    except (EnrolRefused, UplinkError) as error:
        print(f"enpire-edge: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("enpire-edge: stopped; the same command goes on with it", file=sys.stderr)
        return INTERRUPTED
    console.print(f"{ticket.edge} is enrolled; the ticket is spent and may be deleted")
    if endpoint_of(station) != ticket.endpoint:
        console.print(f'now write in {station / "station.toml"}, under \\[coordinator]: endpoint = "{ticket.endpoint}"')
    return DONE


def _wait(station: Path, ticket: Ticket, console: Console) -> str:
    request = prepare(station, ticket)
    console.print(f"this station's fingerprint: [bold]{request.fingerprint}[/bold]")
    console.print("at the coordinator, compare it and approve:")
    command = f'enpire-coord enrol approve RUN {ticket.edge} --fingerprint "{request.fingerprint}"'
    console.print(f"  {command}", soft_wrap=True)
    with at_the_door(ticket) as line, console.status("asking the coordinator") as status:
        return wait(line, request, lambda: time.sleep(ASK_EVERY_S), status.update)
