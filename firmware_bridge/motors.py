"""Emulated DaMiao motors: bytes in, bytes out, the state a real motor keeps, and no physics.

A physics world gives them the shafts (position, velocity, torque) and takes from them what the motor law needs.

- One frame to a motor is answered by one frame: the new status, but the sample from before the command acts.
- Only an enabled motor (status 1) acts; any other is damped by its shorted windings.
- Enable works from status 0 and 1 only; a latched fault needs clear-error first, and clear-error disarms.
- Leaving status 1 forgets the command, and so does a change of mode.
- A command acts in its own mode only. In another it does nothing; whether it is answered is a switch, because sources
  disagree.
- While enabled, silence of TIMEOUT (50 us each, 0 is off) latches "communication lost". Any frame to the motor's own
  identifiers feeds it; register frames do not.
- A coil at OT_Value or a MOSFET at 120 degrees for 0.4 s latches its fault.
- Registers answer as on a real motor: read-only ones keep their value, an invalid value is not taken, a save works on a
  disabled motor only, a power cycle brings back what was saved. Identifiers, scale and mode act at the write.
- POS_VEL, VEL and FORCE_POS are a simplification: one spring and damper in place of the cascaded loops, and a goal that
  runs ahead of the shaft by no more than speed and torque limit allow, moved whenever frames are exchanged.

Source: the maker's host software and a reverse-engineered firmware; never compared with a real motor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from firmware_bridge import damiao, registers
from firmware_bridge.compiled import sources_of
from firmware_bridge.damiao import (
    COMMAND_FIELDS,
    FORCE_CURRENT_STEPS,
    FORCE_SPEED_STEPS,
    KD,
    KP,
    POSITION,
    TORQUE,
    VELOCITY,
    WATCHDOG_TICK_NS,
    WATCHDOG_TICKS,
    Floats,
    decode_command,
    encode_feedback,
    f32_from_word,
    read_id,
    read_word,
    scales,
    word_from_f32,
    write_header,
    write_word,
)
from firmware_bridge.frames import FRAME_BYTES, Frames, no_frames
from firmware_bridge.registers import REGISTER_ID, REGISTER_SPACE, UNWRITTEN, WRITABLE, Register, factory_words

SOURCES = sources_of(damiao, registers)
# Compiled code takes no enumerations: their members as plain numbers.
DISABLED, ENABLED, MOSFET_TOO_HOT, COIL_TOO_HOT, COMMUNICATION_LOST = 0x0, 0x1, 0xB, 0xC, 0xD
CLEAR_ERROR, ENABLE, DISABLE, SET_ZERO = 0xFB, 0xFC, 0xFD, 0xFE
MIT, POS_VEL, VEL, FORCE_POS = 1, 2, 3, 4
READ, WRITE, SAVE, REFRESH = 0x33, 0x55, 0xAA, 0xCC
OT_VALUE, MST_ID, ESC_ID, TIMEOUT, CTRL_MODE, GR, PMAX, CAN_BR, P_M, XOUT = 2, 7, 8, 9, 10, 20, 21, 35, 80, 81
IS_WRITABLE = np.array([rid in {int(each) for each in WRITABLE} for rid in range(REGISTER_SPACE)])
IS_WHOLE = np.array([rid in {int(each) for each in registers.WHOLE} for rid in range(REGISTER_SPACE)])

ROOM_C = (30.0, 32.0)  # MOSFET and coil of a motor that nobody warms
MOSFET_TRIP_C = 120.0
HOT_NS = 400_000_000  # 8000 ticks of the 20 kHz current loop
COIL_LIMITS_C = (80.0, 200.0)  # what OT_Value takes, the upper end excluded
CAN_BR_MAX = 9
TURN_RAD = 2.0 * math.pi
# Spring and damper of the position and velocity modes, by the motor's torque range. No source gives them; these are
# stiff enough to hold the arm and well damped with the arm's inertia.
SERVO_KP_PER_RAD, SERVO_KD_S_PER_RAD = 5.0, 0.2

MOTOR = np.dtype(
    [
        # What the registers say, ready for use.
        ("esc_id", np.int64),
        ("mst_id", np.int64),
        ("mode", np.int64),
        ("timeout_ns", np.int64),
        ("scale", np.float64, 3),
        ("coil_limit_c", np.float64),
        # What was commanded, in the shaft's frame.
        ("command", np.float64, COMMAND_FIELDS),
        ("goal_rad", np.float64),  # of the position modes
        ("reach_rad", np.float64),  # how far the command may run ahead of the shaft; 0 in the other modes
        # How the motor stands.
        ("zero_rad", np.float64),
        ("fed_ns", np.int64),
        ("hot_ns", np.int64, 2),  # since when MOSFET and coil are too hot, -1 where they are not
        ("warmth_c", np.float64, 2),  # MOSFET, coil
        ("temperature", np.uint8, 2),  # the same as the motor reports it
        ("status", np.uint8),
        ("enabled", np.bool_),
        ("answers_wrong_mode", np.bool_),
        ("words", np.uint32, REGISTER_SPACE),
        ("flash", np.uint32, REGISTER_SPACE),
        # Empty; its name is part of the signature and so keys numba's cache (see firmware_bridge.compiled).
        (f"sources_{SOURCES:08x}", np.uint8),
    ],
    align=True,
)
Motors = NDArray[Any]  # rows of MOTOR
Motor = Any  # one row, as compiled code sees it
Shafts = tuple[Floats, Floats, Floats]  # position rad, velocity rad/s, torque N m, (n,) each


class MotorBank:
    """The motors of one bus, as delivered.

    `kp`, `kd`, `p_des` (shaft frame), `v_des`, `tau_ff` and `enabled` are live read-only views for a physics world:
    torque = tau_ff + kp (p_des - p) + kd (v_des - v) where enabled; all are zero where not.
    Motors are numbered from 0.

    Raises:
        BridgeError: an unknown motor type.
    """

    def __init__(
        self,
        types: Sequence[str],
        esc_ids: Sequence[int],
        mst_ids: Sequence[int],
        watchdog_ticks: int = WATCHDOG_TICKS,
        answers_wrong_mode: bool = True,
    ) -> None:
        scales(types)  # refuses unknown types by name
        self._motors: Motors = np.zeros(len(types), dtype=MOTOR)
        for motor, name, esc_id, mst_id in zip(self._motors, types, esc_ids, mst_ids, strict=True):
            motor["flash"] = factory_words(name, esc_id, mst_id, watchdog_ticks)
        self._motors["answers_wrong_mode"] = answers_wrong_mode
        for motor in range(len(types)):
            self.power_cycle(motor)
        command = self._motors["command"]
        self.kp, self.kd = _view(command[:, KP]), _view(command[:, KD])
        self.p_des, self.v_des = _view(command[:, POSITION]), _view(command[:, VELOCITY])
        self.tau_ff = _view(command[:, TORQUE])
        self.enabled: NDArray[np.bool_] = _view(self._motors["enabled"])
        self.status: NDArray[np.uint8] = _view(self._motors["status"])

    def exchange(self, frames: Frames, now_ns: int, position: Floats, velocity: Floats, torque: Floats) -> Frames:
        """Take frames (m, 16) in order at `now_ns` and return the replies (at most m, 16).

        Args:
            position: (n,) shaft angles now, rad; the motors report them from their own zero, wrapped to their range.
            velocity: (n,) rad/s.
            torque: (n,) N m that the motors give now.
        """
        replies = np.empty((frames.shape[0], FRAME_BYTES), dtype=np.uint8)
        count = _exchange(frames, now_ns, position, velocity, torque, self._motors, replies)
        return replies[: int(count)]

    def tick(self, now_ns: int) -> None:
        """Let watchdogs and hot motors' clocks run to `now_ns`."""
        _pass_time(now_ns, self._motors)

    def inject(self, motor: int, status: int) -> None:
        """Latch a fault in one motor, as if the motor had found it itself."""
        _leave(self._motors[motor], status)

    def warm(self, motor: int, mosfet_c: float, coil_c: float) -> None:
        """Set the temperatures of one motor until they are set anew; it reports whole degrees in 0..255."""
        row = self._motors[motor]
        row["warmth_c"] = mosfet_c, coil_c
        row["temperature"] = np.clip(row["warmth_c"], 0.0, 255.0)

    def boot_turns(self, motor: int, turns: int) -> None:
        """Let one motor count `turns` more whole turns than its shaft has made, as after power-off."""
        row = self._motors[motor]
        for part in ("zero_rad", "goal_rad"):
            row[part] -= turns * TURN_RAD
        row["command"][POSITION] -= turns * TURN_RAD

    def power_cycle(self, motor: int) -> None:
        """Start one motor anew: disabled, at room temperature, with the registers that are in its flash."""
        row = self._motors[motor]
        row["words"] = row["flash"]
        _leave(row, DISABLED)
        _adopt(row)
        row["hot_ns"] = -1
        self.warm(motor, *ROOM_C)

    def word(self, motor: int, register: Register) -> int:
        """Return the 32 bits in one register."""
        return int(self._motors[motor]["words"][register])

    def set_word(self, motor: int, register: Register, word: int) -> None:
        """Put 32 bits into any register, read-only ones too, as if this were another motor."""
        self._motors[motor]["words"][register] = word
        _adopt(self._motors[motor])


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


