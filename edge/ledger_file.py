"""The file of a ledger: its tables, its keys, and the commits on it."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

BUSY_MS = 20_000
# What SQLite says when there is no room for a page, for its shared index, or for what it had put off writing.
NO_ROOM = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
SCHEMA_VERSION = 3
SCHEMA = """
CREATE TABLE identity (edge TEXT NOT NULL) STRICT;
CREATE TABLE epochs (  -- the newest one counts
    number INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE,
    public_key TEXT NOT NULL               -- Ed25519, hex: of who began it, and the only one to seal in it
) STRICT;
CREATE TABLE leases (lease_id TEXT PRIMARY KEY, expires_unix_s REAL NOT NULL) STRICT;
CREATE TABLE assignments (
    number INTEGER PRIMARY KEY AUTOINCREMENT, assignment_id TEXT NOT NULL UNIQUE,
    lease_id TEXT NOT NULL REFERENCES leases, body BLOB NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'  -- 'pending', 'open', 'done', 'void'
) STRICT;
CREATE INDEX assignments_by_state ON assignments (state);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch TEXT NOT NULL REFERENCES epochs (epoch), sequence INTEGER NOT NULL,
    lease_id TEXT NOT NULL, assignment BLOB NOT NULL, opened_unix_s REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'open',    -- 'open', 'sealed', 'acked', 'replicated', 'refused'
    body BLOB, previous BLOB, chain BLOB, signature BLOB,  -- once sealed, see edge.records.Sealed
    public_key TEXT NOT NULL DEFAULT '',   -- Ed25519, hex: what the signature is checked with
    seal INTEGER,                          -- counts the seals of an epoch
    acked_unix_s REAL,
    recording TEXT NOT NULL DEFAULT '',    -- sha256
    recording_path TEXT NOT NULL DEFAULT '',
    recording_state TEXT NOT NULL DEFAULT 'here',  -- 'here', 'sent', 'replicated', 'purging', 'purged'
    sent_unix_s REAL,
    refused_because TEXT NOT NULL DEFAULT '',
    UNIQUE (epoch, sequence), UNIQUE (epoch, seal)
) STRICT;
CREATE INDEX trials_by_state ON trials (state);
CREATE INDEX trials_by_recording ON trials (recording_state, state) WHERE recording != '';
CREATE INDEX trials_with_recording_away ON trials (number, recording)
    WHERE recording != '' AND recording_state IN ('sent', 'replicated');
CREATE INDEX trials_by_content ON trials (recording) WHERE recording != '';
"""


class LedgerError(Exception):
    """The ledger cannot be used; the message is one line that says what to do."""


class NotThisLedger(LedgerError):
    """The file is another edge's, of another version, or its key is none; no new start cures that."""


class DiskFull(LedgerError):
    """The disk has no room for the ledger's next commit; nothing was lost."""


class LedgerFile:
    """One connection to a ledger's file, and the key that its trials are signed with."""

    def __init__(self, path: Path, edge: str) -> None:
        """Open the ledger at `path`, making it and the key beside it where there is none.

        Raises:
            LedgerError: it cannot be opened, or it belongs to another edge.
        """
        self.path = path
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_suffix(".lock"), "wb") as lock:  # two processes may come first at once
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.key = _load_key(path.with_name("edge.key"))
                self.db = _connect(path, edge, self.public_key)
            owner = self.db.execute("SELECT edge FROM identity").fetchone()[0]
        if owner != edge:
            self.db.close()
            raise NotThisLedger(f"{path} belongs to edge {owner!r}, not {edge!r}; give {edge!r} a folder of its own")

    @property
    def public_key(self) -> str:
        """What the seals of this process are checked with: Ed25519, hex."""
        return self.key.public_key().public_bytes_raw().hex()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done inside, or nothing of it; on the disk once it returns.

        Raises:
            LedgerError: it could not be committed.
        """
        with self.explained():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what SQLite and the disk say into one line."""
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in NO_ROOM:
                raise DiskFull(f"disk full: free space on {self.path.parent}, nothing was lost") from error
            raise LedgerError(f"cannot use the ledger {self.path}: {error}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"disk full: free space on {self.path.parent}, nothing was lost") from error
            raise LedgerError(f"cannot use the ledger {self.path}: {error.strerror}") from error


def add_epoch(db: sqlite3.Connection, public_key: str) -> None:
    """Insert an epoch under a name that no ledger has had."""
    db.execute("INSERT INTO epochs (epoch, public_key) VALUES (?, ?)", (secrets.token_hex(8), public_key))


def _connect(path: Path, edge: str, public_key: str) -> sqlite3.Connection:
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
        db.execute("INSERT INTO identity VALUES (?)", (edge,))
        add_epoch(db, public_key)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    elif version != SCHEMA_VERSION:
        raise NotThisLedger(f"{path} has format {version}, this version reads {SCHEMA_VERSION}; use a matching version")
    if db.execute("SELECT public_key FROM epochs ORDER BY number DESC LIMIT 1").fetchone()[0] != public_key:
        add_epoch(db, public_key)  # the key was lost: nobody would believe it under the old name
    return db


def _load_key(path: Path) -> Ed25519PrivateKey:
    """Return the edge's key, making it where there is none; only its owner can read it.

    Raises:
        LedgerError: the file holds no key.
    """
    if not path.exists():
        unfinished = path.with_suffix(".part")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as out:
            out.write(Ed25519PrivateKey.generate().private_bytes_raw().hex().encode())
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text()))
    except ValueError as error:
        raise NotThisLedger(
            f"{path} is not an edge's key; put the right one back, or take it away for a new one"
        ) from error
