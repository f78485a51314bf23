"""The robot's own memory of its work: leases not yet done, trials not yet acknowledged, recordings not yet sent.

- One SQLite file (WAL, every commit on disk before it returns), opened by the station and by the uplink at once.
- A trial's row is committed `open` before the arm moves and `sealed` in one transaction when it ended. A run that
  crashed leaves an open row; `recover` seals it as invalid, so no number is ever missing.
- Nothing leaves the ledger before the coordinator has said that it is on its disk, and then it is only marked.
- The epoch is drawn when the file is made: a cloned or flashed card cannot reuse numbers.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge.records import Assignment, Lease, Outcome, Trial, decode, encode

BUSY_MS = 20_000
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE identity (edge TEXT NOT NULL, epoch TEXT NOT NULL) STRICT;
CREATE TABLE leases (lease_id TEXT PRIMARY KEY, expires_unix_s REAL NOT NULL) STRICT;
CREATE TABLE assignments (
    number INTEGER PRIMARY KEY AUTOINCREMENT, assignment_id TEXT NOT NULL UNIQUE,
    lease_id TEXT NOT NULL REFERENCES leases, body BLOB NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'  -- 'pending', 'open', 'done', 'void'
) STRICT;
CREATE INDEX assignments_by_state ON assignments (state);
CREATE TABLE trials (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, lease_id TEXT NOT NULL, assignment BLOB NOT NULL,
    opened_unix_s REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'open',    -- 'open', 'sealed', 'acked', 'refused'
    body BLOB,                             -- the encoded Trial, once sealed
    recording TEXT NOT NULL DEFAULT '',    -- sha256
    recording_path TEXT NOT NULL DEFAULT '', recording_sent INTEGER NOT NULL DEFAULT 0,
    refused_because TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX trials_by_state ON trials (state);
CREATE INDEX recordings_unsent ON trials (state) WHERE recording != '' AND recording_sent = 0;
"""

Identity = tuple[str, str, int]