def _view(column: NDArray[Any]) -> NDArray[Any]:
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
    motors: Motors,
    replies: Frames,
) -> int:
    """Answer frames in order and return how many replies were written."""
    _pass_time(now_ns, motors)
    for which in range(motors.shape[0]):
        _run_ahead(motors[which], position[which])
    sample = np.empty(3)
    count = 0
    for at in range(frames.shape[0]):
        row = frames[at]
        identifier = read_id(row)
        which = _addressed(row, identifier, motors)
        if which < 0:
            continue
        motor = motors[which]
        scale = motor["scale"]
        sample[0] = (position[which] - motor["zero_rad"] + scale[0]) % (2.0 * scale[0]) - scale[0]
        sample[1], sample[2] = velocity[which], torque[which]
        if identifier == REGISTER_ID:
            _serve(row, motor, sample, replies[count])
            count += 1
        elif _obey(row, identifier, now_ns, position[which], motor):
            _report(motor, sample, replies[count])
            count += 1
    return count


@njit(cache=True)
def _addressed(row: Frames, identifier: int, motors: Motors) -> int:
    """Return the motor that a frame is for, or -1.

    The low byte of the identifier names the motor, bits 8..10 the mode; in a register frame the data name it.
    """
    length = row[4]
    esc_id = int(row[8]) | int(row[9]) << 8 if identifier == REGISTER_ID else identifier & 0xFF
    short = (identifier == REGISTER_ID and row[10] == SAVE) or identifier >> 8 == VEL - 1
    if identifier > REGISTER_ID or not (length == 8 or (length == 4 and short)):
        return -1
    for which in range(motors.shape[0]):
        if motors[which]["esc_id"] == esc_id:
            return which
    return -1


