"""The file that is carried from the coordinator to a machine that shall become an edge."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from edge.records import EDGE_NAME, MOST_NUMBER
from edge.wire.enrolment import TICKET_BYTES

FORMAT = 1


class TicketRefused(Exception):
    """Not a ticket of this format; the message is one line."""


@dataclass(frozen=True)
class Ticket:
    """Who the machine shall be, whom it shall ask, and what it may believe from the start."""

    edge: str
    secret: str  # 128 bits, hex; good once
    until_unix_s: float
    endpoint: str  # of the coordinator, once there is a certificate
    door: str  # where one is asked for
    authority: str  # PEM: whose certificates are believed, the coordinator's first of all
    root: str  # JSON: the root of the TUF repository
    order: int = 0  # number of the newest order for this edge; what was ordered before it is never followed

    def to_text(self) -> str:
        """Return the ticket as it is written to a file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def parse_ticket(text: str) -> Ticket:
    """Return the ticket in a file's text.

    Raises:
        TicketRefused: it is none.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TicketRefused("it is not a ticket: not JSON") from error
    # fmt: off
    match raw:
        case {"format": format_} if format_ != FORMAT:
            raise TicketRefused(f"it is a ticket of format {format_!r:.20}; this version reads {FORMAT}")
        case {
            "format": _, "edge": str(edge), "secret": str(secret), "until_unix_s": float(until_unix_s),
            "endpoint": str(endpoint), "door": str(door), "authority": str(authority), "root": str(root), **rest,
        } if not rest.keys() - {"order"} and EDGE_NAME.fullmatch(edge) and _is_secret(secret):
            order = rest.get("order", 0)  # tickets of the version before have none
            if type(order) is int and 0 <= order <= MOST_NUMBER:
                return Ticket(edge, secret, until_unix_s, endpoint, door, authority, root, order)
    # fmt: on
    raise TicketRefused("it is not a ticket")


def _is_secret(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == TICKET_BYTES
    except ValueError:
        return False
