"""How long a campaign has run, over all processes that ran it: what its budget counts."""

from __future__ import annotations

from coordinator.store import Store


class Session:
    """One process that runs a campaign."""

    def __init__(self, store: Store, now_unix_s: float) -> None:
        """Begin a session; what was counted before stays counted.

        Raises:
            StoreError: it cannot be written.
        """
        self._store = store
        self.before_s = float(store.rows("SELECT COALESCE(SUM(ran_s), 0) FROM campaign_sessions")[0][0])
        with store.transaction() as db:
            made = db.execute("INSERT INTO campaign_sessions (began_unix_s, ran_s) VALUES (?, 0)", (now_unix_s,))
        self._id = made.lastrowid

    def ran(self, seconds: float) -> None:
        """Keep how long this session has run; what a kill can take is what came since the last call.

        Raises:
            StoreError: it cannot be written.
        """
        with self._store.transaction() as db:
            db.execute("UPDATE campaign_sessions SET ran_s = MAX(ran_s, ?) WHERE session_id = ?", (seconds, self._id))
