"""Hands in what agents ask for while they work, and watches what comes of it; for the thread that conducts a campaign.

- What may be asked for is counted by proposal. What was is in the table `plays`, so that no kill gives it back: an
  agent that was cut short goes on with what is left for the proposal that it has not made.
- The attempts are plays: published and signed like a candidate, journaled, made while nothing more urgent waits.
- A process that goes on knows nothing of requests that ran; their attempts are made, and nobody waits for them.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.agents.window import Request, Window
from coordinator.errors import CoordinatorError
from coordinator.evolution.ideas import Play
from coordinator.journal import Journal
from coordinator.store import Store

RECORDINGS_S = 10.0  # for the recordings of attempts that were made
SPENT = """
SELECT COALESCE(SUM(attempts), 0) FROM plays WHERE researcher = ?1 AND created_unix_s > (
    SELECT COALESCE(MAX(unix_s), 0) FROM campaign_log
    WHERE call = 'propose' AND json_extract(payload, '$.researcher') = ?1
)
"""
NEWEST = "SELECT bundle FROM plays WHERE researcher = ? ORDER BY play_id DESC LIMIT 1"
UNSEEN = """
SELECT COUNT(*) FROM trials
WHERE bundle = ? AND recording != '' AND recording NOT IN (SELECT sha256 FROM recordings)
"""
STATION_S = """
SELECT COALESCE(SUM(reset_s + trial_s), 0) FROM trials WHERE bundle IN (SELECT bundle FROM plays WHERE researcher = ?)
"""


class TrialDesk:
    """The windows of all lanes."""

    def __init__(self, store: Store, most: int) -> None:
        """Let each lane have `most` attempts a proposal, 0 for none."""
        self._store, self._most = store, most
        self._windows: dict[str, Window] = {}

    def window(self, lane: str) -> Window | None:
        """Return a lane's window; None where nothing may be asked for at all."""
        return self._windows.setdefault(lane, Window()) if self._most else None

    def begin(self, lane: str) -> None:
        """Open a lane's window for an assignment.

        Raises:
            StoreError: what was asked for before cannot be read.
        """
        if lane in self._windows:
            spent = int(self._store.rows(SPENT, lane)[0][0])
            self._windows[lane].begin(max(0, self._most - spent))

    def end(self, lane: str) -> None:
        """Close it; again changes nothing."""
        if lane in self._windows:
            self._windows[lane].end()

    def station_s(self, lane: str) -> float:
        """Return the station time that a lane's attempts took."""
        return float(self._store.rows(STATION_S, lane)[0][0])

    def serve(self, journal: Journal, now_unix_s: float) -> Iterator[str]:
        """Hand in what is asked for, end what has come, and yield what people are to be told.

        Raises:
            StoreError: the database cannot be read; the next time tries again.
        """
        for lane, window in self._windows.items():
            request = window.pending()
            if request is None:
                continue
            if not request.bundle:
                yield from self._hand_in(lane, window, request, journal, now_unix_s)
            elif journal.campaign.unmade(request.bundle) == 0 and self._seen(request, now_unix_s):
                window.end_request(request)

    def _hand_in(
        self, lane: str, window: Window, request: Request, journal: Journal, now_unix_s: float
    ) -> Iterator[str]:
        files, shown = dict(request.files), request.context
        if shown.incumbent_id != journal.campaign.incumbent.candidate_id:  # another one has moved in below the change
            files = {**shown.files, **files}
        try:
            reason = journal.play(Play(files, {}, request.attempts), lane, now_unix_s)
            bundle = "" if reason else str(self._store.rows(NEWEST, lane)[0][0])
        except CoordinatorError as error:
            # It may be in the campaign and not on the disk yet, so it is taken off what is left.
            window.handed_in(request, "")
            window.end_request(request, "the lab cannot publish it now")
            yield f"{lane}'s attempts cannot be published: {' '.join(str(error).split())}"
            return
        if reason:
            window.end_request(request, reason)
        else:
            window.handed_in(request, bundle)

    def _seen(self, request: Request, now_unix_s: float) -> bool:
        """Return whether the recordings of its attempts have come, or have had their time."""
        if request.made_unix_s is None:
            request.made_unix_s = now_unix_s
        late = now_unix_s - request.made_unix_s > RECORDINGS_S
        return late or self._store.rows(UNSEEN, request.bundle)[0][0] == 0
