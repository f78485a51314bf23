"""What every station says that it does, and what it has delivered: for the display, and to know who is away."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgpack

from coordinator.rollouts import Rollout, read_rollouts
from edge.records import Outcome, Trial

SPEED_SAMPLES = 20  # statuses, half a second apart
RATE_OVER_S = 60.0
MOST_FAILED_RESETS = 3  # trials in a row; a station that cannot reset its scene only uses up numbers and disk
REST_S = 30.0


@dataclass
class StationView:
    """One station as seen from here."""

    edge: str
    state: str = "starting"
    detail: str = ""
    refusal: str = ""
    here: bool = False
    away_since_unix_s: float | None = None
    memory_mb: float = 0.0
    peak_memory_mb: float = 0.0
    last_sequence: int = 0  # of a trial that was begun, as the station says
    trials: int = 0
    successes: int = 0
    invalid: int = 0
    failed_resets: int = 0  # in a row
    resting_until_unix_s: float = 0.0  # it gets no work before then
    rollouts: dict[str, Rollout] = field(default_factory=dict)  # by bundle
    clocks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SPEED_SAMPLES))

    @property
    def speed(self) -> float:
        """Station time over wall time in the last few seconds, 0 while unknown."""
        if len(self.clocks) < 2:
            return 0.0
        (wall_a, station_a), (wall_b, station_b) = self.clocks[0], self.clocks[-1]
        return (station_b - station_a) / (wall_b - wall_a) if wall_b > wall_a else 0.0


class Roster:
    """The stations of a run by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._views = {name: StationView(name) for name in names}
        self._delivered_unix_s: deque[float] = deque()
        self.delivered_count = 0

    @property
    def stations(self) -> list[StationView]:
        """All of them, by name."""
        return [self._views[name] for name in sorted(self._views)]

    def view(self, edge: str) -> StationView:
        """Return the station of that name, new if it was never heard of."""
        return self._views.setdefault(edge, StationView(edge))

    def presence(self, edge: str, here: bool, now_unix_s: float) -> None:
        """Note that a station's uplink came or went."""
        view = self.view(edge)
        view.here = here
        view.away_since_unix_s = None if here else now_unix_s

    def away(self, longer_than_s: float, now_unix_s: float) -> list[str]:
        """Return the stations that have been gone for longer than that; each is named once."""
        gone = []
        for view in self._views.values():
            if view.away_since_unix_s is not None and now_unix_s - view.away_since_unix_s > longer_than_s:
                view.away_since_unix_s = None
                gone.append(view.edge)
        return gone

    def status(self, edge: str, payload: bytes) -> list[Rollout]:
        """Take in a status, and return what has changed about policies on that station.

        One that is none is passed over, as the next comes in half a second.
        """
        try:
            said = msgpack.unpackb(payload)
            clock = (float(said["wall_unix_s"]), float(said["station_time_s"]))
            view = self.view(edge)
            view.state, view.detail, view.refusal = str(said["state"]), str(said["detail"]), str(said["refusal"])
            view.last_sequence = max(view.last_sequence, int(said["sequence"]))
            self.memory(edge, float(said["memory_mb"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, msgpack.UnpackException):
            return []
        changed = [item for item in read_rollouts(edge, said.get("rollouts")) if view.rollouts.get(item.bundle) != item]
        view.rollouts |= {item.bundle: item for item in changed}
        if view.clocks and clock[1] < view.clocks[-1][1]:
            view.clocks.clear()  # it started anew
        if not view.clocks or clock[0] > view.clocks[-1][0]:
            view.clocks.append(clock)
        return changed

    def memory(self, edge: str, memory_mb: float) -> None:
        """Note what a station's processes use."""
        view = self.view(edge)
        view.memory_mb = memory_mb
        view.peak_memory_mb = max(view.peak_memory_mb, memory_mb)

    def delivered(self, trial: Trial, now_unix_s: float) -> None:
        """Count a trial that was kept."""
        self.delivered_count += 1
        self._delivered_unix_s.append(now_unix_s)
        view = self.view(trial.edge)
        view.failed_resets = view.failed_resets + 1 if trial.cause == "reset" else 0
        if view.failed_resets >= MOST_FAILED_RESETS:
            view.resting_until_unix_s = now_unix_s + REST_S
        if trial.outcome is Outcome.INVALID:
            view.invalid += 1
        else:
            view.trials += 1
            view.successes += trial.outcome is Outcome.SUCCESS

    def per_minute(self, now_unix_s: float, since_unix_s: float) -> float:
        """Return how many trials came per minute, over the last minute or since `since_unix_s` where that is less."""
        from_unix_s = max(now_unix_s - RATE_OVER_S, since_unix_s)
        while self._delivered_unix_s and self._delivered_unix_s[0] < from_unix_s:
            self._delivered_unix_s.popleft()
        return 60.0 * len(self._delivered_unix_s) / max(now_unix_s - from_unix_s, 1.0)
