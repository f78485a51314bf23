"""The robot's own memory of its work: leases not yet done, trials not yet acknowledged, recordings not yet sent.

- One SQLite file (WAL, every commit on disk before it returns), opened by the station and by the uplink at once.
- A trial's row is committed `open` before the arm moves and `sealed` in one transaction when it ended. A run that
  crashed leaves an open row; `recover` seals it as invalid, so no number is ever missing.
- A sealed trial is chained to the one sealed before it and signed with the edge's key.
- Nothing leaves the ledger before the coordinator has said that it is on its disk, and then it is only marked; what the
  coordinator turns out not to have is marked as unsent again. Rows are never deleted; a recording's file may be, once
  a backup holds it.
- The epoch is drawn when the file is made, and anew when the coordinator knows more of it than the file does or other
  than the file says: a cloned card or a restored copy cannot reuse numbers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge.ledger_file import DiskFull, LedgerError, LedgerFile, add_epoch
from edge.records import Assignment, Lease, Outcome, Sealed, Trial, decode, encode, first_link

__all__ = ["DiskFull", "Held", "Identity", "Ledger", "LedgerError", "OpenTrial", "Rescued"]

KEPT_UNDER_PRESSURE_S = 7 * 86400.0  # an acknowledged recording that no backup holds yet

OLDEST_UNACKED = "SELECT epoch FROM trials WHERE state = 'sealed' ORDER BY number LIMIT 1"

Identity = tuple[str, str, int]


@dataclass(frozen=True)
class Held:
    """The sealed trials of one epoch, as the coordinator is told."""

    epoch: str
    first: int
    last: int


@dataclass(frozen=True)
class OpenTrial:
    """A trial that was begun and never sealed."""

    epoch: str
    sequence: int
    lease_id: str
    assignment: Assignment
    opened_unix_s: float


@dataclass(frozen=True)
class Rescued:
    """What a crashed run had recorded."""

    path: Path
    sha256: str
    size: int  # bytes


class Ledger:
    """One connection to the ledger of a station."""

    def __init__(self, path: Path, edge: str) -> None:
        """Open the ledger at `path`, making it where there is none.

        Raises:
            LedgerError: it cannot be opened, or it belongs to another edge.
        """
        self._file = LedgerFile(path, edge)
        self._db = self._file.db
        self.edge = edge

    @property
    def epoch(self) -> str:
        """The epoch of trials that begin now."""
        with self._explained():
            return str(self._db.execute("SELECT epoch FROM epochs ORDER BY number DESC LIMIT 1").fetchone()[0])

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

    def open_trial(self, assignment: Assignment, lease_id: str, now_unix_s: float) -> tuple[str, int]:
        """Commit that a trial begins and return its epoch and sequence number; call it before the arm moves.

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
            epoch = self.epoch
            sequence = self._last(epoch) + 1
            db.execute(
                "INSERT INTO trials (epoch, sequence, lease_id, assignment, opened_unix_s) VALUES (?, ?, ?, ?, ?)",
                (epoch, sequence, lease_id, encode(assignment), now_unix_s),
            )
        return epoch, sequence

    def seal(self, trial: Trial, recording_path: Path | None) -> None:
        """Commit how an open trial ended; `recording_path` holds what `trial.recording` is the hash of.

        Raises:
            LedgerError: the trial is of another edge, or not open here.
        """
        if trial.edge != self.edge:
            raise LedgerError(f"trial {trial.identity} is not of this ledger, which is {self.edge}'s")
        body = encode(trial)
        with self._transaction() as db:
            newest = db.execute(
                "SELECT seal, chain FROM trials WHERE epoch = ? AND seal IS NOT NULL ORDER BY seal DESC LIMIT 1",
                (trial.epoch,),
            ).fetchone()
            seal, previous = (1, first_link(trial.epoch)) if newest is None else (newest[0] + 1, newest[1])
            chain = Sealed(body, previous, b"").chain
            rows = db.execute(
                "UPDATE trials SET state = 'sealed', body = ?, previous = ?, chain = ?, signature = ?, seal = ?,"
                " recording = ?, recording_path = ? WHERE epoch = ? AND sequence = ? AND state = 'open'",
                (body, previous, chain, self._file.key.sign(chain), seal, trial.recording, str(recording_path or ""),
                 trial.epoch, trial.sequence),
            ).rowcount  # fmt: skip
            if rows != 1:
                raise LedgerError(f"trial {trial.identity} is not open here; it was sealed before, or begun elsewhere")
            db.execute("UPDATE assignments SET state = 'done' WHERE assignment_id = ?", (trial.assignment_id,))

    def open_trials(self) -> list[OpenTrial]:
        """Return the trials that were begun and never sealed."""
        with self._explained():
            rows = self._db.execute(
                "SELECT epoch, sequence, lease_id, assignment, opened_unix_s FROM trials"
                " WHERE state = 'open' ORDER BY number"
            ).fetchall()
        return [OpenTrial(row[0], row[1], row[2], decode(Assignment, row[3]), row[4]) for row in rows]

    def recover(
        self,
        now_unix_s: float,
        *,
        task: str,
        station_hash: str,
        calibration_hash: str,
        software: str,
        rescue: Callable[[OpenTrial], Rescued | None] = lambda trial: None,
    ) -> list[Trial]:
        """Seal what a crashed run left open as invalid with the cause `crash`, and return it. Call it at the start.

        `rescue` gives what was recorded of a trial, None where nothing was.
        """
        crashed = []
        for item in self.open_trials():
            rescued = rescue(item)
            trial = Trial(
                edge=self.edge,
                epoch=item.epoch,
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
                recording="" if rescued is None else rescued.sha256,
                recording_bytes=0 if rescued is None else rescued.size,
            )
            self.seal(trial, None if rescued is None else rescued.path)
            crashed.append(trial)
        return crashed

    # -- delivery -----------------------------------------------------------------------------------------------------

    def unacked(self, limit: int) -> list[Sealed]:
        """Return the oldest sealed trials that the coordinator has not acknowledged, all of one epoch."""
        with self._explained():
            rows = self._db.execute(
                f"SELECT body, previous, signature FROM trials WHERE state = 'sealed' AND epoch = ({OLDEST_UNACKED})"
                " ORDER BY number LIMIT ?",
                (limit,),
            ).fetchall()
        return [Sealed(*row) for row in rows]

    def unacked_key(self) -> str:
        """Return what the seals of `unacked` are checked with: Ed25519, hex; empty where there are none."""
        with self._explained():
            row = self._db.execute(f"SELECT public_key FROM epochs WHERE epoch = ({OLDEST_UNACKED})").fetchone()
        return "" if row is None else str(row[0])

    def acknowledge(self, identities: Iterable[Identity], now_unix_s: float = 0.0) -> None:
        """Mark trials that are on the coordinator's disk; identities of other ledgers are passed over."""
        mine = [(now_unix_s, epoch, sequence) for edge, epoch, sequence in identities if edge == self.edge]
        with self._transaction() as db:
            db.executemany(
                "UPDATE trials SET state = 'acked', acked_unix_s = ?"
                " WHERE epoch = ? AND sequence = ? AND state = 'sealed'",
                mine,
            )

    def refused(self, identity: Identity, reason: str) -> None:
        """Keep, but send no more, a trial that the coordinator will never take."""
        edge, epoch, sequence = identity
        if edge != self.edge:
            return
        with self._transaction() as db:
            db.execute(
                "UPDATE trials SET state = 'refused', refused_because = ?"
                " WHERE epoch = ? AND sequence = ? AND state = 'sealed'",
                (reason, epoch, sequence),
            )

    def held(self) -> list[Held]:
        """Return what was sealed here, epoch by epoch; the newest epoch comes last, even with nothing in it."""
        with self._explained():
            rows = self._db.execute(
                "SELECT epochs.epoch, COALESCE(MIN(sequence), 0), COALESCE(MAX(sequence), 0) FROM epochs"
                " LEFT JOIN trials ON trials.epoch = epochs.epoch AND seal IS NOT NULL"
                " GROUP BY epochs.number ORDER BY epochs.number"
            ).fetchall()
        return [Held(*row) for row in rows if row[2] or row == rows[-1]]

    def reopen(self, epoch: str, high: int, missing: Iterable[tuple[int, int]]) -> int:
        """Mark as unsent again what the coordinator does not have, whatever was marked before; return how many.

        Args:
            high: the coordinator's last number of that epoch.
            missing: ranges before it, both ends included.
        """
        ranges = [(epoch, low, last) for low, last in missing] + [(epoch, high + 1, 2**63 - 1)]
        with self._transaction() as db:
            return sum(
                db.execute(
                    "UPDATE trials SET state = 'sealed' WHERE epoch = ? AND sequence BETWEEN ? AND ?"
                    " AND state IN ('acked', 'replicated')",
                    item,
                ).rowcount
                for item in ranges
            )

    def replicated(self, epoch: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Mark acknowledged trials that a backup of the coordinator's holds; ranges include both ends."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE trials SET state = 'replicated'"
                " WHERE epoch = ? AND sequence BETWEEN ? AND ? AND state = 'acked'",
                [(epoch, low, last) for low, last in ranges],
            )

    def knows_less_than(self, epoch: str, high: int) -> bool:
        """Return whether the coordinator has a trial of the newest epoch that was never begun here."""
        return epoch == self.epoch and high > self._last(epoch)

    def begin_epoch(self) -> str:
        """Draw a new epoch for the trials from here on, and return it."""
        with self._transaction() as db:
            add_epoch(db, self._file.public_key)
        return self.epoch

    # -- recordings ---------------------------------------------------------------------------------------------------

    def unsent_recordings(self, limit: int) -> list[tuple[str, Path]]:
        """Return (sha256, path) of the oldest recordings of acknowledged trials that are still only here."""
        with self._explained():
            rows = self._db.execute(
                "SELECT recording, recording_path FROM trials WHERE state IN ('acked', 'replicated')"
                " AND recording != '' AND recording_state = 'here' ORDER BY number LIMIT ?",
                (limit,),
            ).fetchall()
        return [(row[0], Path(row[1])) for row in rows]

    def recording_sent(self, sha256: str) -> None:
        """Mark a recording that is on the coordinator's disk."""
        self._mark_recordings([sha256], "sent", ("here",))

    def recordings_lost(self, names: Iterable[str]) -> None:
        """Mark as unsent again recordings that the coordinator does not have."""
        self._mark_recordings(names, "here", ("sent", "replicated"))

    def recordings_replicated(self, names: Iterable[str]) -> None:
        """Mark recordings that a backup of the coordinator's holds."""
        self._mark_recordings(names, "replicated", ("sent",))

    def recordings_sent(self, limit: int) -> list[str]:
        """Return the sha256 of the oldest recordings that the coordinator has and no backup, as far as is known."""
        with self._explained():
            rows = self._db.execute(
                "SELECT recording FROM trials WHERE recording != '' AND recording_state = 'sent'"
                " ORDER BY number LIMIT ?",
                (limit,),
            ).fetchall()
        return [str(row[0]) for row in rows]

    def purgeable(self, under_pressure: bool, now_unix_s: float) -> list[tuple[int, Path]]:
        """Return (row, path) of the recordings whose files may be deleted, oldest first.

        A backup of the coordinator's holds them; under pressure also those that it has had for a week.
        """
        before_unix_s = now_unix_s - KEPT_UNDER_PRESSURE_S if under_pressure else -1.0
        with self._explained():
            rows = self._db.execute(
                "SELECT number, recording_path FROM trials WHERE recording != '' AND ("
                " (state = 'replicated' AND recording_state = 'replicated')"
                " OR (state IN ('acked', 'replicated') AND recording_state IN ('sent', 'replicated')"
                "     AND acked_unix_s < ?)) ORDER BY number",
                (before_unix_s,),
            ).fetchall()
        return [(row[0], Path(row[1])) for row in rows]

    def purged(self, row: int) -> None:
        """Mark a recording whose file is gone."""
        with self._transaction() as db:
            db.execute("UPDATE trials SET recording_state = 'purged' WHERE number = ?", (row,))

    # -----------------------------------------------------------------------------------------------------------------

    def _last(self, epoch: str) -> int:
        """Return the last number that was begun in an epoch, 0 before the first."""
        with self._explained():
            row = self._db.execute("SELECT COALESCE(MAX(sequence), 0) FROM trials WHERE epoch = ?", (epoch,)).fetchone()
        return int(row[0])

    def _mark_recordings(self, names: Iterable[str], state: str, before: Sequence[str]) -> None:
        marks = ", ".join("?" * len(before))
        with self._transaction() as db:
            db.executemany(  # without != '' SQLite would not use the index, and read all trials there ever were
                "UPDATE trials SET recording_state = ?"
                f" WHERE recording = ? AND recording != '' AND recording_state IN ({marks})",
                [(state, name, *before) for name in names],
            )

    def _void_expired(self, now_unix_s: float) -> None:
        with self._transaction() as db:
            db.execute(
                "UPDATE assignments SET state = 'void' WHERE state = 'pending'"
                " AND lease_id IN (SELECT lease_id FROM leases WHERE NOT expires_unix_s > ?)",
                (now_unix_s,),
            )

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._file.transaction()

    def _explained(self) -> AbstractContextManager[None]:
        return self._file.explained()