@njit(cache=True)
def _report(motor: Motor, sample: Floats, reply: Frames) -> None:
    """Write ordinary feedback."""
    encode_feedback(
        reply, motor["mst_id"], motor["esc_id"], motor["status"], sample, motor["scale"], motor["temperature"]
    )


@njit(cache=True)
def _obey(row: Frames, identifier: int, now_ns: int, shaft_rad: float, motor: Motor) -> bool:
    """Act on a frame to the motor's own identifiers and return whether it is answered."""
    motor["fed_ns"] = now_ns
    mode = (identifier >> 8) + 1
    special = row[15] if mode == MIT and (row[8:15] == 0xFF).all() else 0
    if CLEAR_ERROR <= special <= SET_ZERO:
        _obey_special(special, shaft_rad, motor)
    elif mode != motor["mode"]:
        return bool(motor["answers_wrong_mode"])
    elif motor["enabled"]:
        _take_command(row, mode, shaft_rad, motor)
    return True


@njit(cache=True)
def _obey_special(special: int, shaft_rad: float, motor: Motor) -> None:
    if special == ENABLE:
        if motor["status"] == DISABLED:
            motor["status"] = ENABLED
            motor["enabled"] = True
    elif special == DISABLE:
        if motor["status"] == ENABLED:
            _leave(motor, DISABLED)
    elif special == CLEAR_ERROR:
        _leave(motor, DISABLED)
    else:
        motor["zero_rad"] = shaft_rad
        motor["goal_rad"] = shaft_rad
        motor["command"][POSITION] = shaft_rad


