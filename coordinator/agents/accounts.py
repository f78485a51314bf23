"""What the agents of a run have cost: in the ledger at once, in the database and in the purse as it is followed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from coordinator.agents.calls import Book
from coordinator.agents.ledger import FILE, Ledger, read_calls
from coordinator.agents.mirror import Mirror, led_to
from coordinator.agents.purse import Cost, Purse
from coordinator.store import Store


class Accounts:
    """The ledger of a run, and its image in the database."""

    def __init__(self, folder: Path, store: Store, purse: Purse) -> None:
        """Go on after what the ledger holds, and take that from the purse.

        Raises:
            OSError: the ledger cannot be opened.
            StoreError: the database takes nothing.
        """
        self._path, self._store = folder / FILE, store
        self._ledger: Ledger | None = None
        self._mirror = Mirror(self._path, store)
        self.nano_usd: Counter[str] = Counter()  # by lane
        for call in read_calls(self._path) if self._path.exists() else ():
            purse.book(Cost(calls=0), Cost((call.told + call.guessed).total, call.nano_usd))
        self.follow()

    @property
    def book(self) -> Book:
        """What writes a call down, from any thread; the ledger is made where there is none."""
        if self._ledger is None:
            self._ledger = Ledger(self._path)
        return self._ledger

    def follow(self) -> None:
        """Copy what is new into the database.

        Raises:
            OSError, StoreError: it cannot be; the next time tries again.
        """
        for call in self._mirror.follow():
            self.nano_usd[call.lane] += call.nano_usd

    def led_to(self, lane: str, since_unix_s: float) -> None:
        """Note that a lane's calls since then have led to its newest hypothesis."""
        query = "SELECT MAX(hypothesis_id) FROM hypotheses WHERE researcher = ?"
        newest = self._store.rows(query, lane)[0][0]
        if newest is not None:
            led_to(self._store, lane, newest, since_unix_s)

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()
