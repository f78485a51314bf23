"""The file of an activation journal: its tables and the commits on it."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.activation.table import NEWCOMER, STATES

BUSY_MS = 20_000
SCHEMA_VERSION = 2
_ALL = ", ".join(f"'{state}'" for state in STATES)
_NEWCOMER = ", ".join(f"'{state}'" for state in NEWCOMER)
SCHEMA = f"""
CREATE TABLE bundles (  -- every bundle that this edge has heard of
    bundle TEXT PRIMARY KEY,                      -- sha256 of its bytes, hex
    task TEXT NOT NULL DEFAULT '',                -- that it is for, as the order or its signers say
    role TEXT NOT NULL DEFAULT '',                -- 'released' or 'candidates', once verified
    expires_unix_s REAL NOT NULL DEFAULT 0,       -- when what signed it ends
    state TEXT NOT NULL CHECK (state IN ({_ALL})),
    reason TEXT NOT NULL DEFAULT '',              -- why it is in that state, one sentence
    since_unix_s REAL NOT NULL,                   -- when it came into that state
    evidence TEXT NOT NULL DEFAULT '{{}}',          -- JSON: what each gate said last, values beside thresholds
    shadow_steps INTEGER NOT NULL DEFAULT 0,      -- run beside the active one so far
    shadow_p99_s REAL NOT NULL DEFAULT 0,         -- the slowest of its stretches
    shadow_breaches INTEGER NOT NULL DEFAULT 0,   -- targets outside its envelope
    plan TEXT NOT NULL DEFAULT '',                -- JSON: the order that its canary or probation began under
    baseline TEXT NOT NULL DEFAULT '',            -- the bundle that its canary is compared with
    missing INTEGER NOT NULL DEFAULT 0,           -- 1: its files are gone or damaged, and are to be fetched anew
    stop TEXT NOT NULL DEFAULT ''                 -- of a revoked one: 'next-trial' or 'now'
) STRICT;
CREATE UNIQUE INDEX one_active ON bundles (state) WHERE state = 'active';
CREATE UNIQUE INDEX one_newcomer ON bundles (state IN ({_NEWCOMER})) WHERE state IN ({_NEWCOMER});
CREATE TABLE line (  -- one row: what this edge stands on
    only INTEGER PRIMARY KEY CHECK (only = 1),
    active TEXT REFERENCES bundles,               -- what it runs by itself
    last_good TEXT REFERENCES bundles,            -- what it goes back to
    begun_after TEXT,                             -- the newest trial of the active one when it became so; NULL: ask
    floor INTEGER NOT NULL DEFAULT 0,             -- no order with a lower number is ever taken
    standing TEXT NOT NULL DEFAULT '',            -- JSON: the order with that number
    closed TEXT NOT NULL DEFAULT '',              -- what came of an order to roll back, once it is done
    CHECK (active IS NULL OR active IS NOT last_good)
) STRICT;
CREATE TABLE arrows (  -- every change of state, in order
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    bundle TEXT NOT NULL REFERENCES bundles,
    origin TEXT NOT NULL, event TEXT NOT NULL, target TEXT NOT NULL,
    unix_s REAL NOT NULL, reason TEXT NOT NULL
) STRICT;
CREATE TABLE denied (  -- what may never run on this edge again, by this edge's own judgement
    bundle TEXT PRIMARY KEY REFERENCES bundles,
    why TEXT NOT NULL, unix_s REAL NOT NULL
) STRICT;
CREATE TABLE overrides (  -- what two people let become active without a canary, as was signed when last looked
    bundle TEXT PRIMARY KEY
) STRICT;
CREATE TABLE starts (  -- the latest starts of the station's process
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    unix_s REAL NOT NULL,
    bundle TEXT NOT NULL                          -- that was on trial then, or empty
) STRICT;
INSERT INTO line (only) VALUES (1);
"""

Cut = Callable[[str, str], None]  # event of table.EVENTS; "before commit", "after commit", "after effect"


class ActivationError(Exception):
    """The journal cannot be used, or what was asked of it is refused; one line that says what to do."""


class ArrowRefused(ActivationError):
    """The table, the standing order or the bundle's role does not allow the arrow."""


class OrderRefused(ActivationError):
    """An order that is not taken: outdated, replayed, of another time, or for a bundle that may not run here."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal at `path`, making it where there is none.

    Raises:
        ActivationError: it cannot be opened, or is of another format.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "wb") as lock:  # station and uplink may come first at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            db = sqlite3.connect(path, isolation_level=None)
            db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                _make(db)
        version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        db.close()
        raise ActivationError(f"{path} has format {version}, not {SCHEMA_VERSION}; use a matching version")
    return db


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into one line."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise ActivationError(f"cannot use the activation journal {path}: {error}; free space or mend it") from error


@contextmanager
def transaction(db: sqlite3.Connection, event: str, cut: Cut) -> Iterator[None]:
    """Commit what is done inside, or nothing of it; on the disk once it returns."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        cut(event, "before commit")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
        raise
    cut(event, "after commit")


def _make(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";\n"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")