@njit(cache=True)
def _take_command(row: Frames, mode: int, shaft_rad: float, motor: Motor) -> None:
    """Take the command of the present mode; one with a number that is not finite changes nothing."""
    if mode == MIT:
        decode_command(row, motor["scale"], motor["command"])
        motor["command"][POSITION] += motor["zero_rad"]
        return
    value = f32_from_word(read_word(row, 0))
    if mode == VEL:
        if math.isfinite(value):
            _servo(motor, 0.0, value)
        return
    torque_nm = motor["scale"][2]
    speed_rad_s = f32_from_word(read_word(row, 4))
    if mode == FORCE_POS:
        speed_rad_s = (int(row[12]) | int(row[13]) << 8) / FORCE_SPEED_STEPS
        # The driver's greatest current gives about the greatest torque that the scale can say.
        torque_nm *= min(1.0, (int(row[14]) | int(row[15]) << 8) / FORCE_CURRENT_STEPS)
    if math.isfinite(value) and math.isfinite(speed_rad_s):
        kp = SERVO_KP_PER_RAD * motor["scale"][2]
        _servo(motor, kp, 0.0)
        motor["goal_rad"] = value + motor["zero_rad"]
        # With this spring a free shaft settles at the speed where the damper takes it all, a held one at the torque.
        motor["reach_rad"] = min(torque_nm, motor["command"][KD] * abs(speed_rad_s)) / kp
        motor["command"][POSITION] = shaft_rad
        _run_ahead(motor, shaft_rad)


@njit(cache=True)
def _servo(motor: Motor, kp: float, velocity_rad_s: float) -> None:
    """Let spring and damper of the motor's own loops act."""
    command = motor["command"]
    command[KP], command[KD] = kp, SERVO_KD_S_PER_RAD * motor["scale"][2]
    command[VELOCITY], command[TORQUE] = velocity_rad_s, 0.0


@njit(cache=True)
def _run_ahead(motor: Motor, shaft_rad: float) -> None:
    """Move the command of a position mode towards its goal, as far ahead of the shaft as its limits allow."""
    reach_rad = motor["reach_rad"]
    if reach_rad > 0.0:
        motor["command"][POSITION] = shaft_rad + min(max(motor["goal_rad"] - shaft_rad, -reach_rad), reach_rad)


@njit(cache=True)
def _serve(row: Frames, motor: Motor, sample: Floats, reply: Frames) -> None:
    """Answer a register frame; a save takes effect on a disabled motor only, and is answered the same way if not."""
    op, rid = int(row[10]), int(row[11])
    if op == REFRESH and not 1 <= rid <= 3:
        _report(motor, sample, reply)
        return
    if op == WRITE and _is_taken(rid, read_word(row, 4)):
        motor["words"][rid] = read_word(row, 4)
        _adopt(motor)
    elif op == SAVE and motor["status"] == DISABLED:
        motor["flash"][:] = motor["words"]
    write_header(reply, motor["mst_id"])
    write_word(reply, 0, int(motor["esc_id"]))
    reply[10], reply[11] = op, rid
    if op == SAVE:
        reply[4] = 4
        reply[12:16] = 0
    else:
        word = word_from_f32(sample[rid - 1]) if op == REFRESH else _answer(motor, rid, sample[0])
        write_word(reply, 4, word)


