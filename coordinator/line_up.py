"""Lets stations that run as fast as they can begin together.

The first station goes ahead and compiles for all. Were it given work while the others start, its clock would stay ahead
of theirs by that for ever, and a campaign's time is that of the clock with the most. A station that does not come holds
the others up for a while only.
"""

from __future__ import annotations

from collections.abc import Callable

LONGEST_S = 120.0
SHARE_OF_BUDGET = 0.25  # no more of a short campaign than that


class LineUp:
    """Whether a station gets work yet."""

    def __init__(self, wanted: bool, budget_s: float) -> None:
        """Wait for all stations, for a while, where that is `wanted`."""
        self._longest_s = min(LONGEST_S, SHARE_OF_BUDGET * budget_s)
        self.over = not wanted

    def may_work(self, started_for_s: float | None, work_is_out: bool, all_ready: Callable[[], bool]) -> bool:
        """Return whether an attempt may be handed out now.

        Args:
            started_for_s: since the other stations were started; None while the first one goes ahead, with one attempt.
            work_is_out: whether an attempt that was handed out is waited for.
            all_ready: whether every station that can run is there to begin.
        """
        if not self.over and started_for_s is not None:
            self.over = all_ready() or started_for_s > self._longest_s
        return self.over or (started_for_s is None and not work_is_out)
