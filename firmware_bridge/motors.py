"""Emulated DaMiao motors: bytes in, bytes out, the state a real motor keeps, and no physics.

A physics world gives them the shafts (position, velocity, torque) and takes from them what the motor law needs.

- One frame to a motor is answered by one feedback frame: the new status, but the sample from before the command acts.
- Only an enabled motor (status 1) acts; any other is damped by its shorted windings.
- Enable works from status 0 and 1 only; a latched fault needs clear-error first, and clear-error disarms.
- Leaving status 1 forgets the command.
- While enabled, silence of `watchdog_ticks` (50 us each) latches "communication lost"; any frame to the motor feeds it.
- A frame of another mode's identifier family feeds the watchdog and is answered, and does nothing else.

Source: the maker's host software and a reverse-engineered firmware; never compared with a real motor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from firmware_bridge import damiao
from firmware_bridge.compiled import sources_of
from firmware_bridge.damiao import (
    COMMAND_FIELDS,
    KD,
    KP,
    POSITION,
    TORQUE,
    VELOCITY,
    WATCHDOG_TICK_NS,
    WATCHDOG_TICKS,
    Floats,
    Ints,
    decode_command,
    encode_feedback,
    read_id,
    scales,
)
from firmware_bridge.frames import FRAME_BYTES, Frames, no_frames

SOURCES = sources_of(damiao)
DISABLED, ENABLED, COMMUNICATION_LOST = 0x0, 0x1, 0xD
CLEAR_ERROR, ENABLE, DISABLE, SET_ZERO = 0xFB, 0xFC, 0xFD, 0xFE
ROOM_C = (30, 32)  # MOSFET and coil of a motor that never warms

Shafts = tuple[Floats, Floats, Floats]  # position rad, velocity rad/s, torque N m, (n,) each


class MotorBank:
    """The motors of one bus.

    `kp`, `kd`, `p_des` (shaft frame), `v_des`, `tau_ff` and `enabled` are live read-only views for a physics world:
    torque = tau_ff + kp (p_des - p) + kd (v_des - v) where enabled; all are zero where not.
    """

    def __init__(
        self, types: Sequence[str], esc_ids: Sequence[int], mst_ids: Sequence[int], watchdog_ticks: int = WATCHDOG_TICKS
    ) -> None:
        count = len(types)
        self._scale = scales(types)
        self._esc_ids = np.array(esc_ids, dtype=np.int64)
        self._mst_ids = np.array(mst_ids, dtype=np.int64)
        self._timeout_ns = watchdog_ticks * WATCHDOG_TICK_NS
        self._command = np.zeros((count, COMMAND_FIELDS))
        self._zero_rad = np.zeros(count)
        self._status = np.zeros(count, dtype=np.uint8)
        self._enabled = np.zeros(count, dtype=np.bool_)
        self._fed_ns = np.zeros(count, dtype=np.int64)
        self._temperature = np.tile(np.array(ROOM_C, dtype=np.uint8), (count, 1))
        self.kp, self.kd = _view(self._command[:, KP]), _view(self._command[:, KD])
        self.p_des, self.v_des = _view(self._command[:, POSITION]), _view(self._command[:, VELOCITY])
        self.tau_ff = _view(self._command[:, TORQUE])
        self.enabled: NDArray[np.bool_] = self._enabled.view()
        self.enabled.flags.writeable = False
        self.status: NDArray[np.uint8] = self._status.view()
        self.status.flags.writeable = False

    def exchange(self, frames: Frames, now_ns: int, position: Floats, velocity: Floats, torque: Floats) -> Frames:
        """Take frames (m, 16) in order at `now_ns` and return the replies (at most m, 16).

        Args:
            position: (n,) shaft angles now, rad; the motors report them from their own zero, wrapped to their range.
            velocity: (n,) rad/s.
            torque: (n,) N m that the motors give now.
        """
        replies = np.empty((frames.shape[0], FRAME_BYTES), dtype=np.uint8)
        count = _exchange(
            frames,
            now_ns,
            position,
            velocity,
            torque,
            self._esc_ids,
            self._mst_ids,
            self._scale,
            self._timeout_ns,
            self._command,
            self._zero_rad,
            self._status,
            self._enabled,
            self._fed_ns,
            self._temperature,
            replies,
        )
        return replies[: int(count)]

    def tick(self, now_ns: int) -> None:
        """Let the watchdogs run to `now_ns`."""
        _expire(now_ns, self._timeout_ns, self._command, self._zero_rad, self._status, self._enabled, self._fed_ns)

    def inject(self, motor: int, status: int) -> None:
        """Latch a fault in one motor (from 0), as if the motor had found it itself."""
        _leave(motor, status, self._command, self._zero_rad, self._status, self._enabled)


class EmulatedBus:
    """The bus with a `MotorBank` at its end: what is sent is answered at once.

    `read_shafts` returns position, velocity and torque, (n,) each; `read_now_ns` the time.
    """

    def __init__(self, bank: MotorBank, read_shafts: Callable[[], Shafts], read_now_ns: Callable[[], int]) -> None:
        self._bank = bank
        self._read_shafts = read_shafts
        self._read_now_ns = read_now_ns
        self._waiting: list[Frames] = []

    def send(self, frames: Frames) -> None:
        """Send every row of `frames` (n, 16), in order."""
        self._waiting.append(self._bank.exchange(frames, self._read_now_ns(), *self._read_shafts()))

    def receive(self) -> Frames:
        """Return all replies that wait, oldest first, (n, 16)."""
        waiting, self._waiting = self._waiting, []
        if len(waiting) == 1:
            return waiting[0]
        return np.concatenate(waiting) if waiting else no_frames()


def _view(column: Floats) -> Floats:
    view = column.view()
    view.flags.writeable = False
    return view


@njit(cache=True)
def _exchange(
    frames: Frames,
    now_ns: int,
    position: Floats,
    velocity: Floats,
    torque: Floats,
    esc_ids: Ints,
    mst_ids: Ints,
    scale: Floats,
    timeout_ns: int,
    command: Floats,
    zero_rad: Floats,
    status: NDArray[np.uint8],
    enabled: NDArray[np.bool_],
    fed_ns: Ints,
    temperature: Frames,
    replies: Frames,
    sources: int = SOURCES,
) -> int:
    """Answer frames in order and return how many replies were written; `sources` only keys numba's cache."""
    _expire(now_ns, timeout_ns, command, zero_rad, status, enabled, fed_ns)
    sample = np.empty(3)
    count = 0
    for at in range(frames.shape[0]):
        row = frames[at]
        identifier = read_id(row)
        motor = _addressed(identifier, row[4], esc_ids)
        if motor < 0:
            continue
        fed_ns[motor] = now_ns
        span = 2.0 * scale[motor, 0]
        sample[0] = (position[motor] - zero_rad[motor] + scale[motor, 0]) % span - scale[motor, 0]
        sample[1], sample[2] = velocity[motor], torque[motor]
        if identifier == esc_ids[motor]:
            _obey(row, motor, position[motor], scale[motor], command, zero_rad, status, enabled)
        encode_feedback(
            replies[count], mst_ids[motor], esc_ids[motor], status[motor], sample, scale[motor], temperature[motor]
        )
        count += 1
    return count