@njit(cache=True)
def _answer(motor: Motor, rid: int, position_rad: float) -> int:
    """Return what a register answers; where there is none, what unwritten flash does."""
    if rid == XOUT:
        return word_from_f32(position_rad)
    if rid == P_M:
        return word_from_f32(position_rad * f32_from_word(motor["words"][GR]))
    return int(motor["words"][rid]) if rid < REGISTER_SPACE else UNWRITTEN


@njit(cache=True)
def _is_taken(rid: int, word: int) -> bool:
    """Return whether a write is accepted: a writable register and a value that it can hold."""
    if rid >= REGISTER_SPACE or not IS_WRITABLE[rid]:
        return False
    if rid == CTRL_MODE:
        return MIT <= word <= FORCE_POS
    if rid == ESC_ID:
        return 0 < word <= 0xFF
    if rid == MST_ID:
        return 0 < word < REGISTER_ID
    if rid == CAN_BR:
        return word <= CAN_BR_MAX
    if IS_WHOLE[rid]:
        return True
    value = f32_from_word(word)
    if rid == OT_VALUE:
        return COIL_LIMITS_C[0] <= value < COIL_LIMITS_C[1]
    return math.isfinite(value) and (value > 0.0 or not PMAX <= rid <= PMAX + 2)


@njit(cache=True)
def _adopt(motor: Motor) -> None:
    """Let the registers act. What no write could have put there (unwritten flash) leaves its use as it was."""
    words = motor["words"]
    if _is_taken(ESC_ID, words[ESC_ID]):
        motor["esc_id"] = words[ESC_ID]
    if _is_taken(MST_ID, words[MST_ID]):
        motor["mst_id"] = words[MST_ID]
    if _is_taken(CTRL_MODE, words[CTRL_MODE]) and motor["mode"] != words[CTRL_MODE]:
        motor["mode"] = words[CTRL_MODE]
        _forget(motor)
    for part in range(3):
        if _is_taken(PMAX + part, words[PMAX + part]):
            motor["scale"][part] = f32_from_word(words[PMAX + part])
    motor["timeout_ns"] = int(words[TIMEOUT]) * WATCHDOG_TICK_NS
    motor["coil_limit_c"] = f32_from_word(words[OT_VALUE])


@njit(cache=True)
def _leave(motor: Motor, new_status: int) -> None:
    """Leave the enabled state: the command is forgotten."""
    motor["status"] = new_status
    motor["enabled"] = False
    _forget(motor)


@njit(cache=True)
def _forget(motor: Motor) -> None:
    motor["command"][:] = 0.0
    motor["command"][POSITION] = motor["goal_rad"] = motor["zero_rad"]
    motor["reach_rad"] = 0.0


@njit(cache=True)
def _pass_time(now_ns: int, motors: Motors) -> None:
    for which in range(motors.shape[0]):
        motor = motors[which]
        if motor["enabled"] and motor["timeout_ns"] > 0 and now_ns - motor["fed_ns"] >= motor["timeout_ns"]:
            _leave(motor, COMMUNICATION_LOST)
        _heat(motor, 0, MOSFET_TRIP_C, MOSFET_TOO_HOT, now_ns)
        _heat(motor, 1, motor["coil_limit_c"], COIL_TOO_HOT, now_ns)


@njit(cache=True)
def _heat(motor: Motor, part: int, limit_c: float, fault: int, now_ns: int) -> None:
    """Latch `fault` once a motor without one has been too hot for long enough."""
    if not (motor["status"] <= ENABLED and motor["warmth_c"][part] >= limit_c):
        motor["hot_ns"][part] = -1
    elif motor["hot_ns"][part] < 0:
        motor["hot_ns"][part] = now_ns
    elif now_ns - motor["hot_ns"][part] >= HOT_NS:
        _leave(motor, fault)
