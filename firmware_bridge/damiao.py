"""The bytes that DaMiao motors speak: commands of four modes and special frames out, feedback frames back.

- MIT and feedback fields are unsigned integers, most significant bit first; n bits span a range with 2^n - 1 steps.
- The other modes' frames are little-endian and have their own identifiers: 0x100, 0x200 or 0x300 above the motor's.
- Encoding clamps, then truncates, in float64, multiplying before dividing, so that the bytes equal the maker's host's.
- A number that is not finite never becomes bytes: the encoder refuses it.
- Every frame to a motor is answered by one feedback frame on its reply identifier.

Source: the maker's host software and the vendor manuals, as collected in the project's facts on the YAM arm.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from firmware_bridge.frames import FRAME_BYTES, BridgeError, Frames, can_id, frame

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KP_MAX = 500.0
KD_MAX = 5.0
WATCHDOG_TICK_NS = 50_000
WATCHDOG_TICKS = 8000  # factory setting, 0.4 s
# Columns of a command row; a sample row is position, velocity, torque.
POSITION, VELOCITY, KP, KD, TORQUE = 0, 1, 2, 3, 4
COMMAND_FIELDS = 5
# FORCE_POS carries its two limits as whole hundredths of rad/s and ten-thousandths of the driver's greatest current.
FORCE_SPEED_STEPS, FORCE_CURRENT_STEPS, FORCE_STEPS_MAX = 100.0, 10_000.0, 10_000


class NotEncodable(BridgeError):
    """A command that holds a number which is not finite, or a limit below zero."""


class NotFeedback(BridgeError):
    """A frame that is not the feedback of the expected motor."""


class Status(IntEnum):
    """Upper nibble of the first feedback byte; any other value is a fault too."""

    DISABLED = 0x0
    ENABLED = 0x1
    OVER_VOLTAGE = 0x8
    UNDER_VOLTAGE = 0x9
    OVER_CURRENT = 0xA
    MOSFET_TOO_HOT = 0xB
    COIL_TOO_HOT = 0xC
    COMMUNICATION_LOST = 0xD
    OVERLOAD = 0xE


class Special(IntEnum):
    """Last byte of a special frame, after seven 0xFF."""

    CLEAR_ERROR = 0xFB
    ENABLE = 0xFC
    DISABLE = 0xFD
    SET_ZERO = 0xFE


class Mode(IntEnum):
    """Value of the register CTRL_MODE; a mode's command identifiers begin at 0x100 times (mode - 1)."""

    MIT = 1
    POS_VEL = 2
    VEL = 3
    FORCE_POS = 4


@dataclass(frozen=True)
class MotorType:
    """The ranges that the fields of one motor type span, symmetric about zero, and its gear ratio where known."""

    position_rad: float
    velocity_rad_s: float
    torque_nm: float
    gear_ratio: float | None = None

    @property
    def scale(self) -> tuple[float, float, float]:
        """The ranges alone."""
        return (self.position_rad, self.velocity_rad_s, self.torque_nm)


HOST_PI = 3.1415926  # as the hosts write it
# The scale lives in registers 21..23 of each motor, and hosts disagree (DM4340: 8 or 10 rad/s; DM3507: 30 or 50);
# the YAM maker's where it has the type, else openarm's and lerobot's.
MOTOR_TYPES = {
    "DM3507": MotorType(12.5, 50.0, 5.0, 7.0),
    "DM4310": MotorType(12.5, 30.0, 10.0, 10.0),
    "DM4310V": MotorType(HOST_PI, 30.0, 10.0, 10.0),
    "DM4310_48V": MotorType(12.5, 50.0, 10.0),
    "DM4340": MotorType(12.5, 10.0, 28.0, 40.0),
    "DM6006": MotorType(12.5, 45.0, 20.0),
    "DM6248": MotorType(12.5, 20.0, 120.0, 48.0),
    "DM8006": MotorType(12.5, 45.0, 40.0),
    "DM8009": MotorType(12.5, 45.0, 54.0, 9.0),
    "DM10010": MotorType(12.5, 20.0, 200.0),
    "DM10010L": MotorType(12.5, 25.0, 200.0),
    "DMG6220": MotorType(12.5, 45.0, 10.0),
    "DMH3510": MotorType(12.5, 280.0, 1.0),
    "DMH6215": MotorType(HOST_PI, 30.0, 10.0),
    "DMH6215MIT": MotorType(12.5, 45.0, 10.0),
    "DM_FLOW_WHEEL": MotorType(HOST_PI, 30.0, 10.0, 10.0),
}


