"""An emulated bench in lock-step: one call of `advance` is one policy period of control, frames, motors and physics.

The same control loop, frames and perception as on a real arm; only the clock is counted instead of waited for, unless
a pace asks to wait.
"""

from __future__ import annotations

import time
from contextlib import suppress

from edge.control.loop import loop_of
from edge.emulation.world import World
from edge.messages import CONTROL_HZ, ArmState, Setpoint
from edge.perception.sights import SIGHTS
from edge.perception.tee import Image
from edge.station import Station
from firmware_bridge.frames import BusFull, BusGone, BusOff, Frames, no_frames
from policies.interface import POLICY_HZ, Scene

TICKS_PER_PERIOD = round(CONTROL_HZ / POLICY_HZ)


class EmulatedBench:
    """One station's drivers over a `World`; `pace` is the factor of real time to keep to, 0 for as fast as it goes."""

    def __init__(self, station: Station, world: World, pace: float = 0.0) -> None:
        self._world = world
        self._camera = station.calibration.top_camera
        self._see = SIGHTS[station.task]
        self._pace = pace
        self._wall_from_s = time.monotonic()
        self._station_from_s = 0.0
        self._control = loop_of(station)
        self.power_up()

    def power_up(self) -> None:
        """Ask the motors where they are, enable them there, and hold once stiffness has risen."""
        world = self._world
        world.bus.send(self._control.probe())
        world.bus.send(self._control.start(world.bus.receive(), world.now_ns))
        self._tick()
        while self._control.waking:
            self._tick()

    def advance(self, setpoint: Setpoint) -> ArmState:
        """Let one policy period pass on its way to `setpoint`."""
        self._control.set(setpoint, self._world.now_ns)
        for _ in range(TICKS_PER_PERIOD):
            self._tick()
        self._keep_pace()
        return self.state()

    def state(self) -> ArmState:
        """Return the newest measurement."""
        return self._control.state(self._world.now_ns)

    def look(self) -> tuple[Image, Scene]:
        """Take a picture; return it and what it shows."""
        picture = self._world.picture()
        return picture, Scene(self.now_s, self._see(picture, self._camera))

    def limit(self, station: Station) -> None:
        """Allow from now on what this station's limits and body allow."""
        self._control.limit(station.limits, station.body)

    @property
    def now_s(self) -> float:
        """Station time."""
        return self._world.now_ns * 1e-9

    def _tick(self) -> None:
        world = self._world
        commands = self._control.step(self._receive(), world.now_ns)
        with suppress(BusFull, BusOff, BusGone):  # a motor that hears nothing falls silent, which control notices
            world.bus.send(commands)
        world.tick()

    def _receive(self) -> Frames:
        try:
            return self._world.bus.receive()
        except (BusOff, BusGone):
            return no_frames()

    def _keep_pace(self) -> None:
        if self._pace > 0:
            ahead_s = (self.now_s - self._station_from_s) / self._pace - (time.monotonic() - self._wall_from_s)
            if ahead_s > 0:
                time.sleep(ahead_s)
            elif ahead_s < -1.0:  # after a wait for work the station does not hurry to catch up
                self._wall_from_s, self._station_from_s = time.monotonic(), self.now_s
