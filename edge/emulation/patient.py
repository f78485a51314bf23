"""An emulated arm for the doctor: its motors on their bus, and time that passes only when waited for."""

from __future__ import annotations

from edge.emulation.world import TICK_NS, World
from edge.station import Station


class EmulatedArm:
    """A `Patient` in a world of its own, drawn from the station's seed; without power a stand holds it."""

    def __init__(self, station: Station) -> None:
        self._world = World(station, station.emulation.seed if station.emulation is not None else 0)
        self.bus = self._world.bus

    def wait(self, seconds: float) -> None:
        """Let the world go on; while no motor is enabled the stand holds the arm."""
        for _ in range(max(round(seconds * 1e9 / TICK_NS), 1)):
            if self._world.bank.enabled.any():
                self._world.tick()

    def now_ns(self) -> int:
        """Return the world's time."""
        return self._world.now_ns