@njit(cache=True)
def _addressed(identifier: int, length: int, esc_ids: Ints) -> int:
    """Return the motor that a frame is for, or -1: the low byte names the motor, bits 8..10 the command family."""
    if length != 8 or identifier > 0x7FF:
        return -1
    for motor in range(esc_ids.shape[0]):
        if esc_ids[motor] == identifier & 0xFF:
            return motor
    return -1


@njit(cache=True)
def _obey(
    row: Frames,
    motor: int,
    shaft_rad: float,
    scale: Floats,
    command: Floats,
    zero_rad: Floats,
    status: NDArray[np.uint8],
    enabled: NDArray[np.bool_],
) -> None:
    special = row[15] if (row[8:15] == 0xFF).all() else 0
    if special == ENABLE:
        if status[motor] == DISABLED:
            status[motor] = ENABLED
            enabled[motor] = True
    elif special == DISABLE:
        if status[motor] == ENABLED:
            _leave(motor, DISABLED, command, zero_rad, status, enabled)
    elif special == CLEAR_ERROR:
        _leave(motor, DISABLED, command, zero_rad, status, enabled)
    elif special == SET_ZERO:
        zero_rad[motor] = shaft_rad
        command[motor, POSITION] = shaft_rad
    elif enabled[motor]:
        decode_command(row, scale, command[motor])
        command[motor, POSITION] += zero_rad[motor]


@njit(cache=True)
def _leave(
    motor: int,
    new_status: int,
    command: Floats,
    zero_rad: Floats,
    status: NDArray[np.uint8],
    enabled: NDArray[np.bool_],
) -> None:
    """Leave the enabled state: the command is forgotten."""
    status[motor] = new_status
    enabled[motor] = False
    command[motor] = 0.0
    command[motor, POSITION] = zero_rad[motor]


@njit(cache=True)
def _expire(
    now_ns: int,
    timeout_ns: int,
    command: Floats,
    zero_rad: Floats,
    status: NDArray[np.uint8],
    enabled: NDArray[np.bool_],
    fed_ns: Ints,
) -> None:
    for motor in range(status.shape[0]):
        if enabled[motor] and timeout_ns > 0 and now_ns - fed_ns[motor] >= timeout_ns:
            _leave(motor, COMMUNICATION_LOST, command, zero_rad, status, enabled)
