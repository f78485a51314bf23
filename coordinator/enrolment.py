"""Which machine may call itself by an edge's name: tickets, what came with them, and what a person decided on it.

- A ticket is bound to the keys of the first machine that comes with it.
- No machine is enrolled without a person: they compare six words, here and on the edge, and approve.
- Approving a machine replaces the one before it under the same name; what that one's ledger signed is still believed.
  Revoking a name disbelieves all of its machines, and nobody gets the name while one of their certificates is good.
- Commands of a person and the coordinator's loop each have one of these, on the database of the run.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from coordinator.access import CONSOLE
from coordinator.errors import CoordinatorError
from coordinator.store import FILE, Store
from edge.records import EDGE_NAME
from edge.wire.enrolment import TICKET_BYTES

MIGRATION = 8  # the one that made these tables
HOUR_S = 3600.0
COLUMNS = "enrolment_id, edge, state, fingerprint, made_unix_s, ticket_until_unix_s, asked_unix_s, decided_unix_s, " \
          "certificate_until_unix_s, tls_key, ledger_key, certificate"  # fmt: skip


class EnrolmentRefused(CoordinatorError):
    """What was asked for cannot be done as things are; the message says what can."""


@dataclass(frozen=True)
class Row:
    """One ticket and what became of it."""

    enrolment_id: int
    edge: str
    state: str  # ticket, waiting, approved, denied, revoked or replaced
    fingerprint: str  # six words, empty before a machine has come
    made_unix_s: float
    ticket_until_unix_s: float
    asked_unix_s: float | None
    decided_unix_s: float | None
    certificate_until_unix_s: float | None
    tls_key: str
    ledger_key: str
    certificate: str


class Enrolment:
    """The enrolments of a run."""

    def __init__(self, database: Path) -> None:
        """Open the run's database, made or brought to this version if need be.

        Raises:
            CoordinatorError: no database of this version.
        """
        self._path = database
        if not database.exists() or _version(database) < MIGRATION:
            Store(database).close()
        with self._explained():
            self._db = sqlite3.connect(database, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
                self._db.execute(f"PRAGMA {pragma}")
        self._seen_version = -1
        self._edges: frozenset[str] = frozenset()
        self._denied: dict[str, str] = {}

    def __enter__(self) -> Enrolment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close this connection."""
        self._db.close()

    # -- what a person does -------------------------------------------------------------------------------------------

    def ticket(self, edge: str, hours: float, now_unix_s: float) -> bytes:
        """Return a new ticket for an edge's name; an unused one for the same name is good no more.

        Raises:
            EnrolmentRefused: no name, or no time.
        """
        if not EDGE_NAME.fullmatch(edge):
            raise EnrolmentRefused(f"{edge!r} is not a name for an edge; use only letters, digits, - and _")
        if not 0.0 < hours <= 24 * 366:
            raise EnrolmentRefused(f"a ticket for {hours:g} hours; give some, at most a year's")
        made = secrets.token_bytes(TICKET_BYTES)
        with self._transaction() as db:
            db.execute(
                "UPDATE enrolments SET state = 'replaced', decided_unix_s = ? WHERE edge = ? AND state = 'ticket'",
                (now_unix_s, edge),
            )
            db.execute(
                "INSERT INTO enrolments (edge, ticket_sha256, made_unix_s, ticket_until_unix_s, state)"
                " VALUES (?, ?, ?, ?, 'ticket')",
                (edge, hashlib.sha256(made).hexdigest(), now_unix_s, now_unix_s + hours * HOUR_S),
            )
        return made

    def rows(self) -> list[Row]:
        """Return every ticket, newest first."""
        with self._explained():
            found = self._db.execute(f"SELECT {COLUMNS} FROM enrolments ORDER BY enrolment_id DESC").fetchall()
        return [Row(*row) for row in found]

    def approve(self, edge: str, fingerprint: str, now_unix_s: float) -> None:
        """Let the machine that waits under an edge's name have it; its coordinator gives it a certificate.

        Args:
            fingerprint: the six words as the edge shows them.

        Raises:
            EnrolmentRefused: none waits, the words are another machine's, or a revoked one could still speak.
        """
        with self._transaction() as db:
            mine = self._waiting(edge, fingerprint)
            self._check_nobody_revoked_can_speak(edge, now_unix_s)
            db.execute(
                "UPDATE enrolments SET state = 'replaced', decided_unix_s = ?"
                " WHERE edge = ? AND state IN ('approved', 'waiting') AND enrolment_id != ?",
                (now_unix_s, edge, mine.enrolment_id),
            )
            self._decide(mine.enrolment_id, "approved", now_unix_s)
            db.execute("DELETE FROM edge_denied WHERE edge = ?", (edge,))

    def console(self, user: str, certificate: str, until_unix_s: float, now_unix_s: float) -> None:
        """Let a person's console listen with a certificate, before that is handed out; the one before it counts too.

        Raises:
            EnrolmentRefused: no name, or one that was revoked could still speak.
        """
        name = console_name(user)
        with self._transaction() as db:
            self._check_nobody_revoked_can_speak(name, now_unix_s)
            db.execute(
                "UPDATE enrolments SET state = 'replaced', decided_unix_s = ? WHERE edge = ? AND state = 'approved'",
                (now_unix_s, name),
            )
            # No ticket leads to it: what the column must hold is the sha256 of bytes that nobody has.
            db.execute(
                "INSERT INTO enrolments (edge, ticket_sha256, made_unix_s, ticket_until_unix_s, state, decided_unix_s,"
                " certificate, certificate_until_unix_s) VALUES (?, ?, ?, ?, 'approved', ?, ?, ?)",
                (name, secrets.token_hex(32), now_unix_s, now_unix_s, now_unix_s, certificate, until_unix_s),
            )
            db.execute("DELETE FROM edge_denied WHERE edge = ?", (name,))

    def deny(self, edge: str, now_unix_s: float) -> int:
        """Turn away whatever waits under an edge's name; return how many machines that were.

        Raises:
            EnrolmentRefused: none waits.
        """
        waiting = [row for row in self.rows() if row.edge == edge and row.state == "waiting"]
        if not waiting:
            raise EnrolmentRefused(f"no machine waits to be {edge!r}; to turn an enrolled one away, use enrol revoke")
        with self._transaction():
            for row in waiting:
                self._decide(row.enrolment_id, "denied", now_unix_s)
        return len(waiting)

    def revoke(self, edge: str, now_unix_s: float) -> None:
        """Take a name away from every machine that had it: no question is answered, no certificate renewed.

        Raises:
            EnrolmentRefused: nobody has it.
        """
        with self._transaction() as db:
            taken = db.execute(
                "UPDATE enrolments SET state = 'revoked', decided_unix_s = ?"
                " WHERE edge = ? AND (state IN ('ticket', 'waiting', 'approved')"
                "     OR (state = 'replaced' AND certificate != ''))",
                (now_unix_s, edge),
            ).rowcount
            if not taken:
                raise EnrolmentRefused(f"nothing to revoke: no machine is or waits to be {edge!r}; see enrol list")
            db.execute(
                "INSERT OR REPLACE INTO edge_denied VALUES (?, ?, ?)",
                (edge, f"{edge!r} was revoked; enrol it anew", now_unix_s),
            )

    # -- where the coordinator can be reached -------------------------------------------------------------------------

    def listens(self, endpoint: str, door: str) -> None:
        """Note the endpoints under which edges reach the coordinator, for the tickets to come."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO listening VALUES (1, ?, ?)", (endpoint, door))

    def endpoints(self) -> tuple[str, str] | None:
        """Return endpoint and door as last noted, None where they never were."""
        with self._explained():
            row = self._db.execute("SELECT endpoint, door FROM listening").fetchone()
        return None if row is None else (row[0], row[1])

    # -- what the coordinator's loop does -----------------------------------------------------------------------------

    def edges(self) -> frozenset[str]:
        """Return who may talk now, consoles among them; cheap to ask again and again."""
        self._look()
        return self._edges

    def refusal(self, edge: str) -> str:
        """Return why an edge is answered nothing; empty where it is."""
        self._look()
        return self._denied.get(edge, "")

    def of_ticket(self, ticket: bytes) -> Row | None:
        """Return what became of a ticket, None where nobody made it here."""
        return self._row("ticket_sha256 = ?", hashlib.sha256(ticket).hexdigest())

    def approved(self, edge: str) -> Row | None:
        """Return the machine that has a name, None where none has."""
        return self._row("state = 'approved' AND edge = ?", edge)

    def bind(self, row: Row, tls_key: str, ledger_key: str, fingerprint: str, now_unix_s: float) -> None:
        """Let a machine with these keys wait with an unused ticket; nothing changes where another was faster."""
        with self._transaction() as db:
            db.execute(
                "UPDATE enrolments SET state = 'waiting', asked_unix_s = ?, tls_key = ?, ledger_key = ?,"
                " fingerprint = ? WHERE enrolment_id = ? AND state = 'ticket'",
                (now_unix_s, tls_key, ledger_key, fingerprint, row.enrolment_id),
            )

    def certified(self, row: Row, certificate: str, until_unix_s: float) -> None:
        """Note the newest certificate of a machine, before it is handed out."""
        with self._transaction() as db:
            db.execute(
                "UPDATE enrolments SET certificate = ?, certificate_until_unix_s = ? WHERE enrolment_id = ?",
                (certificate, until_unix_s, row.enrolment_id),
            )

    # -----------------------------------------------------------------------------------------------------------------

    def _waiting(self, edge: str, fingerprint: str) -> Row:
        """Return the machine with this fingerprint that waits under an edge's name.

        Raises:
            EnrolmentRefused: there is none.
        """
        words = " ".join(fingerprint.replace("-", " ").lower().split())
        waiting = [row for row in self.rows() if row.edge == edge and row.state == "waiting"]
        if not waiting:
            raise EnrolmentRefused(f"no machine waits to be {edge!r}; see enrol list, and run enpire-edge enrol there")
        mine = next((row for row in waiting if row.fingerprint == words), None)
        if mine is None:
            others = " and ".join(f'"{row.fingerprint}"' for row in waiting)
            raise EnrolmentRefused(
                f'what waits to be {edge!r} has the fingerprint {others}, not "{words}"; '
                "if the edge shows other words, deny it: another machine has used its ticket"
            )
        return mine

    def _check_nobody_revoked_can_speak(self, edge: str, now_unix_s: float) -> None:
        """Check that no certificate of a name that was revoked is still good.

        The network tells machines apart by the name in their certificates, so whoever is let in under a name lets in
        all of them.

        Raises:
            EnrolmentRefused: one is; it says until when.
        """
        [until_unix_s] = self._db.execute(
            "SELECT MAX(certificate_until_unix_s) FROM enrolments"
            " WHERE edge = ? AND (state = 'revoked' OR edge IN (SELECT edge FROM edge_denied))",
            (edge,),
        ).fetchone()
        if until_unix_s is not None and not now_unix_s >= until_unix_s:
            until = datetime.fromtimestamp(until_unix_s, UTC).isoformat(" ", "seconds")
            raise EnrolmentRefused(
                f"a certificate that was revoked with {edge!r} is good until {until}, and what holds it would be let "
                "in again; approve then, or enrol the machine under another name"
            )

    def _decide(self, enrolment_id: int, state: str, now_unix_s: float) -> None:
        self._db.execute(
            "UPDATE enrolments SET state = ?, decided_unix_s = ? WHERE enrolment_id = ? AND state = 'waiting'",
            (state, now_unix_s, enrolment_id),
        )

    def _row(self, which: str, value: str) -> Row | None:
        with self._explained():
            row = self._db.execute(f"SELECT {COLUMNS} FROM enrolments WHERE {which}", (value,)).fetchone()
        return None if row is None else Row(*row)

    def _look(self) -> None:
        """Read anew who may talk, if that may have changed since."""
        with self._explained():
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            if version == self._seen_version:
                return
            approved = self._db.execute("SELECT edge FROM enrolments WHERE state = 'approved'").fetchall()
            denied = self._db.execute("SELECT edge, why FROM edge_denied").fetchall()
        self._seen_version = version
        self._denied = dict(denied)
        self._edges = frozenset(edge for (edge,) in approved) - self._denied.keys()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._seen_version = -1

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CoordinatorError(f"cannot use the database {self._path}: {error}") from error


def console_name(user: str) -> str:
    """Return the name in the certificate of a person's console.

    Raises:
        EnrolmentRefused: not a name.
    """
    if not EDGE_NAME.fullmatch(user):
        raise EnrolmentRefused(f"{user!r:.80} is not a name for a person; use only letters, digits, - and _")
    return f"{CONSOLE}{user}"


def database_of(run: Path) -> Path:
    """Return where the database of a run is.

    Raises:
        EnrolmentRefused: there is no such run.
    """
    if not run.is_dir():
        raise EnrolmentRefused(f"there is no run in {run}; give the folder that enpire-coord serve uses")
    return run / FILE


def _version(database: Path) -> int:
    try:
        db = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return int(db.execute("PRAGMA user_version").fetchone()[0])
        finally:
            db.close()
    except sqlite3.Error as error:
        raise CoordinatorError(f"cannot use the database {database}: {error}") from error
