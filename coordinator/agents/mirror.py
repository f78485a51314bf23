"""Keeps the table `token_use` of a run's database in step with the ledger of its agents' calls.

- Line n of the ledger is row n of the table, so a line that was copied before adds nothing, by whomever it was copied.
- The ledger is the first to know: a call is on the disk there before its answer goes on. What a kill left out of the
  table is put there by the next mirror.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from coordinator.agents.calls import Call
from coordinator.agents.ledger import parse, token_use
from coordinator.errors import CoordinatorError
from coordinator.rows import insert
from coordinator.store import Store


class LedgerDiffers(CoordinatorError):
    """The ledger and the table tell of different calls."""


class Mirror:
    """One ledger and one database; to be used by the thread that writes the database."""

    def __init__(self, path: Path, store: Store) -> None:
        """Begin with the first line of the file at `path`, which need not be there yet."""
        self._path, self._store = path, store
        self._read_bytes = 0
        self._lines = 0

    def follow(self) -> list[Call]:
        """Copy the lines that were added since the last time, and return their calls; the first time all of them.

        Raises:
            OSError: the ledger cannot be read.
            LedgerDiffers: the table holds another call in a line's place; nothing is copied.
            StoreError: the database cannot be written; the next time tries again.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # a line may be half written as yet
        calls = [parse(line) for line in whole.split(b"\n")[:-1]]
        if calls:
            with self._store.transaction() as db:
                self._copy(db, calls)
        self._read_bytes += len(whole)
        self._lines += len(calls)
        return calls

    def _copy(self, db: sqlite3.Connection, calls: list[Call]) -> None:
        first = self._lines + 1
        there = dict(db.execute("SELECT token_use_id, unix_s FROM token_use WHERE token_use_id >= ?", (first,)))
        for number, call in enumerate(calls, first):
            if number not in there:
                insert(db, "token_use", {"token_use_id": number, **token_use(call)})
            elif there[number] != call.unix_s:
                raise LedgerDiffers(
                    f"call {number} in {self._path} is not the one in the database; the file belongs to another run"
                )


def led_to(store: Store, lane: str, hypothesis_id: int, since_unix_s: float) -> None:
    """Note the hypothesis that a lane's calls since then have led to, where none is noted.

    Raises:
        StoreError: it cannot be written, or there is no such hypothesis.
    """
    with store.transaction() as db:
        db.execute(
            "UPDATE token_use SET hypothesis_id = ? WHERE researcher = ? AND hypothesis_id IS NULL AND unix_s >= ?",
            (hypothesis_id, lane, since_unix_s),
        )
