"""What a station may be worn for play alone; beyond it the station rests until something is to be decided."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

HOUR_S = 3600.0


@dataclass(frozen=True)
class WearBudget:
    """Of each station; 0 sets no bound."""

    play_per_hour: int = 0  # attempts of the incumbent that no test waits for
    station_minutes: float = 0.0  # in all, after which there is no more play


class Wear:
    """What each station was worn for."""

    def __init__(self, budget: WearBudget) -> None:
        self._budget = budget
        self._played_unix_s: dict[str, deque[float]] = defaultdict(deque)
        self._station_s: dict[str, float] = defaultdict(float)

    def worked(self, edge: str, station_s: float) -> None:
        """Note an attempt's station time, of its reset too."""
        self._station_s[edge] += station_s

    def may_play(self, edge: str, now_s: float) -> bool:
        """Return whether the station may run an attempt of the incumbent that no test waits for."""
        played = self._played_unix_s[edge]
        while played and played[0] <= now_s - HOUR_S:
            played.popleft()
        fresh = not self._budget.play_per_hour or len(played) < self._budget.play_per_hour
        return fresh and (
            not self._budget.station_minutes or self._station_s[edge] < 60.0 * self._budget.station_minutes
        )

    def played(self, edge: str, now_s: float) -> None:
        """Note such an attempt."""
        self._played_unix_s[edge].append(now_s)
