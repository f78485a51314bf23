"""The coordinator's memory: one SQLite file per run, written by one process, every commit on the disk.

- Tables come from the numbered files in `migrations/`; `PRAGMA user_version` says which were applied.
- A trial is kept once: the same identity with the same content changes nothing, with other content it goes to
  quarantine and the first one stands. So does a trial that claims the place of another in its edge's chain.
- The trials of an enrolled edge are signed with the key that a person approved. Of an edge that nobody enrolled, the
  first key that its ledger is seen with is the one that must have signed all of its trials.
- What the campaign decides arrives as `coordinator.evolution.records`, each the image of a row.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from coordinator.errors import CoordinatorError
from coordinator.evolution.records import Event
from coordinator.ingest import LONGEST_BODY, Batch, BatchRefused, Identity, check_seal, identity_in, read_trial
from coordinator.rollouts import Rollout
from coordinator.rows import insert, write_event
from coordinator.scheduling.work import Attempt
from edge.records import Lease, RecordError, Sealed, Trial

FILE = "coordinator.db"
GAPS = """
SELECT before + 1, sequence - 1 FROM (
    SELECT sequence, LAG(sequence, 1, 0) OVER (ORDER BY sequence) AS before FROM trials WHERE edge = ? AND epoch = ?
) WHERE sequence > before + 1 LIMIT ?
"""
# A machine that was replaced has signed what it signed; a name that was revoked leaves none.
APPROVED_KEYS = """
SELECT ledger_key FROM enrolments WHERE edge = ? AND (state = 'approved' OR (state = 'replaced' AND certificate != ''))
"""
# In a run of numbers without a gap, number minus rank stays the same.
REPLICATED_RUNS = """
SELECT MIN(sequence), MAX(sequence) FROM (
    SELECT sequence, sequence - ROW_NUMBER() OVER (ORDER BY sequence) AS run FROM trials
    WHERE edge = ? AND epoch = ? AND replicated = 1
) GROUP BY run LIMIT ?
"""
MOST_QUARANTINED = 1000  # of one edge
MOST_RANGES = 1000  # in one answer; the rest comes once these are sent
Kept = Literal["new", "same", "conflict", "refused"]
Range = tuple[int, int]  # both ends included


class StoreError(CoordinatorError):
    """The database cannot be opened or written."""


@dataclass(frozen=True)
class Ingested:
    """What became of one body."""

    kept: Kept
    identity: Identity | None  # None where the body names none
    trial: Trial | None  # None where it was refused
    reason: str = ""


@dataclass(frozen=True)
class Known:
    """What is kept of an edge's epoch."""

    high: int  # the last number, 0 where there is none
    missing: list[Range]  # before it
    replicated: list[Range]