class LedgerError(Exception):
    """The ledger cannot be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class OpenTrial:
    """A trial that was begun and never sealed."""

    sequence: int
    lease_id: str
    assignment: Assignment
    opened_unix_s: float


def room(path: Path, minimum_mb: float) -> None:
    """Raise unless the disk that holds `path` has `minimum_mb` free: no trial is begun that could not be kept.

    Raises:
        LedgerError: too little is free.
    """
    where = path if path.exists() else path.parent
    status = os.statvfs(where)
    free_mb = status.f_bavail * status.f_frsize / 1e6
    if not free_mb >= minimum_mb:
        raise LedgerError(
            f"disk nearly full: {free_mb:.0f} MB free on {where}, a trial needs {minimum_mb:.0f} MB; "
            "free some space, nothing was lost"
        )


class Ledger:
    """One connection to the ledger of a station."""

    def __init__(self, path: Path, edge: str) -> None:
        """Open the ledger at `path`, making it where there is none.

        Raises:
            LedgerError: it cannot be opened, or it belongs to another edge.
        """
        self._path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_suffix(".lock"), "wb") as lock:  # two processes may come first at once
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._db = _connect(path, edge)
        self.edge, self.epoch = self._db.execute("SELECT edge, epoch FROM identity").fetchone()
        if self.edge != edge:
            self._db.close()
            raise LedgerError(f"{path} belongs to edge {self.edge!r}, not {edge!r}; give {edge!r} a folder of its own")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close this connection."""
        self._db.close()

    # -- work ---------------------------------------------------------------------------------------------------------

    def add_lease(self, lease: Lease) -> bool:
        """Keep a lease; return False where it is already known, so that it may arrive twice."""
        with self._transaction() as db:
            rows = db.execute(
                "INSERT INTO leases VALUES (?, ?) ON CONFLICT DO NOTHING", (lease.lease_id, lease.expires_unix_s)
            ).rowcount
            if rows:
                db.executemany(
                    "INSERT INTO assignments (assignment_id, lease_id, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    [(item.assignment_id, lease.lease_id, encode(item)) for item in lease.assignments],
                )
            return bool(rows)

    def next_assignment(self, now_unix_s: float) -> tuple[Assignment, str] | None:
        """Return the oldest pending assignment and its lease; what its lease no longer allows becomes void."""
        with self._explained():
            expired = self._db.execute(
                "SELECT 1 FROM assignments JOIN leases USING (lease_id)"
                " WHERE state = 'pending' AND NOT expires_unix_s > ?",
                (now_unix_s,),
            ).fetchone()
            if expired:
                self._void_expired(now_unix_s)
            row = self._db.execute(
                "SELECT body, lease_id FROM assignments WHERE state = 'pending' ORDER BY number LIMIT 1"
            ).fetchone()
        return None if row is None else (decode(Assignment, row[0]), row[1])

    def pending_count(self, now_unix_s: float) -> int:
        """Return how many assignments may still be begun."""
        with self._explained():
            row = self._db.execute(
                "SELECT COUNT(*) FROM assignments JOIN leases USING (lease_id)"
                " WHERE state = 'pending' AND expires_unix_s > ?",
                (now_unix_s,),
            ).fetchone()
        return int(row[0])

    # -- trials -------------------------------------------------------------------------------------------------------

    def open_trial(self, assignment: Assignment, lease_id: str, now_unix_s: float) -> int:
        """Commit that a trial begins and return its sequence number; call it before the arm moves.

        Raises:
            LedgerError: the assignment is not pending.
        """
        with self._transaction() as db:
            rows = db.execute(
                "UPDATE assignments SET state = 'open' WHERE assignment_id = ? AND state = 'pending'",
                (assignment.assignment_id,),
            ).rowcount
            if rows != 1:
                raise LedgerError(f"assignment {assignment.assignment_id} is not pending; ask for the next one")
            cursor = db.execute(
                "INSERT INTO trials (lease_id, assignment, opened_unix_s) VALUES (?, ?, ?)",
                (lease_id, encode(assignment), now_unix_s),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def seal(self, trial: Trial, recording_path: Path | None) -> None:
        """Commit how an open trial ended; `recording_path` holds what `trial.recording` is the hash of.

        Raises:
            LedgerError: the trial is of another edge or epoch, or not open.
        """
        if (trial.edge, trial.epoch) != (self.edge, self.epoch):
            raise LedgerError(f"trial {trial.identity} is not of this ledger ({self.edge}, {self.epoch})")
        with self._transaction() as db:
            rows = db.execute(
                "UPDATE trials SET state = 'sealed', body = ?, recording = ?, recording_path = ?"
                " WHERE sequence = ? AND state = 'open'",
                (encode(trial), trial.recording, str(recording_path or ""), trial.sequence),
            ).rowcount
            if rows != 1:
                raise LedgerError(f"trial {trial.sequence} is not open; it was sealed before")
            db.execute("UPDATE assignments SET state = 'done' WHERE assignment_id = ?", (trial.assignment_id,))

    def open_trials(self) -> list[OpenTrial]:
        """Return the trials that were begun and never sealed."""
        with self._explained():
            rows = self._db.execute(
                "SELECT sequence, lease_id, assignment, opened_unix_s FROM trials"
                " WHERE state = 'open' ORDER BY sequence"
            ).fetchall()
        return [OpenTrial(row[0], row[1], decode(Assignment, row[2]), row[3]) for row in rows]

    def recover(
        self, now_unix_s: float, *, task: str, station_hash: str, calibration_hash: str, software: str
    ) -> list[Trial]:
        """Seal what a crashed run left open as invalid with the cause `crash`, and return it. Call it at the start."""
        crashed = []
        for item in self.open_trials():
            trial = Trial(
                edge=self.edge,
                epoch=self.epoch,
                sequence=item.sequence,
                assignment_id=item.assignment.assignment_id,
                lease_id=item.lease_id,
                task=task,
                bundle=item.assignment.bundle,
                start_id=item.assignment.start_id,
                purpose=item.assignment.purpose,
                seed=item.assignment.seed,
                outcome=Outcome.INVALID,
                cause="crash",
                detail="the station's process ended during this attempt",
                progress=0.0,
                measures={},
                achieved_start={},
                reset_s=0.0,
                reset_tries=0,
                trial_s=0.0,
                policy_steps=0,
                wall_reset_s=0.0,
                wall_trial_s=0.0,
                started_unix_s=item.opened_unix_s,
                ended_unix_s=now_unix_s,
                station_hash=station_hash,
                calibration_hash=calibration_hash,
                software=software,
                recording="",
            )
            self.seal(trial, None)
            crashed.append(trial)
        return crashed

    # -- delivery -----------------------------------------------------------------------------------------------------

    def unacked(self, limit: int) -> list[bytes]:
        """Return the oldest sealed trials that the coordinator has not acknowledged, encoded as they were sealed."""
        with self._explained():
            rows = self._db.execute(
                "SELECT body FROM trials WHERE state = 'sealed' ORDER BY sequence LIMIT ?", (limit,)
            ).fetchall()
        return [row[0] for row in rows]

    def acknowledge(self, identities: Iterable[Identity]) -> None:
        """Mark trials that are on the coordinator's disk; identities of other ledgers are passed over."""
        mine = [(sequence,) for edge, epoch, sequence in identities if (edge, epoch) == (self.edge, self.epoch)]
        with self._transaction() as db:
            db.executemany("UPDATE trials SET state = 'acked' WHERE sequence = ? AND state = 'sealed'", mine)

    def refused(self, identity: Identity, reason: str) -> None:
        """Keep, but send no more, a trial that the coordinator will never take."""
        edge, epoch, sequence = identity
        if (edge, epoch) != (self.edge, self.epoch):
            return
        with self._transaction() as db:
            db.execute(
                "UPDATE trials SET state = 'refused', refused_because = ? WHERE sequence = ? AND state = 'sealed'",
                (reason, sequence),
            )

    def unsent_recordings(self, limit: int) -> list[tuple[str, Path]]:
        """Return (sha256, path) of the oldest recordings of acknowledged trials that are still only here."""
        with self._explained():
            rows = self._db.execute(
                "SELECT recording, recording_path FROM trials"
                " WHERE state = 'acked' AND recording != '' AND recording_sent = 0 ORDER BY sequence LIMIT ?",
                (limit,),
            ).fetchall()
        return [(row[0], Path(row[1])) for row in rows]

    def recording_sent(self, sha256: str) -> None:
        """Mark a recording that is on the coordinator's disk."""
        with self._transaction() as db:
            db.execute("UPDATE trials SET recording_sent = 1 WHERE recording = ?", (sha256,))

    # -----------------------------------------------------------------------------------------------------------------

    def _void_expired(self, now_unix_s: float) -> None:
        with self._transaction() as db:
            db.execute(
                "UPDATE assignments SET state = 'void' WHERE state = 'pending'"
                " AND lease_id IN (SELECT lease_id FROM leases WHERE NOT expires_unix_s > ?)",
                (now_unix_s,),
            )

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

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
                raise LedgerError(f"disk full: free space on {self._path.parent}, nothing was lost") from error
            raise LedgerError(f"cannot use the ledger {self._path}: {error}") from error
        except OSError as error:
            raise LedgerError(f"cannot use the ledger {self._path}: {error.strerror}") from error


def _connect(path: Path, edge: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        db.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        db.execute("INSERT INTO identity VALUES (?, ?)", (edge, secrets.token_hex(8)))
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    elif version != SCHEMA_VERSION:
        raise LedgerError(f"{path} has format {version}, this version reads {SCHEMA_VERSION}; use a matching version")
    return db
