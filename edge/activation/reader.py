"""What an activation journal says: who is active, what it goes back to, who is on the way, and why."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.activation.rows import COLUMNS, Change, Line, Row, as_row, read_line, read_row
from edge.activation.schema import explained
from edge.activation.table import NEWCOMER


class Reader:
    """One connection to a journal, as far as it reads; every method raises ActivationError where it cannot."""

    def __init__(self, path: Path, clock: Callable[[], float], db: sqlite3.Connection) -> None:
        self.path = path
        self.clock = clock
        self._db = db

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close this connection."""
        self._db.close()

    def line(self) -> Line:
        """Return what the edge stands on."""
        with explained(self.path):
            return read_line(self._db)

    def row(self, bundle: str) -> Row:
        """Return what is known of a bundle."""
        with explained(self.path):
            return read_row(self._db, bundle)

    def rows(self) -> list[Row]:
        """Return what is known of every bundle that was ever heard of, the latest change last."""
        with explained(self.path):
            found = self._db.execute(f"SELECT {COLUMNS} FROM bundles ORDER BY since_unix_s, bundle").fetchall()
            return [as_row(item) for item in found]

    def among(self, states: Sequence[str]) -> list[Row]:
        """Return the bundles that are in one of some states."""
        marks = ", ".join("?" * len(states))
        with explained(self.path):
            found = self._db.execute(f"SELECT {COLUMNS} FROM bundles WHERE state IN ({marks})", states).fetchall()
            return [as_row(item) for item in found]

    def newcomer(self) -> Row | None:
        """Return the bundle between staged and probation."""
        return next(iter(self.among(NEWCOMER)), None)

    def changes(self, limit: int = 100) -> list[Change]:
        """Return the latest arrows that were taken, oldest first."""
        with explained(self.path):
            found = self._db.execute(
                "SELECT bundle, origin, event, target, unix_s, reason FROM arrows ORDER BY number DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [Change(*item) for item in reversed(found)]

    def pinned(self) -> set[str]:
        """Return the bundles whose unpacked files may not be deleted: active, last good, newcomer, the order's."""
        with self._reading():
            line, newcomer = read_line(self._db), self.newcomer()
        ordered = line.order.bundle if line.order is not None and not line.order.rollback else ""
        return {line.active, line.last_good, newcomer.bundle if newcomer else "", ordered} - {""}

    def wanted(self) -> dict[str, str]:
        """Return what the uplink is to fetch and verify, each with its task: the order's bundle, and pinned ones lost.

        A bundle that an order names and only candidates sign is asked for again, as people may come to release it.
        """
        with self._reading():
            line = read_line(self._db)
            lost = [read_row(self._db, bundle) for bundle in (line.active, line.last_good) if bundle]
            ordered = read_row(self._db, line.order.bundle) if line.order is not None else Row("")
        wanted = {row.bundle: row.task for row in lost if row.missing}
        now_unix_s = self.clock()
        if line.order is not None and not line.order.rollback and now_unix_s < line.order.until_unix_s:
            released = ordered.role == "released" and now_unix_s < ordered.expires_unix_s
            if ordered.state in ("offered", "fetched") or (ordered.state == "verified" and not released):
                wanted[ordered.bundle] = ordered.task
        return wanted

    def revoked(self) -> dict[str, str]:
        """Return every revoked bundle with when it must stop: "next-trial" or "now"."""
        with explained(self.path):
            return dict(self._db.execute("SELECT bundle, stop FROM bundles WHERE state = 'revoked'").fetchall())

    def overridden(self, bundle: str) -> bool:
        """Return whether two people have let a bundle become active without a canary."""
        with explained(self.path):
            found = self._db.execute("SELECT 1 FROM overrides WHERE bundle = ?", (bundle,)).fetchone()
        return found is not None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read several things as they were at one moment."""
        with explained(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")