@dataclass(frozen=True)
class Command:
    """The MIT law's inputs: torque = torque_nm + kp (position - p) + kd (velocity - v)."""

    position_rad: float
    velocity_rad_s: float
    kp: float
    kd: float
    torque_nm: float


@dataclass(frozen=True)
class Feedback:
    """What one feedback frame says."""

    status: int
    position_rad: float
    velocity_rad_s: float
    torque_nm: float
    mosfet_c: int
    coil_c: int


def status_name(status: int) -> str:
    """Return the status in words."""
    return Status(status).name.lower().replace("_", " ") if status in set(Status) else f"unknown status {status:#x}"


def scales(types: Sequence[str]) -> Floats:
    """Return the ranges of these motor types, (n, 3): position, velocity, torque.

    Raises:
        BridgeError: an unknown type.
    """
    unknown = sorted(set(types) - MOTOR_TYPES.keys())
    if unknown:
        raise BridgeError(f"unknown motor type {', '.join(unknown)} (known: {', '.join(MOTOR_TYPES)})")
    return np.array([MOTOR_TYPES[name].scale for name in types], dtype=np.float64)


def special_frames(esc_ids: Sequence[int], special: Special) -> Frames:
    """Return the same special frame for each motor, (n, 16)."""
    return np.stack([frame(esc_id, b"\xff" * 7 + bytes([special])) for esc_id in esc_ids])


def position_velocity_frame(esc_id: int, position_rad: float, speed_rad_s: float) -> Frames:
    """Return the POS_VEL frame, (16,): go to `position_rad`, no faster than `speed_rad_s`.

    Raises:
        NotEncodable: a number that is not finite as a float32, or a speed below zero.
    """
    _refuse_below_zero(esc_id, "speed limit", speed_rad_s)
    return frame(_command_id(Mode.POS_VEL, esc_id), _f32(esc_id, position_rad) + _f32(esc_id, speed_rad_s))


def velocity_frame(esc_id: int, velocity_rad_s: float) -> Frames:
    """Return the VEL frame, (16,), in its four-byte form.

    Raises:
        NotEncodable: the velocity is not finite as a float32.
    """
    return frame(_command_id(Mode.VEL, esc_id), _f32(esc_id, velocity_rad_s))


def force_position_frame(esc_id: int, position_rad: float, speed_rad_s: float, current_share: float) -> Frames:
    """Return the FORCE_POS frame, (16,): POS_VEL with at most `current_share` (0..1) of the driver's greatest current.

    Raises:
        NotEncodable: a number that is not finite, or a limit below zero.
    """
    limits = b""
    for name, value, steps in (
        ("speed limit", speed_rad_s, FORCE_SPEED_STEPS),
        ("current limit", current_share, FORCE_CURRENT_STEPS),
    ):
        _refuse_below_zero(esc_id, name, value)
        limits += struct.pack("<H", int(min(value * steps, FORCE_STEPS_MAX)))
    return frame(_command_id(Mode.FORCE_POS, esc_id), _f32(esc_id, position_rad) + limits)


def _command_id(mode: Mode, esc_id: int) -> int:
    return (mode - 1) << 8 | esc_id


def _f32(esc_id: int, value: float) -> bytes:
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise NotEncodable(f"motor {esc_id}: {value} is not finite as a float32")
    return struct.pack("<f", value)


def _refuse_below_zero(esc_id: int, name: str, value: float) -> None:
    if not 0.0 <= value < math.inf:
        raise NotEncodable(f"motor {esc_id}: {name} {value} is not a finite number from zero up")


def encode_command(motor: MotorType, esc_id: int, command: Command) -> Frames:
    """Return the MIT frame of one command, (16,).

    Raises:
        NotEncodable: a number in it is not finite.
    """
    out = np.zeros((1, FRAME_BYTES), dtype=np.uint8)
    fields = np.array([astuple(command)], dtype=np.float64)
    if encode_commands(fields, np.array([motor.scale]), np.array([esc_id]), out) >= 0:
        raise NotEncodable(f"motor {esc_id}: {command} holds a number that is not finite")
    row: Frames = out[0]
    return row


