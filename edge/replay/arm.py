"""An arm without physics: a station's real control loop, and motors whose shafts stand wherever they are told to.

Loop and motors exchange real frames, so that codec, kernel and guard all take part; only weight, friction and the
shafts' lag are left out.
"""

from __future__ import annotations

import numpy as np

from edge.control.loop import loop_of
from edge.messages import CONTROL_HZ, MOTORS, ArmState, Setpoint
from edge.station import Station
from firmware_bridge.motors import EmulatedBus, MotorBank
from policies.interface import POLICY_HZ, Array

WAKE_NS = 1_000_000_000  # more than stiffness takes to rise
EPOCH_NS = 10 * WAKE_NS  # added to the recording's times, so that waking before the first of them is not before zero
STILL = np.zeros(MOTORS)


class IdealArm:
    """One station's arm; times are the recording's, in nanoseconds."""

    def __init__(self, station: Station) -> None:
        rate_hz = CONTROL_HZ if station.can is None else station.can.rate_hz
        arm = station.arm
        self._gripper = arm.gripper
        self._direction = arm.direction
        self._zero_rad = np.append(station.calibration.joint_zero_rad, 0.0)
        self._tick_ns = round(1e9 / rate_hz)
        self._ticks_per_period = round(rate_hz / POLICY_HZ)
        self._now_ns = 0
        self._loop = loop_of(station, rate_hz)
        self._bank = MotorBank(arm.motor_types, arm.esc_ids, arm.mst_ids)
        self._shafts = self._zero_rad.copy()
        self._bus = EmulatedBus(self._bank, lambda: (self._shafts, STILL, STILL), lambda: self._now_ns)

    def wake(self, joints_rad: Array, gripper_m: float, time_ns: int) -> None:
        """Put the arm at a pose and enable it there, so that at `time_ns` it is stiff and holds.

        Raises:
            ControlError: the pose is outside the limits.
        """
        motors = np.append(joints_rad, self._gripper.motor_rad(gripper_m))
        self._shafts[:] = motors * self._direction + self._zero_rad
        self._now_ns = time_ns + EPOCH_NS - WAKE_NS
        self._bus.receive()  # answers to what came before the arm was moved
        self._bus.send(self._loop.probe())
        self._bus.send(self._loop.start(self._bus.receive(), self._now_ns))
        self.run_to(time_ns)

    def run_to(self, time_ns: int) -> None:
        """Let control periods pass until the one nearest to `time_ns`."""
        while self._now_ns + self._tick_ns / 2 <= time_ns + EPOCH_NS:
            self._tick()

    def ask(self, joints_rad: Array, gripper_m: float, expires_ns: int) -> None:
        """Give the next setpoint."""
        self._loop.set(Setpoint(joints_rad, gripper_m, expires_ns + EPOCH_NS), self._now_ns)

    def limit(self, station: Station) -> None:
        """Allow from now on what this station's limits and body allow."""
        self._loop.limit(station.limits, station.body)

    def advance(self, setpoint: Setpoint) -> ArmState:
        """Let one policy period pass on its way to `setpoint`, as a bench of `edge.trials.robot` does."""
        self.ask(setpoint.position_rad, setpoint.gripper_m, setpoint.expires_ns)
        for _ in range(self._ticks_per_period):
            self._tick()
        return self.state()

    def state(self) -> ArmState:
        """Return the newest measurement."""
        state = self._loop.state(self._now_ns)
        return ArmState(
            state.time_ns - EPOCH_NS,
            state.position_rad,
            state.velocity_rad_s,
            state.torque_nm,
            state.gripper_m,
            state.fault,
        )

    @property
    def fault(self) -> str:
        """One sentence about what stopped the arm, empty while nothing has."""
        return self._loop.fault

    @property
    def admitted_rad(self) -> Array:
        """The pose that the guard let through last, (6,)."""
        return self._loop.admitted_rad

    def _tick(self) -> None:
        self._now_ns += self._tick_ns
        self._bus.send(self._loop.step(self._bus.receive(), self._now_ns))
        stiff = self._bank.kp > 0.0
        self._shafts[stiff] = self._bank.p_des[stiff]
