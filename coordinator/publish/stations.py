"""What a run's database says of its stations: which there are, who was revoked, and who has a policy to go back to."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from coordinator.errors import CoordinatorError
from coordinator.rollouts import ON_THE_WAY
from edge.records import EDGE_NAME, NUMBERS_AHEAD, order_from_json


class NoStation(CoordinatorError):
    """A station that cannot be told anything; the message says which it is."""


def choose(db: sqlite3.Connection, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the stations that are named, or without a name all that this run has seen and nobody has revoked.

    Raises:
        NoStation: there is none, or a name that this run has not seen or that was revoked.
    """
    seen = [edge for (edge,) in db.execute("SELECT edge FROM stations ORDER BY edge")]
    gone = {edge for (edge,) in db.execute("SELECT edge FROM edge_denied")}
    known = [edge for edge in seen if edge not in gone]
    for edge in wanted:
        if edge in gone:
            raise NoStation(f"{edge!r} was revoked and hears nothing; leave it out, or enrol it anew")
        if edge not in known:
            raise NoStation(f"{edge!r} is no station of this run; known: {', '.join(known) or 'none yet'}")
    chosen = tuple(wanted) or tuple(edge for edge in known if EDGE_NAME.fullmatch(edge))
    if not chosen:
        why = "every station of this run was revoked" if seen else "this run has seen no station yet"
        raise NoStation(f"{why}; start one, or name it with --edges once it is there")
    return chosen


def with_nothing_good(db: sqlite3.Connection, edges: Sequence[str]) -> tuple[str, ...]:
    """Return the stations that have no policy on its way to stop, and none that was active before the active one.

    By what they have said since their newest order. The one to go back to stepped aside in the very moment in which
    the active one came.
    """
    return tuple(edge for edge in edges if not _can_go_back(db, edge))


def newest_number(db: sqlite3.Connection, edge: str, order: bytes | None) -> int:
    """Return the number of a station's newest order: of the one that stands, or what the station has said; else 0.

    A station may know a later order than a repository that was restored. It is believed as far as it would itself
    follow one, so that no station can use up its numbers.

    Raises:
        RecordError: the order is none.
    """
    ordered = 0 if order is None else order_from_json(order).number
    said = db.execute("SELECT COALESCE(MAX(number), 0) FROM rollouts WHERE edge = ?", (edge,)).fetchone()[0]
    return max(ordered, min(int(said), ordered + NUMBERS_AHEAD))


def _can_go_back(db: sqlite3.Connection, edge: str) -> bool:
    rows = db.execute(
        "SELECT state, since_unix_s FROM rollouts WHERE edge = ?"
        " AND number = (SELECT MAX(number) FROM rollouts AS other WHERE other.edge = rollouts.edge)",
        (edge,),
    ).fetchall()
    active_unix_s = max((since for state, since in rows if state == "active"), default=float("inf"))
    return any(state in ON_THE_WAY[1:] or (state == "superseded" and since >= active_unix_s) for state, since in rows)