def decode_feedback(motor: MotorType, esc_id: int, mst_id: int, row: Frames) -> Feedback:
    """Return what one feedback frame of this motor says.

    Raises:
        NotFeedback: other identifier, other length or another motor's nibble.
    """
    sample, temperature = np.zeros((1, 3)), np.zeros((1, 2), dtype=np.uint8)
    status, fresh = np.zeros(1, dtype=np.uint8), np.zeros(1, dtype=np.uint8)
    ids = np.array([mst_id]), np.array([esc_id])
    if decode_samples(row.reshape(1, FRAME_BYTES), *ids, np.array([motor.scale]), sample, temperature, status, fresh):
        raise NotFeedback(
            f"frame {can_id(row):#x} {row.tobytes().hex()} is no feedback of motor {esc_id} on {mst_id:#x}"
        )
    position_rad, velocity_rad_s, torque_nm = sample[0].tolist()
    mosfet_c, coil_c = temperature[0].tolist()
    return Feedback(int(status[0]), position_rad, velocity_rad_s, torque_nm, mosfet_c, coil_c)


@njit(cache=True)
def to_raw(value: float, low: float, high: float, bits: int) -> int:
    """Return the field of a finite `value`: clamped, truncated."""
    clamped = min(max(value, low), high)
    return int((clamped - low) * ((1 << bits) - 1) / (high - low))


@njit(cache=True)
def from_raw(raw: int, low: float, high: float, bits: int) -> float:
    """Return the value of a field."""
    return raw * (high - low) / ((1 << bits) - 1) + low


@njit(cache=True)
def encode_commands(commands: Floats, scale: Floats, esc_ids: Ints, out: Frames) -> int:
    """Write one MIT frame a row of `commands` (n, 5) into `out` (n, 16).

    Returns:
        -1, or the first row with a number that is not finite; then nothing was written.
    """
    for row in range(commands.shape[0]):
        for field in range(COMMAND_FIELDS):
            if not math.isfinite(commands[row, field]):
                return row
    for row in range(commands.shape[0]):
        position = to_raw(commands[row, POSITION], -scale[row, 0], scale[row, 0], 16)
        velocity = to_raw(commands[row, VELOCITY], -scale[row, 1], scale[row, 1], 12)
        kp = to_raw(commands[row, KP], 0.0, KP_MAX, 12)
        kd = to_raw(commands[row, KD], 0.0, KD_MAX, 12)
        torque = to_raw(commands[row, TORQUE], -scale[row, 2], scale[row, 2], 12)
        write_header(out[row], esc_ids[row])
        out[row, 8] = position >> 8
        out[row, 9] = position & 0xFF
        out[row, 10] = velocity >> 4
        out[row, 11] = (velocity & 0xF) << 4 | kp >> 8
        out[row, 12] = kp & 0xFF
        out[row, 13] = kd >> 4
        out[row, 14] = (kd & 0xF) << 4 | torque >> 8
        out[row, 15] = torque & 0xFF
    return -1


@njit(cache=True)
def write_header(row: Frames, identifier: int) -> None:
    """Write the identifier and the length 8 of one frame."""
    row[:8] = 0
    row[0] = identifier & 0xFF
    row[1] = identifier >> 8
    row[4] = 8


@njit(cache=True)
def read_id(row: Frames) -> int:
    """Return the identifier of one frame, flags included."""
    return int(row[0]) | int(row[1]) << 8 | int(row[2]) << 16 | int(row[3]) << 24


@njit(cache=True)
def f32_from_word(word: int) -> float:
    """Return the float32 with these 32 bits."""
    words = np.empty(1, dtype=np.uint32)
    words[0] = word
    return float(words.view(np.float32)[0])


@njit(cache=True)
def word_from_f32(value: float) -> int:
    """Return the 32 bits of `value` as a float32."""
    values = np.empty(1, dtype=np.float32)
    values[0] = value
    return int(values.view(np.uint32)[0])