class Store:
    """The one connection that writes."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path` and bring it to the newest version.

        Raises:
            StoreError: not a database of this version, or not writable.
        """
        self._path = path
        with self._explained():
            self._db = sqlite3.connect(path, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it, so that a finished run is one file."""
        with suppress(sqlite3.OperationalError):  # somebody reads it; then the log stays beside it
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    def leave(self) -> None:
        """Close this connection, and leave the log to whoever else has the database open."""
        self._db.close()

    # -- trials -------------------------------------------------------------------------------------------------------

    def ingest(self, batch: Batch, now_unix_s: float) -> list[Ingested]:
        """Keep a batch in one transaction; once this returns all of it is on the disk."""
        with self.transaction():
            return [self._ingest(sealed, batch.key, now_unix_s) for sealed in batch.trials]

    def known_of(self, edge: str, epoch: str) -> Known:
        """Return what of an edge's epoch is kept, so that the edge can send what is not."""
        with self._explained():
            high = self._one("SELECT COALESCE(MAX(sequence), 0) FROM trials WHERE edge = ? AND epoch = ?", edge, epoch)
            gaps = self._db.execute(GAPS, (edge, epoch, MOST_RANGES)).fetchall()
            runs = self._db.execute(REPLICATED_RUNS, (edge, epoch, MOST_RANGES)).fetchall()
        return Known(int(high), gaps, runs)

    def recordings_of(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return which of these recordings are not here, and which a backup holds."""
        marks = ", ".join("?" * len(names))
        with self._explained():
            rows = dict(
                self._db.execute(
                    f"SELECT sha256, replicated FROM recordings WHERE sha256 IN ({marks})", names
                ).fetchall()
            )
        return [name for name in names if name not in rows], [name for name in names if rows.get(name)]

    def add_recording(self, sha256: str, edge: str, file: str, size_bytes: int, now_unix_s: float) -> None:
        """Note a recording that lies complete on the disk; again changes nothing."""
        self._insert(
            "recordings",
            {"sha256": sha256, "edge": edge, "file": file, "bytes": size_bytes, "received_unix_s": now_unix_s},
            or_ignore=True,
        )

    def recording_bytes(self, recording: str) -> int | None:
        """Return how long a recording is by the kept trial that names it, or None where none does."""
        with self._explained():
            row = self._db.execute(
                "SELECT recording_bytes FROM trials WHERE recording = ? LIMIT 1", (recording,)
            ).fetchone()
        return None if row is None else int(row[0])

    def recordings_missing(self) -> int:
        """Return how many recordings of kept trials have not come."""
        return int(
            self._one(
                "SELECT COUNT(*) FROM trials WHERE recording != '' AND recording NOT IN (SELECT sha256 FROM recordings)"
            )
        )

    # -- work ---------------------------------------------------------------------------------------------------------

    def lease(self, lease: Lease, edge: str, attempts: Iterable[Attempt], now_unix_s: float) -> None:
        """Note what is handed to an edge, before it is handed out."""
        more = {"lease_id": lease.lease_id, "edge": edge, "state": "leased"}
        times = {"leased_unix_s": now_unix_s, "expires_unix_s": lease.expires_unix_s}
        with self.transaction():
            for attempt in attempts:
                self._insert_row("assignments", {**asdict(attempt), **more, **times})

    def void(self, assignment_ids: Iterable[str], now_unix_s: float) -> None:
        """Mark assignments that are no longer waited for."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE assignments SET state = 'void', done_unix_s = ? WHERE assignment_id = ? AND state = 'leased'",
                [(now_unix_s, item) for item in assignment_ids],
            )

    def station_seen(self, row: Mapping[str, Any], now_unix_s: float) -> None:
        """Note a station by its edge, epoch, station_hash, calibration_hash, software and peak_memory_mb."""
        values = {**row, "first_seen_unix_s": now_unix_s, "last_seen_unix_s": now_unix_s}
        newer = ", ".join(f"{name} = excluded.{name}" for name in values if name not in ("edge", "first_seen_unix_s"))
        marks = ", ".join("?" * len(values))
        with self.transaction() as db:
            db.execute(
                f"INSERT INTO stations ({', '.join(values)}) VALUES ({marks}) ON CONFLICT (edge) DO UPDATE SET {newer}",
                tuple(values.values()),
            )

    def peak_memory(self, edge: str, peak_mb: float) -> None:
        """Note the most that a station's processes have held in memory."""
        with self.transaction() as db:
            db.execute("UPDATE stations SET peak_memory_mb = ? WHERE edge = ?", (peak_mb, edge))

    def rollouts(self, said: Sequence[Rollout], now_unix_s: float) -> None:
        """Keep how far policies have come on a station, where the station says something new."""
        if not said:
            return
        with self.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*astuple(item), now_unix_s) for item in said],
            )

    def add_push(self, row: Mapping[str, Any]) -> None:
        """Note what a person ordered."""
        self._insert("pushes", row)

    def add_bundle(self, row: Mapping[str, Any]) -> None:
        """Keep a signed bundle; the same one again changes nothing."""
        self._insert("bundles", row, or_ignore=True)

    def bundle(self, sha256: str) -> bytes | None:
        """Return the signed bytes of a bundle, or None where there is none of that name."""
        with self._explained():
            row = self._db.execute("SELECT archive FROM bundles WHERE bundle = ?", (sha256,)).fetchone()
        return None if row is None else bytes(row[0])

    # -- what the campaign decides ------------------------------------------------------------------------------------

    def write(self, events: Iterable[Event]) -> None:
        """Keep what the campaign has decided, all of it or nothing."""
        with self.transaction() as db:
            for event in events:
                write_event(db, event)

    # -- the run ------------------------------------------------------------------------------------------------------

    def begin_campaign(self, row: Mapping[str, Any]) -> None:
        """Note what is asked of this run."""
        self._insert("campaigns", row)

    def end_campaign(self, campaign_id: str, why: str, now_unix_s: float) -> None:
        """Note when and why the run ended."""
        with self.transaction() as db:
            db.execute(
                "UPDATE campaigns SET ended_unix_s = ?, ended_why = ? WHERE campaign_id = ?",
                (now_unix_s, why, campaign_id),
            )

    def note(self, level: str, text: str, edge: str | None, now_unix_s: float) -> None:
        """Keep one line about what happened."""
        self._insert("events", {"unix_s": now_unix_s, "edge": edge, "level": level, "text": text})

    # -----------------------------------------------------------------------------------------------------------------

    def _ingest(self, sealed: Sealed, key: str, now_unix_s: float) -> Ingested:
        body = sealed.body
        try:
            trial = read_trial(body)
            self._check_key(trial, key)
            check_seal(sealed, key)
        except RecordError as error:
            self._quarantine(body, identity_in(body), str(error), now_unix_s)
            return Ingested("refused", identity_in(body), None, str(error))
        sha256 = hashlib.sha256(body).hexdigest()
        known = self._db.execute(
            "SELECT content_sha256 FROM trials WHERE edge = ? AND epoch = ? AND sequence = ?", trial.identity
        ).fetchone()
        if known is not None and known[0] == sha256:
            return Ingested("same", trial.identity, trial)
        if known is not None or self._is_fork(trial, sealed):
            reason = "another trial stands in its place; the edge's card may be a copy of another's"
            self._quarantine(body, trial.identity, reason, now_unix_s)
            return Ingested("conflict", trial.identity, trial, reason)
        self._db.execute(
            "INSERT INTO ledgers VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (trial.edge, trial.epoch, key, now_unix_s),
        )
        seal = {"previous_chain": sealed.previous.hex(), "chain": sealed.chain.hex(), "signature": sealed.signature}
        more = {"content_sha256": sha256, "received_unix_s": now_unix_s}
        self._insert_row("trials", vars(trial) | seal | more)
        self._db.execute(
            "UPDATE assignments SET state = 'done', done_unix_s = ?"
            " WHERE assignment_id = ? AND edge = ? AND state = 'leased'",
            (now_unix_s, trial.assignment_id, trial.edge),
        )
        return Ingested("new", trial.identity, trial)

    def _check_key(self, trial: Trial, key: str) -> None:
        """Refuse a key other than the trial's edge has: those it was enrolled with, and the first one of this epoch.

        Raises:
            BatchRefused: its edge was revoked, or enrolled with another; nothing is marked, as that may be put right.
            RecordError: another key than this epoch's.
        """
        denied = self._db.execute("SELECT why FROM edge_denied WHERE edge = ?", (trial.edge,)).fetchone()
        if denied is not None:
            raise BatchRefused(f"trials: {denied[0]}")
        approved = self._db.execute(APPROVED_KEYS, (trial.edge,)).fetchall()
        if approved and (key,) not in approved:
            raise BatchRefused(
                f"trials: {trial.edge} was enrolled with another ledger's key than {key[:12]}; enrol it anew"
            )
        known = self._db.execute(
            "SELECT public_key FROM ledgers WHERE edge = ? AND epoch = ?", (trial.edge, trial.epoch)
        ).fetchone()
        if known is not None and known[0] != key:
            raise RecordError(f"its ledger was first seen with another key than {key[:12]}")

    def _is_fork(self, trial: Trial, sealed: Sealed) -> bool:
        """Return whether another trial is chained to the same one."""
        return bool(
            self._one(
                "SELECT EXISTS (SELECT 1 FROM trials WHERE edge = ? AND epoch = ? AND previous_chain = ?)",
                trial.edge, trial.epoch, sealed.previous.hex(),
            )
        )  # fmt: skip

    def _quarantine(self, body: bytes, identity: Identity | None, reason: str, now_unix_s: float) -> None:
        """Keep what was refused, once, the beginning of it where it is huge, and of one edge no more than so many."""
        edge, epoch, sequence = identity or (None, None, None)
        kept = self._one("SELECT COUNT(*) FROM quarantine WHERE edge IS ?", edge)
        if kept >= MOST_QUARANTINED:
            return
        row = {"edge": edge, "epoch": epoch, "sequence": sequence, "reason": reason, "body": body[:LONGEST_BODY]}
        self._insert_row(
            "quarantine",
            {**row, "content_sha256": hashlib.sha256(body).hexdigest(), "received_unix_s": now_unix_s},
            or_ignore=True,  # sent again, as everything is until it is acknowledged
        )

    def _insert(self, table: str, row: Mapping[str, Any], or_ignore: bool = False) -> None:
        with self.transaction():
            self._insert_row(table, row, or_ignore)

    def _insert_row(self, table: str, row: Mapping[str, Any], or_ignore: bool = False) -> None:
        insert(self._db, table, row, or_ignore)

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return what a query finds.

        Raises:
            StoreError: it cannot be read.
        """
        with self._explained():
            return self._db.execute(query, values).fetchall()

    def _one(self, query: str, *values: object) -> Any:
        with self._explained():
            return self._db.execute(query, values).fetchone()[0]

    def _migrate(self) -> None:
        version = self._one("PRAGMA user_version")
        scripts = sorted(
            (int(item.name.split("_")[0]), item.read_text())
            for item in (files("coordinator") / "migrations").iterdir()
            if item.name.endswith(".sql")
        )
        if version > scripts[-1][0]:
            raise StoreError(f"{self._path} has format {version}, this version reads {scripts[-1][0]}; use a newer one")
        for number, script in scripts:
            if number > version:
                self._db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all that is written within, or nothing.

        Raises:
            StoreError: it cannot be written.
        """
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
                raise StoreError(f"disk full: free space on {self._path.parent}; stations keep their trials") from error
            raise StoreError(f"cannot use the database {self._path}: {error}") from error
