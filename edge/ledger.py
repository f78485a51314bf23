"""The robot's own memory of its work: leases not yet done, trials not yet acknowledged, recordings not yet sent.

- One SQLite file (WAL, every commit on disk before it returns), opened by the station and by the uplink at once.
- A trial's row is committed `open` before the arm moves and `sealed` in one transaction when it ended. A run that
  crashed leaves an open row; `recover` seals it as invalid, so that no attempt is ever missing.
- A sealed trial is chained to the one sealed before it in its epoch and signed with the key of the process that seals.
- Nothing leaves the ledger before the coordinator has said that it is on its disk, and then it is only marked; what the
  coordinator turns out not to have is marked as unsent again, with its recording. Rows are never deleted; a
  recording's file may be, once a backup holds it, under pressure also a week after the coordinator got it.
- The epoch is drawn when the file is made, and anew when the coordinator knows more of it than the file does or other
  than the file says: a cloned card or a restored copy cannot reuse numbers. It is drawn anew as well for another key,
  as an epoch is believed under one key only.
- A trial whose number another has taken, or whose epoch is another key's, is sealed under a new number; its notes say
  under `was` which it had.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from edge.ledger_file import DiskFull, LedgerError, LedgerFile, add_epoch
from edge.records import Assignment, Lease, Outcome, Sealed, Trial, decode, encode, first_link

__all__ = ["Batch", "DiskFull", "Held", "Identity", "Ledger", "LedgerError", "OpenTrial", "Rescued"]

KEPT_UNDER_PRESSURE_S = 7 * 86400.0  # an acknowledged recording that no backup holds yet

# Takes the time before which the coordinator must have got what no backup holds. MAX is NULL where one of them is.
MAY_GO = (
    "recording != '' AND recording_state IN ('sent', 'replicated', 'purging')"
    " AND (recording_state = 'purging' OR (state = 'replicated' AND recording_state = 'replicated')"
    "     OR (state IN ('acked', 'replicated') AND MAX(acked_unix_s, sent_unix_s) < ?))"
)

Identity = tuple[str, str, int]


@dataclass(frozen=True)
class Batch:
    """The oldest trials that wait to be sent, all of one epoch and sealed with one key."""

    key: str  # Ed25519, hex; empty where there are none
    trials: Mapping[Identity, Sealed]  # oldest first


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

    def bundles_needed(self) -> set[str]:
        """Return the bundles of all assignments that are begun or may still be."""
        with self._explained():
            rows = self._db.execute("SELECT body FROM assignments WHERE state IN ('pending', 'open')").fetchall()
        return {decode(Assignment, row[0]).bundle for row in rows}

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
            epoch, sequence = self._next_number(db)
            db.execute(
                "INSERT INTO trials (epoch, sequence, lease_id, assignment, opened_unix_s) VALUES (?, ?, ?, ?, ?)",
                (epoch, sequence, lease_id, encode(assignment), now_unix_s),
            )
        return epoch, sequence

    def seal(self, trial: Trial, recording_path: Path | None) -> Trial:
        """Commit how an open trial ended; `recording_path` holds what `trial.recording` is the hash of.

        Return the trial as it was sealed: under a new number where its epoch is of another key than this process's.

        Raises:
            LedgerError: the trial is of another edge, or not open here.
        """
        if trial.edge != self.edge:
            raise LedgerError(f"trial {trial.identity} is not of this ledger, which is {self.edge}'s")
        with self._transaction() as db:
            row = db.execute(
                "SELECT trials.number, epochs.public_key FROM trials JOIN epochs USING (epoch)"
                " WHERE epoch = ? AND sequence = ? AND state = 'open'",
                (trial.epoch, trial.sequence),
            ).fetchone()
            if row is None:
                raise LedgerError(f"trial {trial.identity} is not open here; it was sealed before, or begun elsewhere")
            number, key = row
            if key != self._file.public_key:
                trial = _renumbered(trial, *self._next_number(db))
            db.execute(
                "UPDATE trials SET epoch = ?, sequence = ?, recording = ?, recording_path = ? WHERE number = ?",
                (trial.epoch, trial.sequence, trial.recording, str(recording_path or ""), number),
            )
            self._seal_row(db, number, trial)
            db.execute("UPDATE assignments SET state = 'done' WHERE assignment_id = ?", (trial.assignment_id,))
        return trial

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
            crashed.append(self.seal(trial, None if rescued is None else rescued.path))
        return crashed

    # -- delivery -----------------------------------------------------------------------------------------------------

    def batch(self, limit: int) -> Batch:
        """Return the oldest sealed trials that the coordinator has not acknowledged, of the oldest's epoch and key."""
        with self._explained():
            rows = self._db.execute(
                "SELECT epoch, sequence, public_key, body, previous, signature FROM trials WHERE state = 'sealed'"
                " AND (epoch, public_key) = (SELECT epoch, public_key FROM trials WHERE state = 'sealed'"
                " ORDER BY number LIMIT 1) ORDER BY number LIMIT ?",
                (limit,),
            ).fetchall()
        return Batch(rows[0][2] if rows else "", {(self.edge, row[0], row[1]): Sealed(*row[3:]) for row in rows})

    def unacked(self, limit: int) -> list[Sealed]:
        """Return the trials of `batch`."""
        return list(self.batch(limit).trials.values())

    def newest(self, limit: int) -> list[Trial]:
        """Return the trials that were sealed last, oldest first."""
        with self._explained():
            rows = self._db.execute(
                "SELECT body FROM trials WHERE body IS NOT NULL ORDER BY number DESC LIMIT ?", (limit,)
            ).fetchall()
        return [decode(Trial, row[0]) for row in reversed(rows)]

    def unacked_key(self) -> str:
        """Return what the seals of `unacked` are checked with: Ed25519, hex; empty where there are none."""
        return self.batch(1).key

    def acknowledge(self, identities: Iterable[Identity], now_unix_s: float) -> None:
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
        with self._transaction() as db:
            self._refuse(db, identity, reason)

    def forked(self, identity: Identity, reason: str) -> Trial | None:
        """Refuse a trial whose place another has taken, and seal what it says under a new number in another epoch.

        Return the new one; None where the trial does not wait to be sent, or was itself sealed for such a reason: who
        finds another in a place that was drawn at random would find one in the next as well.
        """
        with self._transaction() as db:
            row = self._refuse(db, identity, reason)
            if row is None:
                return None
            number, body = row
            trial = decode(Trial, body)
            if "forked" in trial.notes:
                return None
            if self.epoch == trial.epoch:
                add_epoch(db, self._file.public_key)
            trial = _renumbered(trial, *self._next_number(db), forked=reason)
            again = db.execute(
                "INSERT INTO trials (epoch, sequence, lease_id, assignment, opened_unix_s, recording, recording_path)"
                " SELECT ?, ?, lease_id, assignment, opened_unix_s, recording, recording_path FROM trials"
                " WHERE number = ?",
                (trial.epoch, trial.sequence, number),
            ).lastrowid
            assert again is not None
            self._seal_row(db, again, trial)
        return trial

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
        """Mark as unsent again what the coordinator does not have, with its recordings; return how many trials.

        Whatever was marked before, but a recording whose file is deleted stays so.

        Args:
            high: the coordinator's last number of that epoch.
            missing: ranges before it, both ends included.
        """
        ranges = [(epoch, low, last) for low, last in missing] + [(epoch, high + 1, 2**63 - 1)]
        with self._transaction() as db:
            return sum(
                db.execute(
                    "UPDATE trials SET state = 'sealed',"
                    " recording_state = CASE recording_state WHEN 'purged' THEN 'purged' ELSE 'here' END"
                    " WHERE epoch = ? AND sequence BETWEEN ? AND ?"
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

    def recording_sent(self, sha256: str, now_unix_s: float) -> None:
        """Mark a recording that is on the coordinator's disk."""
        with self._transaction() as db:
            db.execute(
                "UPDATE trials SET recording_state = 'sent', sent_unix_s = ?"
                " WHERE recording = ? AND recording != '' AND recording_state = 'here'",
                (now_unix_s, sha256),
            )

    def recordings_lost(self, names: Iterable[str]) -> None:
        """Mark as unsent again recordings that the coordinator does not have, but for those that are being deleted."""
        self._mark_recordings(names, "here", ("sent", "replicated"))

    def recordings_replicated(self, names: Iterable[str]) -> None:
        """Mark recordings that a backup of the coordinator's holds."""
        self._mark_recordings(names, "replicated", ("sent",))

    def recordings_away(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Return (row, sha256) of recordings that the coordinator has, as far as is known, and whose files are here.

        Args:
            after: only rows past this one, in their order.
        """
        with self._explained():
            return self._db.execute(
                "SELECT number, recording FROM trials INDEXED BY trials_with_recording_away WHERE recording != ''"
                " AND recording_state IN ('sent', 'replicated') AND number > ? ORDER BY number LIMIT ?",
                (after, limit),
            ).fetchall()

    def purgeable(self, under_pressure: bool, now_unix_s: float) -> list[tuple[int, Path]]:
        """Return (row, path) of the recordings whose files may be deleted, oldest first.

        A backup of the coordinator's holds them; under pressure also those that it has had for a week. Also those whose
        deletion was begun and never marked as done.
        """
        with self._explained():
            rows = self._db.execute(
                f"SELECT number, recording_path FROM trials WHERE {MAY_GO} ORDER BY number",
                (_before_unix_s(under_pressure, now_unix_s),),
            ).fetchall()
        return [(row[0], Path(row[1])) for row in rows]

    def begin_purge(self, row: int, under_pressure: bool, now_unix_s: float) -> bool:
        """Commit that a recording's file is about to be deleted; return False where it may no longer be."""
        with self._transaction() as db:
            return bool(
                db.execute(
                    f"UPDATE trials SET recording_state = 'purging' WHERE {MAY_GO} AND number = ?",
                    (_before_unix_s(under_pressure, now_unix_s), row),
                ).rowcount
            )

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

    def _next_number(self, db: sqlite3.Connection) -> tuple[str, int]:
        """Return the epoch and number of the next trial; an epoch of another key is followed by one of this key's."""
        newest = db.execute("SELECT public_key FROM epochs ORDER BY number DESC LIMIT 1").fetchone()[0]
        if newest != self._file.public_key:
            add_epoch(db, self._file.public_key)
        epoch = self.epoch
        return epoch, self._last(epoch) + 1

    def _seal_row(self, db: sqlite3.Connection, number: int, trial: Trial) -> None:
        """Chain, sign and seal the trial of an open row."""
        newest = db.execute(
            "SELECT seal, chain FROM trials WHERE epoch = ? AND seal IS NOT NULL ORDER BY seal DESC LIMIT 1",
            (trial.epoch,),
        ).fetchone()
        seal, previous = (1, first_link(trial.epoch)) if newest is None else (newest[0] + 1, newest[1])
        body = encode(trial)
        chain = Sealed(body, previous, b"").chain
        db.execute(
            "UPDATE trials SET state = 'sealed', body = ?, previous = ?, chain = ?, signature = ?, public_key = ?,"
            " seal = ? WHERE number = ?",
            (body, previous, chain, self._file.key.sign(chain), self._file.public_key, seal, number),
        )

    def _refuse(self, db: sqlite3.Connection, identity: Identity, reason: str) -> tuple[int, bytes] | None:
        """Mark a trial that waits to be sent as refused and return its row and body; None where there is none."""
        edge, epoch, sequence = identity
        if edge != self.edge:
            return None
        rows = db.execute(
            "UPDATE trials SET state = 'refused', refused_because = ?"
            " WHERE epoch = ? AND sequence = ? AND state = 'sealed' RETURNING number, body",
            (reason, epoch, sequence),
        ).fetchall()
        return rows[0] if rows else None

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


def _renumbered(trial: Trial, epoch: str, sequence: int, **notes: str) -> Trial:
    """Return a trial under a new number, with its old one in its notes."""
    was = f"{trial.epoch}/{trial.sequence}"
    return replace(trial, epoch=epoch, sequence=sequence, notes={**trial.notes, **notes, "was": was})


def _before_unix_s(under_pressure: bool, now_unix_s: float) -> float:
    """Return before when the coordinator must have got what no backup holds, for its file to be deleted."""
    return now_unix_s - KEPT_UNDER_PRESSURE_S if under_pressure else float("-inf")