@njit(cache=True)
def read_word(row: Frames, at: int) -> int:
    """Return the little-endian u32 at byte `at` of a frame's data."""
    start = 8 + at
    return int(row[start]) | int(row[start + 1]) << 8 | int(row[start + 2]) << 16 | int(row[start + 3]) << 24


@njit(cache=True)
def write_word(row: Frames, at: int, word: int) -> None:
    """Write a little-endian u32 at byte `at` of a frame's data."""
    for byte in range(4):
        row[8 + at + byte] = word >> (8 * byte) & 0xFF


@njit(cache=True)
def decode_command(row: Frames, scale: Floats, command: Floats) -> None:
    """Read the MIT command in one frame (16,) into `command` (5,), with the ranges `scale` (3,) of its motor."""
    b0, b1, b2, b3 = int(row[8]), int(row[9]), int(row[10]), int(row[11])
    b4, b5, b6, b7 = int(row[12]), int(row[13]), int(row[14]), int(row[15])
    command[POSITION] = from_raw(b0 << 8 | b1, -scale[0], scale[0], 16)
    command[VELOCITY] = from_raw(b2 << 4 | b3 >> 4, -scale[1], scale[1], 12)
    command[KP] = from_raw((b3 & 0xF) << 8 | b4, 0.0, KP_MAX, 12)
    command[KD] = from_raw(b5 << 4 | b6 >> 4, 0.0, KD_MAX, 12)
    command[TORQUE] = from_raw((b6 & 0xF) << 8 | b7, -scale[2], scale[2], 12)


@njit(cache=True)
def decode_samples(
    frames: Frames,
    mst_ids: Ints,
    esc_ids: Ints,
    scale: Floats,
    sample: Floats,
    temperature: Frames,
    status: NDArray[np.uint8],
    fresh: NDArray[np.uint8],
) -> int:
    """Read feedback frames (m, 16) into the rows of their motors; a later frame of the same motor wins.

    Args:
        sample: (n, 3) position, velocity, torque; the row of a motor without a frame keeps its values.
        temperature: (n, 2) degrees Celsius of MOSFET and coil.
        fresh: (n,) 1 where a frame came, 0 elsewhere.

    Returns:
        how many frames were nobody's: unknown identifier, wrong length or another motor's nibble.
    """
    fresh[:] = 0
    rejected = 0
    for at in range(frames.shape[0]):
        row = frames[at]
        identifier = read_id(row)
        motor = -1
        for candidate in range(mst_ids.shape[0]):
            if mst_ids[candidate] == identifier:
                motor = candidate
        if motor < 0 or row[4] != 8 or (int(row[8]) & 0xF) != (esc_ids[motor] & 0xF):
            rejected += 1
            continue
        b1, b2, b3, b4, b5 = int(row[9]), int(row[10]), int(row[11]), int(row[12]), int(row[13])
        status[motor] = int(row[8]) >> 4
        sample[motor, 0] = from_raw(b1 << 8 | b2, -scale[motor, 0], scale[motor, 0], 16)
        sample[motor, 1] = from_raw(b3 << 4 | b4 >> 4, -scale[motor, 1], scale[motor, 1], 12)
        sample[motor, 2] = from_raw((b4 & 0xF) << 8 | b5, -scale[motor, 2], scale[motor, 2], 12)
        temperature[motor, 0] = row[14]
        temperature[motor, 1] = row[15]
        fresh[motor] = 1
    return rejected


@njit(cache=True)
def encode_feedback(
    row: Frames, mst_id: int, esc_id: int, status: int, sample: Floats, scale: Floats, temperature: Frames
) -> None:
    """Write the feedback frame of one motor into `row` (16,); the motor's side of `decode_samples`."""
    position = to_raw(sample[0], -scale[0], scale[0], 16)
    velocity = to_raw(sample[1], -scale[1], scale[1], 12)
    torque = to_raw(sample[2], -scale[2], scale[2], 12)
    write_header(row, mst_id)
    row[8] = status << 4 | (esc_id & 0xF)
    row[9] = position >> 8
    row[10] = position & 0xFF
    row[11] = velocity >> 4
    row[12] = (velocity & 0xF) << 4 | torque >> 8
    row[13] = torque & 0xFF
    row[14] = temperature[0]
    row[15] = temperature[1]
